"""Rows to pair and hard negatives of a table, from a model whose vectors are the cells themselves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.core.verify import verify_files
from multimodal.data.samples import Samples
from multimodal.monitor.choose import choose, margins
from multimodal.monitor.hard_negatives import NONE, exact_nearest, hard_negatives
from multimodal.monitor.mine import mine_rows
from multimodal.monitor.mine_negatives import mine_negatives
from multimodal.search.embed import embed_table
from multimodal.search.index import Index

WIDTH = 5
COLUMNS = {"image": "photo", "text": "words"}
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """Both modalities' vectors are the cells, scaled to unit length."""
    encoders = {m: create(m, "precomputed", width=WIDTH, scale="none") for m in COLUMNS}
    return Embedder(encoders, dim=WIDTH, heads=dict.fromkeys(COLUMNS, "none")).eval()


@pytest.fixture
def model(embedder: Embedder, tmp_path: Path) -> Path:
    embedder.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def rows_of(count: int = 40, seed: int = 0, alone: int = 3) -> list[dict[str, Any]]:
    """Return pairs of similar vectors, two rows to a group; every ``alone``-th row has one modality."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        photo = rng.normal(size=WIDTH)
        words = photo + 0.5 * rng.normal(size=WIDTH)
        row: dict[str, Any] = {"sku": f"s{n}", "product": f"p{n // 2}", "set": "test" if n % 5 == 4 else "train"}
        row |= {"photo": photo.round(3).tolist(), "words": words.round(3).tolist()}
        if alone and n % alone == 0:
            row["photo" if n % 2 else "words"] = None
        rows.append(row)
    return rows


def write(rows: list[dict[str, Any]], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def unit(cells: list[list[float]]) -> np.ndarray:
    vectors = np.array(cells, dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


SETTINGS: dict[str, Any] = {"columns": COLUMNS, "key": "sku", "group": "product"}


# -- rows to pair


def test_rows_of_one_modality_alone_are_listed_in_the_order_of_the_formula(embedder: Embedder) -> None:
    rows = rows_of(30)
    for row in rows:  # pictures alone
        if row["photo"] is None:
            row |= {"photo": [1.0] * WIDTH, "words": [1.0] * WIDTH}
    found = mine_rows(embedder, rows, count=5, **SETTINGS)
    alone = [n for n, row in enumerate(rows) if row["words"] is None]
    paired = [n for n in range(30) if n not in alone]
    texts = unit([rows[n]["words"] for n in paired])
    groups = np.array([n // 2 for n in paired])
    photos = unit([rows[n]["photo"] for n in alone])
    margin = margins(photos, texts, groups)
    expected = choose(photos, unit([rows[n]["photo"] for n in paired]), -margin, 5)
    assert [one.row for one in found.rows] == [alone[n] for n in expected.rows.tolist()]
    assert [one.key for one in found.rows] == [f"s{one.row}" for one in found.rows]
    assert [one.margin for one in found.rows] == pytest.approx([margin[n] for n in expected.rows], abs=1e-5)
    assert [one.distance for one in found.rows] == pytest.approx(expected.distances.tolist(), abs=1e-5)
    assert {(one.modality, one.missing) for one in found.rows} == {("image", "text")}
    assert (found.unpaired, found.paired) == (len(alone), len(paired))
    for one in found.rows:
        scores = texts @ unit([rows[one.row]["photo"]])[0]
        assert one.best == f"s{paired[int(scores.argmax())]}"
        assert one.best != one.second


def test_rows_of_either_modality_are_listed_together(embedder: Embedder) -> None:
    rows = rows_of(40)
    found = mine_rows(embedder, rows, count=1000, **SETTINGS)
    alone = {n for n, row in enumerate(rows) if row["photo"] is None or row["words"] is None}
    assert {one.row for one in found.rows} == alone
    for one in found.rows:
        assert one.modality == ("text" if rows[one.row]["photo"] is None else "image")
        assert one.missing == ("image" if one.modality == "text" else "text")


def test_reasons_are_true(embedder: Embedder) -> None:
    found = mine_rows(embedder, rows_of(60, seed=2), count=1000, **SETTINGS)
    margin = np.array([one.margin for one in found.rows])
    uncovered = np.array([one.uncovered for one in found.rows])
    for one in found.rows:
        assert ("uncertain" in one.reasons) == ((margin >= one.margin).mean() >= 0.75)
        assert ("badly covered" in one.reasons) == ((uncovered <= one.uncovered).mean() >= 0.75)
        assert one.distance <= one.uncovered + 1e-6


def test_a_table_without_pairs_or_without_single_rows(embedder: Embedder) -> None:
    rows = [{"sku": str(n), "photo": [float(n), 1, 0, 0, 0], "words": None} for n in range(4)]
    rows += [{"sku": "x", "photo": None, "words": [1.0, 0, 0, 0, 0]}]
    found = mine_rows(embedder, rows, columns=COLUMNS, key="sku")
    assert (found.unpaired, found.paired) == (5, 0)
    assert all(np.isnan(one.margin) for one in found.rows if one.modality == "image")  # there is one text only
    assert json.loads(json.dumps(found.to_json()))["rows"][0]["row"] == found.rows[0].row
    with pytest.raises(MultimodalError, match=r"Every row of .* has a pair"):
        mine_rows(embedder, rows_of(6, alone=0), **SETTINGS)
    with pytest.raises(MultimodalError, match="Pairs need two modalities"):
        mine_rows(embedder, rows[:4], columns={"image": "photo"})


def test_the_list_is_written_as_csv(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(rows_of(), tmp_path / "t.jsonl")
    options = ["--columns.image", "photo", "--columns.text", "words", "--key", "sku", "--group", "product"]
    assert main(["mine", str(model), str(table), "--out", str(tmp_path / "pair.csv"), "--count", "4", *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("4 of 14 rows without a pair; 26 rows have one")
    with (tmp_path / "pair.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["order"] for line in lines] == ["1", "2", "3", "4"]
    assert lines[0]["key"] == printed[1].partition(":")[0]
    assert (
        main(["mine", str(model), str(table), "--out", str(tmp_path / "p.csv"), *options, "--json", "--by", "diverse"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["unpaired"] == 14


# -- hard negatives


def expected_negatives(rows: list[dict[str, Any]], own: str, target: str, **settings: Any) -> dict[int, list[int]]:
    trained = [n for n, row in enumerate(rows) if row["set"] == "train"]
    queries = [n for n in trained if rows[n][own] is not None and rows[n][target] is not None]
    candidates = [n for n in trained if rows[n][target] is not None]
    x, y, z = (
        unit([rows[n][c] for n in several]) for several, c in ((queries, own), (queries, target), (candidates, target))
    )
    of_query, of_candidate = np.array(queries) // 2, np.array(candidates) // 2
    found, _ = hard_negatives(x, of_query, (x * y).sum(axis=1), of_candidate, exact_nearest(z), **settings)
    return {
        n: [candidates[c] for c in several if c != NONE] for n, several in zip(queries, found.tolist(), strict=True)
    }


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration of a table with a split; the table is written by ``write``."""
    path = tmp_path / "t.yaml"
    data = {"table": str(tmp_path / "t.jsonl"), "columns": COLUMNS, "key": "sku", "group": "product", "split": "set"}
    path.write_text(json.dumps({"data": data}))  # JSON is YAML
    return path


