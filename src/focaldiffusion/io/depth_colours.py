"""How depth becomes colours, and lengths become text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

UNKNOWN_GREY = 150
"""The grey, 0 to 255, of pixels whose depth is unknown."""

_INVERSE_RATIO = 3.0
_MAX_SAMPLES = 1600


@dataclass(frozen=True)
class ColourScale:
    """The colours of a depth field: the nearest is the warmest.

    Metric depth is coloured by inverse depth where the far end is more than three times as far
    as the near one, so that the near part, where focus tells most, keeps its colours. Height and
    relative depth grow towards the warm end.

    Attributes:
        field: `Reconstruction.depth_field` of the values.
        low: value at one end: the 1 % quantile of the known values; 0 for relative depth.
        high: value at the other end: the 99 % quantile; 1 for relative depth.
        mapping: what of the value is linear along the colours.
    """

    field: str
    low: float
    high: float
    mapping: Literal["inverse", "negative", "identity"]

    @classmethod
    def of(cls, values: Tensor, field: str) -> ColourScale | None:
        """The scale that suits `values` (H, W), or None where nothing is known."""
        known = thinned(values)
        known = known[np.isfinite(known)]
        if known.size == 0:
            return None
        if field == "depth_relative":
            return cls(field, 0.0, 1.0, "identity")
        low, high = (float(end) for end in np.quantile(known, [0.01, 0.99]))
        if high - low <= 1e-6 * abs(high):
            # A plane: without some width every value would be at both ends.
            margin = 0.01 * abs(high) or 1e-6
            low, high = low - margin, high + margin
        if field == "height_m":
            return cls(field, low, high, "identity")
        return cls(field, low, high, "inverse" if high > _INVERSE_RATIO * low else "negative")

    @property
    def is_length(self) -> bool:
        """Whether the values are metres."""
        return self.field != "depth_relative"

    @property
    def title(self) -> str:
        """What the colours mean, with the unit of `ticks`."""
        if not self.is_length:
            return "Relative depth, first to last frame"
        unit, _ = self._unit
        return f"Depth [{unit}]" if self.field == "depth_m" else f"Height [{unit}]"

    @property
    def range_text(self) -> str | None:
        """The two ends as text; None for relative depth, where they say nothing."""
        if not self.is_length:
            return None
        low, high = length_labels([self.low, self.high])
        return f"{'depth' if self.field == 'depth_m' else 'height'} {low} to {high}"

    def position(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Values to [0, 1]: 0 the coldest colour, 1 the warmest; clipped beyond the ends."""
        start, stop = sorted(self._linear(np.array([self.low, self.high])))
        return ((self._linear(values) - start) / (stop - start)).clip(0, 1)

    def colours(self, values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
        """Values (H, W) to sRGB (H, W, 3); NaN is grey."""
        unknown = np.isnan(values)
        level = np.rint(self.position(np.where(unknown, self.high, values)) * 255)
        picture = colour_table()[level.astype(np.uint8)]
        picture[unknown] = UNKNOWN_GREY
        return picture

    def ticks(self, distance: float = 0.09) -> dict[float, str]:
        """Round values along the scale: their position in [0, 1] and their text.

        Args:
            distance: the least from one position to the next.
        """
        per_metre = self._unit[1] if self.is_length else 1.0
        low, high = self.low * per_metre, self.high * per_metre
        ticks: dict[float, str] = {}
        for value in self._round_values(low, high):
            position = float(self.position(np.array([value / per_metre]))[0])
            if all(abs(position - other) >= distance for other in ticks):
                ticks[position] = f"{value:.6g}".replace("-", "−")
        return dict(sorted(ticks.items()))

    def _round_values(self, low: float, high: float) -> list[float]:
        """Candidates for ticks from `low` to `high`, those to prefer first."""
        from matplotlib.ticker import MaxNLocator

        if self.mapping == "inverse":
            decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
            steps = (1, 2, 5, 3, 1.5, 4, 8, 6, 2.5, 1.2)
            values = [step * 10.0**decade for step in steps for decade in decades]
        else:
            locator = MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10])
            values = [float(value) for value in locator.tick_values(low, high)]
        slack = 1e-6 * (high - low)
        return [value for value in values if low - slack <= value <= high + slack]

    @property
    def _unit(self) -> tuple[str, float]:
        return length_unit(max(abs(self.low), abs(self.high)))

    def _linear(self, values: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        linear = np.asarray(values, np.float64)
        if self.mapping == "inverse":
            return 1 / linear
        return -linear if self.mapping == "negative" else linear


@lru_cache(maxsize=1)
def colour_table() -> NDArray[np.uint8]:
    """(256, 3) sRGB from cold to warm: turbo (Mikhailov 2019)."""
    from matplotlib import colormaps

    return colormaps["turbo"](np.arange(256), bytes=True)[:, :3]


def thinned(values: Tensor) -> NDArray[np.float32]:
    """Every n-th row and column of (H, W, ...), n the largest that leaves 1600 on the long side.

    No picture shows more, and quantiles of 16 M values only cost time.
    """
    step = max(1, max(values.shape) // _MAX_SAMPLES)
    return values[::step, ::step].detach().cpu().float().numpy()


def length_unit(largest_m: float) -> tuple[str, float]:
    """The unit in which lengths up to `largest_m` read well, and how many of it make a metre."""
    if largest_m >= 0.1:
        return "m", 1.0
    return ("mm", 1e3) if largest_m >= 1e-4 else ("µm", 1e6)


def length_labels(lengths_m: Sequence[float]) -> list[str]:
    """Lengths as text in one unit, with no more digits than it takes to tell them apart.

    Args:
        lengths_m: metres, any sign, infinity allowed.

    Returns:
        Such as ["0.24 m", "0.36 m", "1.5 m", "∞"].
    """
    finite = [abs(length) for length in lengths_m if math.isfinite(length)]
    unit, per_metre = length_unit(max(finite, default=1.0))
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
    """`value` to that many significant digits at least, never in exponent notation."""
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{decimals}f}".replace("-", "−")
