"""Made rows stay with their origin, copies of other splits are refused, and the same input gives the same bytes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.verify import verify_files
from multimodal.data.samples import Samples
from multimodal.data.schema import Schema
from multimodal.data.tables.open import open_table
from multimodal.media.outline import contour_graph
from multimodal.prepare.copied_table import CopiedTable
from multimodal.prepare.synthesize import pipeline
from multimodal.prepare.synthesize.outcome import Synthesized
from multimodal.prepare.synthesize.outlines import OutlineVariants, cell_of, normalized_graph
from multimodal.prepare.synthesize.pictures import PictureVariants
from multimodal.prepare.synthesize.settings import Settings
from multimodal.prepare.synthesize.table import synthesize_table

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file")
COLOURS, KINDS = ["red", "blue", "green", "black"], ["cup", "plate", "bowl"]
COLUMNS = {"text": "title"}
TEMPLATES = ["a {colour} {kind}", "{kind} ({colour})"]
Write = Callable[[Sequence[Mapping[str, Any]]], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_csv(rows: Sequence[Mapping[str, Any]]) -> Path:
        path = tmp_path / "shop.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            table.writeheader()
            table.writerows(rows)
        return path

    return to_csv


def shop(count: int = 24) -> list[dict[str, str]]:
    rows = []
    for n in range(count):
        colour, kind = COLOURS[n % 4], KINDS[n % 3]
        row = {"sku": f"s{n}", "title": f"my {kind} no. {n}, {colour}", "colour": colour, "kind": kind}
        rows.append(row | {"product": f"p{n // 2}", "set": "test" if n % 8 > 5 else "train"})
    return rows


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def made(table: Path, out: Path, recipes: Sequence[str], **settings: Any) -> tuple[Synthesized, list[dict[str, Any]]]:
    chosen: dict[str, Any] = {"columns": COLUMNS, "key": "sku", "group": "product", "split": "set"} | settings
    outcome = synthesize_table(table, out, recipes, **chosen)
    return outcome, rows_of(out)


# -- rows


def test_made_rows_have_the_group_split_and_other_cells_of_their_origin(write: Write, tmp_path: Path) -> None:
    rows = shop()
    outcome, found = made(write(rows), tmp_path / "out", ["captions"], templates=TEMPLATES, count=2)
    own = [row for row in found if row["made_by"] is None]
    new = [row for row in found if row["made_by"] is not None]
    names = [*rows[0]]
    by_key = lambda row: int(row["sku"][1:])  # noqa: E731
    assert [{n: row[n] for n in names} for row in sorted(own, key=by_key)] == rows
    trained = [row for row in rows if row["set"] == "train"]
    assert len(new) == 2 * len(trained) == outcome.made["captions"]
    assert outcome.rows_out == len(found) == outcome.rows_in + len(new)
    origin = {row["sku"]: row for row in rows}
    for row in new:
        parent = origin[row["sku"].partition("-")[0]]
        assert {n: row[n] for n in names if n not in ("sku", "title")} == {
            n: parent[n] for n in names if n not in ("sku", "title")
        }
        assert row["split"] == "train"
        template = row["made_by"].removeprefix("caption: ")
        assert row["title"] == template.replace("{colour}", parent["colour"]).replace("{kind}", parent["kind"])
    assert len({row["sku"] for row in found}) == len(found)


def test_the_output_is_a_table_to_train_on(write: Write, tmp_path: Path) -> None:
    settings = {"templates": TEMPLATES, "swap": ["colour"]}
    _, found = made(write(shop()), tmp_path / "out", ["captions", "swaps"], **settings)
    assert all(checked.damage is None for checked in verify_files(tmp_path / "out"))
    negatives = {"text": "title_not_colour"}
    samples = Samples.of(str(tmp_path / "out"), COLUMNS, group="product", split="split", negatives=negatives)
    assert len(samples) == len(found)
    assert {*samples.splits} == {"train", "test"}
    by_group: dict[str, set[str]] = {}
    for split, rows in samples.splits.items():
        for row in rows.tolist():
            by_group.setdefault(samples.group_of(row), set()).add(split)
    source = {row["product"]: {r["set"] for r in shop() if r["product"] == row["product"]} for row in shop()}
    assert by_group == {f"={group}": splits for group, splits in source.items()}
    assert open_table(str(tmp_path / "out")).columns[-2:] == ("title_not_colour", "split")


def test_without_groups_and_keys_a_made_row_is_in_the_group_of_its_origin(write: Write, tmp_path: Path) -> None:
    rows = [{n: row[n] for n in ("title", "colour", "kind", "set")} for row in shop()]
    _, found = made(write(rows), tmp_path / "out", ["captions"], templates=TEMPLATES, key=None, group=None)
    title_of_group = {row["group"]: row["title"] for row in found if row["made_by"] is None}
    assert len(title_of_group) == len(rows)
    for row in found:
        assert row["colour"] in title_of_group[row["group"]]


def test_rows_without_a_group_get_one_of_their_own(write: Write, tmp_path: Path) -> None:
    rows = [row | {"product": row["product"] if n % 2 else ""} for n, row in enumerate(shop())]
    _, found = made(write(rows), tmp_path / "out", ["captions"], templates=TEMPLATES)
    groups = [row["product"] for row in found if row["made_by"] is None]
    assert None not in groups
    for row in found:
        origin = next(o for o in found if o["sku"] == row["sku"].partition("-")[0])
        assert row["product"] == origin["product"]


def test_rows_are_made_of_training_rows_unless_other_splits_are_named(write: Write, tmp_path: Path) -> None:
    _, found = made(write(shop()), tmp_path / "a", ["captions"], templates=TEMPLATES)
    assert {row["set"] for row in found if row["made_by"]} == {"train"}
    _, found = made(write(shop()), tmp_path / "b", ["captions"], templates=TEMPLATES, train=["train", "test"])
    assert {row["set"] for row in found if row["made_by"]} == {"train", "test"}
    with pytest.raises(UsageError, match="no rows of the split dev, which rows are made from; it has test, train"):
        made(write(shop()), tmp_path / "c", ["captions"], templates=TEMPLATES, train="dev")


def test_made_rows_are_not_made_into_further_rows(write: Write, tmp_path: Path) -> None:
    made(write(shop()), tmp_path / "a", ["captions"], templates=TEMPLATES[:1])
    again, found = made(tmp_path / "a", tmp_path / "b", ["captions"], templates=TEMPLATES[1:])
    assert again.made["captions"] == sum(row["set"] == "train" for row in shop())
    assert sum(row["made_by"] is not None for row in found) == 2 * again.made["captions"]


def test_shares_split_rows_as_training_splits_them(write: Write, tmp_path: Path) -> None:
    shares = {"train": 0.6, "test": 0.4}
    path = write(shop())
    _, found = made(path, tmp_path / "out", ["captions"], templates=TEMPLATES, split=shares, split_seed=3)
    samples = Samples.of(str(path), COLUMNS, group="product", split=shares, split_seed=3)
    split_of = {samples.cell(row, "sku"): split for split, rows in samples.splits.items() for row in rows.tolist()}
    assert {row["sku"]: row["split"] for row in found if row["made_by"] is None} == split_of


# -- the same bytes


def test_the_same_input_gives_the_same_bytes_and_another_seed_others(write: Write, tmp_path: Path) -> None:
    path = write(shop())
    settings = {"templates": TEMPLATES, "swap": ["colour", "kind"]}
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        made(path, tmp_path / name, ["captions", "swaps"], seed=seed, **settings)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert bytes_of(tmp_path / "a").keys() == bytes_of(tmp_path / "c").keys()
    assert bytes_of(tmp_path / "a")["train-00000.parquet"] != bytes_of(tmp_path / "c")["train-00000.parquet"]


def test_blocks_change_nothing(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write([row | {"title": f"a {row['colour']} {row['kind']}"} for row in shop()])
    settings = {"templates": TEMPLATES, "swap": ["colour"]}
    made(path, tmp_path / "a", ["captions", "swaps"], **settings)
    monkeypatch.setattr(pipeline, "BLOCK_ROWS", 3)
    made(path, tmp_path / "b", ["captions", "swaps"], **settings)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")


# -- leaks


def test_a_planted_caption_of_the_test_split_is_refused(write: Write, tmp_path: Path) -> None:
    rows = shop()
    planted = next(row for row in rows if row["set"] == "test")
    planted["title"] = "A red  CUP."  # differs in case, spaces and punctuation from what would be made
    outcome, found = made(write(rows), tmp_path / "out", ["captions"], templates=TEMPLATES[:1])
    would = sum(row["set"] == "train" and (row["colour"], row["kind"]) == ("red", "cup") for row in rows)
    assert would > 0
    assert outcome.refused == {"captions": would}
    assert "a red cup" not in [row["title"] for row in found]
    lines = [json.loads(line) for line in (tmp_path / "out" / "refused.jsonl").read_text().splitlines()]
    assert len(lines) == would
    assert lines[0] == {
        "row": 0,
        "key": "s0",
        "column": "title",
        "value": "a red cup",
        "made_by": "caption: a {colour} {kind}",
    }


def test_a_planted_long_near_copy_is_refused(write: Write, tmp_path: Path) -> None:
    long = "{kind} in the colour {colour}, glazed by hand in a small workshop at the coast, dishwasher safe"
    rows = shop()
    planted = next(row for row in rows if row["set"] == "test")
    planted["title"] = long.format(kind="plate", colour="black").replace("dishwasher", "dish-washer")
    outcome, found = made(write(rows), tmp_path / "out", ["captions"], templates=[long])
    assert outcome.refused["captions"] > 0
    assert not [row for row in found if row["made_by"] and (row["colour"], row["kind"]) == ("black", "plate")]


def test_a_planted_picture_of_the_test_split_is_refused(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One variant that would be made is in the test split, in another file format and size."""
    monkeypatch.setattr(pipeline, "BLOCK_ROWS", 2)
    names = [f"{n}.png" for n in range(8)]
    for n, name in enumerate(names):
        (tmp_path / name).write_bytes(pictures.png(pictures.blobs(n)))
    path = tmp_path / "pictures.csv"
    path.write_text("photo,set\n" + "".join(f"{name},train\n" for name in names))
    settings: dict[str, Any] = {"columns": {"image": "photo"}, "split": "set", "vary": ["rotation", "shift"]}
    synthesize_table(path, tmp_path / "before", ["pictures"], **settings)
    variants = [row for row in rows_of(tmp_path / "before") if row["made_by"]]
    assert len(variants) == 8
    leak = Image.open(io.BytesIO(variants[3]["photo"]["bytes"])).convert("RGB").resize((60, 60))
    (tmp_path / "leak.jpg").write_bytes(pictures.jpeg(leak))
    with path.open("a") as file:
        file.write("leak.jpg,test\n")
    outcome = synthesize_table(path, tmp_path / "after", ["pictures"], **settings)
    assert (outcome.made, outcome.refused) == ({"pictures": 7}, {"pictures": 1})
    left = {row["photo"]["path"] for row in rows_of(tmp_path / "after") if row["made_by"]}
    assert left == {row["photo"]["path"] for row in variants} - {variants[3]["photo"]["path"]}


