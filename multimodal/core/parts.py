"""How a value comes apart: its named parts, the item without each of them, and a drawing of what each part does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from multimodal.core.errors import Unreadable

Changes = Sequence[float]  # how much of the score each part is worth; NaN: not known


@dataclass(frozen=True)
class Parts:
    """The parts of one value, as ``Processor.parts`` returns them.

    ``explain`` encodes the items without each part and compares their scores with that of the complete value. Parts may
    contain each other, as an atom and its bonds do: each is removed alone.

    Args:
        names: a name of each part, which a person finds in the value: "cup", "row 2, column 5", "atom 3 (N)". They need not
            differ.
        without: from the number of a part to the item that ``Processor.__call__`` would return without it. It raises an
            ``Unreadable`` if nothing is left without the part, or nothing that can be read.
        kinds: what each part is: "word", "atom". Where parts of two kinds are worth the same, the kind that is
            listed first comes first, so list small parts before those that contain them.
        draw: from the worth of each part to a drawing, see ``multimodal.media.shading``, as a piece of HTML: it uses
            no file, script or address, and all text in it is escaped. None: the parts are listed only.

    Raises:
        ValueError: there are not as many kinds as names.

    Examples:
        >>> words = ["red", "cup"]
        >>> parts = Parts(words, lambda number: [w for n, w in enumerate(words) if n != number], ["word"] * 2)
        >>> parts.without(0)
        ['cup']
    """

    names: Sequence[str]
    without: Callable[[int], Any]
    kinds: Sequence[str]
    draw: Callable[[Changes], str] | None = None

    def __post_init__(self) -> None:
        if len(self.kinds) != len(self.names):
            raise ValueError(f"{len(self.names)} parts have {len(self.kinds)} kinds; give each part its kind.")

    def __len__(self) -> int:
        return len(self.names)


def nothing_left(part: str) -> Unreadable:
    """Make the error of ``Parts.without`` for a part that is the whole value."""
    return Unreadable("nothing left", f"nothing is left without {part}.")
