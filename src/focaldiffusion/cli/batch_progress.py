"""Progress of a batch: how many stacks are done, how fast, and the time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from focaldiffusion.errors import printable

if TYPE_CHECKING:
    from focaldiffusion.archive.batch import Batch
    from focaldiffusion.archive.report import Line

_SECONDS_BETWEEN_LINES = 60


def with_progress(lines: Iterable[Line], batch: Batch, *, quiet: bool) -> None:
    """Take all outcomes, and show on standard error how the batch goes.

    A terminal has a bar; elsewhere, as in the log of a job, a line a minute. Failed rows are named
    at once.

    Args:
        lines: outcomes as they come.
        batch: knows how many to expect.
        quiet: show failed rows alone.
    """
    started = shown = time.monotonic()
    done = failed = 0
    with _bar(quiet=quiet) as show:
        for line in lines:
            done += 1
            if line.status == "failed":
                failed += 1
                print(f"error: {_named(line)}", file=sys.stderr, flush=True)
            now = time.monotonic()
            text = state(done, failed, batch.expected, now - started)
            show(text, done, batch.expected)
            if not quiet and not sys.stderr.isatty() and now - shown > _SECONDS_BETWEEN_LINES:
                shown = now
                print(text, file=sys.stderr, flush=True)


def state(done: int, failed: int, total: int, seconds: float) -> str:
    """Such as `1200 of 10000 stacks, 12 failed, 3.4 a second, 0:43:12 left`."""
    rate = done / max(seconds, 1e-9)
    pace = f"{rate:.1f} a second" if rate >= 1 else f"{60 * rate:.1f} a minute"
    left = timedelta(seconds=round((total - done) / rate))
    return f"{done} of {total} stacks, {failed} failed, {pace}, {left} left"


@contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, to call with its text, the number done and the total."""
    if quiet or not sys.stderr.isatty():
        yield lambda text, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = BarColumn(), TextColumn("{task.description}", markup=False)
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task("starting", total=None)
        yield lambda text, done, total: shown.update(
            bar, description=text, completed=done, total=total
        )


def _named(line: Line) -> str:
    name = printable(line.key)
    return line.error if line.error.startswith(name) else f"{name}: {line.error}"