def cells_of(folder: Path, columns: tuple[str, ...]) -> dict[str, list[Any]]:
    """Return the negatives of each key."""
    samples = Samples.of(str(folder), COLUMNS, key="sku", split="split")
    rows = range(len(samples))
    return {samples.key_of(row): [samples.cell(row, column) for column in columns] for row in rows}


@pytest.mark.parametrize(
    ("pair", "own", "target"), [("image-text", "photo", "words"), ("text-image", "words", "photo")]
)
def test_negatives_are_written_next_to_the_training_rows(
    pair: str, own: str, target: str, model: Path, config: Path, tmp_path: Path
) -> None:
    rows = rows_of()
    write(rows, tmp_path / "t.jsonl")
    found = mine_negatives(model, config, pair=pair, count=2, out=tmp_path / "hard")
    expected = expected_negatives(rows, own, target, count=2)
    assert found.columns == (f"{target}_negative", f"{target}_negative_2")
    cells = cells_of(tmp_path / "hard", found.columns)
    assert len(cells) == len(rows)
    for key, negatives in cells.items():
        wanted = [rows[n][target] for n in expected.get(int(key[1:]), [])]
        assert [cell for cell in negatives if cell is not None] == wanted
    assert sum(map(len, expected.values())) > 20
    assert all(checked.damage is None for checked in verify_files(tmp_path / "hard"))


