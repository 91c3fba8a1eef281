"""The window of the latest queries."""

from __future__ import annotations

import time

import numpy as np
import pytest

from multimodal.monitor.drift_window import DriftWindow
from multimodal.monitor.vector_sets import Vectors, VectorSet

MODEL = "f" * 64


def unit(seed: int, count: int, shift: float = 0.0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, 8)) + 1
    x[:, 0] += shift
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def reference(**counts: int) -> VectorSet:
    modalities = {}
    for modality, count in counts.items():
        names = np.array([f"#{number}" for number in range(count)])
        modalities[modality] = Vectors(unit(0, count), names, names, np.full(count, "{}", object))
    return VectorSet("queries", MODEL, modalities)


def add(window: DriftWindow, vectors: np.ndarray, modality: str = "text", user: str | None = None) -> None:
    for number, vector in enumerate(vectors):
        window.add(MODEL, modality, vector, f"q{number}", user)


def checked(window: DriftWindow, checks: int) -> float:
    end = time.monotonic() + 30
    while "text" not in window.latest or window.latest["text"].checks < checks:
        assert time.monotonic() < end
        time.sleep(0.01)
    return window.latest["text"].found.p_value


def test_other_queries_are_found_and_the_old_ones_are_forgotten() -> None:
    window = DriftWindow(reference(text=300), window=200, every=100)
    add(window, unit(1, 100))
    assert checked(window, 1) > 0.01
    add(window, unit(2, 200, shift=2))
    checked(window, 2)
    window.close()
    latest = window.latest["text"]
    assert latest.queries == 200  # the first hundred are forgotten
    assert latest.found.p_value == pytest.approx(0.001)
    assert latest.found.score > 0.7


def test_a_user_counts_once() -> None:
    window = DriftWindow(reference(text=300), every=100)
    add(window, unit(1, 100, shift=3), user="ann")
    window.close()
    assert window.latest == {}  # one user is too few
    window = DriftWindow(reference(text=300), every=50)
    for number in range(50):
        window.add(MODEL, "text", unit(number, 1)[0], f"q{number}", f"user {number % 25}")
    window.close()
    assert window.latest["text"].queries == 25


def test_other_models_and_modalities_are_ignored() -> None:
    window = DriftWindow(reference(text=300, image=5), every=20)
    assert window.modalities == ["text"]
    for vector in unit(1, 40):
        window.add("e" * 64, "text", vector, "q")
        window.add(MODEL, "image", vector, "q")
        window.add(MODEL, "graph", vector, "q")
    window.close()
    assert window.latest == {}
