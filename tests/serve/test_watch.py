"""What a server keeps of its searches: nothing, unless it is asked to."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient
from served_model import COLUMNS, TOKEN, data_url, picture, table
from server_process import started

from multimodal.cli.main import main
from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.monitor.drift import drift
from multimodal.monitor.query_log import hash_user, read_queries
from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.watch import LogSettings, open_watch

QUERIES = [
    f"a {colour} {thing} {n}" for colour in ("red", "green", "blue") for thing in ("cup", "jug") for n in range(20)
]


@contextmanager
def watched(index: Index, log: LogSettings | None, reference: Path | None = None) -> Iterator[TestClient]:
    watch = open_watch(index, log, reference)
    with TestClient(create_app(index, name="small", token=TOKEN, watch=watch)) as client:
        yield client
    if watch is not None:
        watch.close()


def logged(folder: Path) -> list[dict[str, object]]:
    return pa.concat_tables(read_queries(folder)).to_pylist()


def search(client: TestClient, headers: dict[str, str] | None = None, **body: object) -> dict[str, object]:
    answer = client.post("/search", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_without_a_log_nothing_is_kept(index: Index) -> None:
    with watched(index, None) as client:
        assert "query_id" not in search(client, text="a red cup")
        assert "multimodal_drift" not in client.get("/metrics").text


def test_a_search_is_logged_with_its_vector_and_hits(index: Index, embedder: Embedder, tmp_path: Path) -> None:
    with watched(index, LogSettings(tmp_path / "log", keep_text=True)) as client:
        answers = [
            search(client, text="a red cup", k=3),
            search(client, image=data_url(picture((255, 0, 0))), text="a cup", k=2),
            search(client, like=["red/cup"], k=1),
        ]
    rows = logged(tmp_path / "log")
    by_id = {answer["query_id"]: [row for row in rows if row["query_id"] == answer["query_id"]] for answer in answers}
    assert len(by_id) == 3
    (alone,), both, (like,) = by_id.values()
    assert alone["keys"] == [hit["key"] for hit in answers[0]["hits"]]  # pyright: ignore[reportGeneralTypeIssues]
    assert alone["scores"] == pytest.approx([hit["score"] for hit in answers[0]["hits"]])  # pyright: ignore[reportGeneralTypeIssues]
    assert alone["vector"] == pytest.approx(embedder.encode(text="a red cup"), abs=1e-3)
    assert (alone["modality"], alone["text"], alone["user"]) == ("text", "a red cup", None)
    assert {row["modality"]: row["text"] for row in both} == {"image": None, "text": "a cup"}
    assert (like["modality"], like["vector"], len(like["keys"])) == (None, None, 1)  # pyright: ignore[reportArgumentType]


def test_requests_that_are_answered_together_have_their_own_rows(
    index: Index, embedder: Embedder, tmp_path: Path
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with watched(index, LogSettings(tmp_path / "log", keep_text=True)) as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: search(client, text=text, k=1), QUERIES))
    rows = logged(tmp_path / "log")
    assert sorted(str(row["text"]) for row in rows) == sorted(QUERIES)
    assert len({row["query_id"] for row in rows}) == len(QUERIES)
    for row in rows[:20]:
        assert row["vector"] == pytest.approx(embedder.encode(text=row["text"]), abs=1e-3)


def test_a_user_needs_the_token_and_is_hashed(index: Index, tmp_path: Path) -> None:
    with watched(index, LogSettings(tmp_path / "log")) as client:
        assert client.post("/search", json={"text": "a cup"}, headers={"X-User": "ann"}).status_code == 401
        search(client, {"X-User": "ann", "Authorization": f"Bearer {TOKEN}"}, text="a cup")
    (row,) = logged(tmp_path / "log")
    salt = json.loads((tmp_path / "log" / "query_log.json").read_text())["salt"]
    assert row["user"] == hash_user("ann", salt)
    assert row["text"] is None


def test_drift_of_the_queries_is_a_metric(index: Index, embedder: Embedder, tmp_path: Path) -> None:
    with watched(index, LogSettings(tmp_path / "before")) as client:
        for text in QUERIES[::2]:
            search(client, text=text)
    with watched(index, LogSettings(tmp_path / "same"), tmp_path / "before") as client:
        for text in QUERIES[1::2] + QUERIES[1:80:2]:
            search(client, text=text)
        same = metrics(client)
    with watched(index, LogSettings(tmp_path / "other"), tmp_path / "before") as client:
        for number in range(100):
            search(client, text=f"{number} bowl")
        other = metrics(client)
    assert (
        same['multimodal_drift_queries{modality="text"}'] == other['multimodal_drift_queries{modality="text"}'] == 100
    )
    assert other['multimodal_drift_p_value{modality="text"}'] == pytest.approx(0.001)
    assert same['multimodal_drift_p_value{modality="text"}'] > 0.005
    assert other['multimodal_drift_score{modality="text"}'] > same['multimodal_drift_score{modality="text"}']
    assert other['multimodal_drift_checks_total{modality="text"}'] == 1
    assert other["multimodal_query_log_dropped_total"] == 0
    assert drift(tmp_path / "before", tmp_path / "other").drifted  # what was logged is a set of vectors


def metrics(client: TestClient) -> dict[str, float]:
    """The metrics, once a comparison is there."""
    end = time.monotonic() + 30
    while "multimodal_drift_checks_total{" not in (text := client.get("/metrics").text):
        assert time.monotonic() < end
        time.sleep(0.02)
    lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


def test_what_cannot_be_watched_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither embeddings nor an index"):
        open_watch(index, None, tmp_path)
    few = LogSettings(tmp_path / "few")
    with watched(index, few) as client:
        search(client, text="a cup")
    with pytest.raises(UsageError, match="fewer than 20 vectors"):
        open_watch(index, None, few.folder)
    index.fingerprint = "0" * 64
    with pytest.raises(MultimodalError, match="another model"):
        open_watch(index, None, few.folder)


# -- the process


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, embedder: Embedder) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("watched")
    embedder.save_pretrained(folder / "model")
    Index.from_table(embedder, table(), columns=COLUMNS, key="sku").save(folder / "index", engine="exact")
    return folder / "model", folder / "index"


def ask(address: str, text: str) -> str:
    body = json.dumps({"text": text, "k": 1}).encode()
    asked = urllib.request.Request(f"{address}/search", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)["query_id"]


@pytest.mark.slow
def test_a_stopped_server_has_written_everything(folders: tuple[Path, Path], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with started(folders, "--log_queries", str(log), "--keep_days", "30") as (process, address):
        asked = [ask(address, text) for text in QUERIES[:30]]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    assert sorted(str(row["query_id"]) for row in logged(log)) == sorted(asked)


def test_a_killed_server_leaves_whole_parts(folders: tuple[Path, Path], index: Index, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with watched(index, LogSettings(log)) as client:
        first = [search(client, text=text)["query_id"] for text in QUERIES[:30]]
    with started(folders, "--log_queries", str(log), "--log_text") as (process, address):
        second = [ask(address, text) for text in QUERIES[30:60]]
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    kept = [row["query_id"] for row in logged(log)]
    assert {*first} <= {*kept} <= {*first, *second}  # of the last ten seconds, none need be there
    assert len(kept) == len({*kept})
    vectors = np.array([row["vector"] for row in logged(log)], dtype=np.float32)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--log_text"], 2, "name its folder by --log_queries DIR"),
        (["--keep_days", "3"], 2, "name its folder by --log_queries DIR"),
        (["--log_queries", "log", "--keep_days", "0"], 2, "--keep_days: '0' is not a whole number from 1"),
        (["--drift_reference", "missing"], 2, "missing holds neither embeddings nor an index"),
    ],
)
def test_wrong_options_are_reported(
    folders: tuple[Path, Path], options: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *map(str, folders), "--port", "0", *options]) == code
    assert message in capsys.readouterr().err
