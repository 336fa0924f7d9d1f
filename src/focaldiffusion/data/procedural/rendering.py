"""An antialiased picture of bodies: visible surfaces, soft shadows, dark corners, highlights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.data.procedural.rays import Rays
from focaldiffusion.data.procedural.shapes import Body, Card, Plane
from focaldiffusion.data.procedural.vectors import Vector3, beyond, cross, unit

_SAME_FACE = 0.7
"""Cosine between the normals of neighbouring pixels above which no edge runs between them."""
_MAX_CASTERS = 16
"""Number of bodies with a shadow, the largest in view first: each costs a pass over the points."""
_SHADOW_REACH = 8.0
"""Length of a body's shadow, in its radii; it fades out there."""
_DARKENS_REACH = 2.5
"""Distance, in radii of a body, up to which it darkens its surroundings."""


@dataclass(frozen=True)
class Lighting:
    """The lamps of a scene.

    Attributes:
        towards: unit vector to the distant main lamp.
        colour: colour of the main lamp.
        ambient: colour of the light from all directions.
        up: direction with more ambient light.
        softness: width of the penumbra, in radii of the body that casts the shadow.
        lamp_m: position of a near lamp without shadows.
        lamp_colour: colour of the near lamp at `lamp_reach_m`; falls with the squared distance.
        lamp_reach_m: see `lamp_colour`.
        corner_m: distance to another wall below which a corner is darkened; 0 for never.
        stencil: (h, w) mask in the main lamp's light, such as a window or foliage: light passes
            where it is positive. It repeats endlessly.
        stencil_m: half the size of the stencil.
    """

    towards: Vector3
    colour: Vector3
    ambient: Vector3
    up: Vector3
    softness: float
    lamp_m: Vector3
    lamp_colour: Vector3
    lamp_reach_m: float
    corner_m: float
    stencil: Tensor | None
    stencil_m: float


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


def picture(bodies: Sequence[Body], rays: Rays, lighting: Lighting) -> tuple[Tensor, Tensor]:
    """Light and depth of a scene whose backdrop stops every ray.

    Pixels at edges are the mean of five rays. Depth is always that of the pixel centre.

    Returns:
        (3, H, W) linear light, unbounded, and (H, W) depth along the optical axis [m].
    """
    depth_m, owner = cast(bodies, rays)
    light, normal = _light_up(bodies, rays, depth_m, owner, lighting)
    edges = _edges(owner, normal)
    extra = rays.refined(edges)
    around, _ = _light_up(bodies, extra, *cast(bodies, extra), lighting)
    light[:, edges] = (light[:, edges] + around.sum(-1)) / (1 + extra.shape[1])
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


def _light_up(
    bodies: Sequence[Body], rays: Rays, depth_m: Tensor, owner: Tensor, lighting: Lighting
) -> tuple[Tensor, Tensor]:
    """Linear light from the visible points to the camera and unit normals towards it.

    Both are (3, *shape of the rays); each ray ends at `depth_m` on the body of index `owner`.
    """
    x, y = rays.slopes
    ray = torch.stack(torch.broadcast_tensors(x, y, torch.ones_like(depth_m)))
    point, view = ray * depth_m, -_unit(ray)
    normal, albedo = _look(bodies, point, view, owner, rays.pixel_slope)
    materials = [body.material for body in bodies]
    gloss, sharpness, glow = (
        depth_m.new_tensor(values).index_select(0, owner.flatten().int()).reshape(owner.shape)
        for values in zip(*((m.gloss, m.sharpness, m.glow) for m in materials), strict=True)
    )
    lit, open_sky = _unblocked(bodies, rays, point, normal, owner, lighting)
    light = albedo * (_arriving(point, normal, lit, open_sky, lighting) + glow)
    along_half = (normal * _unit(view + _column(lighting.towards, view))).sum(0).clamp_min(1e-3)
    highlight = gloss * along_half**sharpness * lit
    return light + _column(lighting.colour, point) * highlight, normal


def _look(
    bodies: Sequence[Body], point: Tensor, view: Tensor, owner: Tensor, pixel_slope: float
) -> tuple[Tensor, Tensor]:
    """Unit normals towards the camera, and colours, of visible points; all (3, ...)."""
    # Sorted by body, so that the points of each are contiguous.
    order = torch.argsort(owner.flatten())
    counts = torch.bincount(owner.flatten(), minlength=len(bodies)).tolist()
    points, views = (vectors.flatten(1).index_select(1, order) for vectors in (point, view))
    looks = points.new_empty(6, points.shape[1])
    start = 0
    for body, count in zip(bodies, counts, strict=True):
        here = slice(start, start + count)
        start += count
        if count == 0:
            continue
        (nx, ny, nz), (u, v) = body.surface(tuple(points[:, here]))  # type: ignore[arg-type]
        normal = _unit(torch.stack(torch.broadcast_tensors(nx, ny, nz)))
        cosine = (normal * views[:, here]).sum(0)
        looks[:3, here] = torch.copysign(normal, normal * cosine)
        # A slanted pixel is long one way and narrow the other: use a size in between.
        footprint_m = points[2, here] * pixel_slope / cosine.abs().clamp_min(0.05).sqrt()
        texture, texel_m = body.material.texture, body.texel_m
        looks[3:, here] = texture.sample(u / texel_m, v / texel_m, footprint_m / texel_m)
    looks = torch.empty_like(looks).index_copy_(1, order, looks)
    normal, albedo = looks.reshape(2, 3, *owner.shape)
    return normal, albedo


