"""Procedural textures of the example scenes: wood, cloth, glaze, marble, prints, circuit boards.

Every function returns sRGB, (H, W, 3) float32 in [0, 1], row 0 at the top (v = 1).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Texture = NDArray[np.float32]
Rng = np.random.Generator
Colour = tuple[float, float, float]


def noise(rng: Rng, shape: tuple[int, int], scale_px: float | tuple[float, float]) -> NDArray:
    """Gaussian-smoothed white noise, tileable, zero mean and unit deviation, (H, W)."""
    scale_y, scale_x = np.broadcast_to(scale_px, 2)
    fy, fx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    low_pass = np.exp(-2 * np.pi**2 * ((fy * scale_y) ** 2 + (fx * scale_x) ** 2))
    field = np.fft.irfft2(np.fft.rfft2(rng.standard_normal(shape)) * low_pass, shape)
    return (field - field.mean()) / field.std()


def fractal(rng: Rng, shape: tuple[int, int], scale_px: float, octaves: int = 5) -> NDArray:
    """Sum of `noise` at halving scales and amplitudes, unit deviation."""
    octave = [noise(rng, shape, scale_px / 2**k) / 1.8**k for k in range(octaves)]
    field = np.sum(octave, 0)
    return field / np.std(field)


def ramp(field: NDArray, stops: Sequence[Colour]) -> Texture:
    """Colour of a field by linear interpolation between stops spread over [0, 1]."""
    at = np.linspace(0, 1, len(stops))
    channels = [np.interp(field, at, [stop[c] for stop in stops]) for c in range(3)]
    return np.stack(channels, -1).astype(np.float32)


def wood(rng: Rng, shape: tuple[int, int], planks: int, stops: Sequence[Colour]) -> Texture:
    """Planks side by side along u, grain along v."""
    height, width = shape
    each = width // planks
    columns = []
    for _ in range(planks):
        v = np.linspace(-1, 1, height)[:, None] - rng.uniform(-0.8, 0.8)
        u = np.linspace(-1, 1, each) - rng.uniform(-0.7, 0.7)
        warp = 0.22 * noise(rng, (height, each), (height / 9, each / 4))
        rings = 5.5 * np.hypot(1.4 * u + warp, 0.5 * v) + 0.05 * noise(rng, (height, each), (9, 2))
        late_wood = np.clip((rings % 1.0) ** 2.5 * 1.15, 0, 1) * (1 - (rings % 1.0) ** 24)
        fibre = noise(rng, (height, each), (40, 0.7))
        pores = np.clip(noise(rng, (height, each), (14, 0.6)) - 1.9, 0, 1)
        tone = 0.34 + 0.36 * late_wood + 0.06 * fibre + 0.3 * pores + 0.10 * rng.standard_normal()
        gap = np.minimum(np.arange(each), np.arange(each)[::-1]) / each
        tone = tone + 0.5 * np.exp(-((gap / 0.006) ** 2)) + 0.06 * np.exp(-((gap / 0.02) ** 2))
        columns.append(tone)
    return ramp(np.concatenate(columns, 1), stops)


def linen(rng: Rng, shape: tuple[int, int], thread_px: float, stripe: Colour) -> Texture:
    """Plain weave with two groups of coloured stripes along v."""
    height, width = shape
    y, x = np.mgrid[:height, :width] / thread_px
    slub_x, slub_y = noise(rng, shape, (60, 1.5)), noise(rng, shape, (1.5, 60))
    over = ((np.floor(x) + np.floor(y)) % 2).astype(bool)
    profile = np.where(over, np.sin(np.pi * (x % 1)), np.sin(np.pi * (y % 1)))
    tone = 0.60 + 0.32 * profile**0.6 + 0.05 * np.where(over, slub_x, slub_y)
    natural = np.array((0.88, 0.84, 0.75)) * tone[..., None]
    u = np.arange(width) / width
    lines = [(0.07, 0.035), (0.115, 0.006), (0.14, 0.006)]
    inside = np.any([np.abs(np.minimum(u, 1 - u) - at) < half for at, half in lines], 0)
    dyed = inside[None] & (over | (noise(rng, shape, 1.0) > 1.2))
    return np.where(dyed[..., None], np.array(stripe) * tone[..., None], natural).astype(np.float32)


def glaze(rng: Rng, shape: tuple[int, int], body: Colour, rim: Colour) -> Texture:
    """Reactive stoneware glaze: mottled body, iron specks, a rim that broke to another colour."""
    v = np.linspace(1, 0, shape[0])[:, None]
    flow = fractal(rng, shape, shape[0] / 8)
    edge = np.clip((v + 0.035 * flow - 0.80) / 0.16, 0, 1)
    light = 1 + 0.10 * flow
    colour = np.array(body) * light[..., None] * (1 - edge[..., None])
    colour = colour + np.array(rim) * (1 + 0.06 * flow[..., None]) * edge[..., None]
    specks = np.clip(noise(rng, shape, 1.6) - 2.4, 0, 0.5)[..., None]
    return np.clip(colour * (1 - 1.3 * specks), 0, 1).astype(np.float32)


def mottled(
    rng: Rng, shape: tuple[int, int], colour: Colour, amount: float, scale_px: float
) -> Texture:
    """One colour with fractal brightness variation: plaster, clay, fruit skin."""
    field = 1 + amount * fractal(rng, shape, scale_px)
    return np.clip(np.array(colour) * field[..., None], 0, 1).astype(np.float32)


def swirl(rng: Rng, shape: tuple[int, int], stops: Sequence[Colour]) -> Texture:
    """Bands twisted by noise: toy marbles, marbled paper."""
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    field = 0.5 + 0.5 * np.sin(2 * np.pi * (3 * x + y) + 1.7 * noise(rng, shape, shape[0] / 7))
    return ramp(field, stops)


def globe(rng: Rng, shape: tuple[int, int]) -> Texture:
    """An invented antique globe, equirectangular: land, relief, shore lines, graticule."""
    height, width = shape
    land = fractal(rng, shape, height / 8, 7)
    sea = ramp(np.clip(0.55 - 0.25 * land, 0, 1), [(0.28, 0.50, 0.55), (0.50, 0.68, 0.68)])
    relief = 0.5 + 0.16 * fractal(rng, shape, height / 22, 5)
    ground = ramp(relief, [(0.62, 0.66, 0.40), (0.85, 0.76, 0.50), (0.72, 0.50, 0.31)])
    image = np.where(land[..., None] > 0, ground, sea)
    image[np.abs(land) < 0.035] = (0.30, 0.22, 0.14)
    image[(land < -0.09) & (land > -0.125)] = (0.24, 0.42, 0.47)
    line = max(1, height // 500)
    for degrees in range(0, 180, 15):
        row = degrees * height // 180
        image[row : row + line] *= 0.72
    for degrees in range(0, 360, 15):
        column = degrees * width // 360
        image[:, column : column + line] *= 0.72
    band = slice(height // 2 - 2 * line, height // 2 + 2 * line)
    image[band, (np.arange(width) // (width // 144)) % 2 == 0] = (0.55, 0.16, 0.12)
    return image


def leaf(rng: Rng, shape: tuple[int, int]) -> Texture:
    """Leaf with a pale midrib and side veins; v runs from the stalk to the tip."""
    y, x = np.mgrid[: shape[0], : shape[1]] / np.array(shape)[:, None, None]
    across = np.abs(x - 0.5) * 2
    veins = np.abs(((y * 9 + across * 2.2) % 1.0) - 0.5) < 0.05
    tone = 0.45 + 0.10 * fractal(rng, shape, shape[0] / 12) - 0.12 * across
    image = ramp(tone, [(0.10, 0.24, 0.09), (0.24, 0.45, 0.16), (0.45, 0.62, 0.26)])
    pale = np.where(veins, 0.35, 0.0) + 0.8 * np.exp(-((across / 0.05) ** 2))
    pale = np.clip(pale, 0, 1)[..., None]
    return (image * (1 - pale) + pale * np.array((0.66, 0.76, 0.46))).astype(np.float32)


class Print:
    """A drawing in millimetres on paper of one colour, origin at the top left."""

    def __init__(self, width_mm: float, height_mm: float, px_mm: float, paper: Colour) -> None:
        size = (round(width_mm * px_mm), round(height_mm * px_mm))
        self.px_mm = px_mm
        self.image = Image.new("RGB", size, _bytes(paper))
        self.draw = ImageDraw.Draw(self.image)

    def text(
        self, x: float, y: float, text: str, height_mm: float, ink: Colour, anchor: str = "la"
    ) -> None:
        """One line of Pillow's built-in face; anchor as in Pillow."""
        font = ImageFont.load_default(height_mm * self.px_mm)
        self.draw.text(self._px(x, y), text, fill=_bytes(ink), font=font, anchor=anchor)

    def line(self, points: Sequence[tuple[float, float]], width_mm: float, ink: Colour) -> None:
        """Polyline."""
        flat = [self._px(x, y) for x, y in points]
        self.draw.line(flat, fill=_bytes(ink), width=max(1, round(width_mm * self.px_mm)))

    def box(self, x: float, y: float, width: float, height: float, ink: Colour) -> None:
        """Filled rectangle."""
        self.draw.rectangle([self._px(x, y), self._px(x + width, y + height)], fill=_bytes(ink))

    def disc(self, x: float, y: float, radius: float, ink: Colour) -> None:
        """Filled disc."""
        box = [self._px(x - radius, y - radius), self._px(x + radius, y + radius)]
        self.draw.ellipse(box, fill=_bytes(ink))

    def texture(self, rng: Rng, grain: float = 0.015) -> Texture:
        """The drawing with paper grain."""
        image = np.asarray(self.image, np.float32) / 255
        grain_field = 1 + grain * fractal(rng, image.shape[:2], 12, 4)
        return np.clip(image * grain_field[..., None], 0, 1).astype(np.float32)

    def _px(self, x: float, y: float) -> tuple[float, float]:
        return x * self.px_mm, y * self.px_mm


def _bytes(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (round(255 * channel) for channel in colour)
    return red, green, blue
