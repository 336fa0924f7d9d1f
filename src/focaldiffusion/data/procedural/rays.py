"""Rays of the camera, ordered so that the rays near a body form a window."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from focaldiffusion.data.procedural.vectors import Vector3

_Bounds = tuple[float, float, float, float]
"""Slopes of rays: left, right, top, bottom."""

CORNERS_PX = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
"""Offsets of the extra rays at edges from the pixel's centre: a turned square."""


class Rays(Protocol):
    """Rays from the origin through slopes x and y at depth 1."""

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the rays."""
        ...

    @property
    def slopes(self) -> tuple[Tensor, Tensor]:
        """Slopes x and y, which broadcast to the shape."""
        ...

    @property
    def pixel_slope(self) -> float:
        """1 / focal length in pixels."""
        ...

    def window(self, bounds: _Bounds | None) -> tuple[slice, slice]:
        """Window that contains the rays within bounds; all rays for None."""
        ...


@dataclass(frozen=True)
class Grid:
    """The rays through the centres of an image's pixels.

    Attributes:
        image_size: (height, width).
        pixel_slope: 1 / focal length in pixels.
        device: where to compute.
    """

    image_size: tuple[int, int]
    pixel_slope: float
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the rays."""
        return self.image_size

    @property
    def slopes(self) -> tuple[Tensor, Tensor]:
        """x (1, W) and y (H, 1) of the rays at depth 1; the axis meets the image's centre."""
        height, width = self.image_size
        x = torch.arange(width, device=self.device, dtype=torch.float32) + (0.5 - width / 2)
        y = torch.arange(height, device=self.device, dtype=torch.float32) + (0.5 - height / 2)
        return x[None] * self.pixel_slope, y[:, None] * self.pixel_slope

    def window(self, bounds: _Bounds | None) -> tuple[slice, slice]:
        """The pixels within bounds in slopes, with a margin."""
        if bounds is None:
            return slice(None), slice(None)
        left, right, top, bottom = (bound / self.pixel_slope for bound in bounds)
        height, width = self.image_size
        return _clipped(top, bottom, height), _clipped(left, right, width)

    def refined(self, edges: Tensor) -> EdgeRays:
        """The extra rays of the pixels in a mask (H, W)."""
        x, y = self.slopes
        rows, columns = edges.nonzero(as_tuple=True)
        offsets = torch.tensor(CORNERS_PX, device=self.device) * self.pixel_slope
        return EdgeRays(x[0, columns, None] + offsets[:, 0], y[rows] + offsets[:, 1], self, rows)


@dataclass(frozen=True, eq=False)
class EdgeRays:
    """Several rays for each of P pixels, in the order of their rows.

    Attributes:
        x, y: (P, rays) slopes.
        grid: grid of the pixels.
        rows: (P,) rows of the pixels.
    """

    x: Tensor
    y: Tensor
    grid: Grid
    rows: Tensor

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the rays."""
        return self.x.shape[0], self.x.shape[1]

    @property
    def slopes(self) -> tuple[Tensor, Tensor]:
        """x and y of the rays at depth 1, (P, rays)."""
        return self.x, self.y

    @property
    def pixel_slope(self) -> float:
        """1 / focal length in pixels, same as the grid's."""
        return self.grid.pixel_slope

    def window(self, bounds: _Bounds | None) -> tuple[slice, slice]:
        """The rays of the rows within bounds in slopes."""
        height, _ = self.grid.image_size
        start, stop, _ = self.grid.window(bounds)[0].indices(height)
        ends = torch.searchsorted(self.rows, torch.tensor([start, stop], device=self.rows.device))
        return slice(int(ends[0]), int(ends[1])), slice(None)


def around(balls: Iterable[tuple[Vector3, float]]) -> _Bounds | None:
    """Bounds of the view of balls (centre, radius) and the space between; None for unbounded."""
    xs, ys = [], []
    for (x, y, z), radius in balls:
        if z <= radius:
            return None
        for depth in (z - radius, z + radius):
            xs += [(x - radius) / depth, (x + radius) / depth]
            ys += [(y - radius) / depth, (y + radius) / depth]
    return min(xs), max(xs), min(ys), max(ys)


def _clipped(low_px: float, high_px: float, size: int) -> slice:
    """Pixel indices between two distances from the centre, with a margin."""
    start = min(max(int(low_px + size / 2) - 1, 0), size)
    return slice(start, max(min(int(high_px + size / 2) + 2, size), start))
