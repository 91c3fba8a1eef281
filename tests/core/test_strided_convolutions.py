"""Strided 1x1 convolutions of few channels: the same results, computed in another way where they learn on a CPU."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from multimodal.core import registry
from multimodal.core.lora import LoRA, add_lora
from multimodal.core.strided_convolutions import SlicedConv2d, avoid_damaging_convolutions


class Functions(TorchFunctionMode):
    """The names of torch's functions that are called inside."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def sliced(convolution: nn.Conv2d, x: Tensor) -> bool:
    with Functions() as functions:
        convolution(x)
    return "__getitem__" in functions.names


@pytest.mark.parametrize(("stride", "bias"), [(2, False), ((1, 3), True), ((3, 2), False)])
@pytest.mark.parametrize("size", [(12, 12), (7, 13), (1, 5)])
def test_results_gradients_and_names_stay_the_same(stride: Any, bias: bool, size: tuple[int, int]) -> None:
    convolution = nn.Conv2d(5, 6, 1, stride, bias=bias).double()  # in float64 torch computes it without oneDNN
    expected, names = copy.deepcopy(convolution), list(convolution.state_dict())
    avoid_damaging_convolutions(convolution)
    avoid_damaging_convolutions(convolution)
    assert type(convolution) is SlicedConv2d
    assert list(convolution.state_dict()) == names
    x = torch.randn(4, 5, *size, dtype=torch.float64, requires_grad=True)
    for one in (convolution, copy.deepcopy(convolution), pickle.loads(pickle.dumps(convolution))):
        assert sliced(one, x)
        results = []
        for each in (one, expected):
            made = each(x)
            asked = [x, *each.parameters()]
            results.append([made, *torch.autograd.grad(made.square().sum(), asked)])
        torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def test_inference_and_other_devices_keep_the_strided_convolution() -> None:
    convolution = SlicedConv2d(4, 8, 1, 2)
    with torch.no_grad():
        assert not sliced(convolution, torch.randn(2, 4, 6, 6))
    assert not sliced(convolution.to("meta"), torch.empty(2, 4, 6, 6, device="meta"))


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(16, 8, 1, 2),
        nn.Conv2d(4, 8, 1, 1),
        nn.Conv2d(4, 8, 3, 2),
        nn.Conv2d(4, 8, 1, 2, padding=1),
        nn.Conv2d(4, 8, 1, 2, groups=2),
    ],
    ids=str,
)
def test_convolutions_that_damage_nothing_stay_as_they_are(convolution: nn.Conv2d) -> None:
    avoid_damaging_convolutions(convolution)
    assert type(convolution) is nn.Conv2d


def test_a_built_encoder_and_its_adapters_have_none_left() -> None:
    encoder = registry.create("audio", "spectrogram", channels=4)
    kinds = [type(block.skip) for block in encoder.get_submodule("blocks").children()]
    assert kinds == [SlicedConv2d, SlicedConv2d, SlicedConv2d, nn.Conv2d]  # of 4, 4, 8 and 16 channels
    add_lora(encoder, LoRA(r"blocks.0.skip", rank=2), "audio")
    assert type(encoder.get_submodule("blocks.0.skip.lora_A.default")) is SlicedConv2d
