"""Reductions over all scores of two sets of vectors, one tile of scores at a time.

1. The scores of vectors ``a`` ``(n, d)`` and ``b`` ``(m, d)`` are ``a @ b.T``; ``a`` is already divided by the temperature.
2. A formula needs only reductions of them: the log-sum-exp of each row and of each column (``logsumexps``, for each
   ``Term``), or one sum over all (``softplus_sum``). The part that is linear in the scores (the positives) does not need
   the scores at all, see ``pairs.sum_matched_scores``.
3. Tiles of ``TILE`` x ``TILE`` scores are computed, reduced and discarded; the backward pass computes them again. So
   memory is ``O((n + m) d)`` and a few tiles. If all scores fit in one tile, they are kept for the backward pass: this is
   the dense form, with the same result.
4. ``tiled_logsumexps`` and ``tiled_logsumexps_backward`` take the columns as an iterable of blocks, which may come from
   anywhere, one by one.
5. Several processes that train together divide the tiles, each taking some of the rows; see ``core.distributed``.

The products are computed in the dtype of the vectors. For float32 ``torch.set_float32_matmul_precision`` decides:
"medium" allows products in bfloat16 with sums in float32, where the device supports them.

The sums over tiles follow the online softmax of Milakov and Gimelshein (2018), arXiv:1805.02867; computing a
contrastive loss by tiles follows Cheng et al. (2024), arXiv:2410.17243.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from multimodal.core.distributed import SINGLE_PROCESS, RowShares, ranks

TILE = 1024  # scores in a row and in a column of a tile: 4 MiB in float32, and products wide enough to be fast
GPU_TILE = 4096  # 64 MiB: a GPU would spend its time starting smaller ones


class Block(NamedTuple):
    """Vectors and their groups.

    Args:
        vectors: ``(n, d)`` floating point.
        groups: ``(n,)`` int64.

    Examples:
        >>> block = Block(torch.eye(3), groups=torch.tensor([1, 1, 2]))
        >>> [len(part.vectors) for part in block.split(2)]
        [2, 1]
    """

    vectors: Tensor
    groups: Tensor

    def part(self, rows: slice | Tensor) -> Block:
        """Return some of the vectors: a slice of them, or those of a mask ``(n,)``."""
        return Block(self.vectors[rows], self.groups[rows])

    def split(self, size: int) -> Iterator[Block]:
        """Yield blocks of ``size`` vectors; the last may be smaller."""
        for vectors, groups in zip(self.vectors.split(size), self.groups.split(size), strict=True):
            yield Block(vectors, groups)


class Term(NamedTuple):
    """Which scores a log-sum-exp sums over, and a factor that multiplies them.

    Args:
        subset: "all" scores, those of vectors of one group ("positives"), or of different groups ("negatives").
        scale: the factor.

    Examples:
        >>> Term("negatives", 2.0).of(torch.tensor([[1.0, 3.0]]), torch.tensor([[True, False]]))
        tensor([[-inf, 6.]])
    """

    subset: Literal["all", "positives", "negatives"] = "all"
    scale: float = 1.0

    def of(self, scores: Tensor, same: Tensor | None) -> Tensor:
        """Return the multiplied scores ``(n, m)``; -inf for those outside the subset."""
        chosen = scores if self.scale == 1 else scores * self.scale
        if self.subset == "all":
            return chosen
        assert same is not None
        return chosen.masked_fill(same if self.subset == "negatives" else ~same, -torch.inf)


def logsumexps(a: Block, b: Block, terms: Sequence[Term] = (Term(),), tile: int | None = None) -> tuple[Tensor, Tensor]:
    r"""Compute the log-sum-exp of the scores of each row and each column, for each term.

    .. math:: \log \sum_j \exp(c\, s_{ij}) \quad \text{and} \quad \log \sum_i \exp(c\, s_{ij}), \qquad s = a b^T

    with c the term's scale.

    Args:
        a: n rows.
        b: m columns.
        terms: k terms.
        tile: rows and columns of a tile; None: ``TILE``, or ``GPU_TILE``.

    Returns:
        ``(k, n)`` and ``(k, m)``, in the dtype of the vectors; -inf where the sum is empty.
    """
    rows, columns = _LogSumExps.apply(
        a.vectors, b.vectors, a.groups, b.groups, tuple(terms), tile or _tile(a.vectors), ranks()
    )  # pyright: ignore[reportGeneralTypeIssues]
    return rows, columns


def softplus_sum(a: Tensor, b: Tensor, bias: Tensor, tile: int | None = None) -> Tensor:
    r"""Compute the sum of the softplus of all scores, :math:`\sum_{ij} \log(1 + \exp(s_{ij} + \beta))` with :math:`s = a b^T`.

    One pass computes the sum and, if needed, its gradients, as they do not depend on the sum.

    Args:
        a: ``(n, d)`` rows.
        b: ``(m, d)`` columns.
        bias: the scalar :math:`\beta`, in the dtype of the vectors.
        tile: rows and columns of a tile; None: ``TILE``, or ``GPU_TILE``.

    Returns:
        The scalar sum, in the dtype of the vectors.
    """
    return _SoftplusSum.apply(a, b, bias, tile or _tile(a), ranks(), torch.is_grad_enabled())  # pyright: ignore[reportReturnType]


def _tile(vectors: Tensor) -> int:
    return GPU_TILE if vectors.is_cuda else TILE


def tiled_logsumexps(
    a: Block, blocks: Iterable[Block], terms: Sequence[Term], tile: int = TILE
) -> tuple[Tensor, list[Tensor]]:
    """Compute the log-sum-exps of rows over all blocks of columns, and of each block's columns over the rows.

    Args:
        a: n rows.
        blocks: consecutive blocks of m_1, m_2, ... columns, read one after another.
        terms: k terms.
        tile: rows and columns of a tile; a larger block is split.

    Returns:
        ``(k, n)``, and ``(k, m_i)`` for each block.
    """
    rows = a.vectors.new_full((len(terms), len(a.vectors)), -torch.inf)
    columns = []
    for block in blocks:
        column = rows.new_full((len(terms), len(block.vectors)), -torch.inf)
        for i, j, part_a, part_b in _tiles(a, block, tile):
            scores = part_a.vectors @ part_b.vectors.T
            same = _same(part_a, part_b, terms)
            for k, term in enumerate(terms):
                scaled_scores = term.of(scores, same)
                rows[k, i] = torch.logaddexp(rows[k, i], scaled_scores.logsumexp(1))
                column[k, j] = torch.logaddexp(column[k, j], scaled_scores.logsumexp(0))
        columns.append(column)
    return rows, columns


def tiled_logsumexps_backward(
    a: Block,
    blocks: Iterable[Block],
    terms: Sequence[Term],
    rows: tuple[Tensor, Tensor],
    columns: Iterable[tuple[Tensor, Tensor]],
    d_a: Tensor,
    tile: int = TILE,
) -> Iterator[Tensor]:
    """Compute the gradients of ``tiled_logsumexps``.

    Args:
        a, blocks, terms, tile: as in the forward pass.
        rows: the log-sum-exps of the rows and the gradients with respect to them, ``(k, n)`` each.
        columns: the same for each block, ``(k, m_i)`` each.
        d_a: ``(n, d)``, to which the gradient with respect to ``a`` is added.

    Yields:
        For each block the gradient with respect to its vectors, ``(m_i, d)``.
    """
    row_sums, d_rows = _finite(rows[0]), rows[1]
    for block, (sums, d_column) in zip(blocks, columns, strict=True):
        column_sums = _finite(sums)
        d_b = torch.zeros_like(block.vectors)
        for i, j, part_a, part_b in _tiles(a, block, tile):
            scores = part_a.vectors @ part_b.vectors.T
            sums_of_tile = row_sums[:, i], column_sums[:, j]
            score_gradient = _score_gradient(
                scores, _same(part_a, part_b, terms), terms, sums_of_tile, (d_rows[:, i], d_column[:, j])
            )
            d_a[i].addmm_(score_gradient, part_b.vectors)
            d_b[j].addmm_(score_gradient.T, part_a.vectors)
        yield d_b


def _score_gradient(
    scores: Tensor,
    same: Tensor | None,
    terms: Sequence[Term],
    sums: tuple[Tensor, Tensor],
    d_sums: tuple[Tensor, Tensor],
) -> Tensor:
    """Compute the gradient with respect to a tile's scores: the share of each score in the sums of its row and column."""

    def of_term(k: int, term: Term) -> Tensor:
        scaled_scores = term.of(scores, same)
        share = (scaled_scores - sums[0][k, :, None]).exp_().mul_(d_sums[0][k, :, None])
        share += (scaled_scores - sums[1][k]).exp_().mul_(d_sums[1][k])
        return share if term.scale == 1 else share.mul_(term.scale)

    return reduce(Tensor.add_, (of_term(k, term) for k, term in enumerate(terms)))


