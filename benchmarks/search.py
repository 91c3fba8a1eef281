"""Search of many vectors: the index's engine in this package against the same engine called directly, faiss and usearch.

N unit vectors of 256 components in float32, around N / 200 centres (made on the spot); each has a key and two columns to
filter on, one with 3 values (33 %) and one with 100 (1 %). 500 queries, one at a time, from vectors near stored ones. Each way
runs in a process of its own, after its files were read once:

- "ours": ``Index.search(vector, k=10, target=...)`` of an index with the engine "qdrant-edge".
- "ours int8", "ours binary": the same with quantization; candidates are compared again by the whole vectors.
- "qdrant-edge": the engine's own ``query`` in the same folder, with the same parameters and the rows' keys and metadata.
- "faiss hnsw" (32 links), "faiss ivf-pq" (1,024 to 4,096 lists, 64 bytes a vector, 32 lists searched, the best 100 compared by
  the whole vectors), "usearch" (16 links): vectors alone, without metadata.

    python benchmarks/search.py [--rows 1000000] [--threads 2] [--ways ours qdrant-edge ...] [--folder DIR]

Recall@10 is against the exact search by a matrix product. Memory is the highest resident size of the searching process, less
its size before it opens the index. Needs the extra ``dev`` with ``faiss-cpu`` and ``usearch``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

DIM, K, QUERIES = 256, 10, 500
WAYS = ("ours", "qdrant-edge", "ours int8", "ours binary", "faiss hnsw", "faiss ivf-pq", "usearch")
PART = 8192


def blocks(rows: int) -> Iterator[np.ndarray]:
    """Yield the stored vectors, a part at a time; they are the same in every process."""
    centres = np.random.default_rng(0).standard_normal((max(1, rows // 200), DIM), np.float32)
    for start in range(0, rows, PART):
        rng = np.random.default_rng(start + 1)
        count = min(PART, rows - start)
        vectors = centres[rng.integers(0, len(centres), count)] + 0.7 * rng.standard_normal((count, DIM), np.float32)
        yield vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def queries_near(rows: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    first = next(blocks(rows))
    vectors = first[rng.integers(0, len(first), QUERIES)] + 0.03 * rng.standard_normal((QUERIES, DIM), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def exact_nearest(rows: int, modulus: int | None = None) -> np.ndarray:
    """Return the true nearest rows of each query, ``(q, 10)``; with a modulus, among the rows that it divides."""
    queries = queries_near(rows)
    best_scores, best = np.full((QUERIES, 0), -2, np.float32), np.empty((QUERIES, 0), np.int64)
    for number, block in enumerate(blocks(rows)):
        of_block = np.arange(number * PART, number * PART + len(block))
        if modulus is not None:
            block, of_block = block[of_block % modulus == 0], of_block[of_block % modulus == 0]
        scores = np.concatenate([best_scores, queries @ block.T], axis=1)
        ids = np.concatenate([best, np.broadcast_to(of_block, (QUERIES, len(of_block)))], axis=1)
        order = np.argsort(-scores, axis=1)[:, :K]
        best_scores, best = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    return best


def parts(rows: int) -> Iterator[Any]:
    """Yield the stored rows as parts of embeddings."""
    import pyarrow as pa

    for number, block in enumerate(blocks(rows)):
        of_block = range(number * PART, number * PART + len(block))
        yield pa.table(
            {
                "key": [f"k{row}" for row in of_block],
                "group": [f"#{row}" for row in of_block],
                "metadata": [json.dumps({"third": str(row % 3), "hundredth": str(row % 100)}) for row in of_block],
                "image": pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), DIM),
            }
        )


def build(way: str, rows: int, folder: Path) -> Callable[[], Callable[..., list[int]]]:
    """Build an index, and return what opens it; what that returns searches one vector."""
    if way.startswith(("ours", "qdrant")):
        from multimodal.search.engines.layout import Layout
        from multimodal.search.index_folder import write_engine_index

        compressed = way.partition(" ")[2] or None
        if not folder.exists():
            layout = Layout(DIM, ["image"], quantization=compressed)
            write_engine_index(folder, "qdrant-edge", parts(rows), layout, {"fingerprint": "f" * 64, "data": None})
        return lambda: (directly if way == "qdrant-edge" else through_index)(folder)
    if way == "usearch":
        return lambda: usearch(rows, folder)
    return lambda: faiss(way, rows, folder)


def through_index(folder: Path) -> Callable[..., list[int]]:
    from multimodal import Index

    index = Index.open(folder)

    def search(vector: np.ndarray, where: dict[str, str] | None = None) -> list[int]:
        return [int(hit.key[1:]) for hit in index.search(vector[None], K, "image", where=where)[0]]

    return search


def directly(folder: Path) -> Callable[..., list[int]]:
    import qdrant_edge as qdrant

    shard = qdrant.EdgeShard.load(str(folder / "engine" / "shard"))
    fields = {"third": "where.c0", "hundredth": "where.c1"}

    def search(vector: np.ndarray, where: dict[str, str] | None = None) -> list[int]:
        conditions: list[Any] = [
            qdrant.FieldCondition(fields[name], match=qdrant.MatchAny([value])) for name, value in (where or {}).items()
        ]
        request = qdrant.QueryRequest(
            K,
            query=qdrant.Query.Nearest(vector.tolist(), using="m0"),
            params=qdrant.SearchParams(hnsw_ef=256 if where else 128),
            filter=qdrant.Filter(must=conditions) if where else None,
            with_payload=["key", "group", "metadata"],
        )
        return [int((point.payload or {})["key"][1:]) for point in shard.query(request)]

    return search


def faiss(way: str, rows: int, folder: Path) -> Callable[..., list[int]]:
    import faiss

    file = folder.with_suffix(".faiss")
    if not file.exists():
        if way == "faiss hnsw":
            made = faiss.IndexHNSWFlat(DIM, 32, faiss.METRIC_INNER_PRODUCT)
            made.hnsw.efConstruction = 128
        else:
            lists = min(4096, max(64, rows // 250))
            made = faiss.index_factory(DIM, f"IVF{lists},PQ64x8,RFlat", faiss.METRIC_INNER_PRODUCT)
            made.train(np.concatenate([block for block, _ in zip(blocks(rows), range(16), strict=False)]))
        for block in blocks(rows):
            made.add(block)
        faiss.write_index(made, str(file))
    index: Any = faiss.read_index(str(file))
    if way == "faiss hnsw":
        index.hnsw.efSearch = 128
    else:
        index.k_factor = 10
        faiss.extract_index_ivf(index.base_index).nprobe = 32
    return lambda vector: index.search(vector[None], K)[1][0].tolist()


def usearch(rows: int, folder: Path) -> Callable[..., list[int]]:
    from usearch.index import Index  # pyright: ignore[reportMissingImports]

    file = folder.with_suffix(".usearch")
    index = Index(ndim=DIM, metric="ip", dtype="f32", connectivity=16, expansion_add=128, expansion_search=128)
    if not file.exists():
        for number, block in enumerate(blocks(rows)):
            index.add(np.arange(number * PART, number * PART + len(block)), block, threads=0)
        index.save(str(file))
    index.load(str(file))
    return lambda vector: index.search(vector, K).keys.tolist()


def files_of(folder: Path) -> list[Path]:
    files = [folder.with_suffix(suffix) for suffix in (".faiss", ".usearch")]
    files += folder.rglob("*") if folder.exists() else []
    return [file for file in files if file.is_file()]


def read_once(folder: Path) -> None:
    """Read an index's files, so that the first way that maps them into memory is not the one that waits for the disk."""
    for file in files_of(folder):
        with file.open("rb") as opened:
            while opened.read(2**24):
                pass


