"""Rows are added and removed by anyone who has the token, and by nobody else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from served_model import COLOURS, TOKEN, data_url, picture

from multimodal.core.embedder import Embedder
from multimodal.core.errors import MultimodalError, UsageError
from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.auth import configured_token

HEADERS = {"Authorization": f"Bearer {TOKEN}"}
ITEM = {"key": "new/vase", "text": "a yellow vase", "metadata": {"colour": "yellow", "price": 9}}


def keys_of(client: TestClient, text: str) -> list[str]:
    return [hit["key"] for hit in client.post("/search", json={"text": text, "k": 20, "target": "text"}).json()["hits"]]


def test_an_item_is_found_until_it_is_removed(client: TestClient) -> None:
    added = client.post("/items", json={"items": [ITEM]}, headers=HEADERS)
    assert (added.status_code, added.json()) == (200, {"added": 1, "rejected": 0, "reasons": {}})
    (hit,) = client.post("/search", json={"text": "a yellow vase", "k": 1, "target": "text"}).json()["hits"]
    assert (hit["key"], hit["metadata"]["colour"], hit["score"]) == ("new/vase", "yellow", pytest.approx(1, abs=1e-5))
    removed = client.delete("/items", params={"key": ["new/vase", "unknown"]}, headers=HEADERS)
    assert (removed.status_code, removed.json()) == (200, {"removed": 1})
    assert "new/vase" not in keys_of(client, "a yellow vase")


def test_items_of_different_modalities_are_added_together(client: TestClient) -> None:
    items = [
        {"key": "only/text", "text": "a yellow vase"},
        {"key": "only/image", "image": data_url(picture((250, 240, 0))), "metadata": {"price": 2.5}},
        {"key": "only/row", "tabular": {"colour": "red", "price": 3.0}, "metadata": {"new column": "new"}},
    ]
    added = client.post("/items", json={"items": items}, headers=HEADERS)
    assert added.json()["added"] == 3, added.text
    (hit,) = client.post("/search", json={"image": items[1]["image"], "k": 1, "target": "image"}).json()["hits"]
    assert (hit["key"], hit["metadata"]["price"]) == ("only/image", 2.5)
    (hit,) = client.post("/search", json={"like": ["red/cup"], "where": {"new column": "new"}}).json()["hits"]
    assert (hit["key"], hit["modality"]) == ("only/row", "tabular")
    (hit,) = client.post("/search", json={"text": "a yellow vase", "k": 1, "target": "text"}).json()["hits"]
    assert (hit["key"], hit["metadata"]["name"]) == ("only/text", "a yellow vase")  # in the column of the table


def test_an_item_replaces_that_of_the_same_key(client: TestClient) -> None:
    for text in ("a yellow vase", "a small spoon"):
        changed = {**ITEM, "text": text, "image": data_url(picture(COLOURS["red"]))}
        assert client.post("/items", json={"items": [changed]}, headers=HEADERS).status_code == 200
    (hit,) = client.post("/search", json={"text": "a small spoon", "k": 1, "target": "text"}).json()["hits"]
    assert (hit["key"], hit["score"]) == ("new/vase", pytest.approx(1, abs=1e-5))
    assert keys_of(client, "a yellow vase").count("new/vase") == 1


def test_a_replaced_row_remains_in_its_group(embedder: Embedder) -> None:
    rows = [{"sku": f"{n}", "name": f"a {colour} cup", "kind": "cups"} for n, colour in enumerate(COLOURS)]
    index = Index.from_table(embedder, rows, columns={"text": "name"}, key="sku", group="kind")
    items = [
        {"key": "1", "text": "a blue jug"},
        {"key": "new", "text": "a red jug", "group": "jugs"},
        {"key": "alone", "text": "a bowl"},
    ]
    with TestClient(create_app(index, token=TOKEN)) as client:
        assert client.post("/items", json={"items": items}, headers=HEADERS).json()["added"] == 3
    groups = dict(zip(index.items["key"].to_pylist(), index.items["group"].to_pylist(), strict=True))
    assert groups == {"0": "=cups", "1": "=cups", "2": "=cups", "new": "=jugs", "alone": "#=alone"}


def test_a_key_that_comes_twice_in_a_request_is_refused(client: TestClient) -> None:
    answer = client.post("/items", json={"items": [ITEM, ITEM | {"text": "a red cup"}]}, headers=HEADERS)
    assert (answer.status_code, "'new/vase' is the key of several items" in answer.text) == (400, True)
    assert "new/vase" not in keys_of(client, "a yellow vase")


def test_items_that_cannot_be_read_are_left_out_and_counted(client: TestClient) -> None:
    damaged = {"key": "damaged", "image": data_url(b"damaged")}
    added = client.post("/items", json={"items": [ITEM, damaged]}, headers=HEADERS)
    assert (added.status_code, added.json()["added"], added.json()["rejected"]) == (200, 1, 1)
    assert "new/vase" in keys_of(client, "a yellow vase")


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Basic {TOKEN}",
        TOKEN,
        "Bearer t\xf6ken",
    ],
)
def test_without_the_token_nothing_changes(client: TestClient, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    before = client.get("/about").json()
    added = client.post("/items", json={"items": [ITEM]}, headers=headers)  # pyright: ignore[reportArgumentType]
    removed = client.delete("/items", params={"key": "red/cup"}, headers=headers)  # pyright: ignore[reportArgumentType]
    assert (added.status_code, removed.status_code) == (401, 401)
    assert added.headers["www-authenticate"] == "Bearer"
    assert client.get("/about").json() == before


def test_a_server_without_a_token_says_so(index: Index) -> None:
    with TestClient(create_app(index)) as client:
        for headers in ({}, HEADERS, {"Authorization": "Bearer "}):
            answer = client.post("/items", json={"items": [ITEM]}, headers=headers)
            assert answer.status_code == 403
            assert "start the server with --token_file" in answer.json()["error"]["message"]
        assert client.delete("/items", params={"key": "a"}, headers=HEADERS).status_code == 403
        assert client.get("/about").json()["can_change"] is False


@pytest.mark.parametrize(
    ("item", "status", "message"),
    [
        ({"text": "a"}, 400, "key: Field required"),
        ({"key": "a"}, 400, "number 0 has no value of a modality (text, image, tabular, graph, audio)."),
        ({"key": "a", "txt": "a", "text": "a"}, 400, "there is no setting 'txt'. Did you mean 'text'?"),
        ({"key": "a", "image": "/etc/passwd"}, 422, "Paths and addresses are not opened"),
        ({"key": "a", "text": "a", "metadata": {"name": "b"}}, 400, "metadata cannot be named 'name'"),
        ({"key": "a", "text": "a", "metadata": {"sku": "b"}}, 400, "metadata cannot be named 'sku'"),
        ({"key": "a", "text": "a", "metadata": {"b": {"c": 1}}}, 400, "metadata.b"),
        ({"key": "", "text": "a"}, 400, "key"),
    ],
)
def test_wrong_items_are_refused(client: TestClient, item: dict[str, Any], status: int, message: str) -> None:
    answer = client.post("/items", json={"items": [item]}, headers=HEADERS)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


def test_a_path_in_the_metadata_is_a_text(client: TestClient, secret: Path) -> None:
    item = {**ITEM, "metadata": {"colour": str(secret), "path": str(secret)}}
    assert client.post("/items", json={"items": [item]}, headers=HEADERS).status_code == 200
    (hit,) = client.post("/search", json={"text": "a yellow vase", "k": 1, "target": "text"}).json()["hits"]
    assert hit["metadata"]["path"] == str(secret)


def test_the_token_is_read_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MULTIMODAL_TOKEN", raising=False)
    assert configured_token(None) is None
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    monkeypatch.setenv("MULTIMODAL_TOKEN", "another-token-that-is-long")
    assert (configured_token(None), configured_token(file)) == ("another-token-that-is-long", TOKEN)
    for wrong in ("short", "", "a token with some spaces", "sixteen-letters-\xe4"):
        file.write_text(wrong, encoding="utf-8")
        with pytest.raises(MultimodalError, match="token"):
            configured_token(file)
    monkeypatch.setenv("MULTIMODAL_TOKEN", "short")
    with pytest.raises(UsageError, match="MULTIMODAL_TOKEN has to be 16"):
        configured_token(None)
    with pytest.raises(MultimodalError, match="cannot be read"):
        configured_token(tmp_path / "missing")
