"""Filters shared by evidence, calibration and completion: means, minima, luma and noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.threads import in_parallel

LUMA_WEIGHTS = (0.3, 0.5, 0.2)
"""Close to the noise-optimal mix of equally noisy channels; green, the sharpest, leads."""

_MIN_NOISE_STD = 0.6 / 255  # least noise in luma after rounding to 8 bits and JPEG coding
_ROUNDING_STD = 0.29  # of values rounded to a step, in steps: 1 / sqrt(12)


def box_mean(planes: Tensor, half_width: int) -> Tensor:
    """Mean of (..., H, W) over a square window of 2 h + 1 pixels; borders replicate."""
    if half_width == 0:
        return planes
    flat = planes.reshape(-1, *planes.shape[-2:])
    side = 2 * half_width + 1
    if planes.device.type == "cpu" and not planes.requires_grad:
        # Running sums are ten times faster than pooling, which sums each window separately.
        means = torch.empty_like(flat)
        for plane, mean in zip(flat.numpy(), means.numpy(), strict=True):
            cv2.blur(plane, (side, side), dst=mean, borderType=cv2.BORDER_REPLICATE)
        return means.reshape(planes.shape)
    padded = functional.pad(flat[None], (half_width,) * 4, mode="replicate")
    return functional.avg_pool2d(padded, side, stride=1).reshape(planes.shape)


def greatest_nearby(plane: Tensor, half_height: int, half_width: int) -> Tensor:
    """Greatest value of a plane (H, W) in the window around each pixel, clipped to the plane."""
    window = 2 * half_height + 1, 2 * half_width + 1
    if plane.device.type == "cpu" and not plane.requires_grad:
        # A hundred times faster than pooling, which compares all values of each window.
        greatest = cv2.dilate(plane.numpy(), np.ones(window, np.uint8))
        return torch.from_numpy(greatest)
    padding = half_height, half_width
    return functional.max_pool2d(plane[None, None], window, stride=1, padding=padding)[0, 0]


def smooth_mean(planes: Tensor, half_width: int) -> Tensor:
    """Mean of (..., H, W) over a bell as wide as the window of `box_mean`, which shows no squares.

    Three boxes in a row have nearly the shape of a Gaussian. Together they have the variance of one
    box of 2 h + 1 pixels, up to the rounding of their sides.
    """
    side = math.sqrt(((2 * half_width + 1) ** 2 - 1) / 3 + 1)
    for _ in range(3):
        planes = box_mean(planes, round((side - 1) / 2))
    return planes


def block_mean(planes: Tensor, side_px: int) -> Tensor:
    """(C, h, w) means over blocks of pixels; blocks at the right and lower edge may be smaller."""
    if side_px == 1:
        return planes
    # Sums of shifted planes take a quarter of the time of pooling.
    rows, heights = _block_sums(planes, -2, side_px)
    sums, widths = _block_sums(rows, -1, side_px)
    return sums.div_(heights[:, None] * widths)


def _block_sums(planes: Tensor, dim: int, side_px: int) -> tuple[Tensor, Tensor]:
    """Sums over blocks of rows (dim -2) or columns (dim -1), and the size of each block."""
    sums, sizes = None, planes.new_zeros(-(-planes.shape[dim] // side_px))
    for first in range(min(side_px, planes.shape[dim])):
        part = planes[..., first::side_px, :] if dim == -2 else planes[..., first::side_px]
        sizes[: part.shape[dim]] += 1
        if sums is None:
            sums = part.clone()
        else:
            sums.narrow(dim, 0, part.shape[dim]).add_(part)
    assert sums is not None
    return sums, sizes


def refine_minimum(cost: Tensor, hypotheses: Tensor) -> Tensor:
    """Hypothesis (H, W) with the lowest cost (K, H, W), to sub-step precision.

    Fits a parabola through the minimum and its neighbours, over the index. At either end it returns
    the minimum itself.
    """
    count = len(hypotheses)
    index = cost.min(0).indices  # faster than `argmin`
    if count < 3:
        return hypotheses[index]
    middle = index.clamp(1, count - 2)
    before, here, after = (cost.gather(0, (middle + step)[None])[0] for step in (-1, 0, 1))
    offset = 0.5 * (before - after) / (before - 2 * here + after).clamp_min(1e-9)
    offset = torch.where(index == middle, offset.clamp(-0.5, 0.5), (index - middle).to(cost))
    neighbour = (middle + offset.sign().long()).clamp(0, count - 1)
    return torch.lerp(hypotheses[middle], hypotheses[neighbour], offset.abs())


def bracket(values: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbours of values among points, for linear interpolation.

    Args:
        values: any shape.
        points: (N,) ascending, N >= 2.

    Returns:
        Index of the point before, index of the point after, and the weight of the latter in
        [0, 1], each in the shape of `values`. Values outside the points take the outermost.
    """
    after = torch.searchsorted(points, values.contiguous()).clamp(1, len(points) - 1)
    before = after - 1
    share = (values - points[before]) / (points[after] - points[before])
    return before, after, share.clamp(0, 1)


def interpolated(values: Tensor, points: Tensor, targets: Tensor) -> Tensor:
    """Map values (any shape) through the piecewise-linear function points -> targets, both (N,).

    Points and targets ascend. Values outside the points take the target of the nearest one.
    """
    before, after, share = bracket(values, points)
    return torch.lerp(targets[before], targets[after], share)


def lagrange_weights(points: Sequence[float], place: float) -> list[float]:
    """Weights of values at points whose sum is the value of their polynomial at a place."""
    return [
        math.prod((place - other) / (one - other) for other in points if other != one)
        for one in points
    ]


def srgb_luma(images: Tensor) -> Tensor:
    """(N, H, W) luma of the sRGB encoding of linear (N, 3, H, W)."""
    weights = images.new_tensor(LUMA_WEIGHTS)

    def luma(image: Tensor) -> Tensor:
        return torch.einsum("c,chw->hw", weights, linear_to_srgb(image.clamp(0, 1)))

    # One image at a time, because encoding makes several copies of its input.
    return torch.stack(list(in_parallel(luma, images)))


def noise_std(images: Tensor, step: float = 1 / 255) -> float:
    """Standard deviation of the noise in a stack's sRGB luma, at least that of rounding.

    Args:
        images: (N, 3, H, W) linear RGB.
        step: see `FocalStack.step`.
    """
    return noise_std_of_luma(srgb_luma(images.detach()), step)


def noise_std_of_luma(luma: Tensor, step: float) -> float:
    """`noise_std` from the sRGB luma (N, H, W).

    Immerkær, Fast Noise Variance Estimation (1996): the median absolute response to a mask that
    ignores linear ramps. The smallest value over all frames counts, because sharp texture adds to
    it.
    """

    def median(frame: Tensor) -> float:
        return float(frame.diff(n=2, dim=-1).diff(n=2, dim=-2).abs_().median()) / 6

    measured = min(in_parallel(median, luma)) / 0.6745
    return max(measured, _MIN_NOISE_STD, _ROUNDING_STD * step)
