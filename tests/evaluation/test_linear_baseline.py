"""The linear baseline equals textbook solutions in float64 and follows its protocol."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import eigh
from sklearn import cross_decomposition
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import FunctionTransformer

from multimodal.core.encoder import Inputs, Processor
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.evaluation.linear_baseline import TableRows, fit_cca, fit_linear, linear_retrieval
from multimodal.evaluation.retrieval import Retrieval, measure_queries, ranks


class Rows(Processor):
    """Processor of raw values that are rows of numbers."""

    def __init__(self, features: Any = None) -> None:
        self.features = features or FunctionTransformer(np.array)

    def __call__(self, value: Any) -> Any:
        return value

    def collate(self, items: Any) -> Inputs:
        return {"x": torch.tensor(items)}

    def linear_features(self) -> Any:
        return self.features


class Unlinear(Rows):
    def linear_features(self) -> None:
        return None


def views(n: int = 200, p: int = 6, q: int = 4, noise: float = 0.5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return two views of three latent numbers, each with its own noise and mean."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(n, 3))
    x = hidden @ rng.normal(size=(3, p)) + noise * rng.normal(size=(n, p)) + 5
    return x, hidden @ rng.normal(size=(3, q)) + noise * rng.normal(size=(n, q)) - 2


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(a.shape[1])])


def test_without_a_ridge_the_projections_equal_those_of_scikit_learn() -> None:
    x, y = views()
    ours = fit_cca(x, y, ridge=1e-12)
    a, b = (x - ours.x_mean) @ ours.x_weights, (y - ours.y_mean) @ ours.y_weights
    theirs = cross_decomposition.CCA(n_components=4, max_iter=10_000, tol=1e-12).fit(x, y)
    u, v = theirs.transform(x, y)
    np.testing.assert_allclose(ours.correlations, correlation(u, v), atol=1e-6)
    np.testing.assert_allclose(np.abs(correlation(a, u)), 1, atol=1e-6)
    np.testing.assert_allclose(np.abs(correlation(b, v)), 1, atol=1e-6)


@pytest.mark.parametrize("ridge", [1e-3, 0.1, 10.0])
def test_with_a_ridge_the_weights_solve_the_generalised_eigenproblem(ridge: float) -> None:
    x, y = views()
    ours = fit_cca(x, y, ridge)
    cxx, cyy = np.cov(x.T, bias=True), np.cov(y.T, bias=True)
    cxy = (x - x.mean(0)).T @ (y - y.mean(0)) / len(x)
    rxx = cxx + ridge * np.diag(cxx).mean() * np.eye(6)
    ryy = cyy + ridge * np.diag(cyy).mean() * np.eye(4)
    left = np.block([[np.zeros((6, 6)), cxy], [cxy.T, np.zeros((4, 4))]])
    right = np.block([[rxx, np.zeros((6, 4))], [np.zeros((4, 6)), ryy]])
    values = eigh(left, right, eigvals_only=True)[::-1][:4]
    np.testing.assert_allclose(ours.correlations, values, atol=1e-9)
    np.testing.assert_allclose(ours.x_weights.T @ rxx @ ours.x_weights, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(ours.y_weights.T @ ryy @ ours.y_weights, np.eye(4), atol=1e-9)
    np.testing.assert_allclose(ours.x_weights.T @ cxy @ ours.y_weights, np.diag(values), atol=1e-9)


def test_a_view_that_never_varies_has_no_correlation() -> None:
    x, y = views()
    assert np.all(fit_cca(np.ones_like(x), y, ridge=0.1).correlations == pytest.approx(0))


def test_unseen_rows_find_their_partners() -> None:
    x, y = views(400, p=30, q=20, noise=0.05)
    processors = {"a": Rows(), "b": Rows()}
    space = fit_linear({"a": list(x[:300]), "b": list(y[:300])}, processors, components=12)
    a, b = space.embed("a", list(x[300:])), space.embed("b", list(y[300:]))
    assert a.dtype == b.dtype == np.float32
    assert a.shape == b.shape == (100, 12)
    np.testing.assert_allclose(np.linalg.norm(a, axis=1), 1, atol=1e-5)
    own = torch.arange(100)
    assert (ranks(torch.from_numpy(a), torch.from_numpy(b), own, own) == 1).double().mean() > 0.8
    assert len(space.correlations) == 12


def test_rows_without_a_modality_do_not_count() -> None:
    x, y = views(60)
    processors = {"a": Rows(), "b": Rows()}
    both = fit_linear({"a": list(x[:40]), "b": list(y[:40])}, processors)
    incomplete: dict[str, list[Any]] = {"a": [*x[:40], *[None] * 20], "b": [*y[:40], *y[40:]]}
    np.testing.assert_array_equal(both.embed("a", list(x)), fit_linear(incomplete, processors).embed("a", list(x)))


def test_sparse_features_of_texts_are_supported() -> None:
    rng = np.random.default_rng(0)
    words = ["red", "green", "blue", "round", "square", "large", "small", "old"]
    rows = (rng.random((80, len(words))) < 0.4).astype(float)
    rows[rows.sum(axis=1) == 0, 0] = 1
    texts = [" ".join(w for w, there in zip(words, row, strict=True) if there) for row in rows]
    processors = {"text": Rows(TfidfVectorizer()), "row": Rows()}
    found = linear_retrieval(
        TableRows({"text": texts[:60], "row": list(rows[:60])}, texts[:60]),
        TableRows({"text": texts[60:], "row": list(rows[60:])}, texts[60:]),
        processors=processors,
        components=5,
    )
    assert set(found) == {"text->row", "row->text"}
    assert found["text->row"].mrr > 0.5
    assert found["text->row"].pool == 20


def test_the_pool_has_the_rows_with_the_other_modality_and_groups_are_right_answers() -> None:
    x, y = views(80)
    processors: dict[str, Processor] = {"a": Rows(), "b": Rows(), "c": Unlinear()}
    train = {"a": list(x[:50]), "b": list(y[:50]), "c": list(y[:50])}
    test: dict[str, list[Any]] = {"a": list(x[50:]), "b": [None] * 5 + list(y[55:]), "c": list(y[50:])}
    named = ["one"] * 15 + ["other"] * 15
    rows = TableRows(train, [str(n) for n in range(50)]), TableRows(test, named)
    found = linear_retrieval(*rows, processors=processors)
    assert set(found) == {"a->b", "b->a"}
    assert (found["a->b"].queries, found["a->b"].pool) == (30, 25)
    assert (found["b->a"].queries, found["b->a"].pool) == (25, 30)
    space = fit_linear({"a": train["a"], "b": train["b"]}, processors)
    a, b = (torch.from_numpy(space.embed(m, [v for v in test[m] if v is not None])) for m in ("a", "b"))
    groups = torch.tensor([0] * 15 + [1] * 15)
    assert found["a->b"] == Retrieval.of(measure_queries(a, b, groups, groups[5:]), pool=25)
    few = TableRows({m: values[:8] for m, values in test.items()}, named[:8])
    assert linear_retrieval(rows[0], few, rows[1], processors=processors) == {
        "a->b": Retrieval.of(measure_queries(a[:8], b, groups[:8], groups[5:]), pool=25),
        "b->a": Retrieval.of(measure_queries(b[:3], a, groups[5:8], groups), pool=30),
    }


def test_a_pair_that_too_few_rows_have_is_left_out_with_a_note() -> None:
    x, y = views(60)
    rare = [*x[:5], *[None] * 35]
    train = TableRows({"a": list(x[:40]), "b": list(y[:40]), "c": rare}, [str(n) for n in range(40)])
    test = TableRows({"a": list(x[40:]), "b": list(y[40:]), "c": list(x[40:])}, [str(n) for n in range(20)])
    notes: list[str] = []
    found = linear_retrieval(train, test, processors={m: Rows() for m in "abc"}, on_skipped_pair=notes.append)
    assert set(found) == {"a->b", "b->a"}
    assert notes == [
        f"The linear baseline needs 20 training rows with both {m!r} and 'c', got 5. The pair is left out."
        for m in "ab"
    ]


def test_the_fit_is_deterministic() -> None:
    x, y = views(100, p=20, q=20)
    values = {"a": list(x), "b": list(y)}
    once, again = (fit_linear(values, {"a": Rows(), "b": Rows()}, components=5, seed=3) for _ in range(2))
    np.testing.assert_array_equal(once.embed("b", list(y)), again.embed("b", list(y)))
    assert once.ridge == again.ridge


def test_invalid_values_are_rejected() -> None:
    x, y = views(30)
    processors = {"a": Rows(), "b": Rows(), "c": Unlinear()}
    with pytest.raises(UsageError, match=r"two modalities, got \['a'\]"):
        fit_linear({"a": list(x)}, processors)
    with pytest.raises(UsageError, match=r"'a' has 30 values, 'b' has 29; each row needs both"):
        fit_linear({"a": list(x), "b": list(y[1:])}, processors)
    with pytest.raises(UsageError, match=r"'c' has no linear features; these modalities have: a, b"):
        fit_linear({"a": list(x), "c": list(y)}, processors)
    with pytest.raises(MultimodalError, match=r"20 training rows with both 'a' and 'b', got 10"):
        fit_linear({"a": list(x[:10]), "b": list(y[:10])}, processors)
