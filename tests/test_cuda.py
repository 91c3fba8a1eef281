"""What must hold on a GPU too; skipped where there is none."""

from __future__ import annotations

import contextlib
import csv
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from multimodal.cli.main import main
from multimodal.core import registry
from multimodal.core.batch import Batch, MicroBatches, Sample
from multimodal.core.embedder import Embedder
from multimodal.core.embeddings import Embeddings
from multimodal.core.errors import MultimodalError
from multimodal.datasets.glyphs import Glyphs
from multimodal.evaluation.retrieval import retrieval
from multimodal.objectives import InfoNCE, Objective, Sigmoid, Triplet, VICReg, tiles
from multimodal.training.gradient_cache import GradientCache
from multimodal.training.module import EmbedderModule

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "InfoNCE": InfoNCE,
    "hard InfoNCE": lambda: InfoNCE(smoothing=0.1, hardness=0.5),
    "decoupled InfoNCE": lambda: InfoNCE(decoupled=True),
    "Sigmoid": Sigmoid,
    "Triplet": Triplet,
    "VICReg": VICReg,
}


def embeddings_on(device: str, whole_rows: bool = False) -> Embeddings:
    """40 rows; some have no image, unless they are whole."""
    generator = torch.Generator().manual_seed(0)
    rows = {"image": torch.arange(40) if whole_rows else torch.arange(0, 40, 2), "text": torch.arange(40)}
    vectors = {
        m: torch.nn.functional.normalize(torch.randn(len(r), 8, generator=generator, dtype=torch.float64), dim=1)
        for m, r in rows.items()
    }
    leaves = {m: v.to(device).requires_grad_() for m, v in vectors.items()}
    groups = torch.randint(0, 30, (40,), generator=generator)
    return Embeddings(leaves, {m: r.to(device) for m, r in rows.items()}, groups.to(device))


def loss_and_gradients(objective: Objective, embeddings: Embeddings) -> tuple[float, list[Tensor]]:
    loss = objective(embeddings).total
    found = torch.autograd.grad(loss, [*embeddings.vectors.values(), *objective.parameters()], allow_unused=True)
    return loss.item(), [g.cpu() for g in found if g is not None]


