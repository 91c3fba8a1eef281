"""The log of queries: what is written, rotation, retention, deletion, and what a kill leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from multimodal.cli.main import main
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.monitor import query_log
from multimodal.monitor.query_log import (
    LOG_MARKER,
    LoggedQuery,
    QueryLog,
    delete_queries,
    hash_user,
    newest_fingerprint,
    read_queries,
)


def query(number: int, at: float | None = None, user: str | None = None, model: str = "a") -> LoggedQuery:
    vector = np.random.default_rng(number).standard_normal(4)
    now = time.time() if at is None else at
    return LoggedQuery(
        model * 64, 4, f"q{number}", now, user, "text", vector, ["k", "l"], [0.5, 0.25], f"words {number}"
    )


def rows(folder: Path) -> pa.Table:
    return pa.concat_tables(read_queries(folder))


def parts(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("queries-*"))


def test_what_is_logged_is_read_again(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / "log", keep_text=True)
    log.append(query(0, at=1.8e9, user="ann"), query(1))
    log.append(LoggedQuery("a" * 64, 4, "q2", 1.8e9, None, None, None, [], []))
    log.close()
    found = rows(tmp_path / "log").sort_by("query_id").to_pylist()
    assert [row["query_id"] for row in found] == ["q0", "q1", "q2"]
    assert found[0]["vector"] == pytest.approx(np.random.default_rng(0).standard_normal(4), abs=1e-3)
    assert (found[0]["keys"], found[0]["scores"], found[0]["text"]) == (["k", "l"], [0.5, 0.25], "words 0")
    assert found[0]["time"] == datetime.fromtimestamp(1.8e9, UTC)
    assert found[2]["vector"] is found[2]["modality"] is found[2]["user"] is None
    assert newest_fingerprint(tmp_path / "log") == "a" * 64
    assert log.dropped == 0


def test_texts_and_names_of_users_are_not_on_the_disk(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / "log")
    log.append(query(0, user="ann.doe@example.org"))
    log.close()
    (row,) = rows(tmp_path / "log").to_pylist()
    assert row["text"] is None
    for path in (tmp_path / "log").iterdir():
        assert b"ann.doe" not in path.read_bytes()
        assert b"words" not in path.read_bytes()
    other = QueryLog(tmp_path / "other")
    other.append(query(0, user="ann.doe@example.org"))
    other.close()
    assert rows(tmp_path / "other")["user"][0].as_py() != row["user"]  # another salt
    assert os.stat(tmp_path / "log" / LOG_MARKER).st_mode & 0o077 == 0


def test_parts_are_filled_and_then_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_log, "PART_ROWS", 10)
    for start in (0, 7, 14, 21):  # a server that is started again continues the newest part
        log = QueryLog(tmp_path / "log")
        log.append(*(query(number) for number in range(start, start + 7)))
        log.close()
    sizes = [len(part) for part in read_queries(tmp_path / "log")]
    assert sizes == [10, 10, 8]
    assert set(rows(tmp_path / "log")["query_id"].to_pylist()) == {f"q{number}" for number in range(28)}


def test_a_part_is_of_one_day_and_of_one_model(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / "log")
    log.append(query(0, at=0.0), query(1, at=86_399.0), query(2, at=86_400.0), query(3, at=86_400.0, model="b"))
    log.close()
    assert parts(tmp_path / "log") == [
        "queries-1970-01-01-000000.parquet",
        "queries-1970-01-02-000000.parquet",
        "queries-1970-01-02-000001.parquet",
    ]
    assert [part["query_id"].to_pylist() for part in read_queries(tmp_path / "log", "b" * 64)] == [["q3"]]


def test_parts_are_deleted_when_their_day_is_over_for_long_enough(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    log = QueryLog(tmp_path / "log")
    log.append(*(query(days, at=(now - timedelta(days=days)).timestamp()) for days in range(6)))
    log.close()
    QueryLog(tmp_path / "log", keep_days=2).close()
    assert set(rows(tmp_path / "log")["query_id"].to_pylist()) == {"q0", "q1", "q2"}


def test_queries_are_deleted_by_name_and_by_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_log, "PART_ROWS", 4)
    log = QueryLog(tmp_path / "log")
    log.append(*(query(number, user=f"user {number % 3}") for number in range(12)))
    log.close()
    assert delete_queries(tmp_path / "log", query_ids=["q1", "nobody"], users=["user 2"]) == 5
    left = rows(tmp_path / "log")
    assert set(left["query_id"].to_pylist()) == {"q0", "q3", "q4", "q6", "q7", "q9", "q10"}
    assert delete_queries(tmp_path / "log", users=["user 0", "user 1"]) == 7
    assert parts(tmp_path / "log") == []
    with pytest.raises(MultimodalError, match="has no queries yet"):
        newest_fingerprint(tmp_path / "log")


def test_the_command_deletes_queries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = QueryLog(tmp_path / "log")
    log.append(*(query(number, user=f"user {number % 3}") for number in range(9)))
    log.close()
    command = ["serve", "--log_queries", str(tmp_path / "log"), "--delete_user", "user 0", "--delete_user", "user 1"]
    assert main([*command, "--delete_query", "q2"]) == 0
    assert capsys.readouterr().out.startswith("7 rows deleted from ")
    assert set(rows(tmp_path / "log")["query_id"].to_pylist()) == {"q5", "q8"}
    assert main(["serve", "--log_queries", str(tmp_path), "--delete_user", "ann"]) == 1
    assert "is not a log of queries" in capsys.readouterr().err


def test_a_deletion_holds_while_the_log_is_written(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / "log", flush_seconds=0.01)
    for number in range(60):
        log.append(query(number, user="ann" if number % 2 else "bob"))
        if number == 30:
            _wait(lambda: any("q30" in part["query_id"].to_pylist() for part in read_queries(tmp_path / "log")))
            assert delete_queries(tmp_path / "log", users=["ann"]) == 15
    log.close()
    found = set(rows(tmp_path / "log")["query_id"].to_pylist())
    assert found == {f"q{n}" for n in range(60) if n % 2 == 0 or n > 30}


def test_several_servers_write_to_one_log(tmp_path: Path) -> None:
    logs = [QueryLog(tmp_path / "log", flush_seconds=0.01) for _ in range(3)]

    def write(place: int) -> None:
        for number in range(50):
            logs[place].append(query(100 * place + number))
            time.sleep(0.001)

    threads = [threading.Thread(target=write, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for log in logs:
        log.close()
    found = rows(tmp_path / "log")["query_id"].to_pylist()
    assert sorted(found) == sorted(f"q{100 * place + number}" for place in range(3) for number in range(50))


def test_memory_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_log, "MAX_WAITING", 5)
    log = QueryLog(tmp_path / "log", flush_seconds=60)
    for number in range(8):
        log.append(query(number))
    log.close()
    assert len(rows(tmp_path / "log")) == 5
    assert log.dropped == 3
    log.append(query(9))
    assert log.dropped == 4


def test_a_failing_disk_loses_rows_and_not_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = QueryLog(tmp_path / "log", flush_seconds=0.01)
    real, failing = query_log._write_part, threading.Event()
    failing.set()

    def write(path: Path, table: pa.Table) -> None:
        if failing.is_set():
            raise OSError(28, "No space left on device")
        real(path, table)

    monkeypatch.setattr(query_log, "_write_part", write)
    log.append(query(0))
    _wait(lambda: log.dropped == 1)
    failing.clear()
    log.append(query(1))
    log.close()
    assert rows(tmp_path / "log")["query_id"].to_pylist() == ["q1"]


WRITER = """
import sys, time
import numpy as np
from multimodal.monitor.query_log import LoggedQuery, QueryLog
log = QueryLog(sys.argv[1], flush_seconds=0.01)
number = 0
while True:
    log.append(LoggedQuery("a" * 64, 64, f"{sys.argv[2]}-{number}", time.time(), None, "text", np.ones(64), ["k"], [1.0]))
    number += 1
    time.sleep(0.001)
