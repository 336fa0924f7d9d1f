"""Shards of a folder of samples, which processes that need not talk write at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from focaldiffusion.engines.engine import MakeEngine
from focaldiffusion.errors import InputError
from focaldiffusion.io.owners import owner_is_gone
from focaldiffusion.io.staging import claimed
from focaldiffusion.progress import Meter
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


class Writer(Protocol):
    """Writes the file of a position and answers with its error, as workers of data do."""

    def __getitem__(self, position: int) -> InputError | None: ...


def write_on(engine: MakeEngine, writer: Writer, positions: Sequence[int], meter: Meter) -> None:
    """Write the files of some positions by the workers of an engine.

    Args:
        engine: makes the engine.
        writer: travels to its workers.
        positions: to write.
        meter: advances with each.

    Raises:
        InputError: a bad sample; or a position whose workers were killed twice.
    """
    with engine(_Workshop(writer)) as running:
        for error in running.run(positions):
            if error is not None:
                raise error
            meter.advance()


@dataclass(frozen=True)
class _Workshop:
    """See `engines.Workshop`."""

    writer: Writer

    def open(self) -> _Workshop:
        return self

    def run(self, position: int) -> InputError | None:
        return self.writer[position]

    def need_bytes(self, position: int) -> int:
        return 0

    def lost(self, position: int, how: str) -> InputError:
        return InputError(
            f"position {position}: its worker {how}; perhaps the system ran out of memory. The "
            "same command continues; give it fewer --workers."
        )
