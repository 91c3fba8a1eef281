"""Kinds of columns are inferred from their first values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from multimodal.prepare.column_kinds import describe_columns, kind_of, truncate_value
from multimodal.prepare.columns import Column

PNG = b"\x89PNG\r\n\x1a\n...."


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([], "other"),
        (["a/b.png", "c.JPG"], "image"),
        ([PNG, b"\xff\xd8\xff"], "image"),
        ([{"path": None, "bytes": PNG}], "image"),
        ([{"path": "x.flac", "bytes": None}], "audio"),
        ([b"RIFF1234WAVE"], "audio"),
        (["one.wav", "two.mp3"], "audio"),
        (["there.mol"], "file"),
        (["there.svg"], "file"),
        (["there.graphml"], "file"),
        (["v1.beta", "v2.beta"], "other"),  # not names of files
        ([1, 2.5], "number"),
        (["1", "2.5"], "number"),
        ([True, False], "category"),
        (["cat", "dog"] * 20, "category"),
        (["cat", "dog"], "text"),
        (["a black cat", "a dog, e.g."], "text"),
        (["CC(=O)C1", "C1=CC=CC=C1"], "other"),
        (["U+1F600", "U+1F601"], "other"),
        ([[1], {"a": 1}], "other"),
        (["see a.png for it\nor b.png"], "text"),
    ],
)
def test_the_kind_of_values_is_inferred(values: list[Any], kind: str, tmp_path: Path) -> None:
    for suffix in ("mol", "svg", "graphml"):
        (tmp_path / f"there.{suffix}").touch()
    assert kind_of(values, tmp_path.joinpath) == kind
    assert kind_of([truncate_value(value) for value in values], tmp_path.joinpath) == kind


ROWS = [{"id": "p1", "photo": "a.png", "title": "a cup", "price": 3, "alt": "the cup"}]


def test_without_named_columns_pictures_sounds_and_texts_are_modalities(tmp_path: Path) -> None:
    found = describe_columns(list(ROWS[0]), ROWS, {}, ["title"], tmp_path.joinpath)
    assert found == [
        Column("id", "other", None),
        Column("photo", "image", "image"),
        Column("title", "text", None),
        Column("price", "number", None),
        Column("alt", "text", "text"),
    ]


@pytest.mark.parametrize(
    "icon",
    [
        "a.svg",
        b"<svg viewBox='0 0 24 24'/>",
        "\ufeff<?xml version='1.0'?>\n<svg/>",
        {"path": "a.svg", "bytes": None},
        {"path": None, "bytes": b"<!-- an icon --><svg/>"},
    ],
    ids=str,
)
def test_without_named_columns_drawings_are_graphs(icon: Any, tmp_path: Path) -> None:
    (tmp_path / "a.svg").touch()
    (tmp_path / "a.pdf").touch()

    def resolve(value: str) -> Path | bytes:
        return value.encode() if "<" in value else tmp_path / value

    rows = [{"icon": icon, "name": "a cup", "sheet": "a.pdf", "sound": "a.wav"}]
    found = describe_columns(list(rows[0]), rows, {}, [], resolve)
    assert [(c.kind, c.modality) for c in found] == [
        ("file", "graph"),
        ("text", "text"),
        ("file", None),
        ("audio", "audio"),
    ]
    (labelled, *_) = describe_columns(list(rows[0]), rows, {}, ["icon"], resolve)
    assert labelled.modality is None


def test_a_named_column_has_its_modality_regardless_of_its_values(tmp_path: Path) -> None:
    chosen = {"text": ["id", "title"], "graph": "alt", "image": "price"}
    found = describe_columns(list(ROWS[0]), ROWS, chosen, [], tmp_path.joinpath)
    assert [(c.kind, c.modality) for c in found] == [
        ("text", "text"),
        ("image", None),
        ("text", "text"),
        ("image", "image"),
        ("other", "graph"),
    ]
