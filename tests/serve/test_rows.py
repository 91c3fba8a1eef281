"""Pictures, sounds and explanations of rows, from the table that was embedded; what the server says about itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from PIL import Image
from served_model import COLOURS, TOKEN, data_url, picture

from multimodal.core.embedder import Embedder
from multimodal.evaluation.explain import explain
from multimodal.search.index import Index
from multimodal.serve.app import create_app


@pytest.fixture
def folder(tmp_path: Path, tone: bytes) -> Path:
    """A table with pictures and sounds as files; the last row's picture is damaged, and its sound is missing."""
    (tmp_path / "tone.wav").write_bytes(tone)
    (tmp_path / "damaged.png").write_bytes(b"damaged")
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sku", "name", "picture", "sound"])
        for colour, rgb in COLOURS.items():
            (tmp_path / f"{colour}.png").write_bytes(picture(rgb, 300))
            writer.writerow([f"{colour}/cup", f"a {colour} cup", f"{colour}.png", "tone.wav"])
    return tmp_path


@pytest.fixture
def rows_client(folder: Path, embedder: Embedder) -> Iterator[TestClient]:
    columns = {"text": "name", "image": "picture", "audio": "sound"}
    index = Index.from_table(embedder, str(folder / "table.csv"), columns=columns, key="sku")
    with TestClient(create_app(index)) as opened:
        yield opened


