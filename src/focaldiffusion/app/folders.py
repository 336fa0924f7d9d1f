"""Folders of the app on disk: one a draft or a job, named by a random id, with JSON inside."""

from __future__ import annotations

import json
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from focaldiffusion.app.errors import AppError
from focaldiffusion.io.staging import write_whole

_ID = re.compile(r"[0-9a-f]{12}")


def new_folder(home: Path) -> Path:
    """Make an empty folder with a new id for its name."""
    folder = home / secrets.token_hex(6)
    folder.mkdir(parents=True)
    return folder


def known_folder(home: Path, name: str, kind: str) -> Path:
    """The folder with an id.

    Raises:
        AppError: there is none.
    """
    folder = home / name
    if not _ID.fullmatch(name) or not folder.is_dir():
        raise AppError(404, f"there is no {kind} {name!r}; it may have been deleted.")
    return folder


def remove_folder(folder: Path) -> None:
    """Remove a folder that a process may still write to: it is moved out of its reach first."""
    with suppress(OSError):
        folder = folder.rename(folder.with_name(f".{folder.name}"))
    shutil.rmtree(folder, ignore_errors=True)


def folders_in(home: Path) -> list[Path]:
    """All folders that have an id for their name."""
    if not home.is_dir():
        return []
    return [path for path in home.iterdir() if _ID.fullmatch(path.name) and path.is_dir()]


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object that `write_object` wrote; empty if the file is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_object(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all.

    Raises:
        OSError: the file system refuses.
    """
    write_whole(path, json.dumps(content, indent=1, allow_nan=False).encode())
