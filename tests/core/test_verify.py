"""``multimodal verify`` lists every file that has a digest, and finds the damaged ones."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from multimodal.cli.main import main
from multimodal.core.digests import record_sum
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError
from multimodal.core.registry import create
from multimodal.core.verify import verify_files
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.index import Index

FIXTURES = Path(__file__).parents[1] / "fixtures" / "v0_1"
FILES = [
    "checkpoints/last.ckpt",
    "index/index.json",
    "index/items.parquet",
    "index/vectors.npy",
    "model/embedder.json",
    "model/model.safetensors",
    "predictions.safetensors",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    embedder = Embedder({"text": create("text", "bag", width=4, vocab_size=16)}, dim=2)
    embedder.save_pretrained(folder / "model")
    rows = {"key": ["a"], "group": ["a"], "metadata": ["{}"], "modality": ["text"]}
    Index(ExactEngine(np.eye(1, 2, dtype=np.float32), pa.table(rows)), embedder.fingerprint).save(
        folder / "index", engine="exact"
    )
    (folder / "checkpoints").mkdir()
    torch.save({"weights": torch.arange(100.0)}, folder / "checkpoints" / "last.ckpt")
    (folder / "predictions.safetensors").write_bytes(b"vectors")
    record_sum(folder, "predictions.safetensors")
    (folder / "config.yaml").write_text("seed: 1")
    return folder


def test_all_files_of_a_run_are_compared(run: Path) -> None:
    found = verify_files(run)
    assert sorted(str(file.path.relative_to(run)) for file in found) == FILES
    assert all(file.damage is None and file.has_digest for file in found)


@pytest.mark.parametrize("name", FILES)
def test_the_damaged_file_is_named(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 1
    (run / name).write_bytes(content)
    assert main(["verify", str(run)]) == 1
    printed = capsys.readouterr()
    (line,) = (line for line in printed.out.splitlines() if not line.startswith("OK "))
    assert line.startswith(f"DAMAGED    {run / name} is damaged: ")
    assert printed.err.startswith("multimodal verify: 1 of ")
    assert printed.err.endswith(f" files are damaged or missing: {run / name}.\n")


def test_a_file_is_listed_once(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "model" / "model.safetensors").unlink()
    (run / "index" / "vectors.npy").unlink()
    assert main(["verify", str(run), str(run / "model"), str(run), "--json"]) == 1
    printed = capsys.readouterr()
    assert sorted(str(Path(file["path"]).relative_to(run)) for file in json.loads(printed.out)) == FILES
    damaged = f"2 of {len(FILES)} files are damaged or missing: {run / 'index' / 'vectors.npy'} and 1 more."
    assert printed.err == f"multimodal verify: {damaged}\n"


def test_a_missing_file_is_named(run: Path) -> None:
    (run / "model" / "model.safetensors").unlink()
    (damage,) = (file.damage for file in verify_files(run) if file.damage is not None)
    assert damage == f"{run / 'model' / 'model.safetensors'} is missing."


def test_one_checkpoint_or_file_may_be_named(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(run / name) for name in ("checkpoints/last.ckpt", "index/vectors.npy")]
    assert main(["verify", *paths, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"path": path, "damage": None, "has_digest": True} for path in paths]
    with pytest.raises(MultimodalError, match=r"config\.yaml holds nothing that has digests"):
        verify_files(run / "config.yaml")


def test_files_of_earlier_versions_have_no_digest() -> None:
    found = verify_files(FIXTURES)
    assert [file for file in found if file.damage is not None] == []
    checkpoints = [file.path.name for file in found if file.has_digest]
    assert sorted(checkpoints) == ["best.ckpt", "best.ckpt", "last.ckpt", "last.ckpt"]
    without = {str(file.path.relative_to(FIXTURES)) for file in found if not file.has_digest}
    assert {"index/vectors.npy", "embeddings/part-00000.parquet", "exported/model.safetensors"} <= without
    assert "prepared/prepare.json" in without


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", ""])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "index"
    folder.mkdir()
    (folder / "export.json").write_text(json.dumps({"files": {name: {"bytes": 1, "sha256": "0"}}}))
    assert [file.damage for file in verify_files(folder)] == [
        None,
        f"{folder} has a manifest that names a file elsewhere: {name!r}.",
    ]


def test_the_command_imports_neither_torch_nor_numpy(run: Path) -> None:
    code = (
        "import sys\nfrom multimodal.cli.main import main\n"
        f"assert main(['verify', {str(run)!r}]) == 0\n"
        "assert not {'torch', 'lightning', 'numpy', 'pyarrow'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_an_index_of_an_engine_has_digests_of_its_settings_alone(tmp_path: Path) -> None:
    rows = {"key": ["a"], "group": ["a"], "modality": ["text"], "metadata": ["{}"]}
    index = Index(ExactEngine(np.eye(1, 4, dtype=np.float32), pa.table(rows)), "f" * 64)
    index.save(tmp_path / "index", dim=2, reduction="pca")
    files = verify_files(tmp_path / "index")
    names = ["index.json", "engine/layout.json", "engine/projection.npy"]
    assert [file.path for file in files] == [tmp_path / "index" / name for name in names]
    assert all(file.damage is None and file.has_digest for file in files)
    (tmp_path / "index" / "engine" / "projection.npy").write_bytes(b"")
    assert [file.damage is None for file in verify_files(tmp_path / "index")] == [True, True, False]
