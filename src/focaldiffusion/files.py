"""Checks of paths that others gave: regular files, which end and never wait for a writer."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from focaldiffusion.errors import InputError

ABSENT = "no such file or folder"
"""Reason why a path that does not exist cannot be read."""

_KINDS = {
    stat.S_IFDIR: "folder",
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to one."""
    status = _status(path)
    return not isinstance(status, str) and stat.S_ISDIR(status.st_mode)


def why_not_file(path: Path) -> str | None:
    """Why a path is not a regular file or a link to one; None if it is.

    Returns:
        The end of a sentence about the path, without full stop; `ABSENT` if nothing is there.
    """
    status = _status(path)
    if isinstance(status, str):
        return status
    if stat.S_ISREG(status.st_mode):
        return None
    return f"is a {_KINDS.get(stat.S_IFMT(status.st_mode), 'special file')}"


def check_file(path: Path) -> None:
    """Refuse what is not a regular file: a pipe may wait for ever, a device may never end.

    Raises:
        InputError: it is absent, or something else; one sentence.
    """
    if why := why_not_file(path):
        expected = "" if why == ABSENT else "; expected a regular file"
        raise InputError(f"{path}: {why}{expected}.")


def read_small(path: Path, most_bytes: int) -> bytes:
    """The content of a regular file that people or programs keep short.

    Raises:
        InputError: see `check_file`; or it is longer than `most_bytes`.
        OSError: it cannot be read.
    """
    check_file(path)
    with path.open("rb") as file:
        # Not its size: files of /proc say 0 and may have no end.
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise InputError(f"{path}: more than {most_bytes} bytes; expected a short text.")
    return content


def _status(path: Path) -> os.stat_result | str:
    """The status behind a path, links followed; or why there is none."""
    try:
        return path.stat()
    except FileNotFoundError:
        return f"is a link to {path.readlink()}, which is absent" if path.is_symlink() else ABSENT
    # A folder that may not be searched, a loop of links, a name that is too long.
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    except ValueError:  # NUL, or a lone surrogate
        return "has a name that no file can have"
