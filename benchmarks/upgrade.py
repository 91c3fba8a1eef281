"""An index under a running server is upgraded from one model to another: what is found before, mapped and after.

The index has the unseen characters of the glyphs and some training rows, embedded with OLD. A server answers clients that ask
for names of unseen characters all the time, while (1) a map of the new model's queries is fitted on rows of the index that are
training rows and used, (2) the index is upgraded to NEW, (3) it is rolled back. Every answer is compared afterwards with those
of the old model, of the mapped queries and of the new model. Printed are the answers of each, those that are of none, the
requests that failed, the times, and the recall of the queries of the unseen characters with 95 % bootstrap intervals.

    python benchmarks/upgrade.py OLD NEW [--rows 4000] [--anchors 2000]
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multimodal.core.embedder import Embedder
from multimodal.data.samples import Samples
from multimodal.evaluation.intervals import bootstrap
from multimodal.evaluation.ranking import rankings
from multimodal.monitor.fit_query_map import encode_anchors, fit_query_map
from multimodal.monitor.map_index import map_index
from multimodal.monitor.new_index import MAP, working_folder
from multimodal.monitor.query_map import QueryMap, VectorMap, map_queries
from multimodal.monitor.upgrade import former_folder, rollback_index, upgrade_index
from multimodal.search.embed import embed_samples
from multimodal.search.index import Index

COLUMNS: dict[str, Any] = {"image": "image", "graph": "outline", "text": "name"}
CLIENTS, K = 2, 10

Answer = list[tuple[str, float]]


class Client(threading.Thread):
    """Asks one query after the other, and keeps the answers."""

    def __init__(self, address: str, queries: list[str]) -> None:
        super().__init__(daemon=True)
        self.address, self.queries, self.done = address, queries, threading.Event()
        self.answers: list[tuple[str, Answer]] = []
        self.failures: list[str] = []
        self.slowest = 0.0

    def run(self) -> None:
        for query in itertools.cycle(self.queries):
            if self.done.is_set():
                return
            body = json.dumps({"text": query, "target": "image", "k": K}).encode()
            asked = urllib.request.Request(f"{self.address}/search", body, {"Content-Type": "application/json"})
            start = time.perf_counter()
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    hits = json.load(answer)["hits"]
                self.answers.append((query, [(hit["key"], hit["score"]) for hit in hits]))
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))
            self.slowest = max(self.slowest, time.perf_counter() - start)


def answers_of(index: Index, queries: list[str]) -> dict[str, Answer]:
    return {q: [(hit.key, hit.score) for hit in index.search(text=q, target="image", k=K)] for q in set(queries)}


def same(a: Answer, b: Answer) -> bool:
    """Whether the scores of two answers agree, and their hits but for those that score the same as the last."""
    if len(a) != len(b) or any(abs(x - y) > 2e-3 for (_, x), (_, y) in zip(a, b, strict=True)):
        return False
    return len({key for key, _ in a} & {key for key, _ in b}) >= K - 2


def wait_for(address: str, name: str, seconds: float = 300) -> float:
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        with urllib.request.urlopen(f"{address}/about", timeout=60) as answer:
            about = json.load(answer)
        if about["model"] == name:
            return time.perf_counter() - start
        time.sleep(0.1)
    raise SystemExit(f"the server did not continue with {name}")


def recall(queries: np.ndarray, stored: np.ndarray, groups: np.ndarray) -> str:
    numbers = torch.from_numpy(groups)
    found = list(rankings(torch.from_numpy(queries), torch.from_numpy(stored), numbers, numbers))
    asked = np.concatenate([ranking.queries.numpy() for ranking in found])
    ranks = np.concatenate([ranking.ranks[:, 0].numpy() for ranking in found])
    measured = bootstrap({str(k): (ranks <= k).astype(float) for k in (1, 10)}, groups[asked])
    return " | ".join(f"{i.mean:.3f} ({i.low:.3f}, {i.high:.3f})" for i in measured.values())


def measure_unseen(
    old: Embedder, new: Embedder, samples: Samples, rows: np.ndarray, maps: dict[str, VectorMap]
) -> None:
    anchors = encode_anchors(old, new, samples, rows, lambda _: None)
    print("| queries | model and index | R@1 | R@10 |\n| --- | --- | --- | --- |")
    for of, to in (("text", "image"), ("image", "text"), ("graph", "text")):
        groups = anchors.groups
        rows_of = {
            "old model, old index": (anchors.old[of], anchors.old[to]),
            "new model unmapped, old index": (anchors.new[of], anchors.old[to]),
            f"new model mapped ({maps[of].kind}), old index": (maps[of](anchors.new[of]), anchors.old[to]),
            "new model, new index": (anchors.new[of], anchors.new[to]),
        }
        for name, (queries, stored) in rows_of.items():
            if queries.shape[1] == stored.shape[1]:
                print(f"| {of} -> {to} | {name} | {recall(queries, stored, groups)} |")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("old", type=Path)
    p.add_argument("new", type=Path)
    p.add_argument("--rows", type=int, default=4000, help="training rows in the index")
    p.add_argument("--anchors", type=int, default=2000, help="training rows on which the map is fitted")
    options = p.parse_args()
    samples = Samples.of("glyphs", COLUMNS, key="key", group="character", split="split")
    unseen = samples.rows("unseen_characters")
    drawn = np.random.default_rng(0).permutation(samples.rows("train"))
    training, anchored = np.sort(drawn[: options.rows]), np.sort(drawn[: options.anchors])
    old, new = (Embedder.from_pretrained(folder) for folder in (options.old, options.new))

    anchors = encode_anchors(old, new, samples, anchored, lambda _: None)
    maps, report = fit_query_map(anchors, 0.9)
    print(f"Fitted on training rows, of which 20 % were held out\n{report}\n")
    print(f"Unseen characters: {len(unseen):,} in the pool")
    measure_unseen(old, new, samples, unseen, maps)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "index"
        rows = np.sort(np.concatenate([training, unseen]))
        embed_samples(old, samples, rows, Path(temporary) / "embeddings")
        Index.build(Path(temporary) / "embeddings", folder).close()
        command = [sys.executable, "-m", "multimodal", "serve", str(options.old), str(folder), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            queries = [str(samples.cell(int(row), "name")) for row in unseen[::7]]
            clients = [Client(address, queries[number:] + queries[:number]) for number in range(CLIENTS)]
            for client in clients:
                client.start()
            start = time.perf_counter()
            used = map_index(folder, options.new, old=options.old, anchors=options.anchors, use=True, min_recall=0.0)
            mapped_after = time.perf_counter() - start
            noticed = [wait_for(address, options.new.name)]
            query_map = QueryMap.load(working_folder(folder) / MAP)
            done = upgrade_index(folder, options.new)
            time.sleep(15)  # the name of the model is that of the mapped queries
            back = rollback_index(folder, options.old)
            noticed.append(wait_for(address, options.old.name))
            time.sleep(3)
            for client in clients:
                client.done.set()
            for client in clients:
                client.join()
            server.terminate()
        print(f"\nThe index's own map\n{used}\n\n{done}")
        print(
            f"map after {mapped_after:.1f} s, upgrade {done.seconds:.1f} s, of which the index could not be changed for"
            f" {done.locked_seconds:.2f} s; rollback {back.seconds:.2f} s; the server switched after"
            f" {' and '.join(f'{seconds:.1f} s' for seconds in noticed)}"
        )
        expected = {}
        with Index.open(folder, model=old) as index:
            expected["old"] = answers_of(index, queries)
            index.embedder = map_queries(Embedder.from_pretrained(options.new), query_map)
            expected["mapped"] = answers_of(index, queries)
        with Index.open(former_folder(folder), model=new) as index:
            expected["new"] = answers_of(index, queries)
        counts: Counter[str] = Counter()
        for client in clients:
            for query, answer in client.answers:
                of = [name for name, answers in expected.items() if same(answer, answers[query])]
                counts["+".join(of) or "none of them"] += 1
        lost = sum(len(client.failures) for client in clients)
        slowest = max(client.slowest for client in clients)
        print(f"{sum(counts.values()):,} answers: {dict(counts)}; {lost} failed; the slowest took {slowest:.1f} s")


if __name__ == "__main__":
    main()
