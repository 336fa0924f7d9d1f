"""Drawn pictures: colours of surfaces and outlines of cards."""

from __future__ import annotations

import math
import string
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.data.procedural.vectors import Vector3, log_uniform

_SIZE_PX = 256
_OUTLINE_PX = 128

_Map = NDArray[np.floating]

_Y, _X = np.mgrid[:_SIZE_PX, :_SIZE_PX].astype(np.float32) / _SIZE_PX


def colour(rng: np.random.Generator) -> Vector3:
    """Colour of a surface, linear light: mostly muted, dark as often as bright."""
    grey = log_uniform(rng, 0.04, 0.9)
    vividness = rng.beta(1, 2.5)
    tint = rng.uniform(0, 1, 3) ** 1.5
    red, green, blue = grey * (1 - vividness + vividness * tint / tint.mean())
    return min(red, 0.95), min(green, 0.95), min(blue, 0.95)


def pattern(rng: np.random.Generator) -> NDArray[np.float32]:
    """A random picture of stripes, bricks, text or the like, (3, h, w) linear light in [0, 1]."""
    draw = _KINDS[rng.integers(len(_KINDS))]
    shade = draw(rng)
    if rng.random() < 0.5:  # dirt
        shade = shade + rng.uniform(0.03, 0.3) * fractal(rng, _SIZE_PX, rng.uniform(0.5, 1.5))
    first, other = (np.array(colour(rng), np.float32)[:, None, None] for _ in range(2))
    # Many surfaces have faint patterns; few have the full contrast of print.
    second = first + (other - first) * log_uniform(rng, 0.1, 1.0)
    return (first + (second - first) * np.clip(shade, 0, 1)).astype(np.float32)


def fractal(
    rng: np.random.Generator, size: int, slope: float, finest: float = math.inf
) -> NDArray[np.float32]:
    """Periodic noise whose amplitude falls with frequency f as f^-slope.

    Args:
        rng: the source of randomness.
        size: side in pixels, even.
        slope: 0 is white noise, 1 a cloudy texture, 2 smooth hills.
        finest: the highest frequency, in periods per side.

    Returns:
        (size, size), mean 0, standard deviation 1.
    """
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    frequency[(frequency == 0) | (frequency > finest)] = np.inf
    spectrum = rng.standard_normal((2, *frequency.shape), dtype=np.float32) * frequency**-slope
    noise = np.fft.irfft2(spectrum[0] + 1j * spectrum[1], s=(size, size))
    return (noise / noise.std()).astype(np.float32)


def _wave(phase: _Map, sharpness: float) -> _Map:
    """A square wave of period 1 with softened edges, 0 to 1."""
    return np.clip(0.5 + sharpness * np.sin(2 * math.pi * phase), 0, 1)


def _clouds(rng: np.random.Generator) -> _Map:
    return 0.5 + 0.3 * fractal(rng, _SIZE_PX, rng.uniform(0.4, 1.8))


def _grain(rng: np.random.Generator) -> _Map:
    """Wood or marble: stripes bent by clouds."""
    bent = rng.uniform(0.02, 0.25) * fractal(rng, _SIZE_PX, 1.6)
    return _wave(log_uniform(rng, 1, 12) * (_X + bent), rng.uniform(0.4, 1))


def _stripes(rng: np.random.Generator) -> _Map:
    angle, count = rng.uniform(0, math.pi), log_uniform(rng, 2, 30)
    return _wave(count * (_X * math.cos(angle) + _Y * math.sin(angle)), rng.uniform(0.5, 4))


def _checks(rng: np.random.Generator) -> _Map:
    count = log_uniform(rng, 2, 16)
    return np.abs(_wave(count * _X, 4) - _wave(count * _Y, 4))


def _bricks(rng: np.random.Generator) -> _Map:
    rows, gap = int(rng.integers(4, 14)), rng.uniform(0.03, 0.12)
    y = rows * _Y
    row = np.floor(y)
    x = rows / rng.choice([1.0, 2.0, 3.0]) * _X + 0.5 * (row % 2)
    tone = rng.random((rows, rows + 2), dtype=np.float32)[row.astype(int), x.astype(int)]
    in_mortar = np.minimum(y % 1, (x % 1) * 2) < gap
    return np.where(in_mortar, 0.0, 0.5 + 0.5 * tone)


def _dots(rng: np.random.Generator) -> _Map:
    count = log_uniform(rng, 3, 20)
    radius = rng.uniform(0.15, 0.45)
    distance = np.hypot((count * _X) % 1 - 0.5, (count * _Y) % 1 - 0.5)
    return np.clip((radius - distance) * _SIZE_PX / count, 0, 1)


