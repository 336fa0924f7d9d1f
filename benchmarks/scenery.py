"""Subjects for static_stacks.py: layers of leaves, stalks, words, stones and walls.

A layer is painted sharp, in linear light, with anti-aliased or soft silhouettes. Photographs give
it texture at their native resolution. Lenses play no part here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Array = NDArray[Any]  # float32 unless stated otherwise

SUPERSAMPLING = 4


def srgb_to_linear(srgb: Array) -> Array:
    """IEC 61966-2-1, [0, 1] to [0, 1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Array) -> Array:
    """IEC 61966-2-1, [0, 1] to [0, 1]."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)


@dataclass(eq=False)
class Layer:
    """A painted plane, upright or tilted about a horizontal axis.

    Attributes:
        colour: (H, W, 3) linear light times alpha; lamps exceed 1.
        alpha: (H, W) coverage, [0, 1].
        inverse_depth_dpt: (H,) 1/z of each row, linear in the row.
    """

    colour: Array
    alpha: Array
    inverse_depth_dpt: Array

    @classmethod
    def empty(cls, size: tuple[int, int], near_m: float, far_m: float | None = None) -> Layer:
        """A transparent layer of (height, width) at `near_m`; its top row at `far_m` if tilted."""
        height, width = size
        far_dpt = 1 / (far_m or near_m)
        return cls(
            np.zeros((height, width, 3), np.float32),
            np.zeros((height, width), np.float32),
            np.linspace(far_dpt, 1 / near_m, height, dtype=np.float32),
        )

    def depth_m(self, share: float) -> float:
        """Depth of the row at a share of the height from the top [m]."""
        return float(1 / self.inverse_depth_dpt[int(share * len(self.inverse_depth_dpt))])

    def paint(self, top: int, left: int, alpha: Array, colour: Array) -> None:
        """Composite a patch over the layer: alpha (h, w), colour (h, w, 3), clipped to it."""
        height, width = self.alpha.shape
        rows = slice(max(top, 0), min(top + alpha.shape[0], height))
        columns = slice(max(left, 0), min(left + alpha.shape[1], width))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        inside = np.s_[
            rows.start - top : rows.stop - top, columns.start - left : columns.stop - left
        ]
        a = alpha[inside]
        self.alpha[rows, columns] = a + (1 - a) * self.alpha[rows, columns]
        under = self.colour[rows, columns]
        self.colour[rows, columns] = a[..., None] * colour[inside] + (1 - a[..., None]) * under


class Photographs:
    """Photographs as a source of textures, in linear light.

    Args:
        folder: JPEG and PNG files; None for those that come with scikit-image.
        rng: generator of the choices.
    """

    BUNDLED = ("astronaut", "brick", "chelsea", "coffee", "grass", "gravel", "rocket")

    def __init__(self, folder: Path | None, rng: np.random.Generator) -> None:
        self.rng = rng
        if folder is None:
            self.images = [self._bundled(name) for name in self.BUNDLED]
            return
        paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
        if not paths:
            sys.exit(f"{folder}: no JPEG or PNG files; expected a folder of photographs.")
        # A scene shows a dozen at most, so decode no others.
        chosen = rng.choice(len(paths), size=min(12, len(paths)), replace=False)
        self.images = [np.asarray(Image.open(paths[index]).convert("RGB")) for index in chosen]

    @staticmethod
    def _bundled(name: str) -> NDArray[np.uint8]:
        try:
            from skimage import data
        except ImportError:
            sys.exit("Without --textures, scikit-image is needed: pip install scikit-image.")
        image = getattr(data, name)()
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3]

    def patch(self, height: int, width: int) -> Array:
        """A random (height, width, 3) piece of a random photograph, mirrored if it is too small.

        It is never magnified, so detail reaches down to single pixels.
        """
        image = self.images[self.rng.integers(len(self.images))]
        if self.rng.random() < 0.5:
            image = image[:, ::-1]
        rows = _mirrored(height, image.shape[0], self.rng)
        columns = _mirrored(width, image.shape[1], self.rng)
        return srgb_to_linear(image[np.ix_(rows, columns)].astype(np.float32) / 255)

    def relief(self, height: int, width: int) -> Array:
        """Relative brightness of a patch, (height, width, 1), to add detail to a plain colour."""
        grey = self.patch(height, width).mean(axis=2, keepdims=True)
        return np.clip(0.35 + 0.65 * grey / max(float(grey.mean()), 0.02), 0.2, 2.5)


def _mirrored(count: int, available: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` consecutive indices from a random start, reflected at the ends."""
    index = (np.arange(count) + rng.integers(max(available - count, 0) + 1)) % (2 * available)
    return np.minimum(index, 2 * available - 1 - index)


