"""The routes that the page needs: the map, how drawings are prepared, counts under conditions, and judgements."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageDraw
from served_model import TOKEN

from multimodal.core.errors import MultimodalError
from multimodal.monitor.feedback import read_feedback
from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.index_sample import sample_index
from multimodal.serve.sketch import SketchStyle


def test_the_page_runs_its_own_script_alone(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert answer.text.count("<script>") == 1
    assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in answer.text


def test_the_map_is_pca_of_centred_modalities(client: TestClient, index: Index) -> None:
    found = client.get("/map").json()
    vectors, items = index.engine.select()
    modalities = np.array(items["modality"].to_pylist())
    centred = np.array(vectors, dtype=np.float64)
    for modality in set(modalities):
        centred[modalities == modality] -= centred[modalities == modality].mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    assert found["explained"] == pytest.approx((lengths[:2] ** 2).sum() / (lengths**2).sum(), abs=1e-6)
    placed = np.array([(point["x"], point["y"]) for point in found["points"]])
    assert abs(placed) == pytest.approx(abs(left[:, :2] * lengths[:2]), abs=1e-3)
    assert found["total"] == len(found["points"]) == len(index)


def test_a_query_that_is_an_indexed_value_is_at_its_point(client: TestClient, index: Index) -> None:
    points = {(p["key"], p["modality"]): (p["x"], p["y"]) for p in client.get("/map").json()["points"]}
    hits = [{"key": "red/cup", "modality": "text"}, {"key": "gone", "modality": "text"}]
    found = client.post("/map", json={"query": {"text": "a red cup"}, "hits": hits}).json()
    assert found["query"] == pytest.approx(points["red/cup", "text"], abs=1e-3)
    assert found["hits"] == [pytest.approx(points["red/cup", "text"], abs=1e-3), None]
    of_row = np.mean([xy for (key, _), xy in points.items() if key == "red/cup"], axis=0)
    assert client.post("/map", json={"like": ["red/cup"]}).json()["query"] == pytest.approx(of_row, abs=1e-3)
    assert client.post("/map", json={"like": ["gone"]}).json()["query"] is None


def test_a_large_index_is_sampled(index: Index) -> None:
    everything = {tuple(row) for row in np.round(index.engine.select("text")[0], 6).tolist()}
    vectors, items = sample_index(index, "text", most_read=10)
    assert set(items["modality"].to_pylist()) == {"text"}
    assert {tuple(row) for row in np.round(vectors, 6).tolist()} <= everything
    assert len(vectors) > 0


@pytest.mark.parametrize("width", [2, 4, 8])
@pytest.mark.parametrize("ink", [0, 255])
def test_drawings_are_measured(width: int, ink: int) -> None:
    sheet = Image.new("L", (96, 96), 255 - ink)
    ImageDraw.Draw(sheet).line([(20, 48), (75, 48)], ink, width)
    style = SketchStyle.of([np.asarray(sheet)])
    assert style.side == pytest.approx(56 / 96, abs=0.011)
    assert style.width == pytest.approx(width / 96, rel=0.2)
    assert style.dark == (ink == 0)


def test_photographs_are_not_drawings() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (48, 48)).astype(np.uint8)
    assert SketchStyle.of([noise]) == SketchStyle.of([]) == SketchStyle()


def test_counts_under_conditions(client: TestClient) -> None:
    where = json.dumps({"price": ["0", "1"]})
    counted = client.get("/facets", params={"column": "colour", "where": where}).json()["values"]
    assert counted == {"red": 2, "green": 2, "blue": 2}
    ranged = {"column": "colour", "where": json.dumps({"price": {"lt": 2}})}
    assert client.get("/facets", params=ranged).json()["values"] == counted
    assert client.get("/facets", params={"column": "colour", "where": "{"}).status_code == 400


def test_judgements_are_appended(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "judgements.jsonl"
    file.write_text('{"old": true}\n')
    judgement = {"verdict": "up", "key": "red/cup\n", "modality": "text", "query": {"text": "Tässchen"}}
    with TestClient(create_app(index, feedback=file)) as client:
        assert client.get("/about").json()["feedback"] is True
        assert client.post("/feedback", json=judgement).status_code == 204
        assert client.post("/feedback", json=judgement | {"verdict": "maybe"}).status_code == 400
        assert client.post("/feedback", json=judgement | {"key": "x" * 3000}).status_code == 400
    old, stored = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    assert old == {"old": True}
    assert {name: stored[name] for name in judgement} == judgement
    assert stored["fingerprint"] == index.fingerprint


def test_judgements_of_a_search(index: Index, tmp_path: Path) -> None:
    file = tmp_path / "judgements.jsonl"
    shown = {"query": {"text": "a cup"}, "query_id": "a1", "shown": ["red/cup", "blue/cup"]}
    with TestClient(create_app(index, token=TOKEN, feedback=file)) as client:

        def sent(**judgement: object) -> int:
            return client.post("/feedback", json=shown | judgement).status_code

        assert sent(verdict="clicked", key="blue/cup", modality="text", position=2) == 204
        assert sent(verdict="missing", key="green/cup") == 204
        assert sent(verdict="unused") == 204
        assert sent(verdict="missing", key="black/cup") == 404  # the index has no such row
        assert sent(verdict="clicked") == 400
        assert sent(verdict="clicked", key="blue/cup", position=0) == 400
        assert sent(verdict="unused", shown=["a"] * 101) == 400
    found = read_feedback(file)
    assert [(each.verdict, each.key, each.position) for each in found.judgements] == [
        ("clicked", "blue/cup", 2), ("missing", "green/cup", None), ("unused", "", None),
    ]  # fmt: skip
    assert {each.shown for each in found.judgements} == {("red/cup", "blue/cup")}
    assert found.rejects == {}


def test_users_are_hashed_and_named_by_who_has_the_token_alone(index: Index, tmp_path: Path) -> None:
    file, judgement = tmp_path / "judgements.jsonl", {"verdict": "up", "key": "red/cup", "modality": "text"}
    for token, header, status in ((TOKEN, TOKEN, 204), (TOKEN, TOKEN, 204), (TOKEN, "x" * 20, 401), (None, TOKEN, 403)):
        with TestClient(create_app(index, token=token, feedback=file)) as client:
            named = {"Authorization": f"Bearer {header}"}
            assert client.post("/feedback", json=judgement | {"user": "ann"}, headers=named).status_code == status
    with TestClient(create_app(index, token=TOKEN, feedback=file)) as client:
        client.post("/feedback", json=judgement | {"user": "bob"}, headers={"Authorization": f"Bearer {TOKEN}"})
        assert client.post("/feedback", json=judgement).status_code == 204
    ann, again, bob, nobody = (each.user for each in read_feedback(file).judgements)
    assert ann == again != bob
    assert nobody == ""
    assert "ann" not in file.read_text()
    salt = tmp_path / "judgements.jsonl.salt"
    assert salt.stat().st_mode & 0o777 == 0o600
    assert salt.read_text() not in file.read_text()


def test_a_file_of_judgements_that_cannot_be_written(index: Index, tmp_path: Path) -> None:
    with pytest.raises(MultimodalError, match="cannot be written"):
        create_app(index, feedback=tmp_path / "missing" / "file")
