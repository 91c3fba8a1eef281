"""A second run on a changed table embeds what has changed, and never leaves a mixture of two states."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedded_shop import CELLS, ROWS, ShopTable, assert_like, contents, embed, new_embedder, samples_of, state

from multimodal.core.digests import SUMS, record_sum
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError
from multimodal.core.folder_lock import LOCK_FILE
from multimodal.data.samples import Samples
from multimodal.search import embed_update
from multimodal.search.embed import embed_samples
from multimodal.search.embedding_folder import MANIFEST, read_manifest

MORE = ["red cup", "jug", "tea"]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return new_embedder()


@pytest.fixture
def encoded(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The modality and number of the items of each call of ``encode_items``."""
    calls: list[tuple[str, int]] = []
    encode_items = Embedder.encode_items

    def record(self: Embedder, modality: str, items: Sequence[Any], *arguments: Any) -> np.ndarray:
        calls.append((modality, len(items)))
        return encode_items(self, modality, items, *arguments)

    monkeypatch.setattr(Embedder, "encode_items", record)
    return calls


def counts(calls: list[tuple[str, int]]) -> dict[str, int]:
    return {m: total for m in ("graph", "text") if (total := sum(n for name, n in calls if name == m))}


def cells_of(rows: Sequence[int], **changed: dict[int, Any]) -> dict[str, list[Any]]:
    """The cells of some rows of the shop, in this order, with others at some positions."""
    cells: dict[str, list[Any]] = {column: [values[row] for row in rows] for column, values in CELLS.items()}
    for column, values in changed.items():
        for position, value in values.items():
            cells[column][position] = value
    return cells


def changed(version: str, rows: Sequence[int] = tuple(range(11)), **cells: dict[int, Any]) -> dict[str, Any]:
    return {"samples": samples_of(cells=cells_of(rows, **cells), version=version), "rows": np.arange(len(rows))}


