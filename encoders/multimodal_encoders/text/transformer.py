"""Encoders of text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress, islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from multimodal.core.encoder import Corruption, Encoder, Inputs, Processor
from multimodal.core.errors import UsageError
from multimodal.core.layers import check_layers
from multimodal.core.parts import Parts
from multimodal.core.registry import register
from multimodal.media.corruptions.text import TEXT_CORRUPTIONS
from multimodal.media.parts.words import word_parts
from multimodal_encoders.text.pretrained_tokenizer import TYPICAL_TOKENS
from multimodal_encoders.text.raw_text import MAX_TEXT_CHARACTERS, characters_read, cut_text, read_text, word_counts

PAD, UNKNOWN = 0, 1

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # data workers are forked, which its threads do not survive


class SubwordProcessor(Processor):
    """Turns texts into sub-word numbers, by a byte-pair encoding (Sennrich et al. 2016) fitted on the training texts.

    Upper and lower case are the same; words are split at white space, punctuation and digits. Raw values: strings with
    at least one visible character; of a long one, the first 64 characters for each sub-word of ``max_length`` are read.

    Args:
        vocab_size: at most this many sub-words are learned.
        max_length: longer texts are cut after this many sub-words; 0: they are not cut.
        word_drop: for training, the probability that a word is left out (one is always kept).
        word_split: for training, the probability that a sub-word is split into the two it was merged from, recursively.

    Examples:
        >>> processor = SubwordProcessor(vocab_size=50, max_length=8, word_drop=0.0)
        >>> processor.fit(["a red cup", "a red mug"])
        >>> processor.collate([processor("red cup"), processor("red")])["tokens"].shape[0]
        2
    """

    def __init__(self, vocab_size: int, max_length: int, word_drop: float, word_split: float = 0.0) -> None:
        self.vocab_size, self.max_length = vocab_size, max_length
        self.word_drop, self.word_split = word_drop, word_split
        self._characters = characters_read(max_length) if max_length else MAX_TEXT_CHARACTERS
        self._tokenizer: Any = None
        self._parts: dict[int, tuple[int, int]] = {}  # a learned sub-word -> the two it was merged from

    def fit(self, values: Iterable[str]) -> None:
        from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        final_sigma = normalizers.Replace("ς", "σ")  # lower case of Σ is either, by its place in the word
        tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), final_sigma])
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.WhitespaceSplit(),
                pre_tokenizers.Punctuation(),
                pre_tokenizers.Digits(individual_digits=True),  # "DOTS-1256" is four dots, not a memorised number
                pre_tokenizers.Metaspace(),
            ]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            special_tokens=["[PAD]", "[UNK]"],
            limit_alphabet=self.vocab_size - 2,  # rare letters beyond it are unknown
            show_progress=False,
        )
        texts = (cut_text(value) for value in values if isinstance(value, str))  # a reader skips the others
        tokenizer.train_from_iterator(texts, trainer)
        self._take(tokenizer)

    def _take(self, tokenizer: Any) -> None:
        tokenizer.encode_special_tokens = True  # "[PAD]" in a text is text
        self._tokenizer = tokenizer
        model = json.loads(tokenizer.to_str())["model"]
        number = model["vocab"]
        self._parts = {number[a + b]: (number[a], number[b]) for a, b in model["merges"]}

    def state(self) -> dict[str, Any]:
        return {} if self._tokenizer is None else {"tokenizer": self._tokenizer.to_str()}

    def load_state(self, state: dict[str, Any]) -> None:
        from tokenizers import Tokenizer

        if state:
            self._take(Tokenizer.from_str(state["tokenizer"]))
        else:
            self._tokenizer, self._parts = None, {}

    def __getstate__(self) -> dict[str, Any]:  # a tokenizer's own pickle forgets what _take sets
        return vars(self) | {"_tokenizer": self.state()}

    def __setstate__(self, values: dict[str, Any]) -> None:
        vars(self).update(values)
        self.load_state(values["_tokenizer"])

    def __call__(self, value: Any) -> list[list[int]]:
        """The text's words (one at least), each as its sub-words."""
        text = read_text(value, self._characters)
        if self._tokenizer is None:
            raise UsageError("the tokenizer has not been fitted; call fit_processors, train, or load a trained model.")
        encoding = self._tokenizer.encode(text)
        words: dict[int | None, list[int]] = {}
        for word, token in zip(encoding.word_ids, encoding.ids, strict=True):
            words.setdefault(word, []).append(token)
        return list(words.values()) or [[UNKNOWN]]  # nothing is left of a text of marks that NFKC takes away

    def parts(self, value: Any) -> Parts:
        return word_parts(read_text(value, self._characters), self)

    def corruptions(self) -> Mapping[str, Corruption]:
        return TEXT_CORRUPTIONS

    def augment(self, item: list[list[int]], rng: np.random.Generator) -> list[list[int]]:
        keep = rng.random(len(item)) >= self.word_drop
        words = list(compress(item, keep)) or [item[rng.integers(len(item))]]
        if not self.word_split:
            return words
        return [[part for token in word for part in self._split(token, rng)] for word in words]

    def _split(self, token: int, rng: np.random.Generator) -> Iterator[int]:
        if token in self._parts and rng.random() < self.word_split:
            for part in self._parts[token]:
                yield from self._split(part, rng)
        else:
            yield token

    def cost(self, item: list[list[int]]) -> float:
        """In ordinary texts, by the number of sub-words."""
        tokens = sum(map(len, item))
        return min(tokens, self.max_length or tokens) / TYPICAL_TOKENS

    def collate(self, items: Sequence[list[list[int]]]) -> Inputs:
        """``tokens``: ``(n, length of the longest)`` int64, 0 after the end."""
        texts = [list(islice(chain.from_iterable(item), self.max_length)) for item in items]
        length = max(map(len, texts))
        return {"tokens": torch.tensor([text + [PAD] * (length - len(text)) for text in texts])}

    def preprocessing(self) -> dict[str, Any] | None:
        if self._tokenizer is None:
            return None
        return {
            "kind": "subwords",
            "tokenizer": json.loads(self._tokenizer.to_str()),
            "characters": self._characters,
            "max_length": self.max_length,
            "unknown": UNKNOWN,
        }

    def examples(self) -> list[Any]:
        return ["a black heart", "a rightwards arrow with a tail, and one that has none"]

    def linear_features(self) -> Any:
        return word_counts()


