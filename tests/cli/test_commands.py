"""The plain commands do what the library does and print it as documented."""

from __future__ import annotations

import inspect
import io
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, PathDistribution
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from multimodal_encoders.graph.gnn import GNN
from multimodal_encoders.image.cnn import CNN
from multimodal_encoders.text.bag_of_words import BagOfWords
from PIL import Image

from multimodal.cli.main import main
from multimodal.core import extras
from multimodal.core.embedder import Embedder
from multimodal.core.registry import create, registrations
from multimodal.data.run_data import load_run_data
from multimodal.datasets.glyphs import Glyphs

Called = Callable[..., str]
EXACT = ("--precision", "float32")
MEASURES = {"recall@1", "recall@5", "recall@10", "mrr", "median_rank", "mean_rank", "queries", "pool"}


@pytest.fixture
def called(capsys: pytest.CaptureFixture[str]) -> Called:
    """What a command that succeeds prints on standard output."""

    def call(*arguments: object) -> str:
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert (code, printed.err.strip()) == (0, "")
        return printed.out

    return call


# -- encoders


def test_encoders_as_json_are_all_that_is_registered(called: Called) -> None:
    document = json.loads(called("encoders", "--json"))
    assert [(e["modality"], e["name"], e["class"], e["extra"]) for e in document] == [
        (r.modality, r.name, r.class_path, r.extra) for r in registrations()
    ]
    assert {"image", "graph", "text"} <= {e["modality"] for e in document}
    (cnn,) = [e for e in document if (e["modality"], e["name"]) == ("image", "cnn")]
    defaults = inspect.signature(CNN).parameters
    assert cnn["parameters"] == {name: parameter.default for name, parameter in defaults.items()}
    assert cnn["class"] == "multimodal_encoders.image.cnn.CNN"


def test_encoders_of_one_modality_are_those_alone(called: Called) -> None:
    assert {e["modality"] for e in json.loads(called("encoders", "--json", "--modality", "graph"))} == {"graph"}


def test_encoders_are_listed_with_their_parameters(called: Called) -> None:
    lines = called("encoders", "--modality", "image").splitlines()
    assert [line for line in lines if line.startswith("image cnn: A residual network")]
    assert '    arch = "resnet18"' in lines
    assert "    drop = 0.0" in lines


def test_encoders_of_one_name_show_what_they_read(called: Called) -> None:
    shown = called("encoders", "--name", "gnn")
    assert "the features of a node or edge are its attributes that are numbers" in " ".join(shown.split())
    assert "Args:" not in shown
    assert "Examples:" not in shown
    assert shown.index("attributes that are numbers") < shown.index("    conv = ")
    assert "attributes that are numbers" not in " ".join(called("encoders", "--modality", "graph").split())
    (gnn,) = json.loads(called("encoders", "--json", "--name", "gnn"))
    assert gnn["description"] in inspect.cleandoc(GNN.__doc__ or "")
    assert all(line == "" or f"    {line}" in shown.splitlines() for line in gnn["description"].splitlines())


def test_encoders_of_one_name_show_their_size(called: Called) -> None:
    (bag,) = json.loads(called("encoders", "--json", "--modality", "text", "--name", "bag"))
    built = BagOfWords()
    assert (bag["weights"], bag["width"]) == (sum(p.numel() for p in built.parameters()), built.width)
    assert (bag["extra"], bag["install"], bag["missing"]) == (None, None, [])
    shown = called("encoders", "--modality", "text", "--name", "bag").splitlines()
    assert shown[1] == "    (10,240,512 parameters, 256 features)"
    assert {e["modality"] for e in json.loads(called("encoders", "--json", "--name", "precomputed"))} > {
        "image",
        "audio",
    }


