"""Weights from files: what comes back, and what is said of files that hold none."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from multimodal_encoders.hub.weights import download_error, load_weights, read_weights
from safetensors.torch import save_file
from torch import nn

from multimodal.core.errors import MultimodalError


class Evil:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "old.pt", "training.ckpt", "deit.pth"])
def test_weights_come_back_from_each_format(name: str, tmp_path: Path) -> None:
    state = nn.Linear(3, 2).state_dict()
    if name == "w.safetensors":
        save_file(state, tmp_path / name)
    elif name == "training.ckpt":
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / name)
    elif name == "deit.pth":
        torch.save({"model": state}, tmp_path / name)
    else:
        torch.save(state, tmp_path / name, _use_new_zipfile_serialization=name == "w.pth")
    found = read_weights(tmp_path / name)
    torch.testing.assert_close(found, dict(state), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pth", None, "no file of weights"),
        ("text.safetensors", b"hello", "cannot be read as weights"),
        ("text.pth", b"hello", "cannot be read as weights"),
        ("empty.pth", b"", "cannot be read as weights"),
        ("half.pth", b"PK\x03\x04 and no more", "cannot be read as weights"),
        ("code.pth", pickle.dumps(Evil(), protocol=2), "holds Python objects, which could run arbitrary code"),
    ],
)
def test_a_file_without_weights_is_refused(
    name: str, content: bytes | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MultimodalError, match=message):
        read_weights(tmp_path / name)
    assert not Path("touched").exists()


@pytest.mark.parametrize("held", [[1, 2], {"epoch": 3}, {}, {"state_dict": {"a": 1}}])
def test_other_things_of_torch_are_not_weights(held: Any, tmp_path: Path) -> None:
    torch.save(held, tmp_path / "w.pt")
    with pytest.raises(MultimodalError, match="holds no weights by name"):
        read_weights(tmp_path / "w.pt")


def test_an_empty_safetensors_file_holds_no_weights(tmp_path: Path) -> None:
    save_file({}, tmp_path / "w.safetensors")
    with pytest.raises(MultimodalError, match="holds no weights by name"):
        read_weights(tmp_path / "w.safetensors")


def test_all_weights_must_fit() -> None:
    layer = nn.Linear(3, 2)
    given = {"weight": torch.ones(2, 3), "bias": torch.ones(2)}
    load_weights(layer, given, "w.pth")
    assert torch.equal(layer.weight, given["weight"])
    wrong = {"weight": torch.ones(2, 4), "scale": torch.ones(2)}
    with pytest.raises(
        MultimodalError,
        match=r"w.pth does not fit the Linear .*: 1 missing \(bias\); 1 unexpected \(scale\); "
        r"1 of another shape \(weight \(2, 4\) instead of \(2, 3\)\)",
    ):
        load_weights(layer, wrong, "w.pth")


def test_what_cannot_be_downloaded_is_said_with_what_to_do() -> None:
    error = download_error("the weights A of net", OSError("no route\nmore"), "Put x to y.")
    assert str(error) == (
        "The weights A of net are not on this machine and could not be downloaded (no route). Put x to y."
    )
