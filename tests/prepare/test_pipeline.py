"""``prepare`` from a table to a folder: no row is lost, no split leaks, and the output is deterministic."""

from __future__ import annotations

import json
import os
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.core.rejects import Reject
from multimodal.prepare.pipeline import prepare
from multimodal.prepare.settings import Settings
from multimodal.prepare.source import Row

MakeSource = Callable[..., Any]


def written(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def captions(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choices("bcdfglmnprst", k=2)) + rng.choice("aeiou") + rng.choice("xkz") for _ in range(300)]
    return [" ".join(rng.choices(words, k=9)) for _ in range(count)]


@pytest.fixture
def shop(source: MakeSource, pictures: Any, tmp_path: Path) -> tuple[Any, dict[str, list[int]]]:
    """Return 120 products with pictures, and the rows planted among them by fault."""
    rows: list[dict[str, Any]] = []
    titles = captions(120)
    for number, title in enumerate(titles):
        (tmp_path / f"{number}.png").write_bytes(pictures.png(pictures.blobs(number)))
        rows.append({"id": f"p{number}", "picture": f"{number}.png", "title": title, "kind": "ab"[number % 4 == 0]})
    planted: dict[str, list[int]] = {
        name: [] for name in ("exact", "near", "same picture", "same title", "broken", "empty")
    }

    def plant(fault: str, **row: Any) -> None:
        planted[fault].append(len(rows))
        rows.append({"id": f"x{len(rows)}", "kind": "a"} | row)

    for n in range(0, 20, 2):
        plant("exact", picture=f"{n}.png", title=f" {titles[n]}\x00\n")
        (tmp_path / f"{n}.jpg").write_bytes(pictures.jpeg(pictures.blobs(n, 80)))
        plant("near", picture=f"{n}.jpg", title=titles[n].upper() + "!")
        plant("same picture", picture=f"{n}.jpg", title=captions(1, 1000 + n)[0])
        (tmp_path / f"new{n}.png").write_bytes(pictures.png(pictures.blobs(1000 + n)))
        plant("same title", picture=f"new{n}.png", title=titles[n + 1])
    (tmp_path / "cut.png").write_bytes((tmp_path / "0.png").read_bytes()[:900])
    plant("broken", picture="cut.png", title="a picture that ends early")
    plant("broken", picture="nowhere.png", title="a picture that is not there")
    plant("empty", title=" ")
    return source(rows), planted


def test_every_row_is_written_rejected_or_repeats_another(shop: Any, tmp_path: Path) -> None:
    table, planted = shop
    outcome = prepare(table, Settings(key="id", max_rejects=0.1), tmp_path / "out")
    assert outcome.rows_in == len(table.rows) == 163
    assert (outcome.rejects, outcome.duplicates, outcome.near_duplicates, outcome.rows_out) == (3, 10, 10, 140)
    assert sum(outcome.splits.values()) == 140
    rejects = lines(tmp_path / "out" / "rejects.jsonl")
    assert [r["row"] for r in rejects] == planted["broken"] + planted["empty"]
    assert [(r["column"], r["value"], r["reason"]) for r in rejects] == [
        ("picture", "cut.png", "truncated picture"),
        ("picture", "nowhere.png", "missing file"),
        ("", "", "empty row"),
    ]
    repeats = lines(tmp_path / "out" / "duplicates.jsonl")
    assert {r["row"]: (r["repeats"], r["near"]) for r in repeats} == {
        **{row: (2 * n, False) for n, row in enumerate(planted["exact"])},
        **{row: (2 * n, True) for n, row in enumerate(planted["near"])},
    }
    ids = [row["id"] for row in table.rows]
    assert all((r["key"], r["repeats_key"]) == (ids[r["row"]], ids[r["repeats"]]) for r in repeats)
    left_out = {r["row"] for r in (*rejects, *repeats)}
    rows = written(tmp_path / "out")
    assert Counter(row["id"] for row in rows) == Counter(r["id"] for n, r in enumerate(table.rows) if n not in left_out)
    by_id = {row["id"]: row for row in rows}
    assert by_id["p3"]["picture"] == {"bytes": (tmp_path / "3.png").read_bytes(), "path": "3.png"}
    assert by_id["p3"]["title"] == table.rows[3]["title"]


def test_near_duplicates_are_kept_where_they_are_not_looked_for(shop: Any, tmp_path: Path) -> None:
    table, planted = shop
    outcome = prepare(table, Settings(max_rejects=0.1, near=None, near_bits=None), tmp_path / "out")
    assert (outcome.duplicates, outcome.near_duplicates) == (10, 0)
    repeats = lines(tmp_path / "out" / "duplicates.jsonl")
    assert [set(r) for r in repeats] == [{"row", "repeats", "near"}] * 10  # there are no keys
    assert sorted(r["row"] for r in repeats) == planted["exact"]
    report = (tmp_path / "out" / "report.html").read_text()
    assert "Texts are near only if they are equal; pictures only if their pixels are equal" in report


