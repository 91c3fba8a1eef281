"""The glyphs agree with the fonts and Unicode, their splits do not leak, and the table is built once."""

from __future__ import annotations

import itertools
import json
import pickle
import signal
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from fontTools.pens.recordingPen import DecomposingRecordingPointPen
from fontTools.ttLib import TTFont
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal.datasets import glyphs as source
from multimodal.datasets.glyphs import FONTS, Glyphs, assign_splits, outline_graph

FONT_FILES = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
ONE_FACE = "STIXGeneralBolIta"  # has few characters


@pytest.fixture(scope="module")
def table() -> Glyphs:
    return Glyphs()


@pytest.fixture(scope="module")
def cells(table: Glyphs) -> dict[str, list[str]]:
    """All cells of the columns of strings."""
    columns = ("key", "character", "name", "font", "split")
    return {column: [table.value(row, column) for row in range(len(table))] for column in columns}


@pytest.fixture(scope="module")
def images(table: Glyphs) -> np.ndarray:
    return np.stack([table.value(row, "image") for row in range(len(table))])


def row_of(cells: dict[str, list[str]], font: str, character: str) -> int:
    return cells["key"].index(f"{font}/U+{ord(character):04X}")


def test_there_are_about_54000_drawings_of_about_7300_characters(cells: dict[str, list[str]]) -> None:
    assert len(cells["key"]) == pytest.approx(54_000, rel=0.02)
    assert len(set(cells["character"])) == pytest.approx(7_300, rel=0.02)
    assert set(cells["font"]) == set(FONTS)


def test_a_key_names_the_font_and_the_code_point_of_one_row(cells: dict[str, list[str]]) -> None:
    assert len(set(cells["key"])) == len(cells["key"])
    for key, font, character in zip(cells["key"], cells["font"], cells["character"], strict=True):
        key_font, code_point = key.split("/U+")
        assert (key_font, chr(int(code_point, 16))) == (font, character)


def test_unicode_finds_the_character_by_its_name(cells: dict[str, list[str]]) -> None:
    assert [unicodedata.lookup(name) for name in cells["name"]] == cells["character"]


def test_each_font_has_every_named_character_that_it_draws(cells: dict[str, list[str]]) -> None:
    characters_of_font = {c for c, font in zip(cells["character"], cells["font"], strict=True) if font == ONE_FACE}
    with TTFont(FONT_FILES / f"{ONE_FACE}.ttf") as font:
        glyf: Any = font["glyf"]
        cmap = font.getBestCmap() or {}
        inked = {chr(c) for c, name in cmap.items() if glyf[name].numberOfContours and unicodedata.name(chr(c), "")}
    assert characters_of_font <= inked
    assert len(inked - characters_of_font) <= 0.01 * len(inked)  # the others are invisible at this size


def test_the_metadata_are_json_values(table: Glyphs) -> None:
    values = {column: table.value(0, column) for column in table.metadata_columns}
    assert json.loads(json.dumps(values)) == values


def test_an_unknown_column_is_rejected(table: Glyphs) -> None:
    with pytest.raises(KeyError, match="colour"):
        table.value(0, "colour")


# -- splits


def check_splits(characters: list[Any], fonts: list[str], splits: list[str]) -> None:
    """Check every sentence of the docstring of ``assign_splits``."""
    rows: dict[str, list[int]] = {split: [i for i, s in enumerate(splits) if s == split] for split in set(splits)}
    assert set(rows) <= {"train", "validation", "unseen_characters", "unseen_font", "other"}
    of = {split: [characters[row] for row in rows.get(split, [])] for split in ("unseen_characters", "validation")}
    trained = {characters[row] for row in rows.get("train", [])}
    for held_out in of.values():
        assert max(Counter(held_out).values(), default=1) == 1  # one drawing each
        assert trained.isdisjoint(held_out)
    assert set(of["validation"]).isdisjoint(of["unseen_characters"])

    drawn: dict[Any, list[int]] = {}
    for row, character in enumerate(characters):
        drawn.setdefault(character, []).append(row)
    held_out_characters = {c for held_out in of.values() for c in held_out}
    for character, drawings in drawn.items():
        by_preference = sorted(drawings, key=lambda row: FONTS.index(fonts[row]))
        serif = [row for row in by_preference if fonts[row].startswith("DejaVuSerif")]
        others = [row for row in by_preference if not fonts[row].startswith("DejaVuSerif")]
        if character in held_out_characters:
            assert splits[by_preference[0]] in ("unseen_characters", "validation")
            assert all(splits[row] == "other" for row in by_preference[1:])
        elif others:
            assert all(splits[row] == "train" for row in others)
            assert [splits[row] for row in serif] == ["unseen_font", *["other"] * len(serif)][: len(serif)]
        else:
            assert all(splits[row] == "other" for row in serif)


