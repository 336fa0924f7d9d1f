"""Rows that wait for a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
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
    """Rows that wait, second attempts last; only the next one is taken off the iterator."""

    def __init__(
        self, tasks: Iterable[Task], need_bytes: Callable[[Task], int] = lambda task: 0
    ) -> None:
        self._tasks, self._need = iter(tasks), need_bytes
        self._next: Job | None = None
        self._again: deque[Job] = deque()
        self._advance()

    def __bool__(self) -> bool:
        return self._next is not None or bool(self._again)

    @property
    def next(self) -> Job:
        """The row that `take` would give."""
        return self._again[0] if self._next is None else self._next

    def take(self) -> Job:
        """Remove and return the next row."""
        if self._next is None:
            return self._again.popleft()
        job = self._next
        self._advance()
        return job

    def again(self, job: Job) -> None:
        """Put a row back whose worker was killed."""
        self._again.append(replace(job, attempt=job.attempt + 1))

    def _advance(self) -> None:
        task = next(self._tasks, None)
        self._next = None if task is None else Job(task, self._need(task))
