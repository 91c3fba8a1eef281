"""A server bounds what requests cost, and works whatever it is sent."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import random
import struct
import threading
import zipfile
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from httpx import ASGITransport, AsyncClient
from served_model import COLOURS, TOKEN, data_url, picture

from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.limits import Limits

HEADERS = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


def png_header(width: int, height: int) -> bytes:
    """A PNG file that declares a size, and has almost no pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    body = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(50_000_000))
    return buffer.getvalue()


ENTITIES = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "' + b"x" * 1000 + b'">]><svg>&b;&b;</svg>'
OUTSIDE = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg><title>&b;</title></svg>'
UPLOADS = {
    "empty": b"",
    "not a picture": b"hello",
    "50,000 x 50,000": png_header(50_000, 50_000),
    "2 billion wide": png_header(2**31 - 1, 1),
    "no pixels": png_header(0, 0),
    "zip bomb": zip_bomb(),
    "gzip bomb": gzip.compress(bytes(50_000_000)),
    "XML with entities": ENTITIES,
    "XML that names a file": OUTSIDE,
    "deep JSON": b"[" * 100_000,
    "truncated": picture(COLOURS["red"])[:60],
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("modality", ["image", "graph", "audio", "tabular"])
@pytest.mark.parametrize("upload", UPLOADS)
def test_damaged_and_hostile_uploads_are_refused(client: TestClient, modality: str, upload: str) -> None:
    answer = client.post("/search", files={modality: ("upload.png", UPLOADS[upload])})
    assert answer.status_code == 422, answer.text
    sent = client.post("/embed", json={modality: data_url(UPLOADS[upload])})
    assert sent.status_code == 422, sent.text


def test_randomly_damaged_pictures_and_sounds_are_4xx_or_read(client: TestClient, tone: bytes) -> None:
    rng = random.Random(0)
    statuses = set()
    for modality, whole in (("image", picture(COLOURS["blue"])), ("audio", tone[:4000])):
        for _ in range(60):
            damaged = bytearray(whole[: rng.randrange(1, len(whole))] if rng.random() < 0.5 else whole)
            for _ in range(rng.randrange(1, 8)):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
            statuses.add(client.post("/search", files={modality: ("a", bytes(damaged))}).status_code)
    assert statuses <= {200, 422}
    assert 422 in statuses
    assert client.post("/search", json={"text": "a red cup"}).status_code == 200


BODIES = [
    b"",
    b"{",
    b"[]",
    b'"text"',
    b'{"text": NaN}',
    b'{"text": "a", "weights": {"text": 1e999}}',
    b'{"text": "a", "k": Infinity}',
    b'{"text": "a", "k": ' + b"9" * 5000 + b"}",
    b"\xff\xfe{}",
    b'{"text": "\\ud800"}',
    b'{"\\ud800": 1}',
    b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b'{"text": "a", "where": {"colour": {"a": 1}}}',
    b'{"text": "a", "like": "red/cup", "unlike": 3, "k": "x"}',
    b'{"text": "a", "target": ["image"]}',
    b'{"text": "a", "min_precision": "nan"}',
]


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
@pytest.mark.parametrize("path", ["/search", "/embed", "/v1/embeddings", "/explain", "/items"])
def test_damaged_json_is_refused(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, headers=HEADERS)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


FORMS = [
    (b"", "multipart/form-data"),
    (b"--x\r\n", "multipart/form-data; boundary=x"),
    (b'--x\r\nContent-Disposition: form-data; name="text"\r\n\r\na', "multipart/form-data; boundary=x"),
    (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--", "multipart/form-data; boundary=x"),
    (b"--x\r\n" + b"a: b\r\n" * 3000 + b"\r\na\r\n--x--", "multipart/form-data; boundary=x"),
    (b'--x\r\nContent-Disposition: form-data; name="\xff\xfe"\r\n\r\na\r\n--x--', "multipart/form-data; boundary=x"),
    (b"garbage" * 100, "multipart/form-data; boundary=" + "y" * 500),
]


@pytest.mark.parametrize("form", FORMS, ids=range(len(FORMS)))
def test_damaged_forms_are_refused(client: TestClient, form: tuple[bytes, str]) -> None:
    answer = client.post("/search", content=form[0], headers={"Content-Type": form[1]})
    assert answer.status_code == 400, answer.text


def test_a_form_of_too_many_fields_is_refused(client: TestClient) -> None:
    answer = client.post("/search", files=[("like", (None, str(n))) for n in range(1100)])
    assert answer.status_code == 400
    assert "Too many fields" in answer.json()["error"]["message"]


def test_other_types_and_compressed_bodies_are_refused(client: TestClient) -> None:
    body = json.dumps({"text": "a"}).encode()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""):
        assert client.post("/search", content=body, headers={"Content-Type": kind}).status_code == 415
    packed = client.post("/search", content=gzip.compress(body), headers={**HEADERS, "Content-Encoding": "gzip"})
    assert packed.status_code == 415
    assert "not unpacked" in packed.json()["error"]["message"]


def test_large_bodies_are_refused_by_their_declared_and_by_their_real_size(app: FastAPI) -> None:
    async def streamed() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield bytes(100_000)

    async def send() -> list[int]:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            declared = await client.post("/search", content=bytes(2**20 + 1), headers=HEADERS)
            real = await client.post("/search", content=streamed(), headers=HEADERS)
            form = {"Content-Type": "multipart/form-data; boundary=x"}
            start = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'

            async def part() -> AsyncIterator[bytes]:
                yield start
                async for piece in streamed():
                    yield piece

            in_form = await client.post("/search", content=part(), headers=form)
            return [declared.status_code, real.status_code, in_form.status_code]

    assert asyncio.run(send()) == [413, 413, 413]


def test_a_full_server_answers_429_and_a_slow_one_504(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    held = threading.Event()
    real = Index.search

    def slow(self: Index, *arguments: Any, **settings: Any) -> Any:
        held.wait(20)
        return real(self, *arguments, **settings)

    monkeypatch.setattr(Index, "search", slow)
    app = create_app(index, Limits(max_waiting=3, timeout=1.0))

    async def send() -> tuple[list[int], Any, Any, int]:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            waiting = [asyncio.ensure_future(client.post("/search", json={"text": "a red cup"})) for _ in range(3)]
            await asyncio.sleep(0.2)
            refused = await client.post("/search", json={"text": "a red cup"})
            health, metrics = await client.get("/health"), await client.get("/metrics")
            assert "multimodal_waiting 3.0" in metrics.text
            timed_out = [answer.status_code for answer in await asyncio.gather(*waiting)]
            held.set()
            await asyncio.sleep(0.1)
            again = await client.post("/search", json={"text": "a red cup"})
            return timed_out, refused, health, again.status_code

    timed_out, refused, health, again = asyncio.run(send())
    assert (timed_out, refused.status_code, health.status_code, again) == ([504] * 3, 429, 200, 200)
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["error"]["type"] == "too_many_requests"


def test_no_header_allows_other_origins(client: TestClient) -> None:
    answer = client.post("/search", json={"text": "a red cup"}, headers={"Origin": "https://example.com"})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert client.options("/search", headers={"Origin": "https://example.com"}).status_code == 405
