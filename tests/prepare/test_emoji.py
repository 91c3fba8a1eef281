"""On real pictures with real faults, copies are found and merely similar pictures are kept."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from shared_data import SHARED

from multimodal.media.image import on_white
from multimodal.prepare.pipeline import prepare
from multimodal.prepare.settings import Settings

EMOJI = SHARED / "emoji"

pytestmark = pytest.mark.skipif(not EMOJI.is_dir(), reason=f"there are no emoji in {SHARED}")


def test_compressed_copies_of_emoji_are_found_and_no_emoji_is_lost(source: Any, pictures: Any, tmp_path: Path) -> None:
    with (EMOJI / "emoji.csv").open(newline="", encoding="utf-8") as file:
        emoji = [dict(row) for row in csv.DictReader(file)]
    rows: list[dict[str, Any]] = [
        {"picture": str(EMOJI / row["image"]), "name": row["name"], "keywords": row["keywords"]} for row in emoji
    ]
    for row in rows[0 : len(emoji) : 10]:
        with Image.open(row["picture"]) as picture:
            smaller = on_white(picture).resize((60, 60), Image.Resampling.LANCZOS)
        rows.append(row | {"picture": pictures.jpeg(smaller, 80), "name": row["name"].upper()})
    outcome = prepare(
        source(rows), Settings(columns={"image": "picture", "text": ["name", "keywords"]}), tmp_path / "out"
    )
    repeats = [json.loads(line) for line in (tmp_path / "out" / "duplicates.jsonl").read_text().splitlines()]
    found = {(r["row"], r["repeats"]) for r in repeats}
    planted = {(len(emoji) + n, 10 * n) for n in range(len(rows) - len(emoji))}
    assert found <= planted
    assert len(found) >= 0.95 * len(planted)
    assert outcome.rows_out == len(rows) - len(found)
