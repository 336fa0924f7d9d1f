"""Panels with headings and colour bars, laid out on a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from focaldiffusion.io.colour_scales import UNKNOWN_GREY, ColourScale, DepthRange
from focaldiffusion.io.lettering import INK, Lettering

Map = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]

_WIDTH_PX = 1800
_MARGIN_PX, _PAD_PX = 28, 6
_TITLE, _HEADING, _TEXT = Lettering(28, is_bold=True), Lettering(18), Lettering(15)
_TITLE_PX, _HEADING_PX = 42, 30  # heights, with the space below
_BAR_PX, _TICK_PX = 14, 4
_FRAME = (170, 170, 170)
_NARROWEST_PX = 240  # of columns: narrow panels need room for their colour bars
_VISIBLE_PIXELS = 3  # enlargement beyond which pixels are drawn as squares
_PANEL_AREA_PX = 1 << 20  # at most this much is drawn, about twice the area on the page


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

    def panel_size_px(self, width_px: int) -> tuple[int, int]:
        """(height, width) of each panel on a page of this width."""
        height, width = next(panel.pixels.shape[:2] for panel in self.panels if panel is not None)
        column = width_px / len(self.panels) - 2 * _PAD_PX
        fitting = min(column * height / width, self.tallest_px)
        return max(1, int(fitting)), max(1, int(fitting * width / height))

    def column_px(self, width_px: int) -> int:
        """Distance from panel to panel: more than a narrow panel needs for its texts."""
        panels = [panel for panel in self.panels if panel is not None]
        texts = max(math.ceil(_HEADING.width_px(panel.heading)) for panel in panels)
        wanted = max(self.panel_size_px(width_px)[1], _NARROWEST_PX, texts) + 2 * _PAD_PX
        return width_px // max(len(self.panels), width_px // wanted)

    def height_px(self, width_px: int) -> int:
        """Height of the row with its texts and colour bars."""
        panels = [panel for panel in self.panels if panel is not None]
        headings = bool(self.heading) + any(panel.heading for panel in panels)
        below = max(52 if one.scale else 26 if one.caption else 0 for one in panels)
        return self.panel_size_px(width_px)[0] + 4 * _PAD_PX + headings * _HEADING_PX + below

    def draw(self, sheet: Image.Image, top: int) -> None:
        """Draw the row on a page, from `top` downwards."""
        room = sheet.width - 2 * _MARGIN_PX
        height, width = self.panel_size_px(room)
        column = self.column_px(room)
        draw = ImageDraw.Draw(sheet)
        top += _PAD_PX
        if self.heading:
            heading = _HEADING.fitted(self.heading, room - 2 * _PAD_PX)
            _HEADING.write(draw, _MARGIN_PX + _PAD_PX, top + 20, heading)
            top += _HEADING_PX
        if any(panel is not None and panel.heading for panel in self.panels):
            top += _HEADING_PX
        lefts = range(_MARGIN_PX + _PAD_PX, sheet.width, column)
        for left, panel in zip(lefts, self.panels, strict=False):
            if panel is None:
                continue
            texts = column - 2 * _PAD_PX
            _HEADING.write(draw, left, top - 10, _HEADING.fitted(panel.heading, texts))
            _show(sheet, left, top, _resized(panel.pixels, height, width))
            below = top + height
            _TEXT.write(draw, left, below + 20, _TEXT.fitted(panel.caption, texts))
            if panel.scale is not None:
                length = max(width, min(_NARROWEST_PX, texts))
                _draw_bar_below(sheet, left, below + 10, length, panel.scale)


def page(strips: Sequence[Strip], *, title: str = "", width_px: int = _WIDTH_PX) -> Pixels:
    """Rows of panels below each other.

    Args:
        strips: from top to bottom, at least one.
        title: of the whole page.
        width_px: of the page.

    Returns:
        (height, width_px, 3) sRGB.
    """
    room = width_px - 2 * _MARGIN_PX
    heights = [strip.height_px(room) for strip in strips]
    top = _MARGIN_PX + _TITLE_PX * bool(title)
    sheet = Image.new("RGB", (width_px, top + sum(heights) + _MARGIN_PX), "white")
    text = _TITLE.fitted(title, room - 2 * _PAD_PX)
    _TITLE.write(ImageDraw.Draw(sheet), _MARGIN_PX + _PAD_PX, _MARGIN_PX + 28, text)
    for strip, height in zip(strips, heights, strict=True):
        strip.draw(sheet, top)
        top += height
    return np.array(sheet)


def depth_picture(values: Map, field: str) -> Pixels:
    """Depth in colours beside its colour bar; unknown is grey.

    Args:
        values: (H, W) in the unit of `field`, NaN where unknown.
        field: `depth_m`, `height_m` or `depth_relative`.

    Returns:
        (height, width, 3) sRGB; the map's long side has 480 to 1600 px.
    """
    depth = DepthRange.of(values, field)
    height, width = values.shape
    zoom = min(max(480, height, width), 1600) / max(height, width)
    map_width, map_height = max(1, round(width * zoom)), max(1, round(height * zoom))
    # Copies of values: the average over an outline would be a depth between its sides.
    shown: Map = cv2.resize(  # type: ignore[assignment]
        values.astype(np.float32, copy=False),
        (map_width, map_height),
        interpolation=cv2.INTER_NEAREST,
    )
    page_height = max(map_height, 300)
    size = map_width + 110 + 2 * _MARGIN_PX, page_height + 2 * _MARGIN_PX
    sheet = Image.new("RGB", size, "white")
    top = _MARGIN_PX + (page_height - map_height) // 2
    beside = _MARGIN_PX + map_width + 24
    if depth is None:
        _show(sheet, _MARGIN_PX, top, np.full((*shown.shape, 3), UNKNOWN_GREY, np.uint8))
        for line, text in enumerate(("Nothing", "is known"), start=1):
            _TEXT.write(ImageDraw.Draw(sheet), beside, _MARGIN_PX + 20 * line, text)
        return np.array(sheet)
    scale = ColourScale.of_depth(depth)
    _show(sheet, _MARGIN_PX, top, scale.coloured(shown))
    # The nearest, warmest is at the top.
    _draw_bar_beside(sheet, beside, scale, is_upwards=field != "depth_m")
    return np.array(sheet)


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


def _resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """A panel at its size on the page; much enlarged pixels stay visible."""
    enlargement = height / len(pixels)
    how = cv2.INTER_AREA if enlargement < 1 else cv2.INTER_LINEAR
    if enlargement > _VISIBLE_PIXELS:
        how = cv2.INTER_NEAREST
    return cv2.resize(pixels, (width, height), interpolation=how)  # type: ignore[return-value]


def _show(sheet: Image.Image, left: int, top: int, pixels: Pixels) -> None:
    """Paste a picture, in a thin frame around it."""
    height, width = pixels.shape[:2]
    frame = (left - 1, top - 1, left + width, top + height)
    ImageDraw.Draw(sheet).rectangle(frame, outline=_FRAME)
    sheet.paste(Image.fromarray(pixels), (left, top))


def _draw_bar_below(
    sheet: Image.Image, left: int, top: int, length: int, scale: ColourScale
) -> None:
    """A horizontal colour bar; labels at its ends stay within it."""
    draw = ImageDraw.Draw(sheet)
    _show(sheet, left, top, np.tile(scale.gradient(length), (_BAR_PX, 1, 1)))
    bottom = top + _BAR_PX
    free = left  # from here on no label stands
    for place, label in _labelled_ticks(scale, 55 / length):
        x = left + round(place * (length - 1))
        draw.line((x, bottom + 1, x, bottom + _TICK_PX), INK)
        width = math.ceil(_TEXT.width_px(label))
        start = min(max(x - width // 2, left), left + length - width)
        if start >= free:
            _TEXT.write(draw, start, bottom + _TICK_PX + 15, label)
            free = start + width + _PAD_PX


def _draw_bar_beside(
    sheet: Image.Image, left: int, scale: ColourScale, *, is_upwards: bool
) -> None:
    """A vertical colour bar as high as the page, with its title."""
    draw = ImageDraw.Draw(sheet)
    top = _MARGIN_PX + 8  # labels at the ends need room
    length = sheet.height - 2 * top
    column = scale.gradient(length)[:, None]
    _show(sheet, left, top, np.tile(column[::-1] if is_upwards else column, (1, 20, 1)))
    right = left + 20
    widest = 0
    for place, label in _labelled_ticks(scale, 24 / length):
        y = top + round((1 - place if is_upwards else place) * (length - 1))
        draw.line((right + 1, y, right + _TICK_PX, y), INK)
        _TEXT.write(draw, right + 8, y + 5, label)
        widest = max(widest, math.ceil(_TEXT.width_px(label)))
    title = Image.new("RGB", (math.ceil(_TEXT.width_px(scale.title)), 20), "white")
    _TEXT.write(ImageDraw.Draw(title), 0, 15, scale.title)
    title = title.rotate(90, expand=True)
    sheet.paste(title, (right + 8 + widest + 4, (sheet.height - title.height) // 2))


def _labelled_ticks(scale: ColourScale, least_gap: float) -> list[tuple[float, str]]:
    """(position on the bar, label) of each tick."""
    ticks = scale.ticks(max(0.09, least_gap))
    labels = [f"{tick:.6g}".replace("-", "−") for tick in ticks]
    return list(zip(scale.places(ticks).tolist(), labels, strict=True))