def test_rows_with_some_equal_content_are_in_one_split(shop: Any, tmp_path: Path) -> None:
    table, planted = shop
    for seed in range(4):
        prepare(table, Settings(max_rejects=0.1, seed=seed, key="id"), tmp_path / "out")
        split = {row["id"]: row["split"] for row in written(tmp_path / "out")}
        for n, (pictured, titled) in enumerate(zip(planted["same picture"], planted["same title"], strict=True)):
            assert split[f"p{2 * n}"] == split[f"x{pictured}"]
            assert split[f"p{2 * n + 1}"] == split[f"x{titled}"]


def test_the_same_rows_and_seed_give_the_same_bytes(shop: Any, tmp_path: Path) -> None:
    table, _ = shop
    for name in ("one", "two", "other"):
        settings = Settings(max_rejects=0.1, key="id", balance="kind", shard_rows=30, seed=int(name == "other"))
        prepare(table, settings, tmp_path / name)
    files = sorted(os.listdir(tmp_path / "one"))
    assert {"prepare.json", "report.html", "rejects.jsonl", "duplicates.jsonl", "train-00000.parquet"} <= set(files)
    assert sorted(os.listdir(tmp_path / "two")) == files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    assert (tmp_path / "one" / files[-1]).read_bytes() != (tmp_path / "other" / files[-1]).read_bytes()


def test_groups_are_not_cut(source: MakeSource, tmp_path: Path) -> None:
    rows = [{"title": title, "product": number % 30 or None} for number, title in enumerate(captions(300))]
    outcome = prepare(source(rows), Settings(columns={"text": "title"}, group="product"), tmp_path / "out")
    of_product: dict[Any, set[str]] = {}
    for row in written(tmp_path / "out"):
        if row["product"] is not None:
            of_product.setdefault(row["product"], set()).add(row["split"])
    assert {len(splits) for splits in of_product.values()} == {1}
    assert np.abs(np.array([*outcome.splits.values()]) / 300 - [0.8, 0.1, 0.1]).max() < 0.03


def test_a_given_split_is_kept_and_its_leakage_reported(source: MakeSource, tmp_path: Path) -> None:
    titles = captions(40)
    rows = [{"title": t, "tag": "x" + titles[n % 39][::-1], "part": "ab"[n % 2]} for n, t in enumerate(titles)]
    settings = Settings(columns={"text": ["title", "tag"]}, split="part")
    outcome = prepare(source(rows), settings, tmp_path / "out")
    assert outcome.splits == {"a": 20, "b": 20}
    assert all(row["split"] == row["part"] for row in written(tmp_path / "out"))
    assert "Leakage" in outcome.warnings[0]
    assert "2 rows" in outcome.warnings[0]  # rows 0 and 39 have the tag of one another


def test_balancing_leaves_as_many_rows_of_each_value_and_reports_the_others(shop: Any, tmp_path: Path) -> None:
    table, _ = shop
    outcome = prepare(table, Settings(max_rejects=0.1, key="id", balance="kind"), tmp_path / "out")
    counts = Counter(row["kind"] for row in written(tmp_path / "out"))
    assert counts == {"a": counts["b"], "b": 30}
    assert outcome.rows_in == outcome.rows_out + outcome.rejects + outcome.duplicates + outcome.near_duplicates
    rejects = lines(tmp_path / "out" / "rejects.jsonl")
    assert len(rejects) == outcome.rejects == outcome.balanced_out + 3
    assert {(r["column"], r["value"]) for r in rejects if r["reason"] == "balanced"} == {("kind", "a")}


def test_too_many_rejects_raise_with_reasons_and_leave_only_their_file(shop: Any, tmp_path: Path) -> None:
    table, _ = shop
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(MultimodalError) as caught:
        prepare(table, Settings(), tmp_path / "out")
    message = str(caught.value)
    assert message.startswith("3 of 163 rows of 'table' (1.8%) cannot be used, more than max_rejects 0.01: ")
    for expected in ("1 truncated picture", "1 missing file", "nowhere.png does not exist", "1 empty row"):
        assert expected in message
    kept = tmp_path / "out.rejects.jsonl"
    assert f"All are in {kept}" in message
    assert sorted(os.listdir(tmp_path)) == sorted([*before, kept.name])
    assert [line["row"] for line in lines(kept)] == [160, 161, 162]
    prepare(table, Settings(max_rejects=0.1), tmp_path / "out")


@pytest.mark.parametrize(("words", "reported"), [(0, False), (1, True), (5, True), (6, False)])
def test_a_column_of_numbers_and_few_words_is_reported(
    source: MakeSource, tmp_path: Path, words: int, reported: bool
) -> None:
    prices = [f"{n / 4}" for n in range(100 - words)] + ["call us"] * words
    rows = [{"title": title, "price": price} for title, price in zip(captions(100), prices, strict=True)]
    outcome = prepare(source(rows), Settings(), tmp_path / "out")
    warning = f"price: nearly all of its 100 values are numbers, but 'call us' in row {100 - words} is not."
    assert (warning in outcome.warnings) == reported