def test_a_hard_negative_that_is_a_caption_of_the_test_split_is_not_taken(write: Write, tmp_path: Path) -> None:
    rows = [
        {"sku": "1", "title": "a red cup", "colour": "red", "product": "1", "set": "train"},
        {"sku": "2", "title": "a blue hat", "colour": "blue", "product": "2", "set": "train"},
        {"sku": "3", "title": "a green tie", "colour": "green", "product": "3", "set": "train"},
        {"sku": "4", "title": "A BLUE CUP", "colour": "blue", "product": "4", "set": "test"},
    ]
    for seed in range(5):
        outcome, found = made(write(rows), tmp_path / "out", ["swaps"], swap=["colour"], seed=seed)
        assert found[-3]["title_not_colour"] == "a green cup"
        assert found[0]["title_not_colour"] is None  # a row of the test split
        assert outcome.refused == {"title_not_colour": 1}


def test_a_recipe_that_makes_nothing_says_why(write: Write, tmp_path: Path) -> None:
    every = [row | {"title": f"a {row['colour']} {row['kind']}", "set": "train"} for row in shop()]
    copies = [row | {"set": "test"} for row in every]
    with pytest.raises(MultimodalError, match=r"captions made no row: all 24 values that it made are copies"):
        made(
            write([*[r | {"title": "x"} for r in every], *copies]),
            tmp_path / "out",
            ["captions"],
            templates=TEMPLATES[:1],
        )
    with pytest.raises(MultimodalError, match=r"captions made no row: .* or all have such a 'title' already"):
        made(write(every), tmp_path / "out", ["captions"], templates=TEMPLATES[:1])
    with pytest.raises(MultimodalError, match=r"No hard negative was made for 'product'"):
        made(write(every), tmp_path / "out", ["swaps"], swap=["product"])
    assert not (tmp_path / "out").exists()


