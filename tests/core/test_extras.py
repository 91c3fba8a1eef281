"""The extra that an encoder needs, and which of its libraries are missing, by its package's metadata."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, PathDistribution, version
from pathlib import Path
from typing import Any

import pytest

from multimodal.core import extras
from multimodal.core.encoder import Encoder
from multimodal.core.errors import UsageError
from multimodal.core.registry import Registration


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Encoder]:
    """A class of a package that announces encoders and has extras."""
    info = tmp_path / "nose-1.0.dist-info"
    info.mkdir()
    needs = [
        "numpy", f"torch=={version('torch')} ; extra == 'smells'", "no-such-thing>=1 ; extra == 'smells'",
        "numpy>=999 ; extra == 'smells'", "torch>=999 ; extra == 'tastes'",
        "nose[smells,tastes] ; extra == 'both'",
    ]  # fmt: skip
    lines = ["Metadata-Version: 2.1", "Name: nose", "Version: 1.0", *(f"Requires-Dist: {need}" for need in needs)]
    (info / "METADATA").write_text("\n".join(lines) + "\n")

    class Point:
        value, dist = "nose.encoders", PathDistribution(info)

    monkeypatch.setattr(extras, "entry_points", lambda group: [Point()])
    cls: Any = type("Nose", (), {"__module__": "nose.encoders.smell"})
    return cls


def test_missing_libraries_of_an_extra_are_named_with_the_command(package: type[Encoder]) -> None:
    extra = extras.extra_of(Registration("smell", "nose", package, "smells"))
    assert extra == extras.Extra("pip install 'nose[smells]'", ("no-such-thing", "numpy"))
    both = extras.extra_of(Registration("smell", "nose", package, "both"))
    assert both == extras.Extra("pip install 'nose[both]'", ("no-such-thing", "numpy", "torch"))
    with pytest.raises(PackageNotFoundError):
        version("no-such-thing")


def test_an_encoder_without_an_extra_or_a_package_needs_nothing(package: type[Encoder]) -> None:
    assert extras.extra_of(Registration("smell", "nose", package, None)) is None
    package.__module__ = "my_own"
    assert extras.extra_of(Registration("smell", "nose", package, "smells")) is None


def test_a_missing_library_is_an_error_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    extras.require("prepare", "Preparing a table", "imagehash", "datasketch")
    monkeypatch.setitem(sys.modules, "datasketch", None)
    with pytest.raises(
        UsageError, match=r"^Preparing a table needs the library datasketch .*multimodal\[prepare\]'\.$"
    ):
        extras.require("prepare", "Preparing a table", "imagehash", "datasketch")
