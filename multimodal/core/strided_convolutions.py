"""Strided 1x1 convolutions of few channels, computed so that their gradient does not damage memory on a CPU.

On x86 processors, oneDNN (which torch computes with) reserves too little memory for the gradient of such a convolution's
weights when the tensors are in channels-last order, and writes past its end: a crash, an endless loop or wrong gradients
(https://github.com/uxlfoundation/oneDNN/issues/6035; docs/known_problems.md has the details). A 1x1 convolution reads
only every stride-th position, so selecting these positions first and convolving them without a stride is equivalent.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SAFE_CHANNELS = 16  # the error needs fewer input channels than one AVX-512 register holds numbers (AVX2: 8)


class SlicedConv2d(nn.Conv2d):
    """A strided 1x1 convolution without padding or groups; with gradients on a CPU, it is a slice and a plain convolution.

    It is constructed, saved and loaded like ``nn.Conv2d``, and computes like one on a GPU and for inference (also in exports).

    Examples:
        >>> SlicedConv2d(4, 8, kernel_size=1, stride=2)(torch.zeros(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve ``(n, in_channels, height, width)`` to ``(n, out_channels, ...)``, with sizes divided by the stride."""
        if input.device.type != "cpu" or not torch.is_grad_enabled():
            return super().forward(input)
        down, across = self.stride
        return functional.conv2d(input[..., ::down, ::across], self.weight, self.bias)


def avoid_damaging_convolutions(encoder: nn.Module) -> None:
    """Turn the strided 1x1 convolutions of few channels in a built encoder into ``SlicedConv2d``; a second call has no effect.

    The weights, their names and the results do not change. peft builds the adapters of a convolution from the
    convolution's class, so they are covered too.
    """
    for module in encoder.modules():
        if type(module) is nn.Conv2d and _is_damaging(module):
            module.__class__ = SlicedConv2d


def _is_damaging(convolution: nn.Conv2d) -> bool:
    return (
        convolution.kernel_size == (1, 1)
        and convolution.stride != (1, 1)
        and convolution.padding in ((0, 0), "valid")
        and convolution.groups == 1
        and convolution.in_channels < SAFE_CHANNELS
    )
