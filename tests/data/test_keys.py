"""Rows that are stored have different keys: the first two that do not are named."""

from __future__ import annotations

import numpy as np
import pytest

from multimodal.core.errors import UsageError
from multimodal.data.keys import check_unique_keys
from multimodal.data.samples import Samples


def samples_of(keys: list[str | int | None], key: str | None = "sku") -> Samples:
    return Samples.of([{"t": "a cup", "sku": one} for one in keys], {"text": "t"}, key=key)


def test_the_first_rows_of_one_key_and_the_number_of_others_are_named() -> None:
    samples = samples_of(["a", "b", "c", "b", "a", "b"])
    expected = r"Rows 1 and 3 of 'in memory' both have the key 'b' \(column 'sku'\)\. In all, 3 rows .*--key COLUMN"
    with pytest.raises(UsageError, match=expected):
        check_unique_keys(samples, np.arange(6))
    with pytest.raises(UsageError, match=r"Rows 0 and 4 of .* the key 'a' \(column 'sku'\)\. A key names one row"):
        check_unique_keys(samples, np.array([0, 1, 2, 4]))


def test_only_the_rows_that_are_stored_count(capsys: pytest.CaptureFixture[str]) -> None:
    samples = samples_of(["a", "b", "c", "b"])
    check_unique_keys(samples, np.array([0, 1, 2]))
    check_unique_keys(samples, np.array([1, 1]))  # one row
    check_unique_keys(samples_of(["a", "a"], None), np.arange(2))  # keyed by number
    with pytest.raises(UsageError, match="Rows 0 and 1"):  # the second row has no key, so that its number is it
        check_unique_keys(samples_of(["1", None]), np.arange(2))
