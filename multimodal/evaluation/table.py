"""The retrieval table as people read it."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.table import Table

from multimodal.evaluation.retrieval import Retrieval


def retrieval_table(results: Mapping[str, Retrieval], title: str) -> Table:
    """One row a direction: recalls in per cent, mean reciprocal rank, median and mean rank of the first right answer."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("query -> found", no_wrap=True)
    for name in ("R@1", "R@5", "R@10", "MRR", "median", "mean", "queries", "pool"):
        table.add_column(name, justify="right", no_wrap=True)
    for pair, r in results.items():
        recalls = (f"{100 * recall:.1f}" for recall in (r.recall_at_1, r.recall_at_5, r.recall_at_10))
        ranks = (f"{r.median_rank:g}", f"{r.mean_rank:.1f}")
        table.add_row(pair.replace("->", " -> "), *recalls, f"{r.mrr:.3f}", *ranks, f"{r.queries:,}", f"{r.pool:,}")
    return table
