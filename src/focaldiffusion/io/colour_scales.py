"""Ranges of depth in words, and the scales that turn numbers into colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.colors import Colormap, Normalize

UNKNOWN_GREY = 150
"""Grey level, 0 to 255, of pixels without a value."""

_INVERSE_RATIO = 3.0
_TICK_SLACK = 1e-6  # of the bar, for rounding
_MAX_SAMPLES = 1600  # along a side
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
        colours: name of a Matplotlib colour map.
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
        numbers = (values * self.per_unit).clip(self.low, self.high)  # also infinite ones
        return np.asarray(self.colour_map(self.norm(numbers), bytes=True))[..., :3]

    @property
    def norm(self) -> Normalize:
        """Matplotlib norm from numbers to [0, 1]."""
        from matplotlib.colors import FuncNorm, Normalize

        if self.is_inverse:
            return FuncNorm((_negated_inverse, _negated_inverse), self.low, self.high)
        return Normalize(self.low, self.high)

    def places(self, numbers: Sequence[float]) -> list[float]:
        """Positions on the colour bar, 0 to 1."""
        return np.asarray(self.norm(numbers), np.float64).tolist()

    @property
    def colour_map(self) -> Colormap:
        """Matplotlib colour map; NaN is grey."""
        from matplotlib import colormaps

        return colormaps[self.colours].with_extremes(bad=(UNKNOWN_GREY / 255,) * 3)

    def ticks(self, least_gap: float = 0.09) -> list[float]:
        """Round numbers along the colour bar.

        Args:
            least_gap: least distance from one tick to the next, as a share of the bar.
        """
        from matplotlib.ticker import MaxNLocator

        if self.is_inverse:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            candidates = [step * 10.0**decade for step in _ROUND_STEPS for decade in decades]
        else:
            locator = MaxNLocator(max(1, min(6, int(1 / least_gap))), steps=[1, 2, 2.5, 5, 10])
            candidates = [float(number) for number in locator.tick_values(self.low, self.high)]
        ticks: dict[float, float] = {}
        for number, place in zip(candidates, self.places(candidates), strict=True):
            apart = all(abs(place - other) >= least_gap for other in ticks.values())
            if apart and -_TICK_SLACK <= place <= 1 + _TICK_SLACK:
                ticks[number] = place
        return sorted(ticks)


def _negated_inverse(numbers: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """-1/x: grows with x, and is its own inverse."""
    with np.errstate(divide="ignore"):  # Matplotlib tries 0
        return -1 / numbers


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
