"""``search_index`` equals a comparison with every vector in numpy, and loads only the encoder of the query."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.search.embed import embed_table
from multimodal.search.index import Index
from multimodal.search.query import search_index

COLOURS, ITEMS = ["red", "blue", "old", "tall", "deep"], ["cup", "bowl", "vase", "plate"]
NAMES = [(colour, item) for colour in COLOURS for item in ITEMS]
ROWS = [
    {
        "id": f"s-{n}",
        "name": f"{c} {i}",
        "words": f"a {i} that is {c}",
        "set": f"g{n // 2}",
        "shelf": "ab"[n % 2],
        "price": n,
    }
    for n, (c, i) in enumerate(NAMES)
]
COLUMNS = {"title": "name", "caption": "words"}


def save_model(folder: Path, seed: int) -> Embedder:
    torch.manual_seed(seed)
    embedder = Embedder({modality: create("text", "bag") for modality in COLUMNS}, dim=16)
    embedder.fit_processors({modality: [row[column] for row in ROWS] for modality, column in COLUMNS.items()})
    embedder.save_pretrained(folder)
    return Embedder.from_pretrained(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("query") / "model"
    save_model(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def index(model: Path) -> Path:
    embed_table(
        model, ROWS, out=model.parent / "embeddings", columns=COLUMNS, key="id", group="set", precision="float32"
    )
    Index.build(model.parent / "embeddings", model.parent / "index")
    return model.parent / "index"


def reference(model: Path, query: dict[str, Any], k: int, target: str | None) -> list[tuple[str, str, float]]:
    """Compare the query with every vector and keep the best vector of each of the k best groups."""
    embedder = Embedder.from_pretrained(model)
    ((modality, value),) = query.items()
    (vector,) = embedder.encode(batch_size=256, precision="float32", **{modality: [value]})
    scored = []
    for other, column in COLUMNS.items():
        if target in (None, other):
            vectors = embedder.encode(batch_size=256, precision="float32", **{other: [row[column] for row in ROWS]})
            scored += [(float(s), row["set"], row["id"], other) for s, row in zip(vectors @ vector, ROWS, strict=True)]
    best: dict[str, tuple[str, str, float]] = {}
    for score, group, key, other in sorted(scored, reverse=True):
        best.setdefault(group, (key, other, score))
    return list(best.values())[:k]


@pytest.mark.parametrize("query", [{"title": "red cup"}, {"caption": "a vase that is old"}])
@pytest.mark.parametrize("target", [None, "title", "caption"])
@pytest.mark.parametrize("k", [1, 4, 99])
def test_hits_equal_those_of_numpy(model: Path, index: Path, query: dict[str, Any], target: str | None, k: int) -> None:
    hits = search_index(model, index, k, target, **query)
    expected = reference(model, query, k, target)
    assert [(hit.key, hit.modality) for hit in hits] == [(key, modality) for key, modality, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, _, score in expected], abs=1e-6)
    assert len(hits) == min(k, len(ROWS) // 2)
    of_key = {row["id"]: row for row in ROWS}
    assert all(hit.metadata["shelf"] == of_key[hit.key]["shelf"] for hit in hits)


@pytest.mark.parametrize("k", [["-k", "3"], ["-k3"], ["--k", "3"], ["--k=3"]], ids=" ".join)
def test_the_command_line_prints_the_hits_of_python(
    model: Path, index: Path, capsys: pytest.CaptureFixture[str], k: list[str]
) -> None:
    hits = search_index(model, index, 3, title="tall plate")
    assert main(["search", str(model), str(index), "--title", "tall plate", *k, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"query": {"title": "tall plate"}, "hits": [hit.to_json() for hit in hits]}


def test_a_condition_that_no_row_meets_is_named(model: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["search", str(model), str(index), "--title", "tall plate", "--where", "shelf=nowhere"]) == 0
    printed = capsys.readouterr()
    assert printed.out == "No hits\n"
    assert "No row has 'nowhere' in the column 'shelf'." in printed.err


def test_only_the_encoder_of_the_query_is_loaded(model: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[list[str]] = []
    encode = Embedder.encode

    def record(self: Embedder, *arguments: Any, **values: Any) -> Any:
        loaded.append(list(self.modalities))
        return encode(self, *arguments, **values)

    monkeypatch.setattr(Embedder, "encode", record)
    search_index(model, index, title="red cup")
    assert loaded == [["title"]]


def test_several_values_are_one_query(model: Path, index: Path) -> None:
    embedder = Embedder.from_pretrained(model)
    (title,) = embedder.encode(precision="float32", title=["red cup"])
    (caption,) = embedder.encode(precision="float32", caption=["a vase that is old"])
    vector = title - 0.5 * caption
    expected = Index.open(index).search(vector[None], k=4)[0]
    hits = search_index(model, index, 4, weights={"caption": -0.5}, title="red cup", caption="a vase that is old")
    assert [(hit.key, hit.modality) for hit in hits] == [(hit.key, hit.modality) for hit in expected]
    assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)


def test_rows_like_a_row_are_found_without_a_model_being_loaded(
    model: Path, index: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Embedder, "from_pretrained", None)
    hits = search_index(model, index, 3, like=["s-0"], where={"shelf": "a"})
    assert len(hits) == 3
    assert {hit.metadata["shelf"] for hit in hits} == {"a"}
    assert "g0" not in {ROWS[int(hit.key.removeprefix("s-"))]["set"] for hit in hits}
    assert main(["search", str(model), str(index), "--like", "s-0", "--where", "shelf=a", "-k", "3", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"query": {"like": ["s-0"]}, "hits": [hit.to_json() for hit in hits]}
    command = ["search", str(model), str(index), "--like", "s-0", "-k", "99", "--json"]
    assert main([*command, "--where", "price>=5", "--where", "price<7.5"]) == 0
    prices = [hit["metadata"]["price"] for hit in json.loads(capsys.readouterr().out)["hits"]]
    assert len(prices) == 2  # one of each group
    assert 5 in prices
    assert {6, 7} & {*prices}


def test_rare_words_are_found_by_hybrid_search(model: Path, index: Path) -> None:
    found = {hit.key for hit in search_index(model, index, 3, hybrid="s-17", title="red cup", target="title")}
    assert "s-17" in found
    assert "s-17" not in {hit.key for hit in search_index(model, index, 3, title="red cup", target="title")}


def test_an_empty_query_is_wrong_usage(model: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="takes a value of a modality"):
        search_index(model, index)
    assert main(["search", str(model), str(index)]) == 2
    assert "give a query, by --text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--where", "shelf"], "--where shelf: a condition is COLUMN=VALUE"),
        (["--where", "shelff=a"], "Did you mean 'shelf'"),
        (["--where", "shelf>=a"], "where: shelf >= 'a' is not a range: give a finite number, or a date"),
        (["--where", "shelf>=5"], "where: no row has a number in 'shelf'"),
        (["--where", "price>=5", "--where", "price<5"], "where: no value of price is >= 5 and < 5"),
        (["--weight", "title=heavy"], "--weight title=heavy: a weight is MODALITY=NUMBER"),
        (["--weight", "caption=2"], "no value of 'caption' to be weighted"),
        (["--title", "blue cup"], "each modality takes one value"),
        (["--tarqet", "title"], "there is no option --tarqet. Did you mean 'target'"),
        (["--unlike", "s-99"], "no row with the key 's-99'"),
    ],
)
def test_invalid_options_are_named(
    model: Path, index: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["search", str(model), str(index), "--title", "red cup", *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"titel": "red cup"}, "titel.*Did you mean 'title'"),
        ({"title": "red cup", "target": "captoin"}, "captoin.*Did you mean 'caption'"),
        ({"title": "red cup", "k": 0}, "k must be at least 1, got 0"),
    ],
)
def test_invalid_arguments_are_wrong_usage(model: Path, index: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search_index(model, index, **arguments)


@pytest.mark.parametrize("name", ["run", "index"])
def test_a_modality_may_have_the_name_of_a_folder_argument(
    model: Path, index: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    query: dict[str, Any] = {name: "red cup"}
    with pytest.raises(UsageError, match=f"'{name}'"):  # unknown to this model, but a valid name
        search_index(model, index, **query)
    assert main(["search", str(model), str(index), f"--{name}", "red cup"]) == 2
    assert f"'{name}'" in capsys.readouterr().err


def test_the_index_of_another_model_is_rejected_before_an_encoder_is_loaded(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "other", seed=1)
    monkeypatch.setattr(Embedder, "from_pretrained", None)
    with pytest.raises(MultimodalError, match="another model"):
        search_index(tmp_path / "other", index, title="red cup")


def test_a_missing_index_or_model_is_named(model: Path, index: Path, tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match="nowhere is not an index"):
        search_index(model, tmp_path / "nowhere", title="red cup")
    with pytest.raises(MultimodalError, match="nowhere"):
        search_index(tmp_path / "nowhere", index, title="red cup")


def test_a_value_that_cannot_be_read_is_reported(model: Path, index: Path) -> None:
    with pytest.raises(MultimodalError, match="title"):
        search_index(model, index, title=" ")


def test_a_damaged_model_is_reported(model: Path, index: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "model")
    (tmp_path / "model" / "embedder.json").write_text("{}")
    with pytest.raises(MultimodalError, match=r"embedder\.json is damaged"):
        search_index(tmp_path / "model", index, title="red cup")


@pytest.mark.parametrize("k", [3.0, "3", None, [3]])
def test_k_is_a_whole_number(model: Path, index: Path, k: Any) -> None:
    opened = Index.open(index, model=Embedder.from_pretrained(model))
    for search in (lambda: search_index(model, index, k=k, title="cup"), lambda: opened.search(k=k, title="cup")):
        with pytest.raises(UsageError, match=r"search(_index)?: k must be a whole number, not "):
            search()
