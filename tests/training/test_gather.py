"""Loss and gradients over several processes are those of one with the whole batch."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.multiprocessing.spawn import start_processes

from multimodal.core.batch import Batch, MicroBatches, Sample
from multimodal.core.embedder import Embedder
from multimodal.core.encoder import Encoder, Processor
from multimodal.objectives import InfoNCE
from multimodal.training.gather import average_gradients, gather
from multimodal.training.gradient_cache import GradientCache


class VectorProcessor(Processor):
    def __call__(self, value: Any) -> Tensor:
        return value

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.stack(list(items))}


class Small(Encoder):
    def __init__(self) -> None:
        super().__init__()
        self.width, self.processor = 5, VectorProcessor()
        self.net = nn.Sequential(nn.Linear(3, 5), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


MODALITIES = ("a", "b", "c")
# Which rows each rank has: uneven, one rank without "c", one without any row of its own in the last case.
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


def model() -> tuple[Embedder, InfoNCE]:
    torch.manual_seed(0)
    return Embedder({m: Small() for m in MODALITIES}, dim=4).double(), InfoNCE().double()


def gradients(embedder: Embedder, objective: InfoNCE) -> dict[str, Tensor]:
    return {n: p.grad for n, p in [*embedder.named_parameters(), *objective.named_parameters()] if p.grad is not None}


def run(rank: int, case: str, micro_batch: int | None, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=int(case))
    embedder, objective = model()
    rows = CASES[case][rank]
    if micro_batch is None:
        embeddings, cache = embedder.embed(collate(rows)), None
    else:
        parts = tuple(collate(rows[start : start + micro_batch]) for start in range(0, len(rows), micro_batch))
        cache = GradientCache(embedder, MicroBatches(parts), 0, contextlib.nullcontext)
        embeddings = cache.embeddings
    everyone = gather(embeddings, MODALITIES, 4, torch.float64)
    loss = objective(everyone).total
    loss.backward()
    if cache is not None:
        cache.backward()
    average_gradients([*embedder.parameters(), *objective.parameters()])
    told = (everyone.groups, everyone.targets["price"], everyone.negative_of)
    torch.save((loss.detach(), told, gradients(embedder, objective)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("micro_batch", [None, 2])
@pytest.mark.parametrize("case", list(CASES))
def test_every_rank_has_the_loss_and_the_gradients_of_the_whole_batch(
    case: str, micro_batch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "GLOO_SOCKET_IFNAME", "lo")
    start_processes(run, (case, micro_batch, str(tmp_path)), nprocs=int(case), start_method="fork")
    embedder, objective = model()
    loss = objective(embedder.embed(collate(list(range(8))))).total
    loss.backward()
    expected = gradients(embedder, objective)
    for rank in range(int(case)):
        found_loss, (groups, prices, negative_of), found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert Counter(groups.tolist()) == Counter(collate(list(range(8))).groups.tolist())
        assert prices[prices.isfinite()].tolist() == [3.0, 3.5]
        (negative,) = negative_of[negative_of >= 0].tolist()  # of row 1, which stands second on the first rank
        assert negative == 1
        torch.testing.assert_close(found_loss, loss.detach(), rtol=1e-10, atol=1e-12)
        assert found.keys() == expected.keys()
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_alone_a_process_has_its_own_embeddings() -> None:
    embeddings = model()[0].embed(collate([0, 1]))
    assert gather(embeddings, MODALITIES, 4, torch.float64) is embeddings
