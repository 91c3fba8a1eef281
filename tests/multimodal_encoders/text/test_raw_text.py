"""Values that are not texts are refused by every encoder of texts, in the same words."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from multimodal_encoders.text.raw_text import read_text

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, Unreadable
from multimodal.core.registry import create
from multimodal.data.samples import Samples

OTHERS = [
    (["a", "b"], "list is not a text; join its entries, or give each a column of its own"),
    ((), "tuple is not a text; join its entries"),
    (3, "int is not a text; write it as text, in quotes"),
    (2.5, "float is not a text; write it as text"),
    (True, "bool is not a text; write it as text"),
    (np.float32(1), "float32 is not a text; write it as text"),
    (datetime.date(2020, 1, 2), "date is not a text; write it as text; JSON Lines takes"),
    (datetime.datetime(2020, 1, 2), "datetime is not a text; write it as text; JSON Lines takes"),
    ({"a": 1}, "dict is not a text; give a string"),
    (b"a cup", "bytes is not a text; give a string"),
    (None, "NoneType is not a text; give a string"),
]


@pytest.mark.parametrize(("value", "said"), OTHERS)
def test_what_is_not_a_text_is_refused(value: Any, said: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        read_text(value)
    assert str(refusal.value).startswith(said)
    assert refusal.value.reason == "wrong type"


@pytest.mark.parametrize("name", ["bag", "transformer"])
@pytest.mark.parametrize("value", [["a", "b"], 3, datetime.date(2020, 1, 2)])
def test_captions_that_are_not_texts_are_rejected_row_by_row(name: str, value: Any) -> None:
    """A training set of nothing else leaves the vocabulary empty, which is not what is wrong."""
    encoder = create("text", name)
    samples = Samples.of([{"caption": value}, {"caption": value}], {"text": "caption"})
    encoder.fit(samples.values("text", np.arange(2), encoder.processor))
    (reject,) = samples.items(0, {"text": encoder.processor})
    assert (reject.reason, reject.column) == ("wrong type", "caption")  # pyright: ignore[reportAttributeAccessIssue]
    fitted = create("text", name)
    fitted.fit(["a cup", "a cup"])
    with pytest.raises(MultimodalError, match=rf"text value 1: {type(value).__name__} is not a text"):
        Embedder({"text": fitted}, dim=4).encode(text=["a cup", value])


def test_a_text_column_of_dates_in_json_lines_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"day": "2020-01-02"}\n{"day": "2020-01-03"}\n')
    processor = create("text", "bag").processor
    (reject,) = Samples.of(tmp_path / "t.jsonl", {"text": "day"}).items(0, {"text": processor})
    assert "takes a column for dates" in reject.message  # pyright: ignore[reportAttributeAccessIssue]
