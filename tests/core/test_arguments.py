"""Arguments are checked by their names and annotations, as the command line checks a configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from multimodal.core.arguments import check_arguments, fits
from multimodal.core.errors import UsageError
from multimodal.core.recording import Recorded


class Shop(Recorded):
    argument_examples: ClassVar[Mapping[str, str]] = {"name": "'cups'", "shares": "{'a': 0.5}"}
    set_elsewhere: ClassVar[Mapping[str, str]] = {"colour": "Paint it."}

    def __init__(
        self, name: str, shares: dict[str, float] | None = None, *, size: int = 3, order: Literal["up", "down"] = "up"
    ) -> None: ...


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "a", "sise": 3}, r"Shop\(\) takes no argument 'sise'\. Did you mean 'size'\?$"),
        ({"name": "a", "shares": {3: 0.5}}, r"a name in shares must be a string, not 3"),
        ({"name": "a", "colour": 3}, r"takes no argument 'colour'\. Paint it\.$"),
        ({"name": "a", "zzz": 3}, r"takes no argument 'zzz'\. Known: name, order, shares, size\.$"),
        ({"name": "a", "size": int}, r"not the class int\.$"),
        ({}, r"Shop\(\) needs name; for example, name='cups'\.$"),
        ({"name": 3}, r"Shop: name must be a string, not 3; for example"),
        (
            {"name": "a", "shares": 0.9},
            r"Shop: shares must be a mapping, not 0\.9; for example, shares=\{'a': 0\.5\}\.$",
        ),
        ({"name": "a", "shares": {"a": "b"}}, r"Shop: shares\['a'\] must be a number, not 'b'; for example, shares="),
        ({"name": "a", "size": "16"}, r"size must be a whole number, not '16'\.$"),
        ({"name": "a", "order": "left"}, r"order must be 'up' or 'down', not 'left'\.$"),
        ({"name": "a" * 2, "size": ["x" * 500]}, r"size must be a whole number, not a list\.$"),
    ],
)
def test_wrong_arguments_are_wrong_usage(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Shop(**arguments)


def test_too_many_arguments_are_wrong_usage() -> None:
    with pytest.raises(UsageError, match="takes at most 4 arguments"):
        Shop("a", None, 3, "up", 5)  # pyright: ignore[reportCallIssue]


def test_right_arguments_are_recorded() -> None:
    assert Shop("a", size=4).init_args == {"name": "a", "shares": None, "size": 4, "order": "up"}


@pytest.mark.parametrize(
    ("hint", "right", "wrong"),
    [
        (Any, [3, None, "a"], []),
        (bool, [True, np.bool_(True), 1], ["true", None]),
        (int, [3, True, np.int64(3)], ["3", 3.0, None]),
        (float, [3, 0.5, np.float32(2)], ["0.5", None]),
        (str, ["a", Path("a")], [3, None, ["a"]]),
        (str | None, ["a", None], [3]),
        (list[str], [["a"], ("a",), []], ["a", {"a": 1}, [3], 3]),
        (Sequence[str], [["a"], ("a",), iter(["a"])], ["a", 3]),
        (tuple[int, int], [(1, 2), [1, 2]], [3, "ab"]),
        (Mapping[str, int], [{}, {"a": 1}], [{"a": "b"}, {1: 1}, [("a", 1)]]),
        (dict[str, str | list[str]], [{"a": "b"}, {"a": ["b"]}], [{"a": 3}, "a"]),
        (Callable[[int], int], [abs, lambda x: x, int], ["abs", None]),
        (Iterable[Any], [[1], (n for n in (1, 2))], [3]),
        (Path, [Path("a")], ["a"]),
    ],
)
def test_values_fit_their_annotation(hint: Any, right: list[Any], wrong: list[Any]) -> None:
    assert [value for value in right if not fits(value, hint)] == []
    assert [value for value in wrong if fits(value, hint)] == []


@given(value=st.recursive(st.none() | st.booleans() | st.integers() | st.floats(0, 1), st.lists, max_leaves=4))
@pytest.mark.parametrize("hint", [int | None, float, list[int], list[float] | None, bool])
def test_what_the_command_line_takes_from_yaml_fits(hint: Any, value: Any) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--x", type=hint)
    try:
        parsed = parser.parse_object({"x": value}).x
    except Exception:  # whatever jsonargparse refuses
        return
    assert parsed is None or fits(parsed, hint)  # jsonargparse takes null for "not given"


def test_annotations_for_type_checkers_only_are_not_checked() -> None:
    def init(self: Any, value: Unknown) -> None: ...  # noqa: F821  # pyright: ignore[reportUndefinedVariable]

    check_arguments("Shop", init, [3], {})