def test_a_row_that_the_reader_rejects_is_counted(source: MakeSource, tmp_path: Path) -> None:
    rows = [
        {"title": "a cat"},
        Reject(1, "1", "title", "?", "torn line", "the line is torn."),
        {"title": "one red dog"},
    ]
    outcome = prepare(source(rows, ["title"]), Settings(max_rejects=0.5), tmp_path / "out")
    assert (outcome.rows_in, outcome.rows_out, outcome.reasons) == (3, 2, {"torn line": 1})


def test_a_folder_with_other_files_is_rejected_before_reading(source: MakeSource, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("dear")
    with pytest.raises(MultimodalError, match=r"thesis is not empty and holds no prepare\.json"):
        prepare(source([{"title": "a cat"}]), Settings(), tmp_path / "thesis")
    assert os.listdir(tmp_path / "thesis") == ["chapter.txt"]


def test_a_table_that_changes_while_it_is_read_is_reported(tmp_path: Path) -> None:
    class Growing:
        name, columns, total, times = "growing", ("title",), None, 0

        def __iter__(self) -> Iterator[Row]:
            self.times += 1
            yield from (Row(number, {"title": title}) for number, title in enumerate(captions(4 + self.times)))

        def resolve(self, value: str) -> Path:
            return Path(value)

    with pytest.raises(MultimodalError, match="changed while they were read"):
        prepare(Growing(), Settings(), tmp_path / "out")  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("rows", "columns", "settings", "error", "message"),
    [
        ([], ["title"], {"columns": {"text": "title"}}, MultimodalError, "has no rows"),
        ([{"n": 1}], None, {}, UsageError, "no column of pictures, sounds or texts (found: n is number)"),
        ([{"title": "a"}], None, {"key": "tilte"}, UsageError, "no column 'tilte'. Did you mean 'title'?"),
        ([{"title": "a"}], None, {"columns": {"text": "title", "audio": "title"}}, UsageError, "already used by columns.text"),
        ([{"title": "a"}], ["title", "title"], {}, MultimodalError, "several columns called 'title'"),
        ([{"a\0": "a"}], None, {}, MultimodalError, "give it a name of 1 to 200 characters"),
        ([{"t": t} for t in captions(101)], None, {"split": "t", "columns": {"text": "t"}}, MultimodalError, "more than 100"),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared_is_reported(
    source: MakeSource, tmp_path: Path, rows: Any, columns: Any, settings: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        prepare(source(rows, columns), Settings(**settings), tmp_path / "out")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_rejects": 2}, "from 0 to 1"),
        ({"format": "parket"}, "Did you mean 'parquet'"),
        ({"near": 0.1}, "from 0.3"),
        ({"near_bits": 64}, "to 12"),
        ({"shard_rows": 0}, "shard_rows must be at least 1; got 0"),
        ({"seed": -1}, "seed must be at least 0; got -1"),
        ({"shares": {"train": 0.8}}, "add up to 1"),
        ({"shares": {"train": 1.5, "test": -0.5}}, "add up to 1"),
        ({"shares": {}}, "add up to 1"),
        ({"shares": {"": 1.0}}, "needs a name"),
    ],
)
def test_a_setting_out_of_range_is_wrong_usage(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Settings(**settings)


def test_progress_counts_the_rows_of_both_passes(source: MakeSource, tmp_path: Path) -> None:
    seen: list[tuple[str, int | None, int]] = []

    @contextmanager
    def progress(what: str, total: int | None) -> Iterator[Callable[[int], None]]:
        steps: list[int] = []
        yield steps.append
        seen.append((what, total, sum(steps)))

    prepare(source([{"title": t} for t in captions(20)]), Settings(), tmp_path / "out", progress)
    assert seen == [("Reading", None, 20), ("Writing", 20, 20)]


def test_memory_does_not_grow_with_the_size_of_values(tmp_path: Path) -> None:
    """60 MB of sounds are read; at most a row group of 16 MB and its Arrow copy are in memory at a time."""

    class Wide:
        name, columns, total = "wide", ("sound", "title"), None

        def __init__(self, rows: int) -> None:
            self.titles = captions(rows)

        def __iter__(self) -> Iterator[Row]:
            for number, title in enumerate(self.titles):
                yield Row(number, {"sound": number.to_bytes(4, "big") * 50_000, "title": title})

        def resolve(self, value: str) -> Path:
            return Path(value)

    def peak(rows: int) -> int:
        settings = Settings(columns={"file": "sound", "text": "title"}, shares={"train": 1.0})
        tracemalloc.start()
        prepare(Wide(rows), settings, tmp_path / "out")  # type: ignore[arg-type]
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small, large = peak(150), peak(450)
    assert large < small + 2 * 2**20
