"""Time and memory of recall and MRR against the ways of CLIP_benchmark and torchmetrics, on the same vectors.

N queries search N candidates, one of which is right for each; vectors of 256 components in float32. Each way runs in a process
of its own; its memory is the highest resident size of that process, less its size with the vectors in place.

- "ours": ``multimodal.evaluation.retrieval``, all of its measures.
- "clip_benchmark": the recalls of LAION's CLIP_benchmark (``zeroshot_retrieval.py``), transcribed: all scores in one matrix,
  then ``topk`` and one-hot encodings in batches of 64 queries. It has no MRR.
- "torchmetrics": ``retrieval_recall`` and ``retrieval_reciprocal_rank`` of each query, of scores that are computed in blocks.
  Its classes would hold the score, target and index of all N x N pairs, 20 bytes each.

    python benchmarks/retrieval_metrics.py [--sizes 30000 100000] [--threads 2] [--all]

Above N = 30,000 the peers are left out unless --all is given: clip_benchmark needs 5 bytes for each of N x N pairs.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import torch
from torch import Tensor
from torch.nn import functional

DIM, CUTOFFS = 256, (1, 5, 10)
LARGE = 30_000
WAYS = ("ours", "clip_benchmark", "torchmetrics")


def inputs(n: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    queries = functional.normalize(torch.randn(n, DIM), dim=1)
    return queries, functional.normalize(queries + 0.25 * torch.randn(n, DIM), dim=1)


def ours(queries: Tensor, candidates: Tensor) -> dict[str, float]:
    from multimodal.evaluation.retrieval import Retrieval, measure_queries

    groups = torch.arange(len(queries))
    found = Retrieval.of(measure_queries(queries, candidates, groups, groups), pool=len(candidates)).to_json()
    return {name: found[name] for name in (*(f"recall@{k}" for k in CUTOFFS), "mrr")}


def clip_benchmark(queries: Tensor, candidates: Tensor) -> dict[str, float]:
    n = len(queries)
    scores = queries @ candidates.T
    positive_pairs = torch.zeros_like(scores, dtype=torch.bool)
    positive_pairs[torch.arange(n), torch.arange(n)] = True
    found = {}
    for k in CUTOFFS:
        hits = []
        for start in range(0, n, 64):
            part, positives = scores[start : start + 64], positive_pairs[start : start + 64]
            one_hot = functional.one_hot(part.topk(k, dim=1).indices, num_classes=n)  # (64, k, n)
            true_positive = (one_hot * positives[:, None]).sum(dim=(1, 2))
            hits.append(true_positive / positives.sum(dim=1) > 0)
        found[f"recall@{k}"] = torch.cat(hits).double().mean().item()
    return found


def torchmetrics(queries: Tensor, candidates: Tensor) -> dict[str, float]:
    from torchmetrics.functional.retrieval import retrieval_recall, retrieval_reciprocal_rank

    n, sums = len(queries), dict.fromkeys([*(f"recall@{k}" for k in CUTOFFS), "mrr"], 0.0)
    for start in range(0, n, 256):
        for i, scores in enumerate(queries[start : start + 256] @ candidates.T, start):
            target = torch.zeros(n, dtype=torch.bool)
            target[i] = True
            for k in CUTOFFS:
                sums[f"recall@{k}"] += retrieval_recall(scores, target, top_k=k).item()
            sums["mrr"] += retrieval_reciprocal_rank(scores, target).item()
    return {name: total / n for name, total in sums.items()}


def measure(way: str, n: int, threads: int) -> None:
    """Run one way and print its results, seconds and MiB as JSON."""
    torch.set_num_threads(threads)
    queries, candidates = inputs(n)
    run = {"ours": ours, "clip_benchmark": clip_benchmark, "torchmetrics": torchmetrics}[way]
    run(queries[:64], candidates[:64])  # imports
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    found = run(queries, candidates)
    seconds = time.perf_counter() - start
    print(
        json.dumps(
            {
                "found": found,
                "seconds": seconds,
                "mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[LARGE, 100_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--all", action="store_true", help="the peers at all sizes")
    parser.add_argument("--measure", choices=WAYS, help=argparse.SUPPRESS)  # of a process for one way and size
    options = parser.parse_args()
    if options.measure:
        return measure(options.measure, options.sizes[0], options.threads)
    print(f"{'N':>8} {'way':<16} {'seconds':>8} {'ratio':>6} {'MiB':>8} {'ratio':>6}  R@1    MRR")
    for n in options.sizes:
        results = {}
        for way in WAYS if n <= LARGE or options.all else WAYS[:1]:
            arguments = ["--measure", way, "--sizes", str(n), "--threads", str(options.threads)]
            done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{n:>8,} {way:<16} failed: {done.stderr.strip().splitlines()[-1:] or 'no memory'}")
                continue
            r = results[way] = json.loads(done.stdout)
            times, memories = (r[key] / results["ours"][key] for key in ("seconds", "mib"))
            mrr = r["found"].get("mrr")
            print(
                f"{n:>8,} {way:<16} {r['seconds']:>8.1f} {times:>6.1f} {r['mib']:>8.0f} {memories:>6.1f}"
                f"  {r['found']['recall@1']:.4f} {'-' if mrr is None else f'{mrr:.4f}'}",
                flush=True,
            )
            for name, value in r["found"].items():
                if abs(value - results["ours"]["found"][name]) > 1e-4:
                    print(f"         {way}: {name} is {value:.5f}, ours {results['ours']['found'][name]:.5f}")
    return None


if __name__ == "__main__":
    main()
