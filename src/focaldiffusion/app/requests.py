"""Bodies of requests, read no further than their limit."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from focaldiffusion.app.errors import AppError

MOST_BYTES = 2**20
"""Limit of a JSON body, where a route sets no other limit."""


async def json_body(request: Request, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        AppError: longer than the limit, not JSON, or not an object.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most_bytes:
            raise AppError(413, f"the request is longer than {most_bytes} bytes.")
    try:
        content = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise AppError(400, f"the request is not JSON ({error}).") from None
    if not isinstance(content, dict):
        raise AppError(400, f"the request holds a {type(content).__name__}; expected an object.")
    return content


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
