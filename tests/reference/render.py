"""Layered rendering with an ideal disc, pixel by pixel in float64, for a few pixels.

Written from the docstrings of `simulation.render` and `psf`. Layers and images are lists of planes
(H, W); the layer planes themselves are given.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1

Plane = NDArray[np.float64]


def render(
    image: Plane,
    inverse_depth: Plane,
    focus: float,
    blur_scale: float,
    planes: list[float],
    jump: float,
    trusted: float,
) -> Plane:
    """One frame (3, H, W) of `image` (3, H, W)."""
    share, front, back = split_mixed_pixels(image, inverse_depth, jump)
    _, height, width = image.shape
    frame, visible = np.zeros_like(image), np.ones((height, width))
    for k, plane in enumerate(planes):
        layer = np.zeros((5, height, width))  # light, opacity, coverage
        for y in range(height):
            for x in range(width):
                for part, surface in ((share[y, x], front), (1 - share[y, x], back)):
                    weights = hat_weights(surface[3, y, x], planes)
                    layer[:3, y, x] += part * weights[k] * surface[:3, y, x]
                    layer[3, y, x] += part * weights[k]
                    layer[4, y, x] += part * sum(weights[k:])
        if not layer[3].any():
            continue
        hidden = pull_push(layer)
        radius = abs(blur_scale * (focus - plane) / 2)
        blurred = [blur(plane_of_layer, radius) for plane_of_layer in layer]
        for y in range(height):
            for x in range(width):
                coverage = blurred[4][y, x]
                missing = max(trusted - coverage, 0)
                seen = [
                    (blurred[c][y, x] + missing * hidden[c, y, x]) / max(coverage, trusted)
                    for c in range(4)
                ]
                opacity = min(max(seen[3], 0), 1)
                light = np.array(seen[:3]) * opacity / max(seen[3], 1e-6)
                frame[:, y, x] += visible[y, x] * light
                visible[y, x] *= 1 - opacity
    return np.maximum(frame, 0)


def hat_weights(inverse_depth: float, planes: list[float]) -> list[float]:
    """Share of each plane (descending) in a surface: linear between the two that enclose it."""
    weights = [0.0] * len(planes)
    for k in range(len(planes) - 1):
        if planes[k] >= inverse_depth >= planes[k + 1]:
            weights[k] = (inverse_depth - planes[k + 1]) / (planes[k] - planes[k + 1])
            weights[k + 1] = 1 - weights[k]
            return weights
    weights[0 if inverse_depth > planes[0] else -1] = 1.0
    return weights


def blur(plane: Plane, radius: float) -> Plane:
    """Convolution of the mirrored plane with the lattice disc, tap by tap."""
    if radius == 0:
        return plane
    height, width = plane.shape
    kernel = lattice_disc(2 * height, 2 * width, radius)
    result = np.zeros_like(plane)
    for y in range(height):
        for x in range(width):
            for dy in range(2 * height):
                for dx in range(2 * width):
                    source_y, source_x = (y - dy) % (2 * height), (x - dx) % (2 * width)
                    source_y = min(source_y, 2 * height - 1 - source_y)
                    source_x = min(source_x, 2 * width - 1 - source_x)
                    result[y, x] += kernel[dy, dx] * plane[source_y, source_x]
    return result


def lattice_disc(height: int, width: int, radius: float) -> Plane:
    """Samples of the disc on a periodic grid: the inverse Fourier sum of its transfer function."""
    beta = math.pi / math.sqrt(1 + radius**2)
    y, x = np.arange(height)[:, None], np.arange(width)
    kernel = np.zeros((height, width))
    for v in range(height):
        for u in range(width):
            wrapped = (min(v, height - v) / height, min(u, width - u) / width)
            frequency = math.hypot(*(math.sin(beta * f) / beta for f in wrapped))
            phase = 2 * math.pi * frequency * radius
            gain = 2 * j1(phase) / phase if phase > 0 else 1.0
            kernel += gain * np.cos(2 * math.pi * (v * y / height + u * x / width))
    return kernel / (height * width)


def split_mixed_pixels(
    image: Plane, inverse_depth: Plane, jump: float
) -> tuple[Plane, Plane, Plane]:
    """Share (H, W) of the front, and front and back surface (4, H, W) of every pixel."""
    height, width = inverse_depth.shape
    pixels = np.concatenate([image, inverse_depth[None]])

    def window(y: int, x: int, reach: int) -> list[tuple[int, int]]:
        """Places around a pixel; beyond the border, the border pixel counts again."""
        return [
            (min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1))
            for dy in range(-reach, reach + 1)
            for dx in range(-reach, reach + 1)
        ]

    def depths(y: int, x: int) -> list[float]:
        return [inverse_depth[place] for place in window(y, x, 1)]

    mixed = np.zeros((height, width), bool)
    for y in range(height):
        for x in range(width):
            mixed[y, x] = max(depths(y, x)) - min(depths(y, x)) > jump

    share, front, back = np.ones((height, width)), pixels.copy(), pixels.copy()
    for y, x in zip(*np.nonzero(mixed), strict=True):
        between = (max(depths(y, x)) + min(depths(y, x))) / 2
        sums = {True: np.zeros(5), False: np.zeros(5)}
        for place in window(y, x, 2):
            weight = 1e-3 if mixed[place] else 1.0
            side = bool(inverse_depth[place] >= between)
            sums[side] += weight * np.append(pixels[(slice(None), *place)], 1)
        near, far = (sums[side][:4] / sums[side][4] for side in (True, False))
        colour, contrast = image[:, y, x], (near - far)[:3]
        shows_front = bool(inverse_depth[y, x] >= between)
        s = ((colour - far[:3]) @ contrast + 1e-3 * shows_front) / (contrast @ contrast + 1e-3)
        s = min(max(s, 0.5), 1.0) if shows_front else min(max(s, 0.0), 0.5)
        rest = colour - s * near[:3] - (1 - s) * far[:3]
        near[:3] += rest / s if shows_front else rest
        far[:3] += 0 if shows_front else rest
        share[y, x], front[:, y, x], back[:, y, x] = s, near, far
    return share, front, back


def pull_push(layer: Plane) -> Plane:
    """Light and opacity (4, H, W) of a layer (5, H, W), filled where its coverage is missing."""
    height, width = layer.shape[1:]
    if height == width == 1:
        return layer[:4] / max(layer[4, 0, 0], 1e-12)
    rows, columns = (height + 1) // 2, (width + 1) // 2
    coarse = np.zeros((5, rows, columns))
    for row in range(rows):
        for column in range(columns):
            bin_y = slice(row * height // rows, math.ceil((row + 1) * height / rows))
            bin_x = slice(column * width // columns, math.ceil((column + 1) * width / columns))
            mean = layer[:, bin_y, bin_x].mean((1, 2))
            coarse[:, row, column] = mean * min(4 * mean[4], 1) / max(mean[4], 1e-12)
    filled = pull_push(coarse)
    result = np.zeros((4, height, width))
    for y in range(height):
        for x in range(width):
            at_y, at_x = (y + 0.5) * rows / height - 0.5, (x + 0.5) * columns / width - 0.5
            at_y, at_x = max(at_y, 0), max(at_x, 0)
            top, left = int(at_y), int(at_x)
            below, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            t, s = at_y - top, at_x - left
            value = (1 - t) * ((1 - s) * filled[:, top, left] + s * filled[:, top, right])
            value = value + t * ((1 - s) * filled[:, below, left] + s * filled[:, below, right])
            result[:, y, x] = layer[:4, y, x] + (1 - layer[4, y, x]) * value
    return result
