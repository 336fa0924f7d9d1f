"""The interface of engines: something that runs the rows of a batch, on one machine or many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from focaldiffusion.archive.report import Line
from focaldiffusion.archive.work import Task


class Engine(AbstractContextManager["Engine"], Protocol):
    """Runs rows; its workers start with the block and end with it.

    A row whose worker the system killed, or whose machine died, is tried again, and fails if that
    happens once more. Rows carry paths, never pixels.
    """

    def run(self, tasks: Sequence[Task]) -> Iterator[Line]:
        """The outcome of each row as soon as it ends, in any order.

        Raises:
            InputError: no worker can start.
        """


def lost(task: Task, how: str) -> Line:
    """The outcome of a row whose workers ended before it did.

    Args:
        task: the row.
        how: how they ended; the rest of a sentence that begins "its worker".
    """
    return Line(
        task.entry.key,
        "failed",
        f"{task.entry.key}: its worker {how}; perhaps the system ran out of memory. Lower "
        "--working-size, give fewer frames, or use a machine with more memory, and add --retry "
        "failed.",
        digest=task.digest,
    )
