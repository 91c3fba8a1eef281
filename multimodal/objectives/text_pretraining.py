r"""Objectives of words: what a text encoder can learn from texts alone, before it meets another modality.

1. ``negative_sampling``, ``window_pairs`` and ``mask_tokens`` are functions of tensors;
2. ``SkipGram``, ``CBOW`` (word2vec) and ``MaskedTokens`` (BERT) apply them to the tokens of a batch of texts.

A "word" is a token of the encoder's own tokenizer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional

from multimodal.core.errors import UsageError
from multimodal.core.recording import Recorded

PAD, UNKNOWN = 0, 1  # what stands for no word
NEGATIVE_POWER = 0.75  # the power of the frequencies that negatives are drawn by (Mikolov et al. 2013b, section 2.2)


@runtime_checkable
class TokenEncoder(Protocol):
    """What is needed of a text encoder.

    Attributes:
        tokens: the table of the tokens' vectors; row 0 is padding, row 1 stands for what is unknown.
    """

    tokens: nn.Embedding

    def hidden(self, tokens: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Tokens ``(n, length)`` int64, 0 after the end -> the last layer's vectors ``(n, length, width)``.

        ``vectors`` ``(n, length, width)`` stand in place of the tokens' own, before their positions are added.
        """
        ...


@dataclass(frozen=True)
class TextLoss:
    """The mean loss of some predictions, a scalar; their number; and means over them for the log, detached."""

    total: Tensor
    count: int
    parts: dict[str, Tensor]


class TextObjective(Recorded, nn.Module, ABC):
    """Tokens of a batch of texts -> ``TextLoss``. Random choices come from torch's generator.

    ``attach`` is called once, before training, and makes the parameters; ``counts`` ``(vocabulary,)`` float32 are then
    to be filled with the number of times that each token occurs in the training texts.
    """

    counts: Tensor
    table_alone: ClassVar[bool] = False
    """Of the encoder its table of tokens alone is used."""

    def attach(self, encoder: TokenEncoder) -> None:
        """Make what depends on the encoder's width and vocabulary."""
        self.register_buffer("counts", torch.zeros(encoder.tokens.num_embeddings))

    @abstractmethod
    def forward(self, encoder: TokenEncoder, tokens: Tensor) -> TextLoss:
        """``tokens`` ``(n, length)`` int64, 0 after the end of each text."""

    @property
    def frequencies(self) -> Tensor:
        """The share of each token among the words of the training texts, ``(vocabulary,)``; 0 for what is not a word."""
        words = self.counts.clone()
        words[[PAD, UNKNOWN]] = 0
        return words / words.sum().clamp(min=1)


def negative_sampling(inputs: Tensor, targets: Tensor, negatives: Tensor, counted: Tensor) -> Tensor:
    r"""Negative sampling (Mikolov et al. 2013b, equation 4), to be minimised:

    .. math:: -\log \sigma(u_o^T v) - \sum_k \log \sigma(-u_k^T v)

    Args:
        inputs: v, ``(p, width)``.
        targets: u_o, ``(p, width)``.
        negatives: u_k, ``(p, k, width)``.
        counted: which negatives count, ``(p, k)`` bool.

    Returns:
        ``(p,)`` losses.
    """
    right = (inputs * targets).sum(dim=1)
    wrong = torch.einsum("pkw,pw->pk", negatives, inputs)
    return -functional.logsigmoid(right) - (functional.logsigmoid(-wrong) * counted).sum(dim=1)


