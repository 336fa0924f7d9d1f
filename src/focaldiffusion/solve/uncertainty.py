"""Intervals that hold a true depth, or a distance between two points, with nine chances in ten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.filters import greatest_nearby

SHARE = 0.9
"""Share of the depths, or distances, that lie in their interval."""

# Beyond all surfaces that compete, the error that 94 in 100 pixels stay below at each confidence,
# in pixels of blur diameter: 35 path-traced scenes. On unseen scenes nine in ten do.
_CONFIDENCE = (0.0, 0.4, 0.8, 1.0)
_ERROR_PX = (4.5, 1.7, 0.32, 0.22)
_ERROR_ALONE_PX = (8.0, 2.4, 0.45, 0.3)  # where no other surface was weighed
_RIM_SHARE = 1 / 160  # of the long side: an outline may be off by this, so both its sides compete
_QUANTILES = 101  # of either depth, an odd number; all pairs give a distance
_LEAST_DPT = 1e-9  # stands for infinity


def coordinate_interval(
    coordinate: Tensor, confidence: Tensor, competing: Tensor | None, blur_scale: float
) -> Tensor:
    """Ends of the interval that holds the true coordinate in `SHARE` of all pixels.

    It spans the surfaces that explain the frames nearly as well, and those that begin beside the
    pixel. Confidence decides how far it reaches beyond them. Defocus shows depth by the diameter of
    its blur, so that reach is one of pixels of blur: even in dioptres.

    Args:
        coordinate: (H, W) surface.
        confidence: (H, W) in [0, 1].
        competing: (2, H, W) see `Completion`; None if no other surface was weighed.
        blur_scale: blur diameter [px] per unit of the axis.

    Returns:
        (2, H, W) least and greatest coordinate.
    """
    radius = max(1, round(max(coordinate.shape) * _RIM_SHARE))
    low, high = (sign * greatest_nearby(sign * coordinate, radius, radius) for sign in (-1, 1))
    if competing is not None:
        low, high = torch.minimum(low, competing[0]), torch.maximum(high, competing[1])
    errors_px = _ERROR_ALONE_PX if competing is None else _ERROR_PX
    reach_px = np.exp(np.interp(confidence.cpu().numpy(), _CONFIDENCE, np.log(errors_px)))
    reach = torch.from_numpy(reach_px).to(coordinate) / blur_scale
    return torch.stack([low - reach, high + reach])


def distance_interval(
    rays: NDArray[np.floating[Any]], depths_m: Sequence[tuple[float, float, float]]
) -> tuple[float, float]:
    """Interval of the distance [m] between two points whose depths have intervals.

    It holds the distance of the likeliest points. The errors of the two inverse depths count as
    independent. Towards either end of its interval each has an exponential distribution, and
    `SHARE` of it lies within.

    Args:
        rays: (2, 3) direction of each point, with depth 1.
        depths_m: nearest, likeliest and farthest depth of each point; infinite if it may be.
    """
    places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES * 2 - 1
    reach = np.sign(places) * np.log1p(-np.abs(places)) / math.log(1 - SHARE)
    points = []
    for ray, ends in zip(rays, depths_m, strict=True):
        nearest, likeliest, farthest = (1 / depth for depth in ends)
        toward = np.where(reach > 0, nearest - likeliest, likeliest - farthest)
        points.append(ray / np.maximum(likeliest + reach * toward, _LEAST_DPT)[:, None])
    first, second = points
    apart_m = np.linalg.norm(first[:, None] - second, axis=2)
    shares = (1 - SHARE) / 2, (1 + SHARE) / 2
    low_m, high_m = np.quantile(apart_m, shares, method="inverted_cdf")
    likeliest_m = apart_m[_QUANTILES // 2, _QUANTILES // 2]
    if any(math.isinf(farthest) for _, _, farthest in depths_m):
        high_m = math.inf
    return float(min(low_m, likeliest_m)), float(max(high_m, likeliest_m))
