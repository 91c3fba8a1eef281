r"""Objectives of text pre-training: they train a text encoder on texts alone, before it meets other modalities.

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

PAD, UNKNOWN = 0, 1  # tokens that are not words
NEGATIVE_POWER = 0.75  # the power of the frequencies that negatives are drawn by (Mikolov et al. 2013b, section 2.2)


@runtime_checkable
class TokenEncoder(Protocol):
    """What text pre-training requires of an encoder.

    Attributes:
        tokens: the table of token embeddings; row 0 is padding, row 1 is unknown words.
    """

    tokens: nn.Embedding

    def hidden(self, tokens: Tensor, vectors: Tensor | None = None) -> Tensor:
        """Compute the last hidden states ``(n, length, width)``.

        Args:
            tokens: ``(n, length)`` int64, 0 after the end.
            vectors: ``(n, length, width)``, used in place of the token embeddings, before positions are added.
        """
        ...


@dataclass(frozen=True)
class TextLoss:
    """The loss of some predictions.

    Args:
        total: the mean loss, a scalar.
        count: the number of predictions.
        parts: name -> mean over the predictions, detached, for the log.
    """

    total: Tensor
    count: int
    parts: dict[str, Tensor]


class TextObjective(Recorded, nn.Module, ABC):
    """A loss function of the tokens of a batch of texts. Random numbers come from torch's default generator.

    ``attach`` is called once, before training, and creates the parameters. Then ``counts`` ``(vocabulary,)`` float32 is filled
    with the number of times that each token occurs in the training texts.

    Attributes:
        counts: how often each token occurs in the training texts.
        trains_only_table: whether it trains nothing of the encoder but the table of token embeddings.

    Examples:
        >>> MaskedTokens.trains_only_table, SkipGram.trains_only_table
        (False, True)
    """

    counts: Tensor
    trains_only_table: ClassVar[bool] = False

    def attach(self, encoder: TokenEncoder) -> None:
        """Create the parameters, whose shapes depend on the encoder's width and vocabulary."""
        self.register_buffer("counts", torch.zeros(encoder.tokens.num_embeddings))

    @abstractmethod
    def forward(self, encoder: TokenEncoder, tokens: Tensor) -> TextLoss:
        """Compute the loss of ``tokens`` ``(n, length)`` int64, 0 after the end of each text."""

    @property
    def frequencies(self) -> Tensor:
        """Fraction of each token among the words of the training texts, ``(vocabulary,)``; 0 for tokens that are not words."""
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
        window: the largest distance of a word's context, in tokens; each word draws its own from 1 to this.
        negatives: how many tokens are drawn for each prediction, in proportion to their frequency to the power of 3/4.
        subsample: t; a token of frequency f is left out of a text with probability :math:`1 - \sqrt{t / f}` (Mikolov
            et al. 2013b, equation 5); 0: no token is left out.
    """

    trains_only_table = True

    def __init__(self, window: int = 5, negatives: int = 5, subsample: float = 1e-3) -> None:
        super().__init__()
        if window < 1 or negatives < 1 or not 0 <= subsample < 1:
            raise UsageError(
                f"{type(self).__name__}: window {window} and negatives {negatives} must be at least 1, and "
                f"subsample {subsample} must lie in [0, 1)."
            )
        self.window, self.negatives, self.subsample = window, negatives, subsample

    def attach(self, encoder: TokenEncoder) -> None:
        super().attach(encoder)
        self.contexts = nn.Embedding(encoder.tokens.num_embeddings, encoder.tokens.embedding_dim)
        nn.init.zeros_(self.contexts.weight)  # as word2vec begins

    def forward(self, encoder: TokenEncoder, tokens: Tensor) -> TextLoss:
        words, is_word = self._subsample(tokens)
        window_sizes = torch.randint(1, self.window + 1, words.shape, device=words.device)
        centre, context = window_pairs(is_word, window_sizes)
        inputs, targets = self._predictions(encoder, words.flatten(), centre, context)
        negatives = self._draw_negatives(len(targets))
        counted = negatives != targets[:, None]  # the right answer is not a negative
        u, k = self.contexts(targets), self.contexts(negatives)
        losses = negative_sampling(_to_float32(inputs), _to_float32(u), _to_float32(k), counted)
        with torch.no_grad():
            right = (inputs * u).sum(dim=1)[:, None] > torch.einsum("pkw,pw->pk", k, inputs)
            accuracy = (right & counted).sum() / counted.sum().clamp(min=1)
        zero = encoder.tokens.weight.sum() * 0 + self.contexts.weight.sum() * 0  # for a batch of single words
        return TextLoss(losses.sum() / max(len(losses), 1) + zero, len(losses), {"accuracy": accuracy})

    def _subsample(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Return the texts with their kept words moved to the front, and a mask of these: ``(n, length)`` each."""
        kept = tokens > UNKNOWN
        if self.subsample:
            share = self.frequencies[tokens].clamp(min=self.subsample)
            kept &= torch.rand(tokens.shape, device=tokens.device) < (self.subsample / share).sqrt()
        order = (~kept).long().argsort(dim=1, stable=True)
        return tokens.gather(1, order), kept.gather(1, order)

    def _draw_negatives(self, predictions: int) -> Tensor:
        weights = self.frequencies**NEGATIVE_POWER
        if not weights.any():
            raise UsageError(
                f"{type(self).__name__}: the tokens of the training texts have not been counted; fill counts first."
            )
        negatives = torch.multinomial(weights, max(predictions, 1) * self.negatives, replacement=True)
        return negatives.view(-1, self.negatives)[:predictions]

    @abstractmethod
    def _predictions(
        self, encoder: TokenEncoder, words: Tensor, centre: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the vectors ``(p, width)`` that predict, and the words ``(p,)`` to predict."""


class SkipGram(_WordVectors):
    r"""Each word predicts the words around it (Mikolov et al. 2013a), one at a time, by negative sampling.

    The loss is the mean of ``negative_sampling`` over all pairs of a word w and a word o within its window, with
    :math:`v = v_w`, the row of w in the encoder's table. The second table, of the :math:`u`, is not part of the model.

    Examples:
        >>> from multimodal import create
        >>> encoder = create("text", "transformer", vocab_size=20, width=8, layers=1, heads=2)
        >>> objective = SkipGram()
        >>> objective.attach(encoder)
        >>> objective.counts += 1  # how often each token occurs
        >>> objective(encoder, torch.tensor([[5, 6, 7, 8]])).parts.keys()
        dict_keys(['accuracy'])
    """

    def _predictions(
        self, encoder: TokenEncoder, words: Tensor, centre: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        return encoder.tokens(words[centre]), words[context]


class CBOW(_WordVectors):
    r"""The words around a word predict it (continuous bag of words, Mikolov et al. 2013a), by negative sampling.

    The loss is the mean of ``negative_sampling`` over all words that have a context C, with
    :math:`v = \frac{1}{|C|} \sum_{c \in C} v_c`.

    Examples:
        >>> from multimodal import create
        >>> encoder = create("text", "transformer", vocab_size=20, width=8, layers=1, heads=2)
        >>> objective = CBOW()
        >>> objective.attach(encoder)
        >>> objective.counts += 1  # how often each token occurs
        >>> objective(encoder, torch.tensor([[5, 6, 7, 8]])).parts.keys()
        dict_keys(['accuracy'])
    """

    def _predictions(
        self, encoder: TokenEncoder, words: Tensor, centre: Tensor, context: Tensor
    ) -> tuple[Tensor, Tensor]:
        positions, number = centre.unique(return_inverse=True)
        vectors = encoder.tokens(words[context])
        total = vectors.new_zeros(len(positions), vectors.shape[1]).index_add(0, number, vectors)
        return total / number.bincount(minlength=len(positions))[:, None].to(vectors.dtype), words[positions]


def window_pairs(is_word: Tensor, window_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Pair each word with the words within its window.

    Args:
        is_word: ``(n, length)`` bool, true up to the end of each text.
        window_sizes: ``(n, length)`` int64, the distance to either side that counts as context.

    Returns:
        ``(p,)`` int64, the positions of words in the flattened texts, and ``(p,)``, of one word each in their context.
    """
    positions = torch.arange(is_word.numel(), device=is_word.device).view(is_word.shape)
    centres, contexts = [], []
    farthest = int(window_sizes.max()) if window_sizes.numel() else 0
    for distance in range(1, min(farthest, is_word.shape[1] - 1) + 1):
        left, right = positions[:, :-distance], positions[:, distance:]
        both = is_word[:, distance:]  # everything left of a word is a word
        for centre, context, far in (
            (left, right, window_sizes[:, :-distance]),
            (right, left, window_sizes[:, distance:]),
        ):
            paired = both & (far >= distance)
            centres.append(centre[paired])
            contexts.append(context[paired])
    if not centres:
        return positions.new_empty(0), positions.new_empty(0)
    return torch.cat(centres), torch.cat(contexts)


class MaskedTokens(TextObjective):
    r"""Masked language modelling (Devlin et al. 2019, section 3.1).

    In each text a fraction ``rate`` of the words is chosen; of these 80 % are replaced by a learned mask, 10 % by a random
    word, 10 % are kept. The loss is the mean of :math:`-\log p(w_i)` over them, with
    :math:`p = \operatorname{softmax}(E\, g(h_i) + b)`: h are the encoder's last hidden vectors, g a linear layer with
    GELU and normalisation, E the encoder's own table of tokens.

    The accuracy is logged too, and ``unigram``, the mean of :math:`-\log` of the words' frequencies in the training texts:
    the loss that a model without context would reach.

    Args:
        rate: the fraction of words to predict, in (0, 1].

    Examples:
        >>> from multimodal import create
        >>> encoder = create("text", "transformer", vocab_size=20, width=8, layers=1, heads=2)
        >>> objective = MaskedTokens()
        >>> objective.attach(encoder)
        >>> objective.counts += 1  # how often each token occurs
        >>> objective(encoder, torch.tensor([[5, 6, 7, 8]])).parts.keys()
        dict_keys(['accuracy', 'unigram'])
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
        chosen, shown, is_masked = mask_tokens(tokens, self.rate, encoder.tokens.num_embeddings)
        vectors = encoder.tokens(shown)
        vectors = torch.where(is_masked[..., None], self.mask.to(vectors.dtype), vectors)
        predicted = self.transform(encoder.hidden(tokens, vectors)[chosen])
        logits = _to_float32(predicted @ encoder.tokens.weight.T.to(predicted.dtype)) + self.bias
        targets = tokens[chosen]
        total = functional.cross_entropy(logits, targets, reduction="sum") / max(len(targets), 1)
        with torch.no_grad():
            accuracy = (logits.argmax(dim=1) == targets).float().sum() / max(len(targets), 1)
            expected = (self.counts + 1) / (self.counts + 1).sum()
            unigram = -expected[targets].log().sum() / max(len(targets), 1)
        return TextLoss(total, len(targets), {"accuracy": accuracy, "unigram": unigram})


def mask_tokens(tokens: Tensor, rate: float, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Corrupt texts as BERT does.

    Args:
        tokens: ``(n, length)`` int64; those from 2 on are words.
        rate: the fraction of words to choose.
        vocabulary: random words are drawn from [2, vocabulary).

    Returns:
        ``(n, length)`` each: bool, which words to predict; int64, the encoder's input, with random words in place of 10 %
        of the chosen; bool, which positions to replace by the mask, 80 % of the chosen.
    """
    chosen = (torch.rand(tokens.shape, device=tokens.device) < rate) & (tokens > UNKNOWN)
    draw = torch.rand(tokens.shape, device=tokens.device)
    other = torch.randint_like(tokens, UNKNOWN + 1, vocabulary)
    shown = torch.where(chosen & (draw >= 0.9), other, tokens)
    return chosen, shown, chosen & (draw < 0.8)


def _to_float32(values: Tensor) -> Tensor:
    """Convert to float32 at least: logarithms in bfloat16 are too coarse."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