def _cells(rng: np.random.Generator) -> _Map:
    """A mosaic of flat cells."""
    count = round(log_uniform(rng, 15, 500))
    seeds = np.full((_SIZE_PX, _SIZE_PX), 1, np.uint8)
    seeds[tuple(rng.integers(0, _SIZE_PX, (2, count)))] = 0
    _, labels = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return rng.random(labels.max() + 1, dtype=np.float32)[labels]


def _speckles(rng: np.random.Generator) -> _Map:
    noise = fractal(rng, _SIZE_PX, rng.uniform(0.2, 1.2))
    return np.clip(4 * (noise - rng.uniform(0.3, 1.8)), 0, 1)


def _fibres(rng: np.random.Generator) -> _Map:
    """Scratches, threads or grass."""
    canvas = np.zeros((_SIZE_PX, _SIZE_PX), np.uint8)
    angle, spread = rng.uniform(0, math.pi), rng.uniform(0.05, 1)
    for _ in range(round(log_uniform(rng, 40, 250))):
        turn = angle + spread * rng.standard_normal()
        x, y = rng.uniform(0, _SIZE_PX, 2)
        reach = rng.uniform(10, 80)
        end = (int(x + reach * math.cos(turn)), int(y + reach * math.sin(turn)))
        cv2.line(canvas, (int(x), int(y)), end, int(rng.integers(60, 256)), 1, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def _print(rng: np.random.Generator) -> _Map:
    """A printed page."""
    return _lettering(rng, _SIZE_PX, lines=int(rng.integers(3, 16)))


_KINDS: tuple[Callable[[np.random.Generator], _Map], ...] = (
    _clouds,
    _clouds,  # the commonest in nature
    _grain,
    _stripes,
    _checks,
    _bricks,
    _dots,
    _cells,
    _speckles,
    _fibres,
    _print,
)


def _lettering(rng: np.random.Generator, size: int, lines: int) -> _Map:
    """Lines of random letters, 1 on 0, (size, size)."""
    canvas = np.zeros((size, size), np.uint8)
    font = int(rng.integers(0, 8))
    pitch = size / lines
    scale = pitch / 34  # of the fonts, whose capitals are 22 px high
    alphabet = np.array(list(string.ascii_letters + string.digits + "     .,-"))
    for line in range(lines):
        text = "".join(rng.choice(alphabet, max(3, 2 * lines)))
        place = (int(0.1 * pitch), int((line + 0.78) * pitch))
        width = max(1, round(pitch * rng.uniform(0.04, 0.12)))
        cv2.putText(canvas, text, place, font, scale, 255, width, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def outline(rng: np.random.Generator) -> _Map:
    """A random silhouette, (h, w), positive inside."""
    side = np.linspace(-1, 1, _OUTLINE_PX, dtype=np.float32)
    x, y = side[None], side[:, None]
    kind = rng.integers(5)
    if kind == 0:  # a smooth blob
        angle = np.arctan2(y, x)
        radius = np.full_like(angle, 0.7)
        for order in range(2, 8):
            radius += rng.normal(0, 0.35 / order) * np.cos(order * angle + rng.uniform(0, 6.3))
        return np.minimum(radius, 1) - np.hypot(x, y)
    if kind == 1:  # islands with bays
        rough = fractal(rng, _OUTLINE_PX, rng.uniform(1.3, 2.2))
        return 0.25 * rough + rng.uniform(0.4, 0.8) - np.hypot(x, y)
    if kind == 2:  # a lattice
        count, bar = log_uniform(rng, 2, 9), rng.uniform(0.2, 0.7)
        holes = np.minimum(np.cos(math.pi * count * x), np.cos(math.pi * count * y))
        return bar - holes - 0.35
    if kind == 3:  # letters, or a sheet that they are cut out of
        letters = _lettering(rng, _OUTLINE_PX, lines=int(rng.integers(1, 4))) - 0.5
        return letters if rng.random() < 0.5 else -letters
    hole = rng.uniform(0.2, 0.7)  # a ring, or a frame
    distance = np.hypot(x, y) if rng.random() < 0.5 else np.maximum(np.abs(x), np.abs(y))
    return np.minimum(1 - distance, distance - hole)


def leaf(rng: np.random.Generator) -> _Map:
    """Outline of a leaf or a blade of grass along the second axis, positive inside."""
    side = np.linspace(-1, 1, _OUTLINE_PX // 2, dtype=np.float32)
    along = 0.5 + 0.5 * side[:, None]
    width = rng.uniform(0.6, 1) * np.sin(math.pi * along ** rng.uniform(0.5, 1.5))
    bend = rng.uniform(-0.25, 0.25) * np.sin(math.pi * along)
    return width - np.abs(side[None] - bend) * rng.uniform(1.2, 2.5)
