"""What feedback is worth: simulated users search the glyphs by name, and what they judge improves the ranking, then the model.

    python benchmarks/feedback.py RUN [--parts rank refine poison] [--folder DIR] [--steps 100] [--rounds 3]

RUN is a run of ``configs/glyphs.yaml``, trained without the split "unseen_characters". Half of its characters are asked for, by
their names and two other phrasings; users look at position p with probability 1 / p, 5 % of their clicks are on any hit of the
page, and of the searches that do not show the character one in ten is reported as missing (``simulated_users.py``). Measured is
the mean reciprocal rank of text -> image among one drawing of each character, 0 below rank 100:

- "asked": queries that were judged;
- "neighbours": two further phrasings of the same characters, which nobody used;
- "elsewhere": all phrasings of the other half.

``rank`` is the ranking that learns at once, next to what the engine offers; ``refine`` are rounds of users and `multimodal
refine`; ``poison`` are judgements that are all wrong, and one user's flood. Intervals are bootstrap intervals over characters.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant
from simulated_users import PHRASINGS, Asked, Users, append, glyphs, one_drawing_each, queries_of, reciprocal_ranks

from multimodal.core.embedder import Embedder
from multimodal.data.samples import Samples
from multimodal.evaluation.intervals import bootstrap
from multimodal.monitor.acceptance import index_of_rows
from multimodal.monitor.feedback import read_feedback
from multimodal.monitor.feedback_pairs import weighted_pairs
from multimodal.monitor.refine import RefineSettings, refine
from multimodal.monitor.rerank import CUTOFF, PRIOR, FeedbackRanking
from multimodal.search.index import Index

ASKED = ("name", "reversed", "without last")
SESSIONS = 4  # searches with each query, in each round
FLOOD = 20_000  # judgements of one user


class Queries:
    """The queries: those that users ask, others for the same characters, and those for other characters."""

    def __init__(self, samples: Samples) -> None:
        rows = np.random.default_rng(0).permutation(samples.rows("unseen_characters"))
        half = len(rows) // 2
        self.asked = queries_of(samples, rows[:half].tolist(), ASKED)
        used = {one.text for one in self.asked}
        near = queries_of(samples, rows[:half].tolist(), list(PHRASINGS))
        self.neighbours = [one for one in near if one.text not in used]
        other = queries_of(samples, rows[half:].tolist(), list(PHRASINGS))
        self.elsewhere = [one for one in other if one.text not in used]

    def measure(self, index: Index) -> dict[str, np.ndarray]:
        return {name: reciprocal_ranks(index, queries) for name, queries in vars(self).items()}

    def report(self, what: str, old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Print and return the means and the difference, with its interval."""
        found: dict[str, Any] = {"what": what}
        for name, queries in vars(self).items():
            groups = np.array([one.group for one in queries])
            change = bootstrap({"mrr": new[name] - old[name]}, groups)["mrr"]
            lower, higher = (new[name] < old[name] - 1e-9).mean(), (new[name] > old[name] + 1e-9).mean()
            found[name] = {"old": old[name].mean(), "new": new[name].mean(), "low": change.low, "high": change.high}
            print(
                f"{what:28} {name:10} {old[name].mean():.3f} -> {new[name].mean():.3f}  {change.mean:+.4f}"
                f" [{change.low:+.4f}, {change.high:+.4f}]  higher {higher:.1%}, lower {lower:.1%} of {len(queries)}",
                flush=True,
            )
        return found


def rank(index: Index, queries: Queries, folder: Path) -> list[dict[str, Any]]:
    """The ranking that learns at once; the users of the second round see what the first round's judgements made."""
    file, before = folder / "rank.jsonl", queries.measure(index)
    results = []
    for number in range(2):
        append(file, Users(index, seed=number).judge(queries.asked, SESSIONS))
        started = time.perf_counter()
        index.learned = FeedbackRanking(index, file)
        learning = time.perf_counter() - started
        results.append(queries.report(f"after round {number + 1}", before, queries.measure(index)))
        print(f"  {index.learned}; learned in {learning:.1f} s; {read_feedback(file)}", flush=True)
    vector = index.need_model().encode(precision="float32", text=[queries.asked[0].text])
    for learned in (index.learned, None):
        index.learned, times = learned, []
        for _ in range(200):
            started = time.perf_counter()
            index.search(vector, 10, "image", modality="text")
            times.append(time.perf_counter() - started)
        print(f"  a search {'with' if learned else 'without'} it: {1000 * np.median(times):.2f} ms (median of 200)")
    results += other_rankings(index, queries, file, before, folder)
    return results


