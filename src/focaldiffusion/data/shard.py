"""Shards: shares of a long job for several processes or machines, which need not talk."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from focaldiffusion.errors import InputError
from focaldiffusion.io.owners import owner_is_gone
from focaldiffusion.io.staging import claimed

_CLAIMS = "shards"


@dataclass(frozen=True)
class Shard:
    """Every `count`-th position, from `index` on.

    Attributes:
        index: from 0 to `count` - 1.
        count: shards of the job.
    """

    index: int = 0
    count: int = 1

    @classmethod
    def parsed(cls, text: str) -> Shard:
        """The shard of a text such as 0/3, the first of three.

        Raises:
            InputError: any other text.
        """
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text, re.ASCII)
        if found is None or not int(found[1]) < int(found[2]):
            raise InputError(
                f"shard {text!r}: expected I/N with I from 0 to N - 1, such as 0/3, 1/3 and 2/3."
            )
        return cls(int(found[1]), int(found[2]))

    def positions(self, count: int) -> range:
        """Those of `count` positions that belong to this shard."""
        return range(self.index, count, self.count)

    @contextmanager
    def claimed_in(self, directory: Path) -> Iterator[None]:
        """Keep other processes from this shard of a folder's files.

        The whole job claims the folder. A shard claims a folder of its own inside, so that the
        others can write at the same time.

        Raises:
            InputError: another process has it.
            OSError: the folder cannot be written to.
        """
        if self.count == 1:
            with claimed(directory):
                yield
            return
        own = directory / _CLAIMS / f"{self.index}-of-{self.count}"
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
