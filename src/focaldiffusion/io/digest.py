"""SHA-256 of files, which results record to identify their inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()


def sha256_of_files(paths: Iterable[Path], folder: Path) -> str:
    """SHA-256 of the names, relative to a folder, and the contents of files in order.

    Raises:
        OSError: a file cannot be read.
    """
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return total.hexdigest()
