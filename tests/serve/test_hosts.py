"""Requests under names that the server does not know are refused, so that pages of other sites cannot read it."""

from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from multimodal.search.index import Index
from multimodal.serve.app import create_app
from multimodal.serve.hosts import known_hosts


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("localhost.", True),
        ("[::1]:8000", True),
        ("search.example.org", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example:80", False),
        ("", False),
    ],
)
def test_only_known_names_are_answered(index: Index, host: str, known: bool) -> None:
    app = create_app(index, hosts=known_hosts("127.0.0.1", ["Search.Example.org"]))
    with TestClient(app) as client:
        for path in ("/about", "/", "/metrics"):
            answer = client.get(path, headers={"Host": host})
            assert answer.status_code == (200 if known else 421)
        assert known or "--allow_host" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("listening", "allowed", "checked"),
    [
        ("127.0.0.1", [], True),
        ("127.0.0.2", [], True),
        ("localhost", [], True),
        ("::1", [], True),
        ("0.0.0.0", [], False),
        ("192.168.1.2", [], False),
        ("0.0.0.0", ["search.example.org"], True),
    ],
)
def test_names_are_checked_on_this_machine_alone_or_where_some_are_given(
    listening: str, allowed: list[str], checked: bool
) -> None:
    assert (known_hosts(listening, allowed) is not None) == checked
