"""Engine for one machine: processes that stay warm, within a budget of memory."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Generic

import cv2
import torch

from focaldiffusion.allocation import keep_freed_memory
from focaldiffusion.engines.engine import Outcome, Task, Workshop
from focaldiffusion.engines.waiting import Job, Waiting
from focaldiffusion.errors import InputError
from focaldiffusion.signals import on_ending

# First words of what a worker sends.
_READY, _DONE, _REFUSED = "ready", "done", "refused"
_MOST_FAILED_STARTS = 3
_SECONDS_TO_END = 20


class LocalEngine(Generic[Task, Outcome]):
    """Worker processes with one thread each; a killed one is replaced."""

    def __init__(
        self, workshop: Workshop[Task, Outcome], workers: int, *, budget_bytes: int | None = None
    ) -> None:
        """Describe the workers; they start when tasks come.

        Args:
            workshop: see `Workshop`.
            workers: number of processes.
            budget_bytes: memory that tasks in work may need together; None for no limit. A task
                that would not fit waits; one that never fits runs alone.
        """
        self._workshop, self._count, self._budget = workshop, workers, budget_bytes
        # Forked from a process that has imported everything, a worker starts in no time. That
        # process only imports, so CUDA is not in use; on macOS, libraries do not survive a fork.
        is_linux = sys.platform == "linux"
        self._context: Any = get_context("forkserver" if is_linux else "spawn")
        if is_linux:
            kinds = [kind.__module__ for kind in type(workshop).__mro__ if kind is not object]
            self._context.set_forkserver_preload([__name__, *kinds])
        self._workers: list[_Worker[Task]] = []
        self._failed_starts = 0

    @property
    def workers(self) -> int:
        """See `Engine`."""
        return self._count

    def __enter__(self) -> LocalEngine[Task, Outcome]:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.join()
        self._workers.clear()

    @property
    def at_work(self) -> dict[int, Task]:
        """Id of each process that works, and its task."""
        return {
            worker.process.pid or 0: worker.job.task
            for worker in self._workers
            if worker.job is not None
        }

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """See `Engine`."""
        waiting = Waiting(tasks, self._workshop.need_bytes)
        while True:
            self._assign(waiting)
            busy = [worker for worker in self._workers if worker.is_busy]
            if not busy and not waiting:
                return
            handles = [one for worker in busy for one in worker.handles]
            ready = set(connection.wait(handles))
            for worker in busy:
                if ready.intersection(worker.handles):
                    yield from self._heard(worker, waiting)

    def _assign(self, waiting: Waiting[Task]) -> None:
        """Give tasks to workers that are free, as far as memory allows, and start missing ones."""
        while waiting:
            jobs = [worker.job for worker in self._workers if worker.job is not None]
            if jobs and not self._fits(waiting.next, jobs):
                return
            free = [one for one in self._workers if one.is_ready and one.job is None]
            if free:
                free[0].give(waiting.take())
                continue
            starting = sum(not one.is_ready for one in self._workers)
            if len(self._workers) == self._count or starting >= len(waiting):
                return
            self._workers.append(_Worker(self._context, self._workshop))

    def _fits(self, job: Job[Task], others: Sequence[Job[Task]]) -> bool:
        """Whether a task may be in work beside others; in a second attempt, it runs alone."""
        if job.attempt > 1 or any(other.attempt > 1 for other in others):
            return False
        taken = sum(other.need_bytes for other in others)
        return self._budget is None or taken + job.need_bytes <= self._budget

    def _heard(self, worker: _Worker[Task], waiting: Waiting[Task]) -> Iterator[Outcome]:
        """Take what a worker sends, or notice its end."""
        try:
            while worker.connection.poll():
                word, content = worker.connection.recv()
                if word == _DONE:
                    worker.job = None
                    yield content
                elif word == _READY:
                    worker.is_ready = True
                    self._failed_starts = 0
                else:
                    raise InputError(content)
            if worker.process.is_alive():
                return
        except (EOFError, OSError):
            pass
        self._workers.remove(worker)
        worker.join()
        how = worker.how_it_ended()
        if worker.job is not None and worker.job.attempt == 1:
            waiting.again(worker.job)
        elif worker.job is not None:
            yield self._workshop.lost(
                worker.job.task, f"{how}, twice, the second time while it ran alone"
            )
        elif not worker.is_ready:
            self._failed_starts += 1
            if self._failed_starts >= _MOST_FAILED_STARTS:
                raise InputError(
                    f"{self._failed_starts} workers in turn {how} while they started, perhaps "
                    "because the system ran out of memory. Give fewer --workers."
                )


class _Worker(Generic[Task]):
    """A process, seen from its parent.

    Attributes:
        is_ready: whether its bench is open.
        job: the task in work.
    """

    def __init__(self, context: Any, workshop: Workshop[Task, Any]) -> None:
        self.connection, other = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(other, workshop))
        self.process.start()
        other.close()  # else the end of the process would not close the pipe
        self.is_ready = False
        self.job: Job[Task] | None = None

    @property
    def handles(self) -> tuple[Any, Any]:
        """Becomes ready when it sends something or ends."""
        return self.connection, self.process.sentinel

    @property
    def is_busy(self) -> bool:
        """Whether a message is expected."""
        return self.job is not None or not self.is_ready

    def give(self, job: Job[Task]) -> None:
        self.job = job
        with suppress(OSError):  # dead; its sentinel says so
            self.connection.send(job.task)

    def end(self) -> None:
        """Ask the process to end now; it removes partial results."""
        self.connection.close()
        self.process.terminate()

    def join(self) -> None:
        self.process.join(_SECONDS_TO_END)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()

    def how_it_ended(self) -> str:
        code = self.process.exitcode or 0
        if code >= 0:
            return f"ended with exit code {code}"
        return f"was killed by the system (signal {-code})"


def _serve(pipe: Connection, workshop: Workshop[Any, Any]) -> None:
    """Work on tasks until the parent ends."""
    # Ctrl-C goes to all processes of a terminal; the parent ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare_process()
    with on_ending(_unwind):
        try:
            bench = workshop.open()
            pipe.send((_READY, None))
            while True:
                try:
                    task = pipe.recv()
                except (EOFError, OSError):
                    return
                pipe.send((_DONE, bench.run(task)))
        except InputError as error:
            pipe.send((_REFUSED, str(error)))


def _unwind(number: int) -> None:
    raise SystemExit(128 + number)


def _end_with_parent() -> None:
    """End this process as soon as its parent is gone, so that a resumed batch meets no orphans."""
    parent = parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)


def prepare_process() -> None:
    """Let a worker compute on one thread, and keep the memory of a task for the next one."""
    keep_freed_memory()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