"""


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_whole_parts(tmp_path: Path, kills: int) -> None:
    folder, before = tmp_path / "log", set[str]()
    for kill in range(kills):
        prefix = f"{kill}-"
        with subprocess.Popen([sys.executable, "-c", WRITER, str(folder), str(kill)]) as process:
            _wait(lambda start=prefix: any(name.startswith(start) for name in _ids(folder)))
            time.sleep(np.random.default_rng(kill).uniform(0.05, 0.4))
            process.send_signal(signal.SIGKILL)
        found = _ids(folder)
        assert before <= set(found)
        assert len(found) == len(set(found))
        mine = sorted(int(name.partition("-")[2]) for name in found if name.startswith(prefix))
        assert mine == list(range(len(mine)))  # a beginning of what was asked, nothing in between is missing
        before = set(found)
    QueryLog(folder).close()
    assert [path.name for path in folder.iterdir() if path.name.startswith(".new-")] == []
    assert set(_ids(folder)) == before


def _ids(folder: Path) -> list[str]:
    if not (folder / LOG_MARKER).exists():
        return []
    return [name for part in read_queries(folder) for name in part["query_id"].to_pylist()]


def _wait(condition: object) -> None:
    end = time.monotonic() + 30
    while not condition():  # pyright: ignore[reportCallIssue]
        assert time.monotonic() < end
        time.sleep(0.01)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cup.png").write_bytes(b"...")
    with pytest.raises(UsageError, match="not empty and not a log of queries"):
        QueryLog(tmp_path / "photos")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        QueryLog(tmp_path / "file")
    for ask in (newest_fingerprint, delete_queries, lambda folder: list(read_queries(folder))):
        with pytest.raises(MultimodalError, match="is not a log of queries"):
            ask(tmp_path / "photos")
    log = QueryLog(tmp_path / "log")
    log.append(query(0))
    log.close()
    (tmp_path / "log" / parts(tmp_path / "log")[0]).write_bytes(b"PAR1")
    for ask in (newest_fingerprint, delete_queries, lambda folder: list(read_queries(folder))):
        with pytest.raises(MultimodalError, match="is damaged"):
            ask(tmp_path / "log")
    (tmp_path / "log" / LOG_MARKER).write_text('{"format": 2, "salt": "00"}')
    with pytest.raises(MultimodalError, match="cannot be read"):
        QueryLog(tmp_path / "log")


def test_a_hash_depends_on_the_salt() -> None:
    assert hash_user("ann", "00" * 16) == hash_user("ann", "00" * 16) != hash_user("ann", "01" * 16)
    assert hash_user("\udcff", "00") != hash_user("ann", "00")
