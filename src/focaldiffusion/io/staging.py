"""Files that appear together, complete, or not at all; and the digests that identify them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from focaldiffusion.errors import InputError
from focaldiffusion.io.owners import PARTIAL, owner_is_gone, partial_name


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
        reason = error.strerror or error
        if error.errno in (errno.ENOENT, errno.ESTALE):
            reason = f"{reason}; perhaps the folder was removed or renamed meanwhile"
        raise InputError(
            f"{directory}: cannot write results ({reason}). Choose a folder that you may write to."
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
def staging(directory: Path, names: Sequence[str], *, replace: bool = True) -> Iterator[Path]:
    """A hidden folder to write files into; they reach `directory` only if the block completes.

    It lies inside `directory` if that exists, else beside it. After any exception, Ctrl-C included,
    everything is as it was before. In a folder that exists, earlier files of these names are
    replaced, or removed where the new set has none, and others are kept. What a killed process left
    in this place is undone first, see `recover`.

    Args:
        directory: the folder to make or fill.
        names: the files that may be written, at most; the last one is removed first and written
            last, so that it marks a complete set even after a power failure.
        replace: whether files that another process put there meanwhile may be replaced.

    Raises:
        InputError: another process has put files there meanwhile, and `replace` is False.
        OSError: the file system refuses.
    """
    directory = directory.absolute()
    recover(directory)
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    # Inside a folder that exists, because that may be a mount point: renaming needs one disk.
    home = directory.parent if missing else directory
    partial = home / partial_name(directory.name)
    shutil.rmtree(partial, ignore_errors=True)
    complete = False
    try:
        partial.mkdir(parents=True)
        yield partial
        if not (missing and _appeared(partial, directory)):
            with alone_in(directory):
                if not replace:
                    _check_free(directory, names)
                _replace(directory, partial, names)
        complete = True
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if not complete:
            for path in missing:
                with suppress(OSError):
                    path.rmdir()


def recover(directory: Path) -> None:
    """Undo what processes that were killed while they filled a folder left behind.

    Their partial folders go; earlier results that they had set aside come back. Those of living
    processes, or of other machines that share the disk, stay.

    Args:
        directory: an argument of `staging`; need not exist.
    """
    directory = directory.absolute()
    start = partial_name(directory.name).rpartition(PARTIAL)[0] + PARTIAL
    for home in (directory, directory.parent):
        try:
            found = [path for path in home.iterdir() if path.name.startswith(start)]
        except OSError:  # absent, or not ours: then the writing itself will say so
            continue
        for partial in found:
            if not owner_is_gone(partial.name.removeprefix(start)):
                continue
            with suppress(OSError, ValueError), alone_in(directory):
                _restore(directory, partial)
                shutil.rmtree(partial, ignore_errors=True)


_NAMES, _EARLIER, _ALL_EARLIER = ".names", ".earlier", ".all-earlier"
"""In a partial folder while it replaces files: their names, the files that are set aside, and a
mark that all of them are."""


def _appeared(partial: Path, directory: Path) -> bool:
    """Make the partial folder the folder; False if another process has made it meanwhile."""
    try:
        partial.rename(directory)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _check_free(directory: Path, names: Sequence[str]) -> None:
    taken = [name for name in names if os.path.lexists(directory / name)]
    if taken:
        raise InputError(
            f"{directory}: another process has put {taken[0]} there since this one began, so the "
            "results of this one were not written. Let one process write to a folder."
        )


def _replace(directory: Path, partial: Path, names: Sequence[str]) -> None:
    """Replace the earlier files by the new ones; restore them if that fails half way."""
    (partial / _NAMES).write_text(json.dumps(names), encoding="utf-8")
    earlier = partial / _EARLIER
    earlier.mkdir()
    try:
        for name in reversed(names):
            if (directory / name).exists():
                (directory / name).rename(earlier / name)
        (partial / _ALL_EARLIER).mkdir()
        for name in names:
            if (partial / name).exists():
                (partial / name).rename(directory / name)
    except BaseException:
        _restore(directory, partial)
        raise


def _restore(directory: Path, partial: Path) -> None:
    """Undo a `_replace` that ended anywhere: the new files go, what was set aside comes back."""
    if not (partial / _EARLIER).is_dir():
        return
    names: list[str] = json.loads((partial / _NAMES).read_text(encoding="utf-8"))
    if (partial / _ALL_EARLIER).exists():
        for name in names:
            if (directory / name).exists():  # a new one, since all earlier ones are set aside
                (directory / name).rename(partial / name)
        (partial / _ALL_EARLIER).rmdir()
    # In the order of the names, since the last one marks a complete set.
    for name in names:
        if (partial / _EARLIER / name).exists():
            (partial / _EARLIER / name).rename(directory / name)


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Wait until no other process has this lock of a folder, on systems that can tell.

    A process must not take it twice: it would wait for itself.
    """
    try:
        import fcntl

        descriptor = os.open(directory, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):  # a network file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def claimed(directory: Path) -> Iterator[None]:
    """Keep other processes from a folder that a long run adds files to, on systems that can tell.

    The claim ends with the block, and with the process however that ends.

    Raises:
        InputError: another process has the folder.
        OSError: the folder cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    _claims.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            _claims.remove(descriptor)
            os.close(descriptor)
            raise InputError(
                f"{directory}: another process is writing here, so this one has not begun. Wait "
                "for its end, or choose another folder."
            ) from None
        # Else a network file system without locks.
    try:
        yield
    finally:
        _claims.discard(descriptor)
        os.close(descriptor)


_claims: set[int] = set()
"""Descriptors of claimed folders."""


def _drop_claims() -> None:
    """Leave the claims to the parent: a forked process may outlive it."""
    for descriptor in _claims:
        os.close(descriptor)
    _claims.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drop_claims)


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
