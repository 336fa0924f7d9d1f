"""Random procedural surfaces for path_traced_rooms.py, without photographs.

They build on the textures of `examples/`. Features are sized in texels, so that the caller, who
knows the size of a surface in the picture, can choose detail that a pixel resolves.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import textures
from textures import Colour, Print, Rng, Texture

LETTERS = "abcdefghijklmnopqrstuvwxyz"

Wallpaper = Callable[[Rng, tuple[int, int], float], Texture]
"""Called as wallpaper(rng, (height, width), feature_px)."""


def colour(rng: Rng) -> Colour:
    """A paint in sRGB: any hue, rarely saturated, neither black nor white."""
    value, saturation = rng.uniform(0.35, 0.9), 0.6 * rng.beta(1.5, 2.5)
    hue = rng.uniform(0, 6) + np.array([0.0, 4.0, 2.0])
    pure = np.clip(np.abs(hue % 6 - 3) - 1, 0, 1)
    red, green, blue = (value * (1 - saturation * (1 - pure))).tolist()
    return red, green, blue


def palette(rng: Rng, count: int = 4) -> list[Colour]:
    """Colours from dark to light, so that every pattern has contrast."""
    colours = [np.array(colour(rng)) for _ in range(count)]
    lightness = np.linspace(rng.uniform(0.08, 0.3), rng.uniform(0.7, 0.95), count)
    return [
        tuple(np.clip(c * light / c.max(), 0, 1).tolist())
        for c, light in zip(colours, lightness, strict=True)
    ]


def stone(rng: Rng, shape: tuple[int, int], feature_px: float) -> Texture:
    """Fractal colour: granite, rust, lichen."""
    field = textures.fractal(rng, shape, 2 * feature_px, 6)
    return textures.ramp(0.5 + 0.22 * field, palette(rng))


def marble(rng: Rng, shape: tuple[int, int], feature_px: float) -> Texture:
    """Bands bent by noise, with some grain."""
    y, x = np.mgrid[: shape[0], : shape[1]] / (5 * feature_px)
    angle = rng.uniform(0, np.pi)
    bend = textures.fractal(rng, shape, 6 * feature_px, 5)
    field = np.sin(2 * np.pi * (np.cos(angle) * x + np.sin(angle) * y + 0.35 * bend))
    return textures.ramp(0.5 + 0.5 * field, palette(rng))


def planks(rng: Rng, shape: tuple[int, int], feature_px: float) -> Texture:
    """Boards with grain."""
    count = int(np.clip(shape[1] / (16 * feature_px), 1, 12))
    return textures.wood(rng, shape, count, palette(rng)[::-1])


def weave(rng: Rng, shape: tuple[int, int], feature_px: float) -> Texture:
    """Cloth in one colour, with stripes of another."""
    dark, light = palette(rng, 2)
    cloth = textures.linen(rng, shape, max(3.0, feature_px / 2), dark)
    return (cloth * np.array(light, np.float32)).astype(np.float32)


def tiles(rng: Rng, shape: tuple[int, int], feature_px: float) -> Texture:
    """Tiles in running bond, each with its own tone, and grout between them."""
    side = 3 * feature_px
    y, x = np.mgrid[: shape[0], : shape[1]] / side
    row = np.floor(y).astype(int)
    x = x / rng.choice([1.0, 2.0]) + 0.5 * (row % 2)
    column = np.floor(x).astype(int)
    tones = rng.random((row.max() + 1, column.max() + 1))
    tone = tones[row, column] + 0.08 * textures.fractal(rng, shape, feature_px)
    image = textures.ramp(tone, palette(rng))
    grout = (y % 1 < 0.07) | (x % 1 < 0.07)
    image[grout] = rng.uniform(0.15, 0.85)
    return image


def terrazzo(rng: Rng, shape: tuple[int, int], feature_px: float) -> Texture:
    """Chips of several colours and sizes on a plain ground."""
    ground, *chips = rng.permutation(palette(rng))
    image = np.broadcast_to(ground, (*shape, 3)).astype(np.float32)
    for k, chip in enumerate(chips):
        image[textures.noise(rng, shape, feature_px / 1.6**k) > 1.1] = chip
    return image


def print_of_letters(rng: Rng, shape: tuple[int, int], feature_px: float) -> Texture:
    """Lines of letters: a page, a poster, a newspaper as wallpaper."""
    ink, paper = palette(rng, 2)
    height_px = 2 * feature_px
    sheet = Print(shape[1], shape[0], 1.0, paper)
    for line in range(int(shape[0] / (1.35 * height_px)) + 1):
        count = int(shape[1] / (0.4 * height_px)) + 2
        text = "".join(rng.choice(list(LETTERS + "   "), count))
        sheet.text(2.0, (1.35 * line + 0.2) * height_px, text, height_px, ink)
    return sheet.texture(rng, 0.03)


WALLPAPERS: tuple[Wallpaper, ...] = (
    stone,
    marble,
    planks,
    weave,
    tiles,
    terrazzo,
    print_of_letters,
)


def wallpaper(rng: Rng, shape: tuple[int, int], feature_px: float) -> Texture:
    """One of `WALLPAPERS`, sRGB (H, W, 3)."""
    choice = WALLPAPERS[rng.integers(len(WALLPAPERS))]
    return choice(rng, shape, feature_px)
