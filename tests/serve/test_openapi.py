"""Requests made up from the OpenAPI description, valid and not, are never answered by 5xx (schemathesis)."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from served_app import running
from served_model import TOKEN

EXAMPLES = 40


@pytest.fixture(scope="module")
def described(module_app: FastAPI) -> Iterator[dict[str, APIOperation]]:
    with running(module_app) as address:
        schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
        operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
        yield {operation.label: operation for operation in operations}


OPERATIONS = (
    "POST /search",
    "GET /facets",
    "GET /picture",
    "GET /sound",
    "GET /value",
    "GET /map",
    "POST /map",
    "GET /sketch",
    "POST /embed",
    "POST /v1/embeddings",
    "GET /v1/models",
    "GET /v1/models/{model}",
    "POST /explain",
    "POST /items",
    "DELETE /items",
    "GET /health",
    "GET /about",
    "GET /metrics",
)


def test_every_operation_is_tried(described: dict[str, APIOperation]) -> None:
    assert set(OPERATIONS) == set(described)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_no_request_is_answered_by_5xx(
    described: dict[str, APIOperation], operation: str, mode: GenerationMode
) -> None:
    made: list[int] = []

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )
    @given(case=described[operation].as_strategy(generation_mode=mode))
    def send(case: schemathesis.Case) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the client, about what it is made to send
            answer = case.call(headers={"Authorization": f"Bearer {TOKEN}"})
        made.append(answer.status_code)
        assert answer.status_code < 500, answer.text

    try:
        send()
    except Unsatisfiable:  # nothing is wrong for an operation without parameters
        assert mode is GenerationMode.NEGATIVE
        return
    assert made
