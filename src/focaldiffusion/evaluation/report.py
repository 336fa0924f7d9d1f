"""The report of a run: metrics.json, metrics.csv, report.html and tables in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.evaluation.page import page
from focaldiffusion.evaluation.summary import Summary, summarise, write_metrics
from focaldiffusion.evaluation.tables import Cell, Table, heading, tables, wide_console

if TYPE_CHECKING:
    from rich.console import Console

REPORT = "report.html"
_NAME_WIDTH = 28
_CELL_WIDTH = 14  # enough for an interval


def write_report(directory: Path) -> Summary:
    """Write the report of a run, finished or not, beside its records.

    Raises:
        InputError: the folder holds no run.
    """
    summary = summarise(directory)
    write_metrics(summary, directory)
    (directory / REPORT).write_text(page(summary), encoding="utf-8")
    return summary


def print_summary(summary: Summary, console: Console | None = None) -> None:
    """Print the headline metrics with published figures, costs, and failures."""
    from rich.text import Text

    console = console or wide_console()
    console.print(Text(summary.title, style="bold"))
    for table in tables(summary, headlines=True):
        _print_table(console, table)
    for model, scores in summary.plain.items():
        if scores.seconds is not None:
            memory = scores.peak_memory_mib
            cost = f"{model}: {scores.seconds:.2g} s per sample"
            console.print(Text(cost + (f", peak {memory} MiB" if memory else ""), style="dim"))
    for name, checkpoint in summary.run.get("checkpoints", {}).items():
        console.print(Text(f"{name}: weights with SHA-256 {checkpoint['sha256']}", style="dim"))
    console.print(Text(summary.counts_note()))
    for note in summary.failure_notes():
        console.print(Text(note, style="red"))


def _print_table(console: Console, table: Table) -> None:
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    with_intervals = console.width >= _NAME_WIDTH + _CELL_WIDTH * len(table.metrics)

    def written(cell: Cell | None) -> Text:
        if cell is None:
            return Text("–", style="dim")
        text = Text(cell.text, style="bold" if cell.is_best else "")
        if with_intervals and cell.interval:
            text.append(f"\n{'–'.join(cell.interval)}", style="not bold dim")
        return text

    grid = Grid(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    longest = max(len(f"{row.name} {row.marks}".rstrip()) for row in table.rows)
    grid.add_column("model", overflow="fold", min_width=min(longest, _NAME_WIDTH))
    for name in table.metrics:
        grid.add_column(Text(heading(name)), justify="right")
    for before, row in zip((None, *table.rows), table.rows, strict=False):
        if before is not None and before.kind != row.kind:
            grid.add_section()
        grid.add_row(
            Text(f"{row.name} {row.marks}".rstrip()),
            *(written(cell) for cell in row.cells),
            style="dim" if row.kind == "published" else "",
        )
    console.print(grid)
    for note in table.notes:
        console.print(Text(f"  {note}", style="dim"))
