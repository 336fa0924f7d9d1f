"""Tasks that wait for a worker."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic

from focaldiffusion.engines.engine import Task


@dataclass(frozen=True)
class Job(Generic[Task]):
    """A task with the memory it needs.

    Attributes:
        task: the task.
        need_bytes: estimate of its memory.
        attempt: 2 if its first worker was killed.
    """

    task: Task
    need_bytes: int = 0
    attempt: int = 1


class Waiting(Generic[Task]):
    """Tasks that wait, those in the second attempt last."""

    def __init__(
        self, tasks: Sequence[Task], need_bytes: Callable[[Task], int] = lambda task: 0
    ) -> None:
        self._tasks, self._need = deque(tasks), need_bytes
        self._again: deque[Job[Task]] = deque()
        self._next: Job[Task] | None = None

    def __len__(self) -> int:
        return (self._next is not None) + len(self._tasks) + len(self._again)

    @property
    def next(self) -> Job[Task]:
        """The task that `take` gives; its memory is estimated when its turn comes."""
        if self._next is None:
            if self._tasks:
                task = self._tasks.popleft()
                self._next = Job(task, self._need(task))
            else:
                self._next = self._again.popleft()
        return self._next

    def take(self) -> Job[Task]:
        """Remove and return the next task."""
        job, self._next = self.next, None
        return job

    def again(self, job: Job[Task]) -> None:
        """Put a task back whose worker was killed."""
        self._again.append(replace(job, attempt=job.attempt + 1))
