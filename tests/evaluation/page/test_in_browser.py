"""A report in a real browser: filters, the map and its keys, pictures, both colour schemes, and no error in the console."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from multimodal.core.embedder import Embedder
from multimodal.evaluation.run_evaluation import evaluate

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]


@pytest.fixture(scope="module")
def page_file(embedder: Embedder, signs: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    columns = {"image": "picture", "text": "title", "graph": "outline"}
    evaluate(embedder, signs, columns=columns, key="id", split="all", out=out, label="class")
    return out / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    environment = {**os.environ, "HOME": os.environ.get("HOME", "/tmp")}
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], env=environment)
        yield browser
        browser.close()


class Opened:
    """A page, what its console says, and what it fetched from elsewhere."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str) -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: self.problems.append(f"dialog {dialog.message}"))
        self.page.on("request", self._note)
        self.page.goto(path.as_uri())

    def _note(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:")):
            self.problems.append(f"fetched {request.url[:100]}")


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["laptop", "phone"])
def opened(request: pytest.FixtureRequest, browser: Any, page_file: Path) -> Iterator[Opened]:
    found = Opened(browser, page_file, *request.param)
    yield found
    assert found.problems == []
    found.context.close()


def shown(page: Any) -> list[Any]:
    return page.locator("#examples article:visible").all()


def test_searches_are_filtered(opened: Opened) -> None:
    page = opened.page
    assert len(shown(page)) == 30  # those of the first pair
    form = page.locator("#examples form")
    form.locator("[name=verdict]").select_option("right")
    right = shown(page)
    assert all(article.locator("li").first.get_attribute("class") == "hit right" for article in right)
    form.locator("[name=verdict]").select_option("wrong")
    assert len(shown(page)) == 30 - len(right)
    form.locator("[name=verdict]").select_option("")
    form.locator("[name=pair]").select_option("graph->text")
    assert {article.get_attribute("data-pair") for article in shown(page)} == {"graph->text"}
    form.locator("[name=words]").fill("SIGN 7,")
    found = shown(page)
    assert found
    assert all("sign 7," in article.inner_text() for article in found)
    assert form.locator("output").inner_text().startswith(f"{len(found)} of ")
    form.locator("[name=words]").press("Enter")  # sends nothing
    assert page.url.endswith("report.html")


def test_pictures_and_drawings_are_there(opened: Opened) -> None:
    image = opened.page.locator("#examples article:not([hidden]) .query img").first
    image.scroll_into_view_if_needed()
    opened.page.wait_for_function("image => image.complete && image.naturalWidth === 12", arg=image.element_handle())
    opened.page.locator("#examples [name=pair]").select_option("graph->text")
    drawing = opened.page.locator("#examples article:not([hidden]) .drawing img").first
    drawing.scroll_into_view_if_needed()
    opened.page.wait_for_function("image => image.complete && image.naturalWidth === 96", arg=drawing.element_handle())


def test_the_map_names_points_by_pointer_and_by_keys(opened: Opened) -> None:
    page = opened.page
    canvas, tip = page.locator("#map canvas"), page.locator("#map .tip")
    canvas.scroll_into_view_if_needed()
    assert tip.is_hidden()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    first = tip.inner_text()
    assert "<script>alert('x')</script>" in first  # as text
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    box = canvas.bounding_box()
    found = False
    for step in range(900):  # over the whole map, until a point is near
        page.mouse.move(
            box["x"] + box["width"] * (step % 30 + 0.5) / 30, box["y"] + box["height"] * (step // 30 + 0.5) / 30
        )
        if found := tip.is_visible():
            break
    assert found
    form = page.locator("#map form")
    form.locator("[name=colour]").select_option("class")
    assert page.locator("#map [data-legend] span").count() == 3
    form.locator("[name=layout]").select_option(index=1)
    form.get_by_role("button", name="zoom in").click()
    form.get_by_role("button", name="whole map").click()


def test_the_page_fits_the_width_of_the_window(opened: Opened) -> None:
    width = opened.page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width[0] == width[1]
    dark = opened.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    background = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(18, 24, 31)") == dark


def test_an_injected_script_would_not_run(opened: Opened) -> None:
    opened.page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    opened.page.wait_for_timeout(300)
    assert opened.page.title() != "1"
    assert opened.problems
    assert all("Content Security Policy" in problem for problem in opened.problems)
    opened.problems.clear()
