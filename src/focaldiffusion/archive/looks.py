"""Whether two photographs show the same, judged at the size of a thumbnail."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

LOOK_PX = 256
"""Long side of the thumbnails that are compared."""
_COARSE_PX = 32  # long side at which defocus hardly shows
_CELLS = 12  # along the long side, for detail
_LEAST_DETAIL = 2e-3  # of brightness, RMS, below which a cell is noise of 8 bits
_LEAST_CELLS = 6
_FLOOR = 1e-3  # added to detail: noise
_DARK = 1e-4  # added to light, so that black has a logarithm
_FARTHEST = 0.25  # of the width or height: a shift beyond is a mismatch


@dataclass(frozen=True, eq=False)
class Look:
    """A photograph at the size of a thumbnail.

    Attributes:
        light: (h, w), linear.
        coarse: (m, n) logarithm of light, without its mean.
        brightness: mean of that logarithm, in stops.
    """

    light: Plane
    coarse: Plane
    brightness: float

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Look:
        """The look of a thumbnail (h, w, 3) sRGB."""
        # Within a thumbnail, a square is close enough to the sRGB curve.
        light = np.square(pixels.astype(np.float32).mean(axis=2) / 255) + _DARK
        stops = np.log2(_shrunk(light, _COARSE_PX))
        return cls(light, stops - stops.mean(), float(stops.mean()))


def likeness(first: Look, second: Look) -> float:
    """Correlation of what defocus and exposure leave, at the best shift; 0 for other shapes."""
    if first.coarse.shape != second.coarse.shape:
        return 0.0
    height, width = first.coarse.shape
    reach = max(1, min(height, width) // 8)
    inner = first.coarse[reach:-reach, reach:-reach]
    if inner.size < 16:
        return 0.0
    scores = cv2.matchTemplate(second.coarse, inner, cv2.TM_CCOEFF_NORMED)
    best = float(scores.max())
    return best if np.isfinite(best) else 0.0


def focus_change(first: Look, second: Look) -> float:
    """How differently the sharpness changed from cell to cell; 0 where hardly any cell has detail.

    A change of exposure, or of noise, changes all cells alike; a motion of the camera during an
    exposure blurs them alike, and one between them is followed.

    Returns:
        Median deviation of the logarithm of the ratio of detail, in octaves.
    """
    if first.light.shape != second.light.shape:
        return 0.0
    one, other = (_detail(plane) for plane in _overlap(first.light, second.light))
    clear = np.maximum(one, other) > _LEAST_DETAIL
    if clear.sum() < _LEAST_CELLS:
        return 0.0
    ratio = np.log2((other[clear] + _FLOOR) / (one[clear] + _FLOOR))
    return float(np.median(np.abs(ratio - np.median(ratio))))


def _overlap(first: Plane, second: Plane) -> tuple[Plane, Plane]:
    """The part that both show, if the second is the first, shifted by whole pixels."""
    height, width = first.shape
    window = cv2.createHanningWindow((width, height), cv2.CV_32F)
    (x, y), _ = cv2.phaseCorrelate(np.log2(first), np.log2(second), window)
    right, down = round(x), round(y)
    if max(abs(right) / width, abs(down) / height) > _FARTHEST:
        right = down = 0
    rows, columns = height - abs(down), width - abs(right)
    one = first[max(0, -down) :, max(0, -right) :][:rows, :columns]
    other = second[max(0, down) :, max(0, right) :][:rows, :columns]
    return one, other


def _detail(light: Plane) -> Plane:
    """RMS of fine structure in cells, relative to their light."""
    fine = light - cv2.GaussianBlur(light, (0, 0), 1.5)
    squares, mean = _shrunk(np.square(fine), _CELLS), _shrunk(light, _CELLS)
    return np.asarray(np.sqrt(squares) / mean, np.float32)


def _shrunk(image: Plane, long_side_px: int) -> Plane:
    scale = min(1.0, long_side_px / max(image.shape))
    size = [max(1, round(side * scale)) for side in image.shape[::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.float32)
