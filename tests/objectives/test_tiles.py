"""Tiled reductions and their gradients against all scores at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from drawn_batches import two_modalities
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from multimodal.objectives import InfoNCE, Objective, Sigmoid, tiles
from multimodal.objectives.tiles import (
    TILE,
    Block,
    Term,
    logsumexps,
    softplus_sum,
    tiled_logsumexps,
    tiled_logsumexps_backward,
)

TERMS = [Term(), Term("negatives"), Term("negatives", 1.5), Term("negatives", 0.5), Term("positives"), Term("all", 2.0)]


@dataclass
class Drawn:
    a: Block
    b: Block
    terms: list[Term]
    tile: int


def block(n: int, groups: list[int], dtype: torch.dtype = torch.float64, dim: int = 3) -> Block:
    return Block((2 * torch.randn(n, dim, dtype=torch.float64)).to(dtype).requires_grad_(), torch.tensor(groups))


@st.composite
def drawn(draw: st.DrawFn) -> Drawn:
    torch.manual_seed(draw(st.integers(0, 999)))
    sides = []
    for _ in range(2):
        n = draw(st.integers(1, 9))
        sides.append(block(n, draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))))
    terms = draw(st.lists(st.sampled_from(TERMS), min_size=1, max_size=3))
    return Drawn(sides[0], sides[1], terms, draw(st.integers(1, 10)))


def dense_logsumexps(a: Block, b: Block, terms: list[Term]) -> tuple[Tensor, Tensor]:
    """Log-sum-exps by the formula, from the exponentials of all scores."""
    scores, same = a.vectors @ b.vectors.T, a.groups[:, None] == b.groups
    among = {"all": torch.ones_like(same), "positives": same, "negatives": ~same}
    rows, columns = [], []
    for term in terms:
        for sums, dim in ((rows, 1), (columns, 0)):
            empty = ~among[term.subset].any(dim)
            exps = (torch.exp(term.scale * scores) * among[term.subset]).sum(dim)
            sums.append(
                exps.masked_fill(empty, 1.0).log().masked_fill(empty, -torch.inf)
            )  # autograd has no gradient of log(0)
    return torch.stack(rows), torch.stack(columns)


def derivatives(outputs: tuple[Tensor, ...], inputs: list[Tensor]) -> list[Tensor]:
    """Return the gradients of a fixed combination of the finite outputs."""
    total = sum(
        ((o.isfinite() * torch.linspace(-1, 2, o.numel()).view_as(o)) * o.nan_to_num(neginf=0)).sum() for o in outputs
    )
    assert isinstance(total, Tensor)
    return list(torch.autograd.grad(total, inputs))


@given(drawn=drawn())
@settings(max_examples=80, deadline=None)
def test_tiled_log_sum_exps_equal_those_of_all_scores(drawn: Drawn) -> None:
    ours = logsumexps(drawn.a, drawn.b, drawn.terms, drawn.tile)
    theirs = dense_logsumexps(drawn.a, drawn.b, drawn.terms)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    dense = logsumexps(drawn.a, drawn.b, drawn.terms)
    torch.testing.assert_close(ours, dense, rtol=1e-10, atol=1e-10)
    inputs = [drawn.a.vectors, drawn.b.vectors]
    expected = derivatives(theirs, inputs)
    for outputs in (ours, dense):
        torch.testing.assert_close(derivatives(outputs, inputs), expected, rtol=1e-10, atol=1e-10)


@given(drawn=drawn())
@settings(max_examples=40, deadline=None)
def test_in_float32_they_agree_to_five_digits(drawn: Drawn) -> None:
    a, b = (Block(side.vectors.detach().float().requires_grad_(), side.groups) for side in (drawn.a, drawn.b))
    ours = logsumexps(a, b, drawn.terms, drawn.tile)
    theirs = dense_logsumexps(drawn.a, drawn.b, drawn.terms)
    torch.testing.assert_close([o.double() for o in ours], list(theirs), rtol=1e-5, atol=2e-5)


@given(drawn=drawn(), bias=st.floats(-12, 12))
@settings(max_examples=60, deadline=None)
def test_the_tiled_sum_of_softplus_equals_the_sum_over_all_scores(drawn: Drawn, bias: float) -> None:
    shift = torch.tensor(bias, dtype=torch.float64, requires_grad=True)
    inputs = [drawn.a.vectors, drawn.b.vectors, shift]
    ours = softplus_sum(*inputs, tile=drawn.tile)
    theirs = torch.log1p(torch.exp(drawn.a.vectors @ drawn.b.vectors.T + shift)).sum()
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for factor in (1.0, -2.5):
        expected = torch.autograd.grad(factor * theirs, inputs, retain_graph=True)
        torch.testing.assert_close(
            torch.autograd.grad(factor * ours, inputs, retain_graph=True), expected, rtol=1e-10, atol=1e-10
        )


@pytest.mark.parametrize("tile", [2, TILE], ids=["tiles", "dense"])
def test_gradients_equal_numerical_derivatives(tile: int) -> None:
    a, b = block(5, [0, 1, 1, 2, 4]), block(4, [1, 0, 3, 2])
    bias = torch.tensor(-0.3, dtype=torch.float64, requires_grad=True)

    def sums(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return logsumexps(Block(x, a.groups), Block(y, b.groups), (Term(), Term("negatives", 1.5)), tile)

    assert torch.autograd.gradcheck(sums, (a.vectors, b.vectors))
    assert torch.autograd.gradcheck(lambda *inputs: softplus_sum(*inputs, tile=tile), (a.vectors, b.vectors, bias))


@pytest.mark.parametrize("tile", [2, TILE], ids=["tiles", "dense"])
def test_an_empty_sum_is_minus_infinity_and_has_no_gradient(tile: int) -> None:
    a, b = block(3, [0, 0, 1]), block(3, [0, 0, 0])
    rows, columns = logsumexps(a, b, (Term("negatives"), Term("positives")), tile)
    assert rows.isneginf().tolist() == [[True, True, False], [False, False, True]]
    assert not columns.isneginf().any()
    (rows.masked_fill(rows.isneginf(), 0).sum() + columns[1].sum()).backward()
    for side in (a, b):
        assert side.vectors.grad is not None
        assert side.vectors.grad.isfinite().all()


def test_large_scores_neither_overflow_nor_vanish() -> None:
    a, b = (Block(s.vectors.detach().float() * 300, s.groups) for s in (block(5, [0] * 5), block(7, [1] * 7)))
    rows, columns = logsumexps(a, b, tile=2)
    torch.testing.assert_close(rows[0], (a.vectors @ b.vectors.T).logsumexp(1))
    torch.testing.assert_close(columns[0], (a.vectors @ b.vectors.T).logsumexp(0))
    scores = a.vectors.double() @ b.vectors.double().T
    total = softplus_sum(a.vectors, b.vectors, torch.tensor(-10.0), tile=2).double()
    torch.testing.assert_close(total, (scores - 10).logaddexp(torch.zeros(())).sum(), rtol=1e-5, atol=0)


def test_columns_may_arrive_in_blocks_of_any_size() -> None:
    a, b = block(7, [0, 1, 2, 3, 0, 1, 2]), block(11, [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4])
    sizes, terms, yielded = [4, 1, 6], (Term(), Term("negatives")), []

    def blocks() -> Iterator[Block]:
        for vectors, groups in zip(b.vectors.detach().split(sizes), b.groups.split(sizes), strict=True):
            yielded.append(len(vectors))
            yield Block(vectors, groups)

    expected_rows, expected_columns = logsumexps(a, b, terms)
    rows, columns = tiled_logsumexps(Block(a.vectors.detach(), a.groups), blocks(), terms, tile=3)
    torch.testing.assert_close(rows, expected_rows.detach())
    torch.testing.assert_close(torch.cat(columns, dim=1), expected_columns.detach())

    d_rows, d_columns = torch.randn_like(rows), torch.randn_like(expected_columns)
    expected_a, expected_b = torch.autograd.grad(
        (expected_rows, expected_columns), (a.vectors, b.vectors), (d_rows, d_columns)
    )
    yielded.clear()
    d_a = torch.zeros_like(a.vectors)
    columns_of_blocks = zip(columns, d_columns.split(sizes, dim=1), strict=True)
    gradients_of_blocks = tiled_logsumexps_backward(
        Block(a.vectors.detach(), a.groups), blocks(), terms, (rows, d_rows), columns_of_blocks, d_a, tile=3
    )
    d_b = [next(gradients_of_blocks)]
    assert yielded == sizes[:1]  # the next block is only read when it is needed
    d_b += gradients_of_blocks
    torch.testing.assert_close(d_a, expected_a)
    torch.testing.assert_close(torch.cat(d_b), expected_b)


class Largest(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation creates."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **kwargs or {})
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return out


@pytest.mark.parametrize(
    "reduce",
    [
        lambda a, b: sum(x.sum() for x in logsumexps(a, b, (Term(), Term("negatives", 2.0)), tile=8)),
        lambda a, b: softplus_sum(a.vectors, b.vectors, torch.tensor(-1.0, dtype=torch.float64), tile=8),
    ],
    ids=["logsumexps", "softplus_sum"],
)
def test_no_tensor_is_as_large_as_all_scores(reduce: Callable[[Block, Block], Tensor]) -> None:
    a, b = block(100, list(range(100))), block(90, list(range(90)))
    with Largest() as largest:
        reduce(a, b).backward()
    assert largest.numbers in (100 * 3, 2 * (100 + 90))  # the vectors, or two sums for each row and column


@pytest.mark.parametrize("make", [InfoNCE, Sigmoid, lambda: InfoNCE(smoothing=0.1, hardness=0.5, decoupled=True)])
def test_no_tensor_of_the_objectives_is_as_large_as_all_scores(
    make: Callable[[], Objective], monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings, objective = two_modalities(100, dim=3), make().double()
    monkeypatch.setattr(tiles, "TILE", 8)
    with Largest() as largest:
        objective(embeddings).total.backward()
    assert largest.numbers <= 2 * 100 * 3


def test_gradients_can_be_computed_twice() -> None:
    a, b = block(4, [0, 1, 2, 3]), block(4, [0, 1, 2, 3])
    rows, columns = logsumexps(a, b)
    total = rows.sum() + columns.sum()
    first = torch.autograd.grad(total, a.vectors, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(total, a.vectors), first)


def test_products_use_bfloat16_where_torch_allows_it() -> None:
    a, b = (
        Block(s.vectors.detach().float(), s.groups) for s in (block(40, [0] * 40, dim=64), block(30, [1] * 30, dim=64))
    )
    exact = logsumexps(a, b)[0]
    torch.set_float32_matmul_precision("medium")
    try:
        approximate = logsumexps(a, b)[0]
    finally:
        torch.set_float32_matmul_precision("highest")
    assert approximate.dtype == torch.float32
    torch.testing.assert_close(approximate, exact, rtol=2e-2, atol=2e-1)
