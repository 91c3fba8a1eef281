"""What goes between the processes of a server arrives as it was sent, errors too; objects are never pickled."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as some

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.search.engines.engine import Found, IndexReplaced
from multimodal.serve.errors import error_answer
from multimodal.serve.workers.messages import (
    Message,
    error_to_json,
    found_of_json,
    found_to_json,
    raise_error,
    table_from_bytes,
    table_to_bytes,
    vectors_from_bytes,
    vectors_to_bytes,
)


@given(
    some.dictionaries(some.text(), some.floats(allow_nan=False) | some.text() | some.integers()),
    some.lists(some.binary()),
)
def test_a_message_arrives_as_it_was_sent(content: dict[str, object], parts: list[bytes]) -> None:
    received = Message.from_bytes(Message(content, parts).to_bytes())
    assert received.content == content
    assert [bytes(part) for part in received.parts] == parts


def test_vectors_and_tables_are_identical() -> None:
    vectors = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    sent = Message({}, [vectors_to_bytes(vectors[::2]), table_to_bytes(pa.table({"key": ["a", "ü", None]}))])
    received = Message.from_bytes(sent.to_bytes())
    there = vectors_from_bytes(received.parts[0], 3)
    np.testing.assert_array_equal(there, vectors[::2])
    assert there.flags.writeable
    assert table_from_bytes(received.parts[1])["key"].to_pylist() == ["a", "ü", None]
    assert vectors_from_bytes(vectors_to_bytes(vectors[:0]), 3).shape == (0, 3)


def test_scores_keep_every_digit() -> None:
    found = [[Found("cup-1", "cups", "image", float(np.float32(0.1)), '{"n": "ü"}', ("cup", "1"))], []]
    assert found_of_json(json.loads(json.dumps(found_to_json(found)))) == found


def of_system() -> MultimodalError:
    error = MultimodalError("The engine failed.")
    error.__cause__ = OSError("no space")
    return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("No row of the index has 'colur'."), 400),
        (MultimodalError("The index is too old."), 400),
        (of_system(), 500),
        (IndexReplaced("index"), 503),
    ],
)
def test_an_error_is_answered_as_that_of_one_process(error: MultimodalError, status: int) -> None:
    with pytest.raises(MultimodalError) as raised:
        raise_error(json.loads(json.dumps(error_to_json(error))), Path("index"))
    assert type(raised.value) is type(error)
    assert str(raised.value) == str(error)
    assert error_answer(raised.value).status_code == error_answer(error).status_code == status
