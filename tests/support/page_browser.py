"""A browser that uses the page of a server."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from drawn_symbols import Strokes

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
WAIT = 20_000  # milliseconds


@contextmanager
def started_browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    environment: dict[str, str | float | bool] = {**os.environ, "HOME": os.environ.get("HOME", "/tmp")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"], env=environment)
        yield browser
        browser.close()


class Opened:
    """The page in a window of its own, with what its console says and what it fetches from elsewhere."""

    def __init__(self, browser: Any, address: str, width: int = 1280, scheme: str = "light", link: str = "") -> None:
        self.context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda r: r.url.startswith((address, "data:")) or self.problems.append(r.url))
        self.page.goto(address + link)
        self.page.wait_for_selector("html[data-ready]", timeout=WAIT)

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    @property
    def keys(self) -> list[str]:
        """The keys of the hits."""
        return self.page.eval_on_selector_all("#hits .hit", "hits => hits.map((each) => each.dataset.key)")

    @property
    def first_row(self) -> list[str]:
        """The titles of the hits in the first row."""
        row = "hits.filter((each) => each.offsetTop === hits[0].offsetTop)"
        return self.page.eval_on_selector_all("#hits .hit", f"hits => {row}.map((each) => each.hit.metadata.name)")

    def searched(self, act: Any) -> None:
        """Do something that makes the page search, and wait for its hits."""
        with self.page.expect_response(lambda answer: answer.url.endswith("/search"), timeout=WAIT):
            act()
        self.page.wait_for_selector("#found:not(.waiting)", timeout=WAIT)

    def stroke(self, points: list[tuple[int, int]]) -> None:
        """Draw one stroke with the mouse."""
        box = self.page.locator("#sheet").bounding_box()
        scale = box["width"] / 256
        places = [(box["x"] + x * scale, box["y"] + y * scale) for x, y in points]
        self.page.mouse.move(*places[0])
        self.page.mouse.down()
        for place in places[1:]:
            self.page.mouse.move(*place, steps=3)
        self.page.mouse.up()

    def draw(self, strokes: Strokes) -> None:
        """Draw with the mouse on an empty sheet, and wait for the hits of the whole drawing."""
        if self.page.is_enabled("#clear"):
            self.page.click("#clear")
        for points in strokes[:-1]:
            self.stroke(points)
        self.page.wait_for_timeout(200)
        self.searched(lambda: self.stroke(strokes[-1]))
