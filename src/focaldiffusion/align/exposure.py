"""The exposure of one frame relative to another, independent of their focus."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from focaldiffusion.align.motion import Matrix, Plane, to_pixels, warp

_LOW_PASS_PX = 8
_LEAST_AREA = 0.02
_FLAT = 0.02  # relative bend below which a place counts fully


@dataclass(frozen=True, eq=False)
class Exposure:
    """Light of a frame at low resolution (long side 256).

    Attributes:
        luminance: (H, W) linear.
        saturated: (H, W) clipped share of each pixel.
    """

    luminance: Plane
    saturated: Plane


@dataclass(frozen=True)
class Gain:
    """Light of one frame divided by that of another, and its standard error."""

    value: float
    error: float


def fit_gain(first: Exposure, second: Exposure, motion: Matrix) -> Gain | None:
    """The gain of a second frame over a first: a weighted median over their common area.

    Both are low-passed, and a place is weighted by its light and by the flatness of its
    surroundings, 1 / (s^2 |laplacian| / light)^2: to first order, blur moves light in proportion
    to the Laplacian. Surroundings of clipped pixels are left out, because the light lost there
    depends on focus.

    Args:
        first: the frame with gain 1.
        second: the frame to measure.
        motion: (3, 3) from first to second, centred coordinates.

    Returns:
        None if less than 2 % of the area can be compared.
    """
    size = first.luminance.shape
    pixels = to_pixels(motion, size)
    moved = warp(second.luminance, pixels, size)
    clipped = np.maximum(first.saturated, warp(second.saturated, pixels, size))
    inside = warp(np.ones_like(moved), pixels, size, border=cv2.BORDER_CONSTANT)
    around = np.ones((2 * _LOW_PASS_PX + 1,) * 2, np.uint8)
    use = (inside > 0.99) & (cv2.dilate(clipped, around) < 0.01)
    if use.mean() < _LEAST_AREA:
        return None
    share = np.maximum(_low_pass(use.astype(np.float32)), 1e-3)
    low_first, low_second = (
        np.maximum(_low_pass(image * use) / share, 1e-6) for image in (first.luminance, moved)
    )
    light = (low_first + low_second) / 2
    laplacian: Plane = cv2.Laplacian(light, cv2.CV_32F, ksize=3)  # type: ignore[assignment]
    bend: Plane = np.abs(laplacian) * np.float32(_LOW_PASS_PX**2) / light
    weights: Plane = (light / np.square(_FLAT + _low_pass(bend)))[use].astype(np.float32)
    log_ratio: Plane = np.log(low_second / low_first)[use].astype(np.float32)
    value = _weighted_median(log_ratio, weights)
    spread = 1.4826 * _weighted_median(np.abs(log_ratio - value), weights)
    independent = weights.sum() ** 2 / np.square(weights).sum() / (4 * np.pi * _LOW_PASS_PX**2)
    return Gain(float(np.exp(value)), float(spread / np.sqrt(max(1.0, independent))))


def _low_pass(image: Plane) -> Plane:
    return cv2.GaussianBlur(image, (0, 0), _LOW_PASS_PX)  # type: ignore[return-value]


def _weighted_median(values: Plane, weights: Plane) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2)])
