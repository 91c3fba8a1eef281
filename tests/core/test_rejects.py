"""Rejects are counted once, written once, and stop the work above their limit."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.errors import MAX_CHARACTERS, MultimodalError, Unreadable
from multimodal.core.rejects import Reject, Rejects


def reject(row: int, column: str = "photo", reason: str = "missing file") -> Reject:
    return Reject(row, f"k{row}", column, "x.png", reason, f"{reason}!")


@pytest.mark.parametrize(
    ("error", "reason", "message"),
    [
        (Unreadable("empty text", "the text is empty."), "empty text", "the text is empty."),
        (MultimodalError("no."), "unreadable", "no."),
        (KeyError("x"), "unreadable", "KeyError: 'x'"),
    ],
)
def test_a_reject_says_what_was_wrong(error: Exception, reason: str, message: str) -> None:
    assert Reject.of(3, "k", "c", "v", error) == Reject(3, "k", "c", "v", reason, message)


def test_values_are_shortened() -> None:
    assert Reject.of(0, "", "", b"abc", KeyError()).value == "<3 bytes>"
    assert len(Reject.of(0, "", "", "y" * 10_000, KeyError()).value) == MAX_CHARACTERS


def test_an_unreadable_is_pickled_with_its_reason() -> None:
    error = pickle.loads(pickle.dumps(Unreadable("empty text", "the text is empty.")))
    assert (str(error), error.reason) == ("the text is empty.", "empty text")


def test_a_row_and_column_is_counted_once_and_a_row_once(tmp_path: Path) -> None:
    rejects = Rejects(1.0, 10, tmp_path / "run" / "rejects.jsonl")
    rejects.add([reject(1), reject(1), reject(1, "sound", "silent audio"), reject(2)], seen=4)
    rejects.add([reject(2)], seen=4)
    assert (len(rejects), rejects.reasons) == (2, {"missing file": 2, "silent audio": 1})
    lines = [json.loads(line) for line in (tmp_path / "run" / "rejects.jsonl").read_text().splitlines()]
    assert [(line["row"], line["column"]) for line in lines] == [(1, "photo"), (1, "sound"), (2, "photo")]
    assert len(Rejects(1.0, 10, tmp_path / "run" / "rejects.jsonl")) == 2  # the rejects in the file count


def test_without_rejects_no_file_is_written(tmp_path: Path) -> None:
    Rejects(0.1, 10, tmp_path / "rejects.jsonl").add([], seen=10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fraction", "rows", "allowed"), [(0.01, 100, 1), (0.01, 99, 0), (0.0, 100, 0), (0.5, 4, 2)])
def test_more_than_the_allowed_fraction_of_rejects_stops_with_a_summary(
    fraction: float, rows: int, allowed: int
) -> None:
    rejects = Rejects(fraction, rows)
    rejects.add([reject(row) for row in range(allowed)])
    message = (
        rf"{allowed + 1} of {rows} rows cannot be read \({allowed + 1} x missing file\);"
        r" .*first: row 0 \('k0'\), column 'photo'.* max_rejects [\d.]+ would allow those found so far"
    )
    with pytest.raises(MultimodalError, match=message):
        rejects.add([reject(allowed)])


@given(rows=st.integers(1, 5000), found=st.integers(1, 200))
def test_the_fraction_that_the_error_names_is_sufficient_and_hardly_more(rows: int, found: int) -> None:
    found = min(rows, found)
    strict = Rejects(0.0, rows)
    with pytest.raises(MultimodalError) as error:
        strict.add([reject(row) for row in range(found)])
    (fraction,) = re.findall(r"max_rejects ([\d.]+) would allow", str(error.value))
    Rejects(float(fraction), rows).add([reject(row) for row in range(found)])
    assert found / rows <= float(fraction) <= min(1, found / rows + 0.002)


def test_in_a_stream_the_fraction_is_of_the_rows_read_but_at_least_a_thousand() -> None:
    rejects = Rejects(0.01, None)
    rejects.add([reject(row) for row in range(10)], seen=500)
    rejects.add([], seen=1500)
    rejects.add([reject(row) for row in range(10, 20)], seen=0)
    with pytest.raises(MultimodalError, match="21 of 2,000 read so far"):
        rejects.add([reject(20)])


def test_a_file_without_rejects_is_not_appended_to(tmp_path: Path) -> None:
    (tmp_path / "rejects.jsonl").write_text("hello\n")
    with pytest.raises(MultimodalError, match=r"rejects\.jsonl is not a file of rejected rows"):
        Rejects(0.1, 10, tmp_path / "rejects.jsonl")


@pytest.mark.parametrize("damaged", [b'{"row": 3, "key": "\xff"}\n', b"\x00\x01", b'{"row": 3}\n', b"my notes"])
def test_a_damaged_file_of_rejects_is_named_and_kept(tmp_path: Path, damaged: bytes) -> None:
    path = tmp_path / "rejects.jsonl"
    path.write_bytes(damaged)
    with pytest.raises(
        MultimodalError, match=r"rejects\.jsonl is not a file of rejected rows, or it is damaged.*; move it"
    ):
        Rejects(0.1, 10, path)
    assert path.read_bytes() == damaged


def test_a_line_that_a_killed_process_did_not_end_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    Rejects(1.0, 10, path).add([reject(1), reject(2)])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        path.write_bytes(whole[:length])
        again = Rejects(1.0, 10, path)
        assert len(again) == 1
        again.add([reject(2)])
        assert path.read_bytes() == whole


def test_rejects_of_rows_that_are_read_again_are_removed(tmp_path: Path) -> None:
    def reject(row: int, file: str = "") -> Reject:
        return Reject(row, str(row), "picture", "x.png", "missing file", "gone", file)

    rejects = Rejects(1.0, 10, tmp_path / "rejects.jsonl")
    rejects.add([reject(1), reject(2), reject(5)])
    rejects.forget([1, 2, 3])
    assert (len(rejects), rejects.reasons) == (1, {"missing file": 1})
    again = Rejects(1.0, 10, tmp_path / "rejects.jsonl")
    assert len(again) == 1
    again.add([reject(2)])
    assert len(Rejects(1.0, 10, tmp_path / "rejects.jsonl")) == 2


def test_rows_of_several_files_are_distinguished() -> None:
    rejects = Rejects(1.0, None)
    rejects.add(
        [Reject(3, "a", "picture", "", "missing file", "gone", file) for file in ("a.csv", "b.csv", "a.csv")], 9
    )
    assert len(rejects) == 2


def test_rejects_show_their_summary() -> None:
    rejects = Rejects(0.5, 10)
    rejects.add([reject(3)], seen=4)
    assert repr(rejects) == f"Rejects: {rejects.summary()}"
    assert "photo" in repr(rejects)
