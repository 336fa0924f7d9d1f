"""The report of a run: tables in the terminal, metrics.json, metrics.csv and report.html.

The templates in `templates/` lay out the HTML, one self-contained page.
"""

from __future__ import annotations

import base64
import shlex
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from focaldiffusion.errors import InputError, printable
from focaldiffusion.evaluation.charts import calibration_chart, legend, robustness_chart
from focaldiffusion.evaluation.records import Record
from focaldiffusion.evaluation.robustness import CURVES, VARIANTS
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.summary import Summary, summarise, write_metrics
from focaldiffusion.evaluation.tables import (
    LEADING,
    UNBOUNDED,
    Cell,
    Table,
    decimals,
    heading,
    label,
    number,
    tables,
    wide_console,
)
from focaldiffusion.io.images import read_image

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid

_NAME_WIDTH = 28
_WORST = 2
_JPEG_QUALITY = 88


class _Figure(NamedTuple):
    """Charts (SVG) under one caption."""

    charts: list[str]
    caption: str


class _Entry(NamedTuple):
    """A cell of a table of variants or samples: its text, and the number to sort by."""

    text: str
    value: float | None = None
    change: str = ""
    failed: int = 0


class _Grid(NamedTuple):
    """One metric, one column per model; `key` is a `Record`, or a variant's name."""

    title: str
    models: list[str]
    rows: list[tuple[Any, list[_Entry]]]


class _Case(NamedTuple):
    """A picture of one result, as base64 JPEG of (height, width), or why it cannot be read."""

    caption: str
    sample: str
    jpeg: str = ""
    size: tuple[int, int] = (0, 0)
    error: str = ""


def write_report(directory: Path) -> Summary:
    """Write the report of a run, finished or not, beside its records.

    Raises:
        InputError: the folder holds no run.
    """
    summary = summarise(directory)
    write_metrics(summary, directory)
    page = _page(summary).encode(errors="backslashreplace")
    (directory / "report.html").write_bytes(page)
    return summary


def print_summary(summary: Summary, console: Console | None = None) -> None:
    """Print the headline metrics with published figures, costs, and failures."""
    from rich.text import Text

    console = console or wide_console()
    console.print(Text(printable(summary.title), style="bold"))
    parts = _parts(summary)
    if parts:
        console.print(Text(f"all sources: {summary.counts_note()}"))
    for table in tables(summary, headlines=True):
        _print_table(console, table)
    for name, part in parts.items():
        console.print(Text(printable(f"{name}: {part.counts_note()}")))
        for table in tables(part, headlines=True):
            _print_table(console, table)
    for model, scores in summary.plain.items():
        if scores.seconds is not None:
            memory = f", peak {scores.peak_memory_mib} MiB" if scores.peak_memory_mib else ""
            cost = f"{model}: {scores.seconds:.2g} s per sample{memory}"
            console.print(Text(printable(cost), style="dim"))
    for name, checkpoint in summary.run.get("checkpoints", {}).items():
        weights = f"{name}: weights with SHA-256 {checkpoint['sha256']}"
        console.print(Text(printable(weights), style="dim"))
    if not parts:
        console.print(Text(summary.counts_note()))
    if summary.variants:
        console.print(Text(summary.alignment_note()))
    for note in summary.failure_notes():
        console.print(Text(printable(note), style="red"))


def _parts(summary: Summary) -> dict[str, Summary]:
    """The parts to show beside the whole: those of several sources."""
    by_source = summary.by_source
    return by_source if len(by_source) > 1 else {}


