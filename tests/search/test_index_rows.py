"""What an index knows of its rows: every change is recorded, removed values are gone, and one change is made at a time."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.core.errors import MultimodalError
from multimodal.data.samples import Samples
from multimodal.search import index_rows
from multimodal.search.index_rows import ROWS, IndexRows
from multimodal.search.row_cells import row_of_json, row_to_json

CELLS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text().filter(lambda n: n[:1] != "$"), inner, max_size=3)
    ),
    max_leaves=8,
)


def opened(*rows: dict[str, Any]) -> Samples:
    return Samples.of(list(rows), {"text": "name"}, key="sku")


@given(st.dictionaries(st.text(), CELLS, max_size=4))
@settings(deadline=None)
def test_a_row_is_read_as_it_was_written(row: dict[str, Any]) -> None:
    text = row_to_json(row)
    assert text is not None
    assert row_of_json(text) == row


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float16", "float32", "float64"])
def test_arrays_keep_their_type_and_shape(dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    text = row_to_json({"photo": array})
    assert text is not None
    read = row_of_json(text)["photo"]
    assert (read.dtype, read.shape) == (array.dtype, (2, 3))
    assert (read == array).all()


@pytest.mark.parametrize("cell", [object(), {"$bytes": "no"}, {1: "a"}, np.array(["a"], object), [[{object()}]]])
def test_other_cells_are_not_stored(cell: Any) -> None:
    assert row_to_json({"a": 1, "b": cell}) is None


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "no",
        '{"a": {"$array": "AA==", "dtype": "O", "shape": [1]}}',
        '{"a": {"$bytes": "%"}}',
        '{"a": {"$array": 1}}',
    ],
)
def test_what_is_not_a_row_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        row_of_json(text)


def test_the_latest_change_of_a_row_counts(tmp_path: Path) -> None:
    rows = IndexRows.create(tmp_path, ["a", "b", "b", "c"])
    rows.record_upsert(opened({"sku": "a", "name": "cup", "price": 3}, {"sku": "d", "name": "jug"}), ["a", "d"])
    rows.record_upsert(opened({"sku": "d", "name": "pot"}), ["d"])
    rows.record_removal(["b"])
    assert rows.keys() == {"a", "c", "d"}
    assert rows.keys(built_from=True) == {"c"}
    assert rows.last_change == 3
    found = [(added.change, added.rows) for added in rows.added()]
    assert found == [(1, [{"sku": "a", "name": "cup", "price": 3}]), (2, [{"sku": "d", "name": "pot"}])]
    assert [added.keys for added in rows.added(since=1)] == [["d"]]
    assert rows.added_keys(1) == {"d"}
    assert [key for key in ("a", "b", "c", "d", "e") if rows.was_added(key)] == ["a", "d"]


def test_numbers_of_changes_are_never_given_again(tmp_path: Path) -> None:
    rows = IndexRows.create(tmp_path, ["a"])
    rows.record_upsert(opened({"sku": "b", "name": "cup"}), ["b"])
    since = rows.last_change
    rows.record_removal(["b"])
    rows.record_upsert(opened({"sku": "c", "name": "jug"}), ["c"])
    assert rows.added_keys(since) == {"c"}
    rows.set_mark()
    assert (rows.changes_since_mark, rows.mark) == (0, 3)
    rows.record_removal(["a"])
    assert rows.changes_since_mark == 1


def test_removed_and_replaced_values_are_overwritten(tmp_path: Path) -> None:
    rows = IndexRows.create(tmp_path, [])
    rows.record_upsert(
        opened({"sku": "a", "name": "a very secret cup"}, {"sku": "b", "name": "a hidden jug"}), ["a", "b"]
    )
    assert b"a very secret cup" in (tmp_path / ROWS).read_bytes()
    rows.record_removal(["a"])
    rows.record_upsert(opened({"sku": "b", "name": "pot"}), ["b"])
    content = (tmp_path / ROWS).read_bytes()
    assert b"secret" not in content
    assert b"hidden" not in content


def test_many_rows_come_a_page_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_rows, "PAGE", 7)
    rows = IndexRows.create(tmp_path, [])
    for change in range(3):
        several = [{"sku": f"{change}/{number:02}", "name": "cup"} for number in range(10)]
        rows.record_upsert(opened(*several), [row["sku"] for row in several])
    pages = list(rows.added())
    assert [key for page in pages for key in page.keys] == sorted(rows.keys())
    assert max(len(page.keys) for page in pages) <= 7


def test_rows_of_a_file_are_recorded_by_their_table(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("sku,name\na,cup\nb,jug\n")
    rows = IndexRows.create(tmp_path, [])
    samples = Samples.of(str(tmp_path / "more.csv"), {"text": "name"}, key="sku")
    rows.record_upsert(samples, ["a", "b"])
    (added,) = rows.added()
    assert (added.in_memory, added.keys, added.rows) == (False, ["a", "b"], [None, None])
    assert Samples.of(**added.settings)[0].values == {"text": "cup"}


def test_a_change_waits_for_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = IndexRows.create(tmp_path, ["a"])
    released = threading.Event()
    done = []

    def change() -> None:
        with IndexRows(tmp_path).locked():
            done.append(released.is_set())

    other = threading.Thread(target=change)
    with rows.locked():
        other.start()
        other.join(0.3)
        assert not done
        released.set()
    other.join()
    assert done == [True]
    monkeypatch.setattr(index_rows, "WAIT_SECONDS", 0.1)
    with rows.locked(), pytest.raises(MultimodalError, match="is being changed or upgraded by another process"):
        rows.record_removal(["a"])


def test_a_lock_is_of_the_folder_that_is_there_then(tmp_path: Path) -> None:
    for name in ("index", "new"):
        (tmp_path / name).mkdir()
        IndexRows.create(tmp_path / name, [name])
    rows, inside, other = IndexRows(tmp_path / "index"), threading.Event(), []

    def change() -> None:
        with rows.locked():
            inside.set()
            other.append(rows.keys())

    waiting = threading.Thread(target=change)
    with rows.locked():
        waiting.start()
        inside.wait(0.2)  # it waits for the file of the old folder by now
        (tmp_path / "index").rename(tmp_path / "former")
        (tmp_path / "new").rename(tmp_path / "index")
    waiting.join()
    assert other == [{"new"}]


@pytest.mark.parametrize("damage", ["cut", "text", "tables"])
def test_a_damaged_file_is_reported(tmp_path: Path, damage: str) -> None:
    rows = IndexRows.create(tmp_path, [f"key {number}" for number in range(1000)])
    if damage == "cut":
        (tmp_path / ROWS).write_bytes((tmp_path / ROWS).read_bytes()[:5000])
    elif damage == "text":
        (tmp_path / ROWS).write_text("not a data base" * 1000)
    else:
        connection = sqlite3.connect(tmp_path / ROWS)
        connection.execute("DROP TABLE state")
        connection.commit()
        connection.close()
    with pytest.raises(MultimodalError, match=r"rows.sqlite (is damaged|cannot be used)"):
        rows.record_removal(sorted(rows.keys()))
    (tmp_path / ROWS).unlink()
    with pytest.raises(MultimodalError, match=r"has no rows\.sqlite"):
        IndexRows(tmp_path)
