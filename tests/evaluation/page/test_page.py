"""The page of a report has everything, escapes everything, loads nothing, and never fails because of the data."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from html_pages import EVIL, Page
from sklearn.metrics import confusion_matrix

from multimodal.core.embedder import Embedder
from multimodal.core.html_page import printable
from multimodal.evaluation.page.first_hits import first_hits
from multimodal.evaluation.page.searches import example_searches, worst_searches
from multimodal.evaluation.report import Report
from multimodal.evaluation.run_evaluation import evaluate

Rows = list[dict[str, Any]]
COLUMNS = {"image": "picture", "text": "title", "graph": "outline"}
SHOWN = EVIL.partition("\u202e")[0].strip()


def measure(embedder: Embedder, rows: Rows, **more: Any) -> Report:
    return evaluate(embedder, rows, columns=COLUMNS, key="id", split="all", split_seed=0, **more)


@pytest.fixture(scope="module")
def report(embedder: Embedder, signs: Rows, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Path]:
    out = tmp_path_factory.mktemp("report")
    return measure(embedder, signs, out=out, label="class", slices=["class"], fuse="text+image"), out


@pytest.fixture(scope="module")
def page(report: tuple[Report, Path]) -> Page:
    return Page((report[1] / "report.html").read_text(encoding="utf-8"))


def test_the_page_has_all_parts(page: Page, report: tuple[Report, Path]) -> None:
    titles = ["Retrieval", "Recall by modality", "Examples", "The worst failures", "Confusion among neighbours"]
    titles += [
        "Map of the space",
        "Space",
        "Classes",
        "Slices",
        "Sizes",
        "Missing",
        "Training",
        "How this was measured",
    ]
    for title in titles:
        assert title in page.text
    for grid in (grid for section in report[0].sections.values() for grid in section.grids()):
        assert grid.title.replace(" -> ", " → ").split(EVIL)[0] in page.text
    r = report[0].pairs["text->image"]
    low, high = (
        100 * bound
        for bound in (
            report[0].intervals["text->image"]["recall@1"].low,
            report[0].intervals["text->image"]["recall@1"].high,
        )
    )
    assert f"{r.recall_at_1:.1%} R@1, {low:.1f} to {high:.1f}: text → image" in page.text
    assert "text+image → graph" in page.text


def test_the_page_loads_nothing_and_runs_no_script_but_its_own(page: Page) -> None:
    addresses = [
        value for name, value in page.attributes if name in ("src", "href", "action", "poster", "srcset", "data")
    ]
    assert all(value.startswith(("#", "data:")) for value in addresses)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert len(page.scripts) == 3  # the data of the map, the pictures, and the page's own
    policy = next(value for name, value in page.attributes if name == "content" and "default-src" in value)
    assert policy.startswith("default-src 'none'; img-src data:; media-src data:;")
    assert "script-src 'sha256-" in policy
    for data in page.scripts[:2]:
        assert "<" not in data
        json.loads(data)
    assert "import(" not in page.scripts[2]
    assert "http" not in page.scripts[2]


def test_hostile_texts_are_text(page: Page) -> None:
    assert SHOWN in page.text
    assert "\u202e" not in page.text
    assert "\x00" not in page.text
    assert page.tags.isdisjoint({"iframe", "object", "embed", "link", "base"})
    assert ("onerror", "alert(1)") not in page.attributes


def test_the_map_has_each_vector_with_its_row(page: Page, signs: Rows) -> None:
    data = next(json.loads(script) for script in page.scripts if script.startswith('{"layouts"'))
    assert len(data["row"]) == 40 + 32 + 30
    assert {row["key"] for row in data["rows"]} == {printable(f"k{n} {EVIL}") for n in range(40)}
    assert not [char for script in page.scripts[:2] for char in ("\\u202e", "\\u0000") if char in script]
    assert set(data["layouts"]) == {"PCA", "PCA, each modality's mean subtracted"}
    for layout in data["layouts"].values():
        assert np.isfinite([layout["x"], layout["y"]]).all()
    assert set(data["columns"]) == {"class", printable(EVIL)}  # each title is of one row
    for number, row in enumerate(data["rows"]):
        n = int(row["key"].split()[0][1:])
        assert ("image" in row["media"], "graph" in row["media"]) == (n % 5 > 0, n % 4 > 0)
        assert data["columns"][printable(EVIL)]["numbers"][number] == pytest.approx(n / 7)
        assert data["columns"]["class"]["names"][data["columns"]["class"]["of"][number]] == printable(signs[n]["class"])


def test_examples_are_those_of_a_search(report: tuple[Report, Path]) -> None:
    evaluated = report[0].evaluated
    assert evaluated is not None
    vectors, keys = evaluated.searched_for.vectors, evaluated.searched_for.keys
    rows = {m: [int(keys[r]) for r in evaluated.searched_for.rows[m].tolist()] for m in vectors}
    found = example_searches(evaluated)
    assert len(found) == sum(min(30, len(measured.queries)) for measured in evaluated.by_query.values())
    for search in found:
        source, _, target = search.pair.partition("->")
        scores = (vectors[target] @ vectors[source][rows[source].index(search.row)]).tolist()
        right = [row == search.row for row in rows[target]]
        best = max(s for s, r in zip(scores, right, strict=True) if r)
        assert search.rank == 1 + sum(s >= best - 1e-6 for s, r in zip(scores, right, strict=True) if not r)
        assert search.hits[0].score == pytest.approx(max(scores), abs=1e-5)
        assert all(hit.is_right == (hit.row == search.row) for hit in search.hits)
        assert search.answer.row == search.row
        assert search.hits[0].is_right == (search.rank == 1)


def test_the_worst_searches_have_the_worst_ranks_and_margins(report: tuple[Report, Path]) -> None:
    evaluated = report[0].evaluated
    assert evaluated is not None
    first = {
        p: first_hits(evaluated.searched_for, evaluated.pool.embeddings, p, m.queries)
        for p, m in evaluated.by_query.items()
    }
    by_pair: dict[str, list[int]] = {}
    for search in worst_searches(evaluated, first):
        by_pair.setdefault(search.pair, []).append(search.rank)
    for pair, measured in evaluated.by_query.items():
        worst = sorted(measured.ranks.int().tolist(), reverse=True)[:5]
        assert sorted(by_pair[pair], reverse=True)[:5] == [rank for rank in worst if rank > 1]


def test_confusions_equal_the_matrix_of_sklearn(report: tuple[Report, Path], page: Page, signs: Rows) -> None:
    evaluated = report[0].evaluated
    assert evaluated is not None
    vectors, keys, rows = evaluated.searched_for.vectors, evaluated.searched_for.keys, evaluated.searched_for.rows
    classes = {m: [signs[int(keys[r])]["class"] for r in rows[m].tolist()] for m in vectors}
    queries = evaluated.by_query["graph->text"].queries
    hits = first_hits(evaluated.searched_for, evaluated.pool.embeddings, "graph->text", queries).hits.tolist()
    names = sorted(set(classes["text"]))
    asked = [classes["graph"][q] for q in queries.tolist()]
    expected = confusion_matrix(asked, [classes["text"][hit] for hit in hits], labels=names)
    shown = re.search(r"graph → text query ↓ found →(.*?)(?:text\+image → graph|Map of)", page.text)
    assert shown is not None
    cells = [int(word) for word in shown[1].replace(SHOWN, "").split() if word.isdecimal()]
    assert cells == [count for count in expected.flatten().tolist() if count]


def test_the_same_data_give_the_same_page(
    report: tuple[Report, Path], embedder: Embedder, signs: Rows, tmp_path: Path
) -> None:
    again = measure(embedder, signs, label="class", slices=["class"], fuse="text+image", sections=["space"])
    for folder in (tmp_path / "a", tmp_path / "b"):
        replace(again, cost=None).save(folder)
    for name in ("report.html", "model_card.md", "points.parquet", "metrics.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    repeated = measure(embedder, signs, label="class", slices=["class"], fuse="text+image", sections=["space"])
    replace(repeated, cost=None).save(tmp_path / "b")
    assert (tmp_path / "a" / "report.html").read_bytes() == (tmp_path / "b" / "report.html").read_bytes()


def _one(rows: Rows, embedder: Embedder) -> Rows:
    return rows[1:2]


def _none_right(rows: Rows, embedder: Embedder) -> Rows:
    return [
        {**row, "picture": None, "outline": None} if n % 2 else {**row, "title": None} for n, row in enumerate(rows)
    ]


def _equal(rows: Rows, embedder: Embedder) -> Rows:
    return [{**rows[1], "id": str(n)} for n in range(6)]


@pytest.mark.parametrize("change", [_one, _none_right, _equal])
def test_degenerate_tables_have_a_page(
    change: Callable[[Rows, Embedder], Rows], embedder: Embedder, signs: Rows, tmp_path: Path
) -> None:
    report = measure(embedder, change(signs, embedder), out=tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Map of the space" in page.text
    assert ("Examples" in page.text) == bool(report.pairs)
    assert "nan" not in page.text.lower().split()


def test_vectors_that_are_not_finite_have_a_page(embedder: Embedder, signs: Rows, tmp_path: Path) -> None:
    report = measure(embedder, signs)
    assert report.evaluated is not None
    vectors = report.evaluated.queries.embeddings.vectors
    vectors["text"] = vectors["text"].clone()  # else it cannot be changed
    vectors["text"][3] = torch.nan
    report.save(tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "101 of 102 vectors" in page.text


def test_values_that_are_gone_are_stated(
    embedder: Embedder, tmp_path: Path, signs: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{**row, "picture": f"{n}.png"} for n, row in enumerate(signs) if row["picture"]]
    for n, row in enumerate(signs):
        Path(f"{n}.png").write_bytes(row["picture"] or b"")
    report = measure(embedder, rows)
    for path in tmp_path.glob("*.png"):
        path.unlink()
    report.save("out")
    assert "cannot be read: the file 3.png does not exist" in Page(Path("out/report.html").read_text("utf-8")).text


def test_a_report_without_vectors_has_tables_alone(report: tuple[Report, Path], tmp_path: Path) -> None:
    replace(report[0], evaluated=None).save(tmp_path)
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Recall by modality" in page.text
    assert "Map of the space" not in page.text
    assert not (tmp_path / "points.parquet").exists()


def test_the_configuration_and_the_curves_of_a_run_are_shown(embedder: Embedder, tmp_path: Path, signs: Rows) -> None:
    run = tmp_path / "run <b>"
    embedder.save_pretrained(run / "model")
    table = tmp_path / "signs.csv"
    table.write_text("id,title,words\n" + "".join(f"{n},sign {n},cup {n}\n" for n in range(6)))
    data = {"table": str(table), "columns": {"text": "title"}}
    (run / "config.yaml").write_text(yaml.safe_dump({"seed_everything": 3, "data": data, "note": EVIL}))
    (run / "logs" / "version_0").mkdir(parents=True)
    (run / "logs" / "version_0" / "metrics.csv").write_text("step,train/loss,val/recall@1\n1,2.0,\n2,1.0,0.5\n")
    evaluate(run, signs, columns=COLUMNS, split="all", out=tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "seed_everything: 3" in page.text
    assert SHOWN.partition("&")[0].strip() in page.text
    assert "train/loss" in page.text
    assert "run <b>" in page.text
    assert (tmp_path / "out" / "report.html").stat().st_size < 6_000_000