def _same(a: Block, b: Block, terms: Sequence[Term]) -> Tensor | None:
    """Whether row i and column j are of one group, if a term needs it."""
    if all(term.subset == "all" for term in terms):
        return None
    return a.groups[:, None] == b.groups


def _finite(sums: Tensor) -> Tensor:
    """Replace empty sums by 0: every share of them is exp(-inf - 0) = 0."""
    return sums.masked_fill(sums == -torch.inf, 0.0)


def _tiles(a: Block, b: Block, size: int) -> Iterator[tuple[slice, slice, Block, Block]]:
    for column, part_b in enumerate(b.split(size)):
        for row, part_a in enumerate(a.split(size)):
            yield slice(row * size, (row + 1) * size), slice(column * size, (column + 1) * size), part_a, part_b


class _LogSumExps(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        a_groups: Tensor,
        b_groups: Tensor,
        terms: tuple[Term, ...],
        tile: int,
        ranks: RowShares,
    ) -> tuple[Tensor, Tensor]:
        left, right = Block(a, a_groups), Block(b, b_groups)
        ctx.terms, ctx.tile, ctx.ranks, ctx.dense = terms, tile, ranks, max(len(a), len(b)) <= tile
        if ctx.dense:
            scores = a @ b.T
            scaled_scores = [term.of(scores, _same(left, right, terms)) for term in terms]
            rows, columns = (
                torch.stack([t.logsumexp(1) for t in scaled_scores]),
                torch.stack([t.logsumexp(0) for t in scaled_scores]),
            )
        else:
            scores, own_rows = None, ranks.share(len(a))
            partial = a.new_full((len(terms), len(a) + len(b)), -torch.inf)
            partial[:, own_rows], blocks = tiled_logsumexps(left.part(own_rows), right.split(tile), terms, tile)
            partial[:, len(a) :] = torch.cat(blocks, dim=1)
            rows, columns = (part.contiguous() for part in ranks.logsumexp(partial).split([len(a), len(b)], dim=1))
        ctx.save_for_backward(a, b, a_groups, b_groups, rows, columns, scores)
        return rows, columns

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        a, b, a_groups, b_groups, rows, columns, scores = ctx.saved_tensors
        left, right = Block(a, a_groups), Block(b, b_groups)
        d_rows, d_columns = gradients
        no_gradients = (None,) * 5
        if ctx.dense:
            sums = _finite(rows), _finite(columns)
            score_gradient = _score_gradient(
                scores, _same(left, right, ctx.terms), ctx.terms, sums, (d_rows, d_columns)
            )
            return score_gradient @ b, score_gradient.T @ a, *no_gradients
        d_a, d_b = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (a, b))
        own_rows = ctx.ranks.share(len(a))
        of_rows = rows[:, own_rows], d_rows[:, own_rows]
        of_columns = zip(columns.split(ctx.tile, dim=1), d_columns.split(ctx.tile, dim=1), strict=True)
        blocks = tiled_logsumexps_backward(
            left.part(own_rows), right.split(ctx.tile), ctx.terms, of_rows, of_columns, d_a[own_rows], ctx.tile
        )
        for part, gradient in zip(d_b.split(ctx.tile), blocks, strict=True):
            part.copy_(gradient)
        ctx.ranks.sum_(d_a, d_b)
        return d_a, d_b, *no_gradients


class _SoftplusSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, bias: Tensor, tile: int, ranks: RowShares, with_gradients: bool
    ) -> Tensor:
        if max(len(a), len(b)) <= tile:
            ranks = SINGLE_PROCESS  # one tile is not divided
        total, own_rows = bias.new_zeros(()), ranks.share(len(a))
        d_a, d_b, d_bias = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (a, b, bias))
        for row_a, row_d in zip(a[own_rows].split(tile), d_a[own_rows].split(tile), strict=True):
            for row_b, column_d in zip(b.split(tile), d_b.split(tile), strict=True):
                scores = torch.addmm(bias, row_a, row_b.T)
                total += functional.softplus(
                    scores, threshold=40
                ).sum()  # exp(-40) is below the precision of float64 too
                if with_gradients:
                    score_gradient = scores.sigmoid_()
                    row_d.addmm_(score_gradient, row_b)
                    column_d.addmm_(score_gradient.T, row_a)
                    d_bias += score_gradient.sum()
        ranks.sum_(total, *([d_a, d_b, d_bias] if with_gradients else []))
        ctx.save_for_backward(d_a, d_b, d_bias)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return *(gradients[0] * derivative for derivative in ctx.saved_tensors), None, None, None
