"""Texts as bags of words, of pairs of words and of the letter groups in them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import compress, pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal.media.corruptions.text import TEXT_CORRUPTIONS
from multimodal.media.parts.words import word_parts
from multimodal_encoders.text.raw_text import MAX_TEXT_CHARACTERS, cut_text, read_text, word_counts

WORD = re.compile(r"\w\w+")
INPUT_SCALE = 4.0  # of a text's weights: Adam's steps are of one size, so that it sets how fast the table changes
MAX_CHUNK_CHARACTERS = 200  # letters; what is longer between two spaces is cut


class BagProcessor(Processor):
    r"""Turns texts into terms with weights.

    Terms are the words, and the groups of ``shortest`` to ``longest`` neighbouring characters between two spaces, the
    spaces among them; upper and lower case are the same. With ``word_pairs``, two neighbours between spaces are a term too,
    so that the order of the words counts (the word bigrams of fastText; Joulin et al. 2017). The vocabulary and the number
    of texts that hold a term come from the training texts. A term that occurs c times in a text, and in d of the N training
    texts, weighs :math:`(1 + \ln c) (1 + \ln \frac{1 + N}{1 + d})`; the weights of a text are then scaled to unit length
    (TF-IDF with sub-linear counts; Salton and Buckley 1988). Raw values: strings with at least one visible character, of which
    the first 1,048,576 characters are read.

    Args:
        vocab_size: the largest number of terms, those in the most texts; terms of a single text are left out.
        shortest: the shortest letter group, in characters.
        longest: the longest letter group; 0: words only.
        word_drop: for training, the probability that a word is left out, with its pairs (one is always kept).
        word_pairs: two neighbouring words are a term.

    Examples:
        >>> processor = BagProcessor(vocab_size=100, shortest=2, longest=3, word_drop=0.0)
        >>> processor.fit(["a red cup", "a red mug"])
        >>> sorted(processor.collate([processor("red cup")]))
        ['sizes', 'terms', 'weights']
    """

    _OPTIONS = ("vocab_size", "shortest", "longest", "word_drop", "word_pairs")

    def __init__(
        self, vocab_size: int, shortest: int, longest: int, word_drop: float, word_pairs: bool = False
    ) -> None:
        self.vocab_size, self.shortest, self.longest = vocab_size, shortest, longest
        self.word_drop, self.word_pairs = word_drop, word_pairs
        self._take([], [], 0)

    def _take(self, terms: list[str], texts_with: list[int], texts: int) -> None:
        self._terms, self._texts_with, self._texts = terms, texts_with, texts
        self._number = {term: number for number, term in enumerate(terms)}
        self._idf = 1 + np.log((1 + texts) / (1 + np.array(texts_with, dtype=np.float64)))
        self._numbers_of = lru_cache(2**16)(self._look_up)  # a text's words are mostly those of others

    def fit(self, values: Iterable[str]) -> None:
        texts_with: Counter[str] = Counter()
        texts = 0
        terms_of = lru_cache(2**16)(lambda chunk: frozenset(self._terms_of(chunk)))
        for text in values:
            if not isinstance(text, str):  # the reader skips this row
                continue
            texts += 1
            chunks = _split_words(text)
            texts_with.update(set(self._pairs_of(chunks)).union(*map(terms_of, chunks)))
        common = sorted((-count, term) for term, count in texts_with.items() if count > 1)[: self.vocab_size]
        self._take([term for _, term in common], [-count for count, _ in common], texts)

    def _terms_of(self, chunk: str) -> Iterator[str]:
        for word in WORD.findall(chunk):
            yield f"  {word}"  # two spaces: no group of letters is called so
        padded = f" {chunk} "
        for size in range(self.shortest, self.longest + 1):
            for start in range(max(len(padded) - size, 0) + 1):
                yield padded[start : start + size]

    def _pairs_of(self, chunks: Sequence[str]) -> Iterator[str]:
        if self.word_pairs:
            yield from (f"  {first} {second}" for first, second in pairwise(chunks))  # a word has no space

    def _look_up(self, chunk: str) -> np.ndarray:
        known = (self._number.get(term) for term in self._terms_of(chunk))
        return np.array([number for number in known if number is not None], dtype=np.int32)

    def state(self) -> dict[str, Any]:
        if not self._texts:
            return {}
        return {"terms": self._terms, "texts_with": self._texts_with, "texts": self._texts}

    def load_state(self, state: dict[str, Any]) -> None:
        self._take(state.get("terms", []), state.get("texts_with", []), state.get("texts", 0))

    def __getstate__(self) -> dict[str, Any]:  # a cache cannot be pickled
        return {name: getattr(self, name) for name in self._OPTIONS} | self.state()

    def __setstate__(self, values: dict[str, Any]) -> None:
        for name in self._OPTIONS:
            setattr(self, name, values[name])
        self.load_state(values)

    def __call__(self, value: Any) -> list[np.ndarray]:
        """For each word (one at least) the numbers of its terms, with repeats; then those of the pairs, each alone or none."""
        chunks = _split_words(read_text(value))
        if not self._texts:
            raise UsageError("the vocabulary has not been fitted; call fit_processors, train, or load a trained model.")
        pairs = (self._number.get(pair) for pair in self._pairs_of(chunks))
        of_pairs = [np.array([] if number is None else [number], dtype=np.int32) for number in pairs]
        return [self._numbers_of(chunk) for chunk in chunks] + of_pairs

    def parts(self, value: Any) -> Parts:
        return word_parts(read_text(value), self)

    def corruptions(self) -> Mapping[str, Corruption]:
        return TEXT_CORRUPTIONS

    def augment(self, item: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
        words = (len(item) + 1) // 2 if self.word_pairs else len(item)
        keep = rng.random(words) >= self.word_drop
        if not keep.any():
            keep[rng.integers(words)] = True
        return list(compress(item, [*keep, *(keep[:-1] & keep[1:])] if self.word_pairs else keep))

    def preprocessing(self) -> dict[str, Any] | None:
        return {
            "kind": "terms",
            "terms": self._terms,
            "idf": self._idf.tolist(),
            "shortest": self.shortest,
            "longest": self.longest,
            "word_pairs": self.word_pairs,
            "characters": MAX_TEXT_CHARACTERS,
            "chunk_characters": MAX_CHUNK_CHARACTERS,
        }

    def examples(self) -> list[Any]:
        return ["a black heart", "a rightwards arrow with a tail, and one that has none"]

    def collate(self, items: Sequence[list[np.ndarray]]) -> Inputs:
        """``terms`` ``(t,)`` int64 and their ``weights`` ``(t,)`` float32, text after text; ``sizes`` ``(n,)`` int64."""
        terms, weights = [], []
        for item in items:
            found, counts = np.unique(np.concatenate(item), return_counts=True)
            weight = (1 + np.log(counts)) * self._idf[found]
            terms.append(found.astype(np.int64))
            weights.append((weight / max(np.linalg.norm(weight), 1e-12)).astype(np.float32))
        return {
            "terms": torch.from_numpy(np.concatenate(terms)),
            "weights": torch.from_numpy(np.concatenate(weights)),
            "sizes": torch.tensor([len(found) for found in terms]),
        }

    def linear_features(self) -> Any:
        return word_counts()


def _split_words(text: str) -> list[str]:
    return [chunk[:MAX_CHUNK_CHARACTERS] for chunk in cut_text(text).lower().split()]


@register("text", "bag")
class BagOfWords(Encoder):
    """A weighted sum of learned embeddings of words, letter groups and, if wanted, pairs of words, normalised.

    Names with parts (of chemicals, places, products) are distinguished by their letters; the order of the words has no
    effect but by ``word_pairs``. The input is that of fastText (Joulin et al. 2017) with weights by TF-IDF.

    Args:
        vocab_size: rows of the table of terms; the vocabulary, fitted on the training split, has at most this many.
        width: of the embeddings and of the features.
        shortest: of the letter groups, in characters.
        longest: of the letter groups; 0: words only.
        term_drop: dropout of the terms.
        drop: dropout of the features.
        word_drop: in training, the probability that a word is left out of the text.
        word_pairs: two neighbouring words are a term too ("leftwards arrow" is not "arrow leftwards").

    Examples:
        >>> encoder = BagOfWords(width=8)
        >>> encoder.fit(["a red cup", "a red mug"])
        >>> encoder(**encoder.processor.collate([encoder.processor("red cup")])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        vocab_size: int = 40_000,
        width: int = 256,
        shortest: int = 2,
        longest: int = 5,
        term_drop: float = 0.0,
        drop: float = 0.0,
        word_drop: float = 0.0,
        word_pairs: bool = False,
    ) -> None:
        super().__init__()
        if vocab_size < 1 or shortest < 1:
            raise UsageError(f"BagOfWords: vocab_size {vocab_size} and shortest {shortest} must be at least 1.")
        self.width = width
        self.processor = BagProcessor(vocab_size, shortest, longest, word_drop, word_pairs)
        self.table = nn.EmbeddingBag(vocab_size, width, mode="sum")
        nn.init.normal_(self.table.weight, std=width**-0.5)
        self.term_drop = nn.Dropout(term_drop)
        self.norm = nn.LayerNorm(width)
        self.drop = nn.Dropout(drop)

    def forward(self, terms: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
        """``terms`` and ``weights`` ``(t,)`` of n texts, ``sizes`` ``(n,)`` their numbers of terms -> ``(n, width)``."""
        dropped = INPUT_SCALE * self.term_drop(weights).to(self.table.weight.dtype)
        return self.drop(self.norm(self.table(terms, sizes.cumsum(0) - sizes, per_sample_weights=dropped)))
