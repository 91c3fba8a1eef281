"""The wheel works without the source tree, regardless of the modules that a user has next to their script."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
# top-level names that a user's project may have, including our current ones and those of version 0.1
HOSTILE = """
    audio benchmarks cli configs conftest core data docs embedder encoders evaluation experiment export glyphs graph hub
    image index loaders media model monitor molecule objectives open_clip_models pictures prepare report samples scripts
    search serve support tabular tables tests text training vectors weights
"""
CONFIG = {
    "data": {"table": "things.csv", "columns": {"text": "name", "words": "words"}, "batch_size": 10},
    "model": {
        "dim": 8,
        "encoders": {
            "text": {"class_path": "transformer", "init_args": {"width": 16, "layers": 1, "heads": 2}},
            "words": "text.bag",
        },
    },
    "trainer": {"max_steps": 2, "val_check_interval": 2, "enable_progress_bar": False, "accelerator": "cpu"},
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*command, "--disable-pip-version-check", str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("multimodal-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the wheel and the installed libraries, but not this source tree."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    # as a plain path, so that the .pth files in the folder of the libraries, such as this tree's, are not read
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    zipfile.ZipFile(wheel).extractall(packages)
    return folder / "bin" / "python"


def test_only_our_two_packages_are_installed(wheel: Path) -> None:
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"multimodal", "multimodal_encoders"}
    files = zipfile.ZipFile(wheel).namelist()
    assert {"multimodal/__init__.pyi", "multimodal/py.typed", "multimodal_encoders/py.typed"} <= set(files)


def test_it_trains_next_to_modules_of_any_name(python: Path, tmp_path: Path) -> None:
    for name in HOSTILE.split():
        (tmp_path / f"{name}.py").write_text(f"raise RuntimeError('{name} of the user was imported')\n")
    for name in ("encoders", "tests", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('{name} of the user was imported')\n")
    rows = [f"thing {n},number {n}" for n in range(100)]
    (tmp_path / "things.csv").write_text("\n".join(["name,words", *rows]) + "\n")
    (tmp_path / "things.yaml").write_text(yaml.safe_dump(CONFIG))

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [python, "-m", "multimodal", *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import multimodal, multimodal_encoders; print(multimodal.__file__, multimodal_encoders.__file__)"
    found = subprocess.run([python, "-P", "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert str(ROOT) not in found
    run("fit", "--config", "things.yaml", "--run", "run")
    report = json.loads(run("evaluate", "run", "--split", "validation", "--json"))
    assert set(report["pairs"]) == {"text->words", "words->text"}


@pytest.mark.slow
def test_type_checkers_flag_misspelled_names_and_arguments(python: Path, tmp_path: Path) -> None:
    lines = [
        "import multimodal as mm",
        "mm.Embeder",  # line 2
        "mm.fit(mm.load_config('a.yaml').model, mm.load_config('a.yaml').data, rn='x', max_steps=1, resum=True)",
        "reveal_type(mm.evaluate('runs/a').pairs)",
        "mm.Index.open('a', modl='b')",  # line 5
        "reveal_type(mm.Index.open('a').search(text='b'))",
    ]
    (tmp_path / "user.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", str(python), "user.py"]
    output = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout
    found = json.loads(output)["generalDiagnostics"]
    errors = {d["range"]["start"]["line"] + 1 for d in found if d["severity"] == "error"}
    revealed = [d["message"] for d in found if d["severity"] == "information"]
    assert errors == {2, 5}, found
    assert "Mapping[str, Retrieval]" in revealed[0]
    assert "Hits" in revealed[1]
