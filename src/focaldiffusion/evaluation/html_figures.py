"""The figures of the report's page: charts, and the best and the worst cases."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.charts import calibration_chart, legend, robustness_chart
from focaldiffusion.evaluation.html_tables import escaped, variant_table
from focaldiffusion.evaluation.records import Record
from focaldiffusion.evaluation.robustness import CURVES, VARIANTS
from focaldiffusion.evaluation.scoring import METRICS
from focaldiffusion.evaluation.summary import Summary
from focaldiffusion.evaluation.tables import LEADING, decimals, label, number
from focaldiffusion.io.images import read_image

_WORST = 2
_JPEG_QUALITY = 88


def calibration_figure(summary: Summary) -> str | None:
    """Error by confidence; None where no model has confidence."""
    models = [model for model, result in summary.plain.items() if result.calibration is not None]
    if not models:
        return None
    return (
        f"{legend(summary, models)}<figure>{calibration_chart(summary)}<figcaption>AbsRel of each "
        "tenth of the pixels, the least confident first, mean over images. Where confidence knows "
        "the error, the line falls from left to right.</figcaption></figure>\n"
    )


def robustness_figures(summary: Summary) -> str | None:
    """A chart for each thing that was made worse, and all figures as a table."""
    found = [name for name in LEADING if any(name in one.means for one in summary.plain.values())]
    curves = dict.fromkeys(VARIANTS[name].curve for name in summary.variants if name in VARIANTS)
    if not curves:
        return None
    figures = []
    for curve in curves:
        for metric in found:
            chart = robustness_chart(summary, curve, metric)
            if chart is not None:
                caption = escaped(f"{label(metric)} over {CURVES[curve].meaning}")
                figures.append(f"<figure>{chart}<figcaption>{caption}</figcaption></figure>")
    return (
        "<p>What becomes of the means when one thing is wrong. Dotted: the protocol as it is, with "
        "a large point where the axis has a place for it. Shaded: 95 % interval. Hollow: some "
        f'samples failed.</p>{legend(summary, summary.models)}<div class="charts">'
        f"{''.join(figures)}</div>\n<details><summary>All figures</summary>"
        + "".join(variant_table(summary, name) for name in found)
        + "</details>\n"
    )


def cases(summary: Summary) -> str | None:
    """The best and the worst results of each model as pictures; None where there are none."""
    blocks: list[str] = []
    for model in summary.models:
        metric, records = _ranked(summary, model)
        if not records:
            continue
        places = decimals(metric, [record.metrics[metric] for record in records])
        chosen = [("best", records[0]), *(("worst", one) for one in records[:0:-1][:_WORST])]
        figures = "".join(
            f"<figure><figcaption>{which}: {escaped(record.sample)}, {label(metric)} "
            f"{number(record.metrics[metric], places)}</figcaption>{_picture(summary, record)}"
            "</figure>"
            for which, record in chosen
        )
        opened = "" if blocks else " open"
        blocks.append(f"<details{opened}><summary>{escaped(model)}</summary>{figures}</details>\n")
    return "".join(blocks) or None


def _ranked(summary: Summary, model: str) -> tuple[str, Sequence[Record]]:
    """The metric that speaks for a model, and its results with a picture, the best first."""
    done = [
        record
        for record in summary.records
        if record.model == model and record.variant is None and record.picture is not None
    ]
    for metric in LEADING:
        having = [record for record in done if metric in record.metrics]
        if having:
            sign = -1 if METRICS[metric].better == "up" else 1
            return metric, sorted(having, key=lambda record: sign * record.metrics[metric])
    return LEADING[0], []


def _picture(summary: Summary, record: Record) -> str:
    """The picture of a record inside the page, as JPEG: a tenth of the PNG's size."""
    assert record.picture is not None
    try:
        picture = read_image(summary.directory / record.picture)
    except InputError as error:
        return f'<p class="alarm">{escaped(error)}</p>'
    levels = np.rint(picture[..., ::-1] * 255).astype(np.uint8)
    _, file = cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    height, width = levels.shape[:2]
    content = base64.b64encode(file.tobytes()).decode()
    return (
        f'<img width="{width}" height="{height}" alt="{escaped(record.sample)}: truth and '
        f'prediction" src="data:image/jpeg;base64,{content}">'
    )
