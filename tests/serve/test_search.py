"""Searches over HTTP find what the index finds, and open no file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from served_model import COLOURS, GRAPH, data_url, picture

from multimodal.core.embedder import Embedder
from multimodal.search.index import Index
from multimodal.serve.app import create_app


def found(client: TestClient, **query: Any) -> list[dict[str, Any]]:
    answer = client.post("/search", json=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["hits"]


def test_a_text_finds_what_the_index_finds(client: TestClient, index: Index) -> None:
    answer = client.post("/search", json={"text": "a red cup", "k": 3, "target": "image"})
    expected = index.search(text="a red cup", k=3, target="image")
    document = answer.json()
    assert document["query"] == {"text": "a red cup"}
    assert [hit["key"] for hit in document["hits"]] == [hit.key for hit in expected]
    assert [hit["score"] for hit in document["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    assert document["hits"][0].keys() == expected[0].to_json().keys()


def test_a_picture_is_sent_as_a_data_url_or_as_a_file(client: TestClient, index: Index) -> None:
    blue = picture(COLOURS["blue"])
    expected = [hit.key for hit in index.search(image=blue, k=4, target="text")]
    assert [hit["key"] for hit in found(client, image=data_url(blue), k=4, target="text")] == expected
    sent = client.post("/search", files={"image": ("b.png", blue)}, data={"k": "4", "target": "text"})
    assert [hit["key"] for hit in sent.json()["hits"]] == expected
    assert sent.json()["query"] == {"image": f"<{len(blue)} bytes>"}


def test_every_modality_can_be_sent_as_a_file(client: TestClient, tone: bytes) -> None:
    files = {
        "text": ("query.txt", b"a red cup"),
        "image": ("cup.png", picture(COLOURS["red"])),
        "tabular": ("row.csv", b"colour,price\nred,2\n"),
        "graph": ("graph.json", json.dumps(GRAPH).encode()),
        "audio": ("tone.wav", tone),
    }
    for modality, file in files.items():
        answer = client.post("/search", files={modality: file}, data={"k": "2"})
        assert (answer.status_code, len(answer.json().get("hits", []))) == (200, 2), (modality, answer.text)
    as_json = client.post("/search", files={"tabular": ("row.json", b'{"colour": "red", "price": 2}')})
    assert as_json.status_code == 200


def test_rows_and_graphs_are_json(client: TestClient) -> None:
    assert len(found(client, tabular={"colour": "red", "price": 1.0}, k=2)) == 2
    assert len(found(client, graph=GRAPH, k=2)) == 2


def test_filters_examples_and_weights_reach_the_index(client: TestClient, index: Index) -> None:
    only = found(client, text="a red cup", where={"colour": ["green", "blue"]}, k=8)
    assert {hit["metadata"]["colour"] for hit in only} == {"green", "blue"}
    cheap = found(client, text="a red cup", where={"price": {"gte": 1, "lt": 3}}, k=8)
    assert {hit["metadata"]["price"] for hit in cheap} == {1, 2}
    for wanted, message in (
        ({"gte": 1, "upto": 3}, "no operator 'upto'"),
        ({"gte": 3, "lt": 3}, "no value of price is"),
    ):
        refused = client.post("/search", json={"text": "a", "where": {"price": wanted}})
        assert refused.status_code == 400
        assert message in refused.json()["error"]["message"]
    like = found(client, like=["red/pot"], unlike=["blue/jug"], k=3)
    assert [hit["key"] for hit in like] == [
        hit.key for hit in index.search_encoded({}, k=3, like=["red/pot"], unlike=["blue/jug"])
    ]
    asked = {"text": "a red cup", "image": data_url(picture(COLOURS["blue"]))}
    less, more = (
        {hit["key"]: hit["score"] for hit in found(client, **asked, weights={"text": weight}, k=12, target="text")}
        for weight in (-1.0, 3.0)
    )
    assert more["red/cup"] > less["red/cup"]


def test_a_form_takes_settings_of_all_types(client: TestClient) -> None:
    sent = client.post(
        "/search",
        files={"image": ("a.png", picture(COLOURS["red"]))},
        data={"k": "2", "where": '{"colour": "red"}', "facets": ["colour", "price"], "like": "red/cup"},
    )
    document = sent.json()
    assert {hit["metadata"]["colour"] for hit in document["hits"]} == {"red"}
    assert set(document["facets"]) == {"colour", "price"}


def test_a_text_that_looks_like_json_is_a_text(client: TestClient) -> None:
    sent = client.post("/search", data={"text": "12"}, files={"unused": ("", b"")})
    assert sent.status_code == 400  # the unused file
    sent = client.post("/search", files={"text": (None, "12")})
    assert (sent.status_code, sent.json()["query"]) == (200, {"text": "12"})


def test_facets_count_the_values_of_a_column(client: TestClient) -> None:
    counted = client.get("/facets", params={"column": "colour"}).json()
    assert counted == {"column": "colour", "values": {"red": 4, "green": 4, "blue": 4}}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"text": "cup", "kk": 3}, "there is no setting 'kk'. Did you mean 'k'?"),
        ({"imag": "cup"}, "there is no setting 'imag'. Did you mean 'image'?"),
        ({"text": "cup", "k": 0}, "k: Input should be greater than or equal to 1, got '0'."),
        ({"text": "cup", "k": 10**6}, "k: at most 1,000 hits are returned, got 1000000."),
        ({}, "Give a value of a modality (text, image, tabular, graph, audio), or keys of rows as like."),
        ({"text": "cup", "weights": {"image": 1}}, "weights: the query has no value of image."),
        ({"text": "cup", "target": "imag"}, "'imag'"),
        ({"text": "cup", "min_precision": 2}, "min_precision"),
        ({"text": "cup", "min_precision": 0.9}, "not calibrated"),
        (
            {"tabular": {"colour": "red", "price": 1.0}, "hybrid": True},
            "Hybrid search takes the words of the query's text",
        ),
    ],
)
def test_wrong_settings_are_named(client: TestClient, query: dict[str, Any], message: str) -> None:
    answer = client.post("/search", json=query)
    assert answer.status_code == 400
    assert message in answer.json()["error"]["message"]


def test_words_are_searched_as_in_python(tmp_path: Path, index: Index, embedder: Embedder) -> None:
    """Among the texts, as pictures of one colour are equal, so that rounding decides the order of their rows."""
    index.save(tmp_path / "index")
    with Index.open(tmp_path / "index", model=embedder) as opened, TestClient(create_app(opened)) as client:
        blue = picture(COLOURS["blue"])
        for hybrid in (True, "green/bowl"):
            expected = opened.search(text="a red cup", image=blue, hybrid=hybrid, target="text", k=4)
            hits = found(client, text="a red cup", image=data_url(blue), hybrid=hybrid, target="text", k=4)
            assert [hit["key"] for hit in hits] == [hit.key for hit in expected]
        data = {"hybrid": "green/bowl", "target": "text", "k": "4"}
        sent = client.post("/search", files={"image": ("a.png", blue)}, data=data)
        expected = opened.search(image=blue, hybrid="green/bowl", target="text", k=4)
        assert [hit["key"] for hit in sent.json()["hits"]] == [hit.key for hit in expected]
        by_vector = [hit.key for hit in opened.search(image=blue, k=12, target="text")]
        with_words = [hit.key for hit in opened.search(image=blue, hybrid="green/bowl", k=12, target="text")]
        assert with_words.index("green/bowl") < by_vector.index("green/bowl") or by_vector[0] == "green/bowl"
        assert len(found(client, text="a red cup", exact=True)) == 10


PATHS = ("{path}", "file://{path}", "../../{path}", "http://localhost/{path}", "~/a.png", "/etc/passwd", "{path}\0")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("modality", ["image", "graph", "audio"])
def test_no_path_and_no_address_is_opened(
    client: TestClient, secret: Path, path: str, modality: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*arguments: object, **settings: object) -> None:
        pytest.fail(f"{arguments} was opened")

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr("PIL.Image.open", opened)
    named = path.format(path=secret)
    for value in (named, [named], [named, 16_000], {"path": named}):
        answer = client.post("/search", json={modality: value})
        assert answer.status_code == 422, (value, answer.text)
        embedded = client.post("/embed", json={modality: value})
        assert embedded.status_code == 422, (value, embedded.text)
    sent = client.post("/search", files={modality: (None, named)})
    assert sent.status_code == 422
    explained = client.post("/explain", json={"query": {"text": "a"}, "match": {modality: named}})
    assert explained.status_code == 422