def other_rankings(
    index: Index, queries: Queries, file: Path, before: dict[str, np.ndarray], folder: Path
) -> list[dict[str, Any]]:
    """The same judgements by the engine's own queries, and by Rocchio's, with the same kernel of neighbours."""
    pairs = weighted_pairs(read_feedback(file).judgements)
    texts = sorted({pair.query[0][1] for pair in pairs})
    number_of = {text: number for number, text in enumerate(texts)}
    known = index.need_model().encode(batch_size=256, precision="float32", text=texts)
    vectors, items = index.engine.select("image")
    row_of = {key: row for row, key in enumerate(items["key"].to_pylist())}
    groups = np.array(items["group"].to_pylist())
    judged: dict[int, dict[int, float]] = {}
    for pair in pairs:
        judged.setdefault(number_of[pair.query[0][1]], {})[row_of[pair.key]] = pair.weight
    for of_query in judged.values():
        largest = max(map(abs, of_query.values()))
        of_query.update({row: weight / (PRIOR + largest) for row, weight in of_query.items()})
    shard_config = qdrant.EdgeConfig(
        vectors={"image": qdrant.EdgeVectorParams(size=index.dim, distance=qdrant.Distance.Dot)}
    )
    (folder / "shard").mkdir()
    shard = qdrant.EdgeShard.create(str(folder / "shard"), shard_config)
    points = [qdrant.Point(id=row, vector={"image": vector.tolist()}, payload={}) for row, vector in enumerate(vectors)]
    shard.update(qdrant.UpdateOperation.upsert_points(points))

    def near(vector: np.ndarray) -> dict[int, float]:
        kernel = np.maximum(0.0, (known @ vector - CUTOFF) / (1 - CUTOFF))
        found: dict[int, float] = {}
        for number in np.flatnonzero(kernel).tolist():
            for row, share in judged.get(number, {}).items():
                found[row] = found.get(row, 0.0) + float(kernel[number]) * share / max(1.0, float(kernel.sum()))
        return found

    def by_engine(query: Any) -> list[int]:
        answer = shard.query(qdrant.QueryRequest(limit=100, query=query))
        return [int(point.id) for point in answer]

    def naive(a: float, b: float, c: float) -> Callable[[np.ndarray, dict[int, float]], list[int]]:
        def found(vector: np.ndarray, of: dict[int, float]) -> list[int]:
            top = int(np.argmax(vectors @ vector))
            scored = of if top in of else of | {top: 0.0}
            items = [qdrant.FeedbackItem(vectors[row].tolist(), score) for row, score in scored.items()]
            strategy = qdrant.NaiveFeedbackStrategy(a, b, c)
            return by_engine(
                qdrant.Query.FeedbackNaive(qdrant.FeedbackNaiveQuery(vector.tolist(), items, strategy), "image")
            )

        return found

    def recommend(vector: np.ndarray, of: dict[int, float]) -> list[int]:
        liked = [vectors[row].tolist() for row, score in of.items() if score > 0] + [vector.tolist()]
        disliked = [vectors[row].tolist() for row, score in of.items() if score < 0]
        return by_engine(qdrant.Query.RecommendBestScore(qdrant.RecommendQuery(liked, disliked), "image"))

    def rocchio(beta: float) -> Callable[[np.ndarray, dict[int, float]], list[int]]:
        def found(vector: np.ndarray, of: dict[int, float]) -> list[int]:
            moved = vector + beta * sum(share * vectors[row] for row, share in of.items())
            return np.argsort(-(vectors @ moved))[:100].tolist()

        return found

    ways: dict[str, Callable[[np.ndarray, dict[int, float]], list[int]]] = {
        "qdrant feedback .12 .43 .16": naive(0.12, 0.43, 0.16),
        "qdrant feedback 1 1 .3": naive(1.0, 1.0, 0.3),
        "qdrant recommend": recommend,
        "Rocchio 0.5": rocchio(0.5),
        "Rocchio 1": rocchio(1.0),
    }
    results = []
    for name, way in ways.items():
        measured = {}
        for part, asked in vars(queries).items():
            measured[part] = before[part].copy()
            encoded = index.need_model().encode(batch_size=256, precision="float32", text=[one.text for one in asked])
            for number, (one, vector) in enumerate(zip(asked, encoded, strict=True)):
                if of := near(vector):
                    order = groups[way(vector, of)]
                    places = np.flatnonzero(order == one.group)
                    measured[part][number] = 1 / (1 + places[0]) if len(places) else 0.0
        results.append(queries.report(name, before, measured))
    return results