def test_the_size_of_an_encoder_that_needs_a_file_is_not_shown(called: Called) -> None:
    (entry,) = json.loads(called("encoders", "--json", "--name", "word_vectors"))
    assert (entry["weights"], entry["width"]) == (None, None)
    assert "(size and width depend on its settings: see --settings)" in called("encoders", "--name", "word_vectors")


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("image.torchvision", {"arch": "mobilenet_v3_small", "weights": "DEFAULT"}),  # which are not fetched
        ("image.open_clip", {"config": {"embed_dim": 24, "vision_cfg": {"layers": 1, "width": 64, "image_size": 32,
                                        "patch_size": 16}, "text_cfg": {"layers": 1, "width": 64, "heads": 2}}}),
        ("graph.pyg", {"arch": "PNA", "config": {"in_channels": 4, "hidden_channels": 16, "num_layers": 2,
                       "aggregators": ["mean"], "scalers": ["identity"], "deg": [0, 1, 2]}}),
    ],
)  # fmt: skip
def test_the_size_of_an_encoder_with_settings(called: Called, name: str, settings: dict[str, Any]) -> None:
    modality, _, short = name.partition(".")
    asked = ("encoders", "--modality", modality, "--name", short, "--settings", json.dumps(settings))
    (entry,) = json.loads(called(*asked, "--json"))
    built = create(modality, short, **settings | ({"weights": None} if "arch" in settings else {}))
    assert (entry["weights"], entry["width"]) == (sum(p.numel() for p in built.parameters()), built.width)
    assert f"({entry['weights']:,} parameters, {built.width} features" in called(*asked)


def test_an_extra_that_is_not_installed_is_reported_with_its_command(
    called: Called, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    info = tmp_path / "multimodal-0.1.0.dist-info"  # whatever metadata this checkout was installed with
    info.mkdir()
    (info / "METADATA").write_text("Name: multimodal\nVersion: 0.1.0\nRequires-Dist: rdkit; extra == 'molecules'\n")
    point = SimpleNamespace(value="multimodal_encoders", dist=PathDistribution(info))
    monkeypatch.setattr(extras, "entry_points", lambda group: [point])
    install = "pip install 'multimodal[molecules]'"
    (entry,) = json.loads(called("encoders", "--json", "--name", "molecule"))
    assert (entry["extra"], entry["install"], entry["missing"]) == ("molecules", install, [])
    assert "features; needs [molecules], installed)" in called("encoders", "--name", "molecule")

    def missing(name: str) -> Any:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "distribution", missing)
    (entry,) = json.loads(called("encoders", "--json", "--name", "molecule"))
    assert (entry["install"], entry["missing"]) == (install, ["rdkit"])
    assert f"; needs rdkit, not installed: {install})" in called("encoders", "--name", "molecule")


# -- evaluate


@pytest.fixture(scope="module")
def validation(run: Path) -> dict[str, Any]:
    """The vectors of the validation split by ``encode``, and its keys."""
    samples, embedder = load_run_data(run).samples, Embedder.from_pretrained(run)
    rows = samples.rows("validation")
    vectors = {
        m: embedder.encode(batch_size=256, precision="float32", **{m: list(samples.values(m, rows))})
        for m in samples.modalities
    }
    return vectors | {"keys": [samples.key_of(row) for row in rows.tolist()]}


def test_evaluate_measures_every_direction(called: Called, run: Path, validation: dict[str, Any]) -> None:
    document = json.loads(called("evaluate", run, "--split", "validation", "--json"))
    assert (document["run"], document["split"], document["seed"]) == (str(run), "validation", 0)
    assert document["baselines"] == {}
    pairs = {f"{a}->{b}" for a in ("image", "graph", "text") for b in ("image", "graph", "text") if a != b}
    assert set(document["pairs"]) == pairs
    for pair, measured in document["pairs"].items():
        assert set(measured) >= MEASURES
        a, b = pair.split("->")
        scores = validation[a] @ validation[b].T  # one drawing of each character: the right answers are the diagonal
        ranks = (scores >= scores.diagonal()[:, None] - 1e-6).sum(axis=1)
        assert measured["queries"] == measured["pool"] == len(scores)
        assert measured["mean_rank"] == pytest.approx(ranks.mean(), abs=0.1)
        assert measured["recall@10"] == pytest.approx((ranks <= 10).mean(), abs=0.01)


