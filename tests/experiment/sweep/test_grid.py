"""The keys of a sweep: their values, combinations and names."""

from __future__ import annotations

import re
from typing import Any

import pytest

from multimodal.core.errors import UsageError
from multimodal.experiment.sweep.grid import (
    Range,
    as_arguments,
    combinations,
    parse_grid,
    run_name,
    short_names,
    single_settings,
)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("64,256", [64, 256]),
        ("cnn", ["cnn"]),
        ("null, true,0.5", [None, True, 0.5]),
        ("[1, 2],[3]", [[1, 2], [3]]),
        ('"a,b",c', ["a,b", "c"]),
        ("1e-3,1e-2", ["1e-3", "1e-2"]),  # texts, which the configuration's parser reads as numbers
        ("0.001..0.1", Range(0.001, 0.1)),
        ("-1..1e-2", Range(-1, 0.01)),
        ("16..256", Range(16, 256)),
        ((1, 2), [1, 2]),
    ],
)
def test_values_are_read_as_in_a_configuration(text: Any, values: Any) -> None:
    assert parse_grid({"model.dim": text}) == {"model.dim": values}


def test_a_range_of_whole_numbers_has_whole_numbers() -> None:
    assert (Range(16, 256).is_whole, Range(16, 256.0).is_whole) == (True, False)
    assert [Range(*ends).is_log for ends in ((1, 10), (1, 9), (0, 10), (-10, 100))] == [True, False, False, False]


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({}, "needs a key with its values"),
        ({"model.dim": ""}, "model.dim has no values"),
        ({"model.dim": []}, "model.dim has no values"),
        ({"model.dim": 64}, "model.dim has no values; write it as model.dim=64,256"),
        ({"model.dim": "64,128,64"}, "the value 64 twice"),
        ({"model.dim": "[64"}, "'[64' is not a list of values"),
        ({"model.dim": "2..1"}, "2..1 ends before it begins"),
        ({"run": "a,b"}, "run is set by the sweep"),
        ({"--model.dim": "1"}, "'--model.dim' is not the key of a setting"),
    ],
)
def test_what_is_not_a_grid_is_refused(grid: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        parse_grid(grid)


def test_every_combination_occurs_once_and_every_value_is_checked() -> None:
    grid = parse_grid({"a": "1,2", "b": "x,y,z"})
    assert [tuple(settings.values()) for settings in combinations(grid)] == [
        *((1, "x"), (1, "y"), (1, "z"), (2, "x"), (2, "y"), (2, "z")),
    ]
    checked = [tuple(settings.values()) for settings in single_settings(grid | {"c": Range(0.1, 1)})]
    assert checked == [(1, "x", 0.1), (2, "x", 0.1), (1, "y", 0.1), (1, "z", 0.1), (1, "x", 1)]
    with pytest.raises(UsageError, match=re.escape("c has the range 1..9, from which only --optuna N can choose")):
        list(combinations(parse_grid({"c": "1..9"})))


def test_names_are_short_distinct_and_those_of_files() -> None:
    keys = [
        "model.encoders.text",
        "model.encoders.text.init_args.width",
        "model.encoders.image.init_args.width",
        "data.x",
    ]
    assert list(short_names(keys).values()) == ["text", "text.width", "image.width", "x"]
    grid = parse_grid({"model.encoders.text": "../a b,c", "model.optimizer.init_args.lr": [0.00123456, 1.0]})
    name = run_name(7, 2, {"model.encoders.text": "../a b", "model.optimizer.init_args.lr": 0.00123456}, grid)
    assert name == "07_text=..-a-b_lr=0.001235"
    assert len(run_name(1, 1, {"k": "x" * 500}, {"k": ["x" * 500, "y"]})) == 100


def test_settings_are_options_of_fit() -> None:
    settings = {"model.dim": 64, "model.freeze.image": "all", "data.options": {"delimiter": ";"}, "model.seed": None}
    expected = ["--model.dim=64", "--model.freeze.image=all", '--data.options={"delimiter": ";"}', "--model.seed=null"]
    assert as_arguments(settings) == expected
