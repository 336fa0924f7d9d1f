"""Pictures that explain a result or a data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.io.colour_scales import ColourScale, DepthRange, length_labels
from focaldiffusion.io.panels import Map, Panel, Pixels, Strip, page, shrunk, srgb_pixels
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.stack import FocalStack

_MAX_THUMBNAILS, _MAX_SHEET_FRAMES = 8, 5
_THUMBNAIL_AREA_PX = 1 << 18
_CONFIDENCE = ColourScale("Confidence", 0.0, 1.0, "gray")


@dataclass(frozen=True, eq=False)
class SheetRow:
    """One sample of a contact sheet.

    Attributes:
        name: of the sample.
        stack: its frames; five at most are shown, evenly spaced.
        all_in_focus: (3, H, W) linear RGB; None leaves its place empty.
        depth_m: (H, W) metres, NaN where invalid.
    """

    name: str
    stack: FocalStack
    all_in_focus: Tensor | None
    depth_m: Map


def overview(
    stack: FocalStack,
    all_in_focus: NDArray[np.float32],
    depth: Map,
    field: str,
    confidence: Map,
    *,
    name: str,
    grade: str | None = None,
) -> Pixels:
    """One picture that explains a result: frames, all-in-focus image, depth, confidence.

    At most 8 frames are shown, evenly spaced, including the first and the last.

    Args:
        stack: the frames of the result.
        all_in_focus: (H, W, 3) sRGB-encoded, [0, 1].
        depth: (H, W) in the unit of `field`, NaN where unknown.
        field: `depth_m`, `height_m` or `depth_relative`.
        confidence: (H, W) in [0, 1].
        name: title of the picture.
        grade: knowledge of the camera, such as "calibrated".

    Returns:
        (height, 1800, 3) sRGB.
    """
    known = DepthRange.of(depth, field)
    scale = _depth_scale(known)
    thumbnails = _thumbnails(stack, _MAX_THUMBNAILS)
    text = known.text if known is not None else "no depth is known"
    facts = [grade, _strip_heading(stack, len(thumbnails)), text]
    height, width = depth.shape
    panels = [
        Panel(f"All in focus, {width} × {height} px", srgb_pixels(all_in_focus)),
        Panel.of_map(scale.title if scale else "Depth: nothing is known", depth, scale),
        Panel.of_map("Confidence", confidence, _CONFIDENCE),
    ]
    results = [[panel] for panel in panels] if width > 3 * height else [panels]
    frames = Strip(_joined(facts), thumbnails, tallest_px=260)
    return page([frames, *(Strip("", row, tallest_px=1000) for row in results)], title=name)


def contact_sheet(title: str, rows: Sequence[SheetRow]) -> Pixels:
    """Frames, all-in-focus image and depth with its colour bar, one sample per row.

    Args:
        title: of the sheet.
        rows: from top to bottom, at least one.

    Returns:
        (height, 1800, 3) sRGB.
    """
    return page([_sheet_strip(row) for row in rows], title=title)


def _sheet_strip(row: SheetRow) -> Strip:
    depth = DepthRange.of(row.depth_m, "depth_m")
    text = depth.text if depth is not None else "no valid depth"
    facts = [row.name, f"{len(row.stack)} frames", text]
    if (invalid := float(np.isnan(row.depth_m).mean())) > 0:
        facts.append(f"{invalid:.1%} of the depth invalid")
    frames = _thumbnails(row.stack, _MAX_SHEET_FRAMES)
    empty = [None] * (_MAX_SHEET_FRAMES - len(frames))
    sharp = None
    if row.all_in_focus is not None:
        sharp = Panel("", _linear_pixels(row.all_in_focus), caption="all in focus")
    depth_panel = Panel.of_map("", row.depth_m, _depth_scale(depth))
    return Strip(_joined(facts), [*frames, *empty, sharp, depth_panel], tallest_px=260)


def _joined(facts: Sequence[str | None]) -> str:
    return "   ·   ".join(fact for fact in facts if fact)


def _depth_scale(depth: DepthRange | None) -> ColourScale | None:
    return ColourScale.of_depth(depth) if depth is not None else None


def _thumbnails(stack: FocalStack, limit: int) -> list[Panel]:
    """Evenly spaced frames, captioned with their number and, if known, their focus."""
    count = len(stack)
    captions = [f"frame {index + 1}" for index in range(count)]
    lengths_m = stack.focus_distances_m
    if lengths_m is None:
        lengths_m = stack.focus_positions_m
    if lengths_m is not None:
        labels = length_labels(lengths_m.tolist())
        captions = [f"{index}: {label}" for index, label in enumerate(labels, start=1)]
    shown = np.unique(np.linspace(0, count - 1, min(count, limit)).round().astype(int))
    return [Panel("", _linear_pixels(stack.images[i]), caption=captions[i]) for i in shown]


def _strip_heading(stack: FocalStack, shown: int) -> str:
    count = f"{len(stack)} frames" + (f" ({shown} shown)" if shown < len(stack) else "")
    focus = {
        "inverse_depth_dpt": "and their focus distances",
        "position_m": "and their stage positions",
        "order": "in order",
    }[stack.axis]
    return f"{count} {focus}"


def _linear_pixels(linear: Tensor) -> Pixels:
    """A thumbnail (h, w, 3) of an image (3, H, W) in linear light."""
    small = shrunk(linear.detach().cpu().permute(1, 2, 0).numpy(), _THUMBNAIL_AREA_PX)
    return srgb_pixels(linear_to_srgb(torch.from_numpy(small).clamp(0, 1)).numpy())
