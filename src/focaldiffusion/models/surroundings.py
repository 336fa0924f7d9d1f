"""Means of the trusted surface around each pixel, for pixels without evidence of their own.

They sum over half an image, along edges and over similar colours. A small network would need very
many scenes to learn such sums, so they are part of its conditioning.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.filters import box_mean

WINDOWS = (1 / 40, 1 / 13, 1 / 5)
"""Half sides of the square windows, as shares of the long side."""
EDGE_REACHES = (1 / 20, 3 / 10)
"""Standard deviations of the edge-aware means, as shares of the long side."""
LOOKALIKES = ((0.08, 0.08), (0.08, 0.25), (0.05, 2.0), (0.2, 0.05))
"""Standard deviations of the means over similar pixels: in colour, where black and white are √3
apart, and in place, as shares of the long side."""
SURROUNDINGS = 3 * (len(WINDOWS) + len(EDGE_REACHES) + len(LOOKALIKES)) + 1
"""Number of channels of `surroundings`."""

_CELLS = 80  # of the means, along the long side
_KEYS = 20  # of the colours that they are compared with, along the long side
_EDGE = 0.4  # sum of |difference| over the channels of sRGB in [-1, 1] that counts as one reach
_EDGE_PASSES = 3
_LEAST_TRUST = 1e-3  # so that an untrusted surface still has a mean
_CUT_OFF = 20.0  # of exponents: smaller ones give denormal numbers, which are slow
_UNLIKE = 1e-6  # weight of dissimilar cells, so that a unique cell still has a mean


def surroundings(
    coordinate: Tensor, codes: Tensor, trust: Tensor, image: Tensor, encode: Callable[..., Tensor]
) -> Tensor:
    """Means of the trusted surface: in windows, along edges and over similar colours.

    Each mean has three channels: the code, its standard deviation, and the trust behind it on a
    logarithmic scale from 0 (none) to 1. The last channel is the code of the plane through the
    trusted surface; in inverse depth, that is a wall or a floor. The grid has 80 cells along the
    long side, so the means do not depend on the resolution. The position of a pixel is left out:
    a network would learn where floors and walls were in its training scenes.

    Args:
        coordinate: (H, W) of the surface.
        codes: (H, W) of the surface.
        trust: (H, W) in [0, 1].
        image: (3, H, W) sRGB in [-1, 1].
        encode: from coordinates to codes.

    Returns:
        (S, H, W) in [-1, 1].
    """
    height, width = codes.shape
    trust = trust + _LEAST_TRUST
    trusted = torch.stack([trust, trust * codes, trust * codes.square()])
    cells = _shrunk(torch.cat([trusted, image, (trust * coordinate)[None]]), _CELLS)
    moments, colours, levels = cells.split([3, 3, 1])
    means = [box_mean(moments, max(1, round(reach * _CELLS))) for reach in WINDOWS]
    means += _along_edges(moments, colours)
    means += _over_lookalikes(colours, _shrunk(torch.cat([trusted, trust * image]), _KEYS))
    maps = [*map(_mean_and_trust, means), encode(_plane(levels / moments[:1], moments[:1]))]
    grown = functional.interpolate(
        torch.cat(maps)[None], size=(height, width), mode="bilinear", align_corners=False
    )
    return grown[0]


def _mean_and_trust(moments: Tensor) -> Tensor:
    """(3, h, w) mean code, its deviation and the trust behind it, from moments (3, h, w)."""
    trust, first, second = moments
    mean = first / trust
    deviation = (second / trust - mean.square()).clamp_min(0).sqrt()
    support = 1 - trust.log10() / math.log10(_LEAST_TRUST)
    return torch.stack([mean, deviation, support.clamp(0, 1)])


def _along_edges(moments: Tensor, colours: Tensor) -> Tensor:
    """(R, 3, h, w) moments (3, h, w), averaged up to the edges of the image.

    The recursive filter of the domain transform. Each pass runs to and fro along rows, then along
    columns, and a difference of colour counts as distance (Gastal and Oliveira, Domain Transform
    for Edge-Aware Image and Video Processing, 2011).
    """
    reaches = moments.new_tensor(EDGE_REACHES)[:, None, None] * _CELLS
    across, down = (1 + reaches / _EDGE * colours.diff(dim=dim).abs().sum(0) for dim in (-1, -2))
    # The filter runs along the first dimension: (w, R, 3, h), then (h, R, 3, w).
    running = moments.expand(len(reaches), -1, -1, -1)
    for index in range(_EDGE_PASSES):
        share = math.sqrt(3 / (4**_EDGE_PASSES - 1)) * 2 ** (_EDGE_PASSES - 1 - index)
        decay = torch.exp(-math.sqrt(2) / (share * reaches))
        for dim, steps in ((-1, across), (-2, down)):
            lines = running.movedim(dim, 0).contiguous()
            kept = (decay**steps).movedim(dim, 0)[:, :, None].contiguous()
            for line in range(1, len(lines)):
                lines[line].lerp_(lines[line - 1], kept[line - 1])
            for line in range(len(lines) - 2, -1, -1):
                lines[line].lerp_(lines[line + 1], kept[line])
            running = lines.movedim(0, dim)
    return running


def _over_lookalikes(colours: Tensor, keys: Tensor) -> Tensor:
    """(L, 3, h, w) moments of the keys, weighted by nearness to each cell in colour and place.

    Args:
        colours: (3, h, w) of the cells.
        keys: (6, h', w') moments, then colour times trust.
    """
    size = height, width = colours.shape[-2:]
    longest = max(size)

    def place(of: Tensor) -> Tensor:
        (rows, columns), shares = of.shape[-2:], [side / longest for side in size]
        y, x = (
            (share * (one + 1) / 2).to(of)
            for one, share in zip(_places(rows, columns, of), shares, strict=True)
        )
        return torch.cartesian_prod(y, x)

    cells, looks = colours.flatten(1).T / 2, (keys[3:] / keys[:1]).flatten(1).T / 2
    ones = torch.ones_like(looks[:, :1])
    moments = torch.cat([keys[:3].flatten(1).T, ones], dim=1)
    here, there = place(colours), place(keys)
    means = []
    for colour, reach in LOOKALIKES:
        # exp(-|a - b|² / 2), with the square written out: one product makes all exponents.
        a, b = (torch.cat([x / colour, y / reach], 1) for x, y in ((cells, here), (looks, there)))
        squares = [-one.square().sum(1, keepdim=True) / 2 for one in (a, b)]
        a, b = (
            torch.cat([a, squares[0], torch.ones_like(squares[0])], 1),
            torch.cat([b, ones, squares[1]], 1),
        )
        weight = (a @ b.T).clamp_(-_CUT_OFF, 0).exp_()
        sums = weight @ moments + _UNLIKE * moments.sum(0)
        means.append(sums[:, :3] / sums[:, 3:])
    return torch.stack(means).movedim(-1, 1).reshape(-1, 3, height, width)


def _plane(coordinate: Tensor, trust: Tensor) -> Tensor:
    """(1, h, w) plane through a surface (1, h, w), weighted by trust."""
    height, width = coordinate.shape[-2:]
    # On the CPU, for some devices have no double precision; the maps are small.
    surface = coordinate.cpu().double()
    y, x = _places(height, width, coordinate.cpu())
    ones = torch.ones(height, width, dtype=torch.float64)
    axes = torch.stack([x * ones, y[:, None] * ones, ones]).flatten(1)
    weighted = axes * trust.cpu().flatten()
    # A little ridge, in case the trusted pixels lie on one line.
    gram = weighted @ axes.T
    gram += _LEAST_TRUST * gram.diagonal().mean() * torch.eye(3).to(gram)
    slopes = torch.linalg.solve(gram, weighted @ surface.flatten())
    return (slopes @ axes).reshape(coordinate.shape).to(coordinate)


def _shrunk(planes: Tensor, cells: int) -> Tensor:
    """(C, h, w) means of (C, H, W) over cells; `cells` is their number along the long side."""
    sides = planes.shape[-2:]
    height, width = (max(1, round(side * cells / max(sides))) for side in sides)
    return functional.adaptive_avg_pool2d(planes, (height, width))


def _places(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(H,) y and (W,) x of pixel centres; the borders of the image are at -1 and 1."""
    y, x = (torch.linspace(1 / side - 1, 1 - 1 / side, side).to(like) for side in (height, width))
    return y, x
