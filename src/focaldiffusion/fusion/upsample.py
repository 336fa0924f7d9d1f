"""Edge-aware enlargement of maps that were solved at working resolution."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.filters import LUMA_WEIGHTS
from focaldiffusion.threads import in_parallel

Plane = NDArray[Any]  # float32; the return types of OpenCV leave the precision open

_HALF_WINDOW_PX = 2  # at working resolution: an edge moves by no more than this
_STRIP_ROWS = 64  # in work at once: more would not fit the cache
_EDGE_VARIANCE = 0.02**2  # of sRGB luma; weaker texture is not taken for an edge of the map


def upsample(values: Tensor, guide: NDArray[np.float32]) -> Plane:
    """Enlarge a map to the size of an image, aligning its edges with the image's.

    Fast guided filter (He and Sun, 2015): at working resolution the map is fitted, window by
    window, as a linear function of the guide; the enlarged coefficients are applied to the guide
    at full size. The result stays within nearby values of the map, so texture leaves no relief.

    Args:
        values: (h, w), no gaps.
        guide: (H, W, 3) sRGB, H >= h; at equal sizes the map is returned unchanged.

    Returns:
        (H, W) float32.
    """
    plane = np.ascontiguousarray(values.cpu().numpy(), dtype=np.float32)
    if plane.shape == guide.shape[:2]:
        return plane
    small = _luma(cv2.resize(guide, plane.shape[::-1], interpolation=cv2.INTER_AREA))
    mean_guide, mean_plane = _mean(small), _mean(plane)
    variance = _mean(small * small) - mean_guide**2
    slope = (_mean(small * plane) - mean_guide * mean_plane) / (variance + _EDGE_VARIANCE)
    offset = mean_plane - slope * mean_guide
    slope, offset = _mean(slope), _mean(offset)
    window = np.ones((3, 3), np.uint8)
    lowest, highest = cv2.erode(plane, window), cv2.dilate(plane, window)
    result = np.empty(guide.shape[:2], np.float32)

    def fill(top: int) -> None:
        rows = slice(top, top + _STRIP_ROWS)
        strip = result[rows]
        strip[:] = _enlarged(slope, rows, guide.shape)
        strip *= _luma(guide[rows])
        strip += _enlarged(offset, rows, guide.shape)
        for limit, bound in ((lowest, np.maximum), (highest, np.minimum)):
            bound(strip, _enlarged(limit, rows, guide.shape, linear=False), out=strip)

    for _ in in_parallel(fill, range(0, len(guide), _STRIP_ROWS)):
        pass
    return result


def _luma(image: Plane) -> Plane:
    return cv2.transform(image, np.array([LUMA_WEIGHTS], np.float32))


def _mean(plane: Plane) -> Plane:
    side = 2 * _HALF_WINDOW_PX + 1
    return cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT)


def _enlarged(plane: Plane, rows: slice, size: tuple[int, ...], *, linear: bool = True) -> Plane:
    """Some rows of a plane (h, w) enlarged to a size; linearly, or each pixel as it is nearest."""
    height, width = size[:2]
    y = np.arange(height)[rows]
    if linear:
        place = ((y + 0.5) * len(plane) / height - 0.5).clip(0, len(plane) - 1)
        above = place.astype(int)
        share = (place - above).astype(np.float32)[:, None]
        below = np.minimum(above + 1, len(plane) - 1)
        strip = plane[above] * (1 - share) + plane[below] * share
        return cv2.resize(strip, (width, len(y)), interpolation=cv2.INTER_LINEAR)
    strip = plane[y * len(plane) // height]
    return cv2.resize(strip, (width, len(y)), interpolation=cv2.INTER_NEAREST)
