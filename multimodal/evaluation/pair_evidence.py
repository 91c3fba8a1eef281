"""How likely a row's values of two modalities belong together: a classifier of true and shuffled pairs by their neighbours.

1. The neighbours of a row's picture have texts. If these are like the row's own text, the pair is likely right; likewise the
   other way round. ``evidence`` measures this agreement in several ways, from nothing but the similarities within a modality.
2. The same is measured for shuffled pairs, the picture of one row with the text of another.
3. ``match_log_odds`` fits a logistic regression to distinguish them, each row by the other rows.

A few wrong pairs hardly change what the classifier learns, and as the similarities are not trained on the pairs, a wrong pair
cannot have been memorised. The second judgement, by a linear model, is of a model that was fitted without the row.

Source: agreement of neighbours as in Zhu et al. 2022 (training-free detection of label errors); out-of-sample judgement as in
Northcutt et al. 2021 (confident learning).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from multimodal.core.errors import UsageError
from multimodal.evaluation.linear_baseline import fit_cca

NEIGHBOURS = (1, 3, 10, 30)
NEARNESS, LIKENESS = (0.03, 0.1), (0.1, 0.3)  # widths of the kernels by which neighbours are weighted, and are alike
SHARED = (10, 30, 100)
SHUFFLES = 4  # shuffled pairs for each row
FOLDS = 5
REPEATS = 3  # with other folds and shuffled pairs, of which the mean is taken
POOL = 20_000  # rows among which neighbours are searched for
FITTED = 5_000  # rows to which the classifier is fitted
BLOCK = 2**22  # similarities in memory at a time
INVERSE_PENALTY = 0.05
COMPONENTS = 200  # directions of a modality that the linear model sees
RIDGE = 1.0
FEWEST_ROWS = 20
UNKNOWN = 1e-3  # agreement that no neighbour shows


def evidence(
    x: Tensor, y: Tensor, groups: Tensor, first: Tensor, second: Tensor, pool: Tensor | None = None
) -> np.ndarray:
    """Measure how well values of the first modality go with values of the second, by the neighbours of each.

    Args:
        x, y: ``(n, d)`` and ``(n, e)`` unit vectors of the two modalities, row by row.
        groups: ``(n,)`` int64; rows of a pair's groups are not its neighbours.
        first, second: ``(p,)`` int64, the rows whose x and y are paired.
        pool: ``(m,)`` int64, rows that may be neighbours. None: all.

    Returns:
        ``(p, f)`` float32.
    """
    pool = torch.arange(len(x)) if pool is None else pool
    x, y = x.float(), y.float()
    block = max(1, BLOCK // len(pool))
    blocks = [
        _evidence_block(x, y, groups, i, j, pool) for i, j in zip(first.split(block), second.split(block), strict=True)
    ]
    return torch.cat(blocks).numpy()


def _evidence_block(x: Tensor, y: Tensor, groups: Tensor, i: Tensor, j: Tensor, pool: Tensor) -> Tensor:
    own = (groups[pool] == groups[i][:, None]) | (groups[pool] == groups[j][:, None])
    near_x, near_y = x[i] @ x[pool].T, y[j] @ y[pool].T
    near_x[own] = near_y[own] = -1.0
    kept = min(max(SHARED), len(pool))
    by_x, by_y = near_x.topk(kept, dim=1), near_y.topk(kept, dim=1)
    found = [*_agreement(near_x, by_x, near_y, y[pool]), *_agreement(near_y, by_y, near_x, x[pool])]
    for k in SHARED:
        is_near = torch.zeros_like(near_x).scatter_(1, by_x.indices[:, :k], 1.0)
        found.append(is_near.gather(1, by_y.indices[:, :k]).sum(dim=1))
    x_rows, y_rows = pool[by_x.indices[:, :10]], pool[by_y.indices[:, :10]]
    found += [(_mean(v, x_rows) * _mean(v, y_rows)).sum(dim=1) for v in (x, y)]  # the mean of all their products
    return torch.stack(found, dim=1)


def _agreement(near: Tensor, top: torch.return_types.topk, other: Tensor, vectors: Tensor) -> list[Tensor]:
    """Measure how like the other value is to those of the neighbours.

    Args:
        near: ``(p, m)`` similarities of the one value to the pool.
        top: the nearest of them.
        other: ``(p, m)`` similarities of the other value to the pool.
        vectors: ``(m, e)`` of the other modality.
    """
    found = []
    like = other.gather(1, top.indices)
    for k in NEIGHBOURS:
        found += [like[:, :k].mean(dim=1), like[:, :k].amax(dim=1), top.values[:, :k].mean(dim=1)]
    for width in NEARNESS:
        weights = (near / width).softmax(dim=1)
        for likeness in LIKENESS:
            kernel = ((other - 1) / likeness).exp()
            found.append(((weights * kernel).sum(dim=1) / kernel.mean(dim=1) + UNKNOWN).log())
    found.append(_mean(vectors, top.indices[:, :10]).square().sum(dim=1))  # whether the neighbours are alike at all
    found.append(other.topk(min(10, other.shape[1]), dim=1).values.mean(dim=1))
    return found


def _mean(vectors: Tensor, rows: Tensor) -> Tensor:
    """Return the mean vector of each line of row numbers ``(p, k)``, without a copy of the vectors."""
    return torch.nn.functional.embedding_bag(rows.contiguous(), vectors, mode="mean")


def match_log_odds(x: Tensor, y: Tensor, groups: Tensor, seed: int = 0) -> np.ndarray:
    """Return the log odds that each row's two values belong together, against the values of another row.

    It is the mean of two judgements: by the neighbours among the given vectors, and by the neighbours in the space of a linear
    model (a canonical correlation analysis) of the other rows.

    Args:
        x, y: ``(n, d)`` and ``(n, e)`` unit vectors of the two modalities, row by row. They should not have been trained on
            these pairs: a model that was, has learned wrong ones too.
        groups: ``(n,)`` int64; rows of equal group show one item.
        seed: draws the shuffled pairs and the folds.

    Returns:
        ``(n,)`` float64; the lower, the more suspect.

    Raises:
        UsageError: there are fewer than ``FEWEST_ROWS`` rows, or no two groups.
    """
    if len(groups) >= FEWEST_ROWS and len(groups.unique()) < 2:
        raise UsageError("Wrong pairs are found among rows of at least two groups; all are one.")
    if len(groups) < FEWEST_ROWS:
        raise UsageError(
            f"Wrong pairs are found among at least {FEWEST_ROWS} rows that have both modalities; there are {len(groups)}."
        )
    return np.mean([_judge(x.float(), y.float(), groups, seed + repeat) for repeat in range(REPEATS)], axis=0)


def _judge(x: Tensor, y: Tensor, groups: Tensor, seed: int) -> np.ndarray:
    """Judge the rows once, see ``match_log_odds``."""
    n = len(groups)
    rng = np.random.default_rng(seed)
    pool = torch.from_numpy(np.sort(rng.choice(n, min(n, POOL), replace=False)))
    fold = rng.permutation(n) % FOLDS
    spaces = [_linear_space(x, y, fold != part, rng) for part in range(FOLDS)]

    def by_other_rows(first: Tensor, second: Tensor) -> np.ndarray:
        """Measure pairs in the linear space that was fitted without the first row's fold."""
        found = np.zeros((len(first), 0), np.float32)
        for part, (u, v) in enumerate(spaces):
            chosen = torch.from_numpy(fold[first.numpy()] == part)
            if chosen.any():
                i, j = first[chosen], second[chosen]
                measured = np.concatenate(
                    [evidence(u, v, groups, i, j, pool), (u[i] * v[j]).sum(dim=1, keepdim=True).numpy()], axis=1
                )
                found = found if found.size else np.zeros((len(first), measured.shape[1]), np.float32)
                found[chosen.numpy()] = measured
        return found

    def by_neighbours(first: Tensor, second: Tensor) -> np.ndarray:
        return evidence(x, y, groups, first, second, pool)

    return np.mean([_log_odds(measure, groups, fold, rng) for measure in (by_neighbours, by_other_rows)], axis=0)


