"""Panels with headings and colour bars, laid out on a page by Matplotlib.

They use `Figure` alone: no pyplot, no global state, safe in any thread. Figures have 72 dots per
inch, so that sizes of fonts and lines are pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.io.colour_scales import UNKNOWN_GREY, ColourScale, DepthRange

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

# Matplotlib logs fonts that lack a bold face, which does not matter here.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())

Map = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]

_DPI = 72
_WIDTH_PX = 1800
_MARGIN_PX, _PAD_PX, _BAR_PX = 28, 6, 14
_TITLE_PX, _HEADING_PX, _TEXT_PX = 28, 18, 15
_NARROWEST_PX = 240  # of columns: narrow panels need room for their texts and colour bars
_PANEL_AREA_PX = 1 << 20  # at most this much is drawn, about twice the area on the page

_FONT = "DejaVu Sans"  # part of Matplotlib
_FONTS_OF_OTHER_SCRIPTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans CJK KR",
    "Microsoft YaHei",
    "Yu Gothic",
    "Malgun Gothic",
    "PingFang SC",
    "Hiragino Sans",
    "Arial Unicode MS",
    "WenQuanYi Micro Hei",
)
"""Fonts for letters that `_FONT` lacks, where they are installed."""


class Panel(NamedTuple):
    """One image of a picture.

    Attributes:
        heading: text above it.
        pixels: (H, W, 3) sRGB.
        scale: for the colour bar below it; None draws none.
        caption: text below it.
    """

    heading: str
    pixels: Pixels
    scale: ColourScale | None = None
    caption: str = ""

    @classmethod
    def of_map(cls, heading: str, values: Map, scale: ColourScale | None) -> Panel:
        """A map (H, W) in colours; all grey without a scale."""
        step = math.isqrt(max(1, values.size // _PANEL_AREA_PX))
        shown = values[::step, ::step]
        if scale is None:
            return cls(heading, np.full((*shown.shape, 3), UNKNOWN_GREY, np.uint8))
        return cls(heading, scale.coloured(shown), scale)


class Strip(NamedTuple):
    """A row of panels, all of one size.

    Attributes:
        heading: text above the row.
        panels: from left to right; None leaves a place empty.
        tallest_px: height limit of the panels.
    """

    heading: str
    panels: Sequence[Panel | None]
    tallest_px: int

    def panel_size_px(self, width_px: float) -> tuple[float, float]:
        """(height, width) of each panel on a page of this width."""
        height, width = next(panel.pixels.shape[:2] for panel in self.panels if panel is not None)
        column = width_px / len(self.panels) - 2 * _PAD_PX
        fitting = min(column * height / width, self.tallest_px)
        return max(1.0, fitting), max(1.0, fitting * width / height)

    def height_px(self, width_px: float) -> int:
        """Height of the row with its texts and colour bars."""
        panels = [panel for panel in self.panels if panel is not None]
        texts = 4 * _PAD_PX + 30 * bool(self.heading) + 30 * any(one.heading for one in panels)
        below = max(52 if one.scale else 26 if one.caption else 0 for one in panels)
        return round(self.panel_size_px(width_px)[0]) + texts + below


def page(strips: Sequence[Strip], *, title: str = "", width_px: int = _WIDTH_PX) -> Pixels:
    """Rows of panels below each other.

    Args:
        strips: from top to bottom, at least one.
        title: of the whole page.
        width_px: of the page.

    Returns:
        (height, width_px, 3) sRGB.
    """
    width = width_px - 2 * _MARGIN_PX
    heights = [strip.height_px(width) for strip in strips]
    figure = _figure(width, sum(heights) + 50 * bool(title))
    if title:
        _write_title(figure, title, _TITLE_PX, fontweight="bold")
    rows = figure.subfigures(len(strips), 1, squeeze=False, height_ratios=heights)
    for strip, (row,) in zip(strips, rows, strict=True):
        _fill(row, strip, width)
    return _drawn(figure)


def depth_picture(values: Map, field: str) -> Pixels:
    """Depth in colours beside its colour bar; unknown is grey.

    Args:
        values: (H, W) in the unit of `field`, NaN where unknown.
        field: `depth_m`, `height_m` or `depth_relative`.

    Returns:
        (height, width, 3) sRGB; the map's long side has 480 to 1600 px.
    """
    depth = DepthRange.of(values, field)
    scale = None if depth is None else ColourScale.of_depth(depth)
    height, width = values.shape
    zoom = min(max(480, height, width), 1600) / max(height, width)
    map_width, map_height = max(1, round(width * zoom)), max(1, round(height * zoom))
    # Copies of values: the average over an outline would be a depth between its sides.
    shown: Map = cv2.resize(  # type: ignore[assignment]
        values.astype(np.float32), (map_width, map_height), interpolation=cv2.INTER_NEAREST
    )
    page_width, page_height = map_width + 100, max(map_height, 300)
    figure = _figure(page_width, page_height)
    figure.set_layout_engine("none")  # placed to the pixel, so that Matplotlib copies the map

    def axes_at(left: int, bottom: int, width: int, height: int) -> Axes:
        scaled = np.array([left, bottom, width, height]) / ([page_width, page_height] * 2)
        return figure.add_axes(tuple(scaled))

    pixels = np.full((*shown.shape, 3), UNKNOWN_GREY, np.uint8)
    bar = axes_at(map_width + 24, 8, 20, page_height - 16)  # labels at its ends need room
    if scale is None:
        bar.set_axis_off()
        bar.text(0, 1, "Nothing\nis known", fontsize=_TEXT_PX, verticalalignment="top")
    else:
        pixels = scale.coloured(shown)
        _add_bar(figure, bar, scale, "vertical", 24 / page_height)
        bar.set_ylabel(scale.title, fontsize=_TEXT_PX)
        if field == "depth_m":
            bar.invert_yaxis()  # the nearest, warmest is at the top
    bottom = (page_height - map_height) // 2
    _show(axes_at(0, bottom, map_width, map_height), pixels, interpolation="none")
    return _drawn(figure)


def srgb_pixels(srgb: NDArray[np.float32]) -> Pixels:
    """A small picture (h, w, 3) of an image (H, W, 3) in [0, 1]."""
    return np.rint(shrunk(srgb, _PANEL_AREA_PX).clip(0, 1) * 255).astype(np.uint8)


def shrunk(image: NDArray[np.float32], area_px: int) -> NDArray[np.float32]:
    """Average over areas, down to a number of pixels; smaller images stay."""
    height, width = image.shape[:2]
    scale = (area_px / (height * width)) ** 0.5
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _figure(width_px: int, height_px: int) -> Figure:
    """An empty page without margins, laid out by Matplotlib when it is drawn."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    pad = _PAD_PX / _DPI
    layout = ConstrainedLayoutEngine(w_pad=pad, h_pad=pad, wspace=0, hspace=0)
    size = width_px / _DPI, height_px / _DPI
    return Figure(figsize=size, dpi=_DPI, facecolor="white", layout=layout)


