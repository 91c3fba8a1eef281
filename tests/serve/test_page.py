"""The page in a real browser: what it asks, shows, links and stores with a small model, and finds with a trained one."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawn_symbols import SYMBOLS
from page_browser import CHROMIUM, WAIT, Opened, started_browser
from PIL import Image, ImageDraw
from served_app import running
from served_model import COLOURS, THINGS

from multimodal import create
from multimodal.core.embedder import Embedder
from multimodal.monitor.feedback import Judgement, read_feedback
from multimodal.search.index import Index
from multimodal.serve.app import create_app

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe_playwright = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]

RUN = Path(os.environ.get("GLYPHS_RUN", "runs/glyphs"))
INDEX = Path(os.environ.get("GLYPHS_INDEX", RUN / "page" / "index"))
COLUMNS = {"text": "name", "image": "picture", "audio": "sound"}
CIRCLE = [[(60, 60), (200, 62), (198, 200), (60, 198), (60, 60)]]


def drawn(thing: int, colour: tuple[int, int, int]) -> bytes:
    """A picture of one of four shapes, dark on white."""
    sheet = Image.new("RGB", (48, 48), "white")
    pen, ink = ImageDraw.Draw(sheet), tuple(value // 2 for value in colour)
    shapes = [[(12, 24, 36, 24)], [(24, 12, 24, 36)], [(12, 12, 36, 36)], [(12, 36, 36, 12), (12, 12, 36, 36)]]
    for line in shapes[thing]:
        pen.line(line, ink, 3)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def model_and_table(tmp_path_factory: pytest.TempPathFactory) -> tuple[Embedder, Path]:
    import soundfile

    folder = tmp_path_factory.mktemp("shop")
    lines = ["sku,name,picture,sound,colour,sign"]
    for colour, rgb in COLOURS.items():
        for number, thing in enumerate(THINGS):
            (folder / f"{colour}-{thing}.png").write_bytes(drawn(number, rgb))
            soundfile.write(folder / f"{colour}-{thing}.wav", 0.5 * np.sin(np.arange(8_000) / (3 + number)), 16_000)
            lines.append(f"{colour}/{thing},a {colour} {thing},{colour}-{thing}.png,{colour}-{thing}.wav,{colour},☆")
    (folder / "shop.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    encoders = {
        "text": create("text", "bag", vocab_size=500),
        "image": create("image", "small_cnn", size=16, channels=3, widths=[8, 16], depth=1),
        "audio": create("audio", "spectrogram"),
    }
    model = Embedder(encoders, dim=16)
    names = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]
    pictures = [drawn(number, rgb) for rgb in COLOURS.values() for number in range(len(THINGS))]
    model.fit_processors({"text": names, "image": pictures, "audio": [np.zeros(8_000, np.float32)] * 12})
    return model.eval(), folder / "shop.csv"


@pytest.fixture(scope="module")
def judgements(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback") / "feedback.jsonl"


@pytest.fixture(scope="module")
def address(model_and_table: tuple[Embedder, Path], judgements: Path) -> Iterator[str]:
    model, table = model_and_table
    index = Index.from_table(model, str(table), columns=COLUMNS, key="sku")
    with running(create_app(index, name="shop", feedback=judgements)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with started_browser() as started:
        yield started


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["laptop", "phone"])
def opened(request: pytest.FixtureRequest, browser: Any, address: str) -> Iterator[Opened]:
    with Opened(browser, address, *request.param) as found:
        yield found
        assert found.problems == []
        assert found.page.evaluate("document.documentElement.scrollWidth") <= request.param[0]


@pytest.fixture
def laptop(browser: Any, address: str) -> Iterator[Opened]:
    with Opened(browser, address) as found:
        yield found
        assert found.problems == []


def sent(opened: Opened, act: Any) -> dict[str, Any]:
    """The last search that is sent within a second of what is done."""
    bodies: list[str] = []
    opened.page.on("request", lambda r: bodies.append(r.post_data) if r.url.endswith("/search") else None)
    opened.searched(act)
    return json.loads(bodies[-1])


def test_typing_finds_pictures(opened: Opened) -> None:
    asked = sent(opened, lambda: opened.page.locator("#box").press_sequentially("a red cup", delay=5))
    assert (asked["text"], asked["target"]) == ("a red cup", "image")
    assert len(opened.keys) == 12
    opened.page.eval_on_selector_all("#hits img", "pictures => Promise.all(pictures.map((each) => each.decode()))")
    assert re.fullmatch(r"12 hits in \d+ ms", opened.page.inner_text("#status"))


def test_words_are_looked_for_too_and_shown(
    browser: Any, address: str, model_and_table: tuple[Embedder, Path], tmp_path: Path
) -> None:
    model, table = model_and_table
    with Opened(browser, address) as exact:
        exact.searched(lambda: exact.page.fill("#box", "jug"))
        assert not exact.page.is_visible("#words-too")  # this engine has no words
    Index.from_table(model, str(table), columns=COLUMNS, key="sku").save(tmp_path / "index")
    with Index.open(tmp_path / "index", model) as index, running(create_app(index, name="shop")) as found:
        with Opened(browser, found) as opened:
            assert not opened.page.is_visible("#words-too")
            opened.searched(lambda: opened.page.fill("#box", "blue/jug"))
            asked = sent(opened, lambda: opened.page.check("#words"))
            assert asked["hybrid"] == "blue/jug"
            assert opened.keys[0] == "blue/jug"
            assert opened.page.inner_text("#hits .words >> nth=0") == "Has the words: blue jug"
            link = opened.page.url
            assert opened.problems == []
        with Opened(browser, link) as again:
            again.page.wait_for_selector("#hits .hit")
            assert again.page.is_checked("#words")
            assert again.keys[0] == "blue/jug"


def test_a_slow_answer_never_replaces_a_later_one(laptop: Opened) -> None:
    def delay(route: Any) -> None:
        if json.loads(route.request.post_data)["text"] == "red":
            waiting.append(route)
        else:
            route.continue_()

    waiting: list[Any] = []
    # Without this, the page would give up the earlier request, and its answer could not come late.
    laptop.page.evaluate("AbortController.prototype.abort = () => {}")
    laptop.page.route("**/search", delay)
    laptop.page.fill("#box", "red")
    laptop.page.wait_for_timeout(400)
    laptop.searched(lambda: laptop.page.fill("#box", "blue bowl"))
    expected = laptop.keys
    with laptop.page.expect_response("**/search"):
        waiting[0].fulfill(json={"query": {}, "hits": []})
    laptop.page.wait_for_timeout(200)
    assert laptop.keys == expected != []


def test_a_drawing_is_sent_as_the_pictures_are(opened: Opened) -> None:
    asked = sent(opened, lambda: opened.stroke(CIRCLE[0]))
    assert asked["image"].startswith("data:image/png;base64,")
    assert len(opened.keys) == 12
    sheet = 255 - np.asarray(Image.open(io.BytesIO(base64.b64decode(asked["image"].partition(",")[2]))).convert("L"))
    rows, columns = (np.flatnonzero((sheet > 127).any(axis=axis)) for axis in (1, 0))
    edge = len(sheet)
    assert sheet[0, 0] == 0
    # The index's pictures have lines of 24 to 27 of 48 pixels, 3 pixels wide.
    assert max(np.ptp(rows), np.ptp(columns)) / edge == pytest.approx(25 / 48, abs=0.05)
    assert abs(rows[0] + rows[-1] + 1 - edge) <= 3
    assert abs(columns[0] + columns[-1] + 1 - edge) <= 3
    assert sheet[edge // 2].sum() / 255 / 2 / edge == pytest.approx(3 / 48, abs=0.02)  # of two lines


def test_undo_and_clear(laptop: Opened) -> None:
    laptop.searched(lambda: laptop.stroke(CIRCLE[0]))
    laptop.searched(lambda: laptop.stroke([(20, 20), (90, 90)]))
    one = sent(laptop, lambda: laptop.page.click("#undo"))
    laptop.page.click("#clear")
    assert laptop.keys == []
    assert laptop.page.is_disabled("#undo")
    assert sent(laptop, lambda: laptop.stroke(CIRCLE[0])) == one
    thick = sent(laptop, lambda: laptop.page.fill("#pen", "200"))
    assert thick["image"] != one["image"]


def test_a_file_that_is_dropped(laptop: Opened) -> None:
    drop = """(bytes) => {
      const data = new DataTransfer();
      data.items.add(new File([new Uint8Array(bytes)], "mine.png", { type: "image/png" }));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }"""
    asked = sent(laptop, lambda: laptop.page.evaluate(drop, list(drawn(3, (200, 0, 0)))))
    assert asked["image"].startswith("data:image/png;base64,")
    assert laptop.keys[0] in {f"{colour}/bowl" for colour in COLOURS}
    assert "mine.png" in laptop.page.inner_text("#parts")
    laptop.page.click("#parts button")
    assert laptop.keys == []


def test_a_sound_that_is_chosen_finds_sounds_that_play(laptop: Opened, model_and_table: tuple[Embedder, Path]) -> None:
    laptop.page.click("#tab-audio")
    sound = model_and_table[1].parent / "red-jug.wav"
    asked = sent(laptop, lambda: laptop.page.set_input_files("#file", sound))
    assert asked["audio"].startswith("data:audio/")
    assert asked["target"] == "audio"
    assert laptop.keys[0].endswith("/jug")
    assert laptop.page.evaluate("document.querySelector('#hits audio').play().then(() => 'plays')") == "plays"


def test_a_file_that_the_model_does_not_read(laptop: Opened) -> None:
    laptop.page.set_input_files("#file", {"name": "a.mp4", "mimeType": "video/mp4", "buffer": b"0"})
    assert "does not read video/mp4" in laptop.page.inner_text("#fault")


def test_filters_with_counts(opened: Opened) -> None:
    opened.searched(lambda: opened.page.fill("#box", "a cup"))
    if not opened.page.is_visible("#facets"):
        opened.page.click("#choices summary")
    choice = opened.page.locator("[data-choice='colour=red']")
    assert choice.inner_text().split() == ["red", "4"]
    asked = sent(opened, lambda: choice.locator("input").check())
    assert asked["where"] == {"colour": ["red"]}
    assert sorted(opened.keys) == sorted(f"red/{thing}" for thing in THINGS)
    opened.searched(lambda: opened.page.click("#parts button"))
    assert len(opened.keys) == 12
    assert not choice.locator("input").is_checked()


def test_more_and_less_like_this(laptop: Opened) -> None:
    laptop.searched(lambda: laptop.page.fill("#box", "a cup"))
    first, second = laptop.keys[:2]
    laptop.searched(lambda: laptop.page.click("#hits .hit:nth-child(1) .like"))
    assert first not in laptop.keys
    place = laptop.keys.index(second) + 1
    asked = sent(laptop, lambda: laptop.page.click(f"#hits .hit:nth-child({place}) .unlike"))
    assert (asked["like"], asked["unlike"]) == ([first], [second])
    assert not {first, second} & set(laptop.keys)


def test_text_and_drawing_are_weighted(laptop: Opened) -> None:
    laptop.searched(lambda: laptop.page.fill("#box", "a cup"))
    asked = sent(laptop, lambda: laptop.stroke(CIRCLE[0]))
    assert asked["weights"] == {"text": 0.5, "image": 0.5}
    asked = sent(laptop, lambda: laptop.page.fill("#weight", "80"))
    assert asked["weights"] == pytest.approx({"text": 0.2, "image": 0.8})


def test_a_link_finds_the_same(laptop: Opened, browser: Any, address: str) -> None:
    laptop.searched(lambda: laptop.stroke(CIRCLE[0]))
    laptop.searched(lambda: laptop.page.fill("#box", "blue & jug"))
    laptop.searched(lambda: laptop.page.click("[data-choice='colour=blue'] input"))
    laptop.searched(lambda: laptop.page.click("#tab-all"))
    link = laptop.page.url
    scores = "hits => hits.map((each) => [each.dataset.key, each.hit.modality, each.hit.score])"
    expected = laptop.page.eval_on_selector_all("#hits .hit", scores)
    with Opened(browser, address, link=link.removeprefix(address)) as other:
        other.page.wait_for_selector("#hits .hit", timeout=WAIT)
        assert other.page.eval_on_selector_all("#hits .hit", scores) == expected != []
        assert other.page.input_value("#box") == "blue & jug"
        assert not other.problems


def test_a_damaged_link(browser: Any, address: str) -> None:
    with Opened(browser, address, link="/#drawn=%25%25&find=nothing&balance=x") as found:
        assert found.page.get_attribute("#tab-image", "aria-selected") == "true"
        assert "The link cannot be read" in found.page.inner_text("body")
        assert found.page.url.endswith("#drawn=%25%25&find=nothing&balance=x")
        assert not found.problems


def test_thumbs_are_stored(laptop: Opened, judgements: Path) -> None:
    laptop.searched(lambda: laptop.page.fill("#box", "a red pot"))
    for name in ("up", "down"):
        with laptop.page.expect_response(lambda answer: answer.url.endswith("/feedback")) as answer:
            laptop.page.click(f"#hits .hit:first-child .{name}")
        assert answer.value.status == 204
    stored = [each for each in read_feedback(judgements).judgements if each.verdict in ("up", "down")]
    assert [(each.verdict, each.key, each.query, each.position, each.shown) for each in stored] == [
        (verdict, laptop.keys[0], {"text": "a red pot"}, 1, tuple(laptop.keys)) for verdict in ("up", "down")
    ]
    assert stored[0].query_id == stored[1].query_id != ""
    assert laptop.page.get_attribute("#hits .hit:first-child .down", "aria-pressed") == "true"


def test_what_was_used_unused_and_missing_is_stored(laptop: Opened, judgements: Path) -> None:
    def stored(act: Any) -> Judgement:
        with laptop.page.expect_response(lambda answer: answer.url.endswith("/feedback")) as answer:
            act()
        assert answer.value.status == 204
        return read_feedback(judgements).judgements[-1]

    page = laptop.page
    laptop.searched(lambda: page.fill("#box", "a green pot"))
    used = stored(lambda: page.click("#hits .hit:nth-child(3) .value"))
    keys = laptop.keys
    assert (used.verdict, used.key, used.position, used.modality) == ("clicked", keys[2], 3, "image")
    before = len(read_feedback(judgements).judgements)
    page.click("#hits .hit:nth-child(3) .value")  # once for a search
    page.wait_for_timeout(300)
    assert len(read_feedback(judgements).judgements) == before
    page.click("#missing summary")
    page.fill("#missing-key", keys[-1])
    missing = stored(lambda: page.click("#missing-form button"))
    assert (missing.verdict, missing.key, missing.query_id) == ("missing", keys[-1], used.query_id)
    laptop.searched(lambda: page.fill("#box", "a blue pot"))
    keys = laptop.keys
    page.wait_for_timeout(2100)  # they are looked at
    unused = stored(lambda: page.fill("#box", "a cup"))
    assert (unused.verdict, unused.key, unused.query, unused.shown) == (
        "unused",
        "",
        {"text": "a blue pot"},
        tuple(keys),
    )
    page.wait_for_timeout(300)
    assert len(read_feedback(judgements).judgements) == before + 2


def test_an_unknown_key_is_not_missing(laptop: Opened) -> None:
    laptop.searched(lambda: laptop.page.fill("#box", "a green pot"))
    laptop.page.click("#missing summary")
    laptop.page.fill("#missing-key", "no such key")
    laptop.page.click("#missing-form button")
    laptop.page.wait_for_selector("#fault:has-text('no row with the key')")
    laptop.problems.clear()  # the browser itself reports the answer 404


def test_no_thumbs_unless_the_operator_wants_them(browser: Any, model_and_table: tuple[Embedder, Path]) -> None:
    model, table = model_and_table
    index = Index.from_table(model, str(table), columns=COLUMNS, key="sku")
    with running(create_app(index)) as address, Opened(browser, address) as found:
        found.searched(lambda: found.page.fill("#box", "a cup"))
        assert found.page.locator(".up, .down").count() == 0
        assert not found.page.is_visible("#missing")
        assert found.page.request.post(f"{address}/feedback", data={"verdict": "up"}).status == 404


def test_why_it_matched_is_asked_once(laptop: Opened) -> None:
    asked: list[str] = []
    laptop.page.on("request", lambda request: asked.append(request.url) if request.url.endswith("/explain") else None)
    laptop.searched(lambda: laptop.page.fill("#box", "a red cup"))
    for _ in range(2):
        laptop.page.hover("#hits .hit:first-child img")
        laptop.page.wait_for_selector("#why:not([hidden])", timeout=WAIT)
        assert "cup" in laptop.page.inner_text("#why")
        laptop.page.mouse.move(2, 2)
        laptop.page.wait_for_selector("#why", state="hidden")
    assert len(asked) == 1


def test_copy_by_one_click(laptop: Opened, address: str) -> None:
    laptop.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    laptop.searched(lambda: laptop.page.fill("#box", "a red cup"))
    laptop.page.hover("#hits .hit:first-child")
    laptop.page.click("#hits .hit:first-child .copy")
    laptop.page.wait_for_selector("#status:has-text('Copied')")
    assert laptop.page.evaluate("navigator.clipboard.readText()") == "☆"


def test_keys(laptop: Opened) -> None:
    page = laptop.page
    page.keyboard.press("/")
    laptop.searched(lambda: page.keyboard.type("a cup"))
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.key") == laptop.keys[1]
    page.keyboard.press("ArrowDown")
    across = len(laptop.first_row)
    assert page.evaluate("document.activeElement.dataset.key") == laptop.keys[1 + across]
    chosen = laptop.keys[1 + across]
    assert sent(laptop, lambda: page.keyboard.press("Enter"))["like"] == [chosen]
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") == "box"
    page.keyboard.press("Escape")
    assert page.input_value("#box") == ""


def test_the_map_shows_the_query_and_its_hits(laptop: Opened) -> None:
    with laptop.page.expect_response(
        lambda r: r.url.endswith("/map") and r.request.method == "POST", timeout=WAIT
    ) as answer:
        laptop.searched(lambda: laptop.page.fill("#box", "a red cup"))
    found = answer.value.json()
    assert len(found["query"]) == 2
    assert len(found["hits"]) == 12
    assert None not in found["hits"]
    assert "36 of 36 vectors" in laptop.page.inner_text("#map-note")


def test_axe_finds_nothing(opened: Opened) -> None:
    script = (Path(axe_playwright.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    opened.page.evaluate(script)

    def check() -> None:
        found = opened.page.evaluate("axe.run()")
        assert [(fault["id"], fault["nodes"][0]["html"]) for fault in found["violations"]] == []

    check()
    opened.searched(lambda: opened.page.fill("#box", "a red cup"))
    opened.searched(lambda: opened.stroke(CIRCLE[0]))
    opened.page.click("#hits .hit:first-child .explain")
    opened.page.wait_for_selector("#why:not([hidden])", timeout=WAIT)
    check()
    for tab in ("text", "audio", "all"):
        opened.searched(lambda tab=tab: opened.page.click(f"#tab-{tab}"))
        check()


def test_an_error_of_the_server_is_shown(laptop: Opened) -> None:
    error = {"error": {"message": "256 requests are waiting."}}
    laptop.page.route("**/search", lambda route: route.fulfill(status=429, json=error))
    laptop.page.fill("#box", "a cup")
    laptop.page.wait_for_selector("#fault:not([hidden])")
    assert laptop.page.inner_text("#fault") == "256 requests are waiting."
    assert [problem for problem in laptop.problems if "429" not in problem] == []
    laptop.problems.clear()  # Chromium's own line about the status


def test_molecules_are_typed_and_drawn(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("rdkit", reason="rdkit is not installed")
    smiles = {"ethanol": "CCO", "benzene": "c1ccccc1", "phenol": "Oc1ccccc1", "acetone": "CC(C)=O"}
    lines = [f"{name},{value}" for name, value in smiles.items()]
    (tmp_path / "molecules.csv").write_text("\n".join(["name,SMILES", *lines]) + "\n", encoding="utf-8")
    encoders = {"text": create("text", "bag", vocab_size=200), "graph": create("graph", "molecule", width=16, layers=1)}
    model = Embedder(encoders, dim=8)
    model.fit_processors({"text": [*smiles], "graph": [*smiles.values()]})
    columns = {"text": "name", "graph": "SMILES"}
    index = Index.from_table(model.eval(), str(tmp_path / "molecules.csv"), columns=columns, key="name")
    with running(create_app(index)) as address, Opened(browser, address) as opened:
        assert opened.page.is_hidden("#draw")
        opened.page.select_option("#typed-as", "graph")
        asked = sent(opened, lambda: opened.page.fill("#box", "Oc1ccccc1"))
        assert asked == {"graph": "Oc1ccccc1", "k": 20, "target": "graph"}
        assert opened.keys[0] == "phenol"
        opened.page.eval_on_selector_all("#hits img", "pictures => Promise.all(pictures.map((each) => each.decode()))")
        assert (
            opened.page.request.get(f"{address}/picture?key=phenol&modality=graph").headers["content-type"]
            == "image/svg+xml"
        )
        assert not opened.problems


@pytest.fixture(scope="module")
def glyphs() -> Iterator[str]:
    if not INDEX.is_dir():
        pytest.skip(f"there is no {INDEX}; make demo trains the model of the glyphs and indexes them")
    model = Embedder.from_pretrained(RUN)
    with Index.open(INDEX, model=model) as index, running(create_app(index)) as found:
        yield found


def test_symbols_drawn_by_hand_are_found(browser: Any, glyphs: str) -> None:
    """Of twenty drawings, at least fifteen find their symbol among the first ten pictures, and the arrow fills its row."""
    with Opened(browser, glyphs) as opened:
        found = {}
        for name, symbol in SYMBOLS.items():
            opened.draw(symbol.strokes)
            names = opened.page.eval_on_selector_all("#hits .hit", "hits => hits.map((each) => each.hit.metadata.name)")
            found[name] = symbol.is_found(names[:10])
            if name == "arrow right":
                assert all(symbol.is_found([title]) for title in opened.first_row), opened.first_row
        assert sum(found.values()) >= 15, found
        assert not opened.problems
