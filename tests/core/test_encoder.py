"""The contract of a modality: settings that rebuild an encoder, and a processor that does nothing unasked."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from multimodal.core import registry
from multimodal.core.encoder import Encoder, Processor


class Doubled(Processor):
    def __call__(self, value: Any) -> Any:
        return 2 * value

    def collate(self, items: Any) -> dict[str, Tensor]:
        return {"x": torch.tensor(items)}


class Base(Encoder):
    def __init__(self, width: int, scale: float = 1.5, *, names: list[str] | None = None) -> None:
        super().__init__()
        self.width, self.scale, self.names, self.processor = width, scale, names, Doubled()
        self.linear = nn.Linear(1, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x[:, None].float())


class Inheriting(Base):
    pass


class Narrow(Base):
    def __init__(self, part: int = 2) -> None:
        super().__init__(8 // part, scale=float(part))


class Open(Base):
    def __init__(self, width: int = 2, **more: Any) -> None:
        super().__init__(width, **more)


@pytest.mark.parametrize(
    ("encoder", "settings"),
    [
        pytest.param(Base(4), {"width": 4, "scale": 1.5, "names": None}, id="defaults"),
        pytest.param(Base(4, 2.0, names=["a"]), {"width": 4, "scale": 2.0, "names": ["a"]}, id="given by position"),
        pytest.param(Base(names=[], width=1), {"width": 1, "scale": 1.5, "names": []}, id="given by name"),
        pytest.param(Inheriting(4, 2.0), {"width": 4, "scale": 2.0, "names": None}, id="inherited constructor"),
        pytest.param(Narrow(), {"part": 2}, id="own constructor"),
    ],
)
def test_the_settings_are_the_arguments_that_build_the_encoder_again(encoder: Base, settings: dict[str, Any]) -> None:
    assert encoder.settings == settings
    again = type(encoder)(**json.loads(json.dumps(encoder.settings)))
    assert again.settings == settings
    assert (again.width, again.scale, again.names) == (encoder.width, encoder.scale, encoder.names)


@pytest.mark.parametrize("more", [{}, {"scale": 2.0}, {"names": ["a"], "scale": 2.0}])
def test_the_settings_of_a_constructor_with_open_arguments_build_the_encoder_again(more: dict[str, Any]) -> None:
    encoder = Open(3, **more)
    assert encoder.settings == {"width": 3} | more
    again = registry.create("number", f"{__name__}.Open", **json.loads(json.dumps(encoder.settings)))
    assert isinstance(again, Open)
    assert again.settings == encoder.settings
    assert (again.width, again.scale, again.names) == (encoder.width, encoder.scale, encoder.names)


def test_a_constructor_whose_arguments_have_no_names_is_refused() -> None:
    with pytest.raises(
        TypeError, match=r"Nameless\.__init__: arguments that are recorded need names; it cannot take \*"
    ):

        class Nameless(Base):
            def __init__(self, *sizes: int) -> None:
                super().__init__(sizes[0])


def test_wrong_arguments_fail_as_they_do_for_any_constructor() -> None:
    with pytest.raises(TypeError, match="width"):
        Base(widht=3)  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize(("modality", "name"), [("image", "cnn"), ("graph", "gnn"), ("text", "transformer")])
def test_an_encoder_of_the_package_is_built_again_from_its_settings_as_json(modality: str, name: str) -> None:
    encoder = registry.create(modality, name)
    again = registry.create(modality, name, **json.loads(json.dumps(encoder.settings)))
    assert again.settings == encoder.settings
    assert [p.shape for p in again.parameters()] == [p.shape for p in encoder.parameters()]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_a_copy_keeps_the_settings_and_the_weights(copied: Any) -> None:
    encoder = Narrow(4)
    other = copied(encoder)
    assert other.settings == {"part": 4}
    x = torch.tensor([1.0, 2.0])
    assert torch.equal(other(x), encoder(x))


def test_a_processor_that_learns_nothing_has_no_state_and_changes_no_item() -> None:
    processor, item = Doubled(), object()
    assert processor.augment(item, np.random.default_rng(0)) is item
    processor.fit([1, 2])
    assert processor.state() == {}
    processor.load_state({})
    with pytest.raises(ValueError, match=r"Doubled has no state to load, got \['mean'\]"):
        processor.load_state({"mean": 1.0})
