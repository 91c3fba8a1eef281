"""Canaries: known hits of known queries."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from embedded_shop import new_embedder
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.monitor.canary import Canary, read_canaries, run_canaries
from multimodal.search.index import Index

NAMES = ["red cup", "blue cup", "mug", "pot", "tea pot", "pan"]
ROWS = [{"sku": f"s-{i}", "name": name, "kind": "cups" if "cup" in name else "else"} for i, name in enumerate(NAMES)]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return new_embedder()


@pytest.fixture(scope="module")
def index(embedder: Embedder) -> Index:
    return Index.from_table(embedder, ROWS, columns={"text": "name"}, key="sku")


def test_each_canary_finds_what_a_search_finds(index: Index) -> None:
    table = [{"text": name, "expected": "s-3", "k": 2} for name in NAMES]
    result = run_canaries(index, table)
    for row, outcome in zip(table, result.outcomes, strict=True):
        hits = index.search(text=row["text"], k=2)
        assert [hit.key for hit in outcome.hits] == [hit.key for hit in hits]
        assert outcome.passed == (row["expected"] in [hit.key for hit in hits])
    assert 0 < result.rate < 1
    assert result.rate == result.passed.mean() == 1 - len(result.failed) / 6


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([f"s-{i}" for i in range(8)]), min_size=1, max_size=4, unique=True), st.integers(4, 8))
def test_the_recall_is_the_fraction_of_the_expected_keys_among_the_hits(
    index: Index, expected: list[str], k: int
) -> None:
    (outcome,) = run_canaries(index, [Canary({"text": "mug"}, tuple(expected), k)]).outcomes
    hits = {hit.key for hit in index.search(text="mug", k=k)}
    assert outcome.recall == pytest.approx(len(hits & {*expected}) / len(expected))
    assert outcome.missing == tuple(key for key in expected if key not in hits)
    assert outcome.unknown == tuple(key for key in expected if key in ("s-6", "s-7"))


def test_a_row_of_the_same_group_counts(embedder: Embedder) -> None:
    rows = [{"sku": "a", "name": "mug", "product": "1"}, {"sku": "b", "name": "tea pot", "product": "1"}]
    index = Index.from_table(embedder, rows, columns={"text": "name"}, key="sku", group="product")
    assert [hit.key for hit in index.search(text="mug")] == ["a"]
    assert run_canaries(index, [{"text": "mug", "expected": ["a", "b"]}]).rate == 1


def test_target_and_where_are_those_of_the_search(index: Index) -> None:
    table = [{"text": "mug", "expected": "s-2", "where": {"kind": "cups"}, "target": "text"}]
    (outcome,) = run_canaries(index, table).outcomes
    assert {hit.key for hit in outcome.hits} == {"s-0", "s-1"}
    assert not outcome.passed
    with pytest.raises(UsageError, match="holds no 'image' vectors"):
        run_canaries(index, [{"text": "mug", "expected": "s-2", "target": "image"}])


def test_files_say_the_same(tmp_path: Path, embedder: Embedder) -> None:
    rows = [
        {"text": "mug", "expected": ["s-2", "s-3"], "k": 5, "where": {"kind": "else"}, "note": "two pots"},
        {"text": "red cup", "expected": ["[s-0"], "k": None, "where": None, "note": None},
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pd.DataFrame(rows).to_parquet(tmp_path / "c.parquet")
    cells = [
        {"text": "mug", "expected": '["s-2", "s-3"]', "k": "5", "where": '{"kind": "else"}'},
        {"text": "red cup", "expected": "[s-0", "k": "", "where": ""},
    ]
    pd.DataFrame(cells).to_csv(tmp_path / "c.csv", index=False)
    expected = [
        Canary({"text": "mug"}, ("s-2", "s-3"), 5, None, {"kind": "else"}),
        Canary({"text": "red cup"}, ("[s-0",)),
    ]
    for name in ("c.jsonl", "c.parquet", "c.csv"):
        assert read_canaries(str(tmp_path / name), embedder.processors) == expected


def test_a_file_is_relative_to_the_table(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "point.json").write_text("{}")
    (tmp_path / "c.csv").write_text("graph,expected\npoint.json,s-0\n")
    (canary,) = read_canaries(str(tmp_path / "c.csv"), embedder.processors)
    assert canary.query == {"graph": tmp_path / "point.json"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "mug"}, "has no column 'expected'"),
        ({"txt": "mug", "expected": "a"}, "no column of a modality. Known: graph, text"),
        ({"text": None, "expected": "a"}, "Canary 0 of 'in memory' has no query: give a value of text"),
        ({"text": "mug", "expected": ""}, "needs 1 to 1,000 keys"),
        ({"text": "mug", "expected": "a", "k": 0}, "k is a whole number, not below the 1 expected keys, got 0"),
        ({"text": "mug", "expected": ["a", "b"], "k": 1}, "not below the 2 expected keys, got 1"),
        ({"text": "mug", "expected": "a", "k": 1.5}, "got 1.5"),
        ({"text": "mug", "expected": "a", "where": "kind=cups"}, "where is column -> value"),
        ({"text": "mug", "expected": "a", "where": "{kind: cups}"}, "is not JSON"),
    ],
)
def test_a_wrong_table_is_refused(embedder: Embedder, row: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        read_canaries([row], embedder.processors)


def test_an_index_without_its_model_and_an_empty_table_are_refused(index: Index, embedder: Embedder) -> None:
    with pytest.raises(UsageError, match="does not know its model"):
        run_canaries(Index(index.engine, index.fingerprint), [{"text": "mug", "expected": "s-2"}])
    with pytest.raises(UsageError, match="has no column"):
        read_canaries([], embedder.processors)


# -- the command


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder, index: Index) -> list[str]:
    folder = tmp_path_factory.mktemp("canary")
    embedder.save_pretrained(folder / "model")
    index.save(folder / "index", engine="exact")
    return [str(folder / "model"), str(folder / "index")]


def test_exit_codes_and_output(folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, poor = tmp_path / "good.csv", tmp_path / "poor.csv"
    good.write_text("text,expected\n" + "".join(f"{row['name']},{row['sku']}\n" for row in ROWS))
    poor.write_text(good.read_text() + "mug,s-9\n")
    assert main(["canary", *folders, str(good)]) == 0
    assert capsys.readouterr().out == "0 of 6 canaries failed, recall 1.000\n"
    assert main(["canary", *folders, str(poor)]) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(
        "1 of 7 canaries failed, recall 0.857\ntext 'mug': expected s-9 (not in the index: s-9)"
    )
    assert printed.err == "multimodal canary: more canaries failed than may: none (--allow).\n"
    assert main(["canary", *folders, str(poor), "--allow", "0.15", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["failed"], found["rate"]) == (1, pytest.approx(6 / 7))
    assert np.mean([entry["passed"] for entry in found["outcomes"]]) == found["rate"]
    assert main(["canary", *folders, str(poor), "--allow", "0.1"]) == 1
    assert capsys.readouterr().err.endswith("more canaries failed than may: 0.1 of them (--allow).\n")
    assert main(["canary", *folders, str(tmp_path / "none.csv")]) == 2
    assert main(["canary", *folders, str(good), "--allow", "2"]) == 2


def test_another_models_index_is_refused(folders: list[str], tmp_path: Path) -> None:
    new_embedder(1).save_pretrained(tmp_path / "other")
    (tmp_path / "c.csv").write_text("text,expected\nmug,s-2\n")
    assert main(["canary", str(tmp_path / "other"), folders[1], str(tmp_path / "c.csv")]) == 1
    with pytest.raises(MultimodalError, match="another model"):
        Index.open(folders[1], model=tmp_path / "other")