def _arriving(
    point: Tensor, normal: Tensor, lit: Tensor, open_sky: Tensor, lighting: Lighting
) -> Tensor:
    """Light that arrives on surfaces, by colour."""
    main = (normal * _column(lighting.towards, point)).sum(0).clamp_min(0) * lit
    from_above = 0.7 + 0.3 * (normal * _column(lighting.up, point)).sum(0)
    to_lamp = _column(lighting.lamp_m, point) - point
    distance_squared = (to_lamp * to_lamp).sum(0) / lighting.lamp_reach_m**2
    lamp = (normal * _unit(to_lamp)).sum(0).clamp_min(0) / (0.1 + distance_squared)
    return (
        _column(lighting.colour, point) * main
        + _column(lighting.ambient, point) * (from_above * open_sky)
        + _column(lighting.lamp_colour, point) * (lamp * open_sky)
    )


def _unblocked(
    bodies: Sequence[Body],
    rays: Rays,
    point: Tensor,
    normal: Tensor,
    owner: Tensor,
    lighting: Lighting,
) -> tuple[Tensor, Tensor]:
    """Shares of the main lamp's light and of ambient light that other bodies let pass."""
    lit, open_sky = torch.ones_like(point[0]), torch.ones_like(point[0])
    _darken_corners(bodies, point, open_sky, lighting.corner_m)
    if lighting.stencil is not None:
        lit *= _stencilled(point, lighting)
    casters = sorted(
        (index for index, body in enumerate(bodies) if body.casts_shadow),
        key=lambda index: -bodies[index].radius_m / bodies[index].centre_m[2],
    )
    for index in casters[:_MAX_CASTERS]:
        body, radius = bodies[index], bodies[index].radius_m
        shadow_end = beyond(body.centre_m, lighting.towards, -_SHADOW_REACH * radius)
        window = rays.around([(body.centre_m, radius), (shadow_end, radius)])
        here, others = (slice(None), *window), owner[window] != index
        lit[window] *= 1 - _shadow(body, point[here], lighting) * others
        if isinstance(body.form, Card):  # thin: the light it blocks arrives on its other side
            continue
        window = rays.around([(body.centre_m, _DARKENS_REACH * radius)])
        here, others = (slice(None), *window), owner[window] != index
        open_sky[window] *= 1 - _darkening(body, point[here], normal[here]) * others
    return lit, open_sky


def _shadow(body: Body, point: Tensor, lighting: Lighting) -> Tensor:
    """Share of the main lamp's light that a body blocks at points (3, ...)."""
    enter, leave = body.span(tuple(point), lighting.towards)  # type: ignore[arg-type]
    # Length of the path through the body: thin bodies cast faint shadows.
    way = (leave - enter.clamp_min(0)) / lighting.softness
    fading = _SHADOW_REACH * body.radius_m - enter
    return (torch.minimum(way, fading) / body.radius_m).clamp(0, 1)


def _darkening(body: Body, point: Tensor, normal: Tensor) -> Tensor:
    """Share of ambient light that a body blocks at points (3, ...) near it."""
    to_body = _column(body.centre_m, point) - point
    distance_squared = (to_body * to_body).sum(0)
    facing = (normal * _unit(to_body)).sum(0).clamp_min(0)
    # Share of the hemisphere covered by a sphere; half of it, as the sphere reflects light too.
    size = min(body.half_m[0], body.half_m[1]) ** 2 / distance_squared
    fading = 1 - distance_squared / (_DARKENS_REACH * body.radius_m) ** 2
    return 0.5 * facing * size.clamp(0, 1) * fading.clamp_min(0)


def _stencilled(point: Tensor, lighting: Lighting) -> Tensor:
    """Share of the main lamp's light that its stencil lets pass to points (3, ...)."""
    assert lighting.stencil is not None
    first = unit(cross(lighting.towards, (0.6, 0.0, 0.8)))
    across_light = (first, cross(lighting.towards, first))
    places = [(point * _column(axis, point)).sum(0) / lighting.stencil_m for axis in across_light]
    field = functional.grid_sample(
        lighting.stencil[None, None],
        torch.stack(places, -1)[None],
        padding_mode="reflection",
        align_corners=False,
    )
    return (0.5 + 4 * field[0, 0]).clamp(0.1, 1)


def _darken_corners(
    bodies: Sequence[Body], point: Tensor, open_sky: Tensor, corner_m: float
) -> None:
    """Darken the ambient light of points near several walls."""
    walls = [body for body in bodies if isinstance(body.form, Plane)]
    if corner_m == 0 or len(walls) < 2:
        return
    for wall in walls:
        away = (point * _column(wall.axes[2], point)).sum(0)
        away -= sum(c * a for c, a in zip(wall.centre_m, wall.axes[2], strict=True))
        open_sky *= 1 - 0.35 * torch.exp(-away.abs() / corner_m)


def _unit(vectors: Tensor) -> Tensor:
    """(3, ...) at length 1; several times faster than `normalize` for short vectors."""
    return vectors * (vectors * vectors).sum(0).clamp_min(1e-20).rsqrt()


def _column(vector: Vector3, like: Tensor) -> Tensor:
    """A vector to combine with (3, ...)."""
    column = torch.tensor(vector, dtype=like.dtype, device=like.device)
    return column.reshape(3, *[1] * (like.ndim - 1))
