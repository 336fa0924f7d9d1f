"""Tiles: an image that is too large for the network, in overlapping parts, and back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

_OVERLAP_SHARE = 4  # neighbours share a quarter of a tile's side, less at most one `multiple`


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image.

    Attributes:
        top: first row [px].
        left: first column [px].
        size: (height, width) [px].
    """

    top: int
    left: int
    size: tuple[int, int]

    def of(self, planes: Tensor, cell_px: int = 1) -> Tensor:
        """This part of (..., H, W) planes, in cells with sides of `cell_px` pixels."""
        top, left, height, width = (side // cell_px for side in (self.top, self.left, *self.size))
        return planes[..., top : top + height, left : left + width]


def tiles_of(size: tuple[int, int], side_px: int, multiple: int) -> list[Tile]:
    """Even tiles that cover an image, row by row.

    Args:
        size: (height, width) of the image, multiples of `multiple`.
        side_px: longest side of a tile, at least four times `multiple` and a multiple of it.
        multiple: pixels whose multiples tiles begin and end at.

    Returns:
        The tiles; a single one if the image fits.
    """
    height, width = (min(side, side_px) for side in size)
    return [
        Tile(top, left, (height, width))
        for top in _starts(size[0], height, multiple)
        for left in _starts(size[1], width, multiple)
    ]


def blend(size: tuple[int, int], parts: Iterable[tuple[Tile, Tensor]]) -> Tensor:
    """Join tiles into one image (B, C, H, W), each fading linearly into its neighbours.

    Args:
        size: (height, width) of the image that `tiles_of` was given.
        parts: every tile with its result (B, C, h, w).
    """
    total = weight_sum = None
    for tile, part in parts:
        if total is None or weight_sum is None:
            total = part.new_zeros(*part.shape[:2], *size)
            weight_sum = part.new_zeros(size)
        rows = _weight(tile.top, tile.size[0], size[0])
        columns = _weight(tile.left, tile.size[1], size[1])
        weight = (rows[:, None] * columns).to(part)
        tile.of(total).add_(weight * part)
        tile.of(weight_sum).add_(weight)
    if total is None or weight_sum is None:
        raise ValueError("no tile to blend")
    return total / weight_sum


def _starts(length: int, side: int, multiple: int) -> list[int]:
    """Even starts of tiles along one axis; the last tile ends with the image."""
    if side == length:
        return [0]
    steps = math.ceil((length - side) / (side - side / _OVERLAP_SHARE))
    return [index * (length - side) // steps // multiple * multiple for index in range(steps + 1)]


def _weight(start: int, side: int, length: int) -> Tensor:
    """(side,) weight of a tile along one axis: ramps over overlaps, 1 at the image's border."""
    ramp_px = side / _OVERLAP_SHARE
    position = torch.arange(side) + 0.5
    weight = torch.ones(side)
    if start > 0:
        weight = torch.minimum(weight, position / ramp_px)
    if start + side < length:
        weight = torch.minimum(weight, (side - position) / ramp_px)
    return weight
