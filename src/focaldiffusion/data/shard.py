"""Shards of a folder of samples, which processes that need not talk write at the same time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from focaldiffusion.io.owners import owner_is_gone
from focaldiffusion.io.staging import claimed
from focaldiffusion.shards import Shard

_CLAIMS = "shards"


@contextmanager
def claimed_by(shard: Shard, directory: Path) -> Iterator[None]:
    """Keep other processes from a shard of a folder's files.

    The whole job claims the folder. A shard claims a folder of its own inside, so that the others
    can write at the same time.

    Raises:
        InputError: another process has it.
        OSError: the folder cannot be written to.
    """
    if shard.is_whole:
        with claimed(directory):
            yield
        return
    own = directory / _CLAIMS / f"{shard.number - 1}-of-{shard.count}"  # as `data cache` counts
    own.mkdir(parents=True, exist_ok=True)
    with claimed(own):
        yield
    for folder in (own, own.parent):
        with suppress(OSError):  # other shards are still at work
            folder.rmdir()


def sweep(directory: Path) -> None:
    """Remove half files that killed processes of this machine left in a folder.

    Args:
        directory: of files of `write_whole`.

    Raises:
        OSError: the file system refuses.
    """
    for path in directory.glob(".*"):
        if owner_is_gone(path.suffix.removeprefix(".")):
            path.unlink(missing_ok=True)