def rounds(
    run: Path, samples: Samples, queries: Queries, folder: Path, settings: RefineSettings, count: int
) -> list[Any]:
    """Rounds of users, who judge the newest run's index, and of refinement."""
    file, results = folder / "refine.jsonl", []
    index = index_of(run, samples)
    measured = queries.measure(index)
    for number in range(1, count + 1):
        append(file, Users(index, seed=100 + number).judge(queries.asked, SESSIONS))
        started = time.perf_counter()
        refined = refine(run, file, index, folder / f"round{number}", settings=settings)
        print(f"round {number}, {time.perf_counter() - started:.0f} s\n{refined}", flush=True)
        if refined.accepted:
            run = Path(refined.run)
            index = index_of(run, samples)
        after = queries.measure(index)
        results.append(queries.report(f"round {number}", measured, after) | {"refined": refined.to_json()})
        measured = after
    return results


def poison(run: Path, samples: Samples, queries: Queries, folder: Path, settings: RefineSettings) -> list[Any]:
    """Judgements that are all wrong, and one user's flood among honest ones."""
    index, results = index_of(run, samples), []
    before = queries.measure(index)
    keys = [samples.key_of(row) for row in one_drawing_each(samples).tolist()]
    draws = np.random.default_rng(9)
    honest = Users(index, seed=1).judge(queries.asked, SESSIONS)
    flood = []
    for number in range(FLOOD):
        one: Asked = queries.asked[int(draws.integers(len(queries.asked)))]
        line = {"verdict": "up", "key": keys[int(draws.integers(len(keys)))], "modality": "image", "position": 10}
        flood.append(line | {"query": {"text": one.text}, "query_id": f"f{number}", "user": "flood"})
    wrong = Users(index, wrong=1.0, seed=2).judge(queries.asked, 2 * SESSIONS)
    for name, lines in (("all wrong", wrong), ("honest", honest), ("honest and a flood", honest + flood)):
        file = folder / f"{name}.jsonl"
        append(file, lines)
        index.learned = FeedbackRanking(index, file)
        results.append(queries.report(f"ranking, {name}", before, queries.measure(index)))
        index.learned = None
        refined = refine(run, file, index, folder / f"{name} run", settings=settings)
        print(f"{name}\n{refined}", flush=True)
        results.append({"what": f"refine, {name}", "refined": refined.to_json()})
        if refined.accepted:
            after = queries.measure(index_of(Path(refined.run), samples))
            results.append(queries.report(f"refine, {name}", before, after))
    return results


def index_of(run: Path, samples: Samples) -> Index:
    """An index of the drawings and names."""
    columns = {modality: samples.schema.columns[modality] for modality in ("image", "text")}
    searched = replace(samples, schema=replace(samples.schema, columns=columns))
    return index_of_rows(Embedder.from_pretrained(run), searched, one_drawing_each(samples), 0.01)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--parts", nargs="+", default=["rank", "refine", "poison"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = options.folder or Path(tempfile.mkdtemp(prefix="feedback-"))
    folder.mkdir(parents=True, exist_ok=True)
    samples = glyphs()
    queries, settings = Queries(samples), RefineSettings(steps=options.steps, rate=options.rate)
    print(f"{len(queries.asked)} asked, {len(queries.neighbours)} neighbours, {len(queries.elsewhere)} elsewhere")
    found: dict[str, Any] = {}
    if "rank" in options.parts:
        found["rank"] = rank(index_of(options.run, samples), queries, folder)
    if "refine" in options.parts:
        found["refine"] = rounds(options.run, samples, queries, folder, settings, options.rounds)
    if "poison" in options.parts:
        found["poison"] = poison(options.run, samples, queries, folder, settings)
    (folder / "feedback.json").write_text(json.dumps(found, indent=1, default=float))
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
