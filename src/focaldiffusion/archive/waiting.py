"""Rows that wait for a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from focaldiffusion.archive.work import Task


@dataclass(frozen=True)
class Job:
    """A row with the memory it needs.

    Attributes:
        task: the row.
        need_bytes: estimate of its memory.
        attempt: 2 if its first worker was killed.
    """

    task: Task
    need_bytes: int = 0
    attempt: int = 1


class Waiting:
    """Rows that wait, those in the second attempt last."""

    def __init__(
        self, tasks: Sequence[Task], need_bytes: Callable[[Task], int] = lambda task: 0
    ) -> None:
        self._tasks, self._need = deque(tasks), need_bytes
        self._again: deque[Job] = deque()
        self._next: Job | None = None

    def __len__(self) -> int:
        return (self._next is not None) + len(self._tasks) + len(self._again)

    @property
    def next(self) -> Job:
        """The row that `take` gives; its memory is estimated when its turn comes."""
        if self._next is None:
            task = self._tasks.popleft() if self._tasks else None
            self._next = self._again.popleft() if task is None else Job(task, self._need(task))
        return self._next

    def take(self) -> Job:
        """Remove and return the next row."""
        job, self._next = self.next, None
        return job

    def again(self, job: Job) -> None:
        """Put a row back whose worker was killed."""
        self._again.append(replace(job, attempt=job.attempt + 1))