class _WordVectors(TextObjective):
    r"""What skip-gram and CBOW share: sub-sampling, windows, negatives, and the second table of vectors.

    Args:
        window: the farthest context, in tokens; each word draws its own from 1 to it.
        negatives: tokens drawn for each prediction, by their frequency to the power of 3/4.
        subsample: t; a token of frequency f is left out of a text with probability :math:`1 - \sqrt{t / f}` (equation 5
            of the same paper); 0: none is.
    """

    table_alone = True

    def __init__(self, window: int = 5, negatives: int = 5, subsample: float = 1e-3) -> None:
        super().__init__()
        if window < 1 or negatives < 1 or not 0 <= subsample < 1:
            raise UsageError(
                f"{type(self).__name__}: window {window} and negatives {negatives} must be at least 1, subsample"
                f" {subsample} lie in [0, 1)."
            )
        self.window, self.negatives, self.subsample = window, negatives, subsample

    def attach(self, encoder: TokenEncoder) -> None:
        super().attach(encoder)
        self.contexts = nn.Embedding(encoder.tokens.num_embeddings, encoder.tokens.embedding_dim)
        nn.init.zeros_(self.contexts.weight)  # as word2vec begins

    def forward(self, encoder: TokenEncoder, tokens: Tensor) -> TextLoss:
        words, there = self._thinned(tokens)
        reach = torch.randint(1, self.window + 1, words.shape, device=words.device)
        centre, context = window_pairs(there, reach)
        inputs, targets = self._predictions(encoder, words.flatten(), centre, context)
        drawn = self._drawn(len(targets))
        counted = drawn != targets[:, None]  # the right answer is not a negative
        u, k = self.contexts(targets), self.contexts(drawn)
        losses = negative_sampling(_to_float32(inputs), _to_float32(u), _to_float32(k), counted)
        with torch.no_grad():
            right = (inputs * u).sum(dim=1)[:, None] > torch.einsum("pkw,pw->pk", k, inputs)
            accuracy = (right & counted).sum() / counted.sum().clamp(min=1)
        zero = encoder.tokens.weight.sum() * 0 + self.contexts.weight.sum() * 0  # for a batch of single words
        return TextLoss(losses.sum() / max(len(losses), 1) + zero, len(losses), {"accuracy": accuracy})

    def _thinned(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The words that stay, moved together; and where there is one."""
        stays = tokens > UNKNOWN
        if self.subsample:
            share = self.frequencies[tokens].clamp(min=self.subsample)
            stays &= torch.rand(tokens.shape, device=tokens.device) < (self.subsample / share).sqrt()
        order = (~stays).long().argsort(dim=1, stable=True)
        return tokens.gather(1, order), stays.gather(1, order)

    def _drawn(self, predictions: int) -> Tensor:
        weights = self.frequencies**NEGATIVE_POWER
        if not weights.any():
            raise UsageError(f"{type(self).__name__}: the tokens of the training texts have not been counted.")
        drawn = torch.multinomial(weights, max(predictions, 1) * self.negatives, replacement=True)
        return drawn.view(-1, self.negatives)[:predictions]

    @abstractmethod
    def _predictions(
        self, encoder: TokenEncoder, words: Tensor, centre: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Vectors ``(p, width)`` that predict, and the words ``(p,)`` to be predicted."""


class SkipGram(_WordVectors):
    r"""Each word predicts the words around it (Mikolov et al. 2013a), one at a time, by negative sampling.

    The mean over all pairs of a word w and a word o within its window of ``negative_sampling`` with :math:`v = v_w`, the
    row of w in the encoder's table. The second table, of the :math:`u`, is left behind after training.
    """

    def _predictions(
        self, encoder: TokenEncoder, words: Tensor, centre: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        return encoder.tokens(words[centre]), words[context]


class CBOW(_WordVectors):
    r"""The words around a word predict it (continuous bag of words, Mikolov et al. 2013a), by negative sampling.

    The mean over all words that have a context C of ``negative_sampling`` with :math:`v = \frac{1}{|C|} \sum_{c \in C} v_c`.
    """

    def _predictions(
        self, encoder: TokenEncoder, words: Tensor, centre: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        places, number = centre.unique(return_inverse=True)
        vectors = encoder.tokens(words[context])
        total = vectors.new_zeros(len(places), vectors.shape[1]).index_add(0, number, vectors)
        return total / number.bincount(minlength=len(places))[:, None].to(vectors.dtype), words[places]


def window_pairs(there: Tensor, reach: Tensor) -> tuple[Tensor, Tensor]:
    """The places of words and of those within their windows.

    Args:
        there: ``(n, length)`` bool, true up to the end of each text.
        reach: ``(n, length)`` int64, how far each word looks to either side.

    Returns:
        ``(p,)`` places of words and ``(p,)`` of a word of their context, in the flattened texts.
    """
    places = torch.arange(there.numel(), device=there.device).view(there.shape)
    centres, contexts = [], []
    farthest = int(reach.max()) if reach.numel() else 0
    for distance in range(1, min(farthest, there.shape[1] - 1) + 1):
        left, right = places[:, :-distance], places[:, distance:]
        both = there[:, distance:]  # what stands left of a word is one
        for centre, context, far in ((left, right, reach[:, :-distance]), (right, left, reach[:, distance:])):
            seen = both & (far >= distance)
            centres.append(centre[seen])
            contexts.append(context[seen])
    if not centres:
        return places.new_empty(0), places.new_empty(0)
    return torch.cat(centres), torch.cat(contexts)


class MaskedTokens(TextObjective):
    r"""Masked language modelling (Devlin et al. 2019, section 3.1).

    Of the words of each text a share ``rate`` is chosen; of these 80 % are replaced by a learned mask, 10 % by a random
    word, 10 % stay. Minimised is the mean of :math:`-\log p(w_i)` over them, with
    :math:`p = \operatorname{softmax}(E\, g(h_i) + b)`: h are the encoder's last hidden vectors, g a linear layer with
    GELU and normalisation, E the encoder's own table of tokens.

    Logged beside it: the accuracy, and ``unigram``, the mean of :math:`-\log` of the words' frequencies in the training
    texts, which a model that looks at no context would reach.

    Args:
        rate: the share of words to predict, in (0, 1].
    """

    def __init__(self, rate: float = 0.15) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise UsageError(f"MaskedTokens: rate {rate} lies outside (0, 1].")
        self.rate = rate

    def attach(self, encoder: TokenEncoder) -> None:
        super().attach(encoder)
        width = encoder.tokens.embedding_dim
        self.mask = nn.Parameter(torch.randn(width) * 0.02)
        self.transform = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width))
        self.bias = nn.Parameter(torch.zeros(encoder.tokens.num_embeddings))

    def forward(self, encoder: TokenEncoder, tokens: Tensor) -> TextLoss:
        chosen, shown, hidden_ones = mask_tokens(tokens, self.rate, encoder.tokens.num_embeddings)
        vectors = encoder.tokens(shown)
        vectors = torch.where(hidden_ones[..., None], self.mask.to(vectors.dtype), vectors)
        found = self.transform(encoder.hidden(tokens, vectors)[chosen])
        logits = _to_float32(found @ encoder.tokens.weight.T.to(found.dtype)) + self.bias
        targets = tokens[chosen]
        total = functional.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1)
        with torch.no_grad():
            accuracy = (logits.argmax(dim=1) == targets).float().sum() / max(len(targets), 1)
            expected = (self.counts + 1) / (self.counts + 1).sum()
            unigram = -expected[targets].log().sum() / max(len(targets), 1)
        return TextLoss(total, len(targets), {"accuracy": accuracy, "unigram": unigram})


def mask_tokens(tokens: Tensor, rate: float, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """BERT's corruption of texts.

    Args:
        tokens: ``(n, length)`` int64; those from 2 on are words.
        rate: the share of words that is chosen.
        vocabulary: random words are drawn from [2, vocabulary).

    Returns:
        ``(n, length)`` each: bool, which words are to be predicted; int64, the tokens to be shown, with random words in
        place of a tenth of the chosen; bool, which of them are to be hidden by the mask, eight tenths of the chosen.
    """
    chosen = (torch.rand(tokens.shape, device=tokens.device) < rate) & (tokens > UNKNOWN)
    lot = torch.rand(tokens.shape, device=tokens.device)
    other = torch.randint_like(tokens, UNKNOWN + 1, vocabulary)
    shown = torch.where(chosen & (lot >= 0.9), other, tokens)
    return chosen, shown, chosen & (lot < 0.8)


def _to_float32(values: Tensor) -> Tensor:
    """In float32 at least: logarithms of what bfloat16 tells apart are coarse."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
