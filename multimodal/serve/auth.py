"""The token without which nothing is changed."""

from __future__ import annotations

import hmac
import os
from pathlib import Path

from fastapi import Request

from multimodal.core.errors import MultimodalError, UsageError
from multimodal.serve.errors import RequestError

VARIABLE = "MULTIMODAL_TOKEN"
SHORTEST = 16  # characters
MAX_FILE_BYTES = 4096


def configured_token(file: str | Path | None) -> str | None:
    """Return the token of a server: that of a file, or of the environment variable ``MULTIMODAL_TOKEN``.

    Args:
        file: the file; None: the variable.

    Returns:
        The token. None: neither is given, so that nothing can be changed.

    Raises:
        MultimodalError: the file cannot be read.
        UsageError: the token has fewer than 16 characters, or others than visible ASCII.
    """
    if file is None:
        if not (token := os.environ.get(VARIABLE, "")):
            return None
        source = VARIABLE
    else:
        source = str(file)
        try:
            with open(file, "rb") as opened:
                token = opened.read(MAX_FILE_BYTES).decode("ascii").strip()
        except (OSError, ValueError) as error:
            raise MultimodalError(f"The token cannot be read from {file} ({error}).") from error
    if len(token) < SHORTEST or not all("!" <= character <= "~" for character in token):
        raise UsageError(f"The token of {source} has to be {SHORTEST} or more visible ASCII characters.")
    return token


def check_token(request: Request, token: str | None) -> None:
    """Check that a request may change the index; tokens are compared in constant time.

    Args:
        request: the request, with the header ``Authorization: Bearer TOKEN``.
        token: the token of the server; None: it has none.

    Raises:
        RequestError: the server has no token (403), or the request has none or another one (401).
    """
    if token is None:
        raise RequestError(403, f"Nothing can be changed here: start the server with --token_file, or with {VARIABLE}.")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise RequestError(401, "Changes need the header Authorization: Bearer TOKEN.", {"WWW-Authenticate": "Bearer"})
