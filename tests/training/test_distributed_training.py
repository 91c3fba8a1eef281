"""``multimodal fit`` with two processes equals ``multimodal fit`` with one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from multimodal_encoders.text.transformer import TextTransformer
from torch.multiprocessing.spawn import start_processes

from multimodal import Embedder
from multimodal.cli.main import main
from multimodal.data.samplers import EpochSampler
from multimodal.data.stream import Stream
from multimodal.training.module import EmbedderModule

STEPS = 4


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Three texts of 30 things to train on, some of them missing; batches of nine, which two processes share unevenly."""
    things = [
        {
            "name": f"thing {n}",
            "words": f"{'odd' if n % 2 else 'even'} number {n}" if n % 3 else None,
            "code": f"{n * n}" if n % 4 else None,
            "split": "train" if n < 30 else "validation",
        }
        for n in range(40)
    ]
    (tmp_path / "things.jsonl").write_text("".join(json.dumps(t) + "\n" for t in things))
    settings = {"width": 16, "layers": 1, "heads": 2, "vocab_size": 100, "drop": 0.0}
    encoder = {"class_path": "multimodal_encoders.text.transformer.TextTransformer", "init_args": settings}
    columns = {m: m for m in ("name", "words", "code")}
    settings_of_run = {
        "data": {"table": str(tmp_path / "things.jsonl"), "columns": columns, "split": "split", "batch_size": 9},
        "model": {
            "dim": 8,
            "encoders": dict.fromkeys(columns, encoder),
            "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.3}},
        },
        "trainer": {
            "accelerator": "cpu",
            "precision": "32-true",
            "max_steps": STEPS,
            "val_check_interval": 2,
            "check_val_every_n_epoch": None,
            "enable_progress_bar": False,
            "log_every_n_steps": 1,
            "gradient_clip_val": 0.5,
        },
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(settings_of_run))
    return path


@pytest.fixture
def in_float64() -> Iterator[None]:
    """Float32 shows in which order a sum is taken, which differs by processor. Lightning's "64-true" excludes FSDP."""
    torch.set_default_dtype(torch.float64)  # the other processes are forks
    yield
    torch.set_default_dtype(torch.float32)