def test_evaluate_takes_the_test_split_and_writes_what_it_prints(called: Called, run: Path, tmp_path: Path) -> None:
    printed = json.loads(called("evaluate", run, "--json", "--out", tmp_path / "deep" / "out"))
    assert printed["split"] == "unseen_characters"
    assert json.loads((tmp_path / "deep" / "out" / "metrics.json").read_text()) == printed
    with Image.open(tmp_path / "deep" / "out" / "retrieval.png") as chart:
        assert chart.width > chart.height > 0
        assert len(chart.convert("RGB").getcolors(2**24) or ()) > 10  # not an empty page


def test_evaluate_prints_a_table_for_people(called: Called, run: Path) -> None:
    out = called("evaluate", run, "--split", "validation")
    assert "Retrieval in 'validation'" in out
    assert len([line for line in out.splitlines() if " -> " in line and line.split().count("220") == 2]) == 6
    assert all(len(line) <= 80 for line in out.splitlines())


def test_evaluate_takes_other_data_and_an_exported_model(called: Called, run: Path, tmp_path: Path) -> None:
    columns = {"text": "name", "graph": "outline"}
    data = {"table": "glyphs", "columns": columns, "group": "character", "split": "split", "test": "validation"}
    (tmp_path / "other.yaml").write_text(yaml.safe_dump({"data": data}))
    document = json.loads(called("evaluate", run / "model", "--data", tmp_path / "other.yaml", "--json"))
    assert set(document["pairs"]) == {"text->graph", "graph->text"}
    assert document["split"] == "validation"


