"""The body of a request, as JSON or as a form with files, read into one mapping."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from multimodal.core.errors import UsageError, shown, suggest_near
from multimodal.serve.errors import RequestError

JSON_TYPE, FORM_TYPE = "application/json", "multipart/form-data"
MAX_FIELDS = 1000  # of a form
MAX_DEPTH = 100  # of lists and mappings in each other
MAX_PARTS = 500_000  # separators outside of texts, about the number of JSON's values
LARGE = 2**18  # bytes that are parsed in a thread, so that other requests are answered meanwhile
SEPARATORS = (b",", b"[", b"{")

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class File:
    """An uploaded file.

    Attributes:
        name: its name, which is never opened.
        content: its bytes.
    """

    name: str
    content: bytes


async def read_body(request: Request, texts: Sequence[str] = ()) -> dict[str, Any]:
    """Read a request's body.

    Args:
        request: the request, with a JSON object or a form.
        texts: fields of a form that are texts; others are read as JSON, or else as texts.

    Returns:
        Setting -> value. Of a form, a value is a list if its field is there several times, and a ``File`` if it is uploaded.

    Raises:
        RequestError: it is neither, or it is damaged.
    """
    if _type(request) == FORM_TYPE:
        return await _read_form(request, texts)
    return await read_json(request, f"{JSON_TYPE} or {FORM_TYPE}")


async def read_json(request: Request, wanted: str = JSON_TYPE) -> dict[str, Any]:
    """Read a request's body, a JSON object.

    Args:
        request: the request.
        wanted: the types that the route takes, for the error about another one.

    Raises:
        RequestError: it is something else.
    """
    if (kind := _type(request)) != JSON_TYPE:
        raise RequestError(415, f"Send {wanted}, not {shown(kind)!r}.")
    body = await request.body()
    given = parse_json(body) if len(body) < LARGE else await asyncio.to_thread(parse_json, body)
    if not isinstance(given, dict):
        raise RequestError(400, f"The body is a {type(given).__name__}, not a JSON object.")
    return given


def _type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_json(body: bytes | str) -> Any:
    """Parse JSON without NaN and infinite numbers, of texts that can be encoded.

    Raises:
        RequestError: it is something else, or is nested too deeply.

    Examples:
        >>> parse_json(b'{"text": "a red cup", "k": 3}')
        {'text': 'a red cup', 'k': 3}
    """
    if len(body) > MAX_PARTS:
        _check_parts(body.encode() if isinstance(body, str) else body)
    try:
        given = json.loads(body, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"The body is not JSON that can be read ({error}).") from error
    _check(given, MAX_DEPTH)
    return given


def _check_parts(body: bytes) -> None:
    """Refuse JSON of many values, whose objects would take many times the memory of its text."""
    if sum(map(body.count, SEPARATORS)) <= MAX_PARTS:
        return
    without_escapes = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside = b" ".join(without_escapes.split(b'"')[::2])  # of texts
    if sum(map(outside.count, SEPARATORS)) > MAX_PARTS:
        raise RequestError(413, f"The body has more than {MAX_PARTS:,} values; send files as data: URLs, or in a form.")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


def _finite(text: str) -> float:
    if abs(number := float(text)) == float("inf"):
        raise ValueError(f"{shown(text)} is too large")
    return number


def _check(given: Any, depth: int) -> None:
    """Refuse what could not be processed or sent back: deep nesting, and halves of surrogate pairs."""
    if isinstance(given, str):
        try:
            given.encode()
        except UnicodeEncodeError as error:
            raise RequestError(400, "A text has half of a surrogate pair, which is not a character.") from error
    elif isinstance(given, list | dict):
        if not depth:
            raise RequestError(400, f"The body is nested more than {MAX_DEPTH} times.")
        for entry in given:
            if type(entry) not in (int, float):
                _check(entry, depth - 1)
        for entry in given.values() if isinstance(given, dict) else ():
            _check(entry, depth - 1)


async def _read_form(request: Request, texts: Sequence[str]) -> dict[str, Any]:
    read: dict[str, list[Any]] = {}
    try:
        async with request.form(
            max_files=MAX_FIELDS,
            max_fields=MAX_FIELDS,
            max_part_size=2**62,  # the body is bounded as a whole
        ) as form:
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    read.setdefault(name, []).append(File(value.filename or "", await value.read()))
                else:
                    read.setdefault(name, []).append(value if name in texts else _field(value))
    except HTTPException as error:
        raise RequestError(400, f"The form cannot be read ({error.detail}).") from error
    except (ValueError, AssertionError) as error:  # of the parser of forms, for odd headers
        raise RequestError(400, f"The form cannot be read ({error}).") from error
    return {name: values[0] if len(values) == 1 else values for name, values in read.items()}


def _field(text: str) -> Any:
    try:
        return parse_json(text)
    except RequestError:
        return text


def check_modality_names(kind: type[BaseModel], modalities: Sequence[str]) -> None:
    """Raise a ``UsageError`` if a modality has the name of a setting, next to which its values are given."""
    for modality in modalities:
        if modality in kind.model_fields:
            raise UsageError(f"A modality of a served model cannot be named {modality!r}, as a setting of requests is.")


def check_settings(kind: type[Model], given: Mapping[str, Any], modalities: Sequence[str] = ()) -> Model:
    """Check settings against their types.

    Args:
        kind: the model with the types, which forbids others.
        given: the settings.
        modalities: those whose values may be given next to the settings, for the error about an unknown one.

    Raises:
        RequestError: a setting is unknown or has another type; the message names it, and close matches.
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        known = [*kind.model_fields, *modalities]
        faults = []
        for fault in error.errors(include_url=False, include_context=False)[:5]:
            name = ".".join(map(str, fault["loc"])) or "the body"
            if fault["type"] == "extra_forbidden":
                faults.append(f"there is no setting {shown(name)!r}.{suggest_near(shown(name), known)}")
            else:
                faults.append(f"{shown(name)}: {fault['msg']}, got {shown(fault['input'])!r}.")
        raise RequestError(400, " ".join(faults)) from error
