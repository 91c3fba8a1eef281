"""Bulk embedding returns the vectors of ``encode`` and continues where it was stopped."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from embedded_shop import CELLS, ROWS, TITLES, ShopTable, contents, embed, new_embedder, samples_of

from multimodal.core.digests import read_sums
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.folder_lock import LOCK_FILE, write_lock
from multimodal.data.samples import Samples
from multimodal.data.tables.open import open_table
from multimodal.search import embed_parts
from multimodal.search.embed import embed_samples, embed_table
from multimodal.search.embedding_folder import MANIFEST, Manifest, finished_parts, read_manifest, read_parts
from multimodal.search.index import Index


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return new_embedder()


def finished_rows(folder: Path) -> int:
    manifest = read_manifest(folder)
    return sum(map(manifest.rows_of, finished_parts(folder, manifest, read_sums(folder))))


# -- output


@pytest.mark.parametrize("rows", [ROWS, np.array([9, 3, 3, 0, 8, 1])])
def test_rows_have_the_vectors_of_encode_and_null_for_missing_modalities(
    embedder: Embedder, tmp_path: Path, rows: np.ndarray
) -> None:
    embed(embedder, tmp_path / "out", rows)
    made = [row for part in read_parts(tmp_path / "out") for row in part.to_pylist()]
    assert len(made) == len(rows)
    for row, cells in zip(rows.tolist(), made, strict=True):
        assert (cells["key"], cells["group"]) == (f"s-{row}", f"={row // 2}")
        assert json.loads(cells["metadata"]) == {"title": TITLES[row], "product": row // 2}
        for modality, column in (("graph", "drawing"), ("text", "title")):
            value = CELLS[column][row]
            if value is None:
                assert cells[modality] is None
            else:
                (expected,) = embedder.encode(batch_size=256, precision="float32", **{modality: [value]})
                assert cells[modality] == pytest.approx(expected.tolist(), abs=1e-5)
                assert np.linalg.norm(cells[modality]) == pytest.approx(1, abs=1e-5)


def test_the_parts_have_the_documented_columns_and_rows(embedder: Embedder, tmp_path: Path) -> None:
    embed(embedder, tmp_path / "out")
    names = [f"part-0000{n}.parquet" for n in range(3)]
    assert sorted(contents(tmp_path / "out")) == [MANIFEST, "multimodal.sha256", *names]
    sums = [f"{sha256((tmp_path / 'out' / name).read_bytes()).hexdigest()}  {name}\n" for name in names]
    assert (tmp_path / "out" / "multimodal.sha256").read_text() == "".join(sums)
    parts = [pq.read_table(tmp_path / "out" / f"part-0000{n}.parquet") for n in range(3)]
    assert [len(part) for part in parts] == [4, 4, 3]
    for part in parts:
        assert part.column_names == ["key", "group", "metadata", "digest", "graph", "text"]
        assert part.schema.field("text").type.equals(pa.list_(pa.float32(), 5))
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert (manifest["format"], manifest["rows"], manifest["dim"]) == (1, 11, 5)
    assert manifest["modalities"] == ["graph", "text"]
    assert manifest["data"] == {
        "table": "shop",
        "columns": {"graph": "drawing", "text": "title"},
        "key": "sku",
        "group": "product",
        "split": None,
        "split_seed": 0,
        "options": {},
    }
    assert manifest["fingerprint"] == embedder.fingerprint


def test_only_modalities_of_both_model_and_table_are_embedded(embedder: Embedder, tmp_path: Path) -> None:
    embed(embedder, tmp_path / "out", samples=samples_of(text="title", audio="sku"))
    assert read_manifest(tmp_path / "out").modalities == ["text"]
    with pytest.raises(MultimodalError, match=r"\['graph', 'text'\].*\['audio'\]"):
        embed(embedder, tmp_path / "none", samples=samples_of(audio="sku"))


def test_the_size_of_a_batch_changes_no_vector(embedder: Embedder, tmp_path: Path) -> None:
    for size in (1, 3, 256):
        embed(embedder, tmp_path / str(size), batch_size=size)
    one, three, all_ = [[p.to_pylist() for p in read_parts(tmp_path / str(size))] for size in (1, 3, 256)]
    for other in (three, all_):
        for part, expected in zip(other, one, strict=True):
            for row, wanted in zip(part, expected, strict=True):
                for modality in ("graph", "text"):
                    assert (row[modality] is None) == (wanted[modality] is None)
                    assert row[modality] is None or row[modality] == pytest.approx(wanted[modality], abs=1e-5)


def test_an_empty_selection_of_rows_is_rejected(embedder: Embedder, tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match="no rows to embed"):
        embed(embedder, tmp_path / "out", ROWS[:0])
    assert not (tmp_path / "out").exists()


def test_a_model_in_training_embeds_as_encode_does(tmp_path: Path) -> None:
    training = new_embedder().train()
    embed(training, tmp_path / "out", samples=samples_of(text="title"))
    made = next(read_parts(tmp_path / "out")).to_pylist()
    assert made[0]["text"] == pytest.approx(training.encode(text=["red cup"])[0].tolist(), abs=1e-5)
    assert all(module.training for module in training.modules())


# -- stopping and resuming


class Stop(Exception):
    """Exception in place of a killed process."""


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 5, 6])
def test_a_resumed_run_writes_only_the_missing_parts(
    embedder: Embedder, tmp_path: Path, batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed_parts, "READ_ROWS", 2)
    embed(embedder, tmp_path / "whole")
    done: list[int] = []

    def stop(rows: int) -> None:
        done.append(rows)
        if len(done) == batches:
            raise Stop

    out = tmp_path / "out"
    with pytest.raises(Stop):
        embed(embedder, out, advance=stop)
    finished = sorted(path.name for path in out.glob("part-*"))
    # two groups of rows in a part; the current one is lost with its part
    assert finished == [f"part-0000{n}.parquet" for n in range((batches - 1) // 2)]
    assert (out / MANIFEST).read_bytes() == (tmp_path / "whole" / MANIFEST).read_bytes()
    with pytest.raises(MultimodalError, match=rf"incomplete: part-0000{len(finished)}\.parquet is missing"):
        list(read_parts(out))
    before = {name: (out / name).stat() for name in finished}

    advanced: list[int] = []
    embed(embedder, out, advance=advanced.append)
    assert sum(advanced) == 11
    after = {name: (out / name).stat() for name in finished}
    assert {n: (s.st_mtime_ns, s.st_ino) for n, s in after.items()} == {
        n: (s.st_mtime_ns, s.st_ino) for n, s in before.items()
    }
    assert contents(out) == contents(tmp_path / "whole")


def test_finished_work_is_not_repeated(embedder: Embedder, tmp_path: Path) -> None:
    embed(embedder, tmp_path / "out")
    before = contents(tmp_path / "out")
    with patch.object(Embedder, "embed", side_effect=AssertionError("embedded again")):
        embed(embedder, tmp_path / "out")
    assert contents(tmp_path / "out") == before


def test_a_lost_part_is_written_again(embedder: Embedder, tmp_path: Path) -> None:
    embed(embedder, tmp_path / "out")
    before = contents(tmp_path / "out")
    (tmp_path / "out" / "part-00001.parquet").unlink()
    embed(embedder, tmp_path / "out")
    assert contents(tmp_path / "out") == before


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "garbage": lambda content: content[:100] + b"garbage!" * 8 + content[164:],
    "zeros": lambda content: content[:100] + bytes(64) + content[164:],
    "a bit": lambda content: content[:120] + bytes([content[120] ^ 4]) + content[121:],
}


# without a digest, as in folders of earlier versions, the change of a text cannot be noticed
DAMAGED = [(damage, "with digests") for damage in DAMAGE] + [(damage, "without") for damage in ("empty", "cut")]


@pytest.mark.parametrize(("damage", "version"), DAMAGED)
def test_a_damaged_part_is_computed_again(embedder: Embedder, tmp_path: Path, damage: str, version: str) -> None:
    out = tmp_path / "out"
    embed(embedder, out)
    before, part = contents(out), out / "part-00001.parquet"
    if version == "without":
        (out / "multimodal.sha256").unlink()
    part.write_bytes(DAMAGE[damage](part.read_bytes()))
    assert finished_rows(out) == 7
    with pytest.raises(MultimodalError, match=r"part-00001\.parquet is damaged"):
        list(read_parts(out))
    embed(embedder, out)
    assert {name: content for name, content in contents(out).items() if name != "multimodal.sha256"} == {
        name: content for name, content in before.items() if name != "multimodal.sha256"
    }
    assert finished_rows(out) == 11
    assert len(list(read_parts(out))) == 3


@pytest.mark.parametrize("column", ["graph", "key"])
def test_a_part_without_a_digest_is_judged_by_its_contents(embedder: Embedder, tmp_path: Path, column: str) -> None:
    out = tmp_path / "out"
    embed(embedder, out)
    before = contents(out)
    (out / "multimodal.sha256").unlink()
    with patch.object(Embedder, "embed", side_effect=AssertionError("embedded again")):
        embed(embedder, out)
    part = pq.read_table(out / "part-00000.parquet")
    if column == "graph":
        vectors = pa.array([[2.0, 0, 0, 0, 0]] * len(part), pa.list_(pa.float32(), 5))
        part = part.set_column(part.column_names.index(column), column, vectors)
    else:
        part = part.drop_columns(["key"])
    pq.write_table(part, out / "part-00000.parquet")
    embed(embedder, out)
    assert contents(out) == before


def test_too_many_unreadable_rows_raise_and_earlier_parts_are_kept(embedder: Embedder, tmp_path: Path) -> None:
    broken = samples_of(cells=CELLS | {"title": [*TITLES[:9], "", "tea pot"]})
    with pytest.raises(
        MultimodalError, match=r"1 of 11 rows cannot be read .*row 9 \('s-9'\), column 'title': .* empty"
    ):
        embed(embedder, tmp_path / "out", samples=broken)
    assert sorted(path.name for path in (tmp_path / "out").glob("part-*")) == [
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_an_unreadable_row_is_left_out_and_the_others_keep_their_keys(embedder: Embedder, tmp_path: Path) -> None:
    broken = samples_of(cells=CELLS | {"title": [TITLES[0], "", *TITLES[2:]]})
    made_of = embed_samples(embedder, broken, ROWS, tmp_path / "out", part_rows=4, max_rejects=0.1)
    assert (made_of.rows, made_of.with_alternatives, len(made_of.rejects)) == (10, 10, 1)
    made = [row for part in read_parts(tmp_path / "out") for row in part.to_pylist()]
    assert [row["key"] for row in made] == [f"s-{row}" for row in range(11) if row != 1]
    (expected,) = embedder.encode(batch_size=256, text=[TITLES[2]])
    assert made[1]["text"] == pytest.approx(expected.tolist(), abs=1e-5)
    index = Index.build(tmp_path / "out", tmp_path / "index")
    assert "s-1" not in {hit.key for hit in index.search(expected[None], k=100)[0]}


def test_several_columns_of_a_modality_are_embedded_each_under_the_row_s_key(
    embedder: Embedder, tmp_path: Path
) -> None:
    cells = {"name": ["tea cup", "jug", None], "words": ["mug", None, None], "sku": ["a", "b", "c"]}
    samples = Samples.of(
        ShopTable("words", cells | {"title": cells["name"], "product": [1, 2, 3]}),
        {"text": ["name", "words"]},
        key="sku",
    )
    counts = embed_samples(embedder, samples, np.arange(3), tmp_path / "out")
    assert (counts.rows, counts.with_alternatives) == (3, 4)
    assert repr(counts) == "3 rows (4 with alternatives)"
    made = [row for part in read_parts(tmp_path / "out") for row in part.to_pylist()]
    assert [row["key"] for row in made] == ["a", "a", "b", "c"]
    expected = embedder.encode(batch_size=256, text=["tea cup", "mug", "jug"])
    np.testing.assert_allclose([row["text"] for row in made[:3]], expected, atol=1e-5)
    assert made[3]["text"] is None


@pytest.mark.parametrize(
    "other",
    [
        {"embedder": 1},
        {"samples": samples_of(table="store")},
        {"samples": samples_of(text="title")},
        {"rows": ROWS[:10]},
        {"rows": ROWS[::-1]},
        {"part_rows": 5},
        {"samples": samples_of(graph="drawing", text="subtitle")},
        {"samples": samples_of(key="title")},
        {"samples": samples_of(group=None)},
    ],
    ids=["model", "table", "modalities", "rows", "order", "part_rows", "columns", "key", "group"],
)
def test_other_work_is_rejected_and_leaves_the_folder_unchanged(
    embedder: Embedder, tmp_path: Path, other: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    embed(embedder, out)
    before = contents(out)
    if "embedder" in other:
        other = {"embedder": new_embedder(seed=other["embedder"])}
    with pytest.raises(MultimodalError, match="another model, table or split"):
        embed(**{"embedder": embedder, "out": out} | other)
    assert contents(out) == before


def test_a_folder_with_other_files_is_rejected(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("dear")
    with pytest.raises(MultimodalError, match=f"{tmp_path} is not empty and holds no embeddings"):
        embed(embedder, tmp_path)
    assert contents(tmp_path) == {"thesis.txt": b"dear"}


def test_a_file_instead_of_a_folder_is_rejected(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("dear")
    for out in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "out"):
        with pytest.raises(UsageError, match=r"notes\.txt is a file, not a folder"):
            embed(embedder, out)
        with pytest.raises(UsageError, match=r"notes\.txt is a file, not a folder"):
            embed_table(tmp_path / "no_model", out=out)  # before the model is read
    assert contents(tmp_path) == {"notes.txt": b"dear"}


def test_an_embedder_needs_a_table(embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text("data: {table: glyphs, columns: {text: name}}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="An embedder has no data of its own: give the table"):
        embed_table(embedder, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- damage


@pytest.fixture
def made(embedder: Embedder, tmp_path: Path) -> Path:
    embed(embedder, tmp_path / "made")
    return tmp_path / "made"


def manifest_with(**changes: Any) -> bytes:
    manifest = asdict(Manifest("f", 5, ["text"], {"table": "shop"}, "t", rows=9, rows_digest="d", part_rows=4))
    return json.dumps(manifest | changes).encode()


def test_a_manifest_is_read_as_it_was_written(made: Path) -> None:
    manifest = read_manifest(made)
    assert asdict(manifest).items() <= json.loads((made / MANIFEST).read_text()).items()
    assert manifest.data == samples_of().settings
    (made / MANIFEST).write_bytes(manifest_with())
    assert asdict(read_manifest(made)) == json.loads(manifest_with())


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"{}", b"null", b'{"format": 1}', b"\xff\xfe", manifest_with(more=1)],
)
def test_a_damaged_manifest_is_named(made: Path, embedder: Embedder, content: bytes) -> None:
    (made / MANIFEST).write_bytes(content)
    with pytest.raises(MultimodalError, match=rf"{MANIFEST} is damaged"):
        read_manifest(made)
    with pytest.raises(MultimodalError, match=rf"{MANIFEST} is damaged"):
        embed(embedder, made)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": "9"},
        {"rows": 0},
        {"part_rows": 0},
        {"part_rows": 4.0},
        {"dim": None},
        {"dim": -5},
        {"format": 2},
        {"fingerprint": None},
        {"modalities": "text"},
    ],
)
def test_a_manifest_with_wrong_values_or_another_format_is_rejected(made: Path, changes: dict[str, Any]) -> None:
    (made / MANIFEST).write_bytes(manifest_with(**changes))
    with pytest.raises(MultimodalError, match=MANIFEST):
        read_manifest(made)


def test_a_folder_without_embeddings_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(MultimodalError, match=f"{folder} holds no embeddings"):
            read_manifest(folder)


def test_a_missing_part_is_reported_with_a_remedy(made: Path) -> None:
    (made / "part-00001.parquet").unlink()
    with pytest.raises(MultimodalError, match=r"incomplete: part-00001\.parquet is missing.*multimodal embed"):
        list(read_parts(made))


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_truncated_part_is_reported_with_a_remedy(made: Path, kept: int) -> None:
    part = made / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:kept])
    with pytest.raises(MultimodalError, match=r"part-00002\.parquet is damaged; run the same `multimodal embed`"):
        list(read_parts(made))


# -- the folder as a table


def test_the_folder_opens_as_a_table_with_the_described_columns(tmp_path: Path, embedder: Embedder) -> None:
    embed(embedder, tmp_path / "e")
    table = open_table(str(tmp_path / "e"))
    assert table.columns == ("key", "group", "metadata", "digest", "graph", "text")
    parts = pa.concat_tables(pq.read_table(part) for part in sorted((tmp_path / "e").glob("part-*.parquet")))
    assert len(table) == len(parts) == len(ROWS)
    for row in range(len(table)):
        for column in table.columns:
            expected = parts[column][row].as_py()
            found = table.value(row, column)
            assert found is None if expected is None else np.array_equal(found, expected), (row, column)
    types = {column: str(parts.schema.field(column).type) for column in ("key", "metadata", "graph")}
    assert types == {"key": "string", "metadata": "string", "graph": "fixed_size_list<element: float>[5]"}


def test_a_folder_that_another_writes_is_refused_before_the_model_is_loaded(tmp_path: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        try:
            embed_table(tmp_path / "no such run", "no such table", out=tmp_path / "out")
        except MultimodalError as error:
            refused.append(str(error))

    with write_lock(tmp_path / "out"):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert f"{tmp_path / 'out'} is being written by" in refused[0]
    assert os.listdir(tmp_path) == []


def test_files_that_a_killed_process_left_unfinished_are_removed(embedder: Embedder, tmp_path: Path) -> None:
    for name in (f"{MANIFEST}.new", LOCK_FILE):  # killed before the manifest was there
        (tmp_path / name).write_text("half")
    embed_samples(embedder, samples_of(), ROWS, tmp_path, part_rows=4)
    written = sorted(os.listdir(tmp_path))
    assert written == [MANIFEST, "multimodal.sha256", *(f"part-0000{n}.parquet" for n in range(3))]
    for name in ("part-00001.parquet", MANIFEST):
        (tmp_path / f"{name}.new").write_text("half")
    (tmp_path / "part-00001.parquet").unlink()
    embed_samples(embedder, samples_of(), ROWS, tmp_path, part_rows=4)
    assert sorted(os.listdir(tmp_path)) == written


# -- batches


def test_batches_hold_texts_of_similar_length_and_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    titles = [" ".join(rng.choice(["cup", "mug", "pot"], length)) for length in rng.integers(1, 60, 1000)]
    cells = {"title": titles, "sku": list(map(str, range(1000))), "product": titles}
    embedder = new_embedder()
    processor = embedder.encoder("text").processor
    shapes: list[tuple[int, int, int]] = []
    collate = type(processor).collate

    def recorded(self: Any, items: Sequence[Any]) -> Any:
        inputs = collate(self, items)
        n, longest = inputs["tokens"].shape
        shapes.append((n, longest, int((inputs["tokens"] > 0).sum())))
        return inputs

    monkeypatch.setattr(type(processor), "collate", recorded)
    embed_samples(embedder, samples_of(cells=cells, text="title"), np.arange(1000), tmp_path / "out", batch_size=16)
    monkeypatch.undo()
    padded, tokens = sum(n * longest for n, longest, _ in shapes), sum(used for *_, used in shapes)
    assert sum(n for n, *_ in shapes) == 1000
    assert padded < 1.1 * tokens  # in the table's order, it would be 1.9 times as many
    assert max(n * processor.cost([[1] * longest]) for n, longest, _ in shapes) <= 16
    assert len({n for n, *_ in shapes}) > 5  # more of the shorter ones
    found = [row for part in read_parts(tmp_path / "out") for row in part.to_pylist()]
    assert [row["key"] for row in found] == cells["sku"]
    loop = np.concatenate([embedder.encode(text=[title]) for title in titles[::50]])
    np.testing.assert_allclose([row["text"] for row in found[::50]], loop, atol=1e-5)


def test_items_of_equal_cost_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed_parts, "READ_ROWS", 4)
    encoded: list[int] = []
    encode_items = Embedder.encode_items

    def recorded(self: Embedder, modality: str, items: Sequence[Any], *arguments: Any) -> np.ndarray:
        encoded.append(len(items))
        return encode_items(self, modality, items, *arguments)

    monkeypatch.setattr(Embedder, "encode_items", recorded)
    cells = CELLS | {"title": ["cup"] * 11}
    embed(new_embedder(), tmp_path / "equal", samples=samples_of(cells=cells, text="title"), part_rows=11)
    assert encoded == [4, 4, 3]
    encoded.clear()
    cells = CELLS | {"title": ["tea cup" * (row % 2) or "cup" for row in range(11)]}
    embed(new_embedder(), tmp_path / "unequal", samples=samples_of(cells=cells, text="title"), part_rows=11)
    assert encoded == [11]
    encoded.clear()
    monkeypatch.setattr(embed_parts, "WAITING_BYTES", 200)  # of some texts
    embed(new_embedder(), tmp_path / "limited", samples=samples_of(cells=cells, text="title"), part_rows=11)
    assert sum(encoded) == 11
    assert max(encoded) < 11
