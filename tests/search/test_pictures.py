"""An index shows the pictures of the table that was embedded."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from multimodal.core.errors import UsageError
from multimodal.data.datamodule import DataModule
from multimodal.data.pictures import Pictures
from multimodal.data.samples import Samples
from multimodal.search.engines.exact import ExactEngine
from multimodal.search.index import Index

COLUMNS: dict[str, str | list[str]] = {"image": "photo", "text": "title"}


def picture(color: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {"r": picture("red"), "b": picture("blue")}
ROWS = [{"sku": sku, "photo": file, "title": f"cup {sku}"} for sku, file in FILES.items()]
ROWS.append({"sku": "n", "photo": None, "title": "no photo"})


def index_of(settings: Mapping[str, Any] | None) -> Index:
    """Return an index of three rows, whose table was opened with the given settings."""
    keys = [row["sku"] for row in ROWS]
    items = {"key": keys, "group": keys, "modality": ["text"] * 3, "metadata": [json.dumps({})] * 3}
    return Index(ExactEngine(np.eye(3, dtype=np.float32), pa.table(items)), "f" * 64, settings)


def pictures(index: Index) -> dict[str, bytes | None]:
    return {hit.key: hit.picture for hit in index.search(np.ones((1, 3)))[0]}


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A CSV file whose cells name picture files."""
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path / "cache"))
    for sku, file in FILES.items():
        (tmp_path / f"{sku}.png").write_bytes(file)
    (tmp_path / "shop.csv").write_text("sku,photo,title\nr,r.png,cup r\nb,b.png,cup b\nn,,no photo\n")
    return str(tmp_path / "shop.csv")


@pytest.mark.parametrize("kind", [Samples.of, DataModule])
def test_the_pictures_are_those_of_a_table_in_memory(kind: Any) -> None:
    index = index_of(None)
    shown = index.with_pictures(kind(ROWS, COLUMNS, key="sku"))
    assert pictures(shown) == {**FILES, "n": None}
    assert pictures(shown.filter(modality="text")) == {**FILES, "n": None}
    assert pictures(index) == dict.fromkeys("rbn")  # the index itself is unchanged


def test_the_table_is_opened_again_with_the_settings_of_the_embedding(table: str) -> None:
    settings = Samples.of(table, COLUMNS, key="sku").settings
    assert pictures(index_of(settings).with_pictures()) == {**FILES, "n": None}


def test_a_picture_that_is_gone_is_not_shown(table: str) -> None:
    shown = index_of(Samples.of(table, COLUMNS, key="sku").settings).with_pictures()
    Path(table).with_name("r.png").unlink()
    assert pictures(shown) == {"r": None, "b": FILES["b"], "n": None}


@pytest.mark.parametrize("settings", [None, Samples.of(ROWS, COLUMNS, key="sku").settings], ids=["none", "in memory"])
def test_a_table_that_cannot_be_opened_again_is_asked_for(settings: Mapping[str, Any] | None) -> None:
    with pytest.raises(UsageError, match="does not know its table: give the Samples or the DataModule"):
        index_of(settings).with_pictures()


def test_a_table_without_a_modality_of_pictures_is_wrong_usage() -> None:
    samples = Samples.of(ROWS, {"text": "title"})
    with pytest.raises(UsageError, match="no modality 'image' to show, only text"):
        index_of(None).with_pictures(samples)
    with pytest.raises(UsageError, match="no modality 'image' to show, only text"):
        Pictures(samples)
