"""The SHA-256 of files, by which results tell what they were made of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Of the content of a file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            total.update(block)
    return total.hexdigest()


def sha256_of_files(paths: Iterable[Path], folder: Path) -> str:
    """Of the names, relative to a folder, and the contents of files in their order.

    Raises:
        OSError: one of them cannot be read.
    """
    total = hashlib.sha256()
    for path in paths:
        total.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return total.hexdigest()
