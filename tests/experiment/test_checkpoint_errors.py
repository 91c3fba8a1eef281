"""Damaged checkpoints are one line with the file and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError
from multimodal.experiment.checkpoint_errors import explain_checkpoint_errors


def test_a_damaged_checkpoint_is_named_without_torch_s_advice(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    fit = ["fit", "--config", str(config_file), "--run", str(run), "--trainer.max_steps", "2"]
    assert main(fit) == 0
    capsys.readouterr()
    last, best = run / "checkpoints" / "last.ckpt", run / "checkpoints" / "best.ckpt"
    intact, rng = last.read_bytes(), np.random.default_rng(0)
    validate = ["validate", *fit[1:]]
    for damaged in (b"", intact[: len(intact) // 2], intact[:-30], rng.bytes(500), b"PK\x03\x04" + rng.bytes(500)):
        last.write_bytes(damaged)
        for arguments in (fit, validate) if damaged == b"" else (fit,):
            assert main([*arguments, "--ckpt_path", "last"]) == 1
            (line,) = capsys.readouterr().err.splitlines()
            assert f"The checkpoint {last} is damaged or not a checkpoint" in line
            assert line.endswith(f"Use {best}, another checkpoint of the run.")
            assert "weights_only" not in line
            assert "--debug" not in line
    best.unlink()
    last.unlink()
    last.mkdir()
    assert main([*fit, "--ckpt_path", str(last)]) == 1
    assert f"The checkpoint {last} does not exist" in capsys.readouterr().err
    shutil.rmtree(run)


def test_errors_outside_of_reading_are_kept() -> None:
    def load_checkpoint(error: Exception) -> None:  # the name of Lightning's function
        raise error

    with pytest.raises(ZeroDivisionError), explain_checkpoint_errors("last.ckpt"):
        _ = 1 / 0
    with pytest.raises(KeyError), explain_checkpoint_errors(None):
        load_checkpoint(KeyError("state"))
    with pytest.raises(MultimodalError, match=r"^mine$"), explain_checkpoint_errors("last.ckpt"):
        load_checkpoint(MultimodalError("mine"))
    for error, message in (
        (KeyError("state"), r"damaged .*\(KeyError: 'state'\)\. Train again in a new run folder\.$"),
        (PermissionError(13, "no", "last.ckpt"), r"last\.ckpt cannot be read: permission denied"),
    ):
        with pytest.raises(MultimodalError, match=message), explain_checkpoint_errors("last.ckpt"):
            load_checkpoint(error)
