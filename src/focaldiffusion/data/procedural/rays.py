"""Rays of the camera, ordered so that the rays near a body form a window."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from focaldiffusion.data.procedural.vectors import Vector3

_CORNERS_PX = ((-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375))
"""Offsets of the extra rays at edges from the pixel's centre: a turned square."""


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays from the origin, one for each pixel of an image or several for some of the pixels.

    Attributes:
        slopes: x and y of the rays at depth 1, which broadcast to their shape.
        image_size: (height, width) [px].
        pixel_slope: 1 / focal length in pixels.
        rows: (P,) sorted rows of the P pixels that have rays of shape (P, rays); None for a ray
            through each pixel, (H, W).
    """

    slopes: tuple[Tensor, Tensor]
    image_size: tuple[int, int]
    pixel_slope: float
    rows: Tensor | None = None

    @classmethod
    def of_image(
        cls, image_size: tuple[int, int], pixel_slope: float, device: torch.device | str = "cpu"
    ) -> Rays:
        """The rays through the pixel centres; the optical axis meets the centre of the image."""
        x, y = (
            (torch.arange(size, device=device, dtype=torch.float32) + (0.5 - size / 2))
            * pixel_slope
            for size in reversed(image_size)
        )
        return cls((x[None], y[:, None]), image_size, pixel_slope)

    @property
    def shape(self) -> torch.Size:
        """Shape of the rays."""
        x, y = self.slopes
        return torch.broadcast_shapes(x.shape, y.shape)

    def refined(self, edges: Tensor) -> Rays:
        """The extra rays, (P, 4), of the pixels in a mask (H, W)."""
        x, y = self.slopes
        rows, columns = edges.nonzero(as_tuple=True)
        offsets = torch.tensor(_CORNERS_PX, device=x.device) * self.pixel_slope
        slopes = x[0, columns, None] + offsets[:, 0], y[rows] + offsets[:, 1]
        return replace(self, slopes=slopes, rows=rows)

    def window(self, bounds: tuple[float, float, float, float] | None) -> tuple[slice, slice]:
        """The rays within bounds in slopes (left, right, top, bottom), with a margin.

        All rays for None. Of several rays for some pixels, all that lie in the rows of the window.
        """
        if bounds is None:
            return slice(None), slice(None)
        left, right, top, bottom = (bound / self.pixel_slope for bound in bounds)
        height, width = self.image_size
        rows = _clipped(top, bottom, height)
        if self.rows is None:
            return rows, _clipped(left, right, width)
        ends = torch.searchsorted(self.rows, self.rows.new_tensor([rows.start, rows.stop]))
        return slice(int(ends[0]), int(ends[1])), slice(None)

    def around(self, balls: Iterable[tuple[Vector3, float]]) -> tuple[slice, slice]:
        """The rays that may meet balls (centre, radius) or the space between, as a window."""
        xs, ys = [], []
        for (x, y, z), radius in balls:
            if z <= radius:
                return self.window(None)
            for depth in (z - radius, z + radius):
                xs += [(x - radius) / depth, (x + radius) / depth]
                ys += [(y - radius) / depth, (y + radius) / depth]
        return self.window((min(xs), max(xs), min(ys), max(ys)))


def _clipped(low_px: float, high_px: float, size: int) -> slice:
    """Pixel indices between two distances from the centre, with a margin."""
    start = min(max(int(low_px + size / 2) - 1, 0), size)
    return slice(start, max(min(int(high_px + size / 2) + 2, size), start))
