"""The torchrun and SLURM commands of docs/scale_out.md train the same weights as one process."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from multimodal.cli.main import main

PAGE = (Path(__file__).parents[2] / "docs" / "scale_out.md").read_text(encoding="utf-8")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}
ON_A_CPU = ["--trainer.accelerator", "cpu", "--trainer.precision", "32-true", "--trainer.enable_progress_bar", "false"]
COMPARABLE = [  # no dropout, whose random numbers are each rank's own, and no optimizer that divides by small gradients
    *("--model.encoders.name.init_args.drop", "0.0", "--model.encoders.words.init_args.drop", "0.0"),
    *("--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr", "0.3"),
]

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _the_page_s_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (table,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(table, "scale_out.md", "exec"), {})
    for name, content in re.findall(r"^```yaml (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        Path(name).write_text(content, encoding="utf-8")


def weights(run: str) -> dict[str, Any]:
    return torch.load(f"{run}/checkpoints/last.ckpt", weights_only=True)["state_dict"]


def check_against_one_process() -> None:
    assert main(["fit", "--config", "things.yaml", "--run", "runs/one", *ON_A_CPU, *COMPARABLE]) == 0
    torch.testing.assert_close(weights("runs/things"), weights("runs/one"), rtol=1e-5, atol=1e-6)


def commands() -> list[list[str]]:
    shown = "\n".join(re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)).replace("\\\n", " ")
    return [shlex.split(line[2:]) for line in shown.splitlines() if line]


def test_torchrun_with_two_processes() -> None:
    (command,) = [words for words in commands() if words[0] == "torchrun" and "--standalone" in words]
    program = [sys.executable, "-m", "torch.distributed.run", *command[1:], *ON_A_CPU, *COMPARABLE]
    done = subprocess.run(program, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    check_against_one_process()


def test_slurm_with_two_machines() -> None:
    (script,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    srun, program, *words = shlex.split(script.replace("\\\n", " ").splitlines()[-1])
    assert (srun, program) == ("srun", "multimodal")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    processes = []
    for node in range(2):
        slurm = {"JOB_ID": "12345", "JOB_NAME": "things", "NTASKS": "2", "NNODES": "2", "NTASKS_PER_NODE": "1"}
        slurm |= {"NODELIST": "localhost", "PROCID": str(node), "NODEID": str(node), "LOCALID": "0"}
        environment = os.environ | ENVIRONMENT | {f"SLURM_{k}": v for k, v in slurm.items()} | {"MASTER_PORT": port}
        command = [sys.executable, "-m", program, *words, "--trainer.devices", "1", *ON_A_CPU, *COMPARABLE]
        processes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    check_against_one_process()


def test_the_signal_of_slurm_saves_and_queues_the_job_again() -> None:
    """With a program in the place of ``scontrol``, as no SLURM is here."""
    Path("bin").mkdir()
    scontrol = Path("bin/scontrol")
    scontrol.write_text('#!/bin/sh\necho "$@" > queued.txt\n')
    scontrol.chmod(0o755)
    (script,) = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    _, program, *words = shlex.split(script.replace("\\\n", " ").splitlines()[-1])
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    slurm = {"JOB_ID": "12345", "JOB_NAME": "things", "NTASKS": "1", "NNODES": "1", "NTASKS_PER_NODE": "1"}
    slurm |= {"NODELIST": "localhost", "PROCID": "0", "NODEID": "0", "LOCALID": "0"}
    environment = os.environ | ENVIRONMENT | {f"SLURM_{k}": v for k, v in slurm.items()} | {"MASTER_PORT": port}
    environment["PATH"] = f"{Path('bin').absolute()}:{os.environ['PATH']}"
    many = ["--trainer.max_steps", "100000", "--trainer.val_check_interval", "20", "--trainer.num_nodes", "1"]
    command = [sys.executable, "-m", program, *words, "--trainer.devices", "1", *many, *ON_A_CPU, *COMPARABLE]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    last = Path("runs/things/checkpoints/last.ckpt")
    deadline = time.monotonic() + 200
    while not last.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGUSR1)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + signal.SIGUSR1, error
    assert "by SIGUSR1" in error
    assert "The job 12345 is queued again" in error
    assert Path("queued.txt").read_text() == "requeue 12345\n"
    assert torch.load(last, weights_only=True)["global_step"] > 0
