"""Processes for short heavy work: opening a stack, drawing a tile, answering a probe.

The server itself never imports torch, so that it starts at once and stays small. A process of a
desk does, once, and lives as long as the server.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from importlib import import_module
from typing import Any

from focaldiffusion.app.errors import AppError
from focaldiffusion.app.processes import context


class Desk:
    """Calls functions of heavy modules in other processes."""

    def __init__(self, processes: int) -> None:
        """Start no process yet.

        Args:
            processes: most at once.
        """
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None

    async def run(self, module: str, function: str, *arguments: Any) -> Any:
        """Call a function in one of the processes.

        Args:
            module: full name of its module, which the server does not import.
            function: its name.
            arguments: picklable; so is what it returns.

        Raises:
            InputError: the function raised it.
            AppError: the process was killed, most likely for its memory; the next call gets
                another one.
        """
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._processes, context(), _begin)
        pool = self._pool
        try:
            # In a thread, because it waits until torch has been imported.
            future = await asyncio.to_thread(pool.submit, _call, module, function, arguments)
            return await asyncio.wrap_future(future)
        except BrokenProcessPool:
            if self._pool is pool:
                self._pool = None
            raise AppError(
                500,
                "the process that was to do this was killed, perhaps because the memory is full. "
                "Try again with smaller frames or less work at once.",
            ) from None

    def close(self) -> None:
        """End the processes."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        self._pool = None


def _begin() -> None:
    """Let the process end with the server, however that ends, and leave Ctrl-C to it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _call(module: str, function: str, arguments: tuple[Any, ...]) -> Any:
    return getattr(import_module(module), function)(*arguments)
