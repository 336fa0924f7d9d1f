"""A result beside the truth, to look at."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.io.canvas import Box, Canvas, eight_bit
from focaldiffusion.io.depth_colours import UNKNOWN_GREY, ColourScale, thinned
from focaldiffusion.optics import linear_to_srgb

_WIDTH = 1200
_MARGIN = 12
_GAP = 18
_HEADING = 30
_BAR = 52  # a colour bar below a panel, with its numbers
_TALLEST = 480
_SHOWN_ERROR = 0.25


class _Panel(NamedTuple):
    heading: str
    picture: NDArray[np.uint8]
    scale: ColourScale | None = None
    table: NDArray[np.uint8] | None = None


def result_picture(sample: StackSample, prediction: Prediction) -> NDArray[np.float32]:
    """Truth above prediction: images, depths in the same colours, and where it errs.

    What the data set or the model does not have is left out. Unknown depth is grey.

    Args:
        sample: the truth.
        prediction: at its size.

    Returns:
        (height, 1200, 3) sRGB in [0, 1].
    """
    columns = _columns(sample, prediction)
    if len(columns) == 1:  # images alone stand side by side
        columns = [(panel, None) for panel in columns[0] if panel is not None]
    count = max(2, len(columns))
    size = sample.stack.size
    room = (_WIDTH - 2 * _MARGIN + _GAP) // count - _GAP
    width = max(1, min(room, round(_TALLEST * size[1] / size[0])))
    height = max(1, round(width * size[0] / size[1]))
    rows = [row for row in zip(*columns, strict=True) if any(row)]
    top = 0
    placed: list[tuple[_Panel, Box]] = []
    for row in rows:
        for place, panel in enumerate(row):
            if panel is not None:
                left = _MARGIN + place * (room + _GAP)
                placed.append((panel, Box(left, top + _HEADING, width, height)))
        has_bar = any(panel is not None and panel.scale is not None for panel in row)
        top += _HEADING + height + (_BAR if has_bar else _MARGIN)
    canvas = Canvas(_WIDTH, top)
    for panel, box in placed:
        canvas.write(box.left, box.top - 24, panel.heading, 16)
        canvas.show(box, panel.picture)
        if panel.scale is not None:
            canvas.bar_below(box, panel.scale, panel.table)
    return canvas.drawn().astype(np.float32) / np.float32(255)


def _columns(
    sample: StackSample, prediction: Prediction
) -> list[tuple[_Panel | None, _Panel | None]]:
    """What stands above what."""
    images = (
        _image("Truth: all in focus", sample.all_in_focus, linear=True),
        _image("Prediction: all in focus", prediction.all_in_focus, linear=False),
    )
    columns = [images] if any(images) else []
    if prediction.depth_m is not None:
        truth_m = sample.depth_m.where(sample.valid & sample.depth_m.isfinite(), np.nan).cpu()
        predicted_m = prediction.depth_m.detach().cpu().to(truth_m)
        predicted_m = predicted_m.where(predicted_m.isfinite() & (predicted_m > 0), np.nan)
        columns += [_depths(truth_m, predicted_m), _judgement(truth_m, predicted_m, prediction)]
    return columns


def _image(heading: str, image: Tensor | None, *, linear: bool) -> _Panel | None:
    if image is None:
        return None
    shown = linear_to_srgb(image.detach().cpu()) if linear else image.detach().cpu()
    return _Panel(heading, eight_bit(thinned(shown.permute(1, 2, 0))))


def _depths(truth_m: Tensor, predicted_m: Tensor) -> tuple[_Panel, _Panel]:
    # The scale is that of the truth: a wild prediction must not take its colours away.
    scale = ColourScale.of(truth_m, "depth_m")
    if scale is None:
        raise ValueError("no valid depth is finite")
    title = scale.title.lower()
    return (
        _Panel(f"Truth: {title}", scale.colours(thinned(truth_m)), scale),
        _Panel(f"Prediction: {title}, same colours", scale.colours(thinned(predicted_m)), scale),
    )


def _judgement(
    truth_m: Tensor, predicted_m: Tensor, prediction: Prediction
) -> tuple[_Panel, _Panel | None]:
    """The relative error, and the confidence where there is one."""
    from matplotlib import colormaps

    diverging = colormaps["RdBu_r"](np.arange(256), bytes=True)[:, :3]
    scale = _numbers(-_SHOWN_ERROR, _SHOWN_ERROR)
    picture = _coloured(thinned((predicted_m - truth_m) / truth_m), scale, diverging)
    missing = thinned(predicted_m.isnan() & truth_m.isfinite()) > 0
    picture[missing] = 0
    heading = "Relative error: blue near, red far" + (", black missing" if missing.any() else "")
    errors = _Panel(heading, picture, scale, diverging)
    if prediction.confidence is None:
        return errors, None
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    confidence = thinned(prediction.confidence)
    scale = _numbers(min(0.0, float(confidence.min())), max(1.0, float(confidence.max())))
    return errors, _Panel("Confidence", _coloured(confidence, scale, grey), scale, grey)


def _numbers(low: float, high: float) -> ColourScale:
    """A scale of plain numbers, the largest at the warm end."""
    return ColourScale("depth_relative", low, high, "identity")


def _coloured(
    values: NDArray[np.float32], scale: ColourScale, table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Values (H, W) in the colours of a table; NaN is grey."""
    unknown = np.isnan(values)
    level = np.rint(scale.position(np.where(unknown, 0, values)) * 255).astype(np.uint8)
    picture = table[level]
    picture[unknown] = UNKNOWN_GREY
    return picture