def _write_title(figure: Figure | SubFigure, text: str, size_px: int, **style: Any) -> None:
    style |= _style(text, size_px)
    left = _PAD_PX / figure.bbox.width
    figure.suptitle(_writable(text), x=left, horizontalalignment="left", **style)


def _fill(figure: Figure | SubFigure, strip: Strip, width_px: float) -> None:
    """Draw a strip on its part of the page."""
    if strip.heading:
        _write_title(figure, strip.heading, _HEADING_PX)
    height, width = strip.panel_size_px(width_px)
    narrowest = max(width, _NARROWEST_PX) + 2 * _PAD_PX
    columns = max(len(strip.panels), int(width_px // narrowest))
    places = figure.add_gridspec(1, columns)
    bar_width = max(width, min(_NARROWEST_PX, width_px / columns - 2 * _PAD_PX))
    for place, panel in enumerate(strip.panels):
        axes = figure.add_subplot(places[place], anchor="NW", visible=panel is not None)
        if panel is None:
            continue
        _show(axes, panel.pixels)
        axes.set_title(panel.heading, loc="left", fontsize=_HEADING_PX)
        axes.set_xlabel(panel.caption, loc="left", fontsize=_TEXT_PX)
        if panel.scale is not None:
            bar = axes.inset_axes((0, -24 / height, bar_width / width, _BAR_PX / height))
            _add_bar(figure, bar, panel.scale, "horizontal", 55 / bar_width)


def _show(axes: Axes, pixels: Pixels, **how: Any) -> None:
    axes.imshow(pixels, **how)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(linewidth=0.5, color="0.6")


def _add_bar(
    figure: Figure | SubFigure,
    axes: Axes,
    scale: ColourScale,
    orientation: Literal["horizontal", "vertical"],
    least_gap: float,
) -> None:
    """Make axes a colour bar."""
    from matplotlib.cm import ScalarMappable

    ticks = scale.ticks(max(0.09, least_gap))
    bar = figure.colorbar(
        ScalarMappable(scale.norm, scale.colour_map), axes, orientation=orientation, ticks=ticks
    )
    bar.set_ticklabels([f"{tick:.6g}".replace("-", "−") for tick in ticks], fontsize=_TEXT_PX)
    bar.minorticks_off()
    bar.outline.set(linewidth=0.5, edgecolor="0.6")
    if orientation == "horizontal":
        # Labels at the ends stay within the bar, so that columns keep equal distances.
        for place, label in zip(scale.places(ticks), axes.get_xticklabels(), strict=True):
            label.set_horizontalalignment(
                "left" if place < 0.01 else "right" if place > 0.99 else "center"
            )


def _drawn(figure: Figure) -> Pixels:
    """The page with a white margin, (height, width, 3) sRGB."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    page = np.asarray(canvas.buffer_rgba())[..., :3]
    margins = (_MARGIN_PX, _MARGIN_PX)
    return np.pad(page, (margins, margins, (0, 0)), constant_values=255)


def _style(text: str, size_px: int) -> dict[str, Any]:
    """Size and fonts of a text; a "$" in it starts no formula."""
    families = (_FONT,) if text.isascii() else _families()
    return {"fontsize": size_px, "fontfamily": families, "parse_math": False}


@cache
def _families() -> tuple[str, ...]:
    """Installed fonts to take letters from, in their order."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return (_FONT, *(name for name in _FONTS_OF_OTHER_SCRIPTS if name in installed))


@cache
def _letters() -> frozenset[int]:
    """Code points that these fonts have."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset().union(*(get_font(findfont(one)).get_charmap() for one in _families()))


def _writable(text: str) -> str:
    """The text with a square for each letter that no font has, which would cause a warning."""
    if text.isascii():
        return text
    return "".join(one if ord(one) in _letters() else "\N{WHITE SQUARE}" for one in text)
