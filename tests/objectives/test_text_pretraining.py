"""Objectives of text pre-training against loops over their formulas in float64."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from multimodal.core.errors import UsageError
from multimodal.objectives.text_pretraining import (
    CBOW,
    MaskedTokens,
    SkipGram,
    TextObjective,
    mask_tokens,
    negative_sampling,
    window_pairs,
)

VOCABULARY, WIDTH = 12, 6
Kind = TypeVar("Kind", bound=TextObjective)


class Texts(nn.Module):
    """An encoder whose hidden vector of a token is its own plus a third of the sum of its neighbours'."""

    def __init__(self, vocabulary: int = VOCABULARY, width: int = WIDTH) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width, padding_idx=0, dtype=torch.float64)

    def hidden(self, tokens: Tensor, vectors: Tensor | None = None) -> Tensor:
        found = self.tokens(tokens) if vectors is None else vectors
        found = found * (tokens > 0)[..., None]
        around = torch.zeros_like(found)
        around[:, 1:] += found[:, :-1]
        around[:, :-1] += found[:, 1:]
        return found + around / 3


def attached(objective: Kind, encoder: Texts, counts: Sequence[float] = ()) -> Kind:
    objective.attach(encoder)
    objective.double()
    objective.counts[: len(counts)] = torch.tensor(counts, dtype=torch.float64)
    for parameter in objective.parameters():
        nn.init.normal_(parameter)
    return objective


def batch(*texts: list[int]) -> Tensor:
    return nn.utils.rnn.pad_sequence([torch.tensor(text) for text in texts], batch_first=True)


rows = st.lists(st.lists(st.integers(1, VOCABULARY - 1), min_size=1, max_size=8), min_size=1, max_size=4)


# word2vec


def test_negative_sampling_is_its_formula_and_has_its_gradients() -> None:
    torch.manual_seed(0)
    v, u = torch.randn(2, 3, 4, dtype=torch.float64)
    k = torch.randn(3, 2, 4, dtype=torch.float64)
    counted = torch.tensor([[True, True], [True, False], [False, False]])
    expected = [
        -math.log(1 / (1 + math.exp(-float(v[p] @ u[p]))))
        - sum(math.log(1 / (1 + math.exp(float(v[p] @ k[p, n])))) for n in range(2) if counted[p, n])
        for p in range(3)
    ]
    torch.testing.assert_close(negative_sampling(v, u, k, counted), torch.tensor(expected, dtype=torch.float64))
    vectors = tuple(x.clone().requires_grad_() for x in (v, u, k))
    assert torch.autograd.gradcheck(lambda v, u, k: negative_sampling(v, u, k, counted), vectors)


