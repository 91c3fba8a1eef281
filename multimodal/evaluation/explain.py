"""Explain a score by leaving out each part of the two values (Zeiler and Fergus 2014 did so with patches of pictures).

1. A processor takes a value apart (``Processor.parts``).
2. The items without each part are encoded, in batches.
3. The change of the score is what the part is worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError, suggest
from multimodal.core.hardware import fast_device
from multimodal.core.html_table import cell_text, shorten
from multimodal.core.parts import Parts
from multimodal.evaluation.explanation import ExplainedValue, Explanation, Part
from multimodal.media.shading import LEAST

MAX_PARTS = 4_000
BLOCK = 256  # items in memory


def explain(
    run: str | Path | Embedder, query: Mapping[str, Any], match: Mapping[str, Any], *, max_parts: int = MAX_PARTS
) -> Explanation:
    """Say which parts of a query and of a candidate make their score, by leaving out each part alone.

    It works with the parts of any processor that has them (``Processor.parts``); of another one, the explanation says so. What
    a part is worth is measured with all others in place: two parts that say the same may both seem to be worth little.

    Args:
        run: folder of a run or of an exported model, or an embedder.
        query: the query, ``{modality: value}``, of one value as ``encode`` takes it: ``{"text": "a red cup"}``.
        match: the candidate, ``{modality: value}``, of the same or of another modality: ``{"image": "cup.png"}``.
        max_parts: of a value; each is encoded.

    Returns:
        The score, and the parts of both values with what each is worth.

    Raises:
        UsageError: a query or match is not one value of a modality of the model, or neither comes apart.
        MultimodalError: a value cannot be read, comes apart into more than ``max_parts``, or has a vector that is not finite.

    Examples:
        >>> from multimodal import create
        >>> embedder = Embedder({"text": create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup", "a red mug"]})
        >>> found = explain(embedder, query={"text": "red cup"}, match={"text": "a red mug"})
        >>> sorted(part.name for part in found.query.parts)
        ['cup', 'red']
    """
    values = {"query": _one_value("query", query), "match": _one_value("match", match)}
    if isinstance(run, Embedder):
        embedder = run
        for role, (modality, _) in values.items():
            if modality not in embedder.modalities:
                raise UsageError(
                    f"{role}: the model has no modality {modality!r}.{suggest(modality, embedder.modalities)}"
                )
    else:
        names = list(dict.fromkeys(modality for modality, _ in values.values()))
        embedder = Embedder.from_pretrained(run, modalities=names).to(fast_device())
    vectors, parts = {}, {}
    for role, (modality, value) in values.items():
        vectors[role], parts[role] = _read(embedder, role, modality, value, max_parts)
    if all(found is None for found in parts.values()):
        raise UsageError(" ".join(dict.fromkeys(_no_parts(embedder, modality) for modality, _ in values.values())))
    score = float(vectors["query"] @ vectors["match"])
    explained = {
        role: _explain_value(
            embedder, modality, value, parts[role], vectors["match" if role == "query" else "query"], score
        )
        for role, (modality, value) in values.items()
    }
    return Explanation(score, explained["query"], explained["match"])


def _one_value(role: str, given: Any) -> tuple[str, Any]:
    if not isinstance(given, Mapping) or len(given) != 1:
        got = f"{len(given)} of them" if isinstance(given, Mapping) else f"a {type(given).__name__}"
        raise UsageError(
            f'explain() takes one modality and its value as {role}, like {{"text": "a red cup"}}; got {got}.'
        )
    return next(iter(given.items()))


def _read(embedder: Embedder, role: str, modality: str, value: Any, max_parts: int) -> tuple[np.ndarray, Parts | None]:
    """Return a value's vector ``(dim,)`` float64 and its parts."""
    processor = embedder.encoder(modality).processor
    try:
        item = processor(value)
        parts = processor.parts(value)
    except Unreadable as error:
        raise MultimodalError(f"{role}: {modality} {_text(value)}: {error}") from error
    if parts is not None and len(parts) > max_parts:
        raise MultimodalError(
            f"{role}: the {modality} comes apart into {len(parts):,} parts, but at most {max_parts:,} are explained; give a"
            " shorter or smaller value."
        )
    (vector,) = embedder.encode_items(modality, [item]).astype(np.float64)
    if not np.isfinite(vector).all():
        raise MultimodalError(f"{role}: the vector of the {modality} is not finite, so it has no score.")
    return vector, parts


def _explain_value(
    embedder: Embedder, modality: str, value: Any, parts: Parts | None, other: np.ndarray, score: float
) -> ExplainedValue:
    if parts is None:
        return ExplainedValue(modality, _text(value), (), _no_parts(embedder, modality))
    changes, notes = np.full(len(parts), math.nan), [""] * len(parts)
    for start in range(0, len(parts), BLOCK):
        items, places = [], []
        for place in range(start, min(start + BLOCK, len(parts))):
            try:
                items.append(parts.without(place))
                places.append(place)
            except Unreadable as error:
                notes[place] = str(error)
        if items:
            changes[places] = score - embedder.encode_items(modality, items).astype(np.float64) @ other
    for place, change in enumerate(changes.tolist()):
        if not math.isfinite(change):
            changes[place], notes[place] = math.nan, notes[place] or "its vector is not finite."
    worth = [round(change, 6) for change in changes.tolist()]  # equal but for rounding: the processor's order
    order = sorted(range(len(worth)), key=lambda place: (not math.isfinite(worth[place]), -worth[place], place))
    found = tuple(Part(p, parts.names[p], parts.kinds[p], changes[p].item(), notes[p]) for p in order)
    drawing = "" if parts.draw is None or not len(parts) else parts.draw(changes.tolist())
    return ExplainedValue(modality, _text(value), found, _note(modality, changes), drawing)


def _note(modality: str, changes: np.ndarray) -> str:
    known = changes[np.isfinite(changes)]
    if not len(changes):
        return f"The {modality} has no parts."
    if not len(known):
        return "No part can be left out, so none has a known worth."
    return "" if np.abs(known).max() >= LEAST else "No part alone changes the score."


def _no_parts(embedder: Embedder, modality: str) -> str:
    processor = type(embedder.encoder(modality).processor).__name__
    return f"The {modality} does not come apart: {processor} has no method parts (see Processor.parts)."


def _text(value: Any) -> str:
    return shorten(" ".join(cell_text(value).split()))
