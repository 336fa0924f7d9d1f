"""Window: a part of an image at another size, for light, depth and optics together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.optics import Camera

_SLACK = 1e-6
"""Relative tolerance of rounding: a window of exactly the image's size must not lose a pixel."""


@dataclass(frozen=True)
class Window:
    """A rectangle of an image, resampled to square pixels of another size.

    Both axes share one step, and the sides need not be whole pixels, so rounding never makes
    pixels, or the blur, anisotropic.

    Attributes:
        left: first column of the rectangle [px].
        top: first row of the rectangle [px].
        step: side of a new pixel [px of the image]; below 1 enlarges.
        size: (height, width) of the result; `step` times as much lies inside the image.
    """

    left: int
    top: int
    step: float
    size: tuple[int, int]

    @property
    def extent(self) -> tuple[int, int]:
        """(height, width) of the image pixels that it touches."""
        height, width = (math.ceil(self.step * side * (1 - _SLACK)) for side in self.size)
        return height, width

    def light(self, image: Tensor) -> Tensor:
        """The window of one image or several, (..., C, H, W), averaged when it shrinks."""
        rows, columns = self.extent
        part = image[..., self.top : self.top + rows, self.left : self.left + columns]
        if self.step == 1:
            return part
        images = part if part.ndim == 4 else part[None]
        resampled = self._averaged(images) if self.step > 1 else self._enlarged(images)
        return resampled if part.ndim == 4 else resampled[0]

    def _averaged(self, part: Tensor) -> Tensor:
        height, width = self.size
        factor = (1 + _SLACK) / self.step
        return functional.interpolate(part, scale_factor=factor, mode="bilinear", antialias=True)[
            ..., :height, :width
        ]

    def _enlarged(self, part: Tensor) -> Tensor:
        # Not `interpolate`: it copies where it enlarges by less than a pixel over the whole side.
        share_x, share_y = (
            self.step * new / old
            for new, old in zip(self.size[::-1], part.shape[:1:-1], strict=True)
        )
        matrix = part.new_tensor([[share_x, 0, share_x - 1], [0, share_y, share_y - 1]])
        grid = functional.affine_grid(
            matrix.expand(len(part), 2, 3), [*part.shape[:2], *self.size], align_corners=False
        )
        return functional.grid_sample(part, grid, padding_mode="border", align_corners=False)

    def nearest(self, plane: Tensor) -> Tensor:
        """The window of a depth or validity map (..., H, W), by the nearest pixel.

        Averaging across a silhouette would invent a surface.
        """
        if self.step == 1:
            return self.light(plane)
        rows, columns = (
            (first + (torch.arange(side, dtype=torch.float64) + 0.5) * self.step)
            .long()
            .to(plane.device)
            for first, side in zip((self.top, self.left), self.size, strict=True)
        )
        return plane[..., rows[:, None], columns]

    def camera(self, camera: Camera) -> Camera:
        """The camera of the window."""
        x, y = camera.principal_point_px
        return replace(
            camera,
            focal_length_px=camera.focal_length_px / self.step,
            image_size=self.size,
            principal_point_px=((x - self.left) / self.step, (y - self.top) / self.step),
        )
