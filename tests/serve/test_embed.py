"""Vectors over HTTP are those of ``encode``; the openai client reads them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from openai import BadRequestError, NotFoundError, OpenAI
from served_app import running
from served_model import COLOURS, data_url, picture

from multimodal.core.embedder import Embedder

TEXTS = ["a red cup", "a blue jug", "a green pot"]


def test_values_of_several_modalities_are_embedded(client: TestClient, embedder: Embedder) -> None:
    red = picture(COLOURS["red"])
    answer = client.post("/embed", json={"text": TEXTS, "image": data_url(red)}).json()
    assert answer["dim"] == 16
    np.testing.assert_allclose(answer["vectors"]["text"], embedder.encode(text=TEXTS), atol=1e-6)
    np.testing.assert_allclose(answer["vectors"]["image"], embedder.encode(image=[red]), atol=1e-6)


def test_files_are_embedded(client: TestClient, embedder: Embedder) -> None:
    pictures = [picture(rgb) for rgb in COLOURS.values()]
    answer = client.post("/embed", files=[("image", (f"{n}.png", p)) for n, p in enumerate(pictures)]).json()
    np.testing.assert_allclose(answer["vectors"]["image"], embedder.encode(image=pictures), atol=1e-6)


def test_samples_of_a_sound_are_one_value(client: TestClient, embedder: Embedder) -> None:
    samples = (0.5 * np.sin(np.arange(8000) / 5)).tolist()
    answer = client.post("/embed", json={"audio": samples})
    assert answer.status_code == 200, answer.text
    expected = embedder.encode(audio=np.array(samples, np.float32))
    np.testing.assert_allclose(answer.json()["vectors"]["audio"], [expected], atol=1e-5)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "Give values of a modality: text, image, tabular, graph, audio."),
        ({"text": []}, 400, "text: give 1 to 2,048 values in a request, got 0."),
        ({"text": ["a"] * 2049}, 400, "got 2,049."),
        ({"text": "a", "k": 3}, 400, "there is no setting 'k'."),
        ({"text": ["a", "", "b"]}, 422, "text value 1: "),
        ({"text": 5}, 422, "text: "),
    ],
)
def test_what_cannot_be_embedded_is_reported(
    client: TestClient, body: dict[str, object], status: int, message: str
) -> None:
    answer = client.post("/embed", json=body)
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def openai_client(module_app: FastAPI) -> Iterator[OpenAI]:
    with running(module_app) as address:
        yield OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_the_openai_client_gets_the_vectors(openai_client: OpenAI, embedder: Embedder, encoding: str | None) -> None:
    settings = {} if encoding is None else {"encoding_format": encoding}
    answer = openai_client.embeddings.create(model="small", input=TEXTS, **settings)  # pyright: ignore
    given = [entry.embedding for entry in answer.data]
    if encoding == "base64":
        import base64

        given = [np.frombuffer(base64.b64decode(str(vector)), "<f4") for vector in given]
    np.testing.assert_allclose(given, embedder.encode(text=TEXTS), atol=1e-6)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert (answer.model, answer.usage.prompt_tokens, answer.usage.total_tokens) == ("small", 9, 9)


def test_one_text_gives_one_vector(openai_client: OpenAI, embedder: Embedder) -> None:
    answer = openai_client.embeddings.create(model="small", input="a red cup", dimensions=16)
    assert len(answer.data) == 1
    np.testing.assert_allclose(answer.data[0].embedding, embedder.encode(text="a red cup"), atol=1e-6)


def test_the_openai_client_lists_the_model(openai_client: OpenAI) -> None:
    assert [model.id for model in openai_client.models.list()] == ["small"]
    assert openai_client.models.retrieve("small").owned_by == "multimodal"


def test_the_openai_client_gets_errors(openai_client: OpenAI) -> None:
    with pytest.raises(NotFoundError, match="There is no model 'large'; the one served here is 'small'") as missing:
        openai_client.embeddings.create(model="large", input="a")
    assert missing.value.code == "model_not_found"
    with pytest.raises(BadRequestError, match="the vectors of small are 16 wide"):
        openai_client.embeddings.create(model="small", input="a", dimensions=8)
    with pytest.raises(BadRequestError, match="input"):
        openai_client.embeddings.create(model="small", input=[[1, 2]])