# -- other kinds of tables


def outline(seed: int) -> dict[str, Any]:
    points = np.random.default_rng(seed).normal(size=(5, 2)).astype(np.float32)
    return cell_of(contour_graph(points, np.array([3, 1, 0, 1, 1], np.uint8)))


def test_outlines_in_json_lines_are_drawn_again_with_whole_numbers_and_fractions(tmp_path: Path) -> None:
    whole = {
        "x": [[0, 0, 1, 1], [1, 0, 1, 0]],
        "edge_index": [[0, 1, 1, 0], [1, 0, 0, 1]],
        "edge_attr": [[1, 0, 1]] * 4,
    }
    cells = [whole, outline(1), {"x": [[1, 2]], "edge_index": [[], []]}, outline(2)]
    path = tmp_path / "o.jsonl"
    path.write_text("".join(json.dumps({"o": cell, "set": "train"}) + "\n" for cell in cells))
    outcome = synthesize_table(path, tmp_path / "out", ["outlines"], columns={"graph": "o"}, split="set", count=2)
    assert outcome.made == {"outlines": 6}
    table = open_table(str(tmp_path / "out"))
    assert [table.value(row, "made_by") is None for row in range(len(table))] == [True, False, False] * 2 + [
        True
    ] * 2 + [
        False,
        False,
    ]
    assert np.array(table.value(0, "o")["x"]).tolist() == whole["x"]


