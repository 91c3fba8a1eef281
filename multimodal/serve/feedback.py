"""``/feedback``: judgements of hits by people, appended to a file of the operator's."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from multimodal.core.errors import MultimodalError
from multimodal.monitor.feedback import MAX_POSITION, MAX_SHOWN, MAX_TEXT
from multimodal.monitor.rerank import FeedbackRanking
from multimodal.search.index import Index
from multimodal.serve.auth import check_token
from multimodal.serve.body import check_settings, read_json
from multimodal.serve.errors import RequestError
from multimodal.serve.request_schemas import json_schema
from multimodal.serve.service import Service

MAX_FILE_BYTES = 2**30  # a server does not fill its disk with judgements
SALT_BYTES = 16

Text = Annotated[str, StringConstraints(max_length=MAX_TEXT)]


class SentJudgement(BaseModel):
    """A judgement of a row for a query, with files by their names.

    ``verdict``: "up" or "down" about a hit; "clicked": it was used; "missing": the row should have been found; "unused": hits
    were shown, and none was used (without a key). ``position`` counts from 1; ``shown`` are the keys of the hits, in their
    order; ``query_id`` is any text, equal for the judgements of one search. ``user`` needs the token, and is stored as a hash.

    Examples:
        >>> SentJudgement(verdict="up", key="cup-1", modality="image", position=1, query={"text": "a red cup"}).verdict
        'up'
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    verdict: Literal["up", "down", "clicked", "missing", "unused"]
    key: Text = ""
    modality: Text = ""
    score: float | None = None
    query: dict[Text, Text] = {}
    target: Text | None = None
    link: Annotated[str, StringConstraints(max_length=50_000)] = ""
    position: Annotated[int, Field(ge=1, le=MAX_POSITION)] | None = None
    query_id: Annotated[str, StringConstraints(max_length=100)] = ""
    user: Text = ""
    shown: Annotated[list[Text], Field(max_length=MAX_SHOWN)] = []

    @model_validator(mode="after")
    def _names_a_row(self) -> SentJudgement:
        if not self.key and self.verdict != "unused":
            raise ValueError(f"{self.verdict!r} is about a row: give its key")
        return self


def feedback_routes(service: Service, file: Path, token: str | None = None) -> APIRouter:
    """Return the route that stores judgements.

    Args:
        service: the index, whose model's fingerprint is stored too.
        file: the file, to which lines are appended. Next to it is the salt of the users' hashes.
        token: the token that a request with a user must have.

    Raises:
        MultimodalError: the file cannot be written.
    """
    router, writing = APIRouter(), threading.Lock()
    hash_user = prepare_feedback(file, token is not None)

    def append(entry: dict[str, Any]) -> None:
        if entry["verdict"] == "missing" and not len(service.index.engine.select(keys=[entry["key"]])[1]):
            raise RequestError(404, f"The index has no row with the key {entry['key']!r}.")
        with writing, open(file, "ab", buffering=0) as opened:  # each line by one call: other workers append too
            if opened.tell() > MAX_FILE_BYTES:
                raise RequestError(507, "The file of judgements is full.")
            opened.write((json.dumps(entry, ensure_ascii=False) + "\n").encode())

    @router.post("/feedback", status_code=204, openapi_extra=json_schema(SentJudgement))
    async def feedback(request: Request) -> None:
        """Store whether a hit is good, was used, or is missing."""
        given = check_settings(SentJudgement, await read_json(request)).model_dump()
        if user := given.pop("user"):  # of an application in front, which knows its users; others could be anyone
            check_token(request, token)
            assert hash_user is not None
            given["user"] = hash_user(user)
        entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "fingerprint": service.index.fingerprint}
        await service.in_thread(lambda: append(entry | given), service.readers)

    return router


def prepare_feedback(file: Path, users: bool) -> Callable[[str], str] | None:
    """Make the file of judgements if it is missing; return what makes hashes of users.

    Args:
        file: the file.
        users: whether judgements may name users. If not, there is no hash.

    Raises:
        MultimodalError: the file cannot be written.

    Examples:
        >>> prepare_feedback(Path("judgements.jsonl"), users=False) is None, Path("judgements.jsonl").exists()
        (True, True)
    """
    try:
        with open(file, "a", encoding="utf-8"):
            pass
        return user_hash(file.with_name(f"{file.name}.salt")) if users else None
    except OSError as error:
        raise MultimodalError(f"Feedback cannot be written to {file} ({error.strerror}).") from error


def learn_from_feedback(index: Index, file: Path) -> None:
    """Let judgements change the ranking of an index, also those that come later, within a second or two.

    Args:
        index: the index, which knows its model.
        file: the judgements; it is made if it is missing.

    Raises:
        MultimodalError: the file cannot be read.
    """
    file.touch()
    index.learned = learned = FeedbackRanking(index, file)
    learned.watch()


def user_hash(salt_file: Path) -> Callable[[str], str]:
    """Return what turns names of users into hashes, by a secret salt: whoever has the judgements alone cannot try names.

    Args:
        salt_file: the file of the salt, which is made if it is missing; only its owner may read it.

    Raises:
        OSError: it cannot be read or made.

    Examples:
        >>> one, other = user_hash(Path("a.salt")), user_hash(Path("b.salt"))
        >>> one("ann") == user_hash(Path("a.salt"))("ann"), one("ann") == other("ann"), len(one("ann"))
        (True, False, 16)
    """
    try:
        descriptor = os.open(salt_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        pass
    else:
        with open(descriptor, "w", encoding="ascii") as opened:
            opened.write(secrets.token_hex(SALT_BYTES))
    salt = salt_file.read_bytes()[: 2 * SALT_BYTES]
    return lambda user: hashlib.blake2b(user.encode(), key=salt, digest_size=8).hexdigest()