CHANGES: dict[str, tuple[dict[str, Any], dict[str, int], int]] = {  # settings, items encoded, rows unchanged
    "nothing but the version": (changed("b"), {}, 11),
    "a title": (changed("b", title={3: "jug"}), {"graph": 1, "text": 1}, 10),
    "a drawing that becomes missing": (changed("b", drawing={0: None}), {"text": 1}, 10),
    "a title that was there in another row": (changed("b", title={4: "mug"}), {}, 11),
    "rows removed": (changed("b", [0, 2, 9, 10]), {}, 4),
    "rows in another order": (changed("b", [10, 3, 0, 9, 1]), {}, 5),
    "rows added": (
        changed("b", [*range(11), 0, 0], title={11: "jug", 12: "tea"}, sku={11: "s-11", 12: "s-12"}),
        {"graph": 2, "text": 2},
        11,
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_only_changed_rows_are_embedded_again(
    embedder: Embedder, tmp_path: Path, encoded: list[tuple[str, int]], change: str
) -> None:
    settings, items, unchanged = CHANGES[change]
    embed(embedder, tmp_path / "out")
    embed(embedder, tmp_path / "whole", **settings)
    encoded.clear()
    made = embed(embedder, tmp_path / "out", **settings)
    assert (counts(encoded), made.unchanged, made.rows) == (items, unchanged, len(settings["rows"]))
    assert_like(state(tmp_path / "out"), state(tmp_path / "whole"))
    assert sorted(contents(tmp_path / "out")) == sorted(contents(tmp_path / "whole"))
    encoded.clear()
    again = embed(embedder, tmp_path / "out", **settings)
    assert (encoded, again.rows_before) == ([], len(settings["rows"]))


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_vectors_that_are_taken_over_keep_their_bits(embedder: Embedder, tmp_path: Path, dtype: str) -> None:
    embed(embedder, tmp_path / "out", dtype=dtype)
    before = {row["key"]: row for row in state(tmp_path / "out")}
    embed(embedder, tmp_path / "out", dtype=dtype, **changed("b", [10, 3, 9, 0], title={1: "jug"}))
    after = {row["key"]: row for row in state(tmp_path / "out")}
    assert list(after) == ["s-10", "s-3", "s-9", "s-0"]
    for key in ("s-10", "s-9", "s-0"):
        assert after[key] == before[key]
    assert after["s-3"]["text"] != before["s-3"]["text"]


def test_other_metadata_are_written_without_embedding(
    embedder: Embedder, tmp_path: Path, encoded: list[tuple[str, int]]
) -> None:
    embed(embedder, tmp_path / "out")
    encoded.clear()
    embed(embedder, tmp_path / "out", metadata=["sku"])
    assert encoded == []
    assert [row["metadata"] for row in state(tmp_path / "out")[:2]] == ['{"sku": "s-0"}', '{"sku": "s-1"}']
    assert read_manifest(tmp_path / "out").metadata == ["sku"]


def test_rows_that_became_readable_or_unreadable_are_counted_again(embedder: Embedder, tmp_path: Path) -> None:
    broken: dict[str, Any] = changed("a", title={0: ""}) | {"max_rejects": 0.2}
    assert embed(embedder, tmp_path / "out", **broken).rows == 10
    made = embed(embedder, tmp_path / "out", max_rejects=0.2, **changed("b", title={3: ""}))
    assert (made.rows, len(made.rejects), made.unchanged) == (10, 1, 9)
    assert made.rejects.path == tmp_path / "out" / "rejects.jsonl"
    assert [line.split(",")[0] for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()] == [
        '{"row": 3'
    ]
    made = embed(embedder, tmp_path / "out", **changed("c"))
    assert (made.rows, len(made.rejects), made.unchanged) == (11, 0, 10)
    assert not (tmp_path / "out" / "rejects.jsonl").exists()


class Stop(Exception):
    """Exception in place of a killed process."""


def stop_after(calls: int) -> Any:
    done: list[int] = []

    def stop(rows: int) -> None:
        done.append(rows)
        if len(done) > calls:
            raise Stop

    return stop


@pytest.mark.parametrize("parts", [0, 1, 2])
def test_the_old_state_is_kept_until_the_new_one_is_whole(
    embedder: Embedder, tmp_path: Path, encoded: list[tuple[str, int]], parts: int
) -> None:
    out, new = tmp_path / "out", changed("b", title=dict.fromkeys(range(11), "jug"))
    embed(embedder, out)
    embed(embedder, tmp_path / "whole", **new)
    before = contents_of_files(out)
    with pytest.raises(Stop):
        embed(embedder, out, advance=stop_after(parts), **new)
    assert contents_of_files(out) == before
    assert read_manifest(out).table == samples_of().fingerprint
    encoded.clear()
    made = embed(embedder, out, **new)
    assert made.rows_before == 4 * parts
    assert counts(encoded)["text"] == 11 - 4 * parts
    assert contents(out) == contents(tmp_path / "whole")


def contents_of_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("steps", range(12))
@pytest.mark.parametrize("rows", [3, 11, 14])  # fewer parts, as many, more
def test_a_replacement_that_is_stopped_anywhere_leaves_no_mixture(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, rows: int
) -> None:
    keys = {row: f"s-{row}" for row in range(rows)}
    cells = {"title": dict.fromkeys(range(rows), "jug"), "sku": keys}
    out, new = tmp_path / "out", changed("b", [*range(11), 0, 1, 2][:rows], **cells)
    embed(embedder, out, max_rejects=0.2, **changed("a", title={1: ""}))
    embed(embedder, tmp_path / "whole", **new)
    old, whole = state(out), state(tmp_path / "whole")
    with monkeypatch.context() as patch:
        taken: list[str] = []

        def counted(function: Any) -> Any:
            def step(*arguments: Any, **options: Any) -> Any:
                if not str(arguments[0]).endswith((".new", LOCK_FILE)):
                    taken.append(str(arguments[0]))
                    if len(taken) == steps + 1:
                        raise Stop
                return function(*arguments, **options)

            return step

        for owner, name in ((os, "rename"), (os, "replace"), (Path, "unlink"), (shutil, "rmtree")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        try:
            embed(embedder, out, **new)
        except Stop:
            try:
                found = state(out)
            except MultimodalError as error:
                assert "An update was stopped; run the same `multimodal embed` again" in str(error)  # noqa: PT017
            else:
                assert found in (old, whole)
        else:
            assert steps >= 6
    embed(embedder, out, **new)
    assert contents(out) == contents(tmp_path / "whole")


def test_a_table_that_changes_during_an_update_loses_no_vector(
    embedder: Embedder, tmp_path: Path, encoded: list[tuple[str, int]]
) -> None:
    out = tmp_path / "out"
    embed(embedder, out)
    with pytest.raises(Stop):
        embed(embedder, out, advance=stop_after(1), **changed("b", title={0: "jug"}))
    encoded.clear()
    made = embed(embedder, out, **changed("c", title={0: "jug", 10: "tea"}))
    assert (counts(encoded), made.unchanged) == ({"text": 1}, 10)  # "jug" comes from the stopped update
    embed(embedder, tmp_path / "whole", **changed("c", title={0: "jug", 10: "tea"}))
    assert_like(state(out), state(tmp_path / "whole"))
    assert sorted(os.listdir(out)) == sorted(os.listdir(tmp_path / "whole"))


def test_a_table_that_is_changed_back_needs_nothing(
    embedder: Embedder, tmp_path: Path, encoded: list[tuple[str, int]]
) -> None:
    out = tmp_path / "out"
    embed(embedder, out)
    before = contents(out)
    with pytest.raises(Stop):
        embed(embedder, out, advance=stop_after(1), **changed("b", title={0: "jug"}))
    encoded.clear()
    embed(embedder, out)
    assert (encoded, contents(out)) == ([], before)


def test_a_damaged_part_is_not_taken_over(embedder: Embedder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed(embedder, out)
    table = pq.read_table(out / "part-00000.parquet")
    wrong = pa.array([[1.0, 0, 0, 0, 0]] * 4, pa.list_(pa.float32(), 5))
    pq.write_table(table.set_column(5, "text", wrong), out / "part-00000.parquet")
    made = embed(embedder, out, **changed("b"))
    embed(embedder, tmp_path / "whole", **changed("b"))
    assert made.unchanged == 8  # 7, and row 1, which is like row 4
    assert_like(state(out), state(tmp_path / "whole"))


def test_the_parts_of_an_earlier_version_are_embedded_again(embedder: Embedder, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed(embedder, out)
    for part in sorted(out.glob("part-*.parquet")):
        pq.write_table(pq.read_table(part).drop_columns(["digest"]), part)
    (out / SUMS).unlink()
    for part in sorted(out.glob("part-*.parquet")):
        record_sum(out, part.name)
    assert embed(embedder, out).rows_before == 11  # of an unchanged table they are whole
    assert embed(embedder, out, **changed("b")).unchanged == 0
    embed(embedder, tmp_path / "whole", **changed("b"))
    assert contents(out) == contents(tmp_path / "whole")


def test_alternatives_are_taken_over_one_by_one(
    embedder: Embedder, tmp_path: Path, encoded: list[tuple[str, int]]
) -> None:
    def samples(words: str, version: str) -> Samples:
        cells: dict[str, Sequence[Any]] = {"name": ["tea cup", "jug"], "words": ["mug", words], "sku": ["a", "b"]}
        cells |= {"title": cells["name"], "product": ["1", "2"]}
        return Samples.of(ShopTable("words", cells, version), {"text": ["name", "words"]}, key="sku")

    embed_samples(embedder, samples("pot", "a"), ROWS[:2], tmp_path / "out")
    encoded.clear()
    made = embed_samples(embedder, samples("tea", "b"), ROWS[:2], tmp_path / "out")
    assert (counts(encoded), made.unchanged, made.rows, made.with_alternatives) == ({"text": 1}, 3, 2, 4)
    expected = embedder.encode(text=["tea cup", "mug", "jug", "tea"])
    np.testing.assert_allclose([row["text"] for row in state(tmp_path / "out")], expected, atol=1e-6)


@pytest.mark.parametrize(
    "other",
    [
        {"samples": samples_of(table="store")},
        {"samples": samples_of(group=None, version="b")},
        {"dtype": "int8", "samples": samples_of(version="b")},
        {"precision": "bfloat16", "samples": samples_of(version="b")},
    ],
    ids=["table", "group", "dtype", "precision"],
)
def test_other_work_is_not_taken_for_an_update(embedder: Embedder, tmp_path: Path, other: dict[str, Any]) -> None:
    embed(embedder, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(MultimodalError, match="another model, table or split"):
        embed(embedder, tmp_path / "out", **other)
    assert contents(tmp_path / "out") == before


def test_the_marks_of_an_update_are_those_that_readers_know() -> None:
    assert embed_update.WHOLE.startswith(".")
    assert MANIFEST == "embeddings.json"
