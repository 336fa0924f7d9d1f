"""Edge-aware enlargement of maps that were solved at working resolution."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.filters import LUMA_WEIGHTS
from focaldiffusion.frames import Window, reduced_in_strips, strips
from focaldiffusion.threads import in_parallel

Plane = NDArray[Any]  # float32; the return types of OpenCV leave the precision open

_HALF_WINDOW_PX = 2  # at working resolution: an edge moves by no more than this
_EDGE_VARIANCE = 0.02**2  # of sRGB luma; weaker texture is not taken for an edge of the map


def upsample(values: Tensor, guide: NDArray[np.float32]) -> Plane:
    """Enlarge a map to the size of an image, aligning its edges with the image's.

    Fast guided filter (He and Sun, 2015): at working resolution the map is fitted, window by
    window, as a linear function of the guide; the enlarged coefficients are applied to the guide
    at full size. The result stays within nearby values of the map, so texture leaves no relief.

    Args:
        values: (h, w), no gaps.
        guide: (H, W, 3) sRGB, H >= h; at equal sizes the map stays unchanged.

    Returns:
        (H, W) float32, a new array.
    """
    plane = np.array(values.cpu().numpy(), np.float32, order="C")
    size = guide.shape[0], guide.shape[1]
    if plane.shape == size:
        return plane

    def luma(strip: Window) -> Plane:
        return cv2.transform(guide[strip], np.array([LUMA_WEIGHTS], np.float32))

    small = reduced_in_strips(luma, size, (len(plane), plane.shape[1]))
    mean_guide, mean_plane = _mean(small), _mean(plane)
    variance = _mean(small * small) - mean_guide**2
    slope = (_mean(small * plane) - mean_guide * mean_plane) / (variance + _EDGE_VARIANCE)
    offset = mean_plane - slope * mean_guide
    slopes, offsets = (Enlarged(_mean(one), size) for one in (slope, offset))
    window = np.ones((3, 3), np.uint8)
    lowest, highest = (
        Enlarged(extreme(plane, window), size, cv2.INTER_NEAREST)
        for extreme in (cv2.erode, cv2.dilate)
    )
    result = np.empty(size, np.float32)

    def solve(strip: Window) -> None:
        fitted = slopes.part(strip)
        fitted *= luma(strip)
        fitted += offsets.part(strip)
        np.clip(fitted, lowest.part(strip), highest.part(strip), out=result[strip])

    for _ in in_parallel(solve, strips(size)):
        pass
    return result


class Enlarged:
    """A plane (h, w) at the size of an image, part by part."""

    def __init__(
        self, plane: Plane, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR
    ) -> None:
        """The plane at a size (height, width), bilinear or nearest, as `cv2.resize` makes it."""
        self.height, self.is_linear = size[0], interpolation == cv2.INTER_LINEAR
        self.wide: Plane = cv2.resize(plane, (size[1], len(plane)), interpolation=interpolation)

    def part(self, window: Window) -> Plane:
        """A window of the enlarged plane."""
        rows, columns = window
        count = len(self.wide)
        place = np.arange(rows.start, rows.stop) * (count / self.height)
        if not self.is_linear:
            return self.wide[np.minimum(place.astype(int), count - 1), columns]
        place += 0.5 * count / self.height - 0.5
        before = np.floor(place).astype(int)
        share = (place - before).astype(np.float32)[:, None]
        above, below = (
            self.wide[np.clip(row, 0, count - 1), columns] for row in (before, before + 1)
        )
        below -= above
        below *= share
        above += below
        return above


def _mean(plane: Plane) -> Plane:
    side = 2 * _HALF_WINDOW_PX + 1
    return cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT)
