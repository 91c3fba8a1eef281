"""Judgements are read back line by line; whatever else is in the file is counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.errors import MultimodalError
from multimodal.monitor.feedback import MAX_SHOWN, Judgement, Malformed, parse_judgement, read_feedback

OLD = {
    "time": "2026-01-01T00:00:00+00:00", "fingerprint": "f" * 64, "verdict": "up", "key": "red/cup", "modality": "text",
    "score": 0.5, "query": {"text": "a cup"}, "target": None, "link": "q=a+cup",
}  # fmt: skip


def write(file: Path, *lines: Any) -> Path:
    file.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return file


def test_lines_of_earlier_versions_are_read(tmp_path: Path) -> None:
    (found,) = read_feedback(write(tmp_path / "f", OLD)).judgements
    assert found == Judgement("up", "red/cup", "text", {"text": "a cup"})


def test_everything_that_the_server_stores_is_read(tmp_path: Path) -> None:
    more = {"verdict": "clicked", "position": 3, "query_id": "q", "user": "ab12", "shown": ["a", "b", "red/cup"]}
    (found,) = read_feedback(write(tmp_path / "f", OLD | more)).judgements
    expected = Judgement("clicked", "red/cup", "text", {"text": "a cup"}, 3, "q", "ab12", ("a", "b", "red/cup"))
    assert found == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not an object"),
        ({"old": True}, "no verdict"),
        (OLD | {"verdict": ["up"]}, "unknown verdict"),
        (OLD | {"verdict": "maybe"}, "unknown verdict"),
        (OLD | {"key": ""}, "no key"),
        (OLD | {"key": 3}, "wrong key"),
        (OLD | {"key": "x" * 2001}, "wrong key"),
        (OLD | {"position": 0}, "wrong position"),
        (OLD | {"position": True}, "wrong position"),
        (OLD | {"position": 1.5}, "wrong position"),
        (OLD | {"query": {"text": 3}}, "wrong query"),
        (OLD | {"query": "text"}, "wrong query"),
        (OLD | {"shown": ["a"] * (MAX_SHOWN + 1)}, "wrong shown"),
        (OLD | {"shown": "abc"}, "wrong shown"),
        (OLD | {"user": {}}, None),
        (OLD | {"user": 7}, "wrong user"),
        (OLD | {"link": "x" * 400_000}, "too long"),
    ],
)
def test_other_lines_are_counted_by_their_fault(line: Any, reason: str | None, tmp_path: Path) -> None:
    found = read_feedback(write(tmp_path / "f", OLD, line, "", OLD))
    assert found.rejects == ({} if reason is None else {reason: 1})
    assert len(found.judgements) == (3 if reason is None else 2)


names = st.sampled_from([*OLD, "position", "user", "shown", "query_id"])
values = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(names, inner)
)


@given(st.text(max_size=50) | values.map(json.dumps))
def test_a_line_is_a_judgement_or_malformed(line: str) -> None:
    try:
        found = parse_judgement(line)
    except Malformed:
        return
    assert found.verdict in ("up", "down", "clicked", "missing", "unused")
    hash((found.queried, found.key, found.user, found.query_id, found.shown))


def test_the_newest_lines_of_a_large_file_are_read(tmp_path: Path) -> None:
    lines = [OLD | {"key": f"k{number:04}"} for number in range(1000)]
    file = write(tmp_path / "f", *lines)
    found = read_feedback(file, max_bytes=10_000)
    assert found.judgements[-1].key == "k0999"
    assert 0 < 10_000 - len(found.judgements) * (len(json.dumps(lines[0])) + 1) < 2 * len(json.dumps(lines[0]))
    assert found.skipped_bytes == file.stat().st_size - 10_000
    assert found.rejects == {}  # the line that begins before


def test_a_line_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    file = write(tmp_path / "f", OLD)
    whole = file.read_text()
    file.write_text(whole + whole[:50])
    assert (len(read_feedback(file).judgements), read_feedback(file).rejects) == (1, {})
    file.write_text(whole + whole.rstrip())  # of a person who does not end the last line
    assert len(read_feedback(file).judgements) == 2


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match="cannot be read"):
        read_feedback(tmp_path / "missing")
