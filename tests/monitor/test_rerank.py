"""A ranking that learns from judgements at once: near to judged queries it changes, elsewhere nothing does."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from multimodal.core.calibration import Calibration, ConfidenceBins, PairCalibration
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.monitor.feedback_pairs import WeightedPair
from multimodal.monitor.rerank import CUTOFF, FIRST_PAGE, MARGIN, PRIOR, SHARPNESS, FeedbackRanking
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.engines.qdrant_edge import QdrantEdgeEngine
from multimodal.search.index import Index

DIM, ROWS = 16, 60


class Words:
    """A processor of typed values."""

    reads_files = False


class Pictures:
    reads_files = True


class NumberedQueries:
    """A model whose texts "q7" are the seventh of some vectors, and "q7~0.9" one of cosine 0.9 to it."""

    calibration: Any = None
    modalities = ("text", "image")
    processors = {"text": Words(), "image": Pictures()}  # noqa: RUF012
    fingerprint = "f" * 64

    def __init__(self) -> None:
        draws = np.random.default_rng(0).standard_normal((40, DIM))
        self.vectors = np.linalg.qr(draws[:DIM])[0]  # far from one another

    def encode(self, text: list[str], **settings: Any) -> np.ndarray:
        found = []
        for value in text:
            name, _, cosine = value.partition("~")
            if not name.startswith("q"):
                raise MultimodalError(f"{value} cannot be read")
            number, near = int(name[1:]), float(cosine or 1)
            found.append(near * self.vectors[number] + np.sqrt(1 - near**2) * self.vectors[(number + 8) % DIM])
        return np.array(found, np.float32)


@pytest.fixture
def index() -> Index:
    vectors = np.random.default_rng(1).standard_normal((ROWS, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = {
        "key": [f"k{n}" for n in range(ROWS)],
        "group": [f"=g{n // 2}" for n in range(ROWS)],  # two rows in each
        "metadata": [json.dumps({"half": str(n % 2)}) for n in range(ROWS)],
        "modality": ["image"] * ROWS,
    }
    return Index(ExactEngine(vectors, pa.table(rows)), "f" * 64, embedder=NumberedQueries())  # pyright: ignore[reportArgumentType]


def write(file: Path, *judgements: tuple[str, str, str], count: int = 5) -> Path:
    """Write a file of (verdict, query, key)."""
    lines = [
        {
            "verdict": verdict,
            "key": key,
            "modality": "image",
            "query": {"text": query},
            "position": 1,
            "query_id": f"{n}",
        }
        for verdict, query, key in judgements
        for n in range(count)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def keys(index: Index, query: str, k: int = 10, **settings: Any) -> list[str]:
    return [hit.key for hit in index.search(text=query, k=k, target="image", **settings)]


def group(key: str) -> int:
    return int(key[1:]) // 2


def test_what_was_clicked_rises_for_the_query_and_its_neighbours(index: Index, tmp_path: Path) -> None:
    plain = {query: keys(index, query, 30) for query in ("q1", "q1~0.95", "q1~0.8")}
    wanted = plain["q1"][12]
    index.learned = FeedbackRanking(index, write(tmp_path / "f", ("clicked", "q1", wanted)))
    ranks = {query: keys(index, query, 30).index(wanted) for query in plain}
    assert ranks["q1"] < 4
    for query, before in plain.items():
        assert ranks[query] < next(n for n, key in enumerate(before) if group(key) == group(wanted)), query
        others = [key for key in keys(index, query, 30) if group(key) != group(wanted)]
        assert others == [key for key in before if group(key) != group(wanted)][: len(others)]  # in their order


def test_queries_that_are_like_no_judged_one_are_answered_as_before(index: Index, tmp_path: Path) -> None:
    queries = [f"q{n}" for n in range(2, 16)] + [f"q1~{CUTOFF - 0.01}"]
    before = {query: index.search(text=query, k=20) for query in queries}
    down = keys(index, "q1")[0]
    index.learned = FeedbackRanking(index, write(tmp_path / "f", ("up", "q1", "k5"), ("down", "q1", down)))
    for query in queries:
        assert index.search(text=query, k=20) == before[query]
    model: Any = index.embedder
    plain = index.search(model.encode(["q2", "q1", "q3"]), k=20)  # next to one that changes
    for found, query in ((plain[0], "q2"), (plain[2], "q3")):
        assert [hit.key for hit in found] == [hit.key for hit in before[query]]


def test_bonuses_are_those_of_the_formula(index: Index) -> None:
    model: Any = index.embedder
    learned = FeedbackRanking(index, os.devnull)
    pairs = [("q1", "k5", 6.0), ("q1", "k20", 2.0), ("q1", "k30", -3.0), ("q1~0.5", "k5", 1.0)]
    learned.learn([WeightedPair((("text", q),), key, "image", w) for q, key, w in pairs])
    stored = index.vectors
    asked = model.encode(["q1~0.82"])
    expected: dict[str, float] = {}
    weights: dict[str, float] = {}
    for query in ("q1", "q1~0.5"):
        vector = model.encode([query])[0]
        cosine_of_queries = float(asked[0] @ vector)
        kernel = min(1.0, max(0.0, 2 * (cosine_of_queries - CUTOFF) / (1 - CUTOFF)))
        weights[query] = np.exp(cosine_of_queries / SHARPNESS)
        of_groups = np.sort((stored @ vector).reshape(-1, 2).max(axis=1))[::-1]
        largest = max(abs(w) for q, _, w in pairs if q == query)
        for q, key, weight in pairs:
            if q == query:
                cosine = float(stored[int(key[1:])] @ vector)
                distance = of_groups[0] - cosine if weight > 0 else cosine - of_groups[FIRST_PAGE - 1]
                bonus = weight / (PRIOR + largest) * (max(0.0, distance) + MARGIN)
                name = f"=g{group(key)}"
                expected[name] = expected.get(name, 0.0) + weights[query] * kernel * bonus
    total = sum(weights.values())
    (change,) = learned.changes(asked, "image")
    assert change is not None
    assert change.bonuses == pytest.approx({name: bonus / total for name, bonus in expected.items()}, abs=1e-5)
    assert set(change.keys) == {"k5", "k20"}


def test_a_missing_row_is_found_and_a_wrong_one_leaves_the_first_page(index: Index, tmp_path: Path) -> None:
    before = keys(index, "q3", 30)
    file = write(tmp_path / "f", ("missing", "q3", before[25]), ("down", "q3", before[0]), count=20)
    index.learned = FeedbackRanking(index, file)
    found = index.search(text="q3", k=10, target="image")
    assert before[25] in [hit.key for hit in found]
    assert before[0] not in [hit.key for hit in found]
    model: Any = index.embedder
    vector = model.encode(["q3"])[0]
    for hit in found:  # scores are cosines, whatever the order
        assert hit.score == pytest.approx(float(index.vectors[int(hit.key[1:])] @ vector), abs=1e-5)


def test_conditions_hold_for_what_was_learned(index: Index, tmp_path: Path) -> None:
    index.learned = FeedbackRanking(index, write(tmp_path / "f", ("missing", "q3", "k7"), count=20))
    assert "k7" in keys(index, "q3")
    assert all(int(key[1:]) % 2 == 0 for key in keys(index, "q3", 30, where={"half": "0"}))
    assert "k7" not in [hit.key for hit in index.search(text="q3", like=["k7"])]


def test_a_query_nearer_to_the_name_of_another_group_learns_nothing(index: Index, tmp_path: Path) -> None:
    model: Any = index.embedder
    before = {query: keys(index, query, 30) for query in ("q1", "q1~0.95", "q1~0.9")}
    wanted = before["q1"][15]
    names = model.encode(["q1~0.92", "q1~0.91"])  # of another group, and of the one that was judged right
    other = next(key for key in before["q1"] if group(key) != group(wanted))
    rows = {"key": [other, wanted], "group": [f"=g{group(key)}" for key in (other, wanted)]}
    part = pa.table(rows | {"metadata": ["{}"] * 2, "modality": ["text"] * 2})
    named = ExactEngine(np.concatenate([index.vectors, names]), pa.concat_tables([index.items, part]))
    with_names = Index(named, "f" * 64, embedder=index.embedder)
    with_names.learned = FeedbackRanking(with_names, write(tmp_path / "f", ("clicked", "q1", wanted), count=20))
    assert keys(with_names, "q1", 30).index(wanted) == 0  # as far as itself
    assert keys(with_names, "q1~0.9", 30) == before["q1~0.9"]
    assert keys(with_names, "q1~0.99", 30).index(wanted) < 3
    index.learned = FeedbackRanking(index, tmp_path / "f")  # without names it does
    assert keys(index, "q1~0.9", 30).index(wanted) < before["q1~0.9"].index(wanted)


def test_the_embedded_engine_ranks_the_same(index: Index, tmp_path: Path) -> None:
    file = write(tmp_path / "f", ("missing", "q3", "k7"), ("down", "q3", "k9"), ("clicked", "q3~0.9", "k11"))
    index.save(tmp_path / "index")
    with Index.open(tmp_path / "index") as other:
        assert isinstance(other.engine, QdrantEdgeEngine)
        other.embedder = index.embedder
        for each in (index, other):
            each.learned = FeedbackRanking(each, file)
        for query in ("q3", "q3~0.95", "q4"):
            assert keys(other, query) == keys(index, query)


def test_the_file_is_read_again_when_it_grows(index: Index, tmp_path: Path) -> None:
    file = write(tmp_path / "f", ("clicked", "q1", "k5"))
    ranking = FeedbackRanking(index, file)
    assert (ranking.judged, ranking.refresh()) == (1, False)
    write(file, ("clicked", "q1", "k5"), ("clicked", "q2", "k6"))
    assert ranking.refresh()
    assert ranking.judged == 2
    ranking.watch(interval=0.02)
    try:
        write(file, ("clicked", "q1", "k5"), ("clicked", "q2", "k6"), ("up", "q3", "k7"))
        end = time.monotonic() + 20
        while ranking.judged < 3 and time.monotonic() < end:
            time.sleep(0.02)
        assert ranking.judged == 3
        file.unlink()
        time.sleep(0.1)
        assert ranking.judged == 3  # what was learned is kept
    finally:
        ranking.close()


def test_what_cannot_be_learned_from_is_left_out(index: Index, tmp_path: Path) -> None:
    file = write(tmp_path / "f", ("up", "q1", "gone"), ("up", "unreadable", "k5"), ("up", "q2", "k6"))
    with file.open("a") as opened:
        for query in ({"image": "cup.png"}, {"text": "q1", "image": "cup.png"}, {"sound": "x"}, {}):
            opened.write(json.dumps({"verdict": "up", "key": "k5", "modality": "image", "query": query}) + "\n")
    assert FeedbackRanking(index, file).judged == 1
    with pytest.raises(MultimodalError, match="cannot be read"):
        FeedbackRanking(index, tmp_path / "missing")
    index.embedder = None
    with pytest.raises(UsageError, match="does not know its model"):
        FeedbackRanking(index, file)


def test_probabilities_are_of_the_scores(index: Index, tmp_path: Path) -> None:
    model: Any = index.embedder
    bins = ConfidenceBins.of(np.linspace(0, 1, 200), np.random.default_rng(0).random(200) < np.linspace(0, 1, 200))
    model.calibration = Calibration({"text->image": PairCalibration(20.0, 0.3, bins, bins, ROWS, 200, 0.0)})
    before = {hit.key: hit.probability for hit in index.search(text="q3", k=10, target="image")}
    last = list(before)[-1]
    index.learned = FeedbackRanking(index, write(tmp_path / "f", ("up", "q3", last), count=30))
    after = index.search(text="q3", k=10, target="image")
    assert after[0].key == last
    assert {hit.key: hit.probability for hit in after} == pytest.approx(before)
