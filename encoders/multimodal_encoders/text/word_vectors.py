"""Texts as means of word vectors that are known beforehand."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal.media.corruptions.text import TEXT_CORRUPTIONS
from multimodal.media.parts.words import word_parts
from multimodal_encoders.text.raw_text import MAX_TEXT_CHARACTERS, read_text, word_counts
from multimodal_encoders.text.transformer import SubwordProcessor
from multimodal_encoders.text.word_vector_files import FIRST_TOKEN, WordTable, read_word_table

Pooling = Literal["mean", "sif"]
UNKNOWN = 0  # the row of texts without a known word
MAX_COMPONENT_TEXTS = 100_000  # the first of the training split
TEXTS_PER_BLOCK = 4096


class WordVectorProcessor(Processor):
    r"""Turns texts into rows of a table of word vectors, with a weight for each.

    Words are runs of letters, marks, digits and underscores, looked up unchanged or else in lower case. Words that are
    not in the table are skipped; a text without any other is the row ``UNKNOWN``. For a model of this package, the words are
    the sub-words of its tokenizer. Of n words each weighs 1 / n, or with a smoothing a
    :math:`\frac{1}{n} \frac{a}{a + p(w)}`, where p(w) is the share of w among the known words of the
    training texts. Raw values: strings with at least one visible character, of which the first 1,048,576 characters are read.

    Args:
        smoothing: a; None: all words weigh the same.

    Examples:
        >>> WordVectorProcessor(smoothing=None).state()
        {}
    """

    def __init__(self, smoothing: float | None) -> None:
        self.smoothing = smoothing
        self._words: dict[str, int] = {}
        self._subwords: SubwordProcessor | None = None
        self._counts: np.ndarray | None = None

    @property
    def _knows_words(self) -> bool:
        return bool(self._words) or self._subwords is not None

    @property
    def _ready(self) -> bool:
        """Whether the words, and their frequencies where they count, are there."""
        return self._knows_words and (self.smoothing is None or self._counts is not None)

    def fit(self, values: Iterable[str]) -> None:
        if not self._knows_words:
            raise UsageError("word_vectors: there is no table of words; set `weights` to a file or a run.")
        if self.smoothing is None:
            return
        counts = np.zeros(1, dtype=np.int64)
        for value in values:
            with suppress(Unreadable):  # the reader skips this row
                found = np.bincount(self._rows(value), minlength=len(counts))
                found[: len(counts)] += counts
                counts = found
        counts[UNKNOWN] = 0
        if not counts.any():
            raise UsageError(
                "word_vectors: no word of the training texts is in the table, so there are no word frequencies."
            )
        self._counts = counts.astype(np.float64)

    def state(self) -> dict[str, Any]:
        if not self._ready:
            return {}
        words = {"words": list(self._words)} if self._subwords is None else self._subwords.state()
        return words | ({} if self._counts is None else {"counts": self._counts.astype(np.int64).tolist()})

    def load_state(self, state: dict[str, Any]) -> None:
        """Also without ``counts``: the words of a table, from row 1 on, or the tokenizer of its sub-words."""
        self._words = {word: number for number, word in enumerate(state.get("words", []), start=1)}
        self._subwords = SubwordProcessor(0, 0, 0.0) if "tokenizer" in state else None
        if self._subwords is not None:
            self._subwords.load_state({"tokenizer": state["tokenizer"]})
        self._counts = np.array(state["counts"], dtype=np.float64) if "counts" in state else None

    def __getstate__(self) -> dict[str, Any]:  # the splitter is made again
        return {name: value for name, value in vars(self).items() if name != "_splitter"}

    @cached_property
    def _splitter(self) -> Any:
        from tokenizers import Regex, pre_tokenizers

        return pre_tokenizers.Split(Regex(r"[\p{L}\p{M}\p{N}_]+"), "removed", invert=True)

    def __call__(self, value: Any) -> tuple[np.ndarray, np.ndarray]:
        """``(n,)`` int64 rows, one at least, and ``(n,)`` float32 weights."""
        read_text(value)
        if not self._ready:
            raise UsageError("the words have not been counted; call fit_processors, train, or load a trained model.")
        rows = self._rows(value)
        weights = np.full(len(rows), 1 / len(rows))
        if self.smoothing is not None and self._counts is not None:
            counts = np.append(self._counts, 0.0)[np.minimum(rows, len(self._counts))]
            weights *= self.smoothing / (self.smoothing + counts / self._counts.sum())
        return rows, weights.astype(np.float32)

    def parts(self, value: Any) -> Parts:
        return word_parts(read_text(value), self)

    def corruptions(self) -> Mapping[str, Corruption]:
        return TEXT_CORRUPTIONS

    def _rows(self, value: Any) -> np.ndarray:
        if self._subwords is not None:
            tokens = np.array(list(chain.from_iterable(self._subwords(value))), dtype=np.int64)
            known = tokens[tokens >= FIRST_TOKEN] - FIRST_TOKEN + 1
        else:
            found = (self._words.get(word) or self._words.get(word.lower()) for word in self._split(value))
            known = np.array([number for number in found if number], dtype=np.int64)
        return known if len(known) else np.array([UNKNOWN])

    def _split(self, value: Any) -> Iterator[str]:
        pieces = self._splitter.pre_tokenize_str(unicodedata.normalize("NFC", read_text(value)))
        return (word for word, _ in pieces)

    def preprocessing(self) -> dict[str, Any] | None:
        if not self._words or not self._ready:
            return None
        factors = None
        if self.smoothing is not None and self._counts is not None:
            factors = (self.smoothing / (self.smoothing + self._counts / self._counts.sum())).tolist()
        return {
            "kind": "words",
            "words": list(self._words),
            "factors": factors,
            "characters": MAX_TEXT_CHARACTERS,
        }

    def examples(self) -> list[Any]:
        return ["a black heart", "a rightwards arrow with a tail, and one that has none"]

    def collate(self, items: Sequence[tuple[np.ndarray, np.ndarray]]) -> Inputs:
        """``words`` ``(t,)`` int64 and their ``weights`` ``(t,)`` float32, text after text; ``sizes`` ``(n,)`` int64."""
        return {
            "words": torch.from_numpy(np.concatenate([rows for rows, _ in items])),
            "weights": torch.from_numpy(np.concatenate([weights for _, weights in items])),
            "sizes": torch.tensor([len(rows) for rows, _ in items]),
        }

    def linear_features(self) -> Any:
        return word_counts()


@register("text", "word_vectors")
class WordVectors(Encoder):
    r"""The mean of known word vectors: of GloVe, of word2vec, or of a text encoder of this package.

    A text without any word of the table has its own vector, initially the mean of the table. With ``pooling: sif`` the
    words of a text s are weighted by their frequency p, and the common component of all texts is removed (Arora et al. 2017):

    .. math:: v_s = \frac{1}{|s|} \sum_{w \in s} \frac{a}{a + p(w)} v_w, \qquad f_s = v_s - u u^T v_s

    where u is the first right singular vector of the :math:`v_s` of the training texts (of the first 100,000), as they are
    when training begins.

    Args:
        weights: a text file of word2vec or GloVe (.gz too); or a run's or exported model's folder, of which the token table
            of its text encoder is taken.
        vocab_size: the largest number of words, read from the head of the file, where frequent words are; of a folder all.
        width: of the vectors; null: that of ``weights``.
        pooling: "mean" or "sif".
        smoothing: a of "sif".

    Examples:
        >>> from pathlib import Path
        >>> _ = Path("vectors.txt").write_text("red 1 0\ncup 0 1\n")
        >>> encoder = WordVectors("vectors.txt")
        >>> encoder(**encoder.processor.collate([encoder.processor("a red cup")])).tolist()
        [[0.5, 0.5]]
    """

    component: Tensor | None

    def __init__(
        self,
        weights: str | None = None,
        vocab_size: int = 100_000,
        width: int | None = None,
        pooling: Pooling = "mean",
        smoothing: float = 1e-3,
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise UsageError(f"WordVectors: pooling {pooling!r} is not one of {', '.join(get_args(Pooling))}.")
        if vocab_size < 1 or not 0 < smoothing < math.inf:
            raise UsageError(
                f"WordVectors: vocab_size {vocab_size} and smoothing {smoothing} must be above 0 and finite."
            )
        table = None if weights is None else read_word_table(Path(weights), vocab_size)
        found = width if table is None else table.vectors.shape[1]
        if found is None:
            raise UsageError("WordVectors: set weights, a file of word vectors or the folder of a run or model.")
        if width not in (None, found):
            raise UsageError(f"WordVectors: the vectors in {weights} have {found} numbers, not width {width}.")
        rows = vocab_size if table is None else len(table.vectors)
        self.width = found
        self.processor = WordVectorProcessor(smoothing if pooling == "sif" else None)
        self.table = nn.EmbeddingBag(1 + rows, found, mode="sum")
        self.register_buffer("component", torch.zeros(found) if pooling == "sif" else None)
        if table is not None:
            self._take(table)
        self.settings |= {"weights": None, "vocab_size": rows, "width": found}

    @torch.no_grad()
    def _take(self, table: WordTable) -> None:
        self.table.weight[1:] = torch.from_numpy(table.vectors)
        self.table.weight[UNKNOWN] = self.table.weight[1:].mean(dim=0)
        self.processor.load_state({"words": table.words} if table.tokenizer is None else {"tokenizer": table.tokenizer})

    def fit(self, values: Iterable[Any]) -> None:
        texts: list[Any] = []
        super().fit(_collect_first(values, texts))
        if self.component is None:
            return
        gram = torch.zeros(self.width, self.width, dtype=torch.float64)
        items = iter(_items(self.processor, texts))
        with torch.no_grad():
            while block := list(islice(items, TEXTS_PER_BLOCK)):
                inputs = {name: t.to(self.component.device) for name, t in self.processor.collate(block).items()}
                vectors = self._means(**inputs).double().cpu()
                gram += vectors.T @ vectors
        self.component.copy_(torch.linalg.eigh(gram).eigenvectors[:, -1])

    def forward(self, words: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
        """``words`` and ``weights`` ``(t,)`` of n texts, ``sizes`` ``(n,)`` their numbers of words -> ``(n, width)``."""
        means = self._means(words, weights, sizes)
        if self.component is None:
            return means
        common = self.component.to(means.dtype)
        return means - (means @ common)[:, None] * common

    def _means(self, words: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
        return self.table(words, sizes.cumsum(0) - sizes, per_sample_weights=weights.to(self.table.weight.dtype))


def _collect_first(values: Iterable[Any], texts: list[Any]) -> Iterator[Any]:
    for value in values:
        if len(texts) < MAX_COMPONENT_TEXTS:
            texts.append(value)
        yield value


def _items(processor: Processor, values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        with suppress(Unreadable):
            yield processor(value)
