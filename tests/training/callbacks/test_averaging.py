"""The moving average of the weights, against its formula over the weights of every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import pytest
import torch
import yaml
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.training.callbacks.averaging import AveragedWeights

STEPS, VALIDATE_AT = 10, (5, 10)  # as in the small configuration


class Recorder(pl.Callback):
    """Records the weights after each step, and those that validation uses."""

    steps: ClassVar[list[dict[str, Tensor]]] = []
    validated: ClassVar[list[dict[str, Tensor]]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.steps.append(weights(pl_module.embedder))

    def on_validation_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        if not trainer.sanity_checking:
            self.validated.append(weights(pl_module.embedder))


def weights(embedder: Embedder) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in embedder.state_dict().items()}


def averages(steps: list[dict[str, Tensor]], decay: float) -> list[dict[str, Tensor]]:
    """Return the average after each step; the first is the weights themselves, as in torch's ``AveragedModel``."""
    found = [{name: value.double() for name, value in steps[0].items()}]
    for n, step in enumerate(steps[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        found.append({name: d * found[-1][name] + (1 - d) * value for name, value in step.items()})
    return found


def test_the_average_is_validated_and_exported_and_training_continues_from_the_weights(
    small_config: Path, tmp_path: Path
) -> None:
    Recorder.steps.clear()
    Recorder.validated.clear()
    settings = yaml.safe_load(small_config.read_text())
    settings["trainer"]["callbacks"] = [
        {"class_path": "multimodal.training.AveragedWeights", "init_args": {"decay": 0.6}},
        {"class_path": f"{__name__}.Recorder"},
    ]
    config = tmp_path / "averaged.yaml"
    config.write_text(yaml.safe_dump(settings))
    run = tmp_path / "run"
    assert main(["fit", "--debug", "--config", str(config), "--run", str(run)]) == 0

    expected = averages(Recorder.steps, 0.6)
    floating = [name for name, value in Recorder.steps[0].items() if value.is_floating_point()]
    assert len(Recorder.steps) == STEPS
    at = {int(observed["step"]): observed for observed in _averaged_steps(Recorder.validated, expected, floating)}
    assert set(at) == set(VALIDATE_AT)
    exported = Embedder.from_pretrained(run).state_dict()
    assert any(
        all(torch.allclose(exported[name].double(), expected[step - 1][name], atol=1e-6) for name in floating)
        for step in VALIDATE_AT  # the better one
    )
    assert not any(
        all(torch.allclose(exported[name], Recorder.steps[step - 1][name], atol=1e-6) for name in floating)
        for step in VALIDATE_AT
    )


def _averaged_steps(
    observed: list[dict[str, Tensor]], expected: list[dict[str, Tensor]], names: list[str]
) -> list[dict[str, Any]]:
    """Return for each validated batch the step whose average it used."""
    found = []
    for validated in observed:
        steps = [
            step
            for step, average in enumerate(expected, start=1)
            if all(torch.allclose(validated[name].double(), average[name], atol=1e-6) for name in names)
        ]
        assert len(steps) == 1
        found.append({"step": steps[0]})
    return found


def test_integers_are_not_averaged() -> None:
    module = torch.nn.Module()
    module.register_buffer("offsets", torch.tensor([0, 119, 131]))
    callback = AveragedWeights(0.97)
    averaged = AveragedModel(module, use_buffers=True, **callback._kwargs)
    for _ in range(5):
        averaged.update_parameters(module)
    assert [offsets.tolist() for offsets in averaged.module.buffers()] == [[0, 119, 131]]


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.1])
def test_a_decay_outside_its_range_is_rejected(decay: float) -> None:
    with pytest.raises(UsageError, match="lies outside"):
        AveragedWeights(decay)


def test_the_average_of_constant_weights_is_exact() -> None:
    average = AveragedWeights(0.999)._kwargs["avg_fn"]
    frozen = torch.randn(1000)
    averaged = frozen.clone()
    for update in range(50):
        averaged = average(averaged, frozen, update)
    assert torch.equal(averaged, frozen)
