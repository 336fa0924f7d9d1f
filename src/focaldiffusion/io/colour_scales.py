"""Ranges of depth in words, and the scales that turn numbers into colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

UNKNOWN_GREY = 150
"""Grey level, 0 to 255, of pixels without a value."""

_INVERSE_RATIO = 3.0
_TICK_SLACK = 1e-6  # of the bar, for rounding
_MAX_SAMPLES = 800  # along a side
_COLOURS = 256  # of a colour map
_OPENCV_MAPS = {
    "turbo": cv2.COLORMAP_TURBO,
    "viridis": cv2.COLORMAP_VIRIDIS,
    "cividis": cv2.COLORMAP_CIVIDIS,
    "inferno": cv2.COLORMAP_INFERNO,
}
# ColorBrewer's RdBu, by Cynthia Brewer.
_RED_TO_BLUE = (
    *("67001f", "b2182b", "d6604d", "f4a582", "fddbc7", "f7f7f7"),
    *("d1e5f0", "92c5de", "4393c3", "2166ac", "053061"),
)
_ROUND_STEPS = (1, 2, 5, 3, 1.5, 4, 8, 6, 2.5, 1.2)  # the best first


@dataclass(frozen=True)
class DepthRange:
    """The range of a depth map, without its outliers.

    Attributes:
        field: `depth_m`, `height_m` or `depth_relative`.
        low: 1 % quantile of the known values, in the unit of the field; 0 for relative depth.
        high: 99 % quantile; 1 for relative depth.
    """

    field: str
    low: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]], field: str) -> DepthRange | None:
        """The range of `values` (H, W), or None if all are NaN or infinite."""
        step = max(1, max(values.shape) // _MAX_SAMPLES)
        known = values[::step, ::step]
        known = known[np.isfinite(known)]
        if known.size == 0:
            return None
        if field == "depth_relative":
            return cls(field, 0.0, 1.0)
        low, high = (float(end) for end in np.quantile(known, [0.01, 0.99]))
        if high - low <= 1e-6 * abs(high):
            # A range of zero width has no colours.
            margin = 0.01 * abs(high) or 1e-6
            low, high = low - margin, high + margin
        return cls(field, low, high)

    @property
    def text(self) -> str | None:
        """Both ends in words, such as "depth 0.41 m to 2.5 m"; None for relative depth."""
        if self.field == "depth_relative":
            return None
        low, high = length_labels([self.low, self.high])
        return f"{'depth' if self.field == 'depth_m' else 'height'} {low} to {high}"


@dataclass(frozen=True)
class ColourScale:
    """The colours of numbers, for a map and its colour bar.

    Attributes:
        title: meaning of the numbers, with the unit of the colour bar.
        low: number at the first colour, in that unit.
        high: number at the last colour.
        colours: `gray`, `RdBu`, `turbo`, `viridis`, `cividis` or `inferno`, from the first colour
            to the last; with `_r`, reversed.
        is_inverse: whether 1/number is linear along the colours, instead of the number.
        per_unit: factor from the values of a map to the unit of the colour bar.
    """

    title: str
    low: float
    high: float
    colours: str
    is_inverse: bool = False
    per_unit: float = 1.0

    @classmethod
    def of_depth(cls, depth: DepthRange) -> ColourScale:
        """The scale of a depth map, in turbo colours (Mikhailov 2019).

        The nearest depth is the warmest. Colours are linear in inverse depth if the far end is
        more than three times as far as the near one: defocus separates near depths best. Height
        and relative depth grow towards the warm end.
        """
        if depth.field == "depth_relative":
            return cls("Relative depth, first to last frame", depth.low, depth.high, "turbo")
        unit, per_metre = _length_unit(max(abs(depth.low), abs(depth.high)))
        ends = depth.low * per_metre, depth.high * per_metre
        if depth.field == "height_m":
            return cls(f"Height [{unit}]", *ends, "turbo", per_unit=per_metre)
        is_inverse = depth.high > _INVERSE_RATIO * depth.low
        return cls(f"Depth [{unit}]", *ends, "turbo_r", is_inverse, per_metre)

    def coloured(self, values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Values (H, W) as sRGB (H, W, 3); NaN is grey."""
        # Clipped first: infinity has a colour.
        shares = self.places((values * self.per_unit).clip(self.low, self.high))
        levels = np.nan_to_num(shares * _COLOURS).clip(0, _COLOURS - 1).astype(np.uint8)
        pixels = _table(self.colours).take(levels, axis=0)
        pixels[np.isnan(shares)] = UNKNOWN_GREY
        return pixels

    def gradient(self, length_px: int) -> NDArray[np.uint8]:
        """The colour bar, (length_px, 3) sRGB from the first colour to the last."""
        return _table(self.colours)[np.arange(length_px) * _COLOURS // length_px]

    def places(self, numbers: ArrayLike) -> NDArray[np.floating[Any]]:
        """Positions on the colour bar, 0 to 1, of numbers in its unit."""
        at = np.asarray(numbers)
        if self.is_inverse:
            return (1 / self.low - 1 / at) / (1 / self.low - 1 / self.high)
        return (at - self.low) / (self.high - self.low)

    def ticks(self, least_gap: float = 0.09) -> list[float]:
        """Round numbers along the colour bar.

        Args:
            least_gap: least distance from one tick to the next, as a share of the bar.
        """
        if not self.is_inverse:
            return _evenly_spaced(self.low, self.high, max(1, min(6, int(1 / least_gap))))
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        candidates = [step * 10.0**decade for step in _ROUND_STEPS for decade in decades]
        ticks: dict[float, float] = {}
        for number, place in zip(candidates, self.places(candidates).tolist(), strict=True):
            apart = all(abs(place - other) >= least_gap for other in ticks.values())
            if apart and -_TICK_SLACK <= place <= 1 + _TICK_SLACK:
                ticks[number] = place
        return sorted(ticks)


@cache
def _table(name: str) -> NDArray[np.uint8]:
    """The 256 sRGB colours of a map, (256, 3)."""
    if name.endswith("_r"):
        return _table(name.removesuffix("_r"))[::-1]
    levels = np.arange(_COLOURS, dtype=np.uint8)
    if name in _OPENCV_MAPS:
        bgr = cv2.applyColorMap(levels[None], _OPENCV_MAPS[name])[0]
        return np.asarray(bgr[:, ::-1], np.uint8)
    if name == "gray":
        return np.stack([levels] * 3, axis=-1)
    ends = np.linspace(0, _COLOURS - 1, len(_RED_TO_BLUE))
    channels = zip(*(bytes.fromhex(colour) for colour in _RED_TO_BLUE), strict=True)
    mixed = [np.interp(levels, ends, channel) for channel in channels]
    return np.rint(np.stack(mixed, axis=-1)).astype(np.uint8)


def _evenly_spaced(low: float, high: float, most_steps: int) -> list[float]:
    """Multiples of the smallest round step that fits in at most `most_steps`; at least two."""
    smallest = (high - low) / most_steps
    decade = 10.0 ** math.floor(math.log10(smallest))
    steps = [decade * mantissa for mantissa in (1, 2, 2.5, 5, 10)]
    fitting = next(i for i, step in enumerate(steps) if step >= smallest * (1 - _TICK_SLACK))
    slack = _TICK_SLACK * (high - low)
    numbers: list[float] = []
    for step in reversed(steps[: fitting + 1]):
        first, last = math.ceil((low - slack) / step), math.floor((high + slack) / step)
        numbers = [index * step for index in range(first, last + 1)]
        if len(numbers) > 1:
            break
    return numbers


def _length_unit(largest_m: float) -> tuple[str, float]:
    """A unit that suits lengths up to `largest_m`, and its number per metre."""
    if largest_m >= 0.1:
        return "m", 1.0
    return ("mm", 1e3) if largest_m >= 1e-4 else ("µm", 1e6)


def length_labels(lengths_m: Sequence[float]) -> list[str]:
    """Lengths as text in one unit, with just enough digits to tell them apart.

    Args:
        lengths_m: metres, any sign, infinity allowed.

    Returns:
        Such as ["0.24 m", "0.36 m", "1.5 m", "∞"].
    """
    finite = [abs(length) for length in lengths_m if math.isfinite(length)]
    unit, per_metre = _length_unit(max(finite, default=1.0))
    labels: list[str] = []
    for digits in range(2, 7):
        labels = [
            f"{_rounded(length * per_metre, digits)} {unit}" if math.isfinite(length) else "∞"
            for length in lengths_m
        ]
        if len(set(labels)) == len(set(lengths_m)):
            break
    return labels


def _rounded(value: float, digits: int) -> str:
    """`value` with at least `digits` significant digits, never in exponent notation."""
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{decimals}f}".replace("-", "−")
