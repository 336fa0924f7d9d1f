"""Tables of a report, for the terminal and the page: their columns, rows and marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from focaldiffusion.evaluation.published import PublishedRow
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.statistics import SampleMean
from focaldiffusion.evaluation.summary import Summary

if TYPE_CHECKING:
    from rich.console import Console

LABELS = {
    "abs_rel": "AbsRel",
    "abs_rel_untextured": "AbsRel, untextured",
    "sq_rel": "SqRel",
    "mse": "MSE",
    "rmse": "RMSE",
    "rmse_log": "RMSE log",
    "silog": "SILog",
    "delta_1.05": "δ1.05",
    "delta_1.15": "δ1.15",
    "delta_1.25": "δ1.25",
    "delta_1.25^2": "δ1.25²",
    "delta_1.25^3": "δ1.25³",
    "coverage": "coverage",
    "boundary_f1": "boundary F1",
    "abs_rel_confident_half": "AbsRel, surest half",
    "ause": "AUSE",
    "bad_pixel_0.07": "bad pixels",
    "bumpiness": "bumpiness",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "best_frame_psnr": "PSNR, best frame",
    "in_range": "in range",
    "kept": "kept",
    "soft": "soft",
    "invented": "invented",
}
"""Names of metrics in tables, without their alignment."""

_FURTHER = ("sq_rel", "mse", "rmse_log", "silog", "delta_1.25^2", "delta_1.25^3")
_GROUPS = (
    *("Depth", "Depth, further metrics", "Disparity"),
    *("All-in-focus image", "Depth aligned to the truth"),
)
_IMAGE = ("psnr", "best_frame_psnr", "ssim", "lpips", "in_range", "kept", "soft", "invented")
_ALIGNMENTS = {
    "scale": "scaled",
    "scale_shift": "scaled + shifted",
    "disparity_scale": "1/z scaled",
    "disparity_scale_shift": "1/z scaled + shifted",
    "disparity": "disparity",
}
_HEADLINES = (
    *("abs_rel", "abs_rel_untextured", "rmse", "delta_1.05", "delta_1.25", "coverage"),
    *("boundary_f1", "ause"),
    *("disparity:mse", "disparity:rmse", "disparity:abs_rel", "disparity:delta_1.25"),
    *_IMAGE,
)
"""Metrics for which the terminal has room."""

UNBOUNDED = 10_000
"""Columns of a terminal without end, in which a table has its natural width."""

LEADING = ("abs_rel", "psnr")
"""The metrics that represent depth and image in charts and rankings."""


class Cell(NamedTuple):
    """A formatted figure."""

    text: str
    interval: tuple[str, str] | None = None
    is_best: bool = False


class _Row(NamedTuple):
    """A model of this run or a published one; its marks refer to the notes of the table."""

    name: str
    kind: Literal["model", "untrained", "published"]
    cells: Sequence[Cell | None]
    marks: str = ""


class Table(NamedTuple):
    """Metrics as columns, models as rows."""

    title: str
    metrics: Sequence[str]
    rows: Sequence[_Row]
    notes: Sequence[str]


def label(name: str) -> str:
    """Name of a metric in tables, such as "AbsRel, scaled"."""
    alignment, _, base = name.rpartition(":")
    text = LABELS.get(base, base)
    return f"{text}, {_ALIGNMENTS.get(alignment, alignment)}" if alignment else text


def heading(name: str) -> str:
    """Label, unit and the direction of improvement, such as "RMSE [m] ↓"."""
    metric = METRICS[name]
    # No-break spaces: an arrow on its own line would seem to belong to the next column.
    unit = f"[{metric.unit}]\N{NO-BREAK SPACE}" if metric.unit not in ("", "share") else ""
    return f"{label(name)}\N{NO-BREAK SPACE}{unit}{'↑' if metric.better == 'up' else '↓'}"


def decimals(name: str, values: Iterable[float]) -> int:
    """Decimals that show three digits of the largest value of a column, at least three."""
    if METRICS[name].unit == "dB":
        return 2
    largest = max(map(abs, values), default=1.0)
    return next((places for places in range(3, 6) if largest >= 10.0 ** (2 - places)), 6)


def number(value: float, places: int) -> str:
    """A formatted number with a typographic minus sign, and no minus sign before zero."""
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


def tables(summary: Summary, *, headlines: bool = False) -> list[Table]:
    """A table for each group of metrics with figures, measured or published.

    Args:
        summary: the run.
        headlines: restrict metrics to `_HEADLINES` and published ones.
    """
    published = {name for row in summary.protocol.published for name in row.figures}
    found = {name for scores in summary.plain.values() for name in scores.means}
    wanted = published | (found & set(_HEADLINES) if headlines else found)
    shown = [name for name in METRICS if name in wanted]
    groups = {title: [name for name in shown if _group(name) == title] for title in _GROUPS}
    return [_table(summary, title, names) for title, names in groups.items() if names]


def _group(name: str) -> str:
    if name.startswith("disparity:"):
        return "Disparity"
    if ":" in name:
        return "Depth aligned to the truth"
    if name in _IMAGE:
        return "All-in-focus image"
    return "Depth, further metrics" if name in _FURTHER else "Depth"


def _table(summary: Summary, title: str, names: Sequence[str]) -> Table:
    published = [row for row in summary.protocol.published if set(row.figures) & set(names)]
    marks, notes = _published_notes(published)
    plain = summary.plain
    columns = [
        column(
            name,
            {model: scores.means.get(name) for model, scores in plain.items()},
            [row.figures.get(name) for row in published],
        )
        for name in names
    ]
    if any(cell and cell.text.endswith("*") for column in columns for cell in column):
        notes.insert(0, "* over fewer samples than models without this mark")
    cells = list(zip(*columns, strict=True))
    own = [
        _Row(model, "untrained" if model in summary.untrained else "model", row)
        for model, row in zip(plain, cells, strict=False)
        if any(row)
    ]
    others = zip(published, cells[len(plain) :], marks, strict=True)
    return Table(
        title,
        names,
        [*own, *(_Row(row.model, "published", line, mark) for row, line, mark in others)],
        notes,
    )


def column(
    name: str, ours: Mapping[str, SampleMean | None], published: Sequence[float | None]
) -> list[Cell | None]:
    """The cells of one metric, models first; None for those without a figure.

    The best is chosen among means over all samples; a mean over fewer does not compare.
    """
    there = [mean for mean in ours.values() if mean is not None]
    samples = max((mean.samples for mean in there), default=0)
    whole = [mean.mean for mean in there if mean.samples == samples]
    places = decimals(name, [*(mean.mean for mean in there), *filter(None, published)])
    metric = METRICS[name]
    ranked = not metric.oracle and len(there) > 1 and min(whole) < max(whole)
    best = number(max(whole) if metric.better == "up" else min(whole), places) if ranked else None

    def cell(mean: SampleMean | None) -> Cell | None:
        if mean is None:
            return None
        fewer = mean.samples < samples
        interval = None
        if mean.interval is not None:
            low, high = mean.interval
            interval = number(low, places), number(high, places)
        text = number(mean.mean, places)
        spread = "" if mean.spread is None else f" ± {number(mean.spread, places)}"
        return Cell(f"{text}{spread}{'*' * fewer}", interval, not fewer and text == best)

    return [
        *(cell(mean) for mean in ours.values()),
        *(None if value is None else Cell(number(value, places)) for value in published),
    ]


def _published_notes(rows: Sequence[PublishedRow]) -> tuple[list[str], list[str]]:
    """The marks of each row, and their meanings."""
    letters: dict[tuple[str, str], str] = {}
    marks = []
    for row in rows:
        key = row.source, row.differs
        letters.setdefault(key, chr(ord("a") + len(letters)))
        marks.append(letters[key] + "†" * row.oracle + "‡" * row.second_hand)
    notes = [
        f"{letter} {source}" + (f"; differs: {differs}" if differs else "; the same protocol")
        for (source, differs), letter in letters.items()
    ]
    if any(row.oracle for row in rows):
        notes.append("† focus planes taken from the truth")
    if any(row.second_hand for row in rows):
        notes.append("‡ quoted from another text than the source")
    return marks, notes


def wide_console() -> Console:
    """A console on standard output, at least 120 columns wide in a file or a pipe."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console
