"""Point-spread functions from their spatial definition: slow, obvious, float64."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import j0

from focaldiffusion.psf import PSF


def density(psf: PSF, r: float) -> float:
    """Light at distance r from the centre for blur radius 1, not normalised."""
    if psf.family == "disc":
        return float(r <= 1)
    if psf.family == "gaussian":
        return math.exp(-(r**2) / (2 * 0.5**2))
    return math.exp(-2 * (r / power_exponential_scale(psf.exponent)) ** psf.exponent)


@cache
def power_exponential_scale(exponent: float) -> float:
    """c at which exp(-2 (r/c)^p) has the mean square radius of the unit disc, 1/2."""

    def moment(c: float, power: int) -> float:
        return quad(lambda r: r**power * math.exp(-2 * (r / c) ** exponent), 0, 5 * c)[0]

    def excess(c: float) -> float:
        return moment(c, 3) / moment(c, 1) - 0.5

    return brentq(excess, 0.5, 2)


def otf(psf: PSF, frequency_radius: float) -> float:
    """Hankel transform of the density: integral of k(r) J0(2 pi f r) r dr over that at f = 0."""
    end = 1.0 if psf.family == "disc" else 5.0

    def transform(frequency: float) -> float:
        return quad(
            lambda r: density(psf, r) * j0(2 * math.pi * frequency * r) * r, 0, end, limit=500
        )[0]

    return transform(frequency_radius) / transform(0)


def coverage_kernel(psf: PSF, radius_px: float, samples: int = 9) -> NDArray[np.float64]:
    """The PSF summed over pixel squares, as a sensor records a point at a pixel's centre."""
    half = math.ceil(psf.support * radius_px)
    kernel = np.zeros((2 * half + 1, 2 * half + 1))
    offsets = (np.arange(samples) + 0.5) / samples - 0.5
    for row in range(-half, half + 1):
        for column in range(-half, half + 1):
            for dy in offsets:
                for dx in offsets:
                    r = math.hypot(row + dy, column + dx) / radius_px
                    kernel[row + half, column + half] += density(psf, r)
    return kernel / kernel.sum()


def disc_integral(distance: float, radius: float) -> float:
    """Share of a disc on one side of a line at a signed distance from its centre."""
    d = max(-radius, min(radius, distance))
    area = d * math.sqrt(radius**2 - d**2) + radius**2 * math.asin(d / radius)
    return 0.5 + area / (math.pi * radius**2)
