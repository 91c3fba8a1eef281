r"""A ranking that learns from judgements at once, without training: a kernel smoother over judged queries.

For a query q, group g gets the bonus

.. math:: b(q, g) = \sum_j \omega_j \, k(q, q_j) \, s_{jg} \, r_{jg},
   \qquad k(q, q_j) = \min\left(1, \max\left(0, 2 \, \frac{\cos(q, q_j) - c}{1 - c}\right)\right),
   \qquad \omega_j = \frac{e^{\cos(q, q_j) / \tau}}{\sum_{k(q, q_i) > 0} e^{\cos(q, q_i) / \tau}}

over the judged queries j, the nearest of which count most, and hits are ranked by cosine plus bonus. In it

- :math:`s_{jg} = w_{jg} / (\lambda + \max_h |w_{jh}|)` in (-1, 1) is the balance of the judgements of g, of weights w: a wrong
  click among many right ones is small next to them, and a single one is shrunk;
- :math:`r_{jg}` is the distance of the cosine of g to that of the best hit at :math:`q_j`, and a margin. So a hit that is the
  first already gets the margin alone, and what is near a judged query, but has a better hit, keeps it. For a group of negative
  weight it is the distance down to the tenth hit, and the margin.

The kernel is 0 below the cosine c: a query that is like no judged one is ranked as before, exactly. It is also 0 where an
indexed value of the queries' own modality, of another group than those that were judged right, is nearer to q than q_j is: then
q is about that group. (Where the index has names, a query near the name of one character learns nothing from another one's.)

Sources: Nadaraya 1964 and Watson 1964 (the smoother, here shrunk to 0 far from the judged queries); the residuals as targets
are those of boosting, Friedman 2001, section 2.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from multimodal.core.errors import MultimodalError
from multimodal.monitor.feedback import read_feedback
from multimodal.monitor.feedback_pairs import Queried, WeightedPair, weighted_pairs
from multimodal.search.engines.engine import Found
from multimodal.search.nearest import Change, Search

if TYPE_CHECKING:
    from multimodal.search.index import Index

CUTOFF = 0.7  # cosine of queries below which they have nothing to do with one another
PRIOR = 1.0  # lambda: the weight of doubt
MARGIN = 0.1  # of cosines
SHARPNESS = 0.02  # tau: a judged query that is farther by this cosine counts 1 / e
STEEP = 2.0  # the kernel is 1 from halfway between the cut-off and equal queries
OTHERS = 8  # groups among which one that was not judged right is looked for
FIRST_PAGE = 10  # hits, below which a wrong one is put
MAX_QUERIES = 20_000  # judged ones that are kept, the newest
MAX_GROUPS = 20  # that get a bonus in one search
BATCH = 256  # queries that are searched at a time
ROUNDING = 1e-5  # of cosines


class _Judged(NamedTuple):
    """A judged query: its modality, which groups get which bonus there, and a key of each."""

    modality: str
    bonuses: dict[str, float]
    keys: dict[str, str]


class FeedbackRanking:
    r"""Changes the ranking of an index by a file of judgements, without training.

    Queries of one typed value (a text) are learned from: of files the judgements hold the names alone.

    Args:
        index: the index, which knows its model. Set ``index.learned`` to this object.
        file: judgements, as ``multimodal serve --feedback FILE`` writes them.
        cutoff: cosine c of two queries from which on one learns from the other, in [0, 1).

    Attributes:
        judged: number of judged queries that are learned from.

    Raises:
        UsageError: the index does not know its model.
        MultimodalError: the file cannot be read.

    Examples:
        >>> import multimodal as mm
        >>> embedder = mm.Embedder({"text": mm.create("text", "bag")}, dim=8)
        >>> embedder.fit_processors({"text": ["a red cup", "a red mug"]})
        >>> rows = [{"name": "a red cup", "sku": "cup"}, {"name": "a red mug", "sku": "mug"}]
        >>> index = mm.Index.from_table(embedder, rows, columns={"text": "name"}, key="sku")
        >>> line = '{"verdict": "up", "key": "mug", "modality": "text", "query": {"text": "a red cup"}, "position": 2}\n'
        >>> _ = Path("feedback.jsonl").write_text(5 * line)
        >>> index.learned = FeedbackRanking(index, "feedback.jsonl")
        >>> [hit.key for hit in index.search(text="a red cup", target="text")]
        ['mug', 'cup']
    """

    def __init__(self, index: Index, file: str | Path, *, cutoff: float = CUTOFF) -> None:
        self._embedder = index.need_model()
        self._index, self._file, self.cutoff = index, Path(file), cutoff
        self._encoded: OrderedDict[Queried, np.ndarray | None] = OrderedDict()
        self._scores: dict[tuple[Queried, str], tuple[float, float]] = {}  # query and modality -> first and tenth score
        self._state: object = None  # of the file, when it was read
        self._size = -1  # of the index, when the scores were computed
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._vectors, self._judged = np.zeros((0, index.dim), np.float32), list[_Judged]()
        self.refresh()

    def __repr__(self) -> str:
        return f"Ranking learned from {self.judged:,} judged queries of {self._file}"

    @property
    def judged(self) -> int:
        return len(self._judged)

    def refresh(self) -> bool:
        """Learn again if the file or the index has changed; returns whether it has.

        Raises:
            MultimodalError: the file cannot be read.
        """
        try:
            found = self._file.stat()
        except OSError as error:
            raise MultimodalError(f"The feedback {self._file} cannot be read ({error.strerror}).") from error
        state = found.st_mtime_ns, found.st_size, found.st_ino, len(self._index)
        if state == self._state:
            return False
        self.learn(weighted_pairs(read_feedback(self._file).judgements))
        self._state = state
        return True

    def learn(self, pairs: Sequence[WeightedPair]) -> None:
        """Learn from weighted pairs, in the place of what was learned before.

        Args:
            pairs: as ``weighted_pairs`` returns them.
        """
        if self._size != len(self._index):
            self._size = len(self._index)
            self._scores.clear()
        of_query: dict[Queried, list[WeightedPair]] = defaultdict(list)
        for pair in pairs:
            of_query[pair.query].append(pair)
        newest = dict(list(of_query.items())[-MAX_QUERIES:])
        self._encode(newest)
        newest = {query: of for query, of in newest.items() if self._encoded.get(query) is not None}
        keys = sorted({pair.key for of in newest.values() for pair in of})
        rows: dict[str, list[tuple[str, str, np.ndarray]]] = defaultdict(list)  # key -> group, modality and vector
        stored, items = self._index.engine.select(keys=keys) if keys else ((), None)
        for vector, item in zip(stored, [] if items is None else items.to_pylist(), strict=True):
            rows[item["key"]].append((item["group"], item["modality"], vector))
        self._search(newest)
        vectors, judged = [], []
        for query, of in newest.items():
            vector = self._encoded[query]
            if vector is not None and (learned := self._of_query(query, vector, of, rows)).bonuses:
                vectors.append(vector)
                judged.append(learned)
        self._vectors, self._judged = np.array(vectors, np.float32).reshape(-1, self._index.dim), judged

    def _of_query(
        self,
        query: Queried,
        vector: np.ndarray,
        pairs: Sequence[WeightedPair],
        rows: dict[str, list[tuple[str, str, np.ndarray]]],
    ) -> _Judged:
        """Return the bonuses of the groups that were judged for a query."""
        weights: dict[str, float] = defaultdict(float)
        keys, distances = dict[str, str](), dict[str, tuple[float, float]]()
        for pair in pairs:
            of_row = [(g, m, v) for g, m, v in rows.get(pair.key, ()) if pair.modality in ("", m)]
            for group in {g for g, _, _ in of_row}:
                first, tenth = self._scores[query, pair.modality]
                cosine = max(float(v @ vector) for g, _, v in of_row if g == group)
                weights[group] += pair.weight
                keys[group] = pair.key
                below_first, above_tenth = distances.get(
                    group, (np.inf, np.inf)
                )  # of several rows of a group, the best
                distances[group] = min(below_first, first - cosine), min(above_tenth, cosine - tenth)
        largest = max(map(abs, weights.values()), default=0.0)
        bonuses = {}
        for group, weight in weights.items():
            needed = max(0.0, distances[group][0 if weight > 0 else 1]) + MARGIN
            bonuses[group] = weight / (PRIOR + largest) * needed
        return _Judged(query[0][0], bonuses, keys)

    def _encode(self, queries: dict[Queried, list[WeightedPair]]) -> None:
        """Encode the queries that are new, of each modality together; those that are not one typed value are left out."""
        processors = self._embedder.processors
        new: dict[str, list[Queried]] = defaultdict(list)
        for query in queries:
            if query not in self._encoded:
                self._encoded[query] = None
                if len(query) == 1 and (m := query[0][0]) in processors and not processors[m].reads_files:
                    new[m].append(query)
        for modality, of_modality in new.items():
            values = [query[0][1] for query in of_modality]
            for query, vector in zip(of_modality, self._vectors_of(modality, values), strict=True):
                self._encoded[query] = vector
        while len(self._encoded) > 2 * MAX_QUERIES:
            self._encoded.popitem(last=False)

    def _vectors_of(self, modality: str, values: list[str]) -> list[np.ndarray | None]:
        def encode(some: list[str]) -> list[np.ndarray | None]:
            found = self._embedder.encode(batch_size=BATCH, precision="float32", **{modality: some})
            return [vector if np.isfinite(vector).all() else None for vector in found]

        try:
            return encode(values)
        except MultimodalError:  # one of them cannot be read
            found: list[np.ndarray | None] = [None] * len(values)
            for number, value in enumerate(values):
                with suppress(MultimodalError):
                    found[number] = encode([value])[0]
            return found

    def _search(self, queries: dict[Queried, list[WeightedPair]]) -> None:
        """Find the first and the tenth score of each query that is new, by the vectors alone."""
        wanted: dict[str, list[Queried]] = defaultdict(list)
        for query, pairs in queries.items():
            for modality in dict.fromkeys(pair.modality for pair in pairs):
                if (query, modality) not in self._scores:
                    wanted[modality].append(query)
        for modality, of_modality in wanted.items():
            target = modality if modality in self._index.modalities else None
            for start in range(0, len(of_modality), BATCH):
                some = of_modality[start : start + BATCH]
                lists = Search(FIRST_PAGE).hits(
                    self._index.engine, np.array([self._encoded[query] for query in some], np.float32), target
                )
                for query, hits in zip(some, lists, strict=True):
                    scores = [hit.score for hit in hits] or [0.0]
                    self._scores[query, modality] = scores[0], scores[-1]

    def changes(self, vectors: np.ndarray, target: str | None) -> list[Change | None]:
        """Return how the ranking of each query changes; None: it is like no judged query.

        Args:
            vectors: ``(q, dim)`` float32 of unit length.
            target: modality of the stored vectors. None: all; what was learned holds for any.
        """
        known, judged = self._vectors, self._judged  # replaced, never changed, by another thread
        if not judged:
            return [None] * len(vectors)
        changes = []
        for vector, cosines in zip(vectors, vectors @ known.T, strict=True):
            near = self._about_the_same(vector, cosines, judged)
            kernel = np.minimum(1.0, STEEP * (cosines[near] - self.cutoff) / (1 - self.cutoff))
            if near:
                nearness = np.exp((cosines[near] - cosines[near].max()) / SHARPNESS)
                kernel *= nearness / nearness.sum()
            changes.append(_change(kernel, [judged[number] for number in near]) if near else None)
        return changes

    def _about_the_same(self, vector: np.ndarray, cosines: np.ndarray, judged: Sequence[_Judged]) -> list[int]:
        """Return the judged queries that are near, and nearer than the values of other groups in the index."""
        near = np.flatnonzero(cosines > self.cutoff).tolist()
        others: dict[str, list[Found]] = {}
        for modality in {judged[number].modality for number in near} & set(self._index.modalities):
            others[modality] = Search(OTHERS).nearest_groups(self._index.engine, vector[None], modality)[0]

        def is_nearest(number: int) -> bool:
            bonuses = judged[number].bonuses
            wrong = (one.score for one in others.get(judged[number].modality, ()) if bonuses.get(one.group, 0.0) <= 0)
            return cosines[number] >= next(wrong, -1.0) - ROUNDING

        return [number for number in near if is_nearest(number)]

    def watch(self, interval: float = 1.0) -> None:
        """Refresh again and again in a thread, until ``close``; if the file cannot be read, what was learned is kept.

        Args:
            interval: seconds between two looks at the file.
        """

        def work() -> None:
            while not self._stopped.wait(interval):
                with suppress(MultimodalError):
                    self.refresh()

        self._thread = threading.Thread(target=work, name="multimodal-feedback", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread of ``watch``."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()


def _change(kernel: np.ndarray, judged: Sequence[_Judged]) -> Change:
    """Return the bonuses of a query from those of the judged queries near to it.

    Args:
        kernel: ``(n,)``, the weight of each judged query.
        judged: these.
    """
    bonuses: dict[str, float] = defaultdict(float)
    keys: dict[str, str] = {}
    for weight, one in zip(kernel.tolist(), judged, strict=True):
        for group, bonus in one.bonuses.items():
            bonuses[group] += weight * bonus
            keys[group] = one.keys[group]
    strongest = sorted(bonuses, key=lambda group: -abs(bonuses[group]))[:MAX_GROUPS]
    return Change({g: bonuses[g] for g in strongest}, tuple(keys[g] for g in strongest if bonuses[g] > 0))