def _print_table(console: Console, table: Table) -> None:
    """Print a table; one that is too wide for the console in several parts, none of them cut."""
    from rich.measure import Measurement
    from rich.text import Text

    unbounded = console.options.update(max_width=UNBOUNDED)

    def fits(grid: Grid) -> bool:
        return Measurement.get(console, unbounded, grid).maximum <= console.width

    last = len(table.metrics)
    layouts = [(intervals, width) for intervals in (True, False) for width in (None, _NAME_WIDTH)]
    intervals, width = next(
        (layout for layout in layouts if fits(_grid(table, slice(None), *layout))), layouts[-1]
    )
    if width is not None:
        width = min(width, console.width // 2)
    start = 0
    while start < last:
        stop = start + 1
        while stop < last and fits(_grid(table, slice(start, stop + 1), intervals, width)):
            stop += 1
        console.print(_grid(table, slice(start, stop), intervals, width))
        start = stop
    for note in table.notes:
        console.print(Text(f"  {note}", style="dim"))


def _grid(table: Table, shown: slice, intervals: bool, name_width: int | None) -> Grid:
    """Some columns of a table for the terminal.

    Args:
        table: to print.
        shown: its columns; the first are headed by the title.
        intervals: below the figures.
        name_width: of the models, which are folded to it; None for that of the longest.
    """
    from rich import box
    from rich.table import Table as Grid
    from rich.text import Text

    def written(cell: Cell | None) -> Text:
        if cell is None:
            return Text("–", style="dim")
        text = Text(cell.text, style="bold" if cell.is_best else "")
        if intervals and cell.interval:
            text.append(f"\n{'–'.join(cell.interval)}", style="not bold dim")
        return text

    names = [printable(f"{row.name} {row.marks}".rstrip()) for row in table.rows]
    title = None if shown.start else Text(table.title)
    grid = Grid(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    longest = max(map(len, names))
    width = longest if name_width is None else min(longest, name_width)
    grid.add_column("model", overflow="fold", width=width)
    for name in table.metrics[shown]:
        grid.add_column(Text(heading(name)), justify="right")
    for before, row, name in zip((None, *table.rows), table.rows, names, strict=False):
        if before is not None and before.kind != row.kind:
            grid.add_section()
        style = "dim" if row.kind == "published" else ""
        grid.add_row(Text(name), *map(written, row.cells[shown]), style=style)
    return grid


def _page(summary: Summary) -> str:
    """The report as HTML; pictures are read from the folder of the run."""
    shown = [name for name in LEADING if any(name in one.means for one in summary.plain.values())]
    confident = [model for model, one in summary.plain.items() if one.calibration is not None]
    template = _environment().get_template("report.html.j2")
    return template.render(
        summary=summary,
        command=shlex.join(map(str, summary.run.get("command", ()))),
        tables=tables(summary),
        parts={name: (part, tables(part)) for name, part in _parts(summary).items()},
        failure_notes=summary.failure_notes(),
        calibration=calibration_chart(summary),
        calibration_legend=legend(summary, confident) if confident else "",
        robustness=_robustness(summary, shown),
        robustness_legend=legend(summary, summary.models),
        variants=[_variants(summary, name) for name in shown] if summary.variants else [],
        cases={model: found for model in summary.models if (found := _cases(summary, model))},
        samples=[_samples(summary, name) for name in shown],
        settings=_settings(summary),
    )


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("focaldiffusion.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"label": label, "heading": heading, "words": _words}
    environment.globals |= {"METRICS": METRICS}
    return environment


def _shown(value: Any) -> Any:
    """A value as the page shows it: a text from elsewhere without control characters."""
    return printable(value) if type(value) is str else value


def _robustness(summary: Summary, metrics: Sequence[str]) -> list[_Figure]:
    """A figure per perturbation, with a chart for each metric."""
    figures = []
    for curve in dict.fromkeys(VARIANTS[one].curve for one in summary.variants if one in VARIANTS):
        charts = {name: robustness_chart(summary, curve, name) for name in metrics}
        drawn = {name: chart for name, chart in charts.items() if chart is not None}
        if drawn:
            caption = f"{' and '.join(map(label, drawn))} over {CURVES[curve].meaning}"
            figures.append(_Figure(list(drawn.values()), caption))
    return figures


def _variants(summary: Summary, metric: str) -> _Grid:
    """Means of a metric under every variant, and their change on the same samples."""
    plain = {
        model: one.means[metric].mean for model, one in summary.plain.items() if metric in one.means
    }
    places = decimals(metric, plain.values())
    changes = _changes(summary.records, metric)

    def entry(variant: str, model: str) -> _Entry:
        scores = summary.scores.get((variant, model))
        if scores is None:
            return _Entry("–")
        text = number(scores.means[metric].mean, places) if metric in scores.means else "–"
        if not changes[variant, model]:
            return _Entry(text, failed=scores.failed)
        change = fmean(changes[variant, model])
        sign = "+" if change >= 0 else ""
        return _Entry(text, change=f"{sign}{number(change, places)}", failed=scores.failed)

    unperturbed = [_Entry(number(mean, places)) for mean in plain.values()]
    rows = [(variant, [entry(variant, model) for model in plain]) for variant in summary.variants]
    return _Grid(heading(metric), list(plain), [("unperturbed", unperturbed), *rows])


def _changes(records: Sequence[Record], metric: str) -> dict[tuple[str, str], list[float]]:
    """Change of each counted sample from the unperturbed protocol, by variant and model."""
    scored = [record for record in records if record.counted and metric in record.metrics]
    plain = {
        (record.sample, record.model): record.metrics[metric]
        for record in scored
        if record.variant is None
    }
    changes: dict[tuple[str, str], list[float]] = defaultdict(list)
    for record in scored:
        key = record.sample, record.model
        if record.variant is not None and key in plain:
            changes[record.variant, record.model].append(record.metrics[metric] - plain[key])
    return changes


def _samples(summary: Summary, metric: str) -> _Grid:
    """A metric of every sample on the unperturbed protocol."""
    models = [model for model, scores in summary.plain.items() if metric in scores.means]
    plain = [record for record in summary.records if record.variant is None]
    places = decimals(metric, [one.metrics[metric] for one in plain if metric in one.metrics])
    samples: dict[str, dict[str, Record]] = defaultdict(dict)
    for record in plain:
        samples[record.sample][record.model] = record

    def entry(record: Record | None) -> _Entry:
        if record is None or metric not in record.metrics:
            return _Entry("failed" if record is not None and record.status == "failed" else "–")
        return _Entry(number(record.metrics[metric], places), record.metrics[metric])

    rows = [
        (next(iter(records.values())), [entry(records.get(model)) for model in models])
        for records in samples.values()
    ]
    return _Grid(heading(metric), models, rows)


def _cases(summary: Summary, model: str) -> list[_Case]:
    """The best result of a model that has a picture, and the worst ones."""
    done = [
        record
        for record in summary.records
        if record.model == model and record.variant is None and record.picture is not None
    ]
    metric = next((name for name in LEADING if any(name in one.metrics for one in done)), None)
    if metric is None:
        return []
    sign = -1 if METRICS[metric].better == "up" else 1
    ranked = [record for record in done if metric in record.metrics]
    ranked.sort(key=lambda record: sign * record.metrics[metric])
    places = decimals(metric, [record.metrics[metric] for record in ranked])
    chosen = [("best", ranked[0]), *(("worst", record) for record in ranked[:0:-1][:_WORST])]
    cases = []
    for which, record in chosen:
        score = number(record.metrics[metric], places)
        cases.append(_case(summary, record, f"{which}: {record.sample}, {label(metric)} {score}"))
    return cases


def _case(summary: Summary, record: Record, caption: str) -> _Case:
    assert record.picture is not None
    try:
        picture = read_image(summary.directory / record.picture)
    except InputError as error:
        return _Case(caption, record.sample, error=str(error))
    levels = np.rint(picture[..., ::-1] * 255).astype(np.uint8)
    # JPEG takes a tenth of the PNG's size.
    _, file = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    size = levels.shape[0], levels.shape[1]
    return _Case(caption, record.sample, base64.b64encode(file.tobytes()).decode(), size)


def _settings(summary: Summary) -> dict[str, dict[str, Any]]:
    """Protocol, plan, checkpoints, machine and versions, each by its heading."""
    run = summary.run
    apart = "command", "plan", "checkpoints"
    checkpoints = run.get("checkpoints", {}).items()
    return {
        "Protocol": summary.protocol.settings(),
        "Plan": {key: fact for key, fact in run.get("plan", {}).items() if key != "sources"},
        **{f"Checkpoint {name}": facts for name, facts in checkpoints},
        "Machine and versions": {key: fact for key, fact in run.items() if key not in apart},
    }


def _words(value: Any) -> str:
    """A value of run.json as text."""
    if isinstance(value, dict):
        value = [f"{key} {_words(one)}" for key, one in value.items()]
    if isinstance(value, list):
        return ", ".join(map(_words, value)) or "none"
    return "none" if value is None else str(value)
