"""Charts of the report, as SVG inside a page: text in the page's colour, nothing loaded."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from focaldiffusion.errors import printable
from focaldiffusion.evaluation.robustness import CURVES, VARIANTS
from focaldiffusion.evaluation.summary import Scores, Summary
from focaldiffusion.evaluation.tables import heading

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito (2008), distinct for the colour-blind; markers stay distinct in grey.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C8C8C")
_MARKERS = "osD^vPX"
_INK = "#010203"  # placeholder for the text colour of the page
_SIZE = 3.5, 2.5  # inches
_PLOT = 0.18, 0.19, 0.79, 0.77  # left, bottom, width, height, as shares of the size


def robustness_chart(summary: Summary, curve: str, metric: str) -> str | None:
    """A metric over one perturbation: one line per model, with its interval shaded.

    The unperturbed protocol is a dotted line, with a large marker where it lies on the axis. Points
    are hollow if some samples have no prediction.

    Args:
        summary: the run.
        curve: a name of `CURVES`.
        metric: a name of `METRICS`.

    Returns:
        SVG; None if there are fewer than two points, or the values are words.
    """
    figure, axes = _figure()
    for model, plain in summary.plain.items():
        style = _style(summary, model)
        points = _points(summary, curve, metric, model)
        if len(points) < 2:
            continue
        settings = sorted(points)
        means = [points[setting].means[metric] for setting in settings]
        axes.plot(settings, [mean.mean for mean in means], linewidth=1.4, **style)
        low, high = zip(*(mean.interval or (mean.mean, mean.mean) for mean in means), strict=True)
        axes.fill_between(settings, low, high, color=style["color"], alpha=0.1, linewidth=0)
        for setting, scores in points.items():
            if scores.failed:
                hollow = {**style, "markersize": 7, "markerfacecolor": "none"}
                axes.plot(setting, scores.means[metric].mean, **hollow)
        whole = plain.means[metric].mean
        axes.axhline(whole, linestyle=":", linewidth=1, color=style["color"])
        unchanged = CURVES[curve].unchanged
        if unchanged is not None:
            axes.plot(unchanged, whole, **{**style, "markersize": 8})
    if not axes.lines:
        return None
    axes.set_xlabel(curve.replace("_", " "))
    axes.set_ylabel(heading(metric))
    return _svg(figure)


def _points(summary: Summary, curve: str, metric: str, model: str) -> dict[float, Scores]:
    """Scores along a curve by setting, with the unperturbed protocol where it lies on the axis."""
    plain = summary.plain[model]
    if metric not in plain.means:
        return {}
    unchanged = CURVES[curve].unchanged
    points = {} if unchanged is None else {unchanged: plain}
    for name in summary.variants:
        variant, scores = VARIANTS.get(name), summary.scores.get((name, model))
        if variant is None or variant.curve != curve or isinstance(variant.value, str):
            continue
        if scores is not None and metric in scores.means:
            points[float(variant.value)] = scores
    return points


def calibration_chart(summary: Summary) -> str | None:
    """AbsRel of each tenth of the pixels by confidence, as SVG; None without confidence."""
    figure, axes = _figure()
    for model, scores in summary.plain.items():
        if scores.calibration is not None:
            errors = [row[1] for row in scores.calibration]
            tenths = range(1, len(errors) + 1)
            axes.plot(tenths, errors, linewidth=1.4, **_style(summary, model))
    if not axes.lines:
        return None
    axes.set_xlabel("tenth of the pixels by confidence")
    axes.set_ylabel("AbsRel ↓")
    axes.set_xticks(range(1, 11))
    axes.set_ylim(bottom=0)
    return _svg(figure)


def legend(summary: Summary, models: Sequence[str]) -> str:
    """The legend of the charts, as SVG: the line and name of each model."""
    from matplotlib.figure import Figure

    widths = [0.085 * len(model) + 0.65 for model in models]  # inches
    figure = Figure(figsize=(sum(widths), 0.3))
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, sum(widths)), ylim=(-1, 1))
    axes.set_axis_off()
    left = 0.0
    # Matplotlib's own legend would omit names like _mine and parse $ as a formula.
    for model, width in zip(models, widths, strict=True):
        line = [left + 0.02, left + 0.19, left + 0.36]
        axes.plot(line, [0, 0, 0], linewidth=1.4, markevery=[1], **_style(summary, model))
        axes.text(
            left + 0.44, 0, printable(model), color=_INK, size=9, va="center", parse_math=False
        )
        left += width
    return _svg(figure)


def _style(summary: Summary, model: str) -> dict[str, Any]:
    place = summary.models.index(model)
    return {
        "color": _COLOURS[place % len(_COLOURS)],
        "marker": _MARKERS[place % len(_MARKERS)],
        "markersize": 4,
    }


def _figure() -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE)
    axes = figure.add_axes(_PLOT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[:].set_color(_INK)
    axes.tick_params(colors=_INK, labelsize=8)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=_INK, size=9)
    axes.grid(alpha=0.15, color=_INK)
    axes.patch.set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element with selectable text, in the text colour of the page."""
    from matplotlib import rc_context

    file = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "focaldiffusion"}):
        figure.savefig(file, format="svg", transparent=True, metadata=no_metadata)
    text = file.getvalue()
    # Groups are numbered alike in every chart, and an id must be unique in a page.
    text = re.sub(r'<g id="\w+_\d+">', "<g>", text[text.index("<svg") :])
    return text.replace(_INK, "currentColor")
