"""The keys of ``data:`` on a command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimodal.cli.data_options import add_data_options, data_settings, parse_with_data
from multimodal.cli.options import parser
from multimodal.core.errors import MultimodalError, UsageError


def parsed(arguments: str) -> tuple[Any, dict[str, Any]]:
    p = parser("prepare", "A command.")
    p.add_argument("table")
    p.add_argument("--json", action="store_true")
    add_data_options(p)
    return parse_with_data(p, arguments.split())


@pytest.mark.parametrize(
    ("arguments", "data"),
    [
        ("t.csv", {}),
        ("t.csv --columns.image picture", {"columns": {"image": "picture"}}),
        ("--columns.image=picture --columns.text=a=b t.csv", {"columns": {"image": "picture", "text": "a=b"}}),
        ("t.csv --columns.text name --columns.text words", {"columns": {"text": ["name", "words"]}}),
        (
            "t.csv --key id --group g --split s --max_rejects 0.05",
            {"key": "id", "group": "g", "split": "s", "max_rejects": 0.05},
        ),
        ('t.csv --options {"delimiter":";"}', {"options": {"delimiter": ";"}}),
    ],
)
def test_the_options_given_are_the_keys_of_data(arguments: str, data: dict[str, Any]) -> None:
    options, found = parsed(arguments)
    assert found == data
    assert (options.table, options.json) == ("t.csv", False)


@pytest.mark.parametrize(
    "words", [["--max_rejects", "2"], ["--max_rejects", "x"], ["--options", "3"], ["--options", "{"]]
)
def test_options_that_cannot_be_are_refused(words: list[str]) -> None:
    p = parser("prepare", "A command.")
    add_data_options(p)
    with pytest.raises(UsageError, match=r"is not a fraction|write it as|is not YAML"):
        parse_with_data(p, words)


def test_a_command_takes_the_keys_that_it_asks_for() -> None:
    p = parser("embed", "A command.")
    p.add_argument("--split", default="all")  # of another meaning
    add_data_options(p, ["key"])
    options, found = parse_with_data(p, ["--key", "id", "--split", "test"], ["key"])
    assert (found, options.split) == ({"key": "id"}, "test")


def test_options_change_what_a_configuration_says(tmp_path: Path) -> None:
    config = tmp_path / "pairs.yaml"
    config.write_text("data: {table: pairs.csv, columns: {text: title}, key: id, batch_size: 3}\nmodel: {dim: 4}\n")
    assert data_settings(str(config), {"key": "sku", "group": "g"}) == {
        "table": "pairs.csv",
        "columns": {"text": "title"},
        "key": "sku",
        "batch_size": 3,
        "group": "g",
    }
    assert data_settings("pairs.csv", {"key": "sku"}) == {"table": "pairs.csv", "key": "sku"}


@pytest.mark.parametrize("content", ["data: [", "data: 3", "model: {}", "data: {columns: {text: t}}", "\x00"])
def test_a_configuration_without_a_table_is_reported(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(MultimodalError, match=r"The configuration .*c\.yaml"):
        data_settings(str(tmp_path / "c.yaml"), {})
