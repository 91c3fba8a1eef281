"""A sweep trains each combination once, whatever stops it; the trainings are stand-ins, but in the slow test."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

import multimodal as mm
from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.folder_lock import write_lock
from multimodal.experiment.sweep import run_sweep
from multimodal.experiment.sweep.grid import parse_grid
from multimodal.experiment.sweep.jobs import SweepStopped
from multimodal.experiment.sweep.proposals import Proposals
from multimodal.experiment.sweep.state import SweepRun

FAKE = Path(__file__).parents[2] / "support" / "fake_fit.py"
GRID = {"model.dim": [8, 16], "data.batch_size": "4,6"}
NAMES = ["1_dim=8_batch_size=4", "2_dim=8_batch_size=6", "3_dim=16_batch_size=4", "4_dim=16_batch_size=6"]
ENCODERS: dict[str, Any] = {
    "text": {"class_path": "transformer", "init_args": {"width": 16, "layers": 1, "heads": 2}},
    "tabular": {"class_path": "mlp", "init_args": {"width": 16}},
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an untrained model, its table, and the configuration of a sweep."""
    folder = tmp_path_factory.mktemp("prepared")
    words = [f"{'odd' if n % 2 else 'even'} number {n}" for n in range(60)]
    lines = [f"s{n},{text},{n / 4},{n % 7}" for n, text in enumerate(words)]
    (folder / "pairs.csv").write_text("\n".join(["sku,words,price,size", *lines]) + "\n")
    columns = {"text": "words", "tabular": "price+size"}
    data: dict[str, Any] = {"table": str(folder / "pairs.csv"), "columns": columns, "batch_size": 8}
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    trainer = {"max_steps": 4, "val_check_interval": 2, "check_val_every_n_epoch": None, "accelerator": "cpu"}
    config = {"data": data, "model": {"dim": 8, "encoders": ENCODERS}, "trainer": trainer}
    (folder / "pairs.yaml").write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    encoders = {m: mm.create(m, spec["class_path"], **spec["init_args"]) for m, spec in ENCODERS.items()}
    embedder = mm.Embedder(encoders, dim=8)
    rows = [{"price": n / 4, "size": n % 7} for n in range(60)]
    embedder.fit_processors({"text": words, "tabular": rows})
    embedder.save_pretrained(folder / "model")
    return folder