def polygon_patch(outline: Array, softness_px: float) -> tuple[int, int, Array]:
    """(top, left, alpha) of a polygon of (x, y) points, with coverage exact to 1/16 pixel."""
    margin = int(np.ceil(3 * softness_px)) + 1
    left, top = np.floor(outline.min(axis=0)).astype(int) - margin
    right, bottom = np.ceil(outline.max(axis=0)).astype(int) + margin
    height, width = bottom - top, right - left
    fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    points = (outline - [left, top]) * SUPERSAMPLING - 0.5
    cv2.fillPoly(fine, [np.round(points * 16).astype(np.int32)], 255, shift=4)
    alpha: Array = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA) / np.float32(255)
    if softness_px:
        alpha = cv2.GaussianBlur(alpha, (0, 0), softness_px)
    return int(top), int(left), alpha


@dataclass(eq=False)
class Painter:
    """Paints subjects onto layers, drawing all choices from one random generator."""

    photographs: Photographs
    rng: np.random.Generator

    def _blade(self, layer: Layer, spine: Array, half_width: Array, softness_px: float) -> None:
        """A strip of round section around a spine of (x, y) points: a leaf, a stalk, a rod."""
        tangent = np.gradient(spine, axis=0)
        normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        side = normal * half_width[:, None]
        outline = np.concatenate([spine + side, (spine - side)[::-1]]).astype(np.float32)
        top, left, alpha = polygon_patch(outline, softness_px)
        # Shade by the distance from the spine, drawn as a line.
        line = np.full(alpha.shape, 255, np.uint8)
        points = np.round((spine - [left, top]) * 16).astype(np.int32)
        cv2.polylines(line, [points], False, 0, thickness=1, shift=4)
        from_spine = cv2.distanceTransform(line, cv2.DIST_L2, 5) / max(float(half_width.max()), 1)
        tint = self.rng.uniform([0.05, 0.16, 0.02], [0.45, 0.5, 0.12]) * self.rng.uniform(0.6, 1.6)
        relief = self.photographs.relief(*alpha.shape)
        vein = 1 + 0.8 * np.exp(-((from_spine * half_width.max()) ** 2) / 3)[..., None]
        colour = tint * relief * vein * (1.1 - 0.5 * np.clip(from_spine, 0, 1)[..., None])
        layer.paint(top, left, alpha, colour.astype(np.float32))

    def leaves(self, layer: Layer, count: int, length_px: float, softness_px: float = 0.0) -> None:
        """Serrated leaves on a twig that enters from one side."""
        height, width = layer.alpha.shape
        from_left = self.rng.random() < 0.5
        start = np.array([0.0 if from_left else width, self.rng.uniform(0.1, 0.9) * height])
        end = np.array([self.rng.uniform(0.55, 0.8) * width, self.rng.uniform(0.2, 0.8) * height])
        end[0] = end[0] if from_left else width - end[0]
        along = np.linspace(0, 1, 80)[:, None]
        bend = np.array([0.0, self.rng.uniform(-0.15, 0.15) * height])
        twig = start + along * (end - start) + 4 * along * (1 - along) * bend
        self._blade(layer, twig, np.linspace(0.045, 0.012, 80) * length_px, 0.0)
        heading = np.arctan2(*(end - start)[::-1])
        for index in range(count):
            foot = twig[int((0.12 + 0.87 * index / max(count - 1, 1)) * 79)]
            angle = heading + (-1) ** index * self.rng.uniform(0.5, 1.1)
            size = length_px * self.rng.uniform(0.7, 1.15)
            t = np.linspace(0, 1, 60)
            curve = angle + self.rng.uniform(-0.5, 0.5) * t
            step = np.stack([np.cos(curve), np.sin(curve)], axis=1) * size / 60
            teeth = 1 + 0.08 * np.sin(2 * np.pi * 14 * t)
            half_width = 0.2 * size * np.sin(np.pi * t**0.75) ** 0.9 * teeth + 0.8
            self._blade(layer, foot + np.cumsum(step, axis=0), half_width, softness_px)

    def stalks(self, layer: Layer, count: int, widths_px: tuple[float, float]) -> None:
        """Thin, slightly bent stalks that rise from below and taper to their tips."""
        height, width = layer.alpha.shape
        for _ in range(count):
            t = np.linspace(0, 1, 50)
            x = self.rng.uniform(0, width) + self.rng.uniform(-0.2, 0.2) * width * t**2
            y = height * (1.02 - self.rng.uniform(0.5, 1.05) * t)
            half_width = self.rng.uniform(*widths_px) / 2 * (1 - 0.75 * t)
            self._blade(layer, np.stack([x, y], axis=1), half_width, 0.0)

    def stones(
        self, layer: Layer, centres: Sequence[tuple[float, float]], radius_px: float
    ) -> None:
        """Round, irregular stones at (x, y) centres, lit from the upper left."""
        for x, y in centres:
            angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
            wobble = sum(
                self.rng.uniform(0, 0.16 / k) * np.cos(k * angle + self.rng.uniform(0, 6.3))
                for k in (2, 3, 4, 5)
            )
            radius = radius_px * self.rng.uniform(0.7, 1.2) * (1 + wobble)
            outline = np.stack([x + radius * np.cos(angle), y + 0.8 * radius * np.sin(angle)], 1)
            top, left, alpha = polygon_patch(outline.astype(np.float32), 0.0)
            height, width = alpha.shape
            u, v = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
            bulge = np.sqrt(np.clip(1 - 0.9 * (u**2 + v**2), 0.02, 1))
            light = np.clip(0.25 + 0.5 * bulge - 0.25 * u - 0.4 * v, 0.05, 1.5)[..., None]
            colour = self.photographs.patch(height, width) * 0.6 + 0.25 * self.rng.random(3)
            layer.paint(top, left, alpha, (colour * light).astype(np.float32))

    def word(self, layer: Layer, text: str, height_px: int, baseline: float, x: float) -> None:
        """A cut-out word with a photograph on it; `baseline` and `x` are shares of the size."""
        font = ImageFont.load_default(size=height_px * SUPERSAMPLING)
        left, top, right, bottom = (int(value) for value in font.getbbox(text))
        canvas = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(canvas).text((-left, -top), text, fill=255, font=font)
        turned = canvas.rotate(self.rng.uniform(-6, 6), Image.Resampling.BICUBIC, expand=True)
        size = turned.width // SUPERSAMPLING, turned.height // SUPERSAMPLING
        alpha = np.asarray(turned.resize(size, Image.Resampling.BOX), np.float32) / 255
        height, width = layer.alpha.shape
        corner = int(baseline * height) - size[1], int(x * width)
        layer.paint(*corner, alpha, self.photographs.patch(size[1], size[0]))

    def wall(self, layer: Layer, sheet_px: int, darkness: float = 1.0) -> None:
        """An opaque wall papered with photographs that overlap at small angles."""
        height, width = layer.alpha.shape
        layer.paint(
            0, 0, np.ones((height, width), np.float32), self.photographs.patch(height, width)
        )
        for y in range(-sheet_px // 2, height, int(sheet_px * 0.62)):
            for x in range(-sheet_px // 2, width, int(sheet_px * 0.62)):
                size = sheet_px * self.rng.uniform(0.7, 1.15, size=2)
                turn = self.rng.uniform(-0.12, 0.12)
                rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
                corners = np.array([(0, 0), (1, 0), (1, 1), (0, 1)]) * size @ rotation.T
                jitter = self.rng.uniform(-0.1, 0.1, size=2) * sheet_px
                top, left, alpha = polygon_patch(corners + np.array([x, y]) + jitter, 0.0)
                layer.paint(top, left, alpha, self.photographs.patch(*alpha.shape))
        layer.colour *= darkness

    def ground(self, layer: Layer, top_share: float) -> None:
        """A tilted surface in perspective, from the bottom edge up to a share of the height."""
        height, width = layer.alpha.shape
        first = int(top_share * height)
        depth = 1 / layer.inverse_depth_dpt[first:]
        texture = self.photographs.patch(height, 2 * width)
        # Perspective shrinks the surface with depth; 1.3 pixels per texel at the near edge.
        zoom = depth / depth.min() / 1.3
        x = (np.arange(width)[None] - width / 2) * zoom[:, None] + width
        y = np.broadcast_to((np.cumsum(zoom[::-1])[::-1])[:, None], x.shape)
        maps = np.ascontiguousarray(x, np.float32), np.ascontiguousarray(y, np.float32)
        colour = cv2.remap(texture, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        layer.paint(first, 0, np.ones(colour.shape[:2], np.float32), colour)

    def lamps(self, layer: Layer, count: int, radius_px: float, brightness: float) -> None:
        """Small lamps far brighter than white, which saturate and blur to bright discs."""
        height, width = layer.alpha.shape
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        for _ in range(count):
            centre = self.rng.uniform([0.03 * width, 0.03 * height], [0.97 * width, 0.6 * height])
            outline = centre + circle * radius_px * self.rng.uniform(0.6, 1.4)
            top, left, alpha = polygon_patch(outline.astype(np.float32), 0.4)
            colour = brightness * self.rng.uniform([0.9, 0.5, 0.2], [1.0, 0.9, 0.8])
            layer.paint(top, left, alpha, np.broadcast_to(colour, (*alpha.shape, 3)))