def measure(way: str, rows: int, folder: Path, step: str) -> dict[str, Any]:
    start = time.perf_counter()
    opener = build(way, rows, folder)
    if step == "build":
        opener()
        return {
            "build_s": round(time.perf_counter() - start, 1),
            "disk_mb": sum(f.stat().st_blocks * 512 for f in files_of(folder)) >> 20,
        }
    read_once(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    search = opener()
    queries = queries_near(rows)
    truth = {name: np.load(folder.parent / f"{name}.npy") for name in ("all", "third", "hundredth")}
    result: dict[str, Any] = {}
    conditions: list[dict[str, str]] = [{}]
    if way.startswith(("ours", "qdrant")):
        conditions += [{"third": "0"}, {"hundredth": "0"}]
    for where in conditions:
        name = next(iter(where), "all")
        arguments = (where,) if where else ()
        for vector in queries[:50]:
            search(vector, *arguments)  # pages are read, caches filled
        times, found = [], []
        for vector in queries:
            begun = time.perf_counter()
            found.append(search(vector, *arguments))
            times.append(time.perf_counter() - begun)
        recall = np.mean([len(set(f) & set(t.tolist())) / K for f, t in zip(found, truth[name], strict=True)])
        result[name] = {"queries/s": round(1 / float(np.median(times))), "recall@10": round(float(recall), 3)}
    result["memory_mb"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--rounds", type=int, default=3, help="searches of each way, in turn; the median counts")
    parser.add_argument("--folder", type=Path, help="where indexes are built and kept (default: a temporary folder)")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # one way and step, in a process of its own
    options = parser.parse_args()
    if options.one:
        way, step = options.one
        name = way.replace("qdrant-edge", "ours").replace(" ", "-")  # the same index
        print(json.dumps(measure(way, options.rows, options.folder / name, step)))
        return
    folder = options.folder or Path(tempfile.mkdtemp(prefix="search-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name, modulus in (("all", None), ("third", 3), ("hundredth", 100)):
        if not (folder / f"{name}.npy").exists():
            np.save(folder / f"{name}.npy", exact_nearest(options.rows, modulus))

    def run(way: str, step: str) -> dict[str, Any]:
        threads = str(options.threads)
        variables = os.environ | {"OMP_NUM_THREADS": threads}
        command = [sys.executable, __file__, "--rows", str(options.rows), "--folder", str(folder), "--one", way, step]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
        return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-500:]}

    built = {way: run(way, "build") for way in options.ways}
    for way, result in built.items():
        print(json.dumps({"way": way, **result}), flush=True)
    for _ in range(options.rounds):
        for way in options.ways:
            print(json.dumps({"way": way, **run(way, "search")}), flush=True)
    if options.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
