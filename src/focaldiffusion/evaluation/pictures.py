"""A prediction beside the truth, to look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.io.colour_scales import ColourScale, DepthRange
from focaldiffusion.io.panels import Map, Panel, Strip, page, srgb_pixels
from focaldiffusion.optics import linear_to_srgb

_WIDTH_PX = 1200
_TALLEST_PX = 480
_ERROR = ColourScale("Relative error", -0.25, 0.25, "RdBu_r")

_Column = tuple[Panel | None, Panel | None]


def result_picture(sample: StackSample, prediction: Prediction) -> NDArray[np.float32]:
    """Truth above prediction: images, depths on one colour scale, and the relative error.

    Parts that the data set or the model lacks are left out. Unknown depth is grey.

    Args:
        sample: the truth.
        prediction: of the same size.

    Returns:
        (height, 1200, 3) sRGB in [0, 1].
    """
    columns = _columns(sample, prediction)
    if len(columns) == 1:  # images alone stand side by side
        columns = [(panel, None) for panel in columns[0] if panel is not None]
    columns += [(None, None)] * (2 - len(columns))
    rows = [row for row in zip(*columns, strict=True) if any(row)]
    picture = page([Strip("", row, _TALLEST_PX) for row in rows], width_px=_WIDTH_PX)
    return picture.astype(np.float32) / np.float32(255)


def _columns(sample: StackSample, prediction: Prediction) -> list[_Column]:
    """Pairs of truth and prediction."""
    images = (
        _image("Truth: all in focus", sample.all_in_focus, linear=True),
        _image("Prediction: all in focus", prediction.all_in_focus, linear=False),
    )
    columns: list[_Column] = [images] if any(images) else []
    if prediction.depth_m is None:
        return columns
    known = sample.valid & sample.depth_m.isfinite()
    truth_m = sample.depth_m.where(known, np.nan).cpu().numpy()
    predicted_m = prediction.depth_m.detach().cpu().to(sample.depth_m.dtype).numpy()
    found = np.isfinite(predicted_m) & (predicted_m > 0)
    predicted_m = np.where(found, predicted_m, np.nan)
    # The scale of the truth serves both: a wild prediction must not take the colours.
    depths = DepthRange.of(truth_m, "depth_m")
    if depths is None:
        raise ValueError("no valid depth is finite")
    scale = ColourScale.of_depth(depths)
    title = scale.title.lower()
    truth = Panel.of_map(f"Truth: {title}", truth_m, scale)
    predicted = Panel.of_map(f"Prediction: {title}", predicted_m, scale)
    confidence = None
    if prediction.confidence is not None:
        sure = prediction.confidence.detach().cpu().numpy()
        low, high = min(0.0, float(sure.min())), max(1.0, float(sure.max()))
        greys = ColourScale("Confidence", low, high, "gray")
        confidence = Panel.of_map("Confidence", sure, greys)
    return [*columns, (truth, predicted), (_error(truth_m, predicted_m), confidence)]


def _image(heading: str, image: Tensor | None, *, linear: bool) -> Panel | None:
    if image is None:
        return None
    shown = linear_to_srgb(image.detach().cpu()) if linear else image.detach().cpu()
    return Panel(heading, srgb_pixels(shown.permute(1, 2, 0).float().numpy()))


def _error(truth_m: Map, predicted_m: Map) -> Panel:
    missing = np.isnan(predicted_m) & np.isfinite(truth_m)
    heading = "Relative error" + (", black missing" if missing.any() else "")
    errors = Panel.of_map(heading, (predicted_m - truth_m) / truth_m, _ERROR)
    step = round(len(truth_m) / len(errors.pixels))
    errors.pixels[missing[::step, ::step]] = 0
    return errors
