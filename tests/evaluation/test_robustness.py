"""Robustness equals a direct computation from values that were corrupted one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from multimodal_encoders.text.bag_of_words import BagProcessor

from multimodal.core.batch import stable_hash
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Corruption
from multimodal.core.errors import Unreadable
from multimodal.core.registry import create
from multimodal.data.samples import Samples
from multimodal.evaluation.retrieval import Retrieval, measure_queries
from multimodal.evaluation.robustness import Robustness
from multimodal.media.corruptions.text import TEXT_CORRUPTIONS, misspell

COLOURS, ITEMS = ["red", "blue", "old", "tall", "deep"], ["cup", "bowl", "vase", "plate"]
ROWS = [
    {"name": f"{colour} {item} number {n}", "note": f"a {item} that is {colour}", "id": f"g{n}"}
    for n, (colour, item) in enumerate((colour, item) for colour in COLOURS for item in ITEMS)
]


@pytest.fixture(scope="module")
def samples() -> Samples:
    return Samples.of(ROWS, {"text": "name", "note": "note"}, group="id")


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """One encoder for both columns, so that untrained weights find similar texts."""
    torch.manual_seed(0)
    bag = create("text", "bag", width=32)
    embedder = Embedder({"text": bag, "note": bag}, dim=32, heads={"text": "none", "note": "none"})
    embedder.fit_processors({"text": [row["name"] for row in ROWS], "note": [row["note"] for row in ROWS]})
    return embedder


def direct(embedder: Embedder, rows: np.ndarray, name: str, corrupt: Corruption, seed: int) -> Retrieval:
    """Corrupt the names of rows and search the notes of all rows with them."""
    queries = [
        corrupt(ROWS[row]["name"], np.random.default_rng((seed, stable_hash(name), row))) for row in rows.tolist()
    ]
    notes = embedder.encode(note=[row["note"] for row in ROWS])
    found = measure_queries(
        torch.from_numpy(embedder.encode(text=queries)),
        torch.from_numpy(notes),
        torch.from_numpy(rows),
        torch.arange(len(ROWS)),
    )
    return Retrieval.of(found, len(ROWS))


def test_the_measures_equal_a_direct_computation(embedder: Embedder, samples: Samples) -> None:
    found = Robustness.of(embedder, samples, np.arange(len(ROWS)), seed=3)
    assert set(found.corrupted) == {"text", "note"}
    for name, corrupt in TEXT_CORRUPTIONS.items():
        expected = direct(embedder, np.arange(len(ROWS)), name, corrupt, seed=3)
        assert vars(found.corrupted["text"][name]["text->note"]) == pytest.approx(vars(expected), abs=1e-6)
    plain = direct(embedder, np.arange(len(ROWS)), "", lambda value, rng: value, seed=3)
    assert vars(found.uncorrupted["text->note"]) == pytest.approx(vars(plain), abs=1e-6)
    assert plain.recall_at_1 > found.corrupted["text"]["misspelled words"]["text->note"].recall_at_1
    assert found.corrupted["text"]["upper case"] == {"text->note": found.uncorrupted["text->note"]}  # a bag ignores it
    assert set(found.unreadable["text"].values()) == {0}
    assert found.notes == ()


def test_the_seed_decides(embedder: Embedder, samples: Samples) -> None:
    rows = np.arange(len(ROWS))
    first, again, other = (Robustness.of(embedder, samples, rows, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.uncorrupted == other.uncorrupted
    assert first.corrupted != other.corrupted


@pytest.fixture
def with_corruptions(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, Corruption]], None]:
    return lambda corruptions: monkeypatch.setattr(BagProcessor, "corruptions", lambda self: corruptions)


def test_a_corruption_that_changes_nothing_keeps_the_measures(
    embedder: Embedder, samples: Samples, with_corruptions: Callable[[Any], None]
) -> None:
    with_corruptions(
        {"none": lambda value, rng: value, "of strength 0": lambda value, rng: misspell(value, rng, share=0.0)}
    )
    found = Robustness.of(embedder, samples, np.arange(len(ROWS)))
    for modality in ("text", "note"):
        for pairs in found.corrupted[modality].values():
            assert pairs == {pair: found.uncorrupted[pair] for pair in pairs}


def test_values_that_a_corruption_makes_unreadable_are_counted(
    embedder: Embedder, samples: Samples, with_corruptions: Callable[[Any], None]
) -> None:
    with_corruptions({"emptied": lambda value, rng: "" if "cup" in value else value, "all": lambda value, rng: ""})
    found = Robustness.of(embedder, samples, np.arange(len(ROWS)))
    assert found.unreadable["text"] == {"emptied": 5, "all": 20}
    assert found.corrupted["text"]["emptied"]["text->note"].queries == 15
    assert found.corrupted["text"]["all"] == {}
    (grid, _) = found.grids()
    assert grid.title == "Queries of text, corrupted"
    assert grid.columns == ["corruption", "R@1 -> note", "MRR", "unreadable"]
    assert grid.rows[2] == ["all", "-", "-", "20"]
    plain = found.uncorrupted["text->note"]
    assert grid.rows[0] == ["none", f"{100 * plain.recall_at_1:.1f}", f"{plain.mrr:.3f}", "0"]
    assert "| emptied |" in grid.markdown()


def test_few_rows_are_drawn_and_search_the_given_pool(embedder: Embedder, samples: Samples) -> None:
    whole = Robustness.of(embedder, samples, np.arange(len(ROWS)), most_rows=6)
    assert whole.uncorrupted["text->note"].queries == 6
    assert whole.uncorrupted["text->note"].pool == len(ROWS)
    advanced: list[int] = []
    Robustness.of(embedder, samples, np.arange(8), most_rows=6, advance=advanced.append)
    assert sum(advanced) == 8 + 2 * (1 + len(TEXT_CORRUPTIONS)) * 6


def test_what_cannot_be_measured_is_said(
    embedder: Embedder, samples: Samples, with_corruptions: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = embedder.embed_all([])
    assert Robustness.of(embedder, samples, np.arange(3), pool).notes == (
        "No text has a right answer of another modality in the pool.",
        "No note has a right answer of another modality in the pool.",
    )
    with_corruptions({})
    found = Robustness.of(embedder, samples, np.arange(3))
    assert found.grids() == []
    assert found.notes[0] == "BagProcessor, of text, names no corruptions."


def test_rows_that_cannot_be_read_anyway_are_not_counted(embedder: Embedder) -> None:
    samples = Samples.of(
        [*ROWS[:5], {"name": "  ", "note": "a cup", "id": "h"}], {"text": "name", "note": "note"}, group="id"
    )
    with pytest.raises(Unreadable):
        embedder.processors["text"]("  ")
    found = Robustness.of(embedder, samples, np.arange(6))
    assert found.uncorrupted["text->note"].queries == 5
    assert set(found.unreadable["text"].values()) == {0}
