"""The training step: loss, optimizer, precision and logs."""

from __future__ import annotations

import functools
from types import SimpleNamespace
from typing import Any, get_type_hints

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import multimodal
import multimodal.training
from multimodal.core.arguments import fits
from multimodal.core.batch import Batch, Sample
from multimodal.core.encoder import Encoder, Processor
from multimodal.core.errors import UsageError
from multimodal.evaluation.callback import RetrievalMonitor
from multimodal.objectives import Classification, InfoNCE, Loss, Objective
from multimodal.training.callbacks.progress import Progress
from multimodal.training.callbacks.throughput import Throughput
from multimodal.training.duration import scheduled_steps
from multimodal.training.module import EmbedderModule
from multimodal.training.training_module import step_seed


class VectorProcessor(Processor):
    def __call__(self, value: Any) -> Tensor:
        return torch.tensor(value, dtype=torch.float32)

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.stack(list(items))}


class Linear(Encoder):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.width, self.processor = width, VectorProcessor()
        self.linear, self.norm, self.drop = nn.Linear(3, width), nn.LayerNorm(width), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.linear(x)))


class RecordingInfoNCE(InfoNCE):
    """InfoNCE that records its input."""

    def forward(self, embeddings: Any) -> Loss:
        self.embeddings, self.autocast = embeddings, torch.is_autocast_enabled("cpu")
        return super().forward(embeddings)


def batch(n: int = 6) -> Batch:
    values = torch.randn(n, 2, 3, generator=torch.Generator().manual_seed(1)).tolist()
    samples = [Sample(str(i), {"a": torch.tensor(a), "b": torch.tensor(b)}, str(i)) for i, (a, b) in enumerate(values)]
    return Batch.collate(samples, {"a": VectorProcessor(), "b": VectorProcessor()})


def module(objective: Objective | None = None, **settings: Any) -> EmbedderModule:
    return EmbedderModule({"a": Linear(), "b": Linear()}, dim=4, objective=objective, **settings)


def loader(batches: Any) -> DataLoader[Batch]:
    return DataLoader(batches, batch_size=None)


def fit(module: EmbedderModule, steps: int = 3, **settings: Any) -> pl.Trainer:
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(max_steps=steps, enable_model_summary=False, log_every_n_steps=1, **options | settings)
    trainer.fit(module, loader([batch()] * steps), loader([batch(9)]))
    return trainer


def test_similarities_are_computed_in_float32_even_if_the_encoders_run_in_bfloat16() -> None:
    objective = RecordingInfoNCE()
    fit(module(objective), steps=1, precision="bf16-mixed")
    assert objective.autocast is False
    assert {v.dtype for v in objective.embeddings.vectors.values()} == {torch.float32}


@pytest.mark.parametrize(("precision", "dtype"), [("64-true", torch.float64), ("bf16-true", torch.bfloat16)])
def test_all_of_training_may_run_in_another_precision(precision: Any, dtype: torch.dtype) -> None:
    objective = RecordingInfoNCE()
    trained = module(objective)
    fit(trained, steps=2, precision=precision)
    assert {p.dtype for p in trained.embedder.parameters()} == {dtype}
    scored = torch.promote_types(dtype, torch.float32)
    assert {v.dtype for v in objective.embeddings.vectors.values()} == {scored}


def test_weight_decay_spares_biases_norms_and_the_temperature() -> None:
    trained = module(optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.1, weight_decay=0.3))
    trainer = fit(trained, steps=1)
    decay = {p: group["weight_decay"] for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert len(decay) == len(list(trained.parameters()))
    for name, parameter in trained.named_parameters():
        is_matrix = name.endswith("weight") and "norm" not in name
        assert decay[parameter] == (0.3 if is_matrix else 0.0), name


def test_the_progress_shows_what_the_module_logs(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = fit(module(), steps=3, enable_progress_bar=True, callbacks=[Throughput(), Progress()])
    loss, speed = (float(trainer.callback_metrics[f"train/{name}"]) for name in ("loss", "samples_per_second"))
    assert f"Training: step 3/3, loss {loss:.4f}, {speed:,.0f} samples/s, 0 s left" in capsys.readouterr().err


def test_the_random_numbers_of_a_step_depend_only_on_seed_and_step() -> None:
    def dropped(step: int, seed: int, disturb: bool) -> Tensor:
        objective = RecordingInfoNCE()
        model = module(objective, seed=seed, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.0))
        torch.manual_seed(5)
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        if disturb:
            torch.rand(7)
        fit(model, steps=step)
        return objective.embeddings.vectors["a"]

    assert torch.equal(dropped(2, 0, disturb=False), dropped(2, 0, disturb=True))
    assert not torch.equal(dropped(2, 0, disturb=False), dropped(3, 0, disturb=False))
    assert not torch.equal(dropped(2, 0, disturb=False), dropped(2, 1, disturb=False))
    assert len({step_seed(*key) for key in [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1, 1, 1)]}) == 5


