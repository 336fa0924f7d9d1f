"""A visitor of the app for tests, and the app on a work folder of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from focaldiffusion.app.limits import Limits
from focaldiffusion.app.roots import Roots
from focaldiffusion.app.server import build

TOKEN, PORT = "a-secret", 4711
HERE = f"http://127.0.0.1:{PORT}"
PATIENCE_S = 600.0
"""For a process that imports torch on a busy machine."""


def visitor(
    work: Path, *roots: Path, limits: Limits | None = None, token: str | None = TOKEN
) -> TestClient:
    """A client of an app that does not run its queue unless it is entered; logged in by default."""
    app = build(work, Roots(list(roots)), token=TOKEN, port=PORT, limits=limits)
    client = TestClient(app, base_url=HERE)
    if token is not None:
        client.get(f"/?token={token}")
    return client


def sentence(answer: Any, status: int) -> str:
    """The sentence of a refusal."""
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    return str(answer.json()["error"])


def uploaded(client: Any, files: Iterable[tuple[str, bytes]]) -> Any:
    """The answer to an upload of files, given as names and contents."""
    return client.post("/api/drafts", files=[("files", one) for one in files])


def frames_of(stack: Path) -> list[tuple[str, bytes]]:
    """Names and contents of the files of a stack."""
    return [(path.name, path.read_bytes()) for path in sorted(stack.iterdir())]


def eventually(look: Callable[[], Any], what: str) -> Any:
    """The first true value of a function that is called again and again."""
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        if value := look():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {PATIENCE_S:.0f} s for {what}")