def test_the_splits_of_the_table_are_as_documented(cells: dict[str, list[str]]) -> None:
    check_splits(cells["character"], cells["font"], cells["split"])


def test_a_tenth_of_the_characters_is_unseen_and_three_per_cent_validate(cells: dict[str, list[str]]) -> None:
    counts, characters = Counter(cells["split"]), len(set(cells["character"]))
    assert counts["unseen_characters"] == pytest.approx(0.10 * characters, abs=1)
    assert counts["validation"] == pytest.approx(0.03 * characters, abs=2)
    assert counts["train"] > 30_000
    assert counts["unseen_font"] > 3_000


def test_an_unseen_font_is_drawn_upright_if_possible(cells: dict[str, list[str]]) -> None:
    drawn = set(cells["key"])
    for key, font, split in zip(cells["key"], cells["font"], cells["split"], strict=True):
        if split == "unseen_font" and font != "DejaVuSerif":
            assert key.replace(font, "DejaVuSerif") not in drawn


drawings = st.sets(st.tuples(st.integers(0x21, 0x60), st.integers(0, len(FONTS) - 1)), min_size=1, max_size=150)


@given(drawings, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_splits_of_any_drawings_in_any_order_are_as_documented(drawn: set[tuple[int, int]], random: Any) -> None:
    rows = sorted(drawn)
    splits = assign_splits(np.array([c for c, _ in rows]), np.array([f for _, f in rows]))
    check_splits([c for c, _ in rows], [FONTS[f] for _, f in rows], splits)
    mixed = random.sample(range(len(rows)), len(rows))
    again = assign_splits(np.array([rows[i][0] for i in mixed]), np.array([rows[i][1] for i in mixed]))
    assert again == [splits[i] for i in mixed]


def test_another_font_of_the_same_characters_changes_no_split() -> None:
    characters = np.arange(0x21, 0x400)
    one_font = assign_splits(characters, np.zeros_like(characters))
    twice = assign_splits(np.tile(characters, 2), np.repeat([0, 1], len(characters)))
    assert twice[: len(characters)] == one_font


# -- pictures


def test_every_picture_is_ink_on_white_that_touches_no_edge(images: np.ndarray) -> None:
    assert images.shape[1:] == (48, 48)
    assert images.dtype == np.uint8
    assert (images.min(axis=(1, 2)) <= 127).all()
    assert (images.max(axis=(1, 2)) == 255).all()
    assert np.mean(images.mean(axis=(1, 2)) > 127) > 0.999  # the background is white, not the ink
    edge = np.concatenate([images[:, [0, -1], :].reshape(-1, 96), images[:, :, [0, -1]].reshape(-1, 96)], axis=1)
    assert (edge.min(axis=1) > 127).all()


def test_a_picture_has_the_position_and_size_of_its_outline(
    table: Glyphs, cells: dict[str, list[str]], images: np.ndarray
) -> None:
    letters = "ABCEHKMTVWXZacemnouvxz0123456789ΑΩЖд∑"
    for font, letter in itertools.product(("DejaVuSans", "DejaVuSansMono-Bold", "STIXGeneral", "DejaVuSerif"), letters):
        row = row_of(cells, font, letter)
        x, y = table.value(row, "outline").x[:, :2].numpy().T * 36  # pixels an em
        ink_y, ink_x = np.nonzero(images[row] < 200)
        point_box = [24 + x.min(), 24 + x.max(), 36 - y.max(), 36 - y.min()]
        ink_box = [ink_x.min(), ink_x.max() + 1, ink_y.min(), ink_y.max() + 1]
        assert ink_box == pytest.approx(point_box, abs=2.5), (font, letter)


def test_writing_into_a_picture_does_not_change_the_table(table: Glyphs) -> None:
    picture = table.value(0, "image")
    before = picture.copy()
    picture[:] = 7
    np.testing.assert_array_equal(table.value(0, "image"), before)


# -- outlines


@pytest.mark.parametrize("part", range(4))
def test_an_outline_is_one_cycle_there_and_back_for_each_contour(table: Glyphs, part: int) -> None:
    for row in range(part * 97, len(table), 1009):
        check_outline(table.value(row, "outline"))


def check_outline(graph: Any) -> None:
    x, (source_nodes, target_nodes), step = graph.x.numpy(), graph.edge_index.numpy(), graph.edge_attr.numpy()
    p = len(x)
    assert (x.shape, x.dtype) == ((p, 4), np.float32)
    assert graph.edge_index.shape == (2, 2 * p)
    assert (step.shape, step.dtype) == ((2 * p, 3), np.float32)
    assert x[:, 0].min() + x[:, 0].max() == pytest.approx(0, abs=1e-5)  # centred
    assert set(np.unique(x[:, 2:])) <= {0.0, 1.0}

    follows = {int(a): int(b) for a, b in zip(source_nodes[:p], target_nodes[:p], strict=True)}
    assert len(follows) == p
    starts = [*np.flatnonzero(x[:, 3]).tolist(), p]
    assert starts[0] == 0
    for start, end in itertools.pairwise(starts):
        walked = [start]
        while (node := follows[walked[-1]]) != start:
            walked.append(node)
            assert len(walked) <= p
        assert walked == list(range(start, end))

    back = {(int(b), int(a)) for a, b in zip(source_nodes[p:], target_nodes[p:], strict=True)}
    assert back == set(follows.items())
    for edge, (a, b) in enumerate(zip(source_nodes, target_nodes, strict=True)):
        expected = [x[b, 0] - x[a, 0], x[b, 1] - x[a, 1], 1 if edge < p else -1]
        assert step[edge] == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=30)