@pytest.mark.parametrize("tile", [7, 4096], ids=["tiles", "dense"])
@pytest.mark.parametrize("make", OBJECTIVES.values(), ids=OBJECTIVES)
def test_objectives_are_what_they_are_on_a_cpu(
    make: Callable[[], Objective], tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles, "GPU_TILE", tile)
    expected, its = loss_and_gradients(make().double(), embeddings_on("cpu"))
    found, own = loss_and_gradients(make().double().to("cuda"), embeddings_on("cuda"))
    assert found == pytest.approx(expected, rel=1e-9)
    for a, b in zip(own, its, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Whatever waits for the GPU is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("make", [InfoNCE, Sigmoid, lambda: InfoNCE(smoothing=0.1, hardness=0.5)])
def test_a_loss_does_not_wait_for_the_gpu(make: Callable[[], Objective]) -> None:
    objective, embeddings = make().double().to("cuda"), embeddings_on("cuda", whole_rows=True)
    objective(embeddings).total.backward()  # what is set up once
    with no_waiting():
        objective(embeddings).total.backward()


class Waits(pl.Callback):
    """What a step waits for the GPU for; the first three set things up."""

    def __init__(self) -> None:
        self.found: list[warnings.WarningMessage] = []

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            torch.cuda.set_sync_debug_mode("warn")
            self._recording = warnings.catch_warnings(record=True)
            self.found = self._recording.__enter__()
            warnings.simplefilter("always")
        elif trainer.global_step == 4:
            torch.cuda.set_sync_debug_mode("default")
            self._recording.__exit__(None, None, None)


def test_a_step_waits_for_its_loss_alone() -> None:
    embedder, values = glyph_embedder()
    batches = [glyph_batch(embedder, values, range(n, n + 16)).pin_memory() for n in range(0, 80, 16)]
    encoders: dict[str, Any] = {m: embedder.encoder(m) for m in embedder.modalities}
    waits = Waits()
    trainer = pl.Trainer(
        accelerator="gpu", devices=1, max_steps=5, precision="bf16-mixed", gradient_clip_val=1.0, logger=False,
        callbacks=[waits], limit_val_batches=0, log_every_n_steps=10, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(EmbedderModule(encoders, dim=32), DataLoader[Any](cast(Any, batches), batch_size=None))
    assert [str(w.message) for w in waits.found if "called a synchronizing" in str(w.message)] == []


def glyph_embedder() -> tuple[Embedder, dict[str, list[Any]]]:
    table, rows = Glyphs(), range(0, 4000, 40)
    encoders: dict[str, Any] = {
        "image": registry.create("image", "cnn"),
        "graph": registry.create("graph", "gnn"),
        "text": registry.create("text", "transformer"),
    }
    columns = {"image": "image", "graph": "outline", "text": "name"}
    values = {m: [table.value(row, column) for row in rows] for m, column in columns.items()}
    embedder = Embedder(encoders, dim=32)
    embedder.fit_processors(values)
    return embedder, values


def vectors_of(embedder: Embedder, modality: str, values: list[Any], **settings: Any) -> np.ndarray:
    given: dict[str, Any] = {modality: values}
    return embedder.encode(**settings, **given)


def test_encode_gives_the_vectors_of_the_cpu() -> None:
    embedder, values = glyph_embedder()
    expected = {m: vectors_of(embedder, m, v) for m, v in values.items()}
    embedder.to("cuda")
    for modality, vectors in expected.items():
        np.testing.assert_allclose(vectors_of(embedder, modality, values[modality]), vectors, atol=1e-4)
        rough = vectors_of(embedder, modality, values[modality], precision="bfloat16")
        assert (rough * vectors).sum(axis=1).min() > 0.995


def glyph_batch(embedder: Embedder, values: dict[str, list[Any]], rows: range) -> Batch:
    processors = embedder.processors
    items = {m: processors[m].process([values[m][row] for row in rows]) for m in values}
    samples = [Sample(str(row), {m: items[m][n] for m in items}, str(row)) for n, row in enumerate(rows)]
    return Batch.collate(samples, processors)


def test_the_gradients_of_a_batch_in_parts_are_those_of_the_whole() -> None:
    embedder, values = glyph_embedder()
    embedder.to("cuda").double().eval()  # no dropout, and batch normalisation by fixed statistics
    objective = InfoNCE().to("cuda").double()

    def in_double(batch: Batch) -> Batch:
        doubled = {
            m: {k: t.double() if t.is_floating_point() else t for k, t in i.items()} for m, i in batch.inputs.items()
        }
        return replace(batch, inputs=doubled).pin_memory().to("cuda", non_blocking=True)

    objective(embedder.embed(in_double(glyph_batch(embedder, values, range(48))))).total.backward()
    expected = {name: p.grad.clone() for name, p in embedder.named_parameters() if p.grad is not None}
    embedder.zero_grad()
    parts = tuple(in_double(glyph_batch(embedder, values, range(start, start + 16))) for start in (0, 16, 32))
    step = GradientCache(embedder, MicroBatches(parts), 0, contextlib.nullcontext)
    objective(step.embeddings).total.backward()
    step.backward()
    assert len(expected) > 100
    for name, p in embedder.named_parameters():
        assert p.grad is not None
        torch.testing.assert_close(p.grad, expected[name], rtol=1e-6, atol=1e-9)


def test_retrieval_finds_the_same() -> None:
    expected = retrieval(embeddings_on("cpu"))
    found = retrieval(embeddings_on("cuda"))
    assert found.keys() == expected.keys()
    for pair, measured in found.items():
        assert measured.to_json() == pytest.approx(expected[pair].to_json())


def curve(run: Path) -> list[float]:
    """The losses of all sessions of a run."""
    rows = [
        row for log in sorted(run.glob("logs/*/metrics.csv")) for row in csv.DictReader(log.read_text().splitlines())
    ]
    return [float(row["train/loss"]) for row in rows if row["train/loss"]]


def fit(config: Path, run: Path, *more: str) -> None:
    arguments = ["fit", "--debug", "--config", str(config), "--run", str(run), "--trainer.accelerator", "gpu", *more]
    assert main(arguments) == 0


def test_a_run_learns_as_on_a_cpu_and_is_resumed(small_config: Path, tmp_path: Path) -> None:
    exact = ("--trainer.precision", "32-true")
    assert main(["fit", "--debug", "--config", str(small_config), "--run", str(tmp_path / "cpu"),
                 "--trainer.accelerator", "cpu", *exact]) == 0  # fmt: skip
    fit(small_config, tmp_path / "whole", *exact)
    fit(small_config, tmp_path / "cut", "--trainer.max_steps", "5", *exact)
    fit(small_config, tmp_path / "cut", "--ckpt_path", "last", *exact)
    assert len(curve(tmp_path / "whole")) == 10
    assert curve(tmp_path / "whole")[0] == pytest.approx(curve(tmp_path / "cpu")[0], abs=0.05)  # other dropout
    assert curve(tmp_path / "whole")[-1] < curve(tmp_path / "whole")[0]
    assert curve(tmp_path / "cut")[:5] == pytest.approx(curve(tmp_path / "whole")[:5], abs=0.1)  # another schedule
    assert main(["evaluate", str(tmp_path / "whole"), "--split", "test"]) == 0


@pytest.mark.parametrize(
    "more",
    [
        ("--data.workers", "2"),
        ("--data.micro_batch", "5"),
        ("--model.freeze", "{image: all}"),
        ("--model.gradient_checkpointing", "true"),
        ("--model.objective", "Sigmoid"),
    ],
    ids=["workers", "micro_batch", "freeze", "gradient_checkpointing", "Sigmoid"],
)
def test_settings_work_there(
    more: tuple[str, str], small_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    if more[1] == "Sigmoid":
        more = (more[0], "multimodal.objectives.Sigmoid")
    fit(small_config, tmp_path / "run", *more)
    assert all(np.isfinite(curve(tmp_path / "run")))


def test_a_loss_that_is_not_a_number_stops_the_run_before_its_step() -> None:
    encoders: dict[str, Any] = {m: registry.create(m, "precomputed", width=3) for m in ("image", "text")}
    module = EmbedderModule(encoders, dim=4)
    with torch.no_grad():
        next(module.embedder.heads["image"].parameters()).fill_(torch.nan)
    before = {name: p.detach().clone() for name, p in module.embedder.heads["text"].named_parameters()}
    items = torch.randn(6, 3)
    processors = {m: e.processor for m, e in encoders.items()}
    batch = Batch.collate([Sample(str(n), {"image": v, "text": v}, str(n)) for n, v in enumerate(items)], processors)
    trainer = pl.Trainer(
        accelerator="gpu", devices=1, max_steps=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    warnings.filterwarnings("ignore", ".*no `val_dataloader`.*")
    with pytest.raises(MultimodalError, match="loss of step 0 is nan"):
        trainer.fit(module, DataLoader[Any](cast(Any, [batch]), batch_size=None))
    for name, p in module.embedder.heads["text"].named_parameters():
        torch.testing.assert_close(p.cpu(), before[name])