@register("text", "transformer")
class TextTransformer(Encoder):
    """A transformer encoder over sub-words (Vaswani et al. 2017, pre-norm), mean-pooled over the text.

    Args:
        vocab_size: rows of the token table; the tokenizer, fitted on the training split, learns at most this many.
        width: width of the tokens and of the features.
        layers: number of layers.
        heads: attention heads in each.
        max_length: longest text, in sub-words; the rest is cut.
        drop: dropout in the layers.
        word_drop: in training, the probability that a word is left out of the text.
        word_split: in training, the probability that a sub-word is split into the two it was merged from, recursively (as
            BPE dropout, Provilkov et al. 2020): new words are then read by known parts.

    Examples:
        >>> encoder = TextTransformer(vocab_size=50, width=8, layers=1, heads=2)
        >>> encoder.fit(["a red cup", "a red mug"])
        >>> encoder(**encoder.processor.collate([encoder.processor("red cup")])).shape
        torch.Size([1, 8])
    """

    def __init__(
        self,
        vocab_size: int = 2000,
        width: int = 256,
        layers: int = 4,
        heads: int = 4,
        max_length: int = 64,
        drop: float = 0.1,
        word_drop: float = 0.0,
        word_split: float = 0.0,
    ) -> None:
        super().__init__()
        if vocab_size < 3 or heads < 1 or width % heads:
            raise UsageError(
                f"TextTransformer: width {width} must be a multiple of heads {heads}, vocab_size at least 3."
            )
        check_layers("TextTransformer", "layers", layers)
        self.width = width
        self.processor = SubwordProcessor(vocab_size, max_length, word_drop, word_split)
        self.tokens = nn.Embedding(vocab_size, width, padding_idx=PAD)
        self.positions = nn.Parameter(torch.randn(max_length, width) * 0.02)
        nn.init.normal_(self.tokens.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, drop, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """``tokens`` ``(n, length)`` int64, 0 after the end -> ``(n, width)``."""
        hidden = self.hidden(tokens)
        kept = (tokens != PAD).unsqueeze(-1).to(hidden.dtype)
        return (hidden * kept).sum(dim=1) / kept.sum(dim=1)

    def hidden(self, tokens: Tensor, vectors: Tensor | None = None) -> Tensor:
        """The last layer's vectors of the tokens, ``(n, length, width)``.

        ``vectors`` ``(n, length, width)`` replace the tokens' own, before positions are added.
        """
        found = (self.tokens(tokens) if vectors is None else vectors) + self.positions[: tokens.shape[1]]
        return self.layers(found, src_key_padding_mask=tokens == PAD)