def test_loss_parts_gradient_norm_speed_and_recalls_are_logged() -> None:
    trained = module(optimizer=lambda groups: torch.optim.SGD(groups, lr=0.0))
    trainer = fit(trained, steps=2, callbacks=[Throughput(), RetrievalMonitor()])
    logged = trainer.callback_metrics
    assert logged["train/loss"] == logged["train/a-b"]
    assert logged["train/temperature"] == pytest.approx(0.07)
    assert logged["train/samples_per_second"] > 0
    assert 0 <= logged["val/recall@1"] <= 1
    assert logged["val/recall@1"] == (logged["val/a->b/recall@1"] + logged["val/b->a/recall@1"]) / 2
    # the last step again, by hand
    torch.manual_seed(step_seed(0, 1, 0))
    trained.zero_grad()
    trained.train()
    trained.objective(trained.embedder.embed(batch())).total.backward()
    squares = sum((p.grad.double() ** 2).sum() for p in trained.parameters() if p.grad is not None)
    assert float(logged["train/gradient_norm"]) == pytest.approx(float(squares) ** 0.5, rel=1e-5)


def test_an_objective_that_names_a_modality_without_an_encoder_is_rejected() -> None:
    with pytest.raises(UsageError, match=r"The objective names 'aa', which has no encoder. Did you mean 'a'"):
        module(InfoNCE(pairs={"aa-b": 1.0}))
    assert module(InfoNCE(pairs={"a-b": 1.0})).objective.named_modalities == {"a", "b"}


def test_the_module_reports_which_pairs_are_trained_where_they_are_not_all() -> None:
    class Three(EmbedderModule):
        def __init__(self, objective: Objective) -> None:
            super().__init__({"a": Linear(), "b": Linear(), "c": Linear()}, dim=4, objective=objective)

    assert Three(InfoNCE()).trained_pairs is None
    assert Three(InfoNCE({"a-*": 1.0})).trained_pairs == {frozenset("ab"), frozenset("ac")}
    assert Three(Classification("kind", 2, 4)).trained_pairs is None  # it compares no pair
    assert module(InfoNCE({"a-b": 1.0})).trained_pairs is None  # there is no other pair


def test_a_module_shows_its_objective_and_its_modalities() -> None:
    shown = module(InfoNCE())
    first, *lines = repr(shown).splitlines()
    assert first.startswith(f"{type(shown).__name__} with InfoNCE: Embedder of a, b to ")
    assert [line.split()[:2] for line in lines] == [["a", "Linear"], ["b", "Linear"]]
    assert shown._repr_html_() == shown.embedder._repr_html_()


def test_the_objective_receives_the_training_progress() -> None:
    class ProgressRecorder(InfoNCE):
        def set_progress(self, progress: float) -> None:
            received.append(progress)

    received: list[float] = []
    fit(module(ProgressRecorder()), steps=4)
    assert received == [0, 0.25, 0.5, 0.75]


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = module(optimizer=lambda groups: torch.optim.AdamW(groups, lr=0.03))
    first = float(fit(model, steps=1).callback_metrics["train/loss"])
    last = float(fit(model, steps=60).callback_metrics["train/loss"])
    assert last < 0.7 * first


def test_what_an_optimizer_refuses_is_named() -> None:
    refused = module(optimizer=functools.partial(torch.optim.AdamW, lr=-0.003))
    with pytest.raises(UsageError, match=r"^model\.optimizer: Invalid learning rate: -0\.003\. Set another value"):
        refused.configure_optimizers()


@pytest.mark.parametrize("steps", [-1, 0, float("inf")])
def test_a_training_of_unknown_length_is_rejected(steps: float) -> None:
    trainer: Any = SimpleNamespace(max_steps=-1, max_epochs=3, callbacks=[], estimated_stepping_batches=steps)
    with pytest.raises(UsageError, match=r"set max_steps"):
        scheduled_steps(trainer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 1e-3}, r"takes no argument 'lr'\. .* optimizer=functools\.partial\(torch\.optim\.AdamW, lr=1e-3\)"),
        (
            {"encoders": [Linear()]},
            r"encoders must be a mapping, not a list; for example, encoders=\{'text': multimodal",
        ),
        ({"encoders": {"text": "bag"}}, r"encoders\['text'\] must be an Encoder, not 'bag'; .*create\('text', 'bag'\)"),
        ({"dim": "64"}, "dim must be a whole number, not '64'"),
        ({"heads": "mlp"}, r"heads must be a mapping, not 'mlp'; for example, heads=\{'text': 'mlp'\}"),
        ({"heads": {"vector": "mpl"}}, r"heads\['vector'\] must be 'linear' or 'mlp' or 'none', not 'mpl'"),
        ({"freeze": "all"}, r"freeze must be a mapping, not 'all'; for example, freeze=\{'text': 'all'\}"),
        (
            {"objective": "InfoNCE"},
            r"must be an Objective, not 'InfoNCE'; for example, objective=multimodal\.InfoNCE\(\)",
        ),
        ({"objective": InfoNCE}, "must be an Objective, not the class InfoNCE; for example"),
        (
            {"optimizer": "adam"},
            "optimizer must be a function or a class, not 'adam'; for example, optimizer=functools",
        ),
    ],
)
def test_arguments_of_wrong_names_and_types_are_reported(arguments: dict[str, Any], message: str) -> None:
    defaults: dict[str, Any] = {"encoders": {"vector": Linear()}}
    with pytest.raises(UsageError, match=f"^EmbedderModule.*{message}"):
        EmbedderModule(**defaults | arguments)


def test_the_example_of_each_argument_is_valid() -> None:
    for name, example in EmbedderModule.argument_examples.items():
        scope = {"multimodal": multimodal, "functools": functools, "torch": torch}
        hint = get_type_hints(EmbedderModule.__init__)[name]
        assert fits(eval(example, scope), hint), name