@given(lengths=st.lists(st.integers(0, 7), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_the_context_of_each_word_is_its_window(lengths: list[int], seed: int) -> None:
    is_word = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    window_sizes = torch.randint(1, 5, is_word.shape, generator=torch.Generator().manual_seed(seed))
    centre, context = window_pairs(is_word, window_sizes)
    expected = {
        (row * 7 + i, row * 7 + j)
        for row, length in enumerate(lengths)
        for i in range(length)
        for j in range(length)
        if i != j and abs(i - j) <= window_sizes[row, i]
    }
    assert len(centre) == len(expected)
    assert set(zip(centre.tolist(), context.tolist(), strict=True)) == expected


@pytest.mark.parametrize("kind", [SkipGram, CBOW])
@given(texts=rows, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_loss_of_a_batch_is_the_mean_over_its_predictions(
    kind: type[SkipGram | CBOW], texts: list[list[int]], seed: int
) -> None:
    torch.manual_seed(seed)
    encoder = Texts()
    # only word 11 has a count, so every negative is word 11
    objective = attached(kind(window=1, negatives=3, subsample=0.0), encoder, [0] * 11 + [5])
    found = objective(encoder, batch(*texts))
    v, u = encoder.tokens.weight, objective.contexts.weight
    losses = []
    for text in texts:
        words = [word for word in text if word > 1]
        for i, word in enumerate(words):
            around = [words[j] for j in (i - 1, i + 1) if 0 <= j < len(words)]
            predictions = [(v[word], other) for other in around]
            if kind is CBOW:
                predictions = [(torch.stack([v[other] for other in around]).mean(dim=0), word)] if around else []
            for vector, target in predictions:
                right = torch.sigmoid(vector @ u[target]).log()
                wrong = 3 * torch.sigmoid(-vector @ u[11]).log() if target != 11 else 0.0
                losses.append(-(right + wrong))
    assert found.count == len(losses)
    expected = torch.stack(losses).mean() if losses else torch.zeros((), dtype=torch.float64)
    torch.testing.assert_close(found.total, expected)
    found.total.backward()
    assert v.grad is not None


def test_frequent_words_are_subsampled_as_in_the_paper() -> None:
    encoder = Texts()
    objective = attached(SkipGram(subsample=0.01), encoder, [0, 0, 900, 90, 10])
    torch.manual_seed(0)
    words, is_word = objective._subsample(torch.tensor([[2, 3, 4, 1, 0]]).expand(20_000, 5))
    for token, share in ((2, 0.9), (3, 0.09), (4, 0.01)):
        kept = float(((words == token) & is_word).sum()) / 20_000
        assert kept == pytest.approx(min(1.0, math.sqrt(0.01 / share)), abs=0.015)
    assert not ((words <= 1) & is_word).any()
    assert (is_word.long().diff(dim=1) <= 0).all()  # the kept words are moved to the front


def test_negatives_are_drawn_by_frequency_to_the_power_of_three_quarters() -> None:
    objective = attached(SkipGram(negatives=10), Texts(), [7, 7, 81, 16, 1])
    torch.manual_seed(0)
    drawn = objective._draw_negatives(4000).flatten().bincount(minlength=VOCABULARY)
    expected = np.array([0, 0, 27, 8, 1]) / 36
    np.testing.assert_allclose(drawn[:5] / 40_000, expected, atol=0.01)
    assert drawn[5:].sum() == 0


@pytest.mark.parametrize("kind", [SkipGram, CBOW])
def test_words_in_similar_contexts_get_similar_vectors(kind: type[SkipGram | CBOW]) -> None:
    """Two families of words; each word occurs only with words of its own family."""
    torch.manual_seed(0)
    encoder = Texts(width=8).float()
    nn.init.normal_(encoder.tokens.weight, std=0.02)
    objective = kind(window=2, negatives=4, subsample=0.0)
    objective.attach(encoder)
    objective.counts[2:] = 1
    optimizer = torch.optim.Adam([*encoder.parameters(), *objective.parameters()], lr=0.05)
    for _ in range(150):
        family = torch.randint(0, 2, (32, 1)) * 5
        texts = 2 + family + torch.randint(0, 5, (32, 6))
        optimizer.zero_grad()
        objective(encoder, texts).total.backward()
        optimizer.step()
    vectors = nn.functional.normalize(encoder.tokens.weight.detach()[2:], dim=1)
    alike = vectors @ vectors.T
    same = torch.block_diag(torch.ones(5, 5), torch.ones(5, 5)).bool()
    assert alike[same].min() > alike[~same].max()


def test_negatives_need_counts() -> None:
    with pytest.raises(UsageError, match="have not been counted"):
        attached(SkipGram(), Texts())(Texts(), batch([2, 3]))


# masked tokens


def test_fifteen_percent_of_the_words_are_masked_as_in_the_paper() -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 50, (2000, 50))
    chosen, shown, hidden = mask_tokens(tokens, 0.15, 50)
    words = tokens > 1
    assert not (chosen & ~words).any()
    assert float(chosen.sum() / words.sum()) == pytest.approx(0.15, abs=0.005)
    assert float(hidden.sum() / chosen.sum()) == pytest.approx(0.8, abs=0.01)
    assert not (hidden & ~chosen).any()
    changed = shown != tokens
    assert not (changed & ~chosen).any()
    assert float(changed.sum() / chosen.sum()) == pytest.approx(0.1 * 47 / 48, abs=0.01)
    assert int(shown[changed].min()) >= 2


@given(texts=rows, seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_loss_is_the_cross_entropy_of_the_chosen_words(texts: list[list[int]], seed: int) -> None:
    torch.manual_seed(seed)
    encoder = Texts()
    objective = attached(MaskedTokens(0.5), encoder, [0, 0, 3, 2, 1])
    tokens = batch(*texts)
    state = torch.get_rng_state()
    found = objective(encoder, tokens)
    torch.set_rng_state(state)
    chosen, shown, hidden = mask_tokens(tokens, 0.5, VOCABULARY)
    vectors = encoder.tokens(shown)
    vectors[hidden] = objective.mask
    losses, unigram = [], []
    last = encoder.hidden(tokens, vectors)
    for row, position in chosen.nonzero().tolist():
        word = int(tokens[row, position])
        scores = encoder.tokens.weight @ objective.transform(last[row, position]) + objective.bias
        losses.append(scores.exp().sum().log() - scores[word])
        unigram.append(-math.log(([0, 0, 3, 2, 1] + [0] * 7)[word] + 1) + math.log(6 + VOCABULARY))
    assert found.count == len(losses)
    if losses:
        torch.testing.assert_close(found.total, torch.stack(losses).mean())
        assert float(found.parts["unigram"]) == pytest.approx(float(np.mean(unigram)), rel=1e-5)
    assert found.total.requires_grad


def test_gradients_equal_numerical_derivatives() -> None:
    encoder = Texts()
    objective = attached(MaskedTokens(1.0), encoder)
    tokens = batch([2, 3, 4, 5], [6, 7], [1, 8, 9])
    state = torch.get_rng_state()

    def loss(table: Tensor, mask: Tensor) -> Tensor:
        torch.set_rng_state(state)
        with torch.no_grad():
            chosen, shown, hidden = mask_tokens(tokens, 1.0, VOCABULARY)
        vectors = torch.where(hidden[..., None], mask, table[shown])
        found = objective.transform(encoder.hidden(tokens, vectors)[chosen])
        return nn.functional.cross_entropy(found @ table.T + objective.bias, tokens[chosen])

    table = encoder.tokens.weight.detach().clone().requires_grad_()
    mask = objective.mask.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(loss, (table, mask))
    torch.set_rng_state(state)
    objective(encoder, tokens).total.backward()
    expected_gradients = torch.autograd.grad(loss(table, mask), (table, mask))
    for ours, expected in zip((encoder.tokens.weight.grad, objective.mask.grad), expected_gradients, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize(
    "make",
    [lambda: SkipGram(window=0), lambda: CBOW(negatives=0), lambda: SkipGram(subsample=1.0), lambda: MaskedTokens(0.0)],
)
def test_invalid_settings_are_rejected(make: type[TextObjective]) -> None:
    with pytest.raises(UsageError, match=r"must be at least 1|lies outside"):
        make()
