"""A contact sheet: samples of a data set to look at, a row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.io.canvas import Box, Canvas, eight_bit
from focaldiffusion.io.depth_colours import ColourScale
from focaldiffusion.io.pictures import depth_colours, frame_captions
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.stack import FocalStack

_WIDTH = 1800
_MARGIN = 28
_GAP = 12
_MAX_FRAMES = 5
_TALLEST = 260
_HEADING = 62
_CAPTION = 60  # below a row: the colour bar's numbers, or the focus distances


@dataclass(frozen=True, eq=False)
class Row:
    """One sample of the sheet.

    Attributes:
        name: what the row is called.
        stack: its frames, of which at most five are shown, evenly chosen.
        all_in_focus: (3, H, W) linear RGB; None leaves its place empty.
        depth_m: (H, W) metres, NaN where invalid.
    """

    name: str
    stack: FocalStack
    all_in_focus: Tensor | None
    depth_m: Tensor


def contact_sheet(title: str, rows: Sequence[Row]) -> NDArray[np.uint8]:
    """Frames, all-in-focus image and depth with its colour bar, one row a sample.

    Args:
        title: the sheet's heading.
        rows: from top to bottom, at least one.

    Returns:
        (height, 1800, 3) sRGB.
    """
    column = (_WIDTH - 2 * _MARGIN + _GAP) // (_MAX_FRAMES + 2) - _GAP
    heights = [min(_TALLEST, round(column * row.stack.size[0] / row.stack.size[1])) for row in rows]
    step = [_HEADING - 22 + height + _CAPTION for height in heights]
    canvas = Canvas(_WIDTH, _HEADING + sum(step))
    canvas.write(_MARGIN, 20, title, 26, weight="bold")
    top = _HEADING
    for row, height, advance in zip(rows, heights, step, strict=True):
        width = min(column, max(1, round(height * row.stack.size[1] / row.stack.size[0])))
        boxes = [
            Box(_MARGIN + place * (column + _GAP), top + 30, width, height)
            for place in range(_MAX_FRAMES + 2)
        ]
        _draw(canvas, row, boxes)
        top += advance
    return canvas.drawn()


def _draw(canvas: Canvas, row: Row, boxes: Sequence[Box]) -> None:
    *frame_boxes, sharp_box, depth_box = boxes
    scale = ColourScale.of(row.depth_m, "depth_m")
    invalid = float(row.depth_m.isnan().double().mean())
    depth = (scale.range_text if scale else None) or "no valid depth"
    facts = [row.name, f"{len(row.stack)} frames", depth]
    if invalid > 0:
        facts.append(f"{invalid:.1%} of the depth invalid")
    canvas.write(_MARGIN, frame_boxes[0].top - 28, "   ·   ".join(facts), 18)
    captions = frame_captions(row.stack)
    count = min(len(row.stack), _MAX_FRAMES)
    for place, index in enumerate(np.linspace(0, len(row.stack) - 1, count).round().astype(int)):
        box = frame_boxes[place]
        canvas.show(box, _picture(row.stack.images[index]))
        canvas.write(box.left, box.bottom + 6, captions[index], 16)
    if row.all_in_focus is not None:
        canvas.show(sharp_box, _picture(row.all_in_focus))
        canvas.write(sharp_box.left, sharp_box.bottom + 6, "all in focus", 16)
    canvas.show(depth_box, depth_colours(row.depth_m, scale))
    if scale is not None:
        canvas.bar_below(depth_box, scale)


def _picture(linear: Tensor) -> NDArray[np.uint8]:
    return eight_bit(linear_to_srgb(linear.detach().cpu()).permute(1, 2, 0).numpy())
