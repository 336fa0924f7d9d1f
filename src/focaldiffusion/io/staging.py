"""Files that appear together, complete, or not at all; and the digests that identify them."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from focaldiffusion.errors import InputError


@contextmanager
def file_errors_named(directory: Path) -> Iterator[None]:
    """Turn file system errors inside the block into one sentence for the user.

    Raises:
        InputError: for any OSError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise InputError(
                f"{directory}: the disk is full; nothing was written. "
                "Free some space, or choose an output on another disk."
            ) from error
        raise InputError(
            f"{directory}: cannot write results ({error.strerror or error}). "
            "Choose a folder that you may write to."
        ) from error


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all, also if several processes write it.

    Raises:
        OSError: the file system refuses.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def staging(directory: Path, names: Sequence[str]) -> Iterator[Path]:
    """A hidden folder to write files into; they reach `directory` only if the block completes.

    It lies inside `directory` if that exists, else beside it. After any exception, Ctrl-C included,
    everything is as it was before. In a folder that exists, earlier files of these names are
    replaced, or removed where the new set has none, and others are kept.

    Args:
        directory: the folder to make or fill.
        names: the files that may be written, at most; the last one is removed first and written
            last, so that it marks a complete set even after a power failure.

    Raises:
        OSError: the file system refuses.
    """
    directory = directory.absolute()
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    # Inside a folder that exists, because that may be a mount point: renaming needs one disk.
    home = directory.parent if missing else directory
    partial = home / f".{directory.name}.partial-{os.getpid()}"
    # Process ids repeat in containers, so an earlier, killed run may have left this folder.
    shutil.rmtree(partial, ignore_errors=True)
    complete = False
    try:
        partial.mkdir(parents=True)
        yield partial
        if missing:
            partial.rename(directory)
        else:
            _replace(directory, partial, names)
        complete = True
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if not complete:
            for path in missing:
                with suppress(OSError):
                    path.rmdir()


def _replace(directory: Path, partial: Path, names: Sequence[str]) -> None:
    """Replace the earlier files by the new ones; restore them if that fails half way."""
    earlier = partial / ".earlier"
    earlier.mkdir()
    begun: list[str] = []
    try:
        for name in reversed(names):
            if (directory / name).exists():
                (directory / name).rename(earlier / name)
        for name in names:
            if (partial / name).exists():
                begun.append(name)
                (partial / name).rename(directory / name)
    except BaseException:
        for name in begun:
            if not (partial / name).exists():
                (directory / name).rename(partial / name)
        for path in earlier.iterdir():
            path.rename(directory / path.name)
        raise


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
