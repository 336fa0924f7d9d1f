"""The plane sweep from its formulas: discrete Fourier sums of the mirrored image, float64."""

from __future__ import annotations

import cmath
import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.psf import PSF
from reference.psf import otf

Plane = NDArray[np.float64]

LUMA = (0.3, 0.5, 0.2)
LEAST_NOISE_STD = 0.6 / 255


def plane_misfit(
    luma: Plane, weight: Plane, radii_px: Plane, psf: PSF, prior: tuple[float, float]
) -> Plane:
    """Σ_s (weight_s (I_s - H_s J))², with J = Σ_s H_s I_s / (Σ_s H_s² + ε), per hypothesis.

    Args:
        luma: I, (N, H, W) linear.
        weight: (N, H, W), one over the noise, zero where clipped.
        radii_px: (K, N).
        psf: the shape of the blur.
        prior: strength s and knee f0 [cycles/px] of ε = s (1 + (f / f0)²).

    Returns:
        (K, H, W). The image repeats, mirrored, as its own continuation: exact for any radius.
    """
    count, height, width = luma.shape
    forward, backward = zip(*(_fourier_matrices(2 * side) for side in (height, width)), strict=True)
    spectra = [forward[0] @ _mirrored(frame) @ forward[1].T for frame in luma]
    misfit = np.zeros((len(radii_px), height, width))
    for k, radii in enumerate(radii_px):
        transfers = [_transfer(psf, float(radius), 2 * height, 2 * width) for radius in radii]
        for s in range(count):
            residual = np.empty((2 * height, 2 * width), complex)
            for row in range(2 * height):
                for column in range(2 * width):
                    h = [transfer[row, column] for transfer in transfers]
                    i = [spectrum[row, column] for spectrum in spectra]
                    f = math.hypot(_frequency(row, 2 * height), _frequency(column, 2 * width))
                    epsilon = prior[0] * (1 + (f / prior[1]) ** 2)
                    sharp = sum(a * b for a, b in zip(h, i, strict=True))
                    sharp /= sum(a * a for a in h) + epsilon
                    residual[row, column] = i[s] - h[s] * sharp
            image = (backward[0] @ residual @ backward[1].T).real[:height, :width]
            misfit[k] += (weight[s] * image) ** 2
    return misfit


def frame_weight(images: Plane) -> Plane:
    """One over the noise of each pixel's linear luma, zero where it is clipped, (N, H, W).

    The noise is that of sRGB luma (Immerkær's mask, the least of all frames, never below what
    8 bits leave), carried to linear light by the slope of the decoding.

    Args:
        images: (N, 3, H, W) linear.
    """
    count, _, height, width = images.shape
    encoded = np.zeros((count, height, width))
    for s, y, x in np.ndindex(count, height, width):
        encoded[s, y, x] = sum(w * encode(v) for w, v in zip(LUMA, images[s, :, y, x], strict=True))
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6
    responses = [
        sorted(
            abs(float((mask * frame[y : y + 3, x : x + 3]).sum()))
            for y in range(height - 2)
            for x in range(width - 2)
        )
        for frame in encoded
    ]
    # The lower of two middle values, as torch's median takes it; a Gaussian's is 0.6745 std.
    medians = [values[(len(values) - 1) // 2] for values in responses]
    noise_std = max(min(medians) / 0.6745, LEAST_NOISE_STD)
    weight = np.zeros_like(encoded)
    for s, y, x in np.ndindex(count, height, width):
        if images[s, :, y, x].max() < 0.98:
            weight[s, y, x] = 1 / (noise_std * _decoding_slope(encoded[s, y, x]))
    return weight


def encode(linear: float) -> float:
    """Linear light to sRGB."""
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055


def _decoding_slope(encoded: float) -> float:
    return max(2.4 / 1.055 * ((encoded + 0.055) / 1.055) ** 1.4, 1 / 12.92)


def _mirrored(frame: Plane) -> Plane:
    return np.block([[frame, frame[:, ::-1]], [frame[::-1], frame[::-1, ::-1]]])


@cache
def _fourier_matrices(length: int) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """The discrete Fourier transform of a row, and its inverse."""
    forward = np.array(
        [[cmath.exp(-2j * math.pi * f * x / length) for x in range(length)] for f in range(length)]
    )
    return forward, forward.conj().T / length


def _frequency(index: int, length: int) -> float:
    """Cycles a pixel of a row of a discrete spectrum."""
    return (index if 2 * index < length else index - length) / length


@cache
def _transfer(psf: PSF, radius: float, height: int, width: int) -> Plane:
    """The PSF's transfer function, read at sin(πβf) / (πβ) for f with β² = 1 / (1 + R²)."""
    beta = math.pi / math.sqrt(1 + radius**2)
    transfer = np.empty((height, width))
    for row, column in np.ndindex(height, width):
        vertical = math.sin(beta * _frequency(row, height)) / beta
        horizontal = math.sin(beta * _frequency(column, width)) / beta
        transfer[row, column] = otf(psf, round(math.hypot(vertical, horizontal) * radius, 12))
    return transfer
