"""What the trusted surface around a pixel says of it, for pixels without evidence of their own.

Sums over half an image, along edges and over all that looks alike: a small network would need very
many scenes to learn them, so they are written into its conditioning.
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
"""Standard deviations of the means that stop at edges, as shares of the long side."""
LOOKALIKES = ((0.08, 0.08), (0.08, 0.25), (0.05, 2.0), (0.2, 0.05))
"""Standard deviations of the means over what looks alike: in colour, where black and white are √3
apart, and in place, as shares of the long side."""
SURROUNDINGS = 3 * (len(WINDOWS) + len(EDGE_REACHES) + len(LOOKALIKES)) + 1
"""The channels of `surroundings`."""

_CELLS, _KEYS = 80, 20  # along the long side: of all means, and of what a cell may look like
_EDGE = 0.4  # sum of |difference| over the channels of sRGB in [-1, 1] that counts as one reach
_EDGE_PASSES = 3
_LEAST_TRUST = 1e-3  # so that a surface that nothing supports still has a mean
_CUT_OFF = 20.0  # of exponents: below, numbers would be denormal, and slow
_UNLIKE = 1e-6  # weight of what does not look alike, so that whatever is unique still has a mean


def surroundings(
    coordinate: Tensor, codes: Tensor, trust: Tensor, image: Tensor, encode: Callable[..., Tensor]
) -> Tensor:
    """Means of the trusted surface, by place, along edges and over what looks alike.

    Of each mean: the code, its standard deviation, and how much trust it stands on, from 0 for
    none to 1 on a logarithmic scale. Then the code of the plane through all that is trusted, which
    in inverse depth is that of a wall or a floor. Found on a grid of 80 cells along the long side,
    so that they mean the same at any resolution. Nothing says where in the image a pixel is: what
    a network learnt of the places of floors and walls would be true of the scenes that it saw.

    Args:
        coordinate: (H, W) the surface.
        codes: (H, W) of it.
        trust: (H, W) in [0, 1], in the surface.
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
    maps = [*map(_told, means), encode(_plane(levels / moments[:1], moments[:1]))]
    grown = functional.interpolate(
        torch.cat(maps)[None], size=(height, width), mode="bilinear", align_corners=False
    )
    return grown[0]


def _told(moments: Tensor) -> Tensor:
    """(3, h, w) mean code, its deviation and the trust behind, from the means of the moments."""
    trust, first, second = moments
    mean = first / trust
    deviation = (second / trust - mean.square()).clamp_min(0).sqrt()
    support = 1 - trust.log10() / math.log10(_LEAST_TRUST)
    return torch.stack([mean, deviation, support.clamp(0, 1)])


def _along_edges(moments: Tensor, colours: Tensor) -> Tensor:
    """(R, 3, h, w) moments (3, h, w), averaged as far as no edge of the image stands between.

    The recursive filter of the domain transform: each pass runs to and fro along rows and then
    columns, and steps over a difference of colour as over a distance (Gastal and Oliveira, Domain
    Transform for Edge-Aware Image and Video Processing, 2011).
    """
    reaches = moments.new_tensor(EDGE_REACHES)[:, None, None] * _CELLS
    across, down = (1 + reaches / _EDGE * colours.diff(dim=dim).abs().sum(0) for dim in (-1, -2))
    # What runs is the first dimension: (w, R, 3, h), then (h, R, 3, w).
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
    """(L, 3, h, w) moments of the keys that look like a cell and lie near it.

    Args:
        colours: (3, h, w) of the cells.
        keys: (6, h', w') moments, and colour times trust.
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
        # exp(-|a - b|² / 2), the square written out so that one product makes all exponents.
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
    """(1, h, w) the plane through a surface (1, h, w), as far as it is trusted."""
    height, width = coordinate.shape[-2:]
    y, x = _places(height, width, coordinate)
    ones = torch.ones(height, width, dtype=torch.float64, device=coordinate.device)
    axes = torch.stack([x * ones, y[:, None] * ones, ones]).flatten(1)
    weighted = axes * trust.flatten()
    # A trace of ridge, where all that is trusted lies on one line.
    gram = weighted @ axes.T
    gram += _LEAST_TRUST * gram.diagonal().mean() * torch.eye(3).to(gram)
    slopes = torch.linalg.solve(gram, weighted @ coordinate.flatten().double())
    return (slopes @ axes).reshape(coordinate.shape).to(coordinate)


def _shrunk(planes: Tensor, cells: int) -> Tensor:
    """(C, h, w) means of (C, H, W) over cells, so many along the long side."""
    sides = planes.shape[-2:]
    height, width = (max(1, round(side * cells / max(sides))) for side in sides)
    return functional.adaptive_avg_pool2d(planes, (height, width))


def _places(height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """(H,) y and (W,) x of pixel centres, from border to border of an image at -1 and 1."""
    y, x = (torch.linspace(1 / side - 1, 1 - 1 / side, side).to(like) for side in (height, width))
    return y, x
