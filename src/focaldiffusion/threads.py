"""Threads of one reconstruction, whose number does not change a bit of the result.

Libraries split sums by their number of threads, which changes the rounding. So torch and OpenCV
compute on one thread, and the work is split here into pieces that do not depend on the number of
threads.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import TypeVar

import cv2
import torch

Item = TypeVar("Item")
Made = TypeVar("Made")

# Threads of a pool see the default, so nested work runs where it is.
_count: ContextVar[int] = ContextVar("threads", default=1)


def available_threads() -> int:
    """Number of CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


class _Libraries:
    """Torch and OpenCV, whose numbers of threads belong to the process, or to all its new threads.

    They compute on one thread until the last of the blocks that need it has ended, because several
    threads of a program may reconstruct at once.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks = 0
        self._before = (1, 1)

    def __enter__(self) -> None:
        with self._lock:
            if self._blocks == 0:
                self._before = torch.get_num_threads(), cv2.getNumThreads()
            self._blocks += 1
            torch.set_num_threads(1)  # in each thread: torch remembers one number for each
            cv2.setNumThreads(1)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._blocks -= 1
            if self._blocks == 0:
                torch.set_num_threads(self._before[0])
                cv2.setNumThreads(self._before[1])


_libraries = _Libraries()


@contextmanager
def threads(count: int | None = None) -> Iterator[None]:
    """Let `in_parallel` use threads; torch and OpenCV compute on one meanwhile.

    Args:
        count: number of threads; None for all CPUs that this process may use.
    """
    token = _count.set(available_threads() if count is None else count)
    try:
        with _libraries:
            yield
    finally:
        _count.reset(token)


@contextmanager
def network_threads() -> Iterator[None]:
    """Let torch use the threads of the enclosing block, for a network takes too long on one.

    The last bits of its output may depend on their number.
    """
    count = _count.get()
    if count == 1:  # outside such a block, too, where torch keeps all its threads
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(1)


def in_parallel(
    work: Callable[[Item], Made], items: Iterable[Item], *, most: int | None = None
) -> Iterator[Made]:
    """Results of `work` in the order of the items.

    At most one item more than there are threads is in work or waits, which bounds memory. Items
    are taken from the iterator in the calling thread. Torch's gradient and inference modes carry
    over to the threads.

    Args:
        work: makes a result of an item.
        items: the items.
        most: number of threads besides the calling one; 1 prepares the next result while one is
            used. None for as many as the block allows.
    """
    count = _count.get()
    if count == 1:
        yield from map(work, items)
        return
    count = most or count
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def in_mode(item: Item) -> Made:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):
            return work(item)

    with ThreadPoolExecutor(count) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for item in items:
                waiting.append(_submitted(pool, in_mode, item))
                if len(waiting) > count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _submitted(pool: ThreadPoolExecutor, work: Callable[[Item], Made], item: Item) -> Future[Made]:
    try:
        return pool.submit(work, item)
    except RuntimeError as error:  # "can't start new thread": its stack needs memory, too
        raise MemoryError(str(error)) from error
