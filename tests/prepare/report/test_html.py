"""The report is one self-contained page that shows what was done and escapes everything from the table."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from html_pages import EVIL, Page
from PIL import Image

from multimodal.prepare.pipeline import prepare
from multimodal.prepare.settings import Settings

MakeSource = Callable[..., Any]


@pytest.fixture
def page(source: MakeSource, pictures: Any, tmp_path: Path) -> Page:
    rows: list[dict[str, Any]] = [
        {"picture": pictures.png(pictures.blobs(n)), "title": f"a thing of the number {n}, {EVIL}", EVIL: "ab"[n > 2]}
        for n in range(30)
    ]
    rows.append({"picture": pictures.jpeg(pictures.blobs(3)), "title": rows[3]["title"].replace("thing", "Thing")})
    rows.append({"picture": pictures.png(pictures.blobs(5)), "title": "one more caption for the same picture"})
    rows += [{"title": f"{EVIL} without any picture"}, {"picture": b"no picture", "title": EVIL}]
    outcome = prepare(source(rows), Settings(max_rejects=0.5), tmp_path / "out")
    assert (outcome.near_duplicates, outcome.rejects) == (1, 1)
    return Page((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))


def test_the_page_has_no_scripts_and_no_external_resources(page: Page) -> None:
    assert "script" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert all(value.startswith("data:image/png;base64,") for name, value in page.attributes if name in ("src", "href"))
    assert EVIL.partition("\u202e")[0].strip() in page.text
    assert "\u202e" not in page.text  # it would reverse the text of the page


def test_the_page_reports_rows_in_and_out_and_why(page: Page) -> None:
    for text in ("34 rows in", "32 rows out", "1 left out", "1 near duplicates", "left out: not an image", "train"):
        assert text in page.text
    for title in (
        "Warnings",
        "Where the rows went",
        "Splits",
        "Columns",
        "Coverage of modality pairs",
        "Near duplicates",
    ):
        assert title in page.text
    assert re.search(r"image 31 31 text 31 32", page.text)
    assert "row 3, kept" in page.text
    assert "row 30, left out" in page.text


def test_near_duplicates_are_shown_side_by_side_as_pictures(page: Page, pictures: Any) -> None:
    shown = [value.partition(",")[2] for name, value in page.attributes if name == "src"]
    opened = [Image.open(io.BytesIO(base64.b64decode(data))) for data in shown]
    assert len(opened) >= 2
    assert max(max(picture.size) for picture in opened) <= 112
    assert opened[0].convert("RGB").tobytes() == pictures.blobs(3).tobytes()


def test_a_table_without_remaining_rows_has_a_report_too(source: MakeSource, tmp_path: Path) -> None:
    outcome = prepare(
        source([{"title": b"\xff"}], ["title"]), Settings(columns={"text": "title"}, max_rejects=1), tmp_path / "out"
    )
    assert outcome.warnings == ["No row is left."]
    assert "No row is left." in Page((tmp_path / "out" / "report.html").read_text()).text
