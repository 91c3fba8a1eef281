"""Hybrid search: what is found by vectors and what is found by words, in one order."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from itertools import groupby

from multimodal.search.engines.engine import Found

FUSION = 2  # of reciprocal ranks: the first hit by words alone is worth more than one that is tenth in both lists
CANDIDATES = 64  # rows of each list that are fused, at least
FEW = 10  # rows, or fewer, are what the query names if they alone have its words
CODE = 3  # letters and digits of a code, at least
NUMBER = 4  # digits of a code without letters, at least: "the 100 best" names nothing

# what is between spaces and punctuation: Python does not count the vowel signs of many scripts as letters
_WORD = re.compile(
    r"[^\s!-/:-@\[-`{-~\u00a0-\u00a9\u00ab-\u00b1\u00b4\u00b6-\u00b8\u00bb-\u00bf\u055a-\u055f\u0589\u05be\u05c0\u05c3"
    r"\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u2000-\u200b\u200e-\u206f\u3000-\u3003\u3008-\u301f\u30fb\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40"
    r"\uff5b-\uff65]+"
)
_CODE = re.compile(r"[^\W_]+(?:[-.:_][^\W_]+)*")  # one with its separators, as in AX-400
_ACCENTS = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic letters, whose words are found without them


def fuse(
    by_vectors: Sequence[Sequence[Found]], by_words: Sequence[tuple[float, Found]], words: str, count: int
) -> list[Found]:
    """Return what is found in the order of reciprocal ranks (Cormack et al. 2009); what the words name comes first.

    However many modalities vote against it, a row that the query names comes before all others: one whose key, or one of whose
    texts, is the query; then one of the few rows that have every word of it, or else every code of it (of digits and letters,
    or of four digits and more; AX-400 is AX400). These are sought among the rows that the words found.

    Args:
        by_vectors: for each modality, the nearest vectors.
        by_words: the rows that have some of the words, each with its score by words and the cosine of its nearest vector.
        words: what was looked for.
        count: number of rows to return.

    Returns:
        Each row once, with the cosine of its nearest vector of those that are given, and the words of the query that it has,
        where the words found it.

    Examples:
        >>> mug, cup = Found("mug", "mug", "image", 0.9, "{}"), Found("cup-7", "cup-7", "text", 0.1, "{}")
        >>> [(found.key, found.words) for found in fuse([[mug, cup]], [(3.2, cup)], "CUP-7", 2)]
        [('cup-7', ('CUP', '7')), ('mug', ())]
    """
    worth: dict[str, float] = {}
    best: dict[str, Found] = {}
    for scored in [*([(one.score, one) for one in found] for found in by_vectors), by_words]:
        for one, rank in _ranked(scored):
            worth[one.key] = worth.get(one.key, 0.0) + 1 / (FUSION + rank)
            if one.key not in best or one.score > best[one.key].score:
                best[one.key] = one
    wanted = _words_of(words)
    texts: dict[str, list[str]] = {}
    complete: list[str] = []  # rows that have all of the words, or else all of the codes
    for key in dict.fromkeys(one.key for _, one in by_words):
        cells = json.loads(best[key].metadata).values()
        texts[key] = [key, *(cell for cell in cells if isinstance(cell, str))]
        there = _words_of(" ".join(texts[key]))
        best[key] = best[key]._replace(words=tuple(word for form, word in wanted.items() if form in there))
        if wanted and wanted.keys() <= there.keys():
            complete.append(key)
    if not complete and (codes := _codes_of([words])):
        complete = [key for key, of_row in texts.items() if codes <= _codes_of(of_row)]
    named = _named(list(wanted), {key: texts[key] for key in complete})
    order = {key: (named.get(key, 2), -round(worth[key], 9), key) for key in best}
    return sorted(best.values(), key=lambda one: order[one.key])[:count]


def _named(wanted: Sequence[str], texts: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return the few rows that a query names: key -> 0 if that is what the row is called, else 1.

    Args:
        wanted: the words of the query.
        texts: key -> texts, of the rows that have all of its words or codes.
    """
    called = {key for key, of_row in texts.items() if any(list(_words_of(one)) == wanted for one in of_row)}
    if len(texts) > FEW:
        return dict.fromkeys(called, 0) if len(called) <= FEW else {}
    return {key: int(key not in called) for key in texts}


def _ranked(scored: Sequence[tuple[float, Found]]) -> list[tuple[Found, float]]:
    """Return each row once with its rank from 0; rows of equal scores, which have no order, share the mean of their ranks."""
    rows: dict[str, tuple[float, Found]] = {}
    for score, one in sorted(scored, key=lambda pair: -pair[0]):
        rows.setdefault(one.key, (score, one))
    ranked: list[tuple[Found, float]] = []
    for _, equal in groupby(rows.values(), key=lambda pair: pair[0]):
        together = [one for _, one in equal]
        rank = len(ranked) + (len(together) - 1) / 2
        ranked += [(one, rank) for one in together]
    return ranked


def _words_of(text: str) -> dict[str, str]:
    """Return the words of a text, as they are compared -> as they are written."""
    return {_folded(word): word for word in _WORD.findall(unicodedata.normalize("NFC", text))}


def _codes_of(texts: Sequence[str]) -> set[str]:
    """Return the codes in texts, without what separates their parts."""
    found = {_folded("".join(filter(str.isalnum, code))) for text in texts for code in _CODE.findall(text)}
    return {code for code in found if any(map(str.isdigit, code)) and len(code) >= (NUMBER if code.isdigit() else CODE)}


def _folded(word: str) -> str:
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFKD", word.casefold())))
