"""Texts as the numbers of a pretrained model's own tokenizer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from multimodal.core.encoder import Corruption, Inputs, Processor
from multimodal.core.errors import Unreadable, UsageError
from multimodal.core.parts import Parts
from multimodal.media.corruptions.text import TEXT_CORRUPTIONS
from multimodal.media.parts.words import word_parts
from multimodal_encoders.text.raw_text import characters_read, read_text, word_counts

TYPICAL_TOKENS = 32  # tokens of an ordinary text
UNLIMITED_TOKENS = 10**6  # transformers writes a longest text of 1e30 tokens where none is known


class TokenProcessor(Processor):
    """Turns texts into tokens of a pretrained model's tokenizer, including special tokens.

    Raw values: strings with at least one visible character; of a long one, 64 characters for each token of ``max_length``
    are read. Only the library tokenizers runs; its settings, and those
    that transformers adds, are the processor's state. Texts are padded on the right, to the longest of a batch: with
    the mask that is the same to a model as padding on the left.

    Args:
        max_length: longer texts are cut after this many tokens.
        prompt: precedes each text.

    Examples:
        >>> TokenProcessor(max_length=8, prompt="query: ").max_length
        8
    """

    def __init__(self, max_length: int, prompt: str = "") -> None:
        self.max_length, self.prompt = max_length, prompt
        self._tokenizer: Any = None
        self._state: dict[str, Any] = {}

    def take(self, tokenizer: Any) -> None:
        """Take over a tokenizer of transformers.

        Raises:
            UsageError: it is of Python code alone, and has no form for the library tokenizers.
        """
        self.load_state(tokenizer_state(tokenizer))

    def state(self) -> dict[str, Any]:
        return self._state

    def load_state(self, state: dict[str, Any]) -> None:
        """Of a tokenizer or, empty, of none.

        ``tokenizer``: its JSON text; ``pad``: number and type of padding; ``types``: whether tokens have types;
        ``cut``: the side that long texts are cut on; ``verbatim``: whether "[SEP]" in a text is text; ``special``: the
        special tokens by what they are for.
        """
        from tokenizers import Tokenizer

        self._state, self._tokenizer = state, None
        if state:
            tokenizer = Tokenizer.from_str(state["tokenizer"])
            tokenizer.encode_special_tokens = state["verbatim"]
            tokenizer.enable_truncation(self.max_length, direction=state["cut"])
            self._tokenizer = tokenizer

    def __getstate__(self) -> dict[str, Any]:  # a tokenizer's own pickle forgets what load_state sets
        return vars(self) | {"_tokenizer": None}

    def __setstate__(self, values: dict[str, Any]) -> None:
        vars(self).update(values)
        self.load_state(values["_state"])

    def __call__(self, value: Any) -> np.ndarray:
        """``(length,)`` int32, or ``(2, length)`` with the types of the tokens if they have any."""
        return self.process([value])[0]

    def process(self, values: Sequence[Any]) -> list[Any]:
        if self._tokenizer is None:
            raise UsageError(
                "the text encoder has no tokenizer; name weights, or a model as config, or load a trained model."
            )
        texts = [self.prompt + self._read(value) for value in values]
        return [self._item(encoding) for encoding in self._tokenizer.encode_batch_fast(texts)]

    def _read(self, value: Any) -> str:
        return read_text(value, characters_read(self.max_length), self._state["cut"])

    def parts(self, value: Any) -> Parts:
        if self._tokenizer is None:
            self.process([value])  # raises the error
        return word_parts(self._read(value), self)

    def corruptions(self) -> Mapping[str, Corruption]:
        return TEXT_CORRUPTIONS

    def _item(self, encoding: Any) -> np.ndarray:
        if not encoding.ids:
            raise Unreadable("empty text", "nothing of the text is left by the tokenizer; give at least one word.")
        numbers = [encoding.ids, encoding.type_ids] if self._state["types"] else encoding.ids
        return np.array(numbers, dtype=np.int32)

    def cost(self, item: np.ndarray) -> float:
        return item.shape[-1] / TYPICAL_TOKENS

    def collate(self, items: Sequence[np.ndarray]) -> Inputs:
        """Padded on the right to the longest.

        ``input_ids``: ``(n, longest)`` int64; ``attention_mask``: the same, 1 where a token is, else 0;
        ``token_type_ids``: likewise, of tokenizers that have types.
        """
        shape = len(items), max(item.shape[-1] for item in items)
        fills = self._state["pad"][: items[0].ndim]
        made = [np.full(shape, fill, dtype=np.int64) for fill in fills]
        mask = np.zeros(shape, dtype=np.int64)
        for row, item in enumerate(items):
            mask[row, : item.shape[-1]] = 1
            for array, numbers in zip(made, np.atleast_2d(item), strict=True):
                array[row, : len(numbers)] = numbers
        named = {"input_ids": made[0], "attention_mask": mask}
        if len(made) == 2:
            named["token_type_ids"] = made[1]
        return {name: torch.from_numpy(array) for name, array in named.items()}

    def preprocessing(self) -> dict[str, Any] | None:
        if self._tokenizer is None or self._state["types"]:
            return None
        letter = self._tokenizer.encode("a")  # what surrounds it surrounds every text
        own = [place for place, special in enumerate(letter.special_tokens_mask) if not special]
        if not own:
            return None
        return {
            "kind": "tokens",
            "tokenizer": json.loads(self._state["tokenizer"]),
            "prompt": self.prompt,
            "characters": characters_read(self.max_length),
            "max_length": self.max_length,
            "cut": self._state["cut"],
            "verbatim": self._state["verbatim"],
            "before": letter.ids[: own[0]],
            "after": letter.ids[own[-1] + 1 :],
        }

    def examples(self) -> list[Any]:
        return ["a black heart", "a rightwards arrow with a tail, and one that has none"]

    def linear_features(self) -> Any:
        return word_counts()

    def prompt_length(self) -> int:
        """The tokens of a text that are the prompt's, with the special ones before it."""
        numbers = self._tokenizer.encode(self.prompt).ids if self.prompt else []
        special = {self._tokenizer.token_to_id(token) for token in self._state["special"].values()}
        return len(numbers) - bool(numbers and numbers[-1] in special)

    def of_transformers(self) -> Any:
        """Convert it to a tokenizer of the library transformers."""
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        names = (
            ["input_ids", "token_type_ids", "attention_mask"]
            if self._state["types"]
            else ["input_ids", "attention_mask"]
        )
        return PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(self._state["tokenizer"]),
            model_max_length=self.max_length,
            model_input_names=names,
            truncation_side=self._state["cut"],
            pad_token_type_id=self._state["pad"][1],
            split_special_tokens=self._state["verbatim"],
            **self._state["special"],
        )