def test_an_index_finds_the_same_negatives(model: Path, config: Path, tmp_path: Path) -> None:
    write(rows_of(), tmp_path / "t.jsonl")
    embed_table(model, str(config), out=tmp_path / "vectors")
    with Index.build(tmp_path / "vectors", tmp_path / "index"):
        pass
    exact = mine_negatives(model, config, pair="image-text", count=2)
    found = mine_negatives(model, config, pair="image-text", count=2, index=tmp_path / "index")
    assert np.array_equal(found.negatives, exact.negatives)
    assert np.allclose(found.scores, exact.scores, atol=1e-3)


def test_an_index_of_another_model_is_refused(model: Path, config: Path, tmp_path: Path) -> None:
    write(rows_of(), tmp_path / "t.jsonl")
    other = Embedder({"text": create("text", "precomputed", width=WIDTH, scale="length")}, dim=3).eval()
    other.save_pretrained(tmp_path / "other")
    embed_table(tmp_path / "other", str(config), out=tmp_path / "vectors")
    with Index.build(tmp_path / "vectors", tmp_path / "index"):
        pass
    with pytest.raises(MultimodalError):
        mine_negatives(model, config, pair="image-text", index=tmp_path / "index")


def test_a_batch_takes_the_mined_negatives(model: Path, config: Path, tmp_path: Path, embedder: Embedder) -> None:
    write(rows_of(), tmp_path / "t.jsonl")
    found = mine_negatives(model, config, pair="image-text", out=tmp_path / "hard")
    settings: dict[str, Any] = {"key": "sku", "group": "product", "split": "split"}
    samples = Samples.of(str(tmp_path / "hard"), COLUMNS, negatives={"text": found.columns[0]}, **settings)
    row = int(samples.rows("train")[1])
    (sample,) = samples.items(row, embedder.processors, seed=(0,))
    assert len(sample.negatives) == 1  # type: ignore[union-attr]


def test_the_command_mines_negatives(
    model: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(rows_of(), tmp_path / "t.jsonl")
    arguments = ["mine", str(model), str(config), "--negatives", "image-text", "--out", str(tmp_path / "hard")]
    assert main(arguments) == 0
    assert "rows have a hard negative, image-text: words_negative" in capsys.readouterr().out
    assert main([*arguments, "--ratio", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["columns"] == ["words_negative"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--negatives", "image-audio"], "'image-audio' is not two modalities"),
        (["--negatives", "image"], "'image' is not two modalities"),
        (["--negatives", "image-text", "--ratio", "1.5"], "ratio must be"),
        (["--negatives", "image-text", "--count", "21"], "count must be from 1 to 20"),
        (["--negatives", "image-text", "--skip", "-1"], "skip must be at least 0"),
        (["--negatives", "image-text", "--by", "diverse"], "--by chooses rows to pair"),
        (["--ratio", "0.9"], "--ratio is an option of --negatives"),
        (["--count", "0"], "count must be at least 1"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], said: str, model: Path, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(rows_of(), tmp_path / "t.jsonl")
    assert main(["mine", str(model), str(config), "--out", str(tmp_path / "out"), *arguments]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_table_in_memory_cannot_be_written_but_is_mined(embedder: Embedder, tmp_path: Path) -> None:
    rows = rows_of()
    found = mine_negatives(embedder, rows, pair="image-text", **SETTINGS)
    assert len(found.rows) == sum(row["photo"] is not None and row["words"] is not None for row in rows)
    with pytest.raises(UsageError, match="is in memory"):
        mine_negatives(embedder, rows, pair="image-text", out=tmp_path / "x", **SETTINGS)


def test_the_table_itself_is_not_replaced_and_columns_are_not_overwritten(
    model: Path, config: Path, tmp_path: Path
) -> None:
    write([row | {"words_negative": "x"} for row in rows_of()], tmp_path / "t.jsonl")
    with pytest.raises(UsageError, match="has a column 'words_negative' already"):
        mine_negatives(model, config, pair="image-text", out=tmp_path / "hard")
    with pytest.raises(UsageError, match="is the table itself"):
        mine_negatives(model, config, pair="image-text", out=tmp_path / "t.jsonl")
