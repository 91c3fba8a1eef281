"""``/items``: rows are added to the index, replaced and removed, by anyone who has the token."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from multimodal.core.errors import shown
from multimodal.core.rejects import Rejects
from multimodal.search.index import QUERIES_ARE_MAPPED, Index
from multimodal.serve.auth import check_token
from multimodal.serve.body import check_settings, read_json
from multimodal.serve.errors import RequestError
from multimodal.serve.request_schemas import json_schema
from multimodal.serve.rows import Rows
from multimodal.serve.service import Service

KEY, GROUP = "key", "group"  # the columns of keys and groups, where the indexed table names none
MAX_KEYS = 1000  # removed by a request
MAX_KEY = 1000  # characters

Cell = str | int | float | bool | None


class ItemsSettings(BaseModel):
    """Rows to add, each ``{"key": ..., modality: value, ..., "group": ..., "metadata": {column: value}}``.

    Examples:
        >>> len(ItemsSettings(items=[{"key": "cup-1", "text": "a red cup"}]).items)
        1
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    items: list[dict[str, Any]] = Field(min_length=1)


class ItemSettings(BaseModel):
    """A row, next to its values.

    Examples:
        >>> ItemSettings(key="cup-1", metadata={"category": "cups"}).metadata
        {'category': 'cups'}
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    key: str = Field(min_length=1, max_length=MAX_KEY)
    group: str | None = Field(None, min_length=1, max_length=MAX_KEY)
    metadata: dict[str, Cell] = {}


def item_routes(service: Service, rows: Rows, token: str | None) -> APIRouter:
    """Return the routes that change the index.

    Args:
        service: the index and the model.
        rows: the rows of the indexed table, which are not those of the index once they are replaced.
        token: the token that a request must have; None: nothing can be changed.
    """
    router = APIRouter(dependencies=[Depends(HTTPBearer(auto_error=False, scheme_name="token"))])  # describes it
    refused: dict[int | str, dict[str, Any]] = {
        401: {"description": "The token is missing or wrong."},
        403: {"description": "No token is configured."},
    }

    @router.post("/items", openapi_extra=json_schema(ItemsSettings), responses=refused)
    async def add(request: Request) -> Response:
        """Add rows, or replace those of the same keys; they are on disk when the answer comes."""
        check_token(request, token)
        if service.index.mapped:
            raise RequestError(503, QUERIES_ARE_MAPPED, {"Retry-After": "60"})
        settings = check_settings(ItemsSettings, await read_json(request))
        if len(settings.items) > service.limits.max_values:
            raise RequestError(400, f"items: at most {service.limits.max_values:,} in a request.")
        names = _names(service)
        items = [_row(service, number, item, names) for number, item in enumerate(settings.items)]
        keys = [item[names.key] for item in items]
        if len(set(keys)) < len(keys):
            twice = next(key for number, key in enumerate(keys) if key in keys[:number])
            raise RequestError(400, f"items: {shown(twice)!r} is the key of several items; a request adds each once.")
        rejects = await service.in_thread(partial(_upsert, service.index, rows, items, names), service.writer)
        return JSONResponse({"added": len(items) - len(rejects), "rejected": len(rejects), "reasons": rejects.reasons})

    @router.delete("/items", responses=refused)
    async def remove(
        request: Request, key: Annotated[list[str], Query(min_length=1, max_length=MAX_KEYS)]
    ) -> dict[str, int]:
        """Remove the rows of some keys; they are gone from the disk when the answer comes."""
        check_token(request, token)
        return {"removed": await service.in_thread(partial(service.index.remove, key), service.writer)}

    return router


class _Names(NamedTuple):
    """The columns of the rows that are added: those of the indexed table, so that all rows have the same."""

    key: str
    group: str
    columns: dict[str, str]  # modality -> its column


def _names(service: Service) -> _Names:
    data = service.index.data or {}
    columns: dict[str, str] = {}
    for modality in service.embedder.modalities:
        column = data.get("columns", {}).get(modality, modality)
        column = column if isinstance(column, str) else column[0]  # of alternatives, the first
        columns[modality] = modality if column in columns.values() else column
    key, group = data.get("key") or KEY, data.get("group") or GROUP
    taken = {*columns.values()}
    key = KEY if key in taken else key
    return _Names(key, GROUP if group in {*taken, key} else group, columns)


def _row(service: Service, number: int, item: dict[str, Any], names: _Names) -> dict[str, Any]:
    """Return a row of the request as a row of a table."""
    columns = names.columns
    values = {column: service.value(m, item[m]) for m, column in columns.items() if item.get(m) is not None}
    if not values:
        raise RequestError(400, f"items: number {number} has no value of a modality ({', '.join(columns)}).")
    given = {name: value for name, value in item.items() if name not in columns}
    checked = check_settings(ItemSettings, given, [*columns])
    if taken := [name for name in checked.metadata if name == names.key or name in columns.values()]:
        raise RequestError(
            400, f"items: metadata cannot be named {shown(taken[0])!r}, the column of the key or of a modality."
        )
    group = checked.metadata.get(names.group) if checked.group is None else checked.group
    return {names.key: checked.key, **values, **checked.metadata, names.group: None if group is None else str(group)}


def _upsert(index: Index, rows: Rows, items: list[dict[str, Any]], names: _Names) -> Rejects:
    """Add rows; one that replaces another and names no group remains in the group of that one."""
    stored = index.engine.select(keys=[item[names.key] for item in items])[1]
    groups = dict(zip(stored["key"].to_pylist(), stored["group"].to_pylist(), strict=True))
    for item in items:
        known = groups.get(item[names.key], "#")
        item[names.group] = item[names.group] or (known[1:] if known.startswith("=") else None)
    if not (grouped := any(item[names.group] is not None for item in items)):
        items = [{name: value for name, value in item.items() if name != names.group} for item in items]
    columns = {m: column for m, column in names.columns.items() if any(column in item for item in items)}
    settings = {"columns": columns, "key": names.key, "group": names.group if grouped else None, "max_rejects": 1.0}
    rows.changed |= {item[names.key] for item in items}  # those that cannot be read too: it is not known which
    return index.upsert(items, **settings)
