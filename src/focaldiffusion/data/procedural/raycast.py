"""The body that each ray of the camera meets, and an antialiased picture of the bodies."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from focaldiffusion.data.procedural.lighting import Lighting, light_up
from focaldiffusion.data.procedural.rays import CORNERS_PX, Grid, Rays
from focaldiffusion.data.procedural.shapes import Body

_SAME_FACE = 0.7
"""Cosine between the normals of neighbouring pixels above which no edge runs between them."""


def cast(bodies: Sequence[Body], rays: Rays) -> tuple[Tensor, Tensor]:
    """The nearest body on each ray.

    Returns:
        Depth along the optical axis [m], infinite without a body, and index of the body, both with
        the shape of the rays.
    """
    x, y = rays.slopes
    depth_m = torch.full(rays.shape, torch.inf, device=x.device)
    owner = torch.zeros(rays.shape, dtype=torch.int16, device=x.device)
    for index, body in enumerate(bodies):
        rows, columns = window = rays.window(body.bounds)
        nearest = depth_m[window]
        if nearest.numel() == 0:
            continue
        ray = (_part(x, rows, columns), _part(y, rows, columns), 1.0)
        enter, leave = body.span((0.0, 0.0, 0.0), ray)
        seen = (enter > 0) & (leave >= enter) & (enter < nearest)
        depth_m[window] = torch.where(seen, enter, nearest)
        owner[window].masked_fill_(seen, index)
    return depth_m, owner


def picture(bodies: Sequence[Body], grid: Grid, lighting: Lighting) -> tuple[Tensor, Tensor]:
    """Light and depth of a scene whose backdrop stops every ray.

    Pixels at edges are the mean of five rays. Depth is always that of the pixel centre.

    Returns:
        (3, H, W) linear light, unbounded, and (H, W) depth along the optical axis [m].
    """
    depth_m, owner = cast(bodies, grid)
    light, normal = light_up(bodies, grid, depth_m, owner, lighting)
    edges = _edges(owner, normal)
    rays = grid.refined(edges)
    around_m, around_owner = cast(bodies, rays)
    around, _ = light_up(bodies, rays, around_m, around_owner, lighting)
    light[:, edges] = (light[:, edges] + around.sum(-1)) / (1 + len(CORNERS_PX))
    return light, depth_m


def _edges(owner: Tensor, normal: Tensor) -> Tensor:
    """Pixels next to another body or another face, (H, W) bool."""
    edges = torch.zeros_like(owner, dtype=torch.bool)
    for dim in (0, 1):
        size = owner.shape[dim] - 1
        cosine = (normal.narrow(dim + 1, 0, size) * normal.narrow(dim + 1, 1, size)).sum(0)
        differ = owner.narrow(dim, 0, size) != owner.narrow(dim, 1, size)
        edge = differ | (cosine < _SAME_FACE)
        edges.narrow(dim, 0, size).logical_or_(edge)
        edges.narrow(dim, 1, size).logical_or_(edge)
    return edges


def _part(slopes: Tensor, rows: slice, columns: slice) -> Tensor:
    """A window of slopes, which may be constant along an axis."""
    return slopes[
        rows if slopes.shape[0] > 1 else slice(None),
        columns if slopes.shape[1] > 1 else slice(None),
    ]
