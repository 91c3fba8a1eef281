"""Tables of word vectors: text files of word2vec and GloVe, and the tokens of a text encoder of ours."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.model_folder import WEIGHTS, model_folder, read_description

MAX_LINE_BYTES = 2**20  # bytes
FIRST_TOKEN = 2  # of a tokenizer of ours; before it are padding and what is unknown


@dataclass(frozen=True)
class WordTable:
    """A table of word vectors.

    Args:
        vectors: ``(n, width)`` float32 of the words, or of a tokenizer's sub-words from number 1 on.
        words: the n words; empty with a tokenizer.
        tokenizer: its JSON text.
    """

    vectors: np.ndarray
    words: list[str]
    tokenizer: str | None = None


def read_word_table(path: Path, limit: int) -> WordTable:
    """Read the first ``limit`` words of a text file, or all tokens of a run's or model's text encoder.

    Raises:
        UsageError: there is nothing at ``path``.
        MultimodalError: it is damaged; the message names the line.
    """
    if path.is_dir():
        return _of_model(path)
    if not path.is_file():
        raise UsageError(
            f"word_vectors: there is no file or folder {path}; put word vectors in the text format of word2vec or GloVe"
            " there (.gz too), or name a run of `multimodal pretrain`."
        )
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _of_text(path, _lines(path, file), limit)
    except (OSError, EOFError, zlib.error) as error:
        raise MultimodalError(f"The word vectors {path} cannot be read ({error}).") from error


def _lines(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, list[str]]]:
    """The number of each line that is not empty, and its parts between spaces."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES or b"\0" in line:
            raise MultimodalError(
                f"{path}, line {number} is not a line of text. word2vec's binary format is not read: write the vectors as"
                " text (in gensim: save_word2vec_format(..., binary=False))."
            )
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        # some words of published tables are cut within a character
        parts = [part for part in line.decode("utf-8", "replace").strip("\r\n").replace("\t", " ").split(" ") if part]
        if parts:
            yield number, parts


def _of_text(path: Path, lines: Iterator[tuple[int, list[str]]], limit: int) -> WordTable:
    """Lines of a word and its numbers; perhaps before them one of the count of words and the width."""
    rows: dict[str, np.ndarray] = {}
    width, promised, read = 0, None, 0
    for number, parts in lines:
        if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
            promised, width = map(int, parts)
            continue
        width = width or len(parts) - 1
        word, numbers = " ".join(parts[:-width]), parts[-width:]  # few words have spaces
        try:
            vector = np.fromiter(map(float, numbers), dtype=np.float32, count=len(numbers))
        except ValueError:
            vector = np.full(width, np.nan, dtype=np.float32)
        if not word or not np.isfinite(vector).all():
            shown = " ".join(parts)[:60]
            raise MultimodalError(f"{path}, line {number} is not a word and {width} numbers: {shown!r}...")
        rows.setdefault(word, vector)
        read += 1
        if len(rows) == limit:
            break
    if not rows or (len(rows) < limit and promised is not None and read < promised):
        raise MultimodalError(
            f"{path} holds {read:,} word vectors" + (f", not {promised:,} as its first line says." if rows else ".")
        )
    return WordTable(np.stack(list(rows.values())), list(rows))


def _of_model(folder: Path) -> WordTable:
    description = read_description(folder)
    found = []
    try:
        with safe_open(model_folder(folder) / WEIGHTS, framework="np") as file:
            for modality, entry in description["encoders"].items():
                name = f"encoders.{modality}.tokens.weight"
                if name in file.keys() and "tokenizer" in entry["processor"]:  # noqa: SIM118
                    table = file.get_tensor(name).astype(np.float32)
                    found.append(WordTable(table[FIRST_TOKEN:], [], entry["processor"]["tokenizer"]))
    except (OSError, SafetensorError) as error:
        raise MultimodalError(f"The weights of {folder} are missing or damaged ({error}).") from error
    if len(found) != 1:
        raise UsageError(
            f"word_vectors: {folder} has {len(found)} text encoders with a table of tokens, such as `transformer` has;"
            " name a model that has one."
        )
    return found[0]
