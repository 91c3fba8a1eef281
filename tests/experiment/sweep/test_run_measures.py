"""What a run logged at the validation of its saved model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from multimodal.core.errors import UsageError
from multimodal.experiment.sweep.run_measures import check_measure, count_weights, mode_of, value_of_model

CONFIG = {"model": {"encoders": {"image": {}, "text": {}}}, "trainer": {"callbacks": None}}
MRR = "val/text->image/mrr"


def write_logs(run: Path, *versions: str) -> None:
    for number, text in enumerate(versions):
        folder = run / "logs" / f"version_{number}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(text)


def test_a_measure_is_read_where_the_monitor_was_best(tmp_path: Path) -> None:
    head = f"step,train/loss,val/recall@1,{MRR}\n"
    write_logs(tmp_path, f"{head}9,2.0,,\n9,,0.3,0.9\n19,,0.5,0.6\n", f"{head}29,,0.5,0.8\n39,,nan,0.99\n49,1.0,,\n")
    assert value_of_model(tmp_path, "val/recall@1") == 0.5
    assert value_of_model(tmp_path, MRR) == 0.6  # of two equal ones the first is saved
    assert value_of_model(tmp_path, "val/other") is None


def test_a_run_may_have_a_monitor_of_its_own(tmp_path: Path) -> None:
    rank = "val/text->image/mean_rank"
    write_logs(tmp_path, f"step,val/recall@1,{rank},{MRR}\n9,0.5,7,0.1\n19,0.4,6,0.2\n29,0.3,8,0.3\n")
    assert value_of_model(tmp_path, MRR) == 0.1
    (tmp_path / "config.yaml").write_text("monitor: val/text->image/mean_rank")
    assert value_of_model(tmp_path, MRR) == 0.2


def test_a_start_that_repeats_a_step_replaces_it(tmp_path: Path) -> None:
    head = f"step,val/recall@1,{MRR}\n"
    starts = [f"{head}9,0.9,0.1\n", f"{head}9,0.2,0.3\n", *[f"{head}"] * 8, f"{head}19,0.1,0.7\n"]  # version_10 is last
    write_logs(tmp_path, *starts)
    assert value_of_model(tmp_path, MRR) == 0.3


def test_a_run_without_logs_or_model_has_no_value(tmp_path: Path) -> None:
    assert (value_of_model(tmp_path, MRR), count_weights(tmp_path)) == (None, None)
    write_logs(tmp_path, "", "step,val/recall@1\n")
    assert value_of_model(tmp_path, MRR) is None
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"no tensors")
    assert count_weights(tmp_path) is None
    save_file({"a": torch.zeros(3, 4), "b": torch.zeros(5)}, tmp_path / "model" / "model.safetensors")
    assert count_weights(tmp_path) == 17


def test_a_measure_that_nothing_logs_is_refused() -> None:
    check_measure("val/recall@1", CONFIG)
    check_measure(MRR, CONFIG)
    with pytest.raises(
        UsageError, match=r"No validation logs 'val/text->image/mmr'. Did you mean 'val/text->image/mrr'"
    ):
        check_measure("val/text->image/mmr", CONFIG)
    check_measure("val/own", CONFIG | {"trainer": {"callbacks": [{"class_path": "shop.OwnMeasures"}]}})


def test_ranks_and_gaps_are_better_if_they_are_low() -> None:
    names = ["val/recall@1", MRR, "val/text->image/mean_rank", "val/text->image/median_rank", "val/image-text/gap"]
    assert [mode_of(name) for name in names] == ["max", "max", "min", "min", "min"]
