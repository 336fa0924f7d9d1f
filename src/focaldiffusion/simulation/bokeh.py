"""Blur of apertures that are not round: hexagonal blades, and the cat's eye of a long barrel.

Unlike the families of `psf.py` these are not radially symmetric. A hexagon has the variance of a
disc of the same radius, so that it does not change the size of the blur; a cat's eye is the part of
that disc which the barrel leaves. Half a turn changes neither, so their transforms are real.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from focaldiffusion.errors import InputError

Shape = Literal["disc", "hexagon", "cats_eye"]
"""Shapes of a highlight out of focus."""

_HEXAGON_APOTHEM = math.sqrt(3 / 4) * math.sqrt(0.25 / (5 / 24))
"""Distance of a side from the centre for the variance of a disc of radius 1: a hexagon of
circumradius 1 has 5/24 along each axis, a disc 1/4."""


@dataclass(frozen=True)
class Bokeh:
    """An aperture that is not round.

    Attributes:
        shape: "hexagon", or "cats_eye", the part that two equal discs share.
        shift: (x, y) from the centre of one disc of a cat's eye to that of the other, in radii.

    Raises:
        InputError: an unknown shape, or discs that hardly overlap.
    """

    shape: Shape
    shift: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise InputError(
                f"shape {self.shape!r} is unknown; expected one of {', '.join(get_args(Shape))}."
            )
        if math.hypot(*self.shift) > 1.5:
            raise InputError(f"shift {self.shift}: expected at most 1.5 radii.")

    @property
    def support(self) -> float:
        """Radius, in units of R, that holds all of the light."""
        return _HEXAGON_APOTHEM * 2 / math.sqrt(3) if self.shape == "hexagon" else 1.0

    def kernel(self, radius_px: Tensor) -> Tensor:
        """Light of each pixel around the centre, (2 n + 1, 2 n + 1), sum one.

        A pixel on the rim has the share of it that lies inside, as for a straight rim.

        Args:
            radius_px: a single radius.
        """
        reach = math.ceil(self.support * float(radius_px) + 0.5)
        at = torch.arange(-reach, reach + 1).to(radius_px)
        y, x = at[:, None], at[None, :]
        if self.shape == "hexagon":
            sides = (math.pi / 6, math.pi / 2, 5 * math.pi / 6)
            across = [(x * math.cos(a) + y * math.sin(a)).abs() for a in sides]
            outside = torch.stack(across).amax(0) - _HEXAGON_APOTHEM * radius_px
        else:
            dx, dy = (radius_px * part / 2 for part in self.shift)
            first, second = ((x - s * dx).square() + (y - s * dy).square() for s in (-1, 1))
            outside = torch.maximum(first, second).sqrt() - radius_px
        light = (0.5 - outside).clamp(0, 1)
        return light / light.sum()

    def factors(self, radii_px: Tensor, grid_size: tuple[int, int]) -> Tensor:
        """Factors (n, P, Q) that blur the spectrum of a periodic grid, for each radius (n,)."""
        height, width = grid_size
        planes = radii_px.new_zeros((len(radii_px), height, width))
        for plane, radius_px in zip(planes, radii_px, strict=True):
            kernel = self.kernel(radius_px)
            reach = len(kernel) // 2
            rows, columns = (
                torch.arange(-reach, reach + 1, device=plane.device) % side for side in grid_size
            )
            plane.index_put_((rows[:, None], columns[None, :]), kernel, accumulate=True)
        half = torch.fft.rfft2(planes).real
        # Half a turn changes nothing, so neither does the sign of a frequency.
        rest = half[..., 1 : width - width // 2].flip(-1)
        rest = torch.cat([rest[..., :1, :], rest[..., 1:, :].flip(-2)], dim=-2)
        return torch.cat([half, rest], dim=-1)
