"""Errors of requests, and the form in which they are answered: that of OpenAI's API, for all routes."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from multimodal.core.errors import MultimodalError, Unreadable, UsageError
from multimodal.search.engines.engine import IndexReplaced


class RequestError(MultimodalError):
    """A request that is not answered as wanted.

    Args:
        status: the HTTP status, from 400.
        message: what is wrong and what would be right.
        headers: headers of the answer.
        code: OpenAI's name of the error, where it has one.

    Examples:
        >>> RequestError(429, "Too many requests are waiting.", {"Retry-After": "1"}).status
        429
    """

    def __init__(
        self, status: int, message: object, headers: Mapping[str, str] | None = None, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.headers, self.code = status, headers, code


def error_body(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """Return the body of an answer that reports an error.

    Args:
        status: the HTTP status.
        message: what is wrong.
        code: OpenAI's name of the error, where it has one.

    Examples:
        >>> error_body(413, "The request is larger than 1 MiB.")["error"]["type"]
        'request_entity_too_large'
    """
    kind = HTTPStatus(status).name.lower()
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def error_answer(error: MultimodalError) -> JSONResponse:
    """Return the answer to a request that ended with an error.

    A value that cannot be read is answered by 422, a change of an index that is being switched to another model by 503, what
    the system or the index's engine reports by 500, another error by 400.
    """
    if isinstance(error, IndexReplaced):
        error = RequestError(503, "The index was upgraded this moment; send the change again.", {"Retry-After": "2"})
    if isinstance(error, RequestError):
        return JSONResponse(error_body(error.status, str(error), error.code), error.status, error.headers)
    cause = error.__cause__
    if isinstance(error, Unreadable) or isinstance(cause, Unreadable):
        status = 422
    elif isinstance(error, UsageError) or cause is None or isinstance(cause, MultimodalError):
        status = 400
    else:
        status = 500
    return JSONResponse(error_body(status, str(error)), status)


def answer_errors(app: FastAPI) -> None:
    """Let an application answer its errors, and those of the framework, in one form."""

    @app.exception_handler(MultimodalError)
    async def _of_ours(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, MultimodalError)
        return error_answer(error)

    @app.exception_handler(HTTPException)
    async def _of_framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}."
        return JSONResponse(error_body(error.status_code, message), error.status_code, error.headers)

    @app.exception_handler(RequestValidationError)
    async def _of_parameters(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        faults = (f"{fault['loc'][-1]}: {fault['msg']}" for fault in list(error.errors())[:5])
        return JSONResponse(error_body(422, f"{request.method} {request.url.path}: {'; '.join(faults)}."), 422)

    @app.exception_handler(Exception)
    async def _defect(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse(error_body(500, "The server failed; its log says more."), 500)
