"""Pictures to look at: depth beside its colour bar, and the overview of a result."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.io.canvas import Box, Canvas, eight_bit
from focaldiffusion.io.depth_colours import UNKNOWN_GREY, ColourScale, length_labels, thinned
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.stack import FocalStack

_OVERVIEW_WIDTH = 1800
_MARGIN = 28
_GAP = 24
_MAX_THUMBNAILS = 8


def depth_picture(values: Tensor, field: str) -> NDArray[np.uint8]:
    """Depth in colours beside its colour bar; unknown is grey.

    Args:
        values: (H, W) in the unit of `field`, NaN where unknown.
        field: `Reconstruction.depth_field`.

    Returns:
        (height, width, 3) sRGB; the map's long side is drawn with 480 to 1600 px.
    """
    values = torch.as_tensor(values)
    scale = ColourScale.of(values, field)
    height, width = values.shape
    zoom = min(max(480, height, width), 1600) / max(height, width)
    map_width, map_height = max(1, round(width * zoom)), max(1, round(height * zoom))
    bar_height = max(map_height, 160)
    canvas = Canvas(map_width + 2 * _MARGIN + _GAP + 90, bar_height + 2 * _MARGIN)
    map_top = _MARGIN + (bar_height - map_height) // 2
    canvas.show(Box(_MARGIN, map_top, map_width, map_height), depth_colours(values, scale))
    bar = Box(_MARGIN + map_width + _GAP, _MARGIN, 20, bar_height)
    if scale is None:
        canvas.write(bar.left, bar.top, "Nothing\nis known", 15)
    else:
        canvas.bar_beside(bar, scale)
    return canvas.drawn()


def overview(reconstruction: Any) -> NDArray[np.uint8]:
    """One picture that explains a result: the frames, all in focus, depth, confidence.

    At most 8 frames are shown, evenly chosen, the first and the last among them.

    Args:
        reconstruction: the result.
        stack: the frames that it was made from.
        name: what the title calls the stack.
        grade: what was known of the camera, for the title, such as "calibrated".

    Returns:
        (height, 1800, 3) sRGB.
    """
    stack, name, grade = reconstruction.stack, reconstruction.name, str(reconstruction.calibration)
    depth = torch.from_numpy(reconstruction.depth)
    scale = ColourScale.of(depth, reconstruction.depth_field)
    height, width = depth.shape
    thumbnails = _thumbnail_boxes(len(stack), stack.size)
    panels = _panel_boxes(height, width, top=max(box.bottom for box in thumbnails.values()) + 84)
    canvas = Canvas(_OVERVIEW_WIDTH, panels[-1].bottom + 70)

    canvas.write(_MARGIN, 22, name, 28, weight="bold")
    facts = [grade, f"{len(stack)} frames", scale.range_text if scale else "no depth is known"]
    canvas.write(_MARGIN, 64, "   ·   ".join(fact for fact in facts if fact), 18)
    canvas.write(_MARGIN, 108, _strip_heading(stack, len(thumbnails)), 20)
    captions = frame_captions(stack)
    for index, box in thumbnails.items():
        frame = linear_to_srgb(stack.images[index].detach().cpu()).permute(1, 2, 0).numpy()
        canvas.show(box, eight_bit(frame))
        canvas.write(box.left, box.bottom + 6, captions[index], 16)

    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    sharp = torch.from_numpy(reconstruction.all_in_focus)
    confidence = eight_bit(thinned(torch.from_numpy(reconstruction.confidence)))
    drawn = (
        (f"All in focus, {width} × {height} px", eight_bit(thinned(sharp))),
        (scale.title if scale else "Depth: nothing is known", depth_colours(depth, scale)),
        ("Confidence", grey[confidence]),
    )
    for box, (heading, picture) in zip(panels, drawn, strict=True):
        canvas.write(box.left, box.top - 34, heading, 20)
        canvas.show(box, picture)
    if scale is not None:
        canvas.bar_below(panels[1], scale)
    canvas.bar_below(panels[2], None, grey)
    return canvas.drawn()


def _thumbnail_boxes(count: int, size: tuple[int, int]) -> dict[int, Box]:
    """Where each frame that is shown goes, by its index."""
    shown = np.unique(np.linspace(0, count - 1, min(count, _MAX_THUMBNAILS)).round().astype(int))
    aspect = size[1] / size[0]
    gap = 12
    column = (_OVERVIEW_WIDTH - 2 * _MARGIN + gap) / max(len(shown), 5) - gap
    width = min(column, 240 * aspect)
    height = max(1, round(width / aspect))
    # Captions need room under narrow frames.
    step = min(column, max(width, 150)) + gap
    return {
        int(index): Box(round(_MARGIN + place * step), 142, max(1, round(width)), height)
        for place, index in enumerate(shown)
    }


def _panel_boxes(height: int, width: int, top: int) -> list[Box]:
    """Three panels side by side; below each other when the image is very wide."""
    aspect = width / height
    room = _OVERVIEW_WIDTH - 2 * _MARGIN
    if aspect > 3:
        panel_height = max(1, round(room / aspect))
        return [Box(_MARGIN, top + i * (panel_height + 116), room, panel_height) for i in range(3)]
    column = (room - 2 * _GAP) / 3
    panel_width = round(min(column, 1000 * aspect))
    panel_height = round(panel_width / aspect)
    return [
        Box(round(_MARGIN + i * (column + _GAP)), top, max(1, panel_width), max(1, panel_height))
        for i in range(3)
    ]


def _strip_heading(stack: FocalStack, shown: int) -> str:
    what = {
        "inverse_depth_dpt": "Frames and their focus distances",
        "position_m": "Frames and their stage positions",
        "order": "Frames in order",
    }[stack.axis]
    return what if shown == len(stack) else f"{what}, {shown} of {len(stack)} shown"


def frame_captions(stack: FocalStack) -> list[str]:
    """The number of each frame, and where it is focused when that is known."""
    lengths_m = stack.focus_distances_m
    if lengths_m is None:
        lengths_m = stack.focus_positions_m
    if lengths_m is None:
        return [f"frame {index + 1}" for index in range(len(stack))]
    return [f"{i}: {label}" for i, label in enumerate(length_labels(lengths_m.tolist()), start=1)]


def depth_colours(values: Tensor, scale: ColourScale | None) -> NDArray[np.uint8]:
    """A map (H, W) in the colours of its scale, thinned if it is large; grey without a scale."""
    if scale is None:
        return np.full((*values.shape, 3), UNKNOWN_GREY, np.uint8)
    return scale.colours(thinned(values))