def _linear_space(x: Tensor, y: Tensor, fitted: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return the rows' vectors in the space of a canonical correlation analysis of some of them."""
    rows = np.flatnonzero(fitted)
    rows = np.sort(rng.choice(rows, min(len(rows), FITTED), replace=False))
    reduced = [_strongest_directions(v.float(), rows) for v in (x, y)]
    found = fit_cca(reduced[0][rows], reduced[1][rows], RIDGE)
    parts = zip(reduced, (found.x_mean, found.y_mean), (found.x_weights, found.y_weights), strict=True)
    u, v = (torch.from_numpy((each - mean) @ weights * found.correlations).float() for each, mean, weights in parts)
    return torch.nn.functional.normalize(u, dim=1), torch.nn.functional.normalize(v, dim=1)


def _strongest_directions(vectors: Tensor, rows: np.ndarray) -> np.ndarray:
    """Return the vectors in the strongest singular directions of some of them, ``(n, COMPONENTS)`` or fewer."""
    basis = torch.linalg.svd(vectors[torch.from_numpy(rows)], full_matrices=False).Vh[:COMPONENTS]
    return (vectors @ basis.T).double().numpy()


def _log_odds(
    measure: Callable[[Tensor, Tensor], np.ndarray], groups: Tensor, fold: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Fit the classifier of own and shuffled pairs on the other folds' rows, and judge each row's own pair."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer

    n = len(groups)
    drawn = torch.from_numpy(np.sort(rng.choice(n, min(n, FITTED), replace=False)))
    first = drawn.repeat(SHUFFLES)
    second = (first + torch.from_numpy(rng.integers(1, n, len(first)))) % n
    apart = groups[first] != groups[second]
    first, second = first[apart], second[apart]
    own, shuffled = measure(torch.arange(n), torch.arange(n)), measure(first, second)
    found = np.zeros(n)
    for part in range(FOLDS):
        right = own[drawn.numpy()[fold[drawn.numpy()] != part]]
        wrong = shuffled[fold[first.numpy()] != part]
        model = make_pipeline(
            QuantileTransformer(n_quantiles=min(200, len(right)), output_distribution="normal", random_state=0),
            LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1000),
        )
        model.fit(np.concatenate([right, wrong]), np.repeat([1, 0], [len(right), len(wrong)]))
        found[fold == part] = model.decision_function(own[fold == part])
    return found