def test_molecules_get_sentences(tmp_path: Path) -> None:
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    path = tmp_path / "m.csv"
    path.write_text("smiles,text,set\nCCO,an alcohol,train\nbad,x,train\nc1ccccc1,,train\nCC,y,test\n")
    columns = {"graph": "smiles", "text": "text"}
    outcome = synthesize_table(path, tmp_path / "out", ["molecules"], columns=columns, split="set")
    assert (outcome.made, outcome.unreadable) == ({"molecules": 2}, {"molecules": 1})
    texts = [row["text"] for row in rows_of(tmp_path / "out") if row["made_by"]]
    assert all(text.startswith("The molecule ") for text in texts)


def test_pixels_and_graphs_of_a_table_in_python_are_stored(source: Any, pictures: Any, tmp_path: Path) -> None:
    torch_geometric = pytest.importorskip("torch_geometric")
    graph = {name: torch.tensor(value) for name, value in outline(0).items()}
    pixels = np.asarray(pictures.blobs(0).convert("L"))
    rows = [{"image": pixels, "outline": torch_geometric.data.Data(**graph), "set": "train"}]
    schema = Schema.from_settings({"image": "image", "graph": "outline"}, split="set")
    table = CopiedTable(source(rows), schema, normalize={"outline": normalized_graph})
    recipes = [PictureVariants("image"), OutlineVariants("outline")]
    outcome = pipeline.synthesize(table, recipes, [], Settings(["pictures", "outlines"]), tmp_path / "out")
    assert outcome.made == {"pictures": 1, "outlines": 1}
    own, _, again = rows_of(tmp_path / "out")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(own["image"]["bytes"]))), pixels)
    assert np.allclose(own["outline"]["x"], graph["x"])
    assert np.array(again["outline"]["x"]).shape[1] == 4


def test_webdataset_shards_name_every_row_once(write: Write, tmp_path: Path) -> None:
    outcome, _ = made(write(shop()), tmp_path / "out", ["captions"], templates=TEMPLATES, format="webdataset")
    assert len(open_table(str(tmp_path / "out"))) == outcome.rows_out


