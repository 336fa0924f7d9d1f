"""Edge-aware enlargement of maps that were solved at working resolution."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.filters import LUMA_WEIGHTS

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
        guide: (H, W, 3) sRGB, H >= h; at equal sizes the map is returned unchanged.

    Returns:
        (H, W) float32.
    """
    plane = np.ascontiguousarray(values.cpu().numpy(), dtype=np.float32)
    size = guide.shape[1::-1]
    if plane.shape == guide.shape[:2]:
        return plane
    luma = cv2.transform(guide, np.array([LUMA_WEIGHTS], np.float32))
    small = cv2.resize(luma, plane.shape[::-1], interpolation=cv2.INTER_AREA)
    mean_guide, mean_plane = _mean(small), _mean(plane)
    variance = _mean(small * small) - mean_guide**2
    slope = (_mean(small * plane) - mean_guide * mean_plane) / (variance + _EDGE_VARIANCE)
    offset = mean_plane - slope * mean_guide
    result: Plane = cv2.resize(_mean(slope), size, interpolation=cv2.INTER_LINEAR)
    result *= luma
    result += cv2.resize(_mean(offset), size, interpolation=cv2.INTER_LINEAR)
    window = np.ones((3, 3), np.uint8)
    for extreme, bound in ((cv2.erode, np.maximum), (cv2.dilate, np.minimum)):
        limit = cv2.resize(extreme(plane, window), size, interpolation=cv2.INTER_NEAREST)
        bound(result, limit, out=result)
    return result


def _mean(plane: Plane) -> Plane:
    side = 2 * _HALF_WINDOW_PX + 1
    return cv2.blur(plane, (side, side), borderType=cv2.BORDER_REFLECT)
