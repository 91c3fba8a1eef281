"""Values are cleaned to one form or rejected with a reason."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.errors import Unreadable
from multimodal.core.rejects import Reject
from multimodal.prepare.cleaning import Cleaner, File, as_text, clean_text, is_missing, read_file, to_text
from multimodal.prepare.columns import Column
from multimodal.prepare.source import Row


def reference(text: str) -> str:
    """Apply the rule one character at a time."""
    kept = [c for c in text if c.isspace() or not (unicodedata.category(c) == "Cc" or c == "\ufeff")]
    spaced = "".join(" " if c.isspace() else c for c in kept)
    clean = unicodedata.normalize("NFC", " ".join(word for word in spaced.split(" ") if word))
    return "" if all(unicodedata.category(c) in ("Cf", "Zs") for c in clean) else clean


@given(st.text())
def test_cleaning_follows_the_rule_and_is_idempotent(text: str) -> None:
    clean = clean_text(text)
    assert clean == reference(text)
    assert clean_text(clean) == clean


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a\tb\r\nc  ", "a b c"),
        ("cafe\u0301", "café"),
        ("\ufefftitle", "title"),
        ("nul\x00l\x1b[1m", "null[1m"),
        ("non\u00a0breaking\u2028line", "non breaking line"),
        ("👩\u200d👧", "👩\u200d👧"),  # joiners have a meaning
        ("\x00\t ", ""),
        ("\u200b", ""),
        ("\u200b \u2060", ""),
    ],
)
def test_examples_of_clean_texts(raw: str, clean: str) -> None:
    assert clean_text(raw) == clean


MISSING = [None, "", " \t", float("nan")]
THERE = [0, False, "0", b"", [], float("inf")]


@pytest.mark.parametrize(("value", "missing"), [(v, True) for v in MISSING] + [(v, False) for v in THERE])
def test_what_is_missing(value: Any, missing: bool) -> None:
    assert is_missing(value) == missing


@pytest.mark.parametrize(("value", "text"), [("a", "a"), ("é".encode(), "é"), (7, "7"), (0.5, "0.5"), (True, "true")])
def test_a_text_column_may_hold_texts_bytes_and_numbers(value: Any, text: str) -> None:
    assert as_text(value) == text


@pytest.mark.parametrize(
    ("value", "reason"),
    [(b"caf\xe9", "broken encoding"), ("\ud800", "broken encoding"), ([1], "not a text"), ({}, "not a text")],
)
def test_non_text_values_have_a_reason(value: Any, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        as_text(value)
    assert caught.value.reason == reason


@given(st.dictionaries(st.text(), st.integers() | st.text(st.characters(exclude_categories=["Cs"]))))
def test_the_text_of_a_mapping_is_independent_of_the_order_of_its_entries(value: dict[str, Any]) -> None:
    if all(key.isprintable() for key in value):
        assert to_text(value) == to_text(dict(reversed(value.items())))


def test_a_file_is_read_from_its_path_its_bytes_or_both(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"content")
    expected = b"content"
    for value in ("a.bin", b"content", {"path": "a.bin", "bytes": None}, {"path": None, "bytes": b"content"}):
        assert read_file(value, tmp_path.joinpath).data == expected
    assert read_file({"path": "x/Y.JPG", "bytes": b"content"}, tmp_path.joinpath) == File(b"content", "x/Y.JPG")
    assert read_file("remote", lambda value: b"far").data == b"far"
    assert File(b"", "x/Y.JPG").suffix == "jpg"
    assert File(b"", "name.of a.thing!").suffix == ""


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("nowhere.png", "missing file"),
        (".", "unreadable file"),
        ("nul\x00", "unreadable file"),
        ("x" * 5000, "unreadable file"),
        ("\ud800", "broken encoding"),
        ("empty", "empty file"),
        (b"", "empty file"),
        (7, "not a file"),
        ([], "not a file"),
        ({"path": None, "bytes": None}, "not a file"),
    ],
)
def test_invalid_files_have_a_reason(tmp_path: Path, value: Any, reason: str) -> None:
    (tmp_path / "empty").touch()
    with pytest.raises(Unreadable) as caught:
        read_file(value, tmp_path.joinpath)
    assert caught.value.reason == reason


COLUMNS = [Column("id", "other", None), Column("title", "text", "text"), Column("kind", "category", None)]


def test_a_clean_row_has_no_entries_for_missing_values(tmp_path: Path) -> None:
    clean = Cleaner(COLUMNS, "id", frozenset({"id"}), tmp_path.joinpath)
    assert clean(Row(3, {"id": " 7 ", "title": "a  b", "kind": None})) == {"id": "7", "title": "a b"}
    assert clean(Row(3, {"id": 7, "title": "a", "kind": "x\ny"})) == {"id": 7, "title": "a", "kind": "x y"}


def test_a_row_with_a_broken_value_or_without_content_is_rejected_with_its_key(tmp_path: Path) -> None:
    clean = Cleaner(COLUMNS, "id", frozenset({"id"}), tmp_path.joinpath)
    broken = clean(Row(3, {"id": "seven", "title": b"\xff"}))
    assert isinstance(broken, Reject)
    assert (broken.row, broken.key, broken.column, broken.reason) == (3, "seven", "title", "broken encoding")
    empty = clean(Row(4, {"kind": "x", "title": "\x00"}))
    assert isinstance(empty, Reject)
    assert (empty.row, empty.key, empty.reason) == (4, "4", "empty row")