def test_contours_of_any_lengths_become_cycles(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    flags = rng.integers(0, 2, sum(lengths)).astype(np.uint8)
    flags[np.cumsum([0, *lengths[:-1]])] |= 2
    check_outline(outline_graph(rng.standard_normal((len(flags), 2)).astype(np.float32), flags))


@pytest.mark.parametrize(
    ("font", "character"),
    [
        ("DejaVuSans", "A"),
        ("DejaVuSans", "Ω"),
        ("DejaVuSansMono-BoldOblique", "é"),  # made of parts
        ("STIXGeneral", "∮"),
        ("DejaVuSerif", "%"),
        ("STIXGeneralItalic", "g"),
    ],
)
def test_an_outline_has_the_points_that_fonttools_reads(
    table: Glyphs, cells: dict[str, list[str]], font: str, character: str
) -> None:
    with TTFont(FONT_FILES / f"{font}.ttf") as file:
        glyph_set = file.getGlyphSet()
        pen = DecomposingRecordingPointPen(glyph_set)
        glyph_set[(file.getBestCmap() or {})[ord(character)]].drawPoints(pen)
        em = file["head"].unitsPerEm  # pyright: ignore[reportAttributeAccessIssue]
    points, on_curve, starts = [], [], []
    for call, arguments, _ in pen.value:
        if call == "beginPath":
            starts.append(len(points))
        elif call == "addPoint":
            points.append(arguments[0])
            on_curve.append(arguments[1] is not None)
    expected = np.array(points) / em
    expected[:, 0] -= (expected[:, 0].min() + expected[:, 0].max()) / 2

    x = table.value(row_of(cells, font, character), "outline").x.numpy()
    assert x[:, :2] == pytest.approx(expected, abs=1e-5)
    assert x[:, 2].tolist() == on_curve
    assert np.flatnonzero(x[:, 3]).tolist() == starts


# -- the cache

# Builds or opens the table of one face in the folder given by its first argument, and prints a digest of it.
DRIVER = f"""
import hashlib, sys
from pathlib import Path
from multimodal.datasets import glyphs

glyphs.FONTS = ({ONE_FACE!r},)
build, builds = glyphs._build, []
glyphs._build = lambda folder: (builds.append(folder), build(folder))
{{before}}
table = glyphs.Glyphs(Path(sys.argv[1]))
cells = [(table.value(r, "key"), table.value(r, "image").tobytes()) for r in range(len(table))]
print("built" if builds else "found", len(table), hashlib.sha256(repr(cells).encode()).hexdigest())
"""


def start(cache: Path, before: str = "") -> subprocess.Popen[str]:
    """Start a process that builds the table of one face, unless it exists."""
    command = [sys.executable, "-c", DRIVER.format(before=before), str(cache)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def messages(error: str) -> list[str]:
    """The lines on standard error other than the progress bar."""
    return [line for line in error.splitlines() if not line.startswith("Drawing the glyphs ")]


def folders(cache: Path) -> list[str]:
    return sorted(entry.name for entry in cache.iterdir() if entry.name != "glyphs.lock")


def test_processes_that_start_at_once_build_the_table_once_and_read_the_same(tmp_path: Path) -> None:
    processes = [start(tmp_path / "cache") for _ in range(3)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    states = sorted((out.split()[0], messages(error)) for out, error in outputs)
    assert states == [("built", []), ("found", []), ("found", [])]
    assert len({tuple(out.split()[1:]) for out, _ in outputs}) == 1
    (name,) = folders(tmp_path / "cache")
    assert name.startswith("glyphs-")


def test_a_killed_build_is_repeated(tmp_path: Path) -> None:
    kill = """
import os, signal
save, saves = glyphs.np.save, []
glyphs.np.save = lambda *a: (save(*a), saves.append(a), len(saves) == 3 and os.kill(os.getpid(), signal.SIGKILL))
"""
    killed = start(tmp_path, kill)
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not [name for name in folders(tmp_path) if name.startswith("glyphs-")]
    out, error = start(tmp_path).communicate(timeout=60)
    assert (out.split()[0], messages(error)) == ("built", [])
    assert int(out.split()[1]) > 1000
    (name,) = folders(tmp_path)  # the leftovers of the killed process are removed
    assert name.startswith("glyphs-")


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_build_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def half(folder: Path) -> None:
        np.save(folder / "codepoints.npy", np.zeros(3, np.int32))
        raise error

    monkeypatch.setattr(source, "_build", half)
    with pytest.raises(error):
        Glyphs(tmp_path)
    assert folders(tmp_path) == []


def test_build_progress_is_printed_on_stderr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # makes rich assume a terminal
    out, error = start(tmp_path).communicate(timeout=60)
    assert out.startswith("built")
    assert len(out.splitlines()) == 1
    assert "Drawing the glyphs" in error


def test_building_is_silent_without_a_terminal(tmp_path: Path) -> None:
    out, error = start(tmp_path).communicate(timeout=60)
    assert out.startswith("built")
    assert error == ""


def test_a_pickled_table_has_its_path_and_not_its_arrays(
    table: Glyphs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spawned data worker receives the table as a pickle."""
    monkeypatch.setattr(source, "FONTS", (ONE_FACE,))
    few = Glyphs(tmp_path)
    monkeypatch.undo()
    check_pickle(table, rows=range(0, len(table), 5003))
    monkeypatch.setattr(source, "FONTS", (ONE_FACE,))
    monkeypatch.setattr(source, "_build", None)  # nothing is built again
    check_pickle(few, rows=range(0, len(few), 101))


def check_pickle(table: Glyphs, rows: range) -> None:
    pickled = pickle.dumps(table)
    assert len(pickled) < 1000
    copy = pickle.loads(pickled)
    assert len(copy) == len(table)
    for row in rows:
        for column in ("key", "character", "name", "font", "split"):
            assert copy.value(row, column) == table.value(row, column)
        np.testing.assert_array_equal(copy.value(row, "image"), table.value(row, "image"))
        ours, theirs = table.value(row, "outline").to_dict(), copy.value(row, "outline").to_dict()
        assert list(ours) == list(theirs)
        for name, values in ours.items():
            np.testing.assert_array_equal(theirs[name].numpy(), values.numpy())