def test_unreadable_rows_are_counted_and_too_many_stop_it(write: Write, pictures: Any, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(pictures.png(pictures.blobs(0)))
    rows = [{"photo": "a.png" if n else "b.png", "set": "train"} for n in range(4)]
    settings: dict[str, Any] = {"columns": {"image": "photo"}, "split": "set"}
    with pytest.raises(MultimodalError, match=r"1 of 4 rows .* missing file.* max_rejects 0\.25 would allow them"):
        synthesize_table(write(rows), tmp_path / "out", ["pictures"], **settings)
    outcome = synthesize_table(write(rows), tmp_path / "out", ["pictures"], max_rejects=0.25, **settings)
    assert (outcome.rows_in, outcome.rejects) == (3, 1)
    assert json.loads((tmp_path / "out" / "rejects.jsonl").read_text())["reason"] == "missing file"


def test_memory_holds_no_made_values(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a block of rows is made before it is written."""
    sizes: list[int] = []
    monkeypatch.setattr(pipeline, "BLOCK_ROWS", 4)
    of_block = pipeline._Run._copies
    monkeypatch.setattr(
        pipeline._Run, "_copies", lambda run, block: (sizes.append(len(block)), of_block(run, block))[1]
    )
    made(write(shop(30)), tmp_path / "out", ["captions"], templates=TEMPLATES)
    assert max(sizes) == 4
    assert sum(sizes) == 30


def test_large_files_end_a_block_early(pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BLOCK_BYTES", 1)
    (tmp_path / "a.png").write_bytes(pictures.png(pictures.blobs(0)))
    (tmp_path / "t.csv").write_text("photo,set\na.png,train\na.png,train\n")
    sizes: list[int] = []
    of_block = pipeline._Run._copies
    monkeypatch.setattr(
        pipeline._Run, "_copies", lambda run, block: (sizes.append(len(block)), of_block(run, block))[1]
    )
    synthesize_table(tmp_path / "t.csv", tmp_path / "out", ["pictures"], columns={"image": "photo"}, split="set")
    assert sizes == [1, 1]


def test_whole_numbers_as_keys_and_groups_become_texts(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    rows = [{"id": n, "title": f"thing {n}", "colour": "red", "product": None if n == 2 else 7} for n in range(4)]
    path.write_text("".join(json.dumps(row | {"set": "train"}) + "\n" for row in rows))
    settings: dict[str, Any] = {"columns": COLUMNS, "key": "id", "group": "product", "split": "set"}
    synthesize_table(path, tmp_path / "out", ["captions"], templates=["a {colour} thing"], **settings)
    found = rows_of(tmp_path / "out")
    assert [row["id"] for row in found] == [key for n in range(4) for key in (str(n), f"{n}-made-1")]
    assert [row["product"] for row in found] == ["7"] * 4 + ["#2"] * 2 + ["7"] * 2


# -- the command


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["synthesize", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_command_writes_the_table(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--columns.text", "title", "--key", "sku", "--group", "product", "--split", "set"]
    recipe = ["--template", TEMPLATES[0], "--template", TEMPLATES[1], "--swap", "colour"]
    code, printed, err = run(capsys, write(shop()), "captions", "swaps", "--out", tmp_path / "out", *common, *recipe)
    assert (code, err) == (0, "")
    assert printed.startswith("24 rows in, 42 out; made: 18 by captions; hard negatives: ")
    code, printed, _ = run(
        capsys, write(shop()), "captions", "swaps", "--out", tmp_path / "out", *common, *recipe, "--json"
    )
    assert json.loads(printed)["made"] == {"captions": 18}


def test_a_configuration_says_what_the_columns_are(
    write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(shop())
    config = tmp_path / "shop.yaml"
    config.write_text(
        f"data: {{table: {path}, columns: {{text: title}}, group: product, split: {{a: 0.5, b: 0.5}}, train: a}}"
    )
    code, _, _ = run(capsys, config, "captions", "--out", tmp_path / "out", "--template", TEMPLATES[0])
    assert code == 0
    assert {row["split"] for row in rows_of(tmp_path / "out") if row["made_by"]} == {"a"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["captions"], "The recipe captions needs templates"),
        (["swaps"], "The recipe swaps needs the columns of attributes"),
        (["captions", "--template", "{0}"], "names a column '0'"),
        (["captions", "--template", "{colour.__class__}"], "names a column 'colour.__class__'"),
        (["paint"], "there is no 'paint'"),
        (["pictures"], "needs a column of the modality image"),
        (["pictures", "--vary", "size"], "there is no 'size'"),
        (["outlines"], "needs a column of the modality graph"),
        (["swaps", "--swap", "color"], "has no attribute 'color'. Did you mean 'colour'"),
        (["swaps", "--swap", "title"], "has no attribute 'title'"),
        (["captions", "--template", "{kind}", "--count", "0"], "count must be from 1 to 100"),
        (["captions", "--template", "{kind}", "--swap", "kind"], "is for the recipe swaps"),
        (["captions", "--template", "{kind}", "--near", "2"], "near must be"),
        (["captions", "--template", "{kind}", "--seed", "-1"], "seed must be at least 0"),
    ],
)
def test_wrong_usage_is_one_line_and_writes_nothing(
    arguments: list[str], said: str, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--columns.text", "title", "--split", "set", "--out", tmp_path / "out"]
    code, printed, err = run(capsys, write(shop()), *arguments, *common)
    assert (code, printed) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_table_itself_is_not_replaced(write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(write(shop()), tmp_path / "a", ["captions"], templates=TEMPLATES[:1])
    before = bytes_of(tmp_path / "a")
    code, _, err = run(capsys, tmp_path / "a", "captions", "--template", TEMPLATES[1], "--out", tmp_path / "a")
    assert code == 2
    assert "is the table itself" in err
    assert bytes_of(tmp_path / "a") == before


def test_a_column_that_would_be_overwritten_is_an_error(write: Write, tmp_path: Path) -> None:
    rows = [row | {"title_not_colour": "x"} for row in shop()]
    with pytest.raises(UsageError, match="has a column 'title_not_colour' already"):
        made(write(rows), tmp_path / "out", ["swaps"], swap=["colour"])
    rows = [row | {"group": "x"} for row in shop()]
    with pytest.raises(UsageError, match="--group"):
        made(write(rows), tmp_path / "out", ["captions"], templates=TEMPLATES, group=None)
