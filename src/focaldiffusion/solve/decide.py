"""Re-rendering decides between two whole surfaces, region by region.

Where texture is, both are equal. Where they differ, the frames may still tell them apart: what
hides what, and how blur spreads at outlines. A whole object has to move together, so the parts in
which the surfaces differ are decided first, then single segments.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.evidence import Evidence
from focaldiffusion.psf import PSF
from focaldiffusion.solve.consistency import squared_residual
from focaldiffusion.stack import FocalStack

Array = NDArray[Any]

_RENDERED_PX = 256  # long side
# Squared residual, sRGB: noise in all pixels must not decide, and lamps would outvote the rest.
_NOISE = 0.8  # share of the median that is subtracted
_UTMOST = 8.0  # medians, and ...
_LEAST_UTMOST = 2e-4  # ... at least this much, that count at most
_BETTER = 0.85  # of the first surface's residual, below which the second is taken
_APART_PX = 1.0  # of blur diameter, by which surfaces differ
_BAND_PX = 7  # around a region, whose blur shows there too
_SMALLEST_PX = 20  # pixels


def second_fits_better(
    stack: FocalStack,
    evidence: Evidence,
    first: Tensor,
    second: Tensor,
    segments: Tensor,
    blur_scale: float,
    psf: PSF,
) -> Tensor:
    """Where the second of two surfaces reproduces the frames clearly better.

    Args:
        stack: the frames.
        evidence: source of the image to blur.
        first: (h, w) surface, on an axis that is larger where it is nearer.
        second: (h, w).
        segments: (h, w) integers.
        blur_scale: blur diameter [px] per unit of the axis, at the size of the stack.
        psf: the shape of the blur.

    Returns:
        (h, w) bool.
    """
    own, other, parts = (field.cpu().numpy() for field in (first, second, segments))
    height, width = own.shape

    def residual(surface: Array) -> Array:
        moved = torch.from_numpy(surface).to(first)
        ways = (moved, stack.focus_coordinates)
        squared = squared_residual(stack, evidence, ways, blur_scale, psf, _RENDERED_PX)
        return cv2.resize(squared.cpu().numpy(), (width, height), interpolation=cv2.INTER_LINEAR)

    apart = np.abs(other - own) * blur_scale > _APART_PX
    of_own, of_other = residual(own), residual(other)
    typical = float(np.median(np.minimum(of_own, of_other)))

    def counted(squared: Array) -> Array:
        utmost = max(_UTMOST * typical, _LEAST_UTMOST)
        return (squared.clip(None, utmost) - _NOISE * typical).clip(0)

    taken = _better(_parts(other - own, apart), counted(of_own), counted(of_other))
    if taken.any():
        of_own = residual(np.where(taken, other, own))
    regions = np.where(apart & ~taken, parts + 1, 0)
    taken |= _better(regions, counted(of_own), counted(of_other))
    return torch.from_numpy(taken).to(first.device)


def _parts(difference: Array, apart: Array) -> Array:
    """(h, w) connected parts in which one surface lies before the other, from 1; 0 elsewhere."""
    _, before = cv2.connectedComponents((apart & (difference > 0)).astype(np.uint8), connectivity=4)
    _, behind = cv2.connectedComponents((apart & (difference < 0)).astype(np.uint8), connectivity=4)
    return np.where(behind > 0, behind + before.max(), before)


def _better(regions: Array, of_own: Array, of_other: Array) -> Array:
    """(h, w) bool: the regions, from 1, around which the other residual is lower."""
    result = np.zeros(regions.shape, bool)
    kernel = np.ones((2 * _BAND_PX + 1,) * 2, np.uint8)
    pixels = regions.ravel().argsort(kind="stable")
    counts = np.bincount(regions.ravel())
    for region, ours in enumerate(np.split(pixels, counts.cumsum()[:-1])):
        if region == 0 or len(ours) < _SMALLEST_PX:
            continue
        y, x = np.divmod(ours, regions.shape[1])
        window = (
            slice(max(0, y.min() - _BAND_PX), y.max() + _BAND_PX + 1),
            slice(max(0, x.min() - _BAND_PX), x.max() + _BAND_PX + 1),
        )
        inside = regions[window] == region
        around = cv2.dilate(inside.astype(np.uint8), kernel) > 0
        if of_other[window][around].mean() < _BETTER * of_own[window][around].mean():
            result[window] |= inside
    return result