@pytest.fixture
def config(real_config: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """As ``real_config``; here the parser of configurations and the comparison are left out, which take a second each."""
    parsed = {"model": {"encoders": ENCODERS}, "trainer": {}}
    monkeypatch.setattr(run_sweep, "completed_from_arguments", lambda arguments: parsed)
    monkeypatch.setattr(run_sweep, "compare", not_compared)
    return real_config


def not_compared(*args: Any, **settings: Any) -> None:
    raise UsageError("other rows.")


@pytest.fixture
def real_config(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The configuration, in a working folder where the stand-in for training finds its plan."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_sweep, "FIT", (sys.executable, "-S", str(FAKE)))
    monkeypatch.delenv("OMP_NUM_THREADS")
    shutil.copy(prepared / "pairs.yaml", "pairs.yaml")
    plan(prepared)
    return "pairs.yaml"


def plan(prepared: Path, **settings: Any) -> None:
    Path("plan.json").write_text(json.dumps({"prepared": str(prepared), **settings}))


def starts() -> list[str]:
    return Path("starts.txt").read_text().splitlines() if Path("starts.txt").exists() else []


def states(folder: str = "sweeps/pairs") -> list[str]:
    return [run["state"] for run in json.loads((Path(folder) / "sweep.json").read_text())["runs"]]


def test_trainings_import_the_trusted_modules(config: str, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan(prepared, fail={"--trust_module=colorsys --trust_module=wave": "both were named"})
    grid = ["--grid", "model.dim=8"]
    assert main(["sweep", config, *grid, "--trust_module", "colorsys", "--trust_module=wave"]) == 1
    assert "both were named" in capsys.readouterr().err
    assert main(["sweep", config, *grid]) == 0  # what an earlier command trusted is forgotten


def test_every_combination_is_trained_once_and_compared(real_config: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = mm.sweep(real_config, GRID, jobs=2)
    said = capsys.readouterr().err
    assert sorted(line.split()[0] for line in starts()) == NAMES
    assert {line.split()[2] for line in starts()} == {str(max(1, len(os.sched_getaffinity(0)) // 2))}
    assert [run.name for run in result.runs] == NAMES
    assert [run.value for run in result.runs] == [0.008, 0.008, 0.016, 0.016]
    assert result.best is not None
    assert (result.best.name, result.best.settings) == (NAMES[2], {"model.dim": 16, "data.batch_size": 4})
    assert result.comparison is not None
    assert (result.comparison.baseline, result.comparison.split) == (NAMES[2], "validation")
    assert result.comparison.summary.startswith("0 of ")
    assert result.best.weights is not None
    assert result.best.weights > 1000
    assert f"[4/4] {NAMES[3]}: val/recall@1 0.0160, " in said
    folder = Path("sweeps/pairs")
    document = json.loads((folder / "sweep.json").read_text())
    assert {key: document[key] for key in ("best", "measure", "grid", "runs", "comparison")} == {
        key: result.to_json()[key] for key in ("best", "measure", "grid", "runs", "comparison")
    }
    written = (folder / "sweep.md").read_text()
    assert "4 of 4 runs of pairs.yaml finished" in written
    assert f"| {NAMES[2]} | 16 | 4 | 0.0160 |" in written
    with Image.open(folder / "sweep.png") as chart:
        assert len(chart.convert("RGB").getcolors(2**24) or ()) > 10
    assert list(result.to_pandas()["model.dim"]) == [8, 8, 16, 16]


def test_the_command_prints_what_it_wrote_and_repeats_nothing(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "sweep",
        config,
        "--grid",
        "model.dim=8,16",
        "--grid",
        "data.batch_size=4,6",
        "--out",
        "out",
        "--jobs",
        "2",
    ]
    assert main(command) == 0
    assert f"{NAMES[2]}  16          4       0.0160" in capsys.readouterr().out
    assert main([*command, "--json"]) == 0
    printed = capsys.readouterr()
    written = json.loads((Path("out") / "sweep.json").read_text())
    assert json.loads(printed.out)["runs"] == written["runs"]
    assert "4 of 4 runs had finished before." in printed.err
    assert len(starts()) == 4


def test_a_run_that_fails_is_recorded_and_tried_again(config: str, prepared: Path) -> None:
    plan(prepared, fail={"--model.dim=16 --data.batch_size=4": "the loss is not finite."})
    result = mm.sweep(config, GRID, "out")
    assert states("out") == ["finished", "finished", "failed", "finished"]
    assert result.runs[2].error == "the loss is not finite."
    assert f"{NAMES[2]} failed: the loss is not finite." in str(result)
    assert [run.name for run in result.ranked] == [NAMES[3], *NAMES[:2]]
    assert "The runs are not compared: other rows." in result.lines()
    plan(prepared)
    assert [run.state for run in mm.sweep(config, GRID, "out").runs] == ["finished"] * 4
    assert len(starts()) == 5
    assert starts()[4].startswith(NAMES[2])


def test_a_sweep_in_which_nothing_finishes_is_an_error(config: str, prepared: Path) -> None:
    plan(prepared, fail={"--": "the table is empty."})
    with pytest.raises(MultimodalError, match=f"No run of the sweep finished. {NAMES[0]} failed: the table is empty."):
        mm.sweep(config, GRID)
    assert states() == ["failed"] * 4


def test_a_run_whose_model_has_gone_is_trained_again(config: str) -> None:
    mm.sweep(config, {"model.dim": "8,16"})
    shutil.rmtree("sweeps/pairs/1_dim=8")
    mm.sweep(config, {"model.dim": "8,16"})
    assert [line.split()[0] for line in starts()] == ["1_dim=8", "2_dim=16", "1_dim=8"]


def test_a_stopped_sweep_resumes_each_run_where_it_was(config: str, prepared: Path) -> None:
    plan(prepared, wait="--model.dim=16")

    def stop() -> None:
        while not all(Path(f"{name}.waits").exists() for name in NAMES[2:]):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SweepStopped) as stopped:
        mm.sweep(config, GRID, jobs=2)
    thread.join()
    assert stopped.value.exit_code == 143
    assert states() == ["finished", "finished", "unfinished", "unfinished"]
    checkpoints = [Path("sweeps/pairs") / name / "checkpoints" / "last.ckpt" for name in NAMES[2:]]
    assert [path.read_text() for path in checkpoints] == ["after 1 signal"] * 2
    mm.sweep(config, GRID, jobs=2)
    assert states() == ["finished"] * 4
    again = [line for line in starts() if line.split()[1] == "resumed"]
    assert sorted(line.split()[0] for line in again) == NAMES[2:]


def test_a_training_that_outlived_its_sweep_is_named(config: str, prepared: Path) -> None:
    plan(prepared, fail={"model.dim=16": "no"})
    mm.sweep(config, {"model.dim": "8,16"})
    (Path("sweeps/pairs") / "2_dim=16").mkdir(exist_ok=True)
    holder = threading.Event()
    held = threading.Event()

    def hold() -> None:
        with write_lock(Path("sweeps/pairs") / "2_dim=16"):
            held.set()
            holder.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        with pytest.raises(MultimodalError, match=r"2_dim=16 is being written by .* \(process \d+"):
            mm.sweep(config, {"model.dim": "8,16"})
    finally:
        holder.set()
        thread.join()
    assert len(starts()) == 2


def test_another_sweep_in_the_same_folder_is_refused(config: str) -> None:
    mm.sweep(config, {"model.dim": "8"})
    with pytest.raises(UsageError, match=re.escape('with the grid {"model.dim": [8]}, not {"model.dim": [8, 16]}')):
        mm.sweep(config, {"model.dim": "8,16"})
    settings = yaml.safe_load(Path(config).read_text())
    Path(config).write_text(yaml.safe_dump(settings | {"seed_everything": 3}))
    with pytest.raises(UsageError, match=r"before the configuration pairs.yaml was changed.*another folder with --out"):
        mm.sweep(config, {"model.dim": "8"})
    (Path("sweeps/pairs") / "sweep.json").write_text('{"runs": [')
    with pytest.raises(MultimodalError, match=r"sweep.json is damaged"):
        mm.sweep(config, {"model.dim": "8"})
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").touch()
    with pytest.raises(MultimodalError, match=r"thesis is not empty and holds no sweep.json"):
        mm.sweep(config, {"model.dim": "8"}, "thesis")
    assert len(starts()) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--grid model.dmi=8,16", "model.dmi=8. Did you mean 'model.dim'?"),
        ("--grid model.dim=8,many", "model.dim must be a whole number, not 'many'"),
        ("--grid model.encoders.text.init_args.widht=8", "no parameter 'widht'. Did you mean 'width'?"),
        ("--grid model.encoders.text=bag,bog", "Unknown text encoder 'bog'. Did you mean 'bag'?"),
        ("--grid model.dim=8..16", "only --optuna N can choose"),
        ("--grid run=a,b", "run is set by the sweep"),
        ("--grid model.dim", "write a key and its values, as model.dim=64,256"),
        ("--grid model.dim=8 --grid model.dim=16", "--grid names model.dim twice"),
        ("--grid model.dim=8 --measure val/recall", "No validation logs 'val/recall'. Did you mean 'val/recall@1'"),
        ("--grid model.dim=8 --jobs 0", "at least one run, and one at a time"),
        ("--grid model.dim=8 --devices a", "'a' is not a list of numbers of GPUs"),
        ("--grid model.dim=8 --devices 99", "There is no GPU 99"),
        ("--grid model.dim=8 --devices 0 --jobs 2", "not allowed with argument"),
        ("--out x", "--grid"),
    ],
)
def test_wrong_usage_is_found_before_anything_is_trained(
    real_config: str, options: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", real_config, *options.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not Path("sweeps").exists()
    assert starts() == []


def test_each_device_has_its_own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(run_sweep, "cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,GPU-7")
    assert run_sweep._environments(1, [2, 0]) == [
        {"CUDA_VISIBLE_DEVICES": "GPU-7", "OMP_NUM_THREADS": "4"},
        {"CUDA_VISIBLE_DEVICES": "4", "OMP_NUM_THREADS": "4"},
    ]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert run_sweep._environments(1, [1]) == [{"CUDA_VISIBLE_DEVICES": "1"}]
    assert run_sweep._environments(3, None) == [{"OMP_NUM_THREADS": "2"}] * 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert run_sweep._environments(2, None) == [{}, {}]
    with pytest.raises(UsageError, match="different GPUs"):
        run_sweep._environments(1, [1, 1])
    with pytest.raises(UsageError, match="exclude each other"):
        run_sweep._environments(2, [0])


def test_the_measure_chooses_and_may_be_changed_afterwards(config: str, prepared: Path) -> None:
    plan(prepared, values={"8": 0.5, "16": 0.4})
    result = mm.sweep(config, {"model.dim": "8,16"})
    assert result.best is not None
    assert result.best.name == "1_dim=8"
    by_rank = mm.sweep(config, {"model.dim": "8,16"}, measure="val/text->tabular/mean_rank")
    assert [(run.name, run.value) for run in by_rank.ranked] == [("2_dim=16", 84.0), ("1_dim=8", 92.0)]
    assert len(starts()) == 2


def test_optuna_proposes_from_the_results_and_resumes(config: str) -> None:
    pytest.importorskip("optuna")
    grid = {"model.optimizer.init_args.lr": "0.0001..1.0", "model.dim": "8,16"}
    first = mm.sweep(config, grid, optuna=4)
    assert len(first.runs) == len(starts()) == 4
    more = mm.sweep(config, grid, optuna=8, jobs=2)
    assert [run.settings for run in more.runs[:4]] == [run.settings for run in first.runs]
    assert len(starts()) == 8
    rates = [run.settings["model.optimizer.init_args.lr"] for run in more.runs]
    assert len(set(rates)) == 8
    assert all(0.0001 <= rate <= 1 for rate in rates)
    assert {run.settings["model.dim"] for run in more.runs} == {8, 16}
    assert more.best is not None
    assert more.best.value == max(run.value for run in more.runs if run.value is not None)
    mm.sweep(config, {"model.dim": "8,16"}, "chosen", optuna=1)
    with pytest.raises(UsageError, match="was started with --optuna"):
        mm.sweep(config, {"model.dim": "8,16"}, "chosen")


def test_proposals_learn_from_results_also_from_those_of_earlier_starts() -> None:
    pytest.importorskip("optuna")
    grid = parse_grid({"lr": "0.0001..1.0", "kind": "a,b"})
    distances: list[float] = []
    runs: list[SweepRun] = []
    for start in range(2):  # the second start knows the runs of the first only as results
        proposals = Proposals(grid, "max", runs)
        for number in range(30):
            trial, settings = proposals.propose()
            run = SweepRun(f"{start} {number}", settings)
            proposals.started(trial, run)
            distances.append(abs(math.log10(settings["lr"]) + 3) + (settings["kind"] == "a"))
            run.state, run.value = ("failed", None) if number % 7 == 0 else ("finished", -distances[-1])
            proposals.ended(run)
            runs.append(run)
    first, last = sorted(distances[:10]), sorted(distances[-10:])
    assert last[5] < first[5] / 2  # the median


def test_an_unfinished_run_keeps_its_proposal() -> None:
    pytest.importorskip("optuna")
    grid = parse_grid({"dim": "16..256", "kind": "null,b"})
    runs = [SweepRun("1", {"dim": 77, "kind": None}), SweepRun("2", {"dim": 99, "kind": "b"}, state="failed")]
    proposals = Proposals(grid, "min", runs)
    for run in runs:
        run.value = 1.0
        proposals.ended(run)
    assert proposals.propose()[1].keys() == {"dim", "kind"}
    known = [(trial.params, trial.value) for trial in proposals._study.trials[:2]]
    assert known == [({"dim": 77, "kind": "null"}, 1.0), ({"dim": 99, "kind": "b"}, 1.0)]


@pytest.mark.slow
def test_the_page_about_sweeps_shows_what_the_commands_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a few steps, so that the figures differ, but not the rest."""
    page = (Path(__file__).parents[3] / "docs" / "sweep.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (config,) = re.findall(r"^```yaml letters.yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert config.count("max_steps: 150, val_check_interval: 75") == 1
    Path("letters.yaml").write_text(
        config.replace("max_steps: 150, val_check_interval: 75", "max_steps: 2, val_check_interval: 2")
    )
    blocks = re.findall(r"^```console\n\$ (multimodal .*?)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert [command.split()[1] for command, _ in blocks] == ["sweep", "compare", "sweep"]
    for command, shown in blocks[:2]:
        assert main(command.split()[1:]) == 0
        printed = _without_figures(capsys.readouterr().out)
        expected = [_without_figures(paragraph) for paragraph in shown.split("\n\n") if "(the same" not in paragraph]
        assert len(expected) > 3
        assert [paragraph for paragraph in expected if paragraph not in printed] == []


def _without_figures(text: str) -> str:
    """The words of a text; figures, verdicts and the order of the runs are those of a long training."""
    text = re.sub(r"(sweeps/letters/)?\d_text=\w+_dim=\d+( \(baseline\))?", "RUN", text)
    text = re.sub(r"(?<= )(transformer|bag)(?= )", "TEXT", re.sub(r"[▲▼─](?! holds)", "", text))
    return " ".join(word for word in text.split() if not re.fullmatch(r"<?[-+]?[\d,.]+|to|min|s|yes|no", word))


@pytest.mark.slow
def test_a_killed_sweep_of_real_trainings_resumes(prepared: Path, tmp_path: Path) -> None:
    shutil.copy(prepared / "pairs.yaml", tmp_path)
    command = [sys.executable, "-m", "multimodal", "sweep", "pairs.yaml", "--jobs", "2", "--json"]
    command += ["--grid", "model.dim=8,16", "--grid", "trainer.max_steps=2,100"]
    folder = tmp_path / "sweeps" / "pairs"
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    names = ["1_dim=8_max_steps=2", "2_dim=8_max_steps=100", "3_dim=16_max_steps=2", "4_dim=16_max_steps=100"]
    while not (folder / names[1] / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.1)
    process.kill()
    process.communicate()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    deadline = time.monotonic() + 300
    while "is being written by" in done.stderr and time.monotonic() < deadline:  # trainings outlive a killed sweep
        time.sleep(1)
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert [(run["name"], run["state"]) for run in document["runs"]] == [(name, "finished") for name in names]
    assert sorted(document["comparison"]["runs"]) == names
    assert (folder / names[3] / "model" / "model.safetensors").is_file()
