"""``multimodal prepare`` on files, as people have them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from multimodal.cli.main import main
from multimodal.data.tables.open import open_table

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file")
TITLES = [
    "a red bowl of glass",
    "two wooden spoons",
    "cup with a blue handle",
    "large pan of iron",
    "silver fork for fish",
]


def words(count: int) -> list[str]:
    """Titles of which none is near another."""
    return [f"{TITLES[n % 5]}, {n} cm" for n in range(count)]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MULTIMODAL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Fifty titles with a key, a group of ten, a kind, and one exact duplicate."""
    path = tmp_path / "pairs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "title", "maker", "kind"])
        for n in range(50):
            writer.writerow([f"{n:03d}", f"{TITLES[n % 5]}, {n} cm", n // 10, "ab"[n % 5 == 0]])
        writer.writerow(["050", " A red bowl of glass,\t0 cm".replace("A", "a"), 0, "b"])
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["prepare", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_near_duplicates_are_left_out_unless_this_is_off(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "pairs.csv", tmp_path / "out"
    table.write_text(
        "title\n" + "".join(f"{title}\n{title.upper()}!\n" for title in (one.replace(",", "") for one in words(20))),
        encoding="utf-8",
    )
    for options, kept in (((), 20), (("--near", "off"), 40), (("--near", "off", "--near_bits", "off"), 40)):
        code, printed, _ = run(capsys, table, "--out", out, "--columns.text", "title", "--json", *options)
        assert (code, json.loads(printed)["rows_out"]) == (0, kept)
    assert {json.loads((out / "prepare.json").read_text())["settings"][name] for name in ("near", "near_bits")} == {
        None
    }
    for option, value in (("--near", "none"), ("--near_bits", "4.5")):
        code, _, err = run(capsys, table, "--out", out, option, value)
        assert code == 2
        assert f"'{value}' is not a number such as" in err
        assert "or off" in err


def test_the_result_is_one_json_document(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ("--columns.text", "title", "--key", "sku", "--group", "maker", "--balance", "kind", "--json")
    code, printed, err = run(capsys, table, "--out", out, *arguments)
    assert (code, err) == (0, "")
    document = json.loads(printed)
    assert (document["rows_in"], document["duplicates"], document["near_duplicates"]) == (51, 1, 0)
    assert (document["rows_out"], document["rejects"], document["out"]) == (20, 30, str(out))
    assert set(document["splits"]) == {"train", "validation", "test"}
    assert sum(document["splits"].values()) == 20
    written = json.loads((out / "prepare.json").read_text())
    assert {key: document[key] for key in document if key != "out"}.items() <= written.items()
    rows = [row for path in out.glob("*.parquet") for row in pq.read_table(path).to_pylist()]
    assert sorted(row["kind"] for row in rows) == ["a"] * 10 + ["b"] * 10
    assert all(len(row["sku"]) == 3 for row in rows)  # "007" is kept as a text
    assert (out / "report.html").is_file()


def test_a_line_for_people(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed, err = run(capsys, table, "--out", tmp_path / "out", "--shares", "train=0.5", "rest=0.5")
    assert code == 0
    (line,) = printed.splitlines()
    assert line.startswith("51 rows in, 50 out (train 25, rest 25); 1 duplicates, 0 near duplicates, 0 left out: ")
    assert all(warning.startswith("warning: ") for warning in err.splitlines())


def test_the_line_says_why_rows_were_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kinds = ["a"] * 20 + ["b"] * 5 + [""] * 2
    lines = [{"title": title, "kind": kind} for title, kind in zip(words(27), kinds, strict=True)]
    lines += [{"title": {"no": "text"}, "kind": "a"}, {"title": "", "kind": ""}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    arguments = ("--columns.text", "title", "--balance", "kind", "--max_rejects", 0.5)
    _, printed, _ = run(capsys, tmp_path / "t.jsonl", "--out", tmp_path / "out", *arguments)
    summary = "19 left out (15 to balance, 2 without a value to balance by, 1 empty, 1 unreadable)"
    assert summary in printed


def test_what_is_written_is_a_table_again(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, table, "--out", tmp_path / "one")[0] == 0
    again = open_table(str(tmp_path / "one"))
    assert again.columns == ("sku", "title", "maker", "kind", "split")
    assert len(again) == 50
    code, printed, _ = run(capsys, tmp_path / "one", "--out", tmp_path / "two", "--split", "split", "--json")
    assert code == 0
    assert json.loads(printed)["splits"] == json.loads((tmp_path / "one" / "prepare.json").read_text())["splits"]
    assert run(capsys, tmp_path / "one", "--out", tmp_path / "three", "--format", "webdataset")[0] == 0
    assert len(open_table(str(tmp_path / "three"))) == 50


def test_a_configuration_names_table_columns_and_shares(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{table: {table}, columns: {{text: title}}, split: {{a: 0.5, b: 0.5}}, batch_size: 7}}\n")
    code, printed, _ = run(capsys, config, "--out", tmp_path / "out", "--json")
    assert code == 0
    assert json.loads(printed)["splits"] == {"a": 25, "b": 25}


def test_files_are_relative_to_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    (tmp_path / "data" / "pictures").mkdir(parents=True)
    for name, colour in (("red", "red"), ("blue", "blue")):
        Image.new("RGB", (20, 20), colour).save(tmp_path / "data" / "pictures" / f"{name}.png")
    lines = [{"picture": f"pictures/{name}.png", "title": f"the colour {name}"} for name in ("red", "blue", "green")]
    (tmp_path / "data" / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    code, printed, err = run(capsys, tmp_path / "data" / "t.jsonl", "--out", tmp_path / "out", "--json")
    assert (code, printed) == (1, "")
    assert "1 of 3 rows" in err
    assert "1 missing file (first: row 2, column 'picture'" in err
    assert not (tmp_path / "out").exists()
    code, printed, _ = run(
        capsys, tmp_path / "data" / "t.jsonl", "--out", tmp_path / "out", "--json", "--max_rejects", 0.5
    )
    assert code == 0
    document = json.loads(printed)
    assert (document["rows_out"], document["rejects"], document["near_duplicates"]) == (2, 1, 0)
    (reject,) = [json.loads(line) for line in (tmp_path / "out" / "rejects.jsonl").read_text().splitlines()]
    assert (reject["row"], reject["column"], reject["value"], reject["reason"]) == (
        *(2, "picture", "pictures/green.png", "missing file"),
    )


BROKEN: list[tuple[str, bytes, str]] = [
    ("empty.csv", b"", "empty.csv"),
    ("head.csv", b"title\n", "has no rows"),
    ("latin.csv", "title\ncafé\n".encode("latin-1") * 9, "options.encoding"),
    ("torn.jsonl", b'{"title": "a"}\n{"title": ', "torn.jsonl"),
    ("not.parquet", b"PAR1 nothing", "not.parquet"),
    ("t.xlsx", b"x", "is unknown: it does not end in"),
]


@pytest.mark.parametrize(("name", "content", "said"), BROKEN)
def test_a_broken_table_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes, said: Any
) -> None:
    (tmp_path / name).write_bytes(content)
    code, printed, err = run(capsys, tmp_path / name, "--out", tmp_path / "out")
    assert code in (1, 2)
    assert printed == ""
    (line,) = err.splitlines()
    assert said in line
    assert "--debug" not in line
    assert not (tmp_path / "out").exists()