def tokenizer_state(tokenizer: Any) -> dict[str, Any]:
    """What of a tokenizer of transformers its results depend on, as JSON values.

    Raises:
        UsageError: it is of Python code alone, and has no form for the library tokenizers.
    """
    from tokenizers import Tokenizer

    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
    else:
        from transformers.convert_slow_tokenizer import convert_slow_tokenizer

        try:
            backend = convert_slow_tokenizer(tokenizer)
        except Exception as error:  # each tokenizer's converter fails in its own way
            raise UsageError(
                f"{type(tokenizer).__name__} is a tokenizer of Python code, which transformers cannot convert into a"
                " tokenizer.json; take a model that has one."
            ) from error
    plain = Tokenizer.from_str(backend.to_str())
    plain.no_truncation()
    plain.no_padding()
    special = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
    pad = tokenizer.pad_token_id
    if pad is None:  # of decoders; the mask hides the padding
        pad = tokenizer.eos_token_id or 0
        special["pad_token"] = str(plain.id_to_token(pad))
    typed = "token_type_ids" in tokenizer.model_input_names and any(plain.encode("a").type_ids)
    return {
        "tokenizer": plain.to_str(),
        "pad": [pad, tokenizer.pad_token_type_id],
        "types": typed,
        "cut": tokenizer.truncation_side,
        "verbatim": bool(getattr(tokenizer, "split_special_tokens", False)),
        "special": special,
    }


def has_vocabulary(tokenizer: Any) -> bool:
    """Whether a tokenizer of transformers has more than special tokens.

    If its files are missing, the library makes an empty tokenizer of the model's type, which knows no text.
    """
    return bool(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens) - {"▁"})


def max_length_of(tokenizer: Any, positions: int | None, asked: int | None) -> int:
    """Return the number of tokens of the longest text: the requested one, or what tokenizer and model both take.

    Args:
        tokenizer: of transformers.
        positions: the number of positions of the model; None: unlimited.
        asked: the requested number; None: not set.

    Raises:
        UsageError: too many are requested, or neither the user nor the model says how many.
    """
    if asked is not None:
        if not 1 <= asked <= (positions or asked):
            raise UsageError(f"max_length {asked} must lie between 1 and the {positions} positions of the model.")
        return asked
    known = [n for n in (tokenizer.model_max_length, positions) if n is not None and n < UNLIMITED_TOKENS]
    if not known:
        raise UsageError("neither the model nor its tokenizer limits the length of a text; set max_length.")
    return int(min(known))
