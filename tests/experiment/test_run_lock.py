"""One training at a time writes a run folder, which its first process locks for all."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lightning.pytorch.utilities import rank_zero_only

import multimodal as mm
from multimodal.cli.main import main
from multimodal.core.folder_lock import LOCK_FILE, write_lock
from multimodal.experiment.run_lock import run_lock


@contextmanager
def locked_by_another(run: Path) -> Iterator[None]:
    """Another thread, for which a lock is that of another process, trains in the folder."""
    held, end = threading.Event(), threading.Event()

    def hold() -> None:
        with write_lock(run):
            held.set()
            end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        yield
    finally:
        end.set()
        thread.join()


def test_a_second_training_in_a_folder_is_refused_in_one_line(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with locked_by_another(run):
        assert main(["fit", "--config", str(config_file), "--run", str(run)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"multimodal fit: {run} is being written by ")
        assert f"process {os.getpid()} on" in line
        assert os.listdir(run) == [LOCK_FILE]
        experiment = mm.load_config(config_file, {"run": str(run)})
        with pytest.raises(mm.MultimodalError, match="is being written by"):
            experiment.trainer.fit(experiment.model, datamodule=experiment.data)
        with pytest.raises(mm.MultimodalError, match="is being written by"):
            mm.fit(experiment.model, experiment.data, run, max_steps=2)
    assert not run.exists()
    assert main(["fit", "--config", str(config_file), "--run", str(run)]) == 0
    assert LOCK_FILE not in os.listdir(run)


@pytest.mark.parametrize("variable", ["rank", "NODE_RANK", "GROUP_RANK"])
def test_the_other_processes_of_a_training_take_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    if variable == "rank":
        monkeypatch.setattr(rank_zero_only, "rank", 1)
    else:
        monkeypatch.setenv(variable, "1")
    with locked_by_another(tmp_path / "run"), run_lock(tmp_path / "run") as held:
        assert not held


def test_the_first_process_of_each_launcher_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_RANK", "0")
    with run_lock(tmp_path / "run") as held:
        assert held
