"""A second row of a key is refused by embed, index and upsert in the same way; alternatives of a row are not."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.registry import create
from multimodal.search.embed import embed_table
from multimodal.search.index import Index
from multimodal.search.unique_keys import with_unique_keys

ROWS = [{"id": key, "title": f"a cup {n}", "words": "cups"} for n, key in enumerate("abcb")]
BOTH = r"Rows 1 and 3 of .* both have the key 'b'"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    torch.manual_seed(0)
    embedder = Embedder({"text": create("text", "bag")}, dim=8)
    embedder.fit_processors({"text": ["a cup 0"]})
    return embedder.eval()


def part_of(*rows: tuple[str, str, str]) -> pa.Table:
    return pa.table(dict(zip(("key", "group", "metadata"), map(list, zip(*rows, strict=True)), strict=True)))


def test_embed_index_and_upsert_refuse_them(embedder: Embedder, tmp_path: Path) -> None:
    settings = {"columns": {"text": "title"}, "key": "id"}
    with pytest.raises(UsageError, match=BOTH):
        embed_table(embedder, ROWS, out=tmp_path / "vectors", **settings)
    assert not (tmp_path / "vectors" / "embeddings.json").exists()
    with pytest.raises(UsageError, match=BOTH):
        Index.from_table(embedder, ROWS, **settings)
    index = Index.from_table(embedder, ROWS[:1], **settings)
    with pytest.raises(UsageError, match=BOTH):
        index.upsert(ROWS)
    assert len(index) == 1


@pytest.mark.parametrize("engine", ["exact", "qdrant-edge"])
def test_embeddings_of_an_earlier_version_are_refused_and_an_index_is_kept(
    embedder: Embedder, tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = {"text": ["title", "words"]}
    embed_table(embedder, ROWS[:3], out=tmp_path / "good", columns=columns, key="id")
    Index.build(tmp_path / "good", tmp_path / "index", engine=engine).close()  # alternatives of one row
    monkeypatch.setattr("multimodal.data.keys.check_unique_keys", lambda *_: None)
    embed_table(embedder, ROWS, out=tmp_path / "vectors", columns=columns, key="id")
    with pytest.raises(MultimodalError, match=r"Rows 2 and 6 of the embeddings both have the key 'b'.*--key COLUMN"):
        Index.build(tmp_path / "vectors", tmp_path / "index", engine=engine)
    with Index.open(tmp_path / "index") as index:
        assert len(index) == 6


def test_rows_of_other_parts_count(monkeypatch: pytest.MonkeyPatch) -> None:
    first = part_of(("a", "#0", "{}"), ("a", "#0", "{}"), ("b", "#1", "{}"))
    assert list(with_unique_keys([first, part_of(("b", "#1", "{}"), ("c", "#2", "{}"))]))  # the last row's alternative
    with pytest.raises(MultimodalError, match="Rows 0 and 4"):
        list(with_unique_keys([first, part_of(("c", "#2", "{}"), ("a", "#3", "{}"))]))
    with pytest.raises(MultimodalError, match="Rows 2 and 3"):
        list(with_unique_keys([first, part_of(("b", "#1", '{"n": 1}'))]))
    monkeypatch.setattr("builtins.hash", lambda _: 7)  # equal hashes are not equal keys
    assert len(list(with_unique_keys([first, part_of(("c", "#2", "{}"))]))) == 2


@given(st.lists(st.lists(st.integers(0, 60), max_size=6), max_size=12))
def test_a_key_of_any_earlier_part_is_found(numbers: list[list[int]]) -> None:
    rows = [(f"k{number}", f"#{place}", "{}") for place, number in enumerate(n for part in numbers for n in part)]
    parts, start = [], 0
    for part in numbers:
        if part:
            parts.append(part_of(*rows[start : start + len(part)]))
        start += len(part)
    if len({key for key, _, _ in rows}) == len(rows):
        assert list(with_unique_keys(parts)) == parts
    else:
        with pytest.raises(MultimodalError, match="both have the key"):
            list(with_unique_keys(parts))
