"""The layers of any encoder, from its input to its output, and its modules by name."""

from __future__ import annotations

import re
from collections.abc import Iterator

from torch import nn

from multimodal.core.errors import UsageError

MAX_NAMES_SHOWN = 12  # in an error message


MAX_LAYERS = 1000  # of an encoder; a configuration with more is a mistake, and would fill the memory before training


def check_layers(owner: str, name: str, layers: int) -> None:
    """Check a number of layers before they are made.

    Args:
        owner: the encoder, for the error.
        name: the setting.
        layers: its value.

    Raises:
        UsageError: the number is negative, or above 1,000.
    """
    if not 0 <= layers <= MAX_LAYERS:
        raise UsageError(f"{owner}: {name} must be from 0 to {MAX_LAYERS:,}, got {layers:.12g}.")


def parameter_names_by_depth(encoder: nn.Module) -> list[list[str]]:
    """Group the names of the parameters by depth; 0 is next to the input.

    A stack is a ``ModuleList`` or ``Sequential`` of composed modules of one class (transformer blocks, residual blocks).
    Modules before the first stack are depth 0 (embeddings, patches, stem). Each module of a stack is one depth, and so is
    each module with matrices between and after the stacks (a pooler). Norms belong to the layer that they follow. Parameters
    next to a stack are depth 0, but if "proj" is in their name, the last depth. Embeddings are always depth 0, even after
    the stack (of relative positions). An encoder without a stack is one layer.
    """
    depths: list[list[str]] = [[]]
    projections: list[str] = []
    for names, module, stacked in _walk(encoder):
        if module is None:
            for name in names:
                (projections if "proj" in name.rpartition(".")[2] else depths[0]).append(name)
        elif not stacked and _is_embedding(names[0], module):
            depths[0].extend(names)
        elif stacked or (len(depths) > 1 and any(p.ndim > 1 for p in module.parameters())):
            depths.append(names)
        else:
            depths[-1].extend(names)
    depths[-1].extend(projections)
    return [names for names in depths if names]


def _is_embedding(name: str, module: nn.Module) -> bool:
    """Whether a module is an embedding or its norm; ``name`` is one of its parameters."""
    return isinstance(module, nn.Embedding) or "embed" in name.rpartition(".")[0].rpartition(".")[2]


def stacked_blocks(encoder: nn.Module) -> list[nn.Module]:
    """Return the modules of the encoder's stacks; the encoder itself if it has none."""
    return [module for _, module, stacked in _walk(encoder) if module is not None and stacked] or [encoder]


def _walk(
    module: nn.Module, prefix: str = "", stacked: bool = False
) -> Iterator[tuple[list[str], nn.Module | None, bool]]:
    """Yield, for each module without a stack, the names of its parameters, the module, and whether it is in a stack.

    Parameters next to a stack come without a module.
    """
    if not any(map(_is_stack, module.modules())):
        names = [prefix + name for name, _ in module.named_parameters()]
        if names:
            yield names, module, stacked
        return
    direct = [prefix + name for name, _ in module.named_parameters(recurse=False)]
    if direct:
        yield direct, None, False
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}{name}.", _is_stack(module))


def _is_stack(module: nn.Module) -> bool:
    children = list(module.children())
    return (
        isinstance(module, nn.ModuleList | nn.Sequential)
        and len(children) > 0
        and len({type(child) for child in children}) == 1
        and any(True for _ in children[0].children())
        and any(True for _ in children[0].parameters())
    )


def match_parameter_names(names: list[str], pattern: str, setting: str) -> list[str]:
    """Return the names, such as ``net.layer1.0.weight``, that a pattern matches, and all names below them.

    Args:
        names: of modules or parameters.
        pattern: a regular expression that matches the full name of a module: ``net.(conv1|layer[12])``.
        setting: the name of the setting that holds the pattern, for the error.

    Raises:
        UsageError: the pattern is not a regular expression, or matches nothing.
    """
    try:
        compiled = re.compile(rf"(?:{pattern})(?:\.|$)")
    except re.error as error:
        raise UsageError(f"{setting}: {pattern!r} is not a regular expression ({error}).") from error
    matches = [name for name in names if compiled.match(name)]
    if not matches:
        parts = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
        shown = ", ".join(parts[:MAX_NAMES_SHOWN]) + (", ..." if len(parts) > MAX_NAMES_SHOWN else "")
        nested_name = next((name for name in names if re.search(rf"\.(?:{pattern})(?:\.|$)", name)), None)
        hint = f" To match it inside {nested_name}, write '.*({pattern})'." if nested_name else ""
        raise UsageError(
            f"{setting}: {pattern!r} matches no module of the encoder; the names of its modules begin with"
            f" {shown}.{hint}"
        )
    return matches
