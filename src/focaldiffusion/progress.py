"""Progress of long work: timed stages, and meters that count their steps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Report = Callable[[str, int, int], None]
"""Called as report(stage, done, total) after each step; total is 0 while unknown."""


class Meter:
    """Counts the steps of one piece of work."""

    def __init__(self, report: Callable[[int, int], None] | None = None, total: int = 0) -> None:
        """Start counting from 0.

        Args:
            report: called as report(done, total) after each step; None counts silently.
            total: number of steps; 0 while unknown.
        """
        self._report, self._total, self._done = report, total, 0

    def expect(self, total: int, done: int = 0) -> None:
        """Set the number of steps once it is known, `done` of them from an earlier run."""
        self._total, self._done = total, done

    def advance(self) -> None:
        """Count one step. A search may take more steps than expected."""
        self._done += 1
        if self._report is not None:
            self._report(min(self._done, self._total or self._done), self._total)


class Stages:
    """The stages of a reconstruction, one after another.

    Attributes:
        seconds: wall time of each finished stage, by name.
    """

    def __init__(self, report: Report | None = None) -> None:
        """Time the stages, and pass their steps to `report` if given."""
        self.seconds: dict[str, float] = {}
        self._report = report

    @contextmanager
    def __call__(self, name: str) -> Iterator[Meter]:
        """Enter a stage; yield the meter for its steps."""

        def report(done: int, total: int) -> None:
            if self._report is not None:
                self._report(name, done, total)

        started = time.perf_counter()
        report(0, 1)
        yield Meter(report)
        report(1, 1)
        self.seconds[name] = round(time.perf_counter() - started, 3)


def peak_memory_mib() -> int | None:
    """Peak memory of the process; None where the system does not count it."""
    if sys.platform == "win32":  # has no counter of it in the standard library
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))
