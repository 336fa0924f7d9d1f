"""Signals that end a process: from schedulers, and from a terminal that closes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)  # Windows hangs up nobody
"""The signals that ask a process to end. Ctrl-C has its own exception."""


@contextmanager
def on_ending(handle: Callable[[int], None]) -> Iterator[None]:
    """Call a function with the number of each ending signal that comes inside the block.

    Signals that the parent process lets ignore, as `nohup` does, stay ignored. Python handles
    signals in the main thread alone, so in another thread the block changes nothing.
    """

    def handler(number: int, frame: FrameType | None) -> None:
        handle(number)

    before = {}
    if threading.current_thread() is threading.main_thread():
        heeded = [one for one in ENDING if signal.getsignal(one) is not signal.SIG_IGN]
        before = {number: signal.signal(number, handler) for number in heeded}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)
