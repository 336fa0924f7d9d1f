"""The tables of a report, for the terminal and for the page: which columns, rows and marks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from focaldiffusion.evaluation.published import PublishedRow
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.statistics import Estimate
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
"""What tables call a metric, without what it is aligned to."""

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
HEADLINES = (
    *("abs_rel", "abs_rel_untextured", "rmse", "delta_1.05", "delta_1.25", "coverage"),
    *("boundary_f1", "ause"),
    *("disparity:mse", "disparity:rmse", "disparity:abs_rel", "disparity:delta_1.25"),
    *_IMAGE,
)
"""What the terminal has room for."""

LEADING = ("abs_rel", "psnr")
"""The metric that speaks for depth and the one that speaks for the image."""


class Cell(NamedTuple):
    """A figure, written."""

    text: str
    interval: tuple[str, str] | None = None
    is_best: bool = False


@dataclass(frozen=True)
class Row:
    """A model of ours, or what someone published.

    Attributes:
        name: of the model.
        kind: published figures are not of this run.
        cells: one a column, None where there is no figure.
        marks: of the notes to a published row.
    """

    name: str
    kind: Literal["model", "untrained", "published"]
    cells: Sequence[Cell | None]
    marks: str = ""


@dataclass(frozen=True)
class Table:
    """Metrics as columns, models as rows."""

    title: str
    metrics: Sequence[str]
    rows: Sequence[Row]
    notes: Sequence[str]


def label(name: str) -> str:
    """What tables call a metric, such as "AbsRel, scaled"."""
    alignment, _, base = name.rpartition(":")
    text = LABELS.get(base, base)
    return f"{text}, {_ALIGNMENTS.get(alignment, alignment)}" if alignment else text


def heading(name: str) -> str:
    """Label, unit and the direction of improvement, such as "RMSE [m] ↓"."""
    metric = METRICS[name]
    # On one line: an arrow that wraps could be of the next column.
    unit = f"[{metric.unit}]\N{NO-BREAK SPACE}" if metric.unit not in ("", "share") else ""
    return f"{label(name)}\N{NO-BREAK SPACE}{unit}{'↑' if metric.better == 'up' else '↓'}"


def decimals(name: str, values: Iterable[float]) -> int:
    """How many a column needs to show three digits of its largest value, three at least."""
    if METRICS[name].unit == "dB":
        return 2
    largest = max(map(abs, values), default=1.0)
    return next((places for places in range(3, 6) if largest >= 10.0 ** (2 - places)), 6)


def number(value: float, places: int) -> str:
    """A figure with a real minus sign, which 0 has not."""
    return f"{round(value, places) + 0.0:.{places}f}".replace("-", "−")


def tables(summary: Summary, *, headlines: bool = False) -> list[Table]:
    """A table for each group of metrics of which there are figures, ours or published ones.

    Args:
        summary: of the run.
        headlines: only the metrics for which a terminal has room, and those that were published.
    """
    published = {name for row in summary.protocol.published for name in row.figures}
    found = {name for result in summary.plain.values() for name in result.means}
    wanted = published | (found & set(HEADLINES) if headlines else found)
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
        _column(
            name,
            {model: result.means.get(name) for model, result in plain.items()},
            [row.figures.get(name) for row in published],
        )
        for name in names
    ]
    if any(cell and cell.text.endswith("*") for column in columns for cell in column):
        notes.insert(0, "* over fewer samples than the models without this mark")
    cells = list(zip(*columns, strict=True))
    own: list[Row] = []
    for model, row in zip(plain, cells, strict=False):
        if any(row):
            own.append(Row(model, "untrained" if model in summary.untrained else "model", row))
    others = zip(published, cells[len(plain) :], marks, strict=True)
    return Table(
        title,
        names,
        [*own, *(Row(row.model, "published", line, mark) for row, line, mark in others)],
        notes,
    )


def _column(
    name: str, ours: Mapping[str, Estimate | None], published: Sequence[float | None]
) -> list[Cell | None]:
    """The figures of one metric, models first.

    The best is among the means over all samples: one that leaves out what a model failed on does
    not compare.
    """
    there = [estimate for estimate in ours.values() if estimate is not None]
    samples = max((estimate.samples for estimate in there), default=0)
    whole = [estimate.mean for estimate in there if estimate.samples == samples]
    places = decimals(name, [*(estimate.mean for estimate in there), *filter(None, published)])
    metric = METRICS[name]
    ranked = not metric.oracle and len(there) > 1 and min(whole) < max(whole)
    best = number(max(whole) if metric.better == "up" else min(whole), places) if ranked else None

    def cell(estimate: Estimate | None) -> Cell | None:
        if estimate is None:
            return None
        fewer = estimate.samples < samples
        interval = None
        if estimate.interval is not None:
            low, high = estimate.interval
            interval = number(low, places), number(high, places)
        text = number(estimate.mean, places)
        return Cell(text + "*" * fewer, interval, not fewer and text == best)

    return [
        *(cell(estimate) for estimate in ours.values()),
        *(None if value is None else Cell(number(value, places)) for value in published),
    ]


def _published_notes(rows: Sequence[PublishedRow]) -> tuple[list[str], list[str]]:
    """The marks of each row, and what they mean."""
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
        notes.append("‡ read in another text than the source")
    return marks, notes


def wide_console() -> Console:
    """A console on standard output; into a file or a pipe its lines are not cut at 80."""
    from rich.console import Console

    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, 120)
    return console
