"""The gallery is one file with every query and hit in it, escaped, and a page of a browser without errors."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import UsageError
from multimodal.core.registry import create
from multimodal.data.samples import Samples
from multimodal.search.embed import embed_table
from multimodal.search.gallery import write_gallery
from multimodal.search.index import Index

NAMES = ["red cup", "blue <b>mug</b>", "old vase"]
COLUMNS = {"image": "photo", "text": "title"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, a table of pictures and its index."""
    folder = tmp_path_factory.mktemp("gallery")
    torch.manual_seed(0)
    image = create("image", "timm", arch="test_resnet", preprocess={"input_size": [3, 32, 32]})
    embedder = Embedder({"image": image, "text": create("text", "bag")}, dim=8)
    embedder.fit_processors({"text": NAMES * 3})
    embedder.save_pretrained(folder / "model")
    rows = []
    for number, name in enumerate(NAMES):
        Image.new("RGB", (40, 30), (80 * number, 40, 0)).save(folder / f"{number}.png")
        rows.append({"id": f"k{number}", "photo": f"{number}.png", "title": name, "name": name.upper()})
    (folder / "shop.jsonl").write_text("\n".join(map(json.dumps, rows)))
    embed_table(folder / "model", str(folder / "shop.jsonl"), out=folder / "vectors", columns=COLUMNS, key="id")
    Index.build(folder / "vectors", folder / "index").close()
    return folder


def media(page: str) -> list[str]:
    found = re.search(r'<script type="application/json" id="media">(.*?)</script>', page, re.S)
    assert found is not None
    return json.loads(found[1])


def test_every_query_is_shown_with_the_hits_of_a_search(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "queries.txt").write_text("red cup\n\nblue <b>mug</b>\n", encoding="utf-8")
    paths = [str(folder / name) for name in ("model", "index", "queries.txt")]
    assert main(["gallery", *paths, "--out", str(folder / "hits.html"), "-k", "2", "--target", "image", "--debug"]) == 0
    assert "4 hits of 2 queries" in capsys.readouterr().out
    page = (folder / "hits.html").read_text("utf-8")
    with Index.open(folder / "index", model=folder / "model") as index:
        expected = [index.search(text=text, k=2, target="image") for text in ("red cup", "blue <b>mug</b>")]
    articles = page.split("<article>")[1:]
    assert len(articles) == 2
    for article, hits in zip(articles, expected, strict=True):
        keys = re.findall(r"<small>(k\d)</small>", article)
        assert keys == [hit.key for hit in hits]
        assert all(f"<small>{hit.score:.3f}</small>" in article for hit in hits)
    assert "<b>mug</b>" not in page
    assert all(url.startswith("data:image/png;base64,") for url in media(page))
    assert {int(n) for n in re.findall(r'data-media="(\d+)"', page)} == set(range(len(media(page))))


def test_queries_of_several_values_come_from_json(folder: Path) -> None:
    query = {"text": "red cup", "image": str(folder / "1.png")}
    (folder / "queries.jsonl").write_text(json.dumps(query))
    paths = [str(folder / name) for name in ("model", "index", "queries.jsonl")]
    assert main(["gallery", *paths, "--out", str(folder / "two.html"), "--where", "name=OLD VASE"]) == 0
    page = (folder / "two.html").read_text("utf-8")
    assert re.findall(r"<small>(k\d)</small>", page) == ["k2"]
    assert page.count('class="value picture"') >= 2  # of the query and of the hit


def test_without_its_table_hits_are_shown_by_their_metadata(folder: Path, tmp_path: Path) -> None:
    embedder = Embedder.from_pretrained(folder / "model")
    index = Index.from_table(embedder, [{"id": "k0", "title": "red cup"}], columns={"text": "title"}, key="id")
    write_gallery(index, ["cup"], tmp_path / "page.html", k=1)
    assert "red cup</b>" in (tmp_path / "page.html").read_text("utf-8")
    other = Samples.of([{"title": "other", "id": "k0"}], {"text": "title"}, key="id")
    write_gallery(index, ["cup"], tmp_path / "page.html", k=1, table=other)
    assert "other" in (tmp_path / "page.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries": []}, "shows 1 to 2,000 queries, got 0"),
        ({"out": "page.txt"}, r"must end in \.html"),
        ({"top": 3}, "takes no argument 'top'"),
        ({"queries": [{"sound": "x"}]}, "sound"),
    ],
)
def test_what_cannot_be_shown_is_refused(folder: Path, tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    with Index.open(folder / "index", model=folder / "model") as index:
        settings = {"queries": ["cup"], "out": tmp_path / "page.html"} | arguments
        with pytest.raises(UsageError, match=message):
            write_gallery(index, settings.pop("queries"), settings.pop("out"), **settings)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "does not exist"),
        ("bad.jsonl", b"{", "line 1: not JSON"),
        ("list.jsonl", b"[1]", "a query is an object"),
        ("latin.txt", b"caf\xe9", "not a text in UTF-8"),
    ],
)
def test_a_file_that_holds_no_queries_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    paths = [str(folder / "model"), str(folder / "index"), str(tmp_path / name)]
    assert main(["gallery", *paths, "--out", str(tmp_path / "page.html")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert name in error


def test_the_page_opens_in_a_browser(folder: Path, tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with Index.open(folder / "index", model=folder / "model") as index:
        write_gallery(index, ["red cup", "old vase"], tmp_path / "page.html", k=3)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 800})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function("[...document.images].slice(0, 3).every(i => i.complete && i.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.fill("#find", "old va")
        assert page.evaluate("[...document.querySelectorAll('article')].map(a => a.hidden)")[1] is False
        page.fill("#find", "no such thing")
        assert page.evaluate("[...document.querySelectorAll('article')].every(a => a.hidden)")
        assert problems == []
        browser.close()
