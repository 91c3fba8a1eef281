"""Small random batches of unit vectors for the tests of objectives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch import Tensor

from multimodal.core.embeddings import Embeddings

MODALITIES: tuple[str, ...] = ("image", "graph", "text")


def unit_vectors(n: int, seed: int, dim: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    drawn = torch.randn(n, dim, dtype=dtype, generator=torch.Generator().manual_seed(seed))
    return (drawn / drawn.norm(dim=1, keepdim=True)).requires_grad_()


def embeddings_of(has: Mapping[str, list[int]], groups: list[int], seed: int = 0, dim: int = 4) -> Embeddings:
    return Embeddings(
        {m: unit_vectors(len(rows), seed + i, dim) for i, (m, rows) in enumerate(has.items())},
        {m: torch.tensor(rows, dtype=torch.int64) for m, rows in has.items()},
        torch.tensor(groups),
    )


def two_modalities(n: int, seed: int = 0, dim: int = 4, dtype: torch.dtype = torch.float64) -> Embeddings:
    """A batch of n complete rows in n groups."""
    rows = torch.arange(n)
    vectors = {m: unit_vectors(n, seed + i, dim, dtype) for i, m in enumerate(("image", "text"))}
    return Embeddings(vectors, dict.fromkeys(vectors, rows), 100 + rows)


def gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


@st.composite
def incomplete_batches(draw: st.DrawFn) -> Embeddings:
    """Batches of one to six rows, each with some of three modalities and in one of three groups."""
    n = draw(st.integers(1, 6))
    groups = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    masks = draw(st.lists(st.sets(st.sampled_from(MODALITIES)), min_size=n, max_size=n))
    has = {m: [row for row in range(n) if m in masks[row]] for m in MODALITIES}
    return embeddings_of({m: rows for m, rows in has.items() if rows}, groups, seed=draw(st.integers(0, 999)))


def shuffled(embeddings: Embeddings, order: Sequence[int], modalities: Sequence[str]) -> Embeddings:
    """The same batch with its rows and modalities in another order."""
    old_row = torch.tensor(order)  # new row -> old row
    new_row = torch.argsort(old_row)  # old row -> new row
    vectors, rows = {}, {}
    for modality in modalities:
        moved = new_row[embeddings.rows[modality]]
        ascending = torch.argsort(moved)
        vectors[modality], rows[modality] = embeddings.vectors[modality][ascending], moved[ascending]
    negative_of = embeddings.negative_of
    if negative_of is not None:
        negative_of = torch.where(negative_of < 0, -1, new_row[negative_of])[old_row]
    targets = {name: t[old_row] for name, t in embeddings.targets.items()}
    return replace(
        embeddings,
        vectors=vectors,
        rows=rows,
        groups=embeddings.groups[old_row],
        targets=targets,
        negative_of=negative_of,
    )
