"""Text on pictures, in DejaVu Sans and, for the letters it lacks, in fonts of the system."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from PIL import ImageFont
from PIL.ImageDraw import ImageDraw
from PIL.ImageFont import FreeTypeFont

INK = (20, 20, 20)

_FONTS_OF_THE_SYSTEM = (
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "msyh.ttc",
    "YuGothR.ttc",
    "malgun.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "Arial Unicode.ttf",
    "wqy-microhei.ttc",
)
_UNWRITABLE = "\N{WHITE SQUARE}"
_ELLIPSIS = "…"
_NO_LETTER = "\uffff"  # no font has it: it shows the picture of a missing letter


class Lettering(NamedTuple):
    """A size and weight of text."""

    size_px: int
    is_bold: bool = False

    def width_px(self, text: str) -> float:
        """Length of a line of text."""
        return sum(font.getlength(part) for font, part in self._parts(text))

    def fitted(self, text: str, width_px: float) -> str:
        """The text, shortened to a width; an ellipsis marks the cut."""
        if self.width_px(text) <= width_px:
            return text
        while text and self.width_px(text + _ELLIPSIS) > width_px:
            text = text[:-1]
        return text + _ELLIPSIS

    def write(self, draw: ImageDraw, left: float, baseline: float, text: str) -> None:
        """Write a line, with a square for each letter that no font has."""
        for font, part in self._parts(text):
            draw.text((left, baseline), part, INK, font, anchor="ls")
            left += font.getlength(part)

    def _parts(self, text: str) -> Iterator[tuple[FreeTypeFont, str]]:
        """Parts of the text, each with the font that has its letters."""
        text = "".join(one if self._font_of(one) else _UNWRITABLE for one in text)
        for font, letters in groupby(text, self._font_of):
            yield font or _built_in(self.size_px), "".join(letters)

    def _font_of(self, letter: str) -> FreeTypeFont | None:
        return _font_of(letter, self)


@cache
def _font_of(letter: str, lettering: Lettering) -> FreeTypeFont | None:
    """The first font that has the letter."""
    if not letter.isprintable():
        return None
    for name in (_matplotlibs(lettering.is_bold), *_FONTS_OF_THE_SYSTEM):
        font = _opened(name, lettering.size_px)
        if font is not None and bytes(font.getmask(letter)) != bytes(font.getmask(_NO_LETTER)):
            return font
    return None


@cache
def _opened(name: str, size_px: int) -> FreeTypeFont | None:
    try:
        return ImageFont.truetype(name, size_px)
    except OSError:  # not installed
        return None


@cache
def _built_in(size_px: int) -> FreeTypeFont:
    """Pillow's own font, which has few letters."""
    return ImageFont.load_default(size_px)  # type: ignore[return-value]


def _matplotlibs(is_bold: bool) -> str:
    """DejaVu Sans among the files of Matplotlib, whose import would take long."""
    package = find_spec("matplotlib")
    folder = Path(package.origin or "").parent if package is not None else Path()
    return str(folder / "mpl-data/fonts/ttf" / f"DejaVuSans{'-Bold' if is_bold else ''}.ttf")