def _process(rank: int, port: int, folder: str, arguments: list[str], change: Callable[[int], object] | None) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "NODE_RANK": "0"}
    os.environ |= {"LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}
    output = os.open(f"{folder}/{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = (os.fdopen(fd, "w", buffering=1) for fd in (1, 2))  # not pytest's
    if change is not None:
        change(rank)
    code = main(["fit", *arguments, "--trainer.devices", "2"])
    Path(folder, f"{rank}.code").write_text(str(code))
    os._exit(0)


def fit_with_two_processes(
    folder: Path, *arguments: str, strategy: str = "ddp", change: Callable[[int], object] | None = None
) -> Any:
    """Run ``multimodal fit`` with two processes; return their exit codes and output."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    options = [*arguments, "--trainer.strategy", strategy]
    context = start_processes(
        _process, (port, str(folder), options, change), nprocs=2, start_method="fork", join=False, daemon=True
    )
    assert context is not None
    processes = [process for process in context.processes if process is not None]
    for process in processes:
        process.join(30)
    hanging = [process for process in processes if process.is_alive()]
    for process in hanging:
        process.kill()
    texts = [(folder / f"{rank}.txt").read_text() for rank in range(2)]
    assert not hanging, texts
    return [int((folder / f"{rank}.code").read_text()) for rank in range(2)], texts


def fit_with_one_process(*arguments: str) -> None:
    assert main(["fit", "--debug", *arguments]) == 0


def state(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def metrics(run: Path) -> list[dict[str, float]]:
    import csv

    (log,) = run.glob("logs/*/metrics.csv")
    rows = csv.DictReader(log.read_text().splitlines())
    return [
        {name: float(v) for name, v in row.items() if v and "per_second" not in name and "lr-" not in name}
        for row in rows
    ]


FSDP = json.dumps(
    {
        "class_path": "lightning.pytorch.strategies.ModelParallelStrategy",
        "init_args": {"data_parallel_size": 2, "tensor_parallel_size": 1, "save_distributed_checkpoint": False},
    }
)


IN_PARTS = ["--data.micro_batch", "2"]
FEW_ROWS = ["--data.batch_size", "3"]  # one of two processes often has no row of a modality


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        pytest.param("ddp", FEW_ROWS, id="ddp, few rows"),
        pytest.param(FSDP, IN_PARTS, id="fsdp, in parts"),
        pytest.param("ddp", [], id="ddp, whole", marks=pytest.mark.slow),
        pytest.param("ddp", IN_PARTS, id="ddp, in parts", marks=pytest.mark.slow),
        pytest.param(FSDP, [], id="fsdp, whole", marks=pytest.mark.slow),
        pytest.param(FSDP, FEW_ROWS, id="fsdp, few rows", marks=pytest.mark.slow),
    ],
)
def test_two_processes_train_validate_and_save_what_one_does(
    config: Path, tmp_path: Path, in_float64: None, strategy: str, more: list[str]
) -> None:
    options = ["--config", str(config), *more]
    fit_with_one_process(*options, "--run", str(tmp_path / "one"))
    codes, texts = fit_with_two_processes(tmp_path, *options, "--run", str(tmp_path / "two"), strategy=strategy)
    assert codes == [0, 0], texts
    found, expected = state(tmp_path / "two"), state(tmp_path / "one")
    assert all(x.dtype == torch.float64 for x in found["state_dict"].values() if x.is_floating_point())
    assert found["global_step"] == expected["global_step"] == STEPS
    torch.testing.assert_close(found["state_dict"], expected["state_dict"], rtol=1e-9, atol=1e-11)
    for ours, theirs in zip(metrics(tmp_path / "two"), metrics(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-9)
    ours, theirs = (Embedder.from_pretrained(tmp_path / run).state_dict() for run in ("two", "one"))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    # one process resumes from the checkpoint of two
    assert main(["validate", *options, "--run", str(tmp_path / "two"), "--ckpt_path", "last"]) == 0


def test_two_processes_validate_a_last_step_within_an_epoch(config: Path, tmp_path: Path) -> None:
    options = ["--config", str(config), "--trainer.max_steps", "1", "--run"]
    fit_with_one_process(*options, str(tmp_path / "one"))
    codes, texts = fit_with_two_processes(tmp_path, *options, str(tmp_path / "two"))
    assert codes == [0, 0], texts
    assert [list(row) for row in metrics(tmp_path / "two")] == [list(row) for row in metrics(tmp_path / "one")]
    assert sum("val/recall@1" in row for row in metrics(tmp_path / "two")) == 1
    ours, theirs = (Embedder.from_pretrained(tmp_path / run).state_dict() for run in ("two", "one"))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def not_a_number_on_one(rank: int) -> None:
    if rank == 1:
        forward = TextTransformer.forward
        TextTransformer.forward = lambda self, tokens: forward(self, tokens) * (torch.nan if self.training else 1.0)


def an_error_on_one(rank: int) -> None:
    if rank == 1:
        TextTransformer.forward = lambda self, tokens: tokens[1 // 0]


def fewer_rows_on_one(rank: int) -> None:
    if rank == 1:
        length = EpochSampler.__len__
        EpochSampler.__len__ = lambda self: length(self) - 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (not_a_number_on_one, ["The loss of step 0 is nan"] * 2),
        (an_error_on_one, ["", "ZeroDivisionError"]),
        (fewer_rows_on_one, ["Process 1 has (30, 2) rows and batches to train on, process 0 has (30, 3)"] * 2),
    ],
    ids=["nan", "error", "fewer rows"],
)
def test_an_error_on_one_process_ends_both(
    config: Path, tmp_path: Path, change: Callable[[int], object], message: list[str]
) -> None:
    codes, texts = fit_with_two_processes(
        tmp_path, "--config", str(config), "--run", str(tmp_path / "run"), change=change
    )
    assert codes == [1, 1], texts
    for text, expected in zip(texts, message, strict=True):
        assert expected in text


def a_signal_on_one(rank: int) -> None:
    if rank == 1:
        compute, counted = EmbedderModule.training_step, []

        def step(self: EmbedderModule, *arguments: Any) -> Any:
            counted.append(1)
            if len(counted) == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return compute(self, *arguments)

        EmbedderModule.training_step = step  # pyright: ignore[reportAttributeAccessIssue]


def test_a_signal_to_one_process_stops_both_at_the_same_step(config: Path, tmp_path: Path) -> None:
    options = ["--config", str(config), "--run", str(tmp_path / "run")]
    codes, texts = fit_with_two_processes(tmp_path, *options, change=a_signal_on_one)
    assert codes == [128 + signal.SIGTERM] * 2, texts
    assert "Training was stopped at step 2, by SIGTERM" in texts[0]
    assert state(tmp_path / "run")["global_step"] == 2
    codes, texts = fit_with_two_processes(tmp_path, *options, "--ckpt_path", "last")
    assert codes == [0, 0], texts
    fit_with_one_process("--config", str(config), "--run", str(tmp_path / "one"))
    expected = state(tmp_path / "one")["state_dict"]
    torch.testing.assert_close(state(tmp_path / "run")["state_dict"], expected, rtol=1e-4, atol=1e-5)


def a_shorter_stream_on_one(rank: int) -> None:
    if rank == 1:
        rows = Stream.rows
        Stream.rows = lambda self, files=None: (
            row for row in rows(self, files) if row.number < 20 or self.splits != ("train",)
        )


def test_processes_with_streams_of_different_lengths_end_together(config: Path, tmp_path: Path) -> None:
    options = ["--config", str(config), "--data.access", "streamed", "--run", str(tmp_path / "run")]
    epochs = ["--trainer.max_epochs", "2", "--trainer.max_steps", "100"]
    codes, texts = fit_with_two_processes(tmp_path, *options, *epochs, change=a_shorter_stream_on_one)
    assert codes == [0, 0], texts
    assert (
        state(tmp_path / "run")["global_step"] == 2 * 3
    )  # batches of 9, 9 and 2 rows on one, of 9, 9, 9 and 3 on the other


def test_sharded_encoders_resume_from_their_checkpoint(config: Path, tmp_path: Path) -> None:
    options = ["--config", str(config), "--run", str(tmp_path / "run")]
    more = ["--model.optimizer.init_args.momentum", "0.9"]
    more += ["--model.schedule", "multimodal.training.schedule.Constant"]
    steps = ["--trainer.max_steps", "2"]
    fit_with_one_process("--config", str(config), "--run", str(tmp_path / "one"), *more)
    for number, arguments in enumerate([[*more, *steps], [*more, "--ckpt_path", "last"]]):
        codes, texts = fit_with_two_processes(tmp_path, *options, *arguments, strategy=FSDP)
        assert codes == [0, 0], (number, texts)
    expected = state(tmp_path / "one")["state_dict"]
    torch.testing.assert_close(state(tmp_path / "run")["state_dict"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_command_starts_its_second_process_itself(config: Path, tmp_path: Path) -> None:
    program = [sys.executable, "-m", "multimodal.cli.main", "fit", "--config", str(config)]
    devices = ["--trainer.devices", "2", "--trainer.strategy", "ddp", "--run", str(tmp_path / "two")]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*program, *devices], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    fit_with_one_process("--config", str(config), "--run", str(tmp_path / "one"))
    found, expected = (state(tmp_path / run)["state_dict"] for run in ("two", "one"))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