def test_the_picture_of_a_row_is_a_small_png(rows_client: TestClient) -> None:
    answer = rows_client.get("/picture?key=red/cup")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert answer.headers["x-content-type-options"] == "nosniff"
    shown = Image.open(io.BytesIO(answer.content))
    assert max(shown.size) == 112
    assert shown.convert("RGB").getpixel((shown.width * 3 // 8, shown.height * 3 // 8)) == COLOURS["red"]


def test_the_sound_of_a_row_is_wav(rows_client: TestClient) -> None:
    answer = rows_client.get("/sound?key=green/cup")
    assert (answer.status_code, answer.headers["content-type"], answer.content[:4]) == (200, "audio/wav", b"RIFF")


@pytest.mark.parametrize(
    "path",
    [
        "/picture?key=grey/cup",
        "/picture?key=../table.csv",
        "/picture?key=%2e%2e/table.csv",
        "/sound?key=a",
        "/picture/red/cup",
    ],
)
def test_what_is_not_a_row_has_no_picture(rows_client: TestClient, path: str) -> None:
    assert rows_client.get(path).status_code == 404


def test_another_modality_and_a_damaged_picture_have_none(rows_client: TestClient, folder: Path) -> None:
    assert rows_client.get("/picture?key=red/cup&modality=text").status_code == 404
    wrong = rows_client.get("/picture?key=red/cup&modality=imag")
    assert (wrong.status_code, "Did you mean 'image'?" in wrong.text) == (400, True)
    (folder / "red.png").write_bytes(b"damaged")
    assert rows_client.get("/picture?key=red/cup").status_code == 404
    (folder / "red.png").unlink()
    assert rows_client.get("/picture?key=red/cup").status_code == 404
    assert rows_client.get("/picture?key=blue/cup").status_code == 200


def test_a_replaced_row_is_not_shown_as_it_was(folder: Path, embedder: Embedder) -> None:
    index = Index.from_table(
        embedder, str(folder / "table.csv"), columns={"text": "name", "image": "picture"}, key="sku"
    )
    with TestClient(create_app(index, token=TOKEN)) as client:
        assert client.get("/value?key=red/cup&modality=text").json() == {"text": "a red cup"}
        items = [{"key": "red/cup", "text": "a golden spoon"}]
        client.post("/items", json={"items": items}, headers={"Authorization": f"Bearer {TOKEN}"})
        assert client.get("/value?key=red/cup&modality=text").json() == {"text": None}
        assert client.get("/picture?key=red/cup").status_code == 404
        assert client.get("/value?key=blue/cup&modality=text").json() == {"text": "a blue cup"}


def test_a_table_that_is_gone_leaves_hits_without_pictures(
    rows_client: TestClient, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (folder / "table.csv").unlink()
    for _ in range(2):
        assert rows_client.get("/picture?key=red/cup").status_code == 404
    assert rows_client.get("/sketch").status_code == 200
    assert capfd.readouterr().err.count("Hits are shown without their pictures and texts") == 1


def test_an_index_in_memory_has_no_pictures(client: TestClient) -> None:
    assert client.get("/picture?key=red/cup").status_code == 404
    assert client.get("/about").json()["media"] is False


def test_a_match_is_explained_as_in_python(rows_client: TestClient, folder: Path, embedder: Embedder) -> None:
    expected = explain(embedder, {"text": "a red cup"}, {"image": folder / "red.png"})
    by_key = rows_client.post("/explain", json={"query": {"text": "a red cup"}, "key": "red/cup", "target": "image"})
    by_value = rows_client.post(
        "/explain", json={"query": {"text": "a red cup"}, "match": {"image": data_url(picture(COLOURS["red"], 300))}}
    )
    for answer in (by_key, by_value):
        document = answer.json()
        assert document["score"] == pytest.approx(expected.score, abs=1e-6)
        changes = {part["name"]: part["change"] for part in document["query"]["parts"]}
        assert changes == pytest.approx({part.name: part.change for part in expected.query.parts}, abs=1e-6)
        assert document["match"]["drawing"] == expected.match.drawing != ""
        assert str(folder) not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"query": {"text": "a"}}, 400, "Give either a match, or the key of an indexed row."),
        ({"query": {"text": "a"}, "key": "red/cup", "match": {"text": "b"}}, 400, "Give either a match"),
        ({"query": {}, "key": "red/cup"}, 400, "query: give one modality and its value, got 0."),
        ({"query": {"txt": "a"}, "key": "red/cup"}, 400, "Did you mean 'text'?"),
        ({"query": {"text": "a"}, "key": "grey/cup"}, 404, "The row 'grey/cup' has no value"),
        ({"query": {"text": "a"}, "key": "red/cup", "target": "graph"}, 404, "has no graph"),
        ({"query": {"text": ""}, "key": "red/cup"}, 422, "text"),
        ({"query": {"text": "a"}, "match": {"image": data_url(b"damaged")}}, 422, "not an image"),
    ],
)
def test_what_cannot_be_explained_is_reported(
    rows_client: TestClient, body: dict[str, object], status: int, message: str
) -> None:
    answer = rows_client.post("/explain", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_the_server_describes_itself(rows_client: TestClient) -> None:
    about = rows_client.get("/about").json()
    assert about["modalities"]["image"] == {"file": True, "encoder": "SmallCNN", "kind": "image"}
    assert about["modalities"]["text"] == {"file": False, "encoder": "BagOfWords", "kind": "text"}
    assert sorted(about["targets"]) == ["audio", "image", "text"]
    assert (about["vectors"], about["dim"], about["media"], about["can_change"]) == (9, 16, True, False)
    assert rows_client.get("/health").json() == {"status": "ok"}
    assert rows_client.get("/about").json()["vectors"] == 9


def test_requests_are_counted_by_route_and_never_by_path(rows_client: TestClient) -> None:
    rows_client.post("/search", json={"text": "a red cup"})
    rows_client.post("/search", json={"txt": "a red cup"})
    for path in ("/picture?key=red/cup", "/picture?key=blue/cup", "/invented", "/also/invented"):
        rows_client.get(path)
    rows_client.request("INVENTED", "/search")
    lines = rows_client.get("/metrics").text.splitlines()
    counted = sorted(line for line in lines if line.startswith("multimodal_requests_total{"))
    assert counted == [
        'multimodal_requests_total{method="GET",route="/picture",status="200"} 2.0',
        'multimodal_requests_total{method="GET",route="other",status="404"} 2.0',
        'multimodal_requests_total{method="POST",route="/search",status="200"} 1.0',
        'multimodal_requests_total{method="POST",route="/search",status="400"} 1.0',
        'multimodal_requests_total{method="other",route="/search",status="405"} 1.0',
    ]
    assert 'multimodal_request_seconds_count{route="/search"} 3.0' in lines


def test_no_page_of_the_server_loads_programs_from_elsewhere(rows_client: TestClient) -> None:
    assert (rows_client.get("/docs").status_code, rows_client.get("/redoc").status_code) == (404, 404)
    described = rows_client.get("/openapi.json").json()
    assert set(described["paths"]["/search"]["post"]["requestBody"]["content"]) == {
        "application/json",
        "multipart/form-data",
    }
    home = rows_client.get("/")
    assert home.status_code in (200, 404)
    assert "//cdn" not in home.text
