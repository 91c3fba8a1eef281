"""The nearest groups of an engine's rows, and what the model's calibration says of their scores."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from multimodal.core.calibration import COMPETITORS, Calibration, PairCalibration
from multimodal.core.conditions import Where
from multimodal.search.engines.engine import Engine, Found
from multimodal.search.hits import Hit, HitLists, Hits

_PARSE = json.JSONDecoder().raw_decode  # without the checks of ``json.loads``, which take longer than the parsing
CANDIDATES = 4  # vectors looked at for each hit, because several may be in one group; if that is too few, times this


class Change(NamedTuple):
    """How people's judgements change the ranking of a query.

    Attributes:
        bonuses: group -> what is added to its cosine for the ranking; the scores of hits are still cosines.
        keys: keys of rows that are ranked too where the search alone would not find them.

    Examples:
        >>> Change({"=cups": 0.2}, ("cup-1",)).keys
        ('cup-1',)
    """

    bonuses: Mapping[str, float]
    keys: Sequence[str] = ()


class Learned(Protocol):
    """What was learned from judgements of hits; see ``multimodal.monitor.rerank``."""

    def changes(self, vectors: np.ndarray, target: str | None) -> list[Change | None]:
        """Return how the ranking of each query changes; None: not at all.

        Args:
            vectors: ``(q, dim)`` float32 of unit length.
            target: modality of the stored vectors. None: all.
        """
        ...

    def close(self) -> None:
        """End what it does on its own; it is not used afterwards."""
        ...


class Search(NamedTuple):
    """What is searched for, besides the vectors.

    Attributes:
        k: number of hits for each query.
        where: search only the rows that meet these conditions.
        without: groups that are not to be found.
        words: words that are looked for as well as the vector.
        exact: compare every vector.
        picture_of: reads the picture of a key.
        learned: changes the ranking of queries that are like judged ones; not of searches for words.

    Examples:
        >>> Search(k=10).where is None
        True
    """

    k: int
    where: Where | None = None
    without: Collection[str] = ()
    words: str | None = None
    exact: bool = False
    picture_of: Callable[[str], bytes | None] | None = None
    learned: Learned | None = None

    def candidates(self, engine: Engine, vectors: np.ndarray, count: int, target: str | None) -> list[list[Found]]:
        """Return the nearest stored vectors of each query.

        Args:
            engine: what is searched.
            vectors: ``(q, dim)`` float32 of unit length.
            count: number of vectors.
            target: modality of the stored vectors. None: all.
        """
        if self.words is None:
            return engine.nearest(vectors, count, target, self.where, self.exact)
        return [engine.nearest_by_words(vector, self.words, count, target, self.where) for vector in vectors]

    def hits(self, engine: Engine, vectors: np.ndarray, target: str | None) -> HitLists:
        """Return the nearest groups of each query, the nearest first, each by its best vector.

        Args:
            engine: what is searched.
            vectors: ``(q, dim)`` float32 of unit length.
            target: modality of the stored vectors. None: all.
        """
        if self.learned is None or self.words is not None:
            return HitLists(Hits(map(self._hit, best)) for best in self.nearest_groups(engine, vectors, target))
        changes = self.learned.changes(vectors, target)
        unchanged = np.array([change is None for change in changes], bool)
        plain = iter(self.nearest_groups(engine, vectors[unchanged], target) if unchanged.any() else ())
        return HitLists(
            Hits(map(self._hit, next(plain) if change is None else self._changed(engine, vector, target, change)))
            for vector, change in zip(vectors, changes, strict=True)
        )

    def nearest_groups(self, engine: Engine, vectors: np.ndarray, target: str | None) -> list[list[Found]]:
        """Return the best vector of each of the nearest groups, by vectors, or words, alone.

        Args:
            engine: what is searched.
            vectors: ``(q, dim)`` float32 of unit length.
            target: modality of the stored vectors. None: all.
        """
        count = self._first_count(engine, target) + len(self.without)
        found = self.candidates(engine, vectors, count, target)
        best = [self._best_of_groups(of_query) for of_query in found]
        fewer = [-1] * len(found)
        # Too few groups among them. Words find each row once, so that fewer rows than asked for need not be all.
        while again := [
            n
            for n, of_query in enumerate(found)
            if len(best[n]) < self.k and (len(of_query) >= count if self.words is None else len(of_query) > fewer[n])
        ]:
            count *= CANDIDATES
            for n, more in zip(again, self.candidates(engine, vectors[again], count, target), strict=True):
                fewer[n], found[n], best[n] = len(found[n]), more, self._best_of_groups(more)
        return best

    def _first_count(self, engine: Engine, target: str | None) -> int:
        """Return how many vectors are looked at first: reading what is stored with each takes longer than finding it."""
        if self.words is not None or self.exact or target is None:
            return CANDIDATES * self.k
        return self.k + self.k // 2 if engine.grouped else self.k

    def _changed(self, engine: Engine, vector: np.ndarray, target: str | None, change: Change) -> list[Found]:
        """Return the best groups of a query by cosine and bonus."""
        wider = self._replace(k=self.k + len(change.bonuses))  # that many may fall below the first k
        found = wider.nearest_groups(engine, vector[None], target)[0]
        seen = {one.group for one in found} | set(self.without)
        further: dict[str, Found] = {}
        vectors, items = engine.select(target, self.where, change.keys) if change.keys else (vector[None][:0], None)
        for other, item in zip(vectors, [] if items is None else items.to_pylist(), strict=True):
            one = Found(item["key"], item["group"], item["modality"], float(other @ vector), item["metadata"])
            if one.group not in seen and (one.group not in further or one.score > further[one.group].score):
                further[one.group] = one
        ranked = sorted([*found, *further.values()], key=lambda one: -(one.score + change.bonuses.get(one.group, 0.0)))
        return ranked[: self.k]

    def _best_of_groups(self, found: Sequence[Found]) -> list[Found]:
        """Return the first of each of the first k groups."""
        seen = set(self.without)
        best = []
        for one in found:
            if one.group not in seen:
                seen.add(one.group)
                best.append(one)
                if len(best) == self.k:
                    break
        return best

    def _hit(self, found: Found) -> Hit:
        metadata = _PARSE(found.metadata)[0]
        return Hit(found.key, found.modality, found.score, metadata, self.picture_of, words=found.words)


def calibrated_hits(
    search: Search,
    engine: Engine,
    vectors: np.ndarray,
    calibration: Calibration,
    modality: str,
    target: str | None,
    min_precision: float | None,
) -> HitLists:
    """Return the nearest groups with the probabilities that they are right.

    Args:
        search: what is searched for.
        engine: what is searched.
        vectors: ``(q, dim)`` float32 of unit length.
        calibration: the model's.
        modality: modality of the queries.
        target: modality of the stored vectors. None: all.
        min_precision: return only hits with scores so high that this fraction of them is right. None: all.
    """
    lists = [Hits() for _ in vectors]
    more = search._replace(k=max(search.k, COMPETITORS))
    for name in engine.modalities if target is None else [target]:
        of_pair = calibration.of(modality, name)
        if of_pair is None and min_precision is not None:
            continue  # its scores mean nothing known
        for hits, found in zip(lists, more.hits(engine, vectors, name), strict=True):
            hits += found[: search.k] if of_pair is None else _judged(found, of_pair, search.k, min_precision)
    if target is None:  # the scores of several modalities cannot be compared, their probabilities can
        lists = [Hits(sorted(hits, key=lambda hit: -(hit.probability or 0.0))[: search.k]) for hits in lists]
    return HitLists(lists)


def _judged(found: Hits, calibration: PairCalibration, k: int, min_precision: float | None) -> Hits:
    """Return the first k hits with their probabilities; with a precision, only those of enough confidence."""
    scores = np.array([hit.score for hit in found[:COMPETITORS]])
    if not scores.size:
        return Hits()
    order = np.argsort(-scores, kind="stable")  # judgements may have changed it
    probable = np.empty_like(scores)
    (probable[order],) = calibration.probability(scores[None, order])
    lowest = -1.0 if min_precision is None else calibration.cut_off(min_precision)
    judged = list(zip(found, probable, strict=False))[:k]
    kept = Hits(replace(hit, probability=round(float(p), 4)) for hit, p in judged if p >= lowest)
    return kept if min_precision is not None else Hits([*kept, *found[len(kept) : k]])
