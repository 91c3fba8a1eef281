"""The copies of real data agree with docs/datasets.md: checksums, and the tables that its scripts write."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from multimodal.datasets import TABLES, load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
SHARED = Path(os.environ.get("MULTIMODAL_SHARED_DATA", ROOT.parent / "shared" / "data"))


def real(path: str) -> Path:
    if not (SHARED / path).exists():
        pytest.skip(f"{SHARED / path} is absent")
    return SHARED / path


def run_script(name: str) -> None:
    (script,) = re.findall(rf"^```py {re.escape(name)}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    exec(compile(script, name, "exec"), {})


def documented(digest: str) -> bool:
    return digest in re.findall(r"\b[0-9a-f]{64}\b", PAGE)


def test_the_page_names_every_table_and_its_rows() -> None:
    rows = dict(re.findall(r"^\| `([\w:]+)` \| ([\d,]+) \|", PAGE, re.MULTILINE))
    assert set(rows) == set(TABLES)
    for name, count in rows.items():  # the number of characters depends on the version of Python
        assert len(load(name)) == pytest.approx(int(count.replace(",", "")), rel=0.02)


def test_the_molecules_have_the_documented_size_and_checksum() -> None:
    content = real("chebi20/molecules.tsv").read_bytes()
    assert f"{len(content):,} bytes" in PAGE
    assert documented(hashlib.sha256(content).hexdigest())


def test_the_script_of_the_spoken_digits_writes_the_documented_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_script("digits.py")
    assert documented(hashlib.sha256((tmp_path / "digits.csv").read_bytes()).hexdigest())


def test_the_recordings_and_their_table_have_the_documented_checksums() -> None:
    assert documented(hashlib.sha256(real("spoken_digits/digits.csv").read_bytes()).hexdigest())
    folder, digest = real("spoken_digits/recordings"), hashlib.sha256()
    speakers = re.findall(r"\{0\.\.9\}_\{([\w,]+)\}_\{0\.\.29\}\.wav", PAGE)[0].split(",")
    for name in (f"{d}_{speaker}_{n}.wav" for d in range(10) for speaker in speakers for n in range(30)):
        digest.update((folder / name).read_bytes())
    assert documented(digest.hexdigest())


def test_the_script_of_the_emoji_writes_their_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The two repositories are reconstructed from the local table."""
    table = real("emoji/emoji.csv")
    assert documented(hashlib.sha256(table.read_bytes()).hexdigest())
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    pictures, words = tmp_path / "noto-emoji" / "png" / "72", tmp_path / "emojilib" / "dist"
    pictures.mkdir(parents=True)
    words.mkdir(parents=True)
    for row in rows:
        shutil.copy(table.parent / row["image"], pictures)
    in_emojilib = {
        "".join(chr(int(code, 16)) for code in row["id"].split("_")): [
            row["name"],
            *filter(None, row["keywords"].split(", ")),
        ]
        for row in rows
    }
    in_emojilib["\N{LATIN SMALL LETTER A}"] = ["no picture"]
    (words / "emoji-en-US.json").write_text(json.dumps(in_emojilib), encoding="utf-8")

    monkeypatch.chdir(tmp_path)
    run_script("emoji.py")
    with (tmp_path / "emoji.csv").open(newline="", encoding="utf-8") as file:
        written = list(csv.DictReader(file))
    assert [[row[c] for c in ("id", "name", "keywords")] for row in written] == [
        [row[c] for c in ("id", "name", "keywords")] for row in rows
    ]
    assert all((tmp_path / row["image"]).is_file() for row in written)
    assert {row["split"] for row in written} == {"train", "validation"}
