"""Loss and gradients of several processes equal those of one process with the full batch."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing.spawn import start_processes
from torch.nn import functional
from vector_encoders import VectorProcessor

from multimodal.core.batch import Batch, MicroBatches, Sample
from multimodal.core.distributed import split_over_ranks
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder
from multimodal.objectives import InfoNCE, Matryoshka, Objective, Sigmoid, Sum, VICReg, tiles
from multimodal.objectives.tiles import Block
from multimodal.training.gather import average_gradients, gather_embeddings
from multimodal.training.gradient_cache import GradientCache


class Small(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor = 5, VectorProcessor()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


MODALITIES = ("a", "b", "c")
# The rows of each rank: uneven, one rank without "c", and in the last case one rank without rows.
CASES: dict[str, list[list[int]]] = {"2": [[0, 1, 2, 3, 4], [5, 6, 7]], "3": [[0, 1, 2], [3, 4, 5, 6, 7], []]}


def has(modality: str, row: int) -> bool:
    return {"a": True, "b": row % 3 != 1, "c": row >= 5}[modality]


def collate(rows: list[int]) -> Batch:
    values = torch.randn(8, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    samples = [
        Sample(
            str(r),
            {m: values[r, i] for i, m in enumerate(MODALITIES) if has(m, r)},
            str(r // 2),
            targets={"price": r / 2} if r > 5 else {},
            negatives=(Sample(f"not {r}", {"a": -values[r, 0]}, f"not {r}"),) if r == 1 else (),
        )
        for r in rows
    ]
    return Batch.collate(samples, {m: VectorProcessor() for m in MODALITIES})


PAIRS = {"a-b": 1.0, "a-c": 2.0, "b-c": 0.5}
TEMPERATURES = {"*-*": 0.3, "a-b": 0.1}
OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "plain": InfoNCE,
    "weighted": lambda: InfoNCE(PAIRS, TEMPERATURES),
    "hard": lambda: InfoNCE({"a-*": 1.0}, smoothing=0.1, hardness=0.5),
    "decoupled": lambda: InfoNCE(temperature=0.3, decoupled=True),
    "sigmoid": lambda: Sigmoid(PAIRS, TEMPERATURES, bias={"*-*": -1.0, "b-*": 0.5}),
    "several": lambda: Sum({"clip": Matryoshka(InfoNCE(), [2, 4]), "sigmoid": Sigmoid(), "vicreg": VICReg()}),
}
ALL = 1024  # rows of a tile that all scores fit into
SETTINGS = [(name, micro_batch, tile) for name in OBJECTIVES for micro_batch in (None, 2) for tile in (ALL, 2)]


def model(name: str) -> tuple[Embedder, Objective]:
    torch.manual_seed(0)
    return Embedder({m: Small() for m in MODALITIES}, dim=4).double(), OBJECTIVES[name]().double()


def gradients(embedder: Embedder, objective: Objective) -> dict[str, Tensor]:
    return {n: p.grad for n, p in [*embedder.named_parameters(), *objective.named_parameters()] if p.grad is not None}


def step(rows: list[int], name: str, micro_batch: int | None) -> Any:
    embedder, objective = model(name)
    if micro_batch is None:
        embeddings, cache = embedder.embed(collate(rows)), None
    else:
        parts = tuple(collate(rows[start : start + micro_batch]) for start in range(0, len(rows), micro_batch))
        cache = GradientCache(embedder, MicroBatches(parts), 0, contextlib.nullcontext)
        embeddings = cache.embeddings
    gathered = gather_embeddings(embeddings, MODALITIES, 4, torch.float64)
    with split_over_ranks():
        loss = objective(gathered).total
    loss.backward()
    if cache is not None:
        cache.backward()
    average_gradients([*embedder.parameters(), *objective.parameters()])
    row_data = (gathered.groups, gathered.targets["price"], gathered.negative_of)
    return loss.detach(), row_data, gradients(embedder, objective)


class ScoreCounter:
    """Counts the scores of the tiles that are computed."""

    def __init__(self) -> None:
        self.scores = 0
        tiles_of, softplus = tiles._tiles, functional.softplus

        def counted_tiles(a: Block, b: Block, size: int) -> Any:
            for tile in tiles_of(a, b, size):
                self.scores += len(tile[2].vectors) * len(tile[3].vectors)
                yield tile

        def counted_softplus(scores: Tensor, **settings: Any) -> Tensor:
            self.scores += scores.numel() if scores.ndim == 2 else 0  # those of hard negatives are a list
            return softplus(scores, **settings)

        tiles._tiles, functional.softplus = counted_tiles, counted_softplus


def run(rank: int, case: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=int(case))
    counter, found = ScoreCounter(), []
    for name, micro_batch, tile in SETTINGS:
        tiles.TILE, counter.scores = tile, 0
        found.append((*step(CASES[case][rank], name, micro_batch), counter.scores))
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("case", list(CASES))
def test_every_rank_has_the_loss_and_gradients_of_the_full_batch_and_computes_its_share_of_the_scores(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "GLOO_SOCKET_IFNAME", "lo")
    start_processes(run, (case, str(tmp_path)), nprocs=int(case), start_method="fork")
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(int(case))]
    groups_of_all = Counter(collate(list(range(8))).groups.tolist())
    for position, (name, _, tile) in enumerate(SETTINGS):
        loss, _, expected = step(list(range(8)), name, None)
        for found_loss, (groups, prices, negative_of), found, _ in (results[position] for results in ranks):
            assert Counter(groups.tolist()) == groups_of_all
            assert prices[prices.isfinite()].tolist() == [3.0, 3.5]
            (negative,) = negative_of[negative_of >= 0].tolist()  # of row 1, the second on the first rank
            assert negative == 1
            torch.testing.assert_close(found_loss, loss, rtol=1e-10, atol=1e-12)
            assert found.keys() == expected.keys()
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
        scores = [results[position][-1] for results in ranks]
        if tile != ALL:
            counts = {"a": 8, "b": 5, "c": 3}  # vectors, without the hard negative of row 1
            pairs = [(m, n) for m, n in combinations(MODALITIES, 2) if name != "hard" or m == "a"]
            sweeps = {"sigmoid": 1, "several": 5}.get(name, 2)  # InfoNCE: forward and backward, for each prefix
            assert sum(scores) == sweeps * sum(counts[m] * counts[n] for m, n in pairs)
            assert max(scores) < 0.75 * sum(scores)


def test_a_single_process_returns_its_own_embeddings() -> None:
    embeddings = model("plain")[0].embed(collate([0, 1]))
    assert gather_embeddings(embeddings, MODALITIES, 4, torch.float64) is embeddings
