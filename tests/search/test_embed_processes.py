"""Several processes write the same parts as one, and end with the one that started them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from embedded_shop import CELLS, ShopTable, assert_like, embed, new_embedder, repeated, samples_of, state

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.search.embed import embed_table
from multimodal.search.embed_processes import _if_picklable, _raised, default_processes
from multimodal.search.embedding_folder import read_manifest, read_parts


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return new_embedder()


def parts(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("part-*")}


def test_two_processes_write_the_parts_that_one_writes_and_continue_where_one_was_killed(
    embedder: Embedder, tmp_path: Path
) -> None:
    embed(embedder, tmp_path / "alone")
    broken = {"samples": samples_of(cells=CELLS | {"title": ["red cup", "", *CELLS["title"][2:]]}), "max_rejects": 0.1}
    embed(embedder, tmp_path / "alone-broken", **broken)
    out = tmp_path / "out"

    def kill(rows: int) -> None:
        (child, *_) = multiprocessing.active_children()
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        child.join()

    with pytest.raises(MultimodalError, match=r"The embedding process \d+ was ended by SIGKILL .* the same command"):
        embed(embedder, out, advance=kill, processes=2)
    assert multiprocessing.active_children() == []
    advanced: list[int] = []
    made = embed(embedder, out, advance=advanced.append, processes=2)
    assert (made.rows, made.with_alternatives, sum(advanced)) == (11, 11, 11)
    assert multiprocessing.active_children() == []
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "alone"))
    assert parts(out) == parts(tmp_path / "alone")

    made = embed(embedder, out, processes=2, **broken | {"samples": changed(broken["samples"])})
    assert (made.rows, len(made.rejects), made.unchanged) == (10, 1, 10)
    assert (out / "rejects.jsonl").read_text() == (tmp_path / "alone-broken" / "rejects.jsonl").read_text()
    assert_like(state(out), state(tmp_path / "alone-broken"))


def changed(samples: Any) -> Any:
    return samples_of(cells=samples.table.cells, version="b")


def test_an_error_of_a_process_is_raised_and_the_others_end(embedder: Embedder, tmp_path: Path) -> None:
    unfitted = new_embedder()
    unfitted.encoders["text"].processor._tokenizer = None  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="the tokenizer has not been fitted"):
        embed(unfitted, tmp_path / "out", processes=2)
    assert multiprocessing.active_children() == []
    assert {path.name for path in (tmp_path / "out").glob("part-*.parquet")} <= {"part-00001.parquet"}  # without texts


def test_an_error_is_sent_as_it_is_or_as_its_trace() -> None:
    error = Unreadable("broken", "the picture is broken.")
    sent = _if_picklable(error)
    assert _raised(sent, "the trace") is error

    class Local(Exception):
        pass

    assert _if_picklable(Local("here")) is None
    with pytest.raises(RuntimeError, match="the trace"):
        raise _raised(None, "the trace")
    (note,) = _raised(ValueError("wrong"), "the trace").__notes__
    assert note == "In an embedding process:\nthe trace"


def test_a_table_that_cannot_be_sent_is_named(embedder: Embedder, tmp_path: Path) -> None:
    class Local(ShopTable):
        pass

    samples = samples_of()
    object.__setattr__(samples, "_table", Local("shop", CELLS))
    with pytest.raises(MultimodalError, match=r"cannot be sent to other processes .*Local.*; use one process"):
        embed(embedder, tmp_path / "out", samples=samples, processes=2)


@pytest.mark.parametrize("processes", [0, -1])
def test_the_number_of_processes_is_checked(embedder: Embedder, tmp_path: Path, processes: int) -> None:
    with pytest.raises(UsageError, match="processes must be at least 1"):
        embed(embedder, tmp_path / "out", processes=processes)


def test_one_process_is_usual_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert default_processes() == 1
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    assert default_processes() == 4


def test_parts_are_smaller_for_several_processes_and_stay_so(embedder: Embedder, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"samples": samples_of(cells=repeated(400), text="title"), "rows": np.arange(4400)}
    settings |= {"part_rows": None, "batch_size": None}

    def stop(rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(embedder, tmp_path / "out", processes=2, advance=stop, **settings)
    assert read_manifest(tmp_path / "out").part_rows == 512
    embed(embedder, tmp_path / "out", **settings)  # the number of processes may change
    assert [len(part) for part in read_parts(tmp_path / "out")] == [512] * 8 + [304]


PROGRAM = """
import sys
from pathlib import Path
from embedded_shop import embed, new_embedder, repeated, samples_of
import numpy as np

if __name__ == "__main__":
    embed(new_embedder(), Path(sys.argv[1]), np.arange(44000), samples=samples_of(cells=repeated(4000)), part_rows=1000,
          processes=2, advance=lambda rows: print(rows, flush=True))
"""


def test_the_processes_end_when_the_one_that_started_them_is_killed(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    support = str(Path(__file__).parents[1] / "support")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([support, *filter(None, sys.path)])}
    program = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "out")]
    with subprocess.Popen(program, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        process.stdout.readline()  # rows have been embedded
        children = psutil.Process(process.pid).children()
        assert len(children) >= 2
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert alive == []
    time.sleep(0.1)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    time.sleep(0.5)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == written


def test_a_table_and_a_model_of_files_are_embedded_in_processes(embedder: Embedder, tmp_path: Path) -> None:
    embedder.save_pretrained(tmp_path / "model")
    rows = "".join(f"{row},{CELLS['title'][row % 4] or 'cup'}\n" for row in range(1200))
    (tmp_path / "shop.csv").write_text(f"sku,title\n{rows}")
    settings: dict[str, Any] = {"columns": {"text": "title"}, "key": "sku", "precision": "float32"}
    made = embed_table(tmp_path / "model", tmp_path / "shop.csv", out=tmp_path / "out", processes=2, **settings)
    assert made.rows == 1200
    found = [row for part in read_parts(tmp_path / "out") for row in part.to_pylist()]
    assert [row["key"] for row in found] == [str(row) for row in range(1200)]
    expected = embedder.encode(text=[json.loads(row["metadata"])["title"] for row in found])
    np.testing.assert_allclose([row["text"] for row in found], expected, atol=1e-5)
    assert len(read_manifest(tmp_path / "out").parts) == 3
