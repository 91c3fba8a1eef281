"""An encoder of text that counts words and pieces of words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Encoder, Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.registry import register

PIECES = (3, 5)  # letters of a piece of a word, at least and at most


class CountsProcessor(Processor):
    """Text -> the weights of its words and of the pieces of its words: TF-IDF of the training texts (scikit-learn's).

    A weight is ``(1 + log count) * idf``; the words' part and the pieces' part of a text are scaled to a length of
    ``sqrt(size / 2)`` each, size the number of all words and pieces, so that the entries are of the order of one whatever
    the size. Raw values: strings with at least one visible character; what training did not show does not count.

    Args:
        words: at most so many words count, the most frequent of those in two training texts or more.
        pieces: at most so many sequences of 3 to 5 letters within a word count, of those in three texts or more.
        drop: for training, the probability that a word or piece is left out; the others weigh more, as in dropout.
    """

    def __init__(self, words: int, pieces: int, drop: float) -> None:
        self.words, self.pieces, self.drop = words, pieces, drop
        self._vectorizers: dict[str, Any] = {}

    @property
    def size(self) -> int:
        return self.words + self.pieces

    def fit(self, values: Iterable[str]) -> None:
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        self._vectorizers = {}
        for name, size, rare in (("words", self.words, 2), ("pieces", self.pieces, 3)):
            if size:
                vectorizer = _vectorizer(name, max_features=size, min_df=min(rare, max(len(texts) // 2, 1)))
                try:
                    vectorizer.fit(texts)
                except ValueError as error:
                    raise UsageError(f"the training texts hold no {name} to count ({error}).") from error
                self._vectorizers[name] = vectorizer

    def state(self) -> dict[str, Any]:
        return {
            name: {"terms": sorted(v.vocabulary_, key=v.vocabulary_.__getitem__), "idf": v.idf_.tolist()}
            for name, v in self._vectorizers.items()
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._vectorizers = {}
        for name, fitted in state.items():
            vectorizer = _vectorizer(name, vocabulary={term: n for n, term in enumerate(fitted["terms"])})
            vectorizer.idf_ = np.array(fitted["idf"])
            self._vectorizers[name] = vectorizer

    def __call__(self, value: Any) -> tuple[Tensor, Tensor]:
        """The numbers of the text's words and pieces, int64, and their weights, float32."""
        if not self._vectorizers:
            raise UsageError("the words have not been counted; call fit_processors, train, or load a trained model.")
        if not isinstance(value, str):
            raise Unreadable("wrong type", f"{type(value).__name__} is no text; give a string.")
        if not value.strip():
            raise Unreadable("empty text", "the text is empty; give at least one word.")
        rows = {name: vectorizer.transform([value]) for name, vectorizer in self._vectorizers.items()}
        offset = {"words": 0, "pieces": self.words}
        numbers = np.concatenate([row.indices.astype(np.int64) + offset[name] for name, row in rows.items()])
        weights = np.concatenate([row.data for row in rows.values()]) * (self.size / len(rows)) ** 0.5
        return torch.from_numpy(numbers), torch.from_numpy(weights.astype(np.float32))

    def augment(self, item: tuple[Tensor, Tensor], rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        keep = torch.from_numpy(rng.random(len(item[0])) >= self.drop)
        return item[0][keep], item[1][keep] / (1 - self.drop)

    def collate(self, items: Sequence[tuple[Tensor, Tensor]]) -> Inputs:
        """``terms`` int64 and ``weights`` float32 of all texts one after another; ``sizes`` ``(n,)``: terms of each."""
        return {
            "terms": torch.cat([terms for terms, _ in items]),
            "weights": torch.cat([weights for _, weights in items]),
            "sizes": torch.tensor([len(terms) for terms, _ in items]),
        }

    def linear_features(self) -> Any:
        return _vectorizer("words")


def _vectorizer(name: str, **settings: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    if name == "pieces":
        return TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=PIECES, **settings)
    return TfidfVectorizer(sublinear_tf=True, **settings)


@register("text", "bag")
class BagOfWords(Encoder):
    """A perceptron over the words of a text and their pieces, without order: strong where texts are few.

    The pieces are those of fastText's sub-word model (Bojanowski et al. 2017); they find "dihydroxy" by "hydroxy".

    Args:
        words: at most so many words count, the most frequent in training.
        pieces: at most so many sequences of 3 to 5 letters within words count; 0: words alone.
        width: width of the features.
        drop: dropout of the features.
        term_drop: in training, the probability that a word or piece is left out.
    """

    def __init__(
        self,
        words: int = 4000,
        pieces: int = 8000,
        width: int = 1024,
        drop: float = 0.5,
        term_drop: float = 0.3,
    ) -> None:
        super().__init__()
        if not 0 <= term_drop < 1 or words < 0 or pieces < 0 or not words + pieces:
            raise UsageError(
                f"BagOfWords: term_drop {term_drop} must lie in [0, 1), words {words} and pieces {pieces} not below 0,"
                " nor both 0."
            )
        self.width = width
        self.processor = CountsProcessor(words, pieces, term_drop)
        size = words + pieces
        self.terms = nn.EmbeddingBag(size, width, mode="sum")
        nn.init.uniform_(self.terms.weight, -(size**-0.5), size**-0.5)  # as a linear layer over all terms
        self.bias = nn.Parameter(torch.zeros(width))
        self.after = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Dropout(drop))

    def forward(self, terms: Tensor, weights: Tensor, sizes: Tensor) -> Tensor:
        """The terms of n texts one after another, ``sizes`` ``(n,)`` their numbers -> ``(n, width)``."""
        starts = sizes.cumsum(0) - sizes
        # EmbeddingBag has no bfloat16 on every device; the sum is cheap
        with torch.autocast(terms.device.type, enabled=False):
            summed = self.terms(terms, starts, per_sample_weights=weights.to(self.terms.weight.dtype))
        return self.after(summed + self.bias)
