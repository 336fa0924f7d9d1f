"""Progress on standard error, with the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from focaldiffusion.errors import printable

if TYPE_CHECKING:
    from rich.progress import TaskID

    from focaldiffusion.progress import Report


@contextmanager
def progress_bars(title: str, *, quiet: bool) -> Iterator[Report]:
    """A progress bar for each stage of the work inside the block; none outside a terminal.

    Args:
        title: text above the bars.
        quiet: show nothing; always so if standard error is not a terminal.

    Yields:
        A `Report` for the work to call.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda stage, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    console.print(printable(title), markup=False, highlight=False)
    bars: dict[str, TaskID] = {}
    with Progress(
        TextColumn("  {task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        # Bars vanish when done; the summary stays.
        transient=True,
    ) as shown:

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = shown.add_task(printable(stage), total=None)
            # A total of 0 is not known yet.
            shown.update(bars[stage], completed=done, total=total or None)

        yield progress
