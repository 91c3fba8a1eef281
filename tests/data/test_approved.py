"""Approved faults change the groups, the splits and the rows that are trained on, and nothing else."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multimodal.core.batch import Sample
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.data.approved import ACROSS_SPLITS, MISMATCHED, SAME_ITEM, Approved, joined_labels
from multimodal.data.datamodule import DataModule
from multimodal.data.run_data import load_run_data
from multimodal.data.samples import Samples

ROWS = [
    {"id": key, "title": f"title {key}", "product": product, "part": part}
    for key, product, part in (
        ("a", "cup", "train"),
        ("b", "cup", "train"),
        ("c", "mug", "train"),
        ("d", None, "test"),
        ("e", None, "train"),
        ("f", "pan", "train"),
    )
]
Line = tuple[str, str, str, str]


def write(path: Path, lines: Sequence[Line]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["kind", "key", "other key", "score", "approve"])
        table.writerows([kind, key, other, "0.5", approve] for kind, key, other, approve in lines)
    return str(path)


def samples_with(path: Path, lines: Sequence[Line], **settings: Any) -> Samples:
    settings = {"key": "id", "split": "part", **settings}
    return Samples.of(ROWS, {"text": "title"}, approved=write(path / "faults.csv", lines), **settings)


def test_approved_rows_of_one_item_are_one_group_and_others_keep_theirs(tmp_path: Path) -> None:
    lines = [(SAME_ITEM, "a", "c", "yes"), (SAME_ITEM, "e", "f", "no"), (SAME_ITEM, "b", "f", "")]
    samples = samples_with(tmp_path, lines, group="product")
    assert [samples.group_of(row) for row in range(6)] == ["=cup", "=cup", "=cup", "#3", "#4", "=pan"]
    assert samples.group_numbers.tolist() == [0, 0, 0, 1, 2, 3]
    assert samples[2].group == "=cup"
    assert [part.group for part in samples.items(2, {}) if isinstance(part, Sample)] == ["=cup"]


def test_rows_without_groups_are_joined(tmp_path: Path) -> None:
    samples = samples_with(tmp_path, [(SAME_ITEM, "b", "e", "x"), (ACROSS_SPLITS, "e", "f", "TRUE")])
    numbers = samples.group_numbers.tolist()
    assert numbers[1] == numbers[4] == numbers[5]
    assert len(set(numbers)) == 4


def test_rows_of_one_item_are_in_the_smallest_of_their_splits(tmp_path: Path) -> None:
    samples = samples_with(tmp_path, [(ACROSS_SPLITS, "a", "d", "yes")], group="product")
    assert {name: rows.tolist() for name, rows in samples.splits.items()} == {"train": [1, 2, 4, 5], "test": [0, 3]}
    assert samples.group_of(3) == samples.group_of(0) == samples.group_of(1) == "=cup"


def test_joined_groups_are_in_one_split_of_shares(tmp_path: Path) -> None:
    rows = [{"id": str(n), "title": f"title {n}"} for n in range(200)]
    pairs = [(n, n + 100) for n in range(100)]
    path = write(tmp_path / "faults.csv", [(ACROSS_SPLITS, str(a), str(b), "yes") for a, b in pairs])
    shares = {"train": 0.6, "test": 0.4}
    before = Samples.of(rows, {"text": "title"}, split=shares)
    after = Samples.of(rows, {"text": "title"}, split=shares, key="id", approved=path)
    of = {row: name for name, found in after.splits.items() for row in found.tolist()}
    was = {row: name for name, found in before.splits.items() for row in found.tolist()}
    assert len(of) == 200
    for a, b in pairs:
        assert of[a] == of[b] == ("test" if "test" in (was[a], was[b]) else "train")


def test_mismatched_rows_are_in_no_split(tmp_path: Path) -> None:
    samples = samples_with(tmp_path, [(MISMATCHED, "b", "", "yes"), (MISMATCHED, "c", "", "no")])
    assert samples.rows("train").tolist() == [0, 2, 4, 5]
    assert samples.rows("all").tolist() == [0, 2, 3, 4, 5]
    assert len(samples) == 6
    assert samples.key_of(2) == "c"


def test_samples_that_are_changed_keep_what_was_approved(tmp_path: Path) -> None:
    samples = samples_with(tmp_path, [(SAME_ITEM, "a", "e", "yes"), (MISMATCHED, "b", "", "yes")])
    for changed in (samples.keyed_by_number(), samples.single_column("text", "title"), samples.without_targets()):
        assert changed.group_numbers.tolist() == samples.group_numbers.tolist()
        assert changed.rows("all").tolist() == [0, 2, 3, 4, 5]
    again = Samples.of(**{**samples.settings, "table": ROWS})
    assert again.rows("train").tolist() == samples.rows("train").tolist()


def test_without_an_approved_line_nothing_changes(tmp_path: Path) -> None:
    samples = samples_with(tmp_path, [(SAME_ITEM, "a", "c", "no")], group="product")
    plain = Samples.of(ROWS, {"text": "title"}, key="id", split="part", group="product")
    assert np.array_equal(samples.group_numbers, plain.group_numbers)
    assert {n: r.tolist() for n, r in samples.splits.items()} == {n: r.tolist() for n, r in plain.splits.items()}
    assert str(samples.approved).endswith("0 rows joined into 0 items, 0 rows left out.")


def test_a_spreadsheet_may_have_written_the_file(tmp_path: Path) -> None:
    path = tmp_path / "faults.csv"
    path.write_bytes(b"\xef\xbb\xbfkind,key,other key,approve\r\nmismatched,b,,Yes \r\n")
    assert Approved.read(path, ["a", "b"]).left_out == {1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([(SAME_ITEM, "a", "z", "yes"), (MISMATCHED, "y", "", "yes")], r"are not in the table: 'z', 'y'"),
        ([(SAME_ITEM, "a", "a", "yes")], "line 2 of .* does not name two rows"),
        (
            [(MISMATCHED, "a", "", "no"), (MISMATCHED, "b", "", "maybe")],
            "line 3 of .* approve = maybe; write yes or no",
        ),
        ([("odd", "a", "", "yes")], "has the kind odd; known: mismatched, same item"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, lines: Sequence[Line], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        samples_with(tmp_path, lines)


def test_a_key_of_several_rows_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "faults.csv", [(MISMATCHED, "cup", "", "yes")])
    with pytest.raises(UsageError, match="name several rows of the table: 'cup'"):
        Samples.of(ROWS, {"text": "title"}, key="product", approved=path)


def test_a_file_that_is_missing_or_another_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match=r"nothing\.csv cannot be read: No such file"):
        Samples.of(ROWS, {"text": "title"}, approved=tmp_path / "nothing.csv")
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="is not a table of faults: it has no column 'kind'"):
        Samples.of(ROWS, {"text": "title"}, approved=other)
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MultimodalError, match=r"binary\.csv cannot be read"):
        Samples.of(ROWS, {"text": "title"}, approved=binary)


def test_streams_are_refused(tmp_path: Path) -> None:
    table = tmp_path / "shop.csv"
    table.write_text("id,title,part\na,a cup,train\n")
    path = write(tmp_path / "faults.csv", [])
    with pytest.raises(UsageError, match="approved is not available with access: streamed"):
        DataModule(str(table), {"text": "title"}, split="part", access="streamed", approved=path)


def test_another_table_of_a_run_does_not_get_the_run_s_faults(tmp_path: Path) -> None:
    path = write(tmp_path / "faults.csv", [(MISMATCHED, "a", "", "yes")])
    run = tmp_path / "run"
    run.mkdir()
    table = tmp_path / "shop.csv"
    table.write_text("id,title\na,a cup\nb,a mug\n")
    (run / "config.yaml").write_text(f"data: {{table: {table}, columns: {{text: title}}, key: id, approved: {path}}}\n")
    assert load_run_data(run).samples.rows("all").tolist() == [1]
    assert load_run_data(run, [{"title": "a pan"}]).samples.rows("all").tolist() == [0]


def test_groups_that_are_connected_by_way_of_others_are_one() -> None:
    shares = {"a": 0.1, "b": 0.8, "c": 0.8, "d": 0.8, "e": 0.1}
    assert joined_labels([["b", "c"], ["c", "a"], ["d"]], shares) == {"a": "a", "b": "a", "c": "a"}
