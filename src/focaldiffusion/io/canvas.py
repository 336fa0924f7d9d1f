"""A page to put pictures and words on, for people to look at.

Sizes and positions are pixels of the page, from its top left corner. Drawn with Matplotlib's
`Figure` alone: no pyplot, no global state, safe in any thread.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.io.depth_colours import ColourScale, colour_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# A font without a bold face is no news for who reconstructs a stack.
logging.getLogger("matplotlib").addHandler(logging.NullHandler())

_DPI = 100
_SMALL = 15
"""Height of the numbers on colour bars [px]."""

_FONT = "DejaVu Sans"  # which Matplotlib brings
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
"""Where the names of stacks find letters that `_FONT` lacks; those that are installed count."""


class Box(NamedTuple):
    """A rectangle of the page."""

    left: int
    top: int
    width: int
    height: int

    @property
    def bottom(self) -> int:
        """The first row below it."""
        return self.top + self.height


class Canvas:
    """A white page of (width, height)."""

    def __init__(self, width: int, height: int) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")

    def show(self, box: Box, picture: NDArray[np.uint8]) -> Axes:
        """Draw a picture in its box, resampled here so that Matplotlib copies pixels one to one.

        Returns:
            Axes from (0, 0) at the bottom left of the box to (1, 1) at its top right.
        """
        from PIL import Image

        # Sharp, and without the overshoot that would add colours beside depth edges.
        resized = Image.fromarray(picture).resize((box.width, box.height), Image.Resampling.HAMMING)
        axes = self._figure.add_axes(
            (
                box.left / self.width,
                1 - box.bottom / self.height,
                box.width / self.width,
                box.height / self.height,
            )
        )
        axes.imshow(resized, extent=(0, 1, 0, 1), aspect="auto", interpolation="none")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set(linewidth=0.5, color="0.6")
        return axes

    def write(self, left: int, top: int, text: str, size: int, **style: Any) -> None:
        """Write a line of text, its letters so many pixels high, its corner at (left, top)."""
        families = (_FONT,) if text.isascii() else _families()
        # A name may contain "$", which must not start a formula.
        self._figure.text(
            left / self.width,
            1 - top / self.height,
            text if text.isascii() else _writable(text),
            fontfamily=families,
            fontsize=_points(size),
            verticalalignment="top",
            parse_math=False,
            **style,
        )

    def bar_beside(self, bar: Box, scale: ColourScale) -> None:
        """An upright colour bar, nearest at its top, with its title to the right."""
        axes = self.show(bar, colour_table()[::-1, None])
        _number(axes.yaxis, scale.ticks(distance=max(0.09, 24 / bar.height)))
        axes.yaxis.tick_right()
        axes.yaxis.set_label_position("right")
        axes.set_ylabel(scale.title, fontsize=_points(_SMALL))

    def bar_below(
        self, panel: Box, scale: ColourScale | None, table: NDArray[np.uint8] | None = None
    ) -> None:
        """A colour bar under a panel: of `scale`, or of `table` (256, 3) from 0 to 1."""
        if table is None:
            table = colour_table()
        bar = Box(panel.left, panel.bottom + 10, panel.width, 14)
        # Lengths read from left to right, and in depth the nearest, warmest comes first.
        flip = scale is not None and scale.mapping != "identity"
        axes = self.show(bar, table[None, ::-1] if flip else table[None])
        if scale is None:
            ticks = {quarter / 4: f"{quarter / 4:g}" for quarter in range(5)}
        else:
            ticks = scale.ticks(distance=max(0.09, 55 / panel.width))
        _number(axes.xaxis, {1 - at if flip else at: text for at, text in ticks.items()})

    def drawn(self) -> NDArray[np.uint8]:
        """The page, (height, width, 3) sRGB."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(self._figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def eight_bit(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Values in [0, 1] as 0 to 255."""
    return np.rint(values.clip(0, 1) * 255).astype(np.uint8)


def _number(axis: Any, ticks: dict[float, str]) -> None:
    axis.set_ticks(list(ticks), labels=list(ticks.values()), fontsize=_points(_SMALL))
    axis.set_tick_params(length=4)


@cache
def _families() -> tuple[str, ...]:
    """The fonts that text may take its letters from, in their order."""
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return (_FONT, *(name for name in _FONTS_OF_OTHER_SCRIPTS if name in installed))


@cache
def _letters() -> frozenset[int]:
    """The code points that these fonts have."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset().union(*(get_font(findfont(one)).get_charmap() for one in _families()))


def _writable(text: str) -> str:
    """The text with a square in place of each letter that no font has, and no warning."""
    return "".join(one if ord(one) in _letters() else "\N{WHITE SQUARE}" for one in text)


def _points(pixels: float) -> float:
    return pixels * 72 / _DPI
