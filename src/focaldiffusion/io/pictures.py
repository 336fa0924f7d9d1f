"""Pictures to look at: depth beside its colour bar, and the overview of a result.

Sizes and positions are pixels of the picture, from its top left corner. Drawn with Matplotlib's
`Figure` alone: no pyplot, no global state, safe in any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.io.depth_colours import (
    UNKNOWN_GREY,
    ColourScale,
    colour_table,
    length_labels,
    thinned,
)
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.reconstruction import Reconstruction
from focaldiffusion.stack import FocalStack

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 100
_OVERVIEW_WIDTH = 1800
_MARGIN = 28
_GAP = 24
_MAX_THUMBNAILS = 8


class _Box(NamedTuple):
    left: int
    top: int
    width: int
    height: int

    @property
    def bottom(self) -> int:
        return self.top + self.height


def depth_picture(values: Tensor, field: str) -> NDArray[np.uint8]:
    """Depth in colours beside its colour bar; unknown is grey.

    Args:
        values: (H, W) in the unit of `field`, NaN where unknown.
        field: `Reconstruction.depth_field`.

    Returns:
        (height, width, 3) sRGB; the map's long side is drawn with 480 to 1600 px.
    """
    scale = ColourScale.of(values, field)
    height, width = values.shape
    zoom = min(max(480, height, width), 1600) / max(height, width)
    map_width, map_height = max(1, round(width * zoom)), max(1, round(height * zoom))
    bar_height = max(map_height, 160)
    figure = _figure(map_width + 2 * _MARGIN + _GAP + 90, bar_height + 2 * _MARGIN)
    map_top = _MARGIN + (bar_height - map_height) // 2
    _show(figure, _Box(_MARGIN, map_top, map_width, map_height), _depth_colours(values, scale))
    bar = _Box(_MARGIN + map_width + _GAP, _MARGIN, 20, bar_height)
    if scale is None:
        _write(figure, bar.left, bar.top, "Nothing\nis known", 15)
    else:
        axes = _show(figure, bar, colour_table()[::-1, None])
        _number(axes.yaxis, scale.ticks(distance=max(0.09, 24 / bar.height)))
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        axes.set_ylabel(scale.title, fontsize=_points(15))
    return _drawn(figure)


def overview(
    reconstruction: Reconstruction, stack: FocalStack, name: str, grade: str | None = None
) -> NDArray[np.uint8]:
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
    depth = getattr(reconstruction, reconstruction.depth_field)
    scale = ColourScale.of(depth, reconstruction.depth_field)
    height, width = depth.shape
    thumbnails = _thumbnail_boxes(len(stack), stack.size)
    panels = _panel_boxes(height, width, top=max(box.bottom for box in thumbnails.values()) + 84)
    figure = _figure(_OVERVIEW_WIDTH, panels[-1].bottom + 70)

    _write(figure, _MARGIN, 22, name, 28, weight="bold")
    facts = [grade, f"{len(stack)} frames", scale.range_text if scale else "no depth is known"]
    _write(figure, _MARGIN, 64, "   ·   ".join(fact for fact in facts if fact), 18)
    _write(figure, _MARGIN, 108, _strip_heading(stack, len(thumbnails)), 20)
    captions = _frame_captions(stack)
    for index, box in thumbnails.items():
        frame = linear_to_srgb(stack.images[index].detach().cpu()).permute(1, 2, 0).numpy()
        _show(figure, box, _eight_bit(frame))
        _write(figure, box.left, box.bottom + 6, captions[index], 16)

    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
    sharp = torch.from_numpy(reconstruction.all_in_focus)
    confidence = _eight_bit(thinned(reconstruction.confidence))
    drawn = (
        (f"All in focus, {width} × {height} px", _eight_bit(thinned(sharp))),
        (scale.title if scale else "Depth: nothing is known", _depth_colours(depth, scale)),
        ("Confidence", grey[confidence]),
    )
    for box, (heading, picture) in zip(panels, drawn, strict=True):
        _write(figure, box.left, box.top - 34, heading, 20)
        _show(figure, box, picture)
    if scale is not None:
        _bar_below(figure, panels[1], colour_table(), scale)
    _bar_below(figure, panels[2], grey, None)
    return _drawn(figure)


def _thumbnail_boxes(count: int, size: tuple[int, int]) -> dict[int, _Box]:
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
        int(index): _Box(round(_MARGIN + place * step), 142, max(1, round(width)), height)
        for place, index in enumerate(shown)
    }


def _panel_boxes(height: int, width: int, top: int) -> list[_Box]:
    """Three panels side by side; below each other when the image is very wide."""
    aspect = width / height
    room = _OVERVIEW_WIDTH - 2 * _MARGIN
    if aspect > 3:
        panel_height = max(1, round(room / aspect))
        return [_Box(_MARGIN, top + i * (panel_height + 116), room, panel_height) for i in range(3)]
    column = (room - 2 * _GAP) / 3
    panel_width = round(min(column, 1000 * aspect))
    panel_height = round(panel_width / aspect)
    return [
        _Box(round(_MARGIN + i * (column + _GAP)), top, max(1, panel_width), max(1, panel_height))
        for i in range(3)
    ]


def _strip_heading(stack: FocalStack, shown: int) -> str:
    what = {
        "inverse_depth_dpt": "Frames and their focus distances",
        "position_m": "Frames and their stage positions",
        "order": "Frames in order",
    }[stack.axis]
    return what if shown == len(stack) else f"{what}, {shown} of {len(stack)} shown"


def _frame_captions(stack: FocalStack) -> list[str]:
    """The number of each frame, and where it is focused when that is known."""
    lengths_m = stack.focus_distances_m
    if lengths_m is None:
        lengths_m = stack.focus_positions_m
    if lengths_m is None:
        return [f"frame {index + 1}" for index in range(len(stack))]
    return [f"{i}: {label}" for i, label in enumerate(length_labels(lengths_m.tolist()), start=1)]


def _depth_colours(values: Tensor, scale: ColourScale | None) -> NDArray[np.uint8]:
    if scale is None:
        return np.full((*values.shape, 3), UNKNOWN_GREY, np.uint8)
    return scale.colours(thinned(values))


def _bar_below(
    figure: Figure, panel: _Box, table: NDArray[np.uint8], scale: ColourScale | None
) -> None:
    """A colour bar under a panel: of `scale`, or from 0 to 1."""
    bar = _Box(panel.left, panel.bottom + 10, panel.width, 14)
    # Lengths read from left to right, and in depth the nearest, warmest comes first.
    flip = scale is not None and scale.mapping != "identity"
    axes = _show(figure, bar, table[None, ::-1] if flip else table[None])
    if scale is None:
        ticks = {quarter / 4: f"{quarter / 4:g}" for quarter in range(5)}
    else:
        ticks = scale.ticks(distance=max(0.09, 55 / panel.width))
    _number(axes.xaxis, {1 - at if flip else at: text for at, text in ticks.items()})


def _number(axis: Any, ticks: dict[float, str]) -> None:
    axis.set_ticks(list(ticks), labels=list(ticks.values()), fontsize=_points(15))
    axis.set_tick_params(length=4)


def _show(figure: Figure, box: _Box, picture: NDArray[np.uint8]) -> Axes:
    """Draw a picture in its box, resampled here so that Matplotlib copies pixels one to one.

    Returns:
        Axes from (0, 0) at the bottom left of the box to (1, 1) at its top right.
    """
    from PIL import Image

    # Sharp, and without the overshoot that would add colours beside depth edges.
    resized = Image.fromarray(picture).resize((box.width, box.height), Image.Resampling.HAMMING)
    width, height = figure.get_size_inches() * _DPI
    axes = figure.add_axes(
        (box.left / width, 1 - box.bottom / height, box.width / width, box.height / height)
    )
    axes.imshow(resized, extent=(0, 1, 0, 1), aspect="auto", interpolation="none")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(linewidth=0.5, color="0.6")
    return axes


def _write(figure: Figure, left: int, top: int, text: str, size: int, **style: Any) -> None:
    width, height = figure.get_size_inches() * _DPI
    # A name may contain "$", which must not start a formula.
    figure.text(
        left / width,
        1 - top / height,
        text,
        fontsize=_points(size),
        verticalalignment="top",
        parse_math=False,
        **style,
    )


def _points(pixels: float) -> float:
    return pixels * 72 / _DPI


def _eight_bit(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)


def _figure(width: int, height: int) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")


def _drawn(figure: Figure) -> NDArray[np.uint8]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
