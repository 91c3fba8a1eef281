"""Bounds on what a saved model may do while it is built: its weights file justifies the memory, and nothing is downloaded.

1. The header of the weights file says how many tensors and numbers the model has; it is read without the weights.
2. While the model is built from its settings, tensors are counted as they are made, and refused before they are allocated
   once there are many more than the header justifies. This holds for any encoder, as it looks at tensors, not at settings.
3. Meanwhile this thread cannot open a network connection: loading a saved model is local, whatever its settings name.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from multimodal.core.errors import MultimodalError
from multimodal.core.model_folder import open_weights

# What a model may hold at a time while it is built: also intermediate results, and a decoder that is dropped afterwards.
FREE_BYTES, BYTES_PER_STORED_NUMBER = 2**28, 16
FREE_OPERATIONS, OPERATIONS_PER_TENSOR = 10_000, 100
FREE_MODULES, MODULES_PER_TENSOR = 5_000, 20
SMALL = 2**13  # numbers that an operation is given; with fewer, its result is not predicted: it is at most their square
MANY = 2**40
NETWORK_EVENTS = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


@dataclass(frozen=True)
class StoredSizes:
    """What a weights file holds.

    Args:
        tensors: the number of tensors.
        numbers: the number of all their elements.
    """

    tensors: int
    numbers: int


def stored_sizes(path: Path) -> StoredSizes:
    """Read the number and sizes of the tensors of a safetensors file from its header.

    Raises:
        MultimodalError: the file is missing or damaged.
    """
    with open_weights(path) as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    return StoredSizes(len(shapes), sum(map(math.prod, shapes)))


@contextmanager
def bounded_building(sizes: StoredSizes, what: str) -> Iterator[None]:
    """Build a model in the block from settings that are not trusted.

    Args:
        sizes: of the weights that the model will load.
        what: the model, for errors.

    Raises:
        MultimodalError: the settings describe a model that is far larger than its weights, or that would be downloaded, or
            cannot be built.
    """
    attempts: list[str] = []
    bounds = _Bounds(sizes)
    _watch_network()
    token = _refused.set(attempts)
    counted = register_module_module_registration_hook(bounds.count_module)
    try:
        with bounds:
            yield
    except Exception as error:
        if bounds.exceeded is not None:  # libraries catch and translate errors of all kinds
            raise MultimodalError(
                f"{what} is not built: its settings describe a model of more {bounds.exceeded} than its weights file, which"
                f" holds {sizes.tensors:,} tensors of {sizes.numbers:,} numbers in all, can justify. Copy both files from"
                " the same model."
            ) from error
        if attempts:
            raise MultimodalError(
                f"{what} is not built: its settings name something to download ({attempts[0]}); a saved model is loaded"
                " from its own files alone."
            ) from error
        if isinstance(error, MultimodalError):
            raise
        raise MultimodalError(f"{what} cannot be built from its settings: {type(error).__name__}: {error}") from error
    finally:
        counted.remove()
        _refused.reset(token)


class _TooLarge(Exception):
    """More is built than the weights justify."""


class _Bounds(TorchDispatchMode):
    """Counts the tensors, their numbers and the modules that this thread makes."""

    def __init__(self, sizes: StoredSizes) -> None:
        super().__init__()
        self.exceeded: str | None = None
        self._thread = get_ident()
        self._left = {
            "bytes": FREE_BYTES + BYTES_PER_STORED_NUMBER * sizes.numbers,
            "tensors": FREE_OPERATIONS + OPERATIONS_PER_TENSOR * sizes.tensors,
            "modules": FREE_MODULES + MODULES_PER_TENSOR * sizes.tensors,
        }

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would import its compiler, which takes a second

    def count_module(self, module: nn.Module, name: str, added: nn.Module | None) -> None:
        if get_ident() == self._thread:  # the hook is of all threads
            self._take("modules", 1)

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        self._take("tensors", 1)
        if not _makes_new(func):
            return func(*args, **kwargs)
        self._take("bytes", predicted := _predict_bytes(func, args, kwargs))
        self._free("bytes", predicted)
        result = func(*args, **kwargs)
        for storage in {id(s): s for s in map(Tensor.untyped_storage, _tensors(result))}.values():
            size = storage.nbytes()
            finalize(storage, self._free, "bytes", size).atexit = False
            self._take("bytes", size)
        return result

    def _take(self, what: str, count: int) -> None:
        self._left[what] -= count
        if self._left[what] < 0:
            self.exceeded = self.exceeded or what
            raise _TooLarge(f"too many {what}")

    def _free(self, what: str, count: int) -> None:
        self._left[what] += count


@lru_cache(None)
def _makes_new(func: Any) -> bool:
    """Whether an operation returns memory of its own, not a view or one of its arguments."""
    return any(value.alias_info is None for value in func._schema.returns)


@lru_cache(None)
def _arguments(func: Any) -> tuple[str, ...]:
    return tuple(argument.name for argument in func._schema.arguments)


def _predict_bytes(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return the size of a result, from the operation on tensors without memory; 0: it is small, or unknown."""
    names = _arguments(func)
    creates = "device" in names
    if creates and names[0] == "size" and args:  # such as empty and randn; quicker than on tensors without memory
        return math.prod(args[0]) * (kwargs.get("dtype") or torch.get_default_dtype()).itemsize
    values = tree_leaves((args, kwargs))
    if sum(value.numel() if isinstance(value, Tensor) else _whole(value) for value in values) <= SMALL:
        return 0
    changes: dict[str, Any] = {"device": "meta"} if creates else {}
    if "generator" in kwargs:
        changes["generator"] = None
    try:
        result = func(*tree_map(_without_memory, args), **tree_map(_without_memory, kwargs) | changes)
    except Exception:  # of operations that need values; their result is measured when it is there
        return 0
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(result))


def _whole(value: Any) -> int:
    """Return a number, of steps or repetitions, without its sign and fraction; other values are 0."""
    return int(min(abs(value), MANY)) if isinstance(value, int | float) and value == value else 0


def _without_memory(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


_refused: ContextVar[list[str] | None] = ContextVar("_refused", default=None)
_watching = False


class NetworkRefusedError(MultimodalError):
    """A connection was about to be opened while a saved model is loaded."""


def _watch_network() -> None:
    """Install the audit hook, once for the process: it cannot be removed, and does nothing outside ``bounded_building``."""
    global _watching
    if not _watching:
        _watching = True
        sys.addaudithook(_refuse_network)


def _refuse_network(event: str, args: tuple[Any, ...]) -> None:
    if event in NETWORK_EVENTS and (attempts := _refused.get()) is not None:
        place = args[1] if event in ("socket.connect", "socket.sendto") else args[0]
        attempts.append(str(place))
        raise NetworkRefusedError(f"a connection to {place} is refused while a saved model is loaded")
