"""For any table, ``prepare`` accounts for every row or raises one error that says what is wrong."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_source import MemorySource

from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError
from multimodal.core.rejects import Reject
from multimodal.data.tables.open import locate, stream_rows
from multimodal.prepare.pipeline import prepare
from multimodal.prepare.settings import Settings

PNG = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89\x00\x00\x00\rIDAT"
    b"x\x9cc\xf8\xcf\xc0\xf0\x1f\x00\x05\x00\x01\xff\x89\x99=\x1d\x00\x00\x00\x00IEND\xaeB`\x82"
)
HEALTH = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
FILES = {
    "a.png": PNG,
    "b.png": PNG[:40],
    "c.jpg": b"\xff\xd8\xff nothing",
    "d.wav": b"RIFF1234WAVE",
    "e.txt": b"text",
    "f": b"",
}
texts = st.text(max_size=12) | st.text(st.characters(), max_size=6)  # lone surrogates too
words = st.sampled_from(
    ["a cat", "A  cat", "a\tdog\x00", "café", "cafe\u0301", " ", "", "\ufeff", "7", "1e999", "nan", *FILES, "../x"]
)
odd = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | texts
    | words
    | st.binary(max_size=8)
    | st.sampled_from([PNG, PNG[:50], b"GIF89a", b"RIFF\x00\x00\x00\x00WAVEfmt "])
    | st.fixed_dictionaries({"path": st.none() | words, "bytes": st.none() | st.binary(max_size=5) | st.just(PNG)})
    | st.lists(st.integers() | texts, max_size=3)
    | st.dictionaries(texts, st.integers() | texts | st.none(), max_size=3)
)
columns = st.lists(st.sampled_from(["a", "b", "image", "text", "", "x/y.z", "split", "\ud800"]) | texts, max_size=4)


@st.composite
def tables(draw: st.DrawFn) -> tuple[tuple[str, ...], list[Mapping[str, Any] | Reject]]:
    names = draw(columns)
    of_column = {
        name: draw(st.sampled_from([odd, texts, words, st.integers(), st.sampled_from(list(FILES))])) for name in names
    }
    row = st.fixed_dictionaries({}, optional=of_column)
    broken = st.builds(Reject, st.just(0), texts, texts, texts, st.just("broken"), texts)
    return tuple(names), draw(st.lists(row | row | row | broken, max_size=8))


@st.composite
def choices(draw: st.DrawFn, names: Sequence[str]) -> dict[str, Any]:
    column = st.sampled_from([*names, "nowhere"])
    modality = st.sampled_from(["image", "text", "audio", "graph"])
    chosen: dict[str, Any] = {"columns": draw(st.just({}) | st.dictionaries(modality, column, max_size=2))}
    for key in ("key", "group", "split", "balance"):
        if names and draw(st.integers(0, 3)) == 0:
            chosen[key] = draw(st.sampled_from(list(names)))
    return chosen | {
        "max_rejects": draw(st.sampled_from([0.01, 0.5, 1.0, 1.0, 1.0])),
        "format": draw(st.sampled_from(["parquet", "webdataset"])),
        "shard_rows": draw(st.sampled_from([1, 3, 1000])),
    }


@given(tables(), st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=HEALTH)
def test_any_table_gives_a_complete_result_or_one_clear_error(
    table: tuple[tuple[str, ...], list[Mapping[str, Any] | Reject]], data: st.DataObject
) -> None:
    names, rows = table
    with tempfile.TemporaryDirectory() as place:
        folder, out = Path(place), Path(place) / "out"
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
        chosen = data.draw(choices(names))
        outcome, message = None, ""
        try:
            outcome = prepare(MemorySource(names, rows, folder, "odd"), Settings(**chosen), out)
        except MultimodalError as error:
            message = str(error).strip()
        if outcome is None:
            assert message
            assert not out.exists()
            return
        assert outcome.rows_in == len(rows)
        left = outcome.rejects + outcome.duplicates + outcome.near_duplicates
        assert outcome.rows_in == outcome.rows_out + left
        assert sum(outcome.splits.values()) == outcome.rows_out
        rejects = [json.loads(line) for line in (out / "rejects.jsonl").read_text().splitlines()]
        assert len(rejects) == outcome.rejects
        assert all({"row", "column", "value", "reason"} <= set(reject) for reject in rejects)
        repeated = [json.loads(line) for line in (out / "duplicates.jsonl").read_text().splitlines()]
        assert len(repeated) == outcome.duplicates + outcome.near_duplicates
        if outcome.rows_out:
            source = locate(str(out))
            assert sum(1 for file in source.files for _ in stream_rows(source, file)) == outcome.rows_out


lines_of_cells = st.lists(st.lists(texts, max_size=4).map(",".join), max_size=6)
lines_of_json = st.lists(
    st.dictionaries(texts, st.integers() | texts | st.none() | st.floats(), max_size=3), max_size=5
)
named_files = st.sampled_from(
    ["a.png", "../a.png", "/etc/passwd", "a.txt", "http://host/a.png", "file:///a", "~/a.png"]
)
members = st.dictionaries(
    st.builds(
        "{}.{}".format, st.sampled_from("abc"), st.sampled_from(["txt", "json", "p.png", "n.cls", "p.pkl", "t.json"])
    ),
    st.binary(max_size=5)
    | st.dictionaries(texts, st.integers() | texts, max_size=2).map(lambda j: json.dumps(j).encode()),
    max_size=6,
)


def tar_of(found: Mapping[Any, bytes]) -> bytes:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for name in sorted(found):
            entry = tarfile.TarInfo(name)
            entry.size = len(found[name])
            tar.addfile(entry, io.BytesIO(found[name]))
    return whole.getvalue()


WRITTEN = [
    ("t [1]?*.csv", st.lists(named_files, max_size=9).map(lambda cells: "\n".join(["p", *cells]).encode())),
    ("t.tar", members.map(tar_of)),
    ("t.csv", st.binary(max_size=200)),
    ("t.csv", lines_of_cells.map(lambda lines: "\n".join(lines).encode("utf-8", "replace"))),
    ("t.jsonl", st.binary(max_size=100)),
    ("t.jsonl", lines_of_json.map(lambda rows: "\n".join(map(json.dumps, rows)).encode())),
    ("t.parquet", st.binary(max_size=100)),
    ("t.tsv", st.sampled_from([b"a\tb\n1\t2\t3\n", b"", b"\n\n", b"a\n", b"\xff\xfea\x00\n\x00", b"a\ta\n1\t2\n"])),
    ("t.tar", st.binary(max_size=100)),
]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:unclosed file")  # of datasets
@pytest.mark.parametrize(("name", "content"), WRITTEN)
@settings(max_examples=8, deadline=None, suppress_health_check=HEALTH)
@given(data=st.data())
def test_any_file_gives_a_result_or_one_line(
    name: str, content: st.SearchStrategy[bytes], data: st.DataObject, capsys: pytest.CaptureFixture[str]
) -> None:
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / name).write_bytes(data.draw(content))
        capsys.readouterr()
        code = main(
            ["prepare", str(Path(place) / name), "--out", str(Path(place) / "out"), "--max_rejects", "1", "--json"]
        )
        printed = capsys.readouterr()
        if code == 0:
            document = json.loads(printed.out)
            left = document["rejects"] + document["duplicates"] + document["near_duplicates"]
            assert document["rows_in"] == document["rows_out"] + left
            return
        assert printed.out == ""
        (line,) = printed.err.splitlines()
        assert line.startswith("multimodal prepare: ")
        assert "--debug shows where" not in line  # it would be a bug
        assert not (Path(place) / "out").exists()
        with suppress(FileNotFoundError):
            assert [p.name for p in Path(place).iterdir()] == [name]