def test_evaluate_says_that_a_table_is_without_the_column_of_groups(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        Image.new("L", (48, 48), 80 * n).save(tmp_path / f"{n}.png")
    (tmp_path / "signs.csv").write_text("photo,name\n0.png,black\n1.png,grey\n2.png,light\n")
    table = [str(run), "--data", str(tmp_path / "signs.csv"), "--columns.image", "photo", "--columns.text", "name"]
    assert main(["evaluate", *table, "--key", ""]) == 0
    note = "The run groups its rows by the column 'character', which the table "
    assert note in capsys.readouterr().err
    assert main(["evaluate", *table, "--key", "", "--group", "name"]) == 0
    assert note not in capsys.readouterr().err


def test_evaluate_searches_another_pool(called: Called, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = [str(run), "--split", "validation", "--columns.text", "name", "--columns.graph", "outline", "--json"]
    alone = json.loads(called("evaluate", *data))
    assert main(["evaluate", *data, "--pool", "unseen_characters"]) == 0
    printed = capsys.readouterr()
    other = json.loads(printed.out)
    assert other["pairs"] == {}
    assert "No query has a right answer in the pool" in printed.err
    same = json.loads(called("evaluate", *data, "--pool", "validation"))
    assert same["pairs"] == alone["pairs"]
    assert set(alone["pairs"]) == {"text->graph", "graph->text"}
    assert (other["split"], other["pool"]) == ("validation", "unseen_characters")


@pytest.fixture
def mostly_train(tmp_path: Path) -> list[str]:
    """A table of 98 titles to train on and two drawn things to test on, the last of them without a readable title."""
    rows = [f"t{n},,thing {n},train" for n in range(98)]
    for name, title in (("a", "black star"), ("b", " ")):
        Image.new("RGB", (40, 40), "white").save(tmp_path / f"{name}.png")
        rows.append(f"{name},{name}.png,{title},test")
    (tmp_path / "things.csv").write_text("\n".join(["id,photo,title,split", *rows]))
    columns = {"image": "photo", "text": "title"}
    data = {"table": str(tmp_path / "things.csv"), "columns": columns, "key": "id", "split": "split"}
    (tmp_path / "things.yaml").write_text(yaml.safe_dump({"data": data}))
    return [str(tmp_path / "things.yaml"), "--split", "test"]


@pytest.mark.parametrize("pool", [[], ["--pool", "all"]])
def test_rows_that_cannot_be_read_count_against_the_table_as_in_training(
    run: Path, mostly_train: list[str], capsys: pytest.CaptureFixture[str], pool: list[str]
) -> None:
    command = ["evaluate", str(run), "--data", *mostly_train, *pool, "--json"]
    assert main(command) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["pairs"]["text->image"]["queries"] == 1
    (rejected,) = printed.err.splitlines()
    assert rejected.startswith("1 of 100 rows cannot be read (1 x empty text); max_rejects 0.01 allows 1.")

    assert main([*command, "--max_rejects", "0"]) == 1
    error = capsys.readouterr().err
    assert "The first: row 99 ('b'), column 'title': " in error
    assert error.endswith("max_rejects 0.01 would allow those found so far.\n")


def test_embed_counts_rejects_against_the_table_too(
    run: Path, mostly_train: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["embed", str(run), *mostly_train, "--json"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["rejects"] == 1
    assert main([*command, "--out", str(tmp_path / "other"), "--max_rejects", "0"]) == 1
    assert "The first: row 99 ('b'), column 'title': " in capsys.readouterr().err


def test_a_file_is_embedded_as_a_table_by_its_columns(called: Called, run: Path, tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("id,title,other\na,black star,\nb,,white arrow\nc, ,\n")
    out = tmp_path / "out"
    table = [tmp_path / "words.csv", "--columns.text", "title", "--columns.text", "other", "--key", "id"]
    code = main(
        [str(a) for a in ("embed", run / "model", *table, "--out", out, "--max_rejects", "0.4", "--json", *EXACT)]
    )
    assert code == 0
    assert json.loads((out / "rejects.jsonl").read_text())["key"] == "c"
    rows = pq.read_table(out / "part-00000.parquet").to_pylist()
    assert [row["key"] for row in rows] == ["a", "b"]
    expected = Embedder.from_pretrained(run).encode(batch_size=256, text=["black star", "white arrow"])
    np.testing.assert_allclose([row["text"] for row in rows], expected, atol=1e-5)


@pytest.mark.parametrize("columns", [{"sound": "name"}, {"text": "name"}, {"sound": "key", "text": "name"}])
def test_evaluate_refuses_data_that_share_fewer_than_two_modalities_with_the_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: dict[str, str]
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump({"data": {"table": "glyphs", "columns": columns, "split": "split"}}))
    out = tmp_path / "out"
    assert main(["evaluate", str(run), "--data", str(other), "--split", "validation", "--out", str(out)]) == 1
    assert capsys.readouterr() == (
        "",
        f"multimodal evaluate: The model knows ['image', 'graph', 'text'], the data have {[*columns]}: no pair.\n",
    )
    assert not out.exists()


# -- embed and index


def test_embed_writes_the_vectors_of_a_split_and_reports_the_speed(
    called: Called, run: Path, tmp_path: Path, validation: dict[str, Any]
) -> None:
    arguments = ("embed", run, "--split", "validation", *EXACT, "--out", tmp_path / "out", "--json")
    document = json.loads(called(*arguments))
    assert (document["rows"], document["rejects"], document["out"]) == (220, 0, str(tmp_path / "out"))
    assert document["rows_per_second"] == pytest.approx(220 / document["seconds"])
    (part,) = (tmp_path / "out").glob("*.parquet")
    table = pq.read_table(part)
    assert table["key"].to_pylist() == validation["keys"]
    for modality in ("image", "graph", "text"):
        assert np.array(table[modality].to_pylist()) == pytest.approx(validation[modality], abs=1e-4)

    written = part.stat().st_mtime_ns
    again = json.loads(called(*arguments))  # there is nothing left to do
    assert (document["rows_before"], again["rows"], again["rows_before"], again["rows_per_second"]) == (0, 220, 220, 0)
    said = called(*arguments[:-1])
    assert said == f"220 rows had been embedded before, nothing was left to do: {tmp_path / 'out'}\n"
    assert part.stat().st_mtime_ns == written


def test_embed_counts_alternatives_and_takes_over_what_is_unchanged(called: Called, run: Path, tmp_path: Path) -> None:
    table, out = tmp_path / "words.csv", tmp_path / "out"
    columns = ["--columns.text", "title", "--columns.text", "other", "--key", "id"]
    chosen = ["--dtype", "int8", "--metadata", "title,id", "--out", out]
    table.write_text("id,title,other\na,black star,star\nb,,white arrow\n")
    said = called("embed", run / "model", table, *columns, *chosen)
    assert re.fullmatch(rf"2 rows \(3 with alternatives\) embedded in .* s \(.* rows/s\): {out}\n", said)
    table.write_text("id,title,other\na,black star,star\nb,,white arrow\nc,heart,black heart\n")
    said = called("embed", run / "model", table, *columns, *chosen)
    assert said.startswith("3 rows (5 with alternatives) embedded, 3 of them unchanged, in ")
    said = called("embed", run / "model", table, *columns, *chosen)
    assert said == f"3 rows (5 with alternatives) had been embedded before, nothing was left to do: {out}\n"
    document = json.loads(called("embed", run / "model", table, *columns, *chosen, "--json"))
    assert (document["rows"], document["with_alternatives"], document["unchanged"]) == (3, 5, 0)
    part = pq.read_table(out / "part-00000.parquet")
    assert [json.loads(text) for text in part["metadata"].to_pylist()[-2:]] == [{"title": "heart", "id": "c"}] * 2
    assert part["text"].type.value_type == pa.int8()


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--processes", "0", "'0' is not a number of processes"),
        ("--processes", "many", "'many' is not a number of processes"),
        ("--dtype", "float64", "invalid choice: 'float64'"),
        ("--metadata", "nam", "has no column 'nam'. Did you mean 'name'"),
    ],
)
def test_embed_names_what_is_wrong_with_an_option(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    assert main(["embed", str(run), "--out", str(tmp_path / "out"), option, value]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_embed_takes_a_configuration_for_the_table(called: Called, run: Path, tmp_path: Path) -> None:
    (tmp_path / "names.yaml").write_text("data: {table: glyphs, columns: {text: name}, split: split}")
    out = called("embed", run, tmp_path / "names.yaml", "--split", "validation", "--out", tmp_path / "out")
    assert out.startswith("220 rows embedded")
    assert pq.read_schema(tmp_path / "out" / "part-00000.parquet").names == [
        "key",
        "group",
        "metadata",
        "digest",
        "text",
    ]


def test_index_reports_what_it_holds(called: Called, embeddings: Path, tmp_path: Path) -> None:
    document = json.loads(called("index", embeddings, "--out", tmp_path / "index", "--json"))
    assert (document["out"], document["vectors"], document["dim"]) == (str(tmp_path / "index"), 660, 16)
    assert sorted(document["modalities"]) == ["graph", "image", "text"]
    assert called("index", embeddings, "--out", tmp_path / "index").startswith("660 vectors of ")


# -- search


def test_search_finds_what_comparing_with_every_vector_finds(
    called: Called, run: Path, index: Path, validation: dict[str, Any]
) -> None:
    command = ("search", run, index, "--text", "greek letter", "-k", 7, "--target", "graph", "--json")
    document = json.loads(called(*command))
    assert document["query"] == {"text": "greek letter"}
    (query,) = Embedder.from_pretrained(run).encode(text=["greek letter"])
    scores = validation["graph"] @ query
    best = np.sort(scores)[::-1][:7]
    assert [hit["score"] for hit in document["hits"]] == pytest.approx(best.tolist(), abs=1e-5)
    for hit in document["hits"]:
        assert set(hit) == {"key", "modality", "score", "metadata"}
        assert hit["modality"] == "graph"
        assert hit["score"] == pytest.approx(float(scores[validation["keys"].index(hit["key"])]), abs=1e-5)
        font, code_point = hit["key"].split("/U+")
        assert (hit["metadata"]["font"], hit["metadata"]["character"]) == (font, chr(int(code_point, 16)))


def test_a_search_for_a_row_that_is_not_json_is_asked_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedder = Embedder({"tabular": create("tabular", "mlp"), "text": create("text", "bag")}, dim=8)
    embedder.fit_processors({"tabular": [{"category": "mugs"}, {"category": "rugs"}], "text": ["red mug", "rug"]})
    embedder.save_pretrained(tmp_path / "model")
    (tmp_path / "things.csv").write_text("title,category\nred mug,mugs\nrug,rugs\n")
    paths = [str(tmp_path / name) for name in ("model", "things.csv", "embeddings", "index")]
    assert main(["embed", *paths[:2], "--columns.text", "title", "--out", paths[2]]) == 0
    assert main(["index", paths[2], "--out", paths[3]]) == 0
    capsys.readouterr()
    assert main(["search", paths[0], paths[3], "--tabular", "mugs"]) == 1
    assert capsys.readouterr().err.endswith("""Give JSON, like '{"category": "mugs"}'.\n""")
    assert main(["search", paths[0], paths[3], "--tabular", '{"category": "mugs"}']) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--text", "a", "--taget", "image"], "there is no option --taget. Did you mean 'target'"),
        (["--taget=image", "--text", "a"], "there is no option --taget. Did you mean 'target'"),
        (["--text", "a", "--limit", "3"], "there is no option --limit."),
        (["--tex", "a"], "has no modality 'tex'. Did you mean 'text'?"),
        (["--text", "a", "-k", "3.0"], "invalid int value: '3.0'"),
    ],
)
def test_an_unknown_option_of_search_is_not_taken_for_a_query(
    run: Path, index: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    assert main(["search", str(run), str(index), *options]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def queries(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """The key of an indexed drawing, and what it is searched with: its name, its picture, its outline."""
    table, folder = Glyphs(), tmp_path_factory.mktemp("queries")
    row = next(row for row in range(len(table)) if table.value(row, "split") == "validation")
    Image.fromarray(table.value(row, "image")).save(folder / "glyph.png")
    outline = {name: values.tolist() for name, values in table.value(row, "outline").to_dict().items()}
    (folder / "glyph.json").write_text(json.dumps(outline))
    values = {"text": table.value(row, "name"), "image": folder / "glyph.png", "graph": folder / "glyph.json"}
    return table.value(row, "key"), {modality: str(value) for modality, value in values.items()}


@pytest.mark.parametrize("modality", ["text", "image", "graph"])
def test_a_thing_is_found_by_each_of_its_forms(
    called: Called, run: Path, index: Path, queries: tuple[str, dict[str, str]], modality: str
) -> None:
    key, values = queries
    value = values[modality]
    command = ("search", run, index, f"--{modality}", value, "--target", modality, "--json")
    document = json.loads(called(*command))
    assert document["query"] == {modality: value}
    best = document["hits"][0]["score"]
    assert best == pytest.approx(1, abs=1e-5)
    assert key in [hit["key"] for hit in document["hits"] if hit["score"] == pytest.approx(best, abs=1e-5)]
    assert len(document["hits"]) == 10


def test_search_prints_a_line_a_hit_for_people(called: Called, run: Path, index: Path) -> None:
    hits = json.loads(called("search", run / "model", index, "--text=arrow", "-k", 4, "--json"))["hits"]
    lines = called("search", run / "model", index, "--text=arrow", "-k", 4).splitlines()
    assert len(lines) == 4
    for line, hit in zip(lines, hits, strict=True):
        assert line == f"{hit['score']:.3f} {hit['modality']} {hit['key']} {hit['metadata']['name']}"


def test_rows_without_a_name_are_shown_by_their_cells(called: Called, run: Path, tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text(f"id,title,note\na,black star,\nb,white arrow,{'long ' * 40}\n")
    table = [tmp_path / "words.csv", "--columns.text", "title", "--key", "id"]
    called("embed", run / "model", *table, "--out", tmp_path / "embeddings")
    called("index", tmp_path / "embeddings", "--out", tmp_path / "index")
    lines = called("search", run, tmp_path / "index", "--text", "star").splitlines()
    one, other = sorted(line.split(maxsplit=1)[1] for line in lines)
    assert one == "text a title=black star"
    assert re.fullmatch(r"text b title=white arrow \| note=[long ]+…", other)
    assert max(map(len, lines)) == 120


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_hits_can_be_printed_in_any_encoding(
    run: Path, index: Path, monkeypatch: pytest.MonkeyPatch, form: tuple[str, ...]
) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["search", str(run), str(index), "--text", "größer", "-k", "30", *form]) == 0
    out.seek(0)
    printed = out.read()
    if form:
        document = json.loads(printed)
        assert document["query"] == {"text": "größer"}
        assert len(document["hits"]) == 30
        for hit in document["hits"]:
            assert hit["key"].endswith(f"/U+{ord(hit['metadata']['character']):04X}")
        assert not all(hit["metadata"]["character"].isascii() for hit in document["hits"])
    else:
        assert len(printed.splitlines()) == 30
