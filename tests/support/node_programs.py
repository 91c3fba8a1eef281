"""The packages that the exported JavaScript example needs, and its vectors and inputs as Node computes them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal.core.errors import MultimodalError
from multimodal.core.files import atomic_folder, default_cache
from multimodal.export.examples import PROGRAMS

NODE, NPM = shutil.which("node"), shutil.which("npm")
LOCK = "package-lock.json"
INSTALL_SECONDS, RUN_SECONDS = 180, 120
CALLS = """
import { readFileSync } from "node:fs";
import { KINDS, embed } from "./example.mjs";

const { calls, descriptions } = JSON.parse(readFileSync(0, "utf8"));
const plain = ([data, shape]) => [Array.from(data, Number), shape];
const found = [];
for (const { name, value } of calls) {
  try {
    if (descriptions === null) {
      found.push(Array.from(await embed(name, value)));
      continue;
    }
    const description = descriptions[name];
    const inputs = await KINDS[description.kind](description, value);
    found.push(Object.fromEntries(Object.entries(inputs).map(([key, input]) => [key, plain(input)])));
  } catch (error) {
    found.push(error.message);
  }
}
console.log(JSON.stringify(found));
"""


@cache
def node_packages() -> Path:
    """Install the packages once, in the cache folder; the test is skipped where there is no Node or no registry."""
    if NODE is None or NPM is None:
        pytest.skip("node or npm is not installed")
    wanted = (PROGRAMS / "package.json").read_bytes()
    folder = default_cache() / "node" / hashlib.sha256(wanted).hexdigest()[:16]
    deadline = time.monotonic() + INSTALL_SECONDS
    while not (folder / LOCK).is_file():
        try:
            with atomic_folder(folder, marker=LOCK) as new:
                (new / "package.json").write_bytes(wanted)
                command = [NPM, "install", "--no-audit", "--no-fund", "--ignore-scripts"]
                subprocess.run(command, cwd=new, check=True, capture_output=True, timeout=INSTALL_SECONDS)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"npm cannot install the packages of the example ({error})")
        except MultimodalError:  # another test process installs them
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    return folder / "node_modules"


def link_packages(folder: Path) -> None:
    """Put the installed packages into an export, as ``npm install`` does."""
    os.symlink(node_packages(), folder / "node_modules", target_is_directory=True)


def run_node(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a program of an export."""
    assert NODE is not None
    return subprocess.run(
        [NODE, *arguments], cwd=folder, input=given, capture_output=True, text=True, timeout=RUN_SECONDS
    )


def vectors_of_node(folder: Path, values: list[tuple[str, Any]]) -> list[Any]:
    """Return what ``embed`` of the example returns for (modality, value) pairs: a vector, or the text of an error."""
    return [found if isinstance(found, str) else np.array(found) for found in _call(folder, values, None)]


def inputs_of_node(folder: Path, descriptions: dict[str, Any], values: list[tuple[str, Any]]) -> list[Any]:
    """Return the inputs that the example makes of (name of a description, value) pairs: name -> array, or an error's text."""
    return [
        found if isinstance(found, str) else {k: np.reshape(data, shape) for k, (data, shape) in found.items()}
        for found in _call(folder, values, descriptions)
    ]


def _call(folder: Path, values: list[tuple[str, Any]], descriptions: dict[str, Any] | None) -> list[Any]:
    program = folder / "calls.mjs"
    program.write_text(CALLS)
    calls = [{"name": name, "value": value} for name, value in values]
    done = run_node(folder, program.name, given=json.dumps({"calls": calls, "descriptions": descriptions}))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
