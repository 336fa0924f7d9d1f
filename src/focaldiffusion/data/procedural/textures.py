"""Materials of surfaces: pictures with mip levels, drawn or photographed, and gloss."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.data.procedural.vectors import Vector3

_ONE_LEVEL = 0.5
"""Points whose levels differ by less share one level, as on surfaces that face the camera."""


class Texture:
    """A picture that covers surfaces, mirrored endlessly at its borders.

    Attributes:
        levels: (3, h, w) linear light, each half the size of the one before.
    """

    def __init__(self, picture: Tensor) -> None:
        self.levels = [picture]
        while min(self.levels[-1].shape[-2:]) > 4:
            self.levels.append(functional.avg_pool2d(self.levels[-1], 2))

    def sample(self, u_px: Tensor, v_px: Tensor, footprint_px: Tensor) -> Tensor:
        """Colours (3, P) of points given in pixels of the finest level, shape (P,).

        Args:
            u_px: to the right.
            v_px: downwards.
            footprint_px: size of a sample, over which light is averaged.
        """
        height, width = self.levels[0].shape[-2:]
        if height == width == 1:
            return self.levels[0][:, 0].expand(-1, len(u_px))
        grid = torch.stack([u_px * (2 / width) - 1, v_px * (2 / height) - 1], -1)[None, None]
        level = footprint_px.log2().clamp(0, len(self.levels) - 1)
        first, last = (float(end) for end in torch.aminmax(level))
        if last - first < _ONE_LEVEL:
            return self._sample_level(round((first + last) / 2), grid)
        colours = u_px.new_zeros(3, len(u_px))
        for number in range(math.floor(first), math.ceil(last) + 1):
            weight = (1 - (level - number).abs()).clamp_min(0)
            colours += self._sample_level(number, grid) * weight
        return colours

    def _sample_level(self, number: int, grid: Tensor) -> Tensor:
        return functional.grid_sample(
            self.levels[number][None], grid, padding_mode="reflection", align_corners=False
        )[0, :, 0]


@dataclass(frozen=True, eq=False)
class Material:
    """Reflection and emission of a surface.

    Attributes:
        texture: share of the light that it scatters, by colour.
        gloss: strength of the highlight, 0 for none.
        sharpness: Blinn-Phong exponent of the highlight.
        glow: emitted light, in units of its texture.
    """

    texture: Texture
    gloss: float = 0.0
    sharpness: float = 1.0
    glow: float = 0.0


def plain(colour: Vector3, device: torch.device) -> Texture:
    """A texture of one colour."""
    return Texture(torch.tensor(colour, dtype=torch.float32, device=device)[:, None, None])
