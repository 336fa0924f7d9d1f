"""Backdrops of scenes: rooms, table tops, slanted walls, rough ground."""

from __future__ import annotations

import math

import numpy as np
import torch

from focaldiffusion.data.procedural.patterns import fractal
from focaldiffusion.data.procedural.shapes import Plane, Relief
from focaldiffusion.data.procedural.studio import Studio, View
from focaldiffusion.data.procedural.vectors import Vector3, cross, log_uniform, unit

_RELIEF_PX = 256


def set_backdrop(studio: Studio) -> None:
    """Set up a random backdrop, and behind it a wall that stops every ray."""
    kinds = (_room, _table_top, _slanted_wall, _rough_ground)
    kinds[studio.rng.choice(len(kinds), p=(0.5, 0.25, 0.1, 0.15))](studio)
    _plane(studio, (0.0, 0.0, studio.view.farthest_dpt))


def _room(studio: Studio) -> None:
    """Floor, back wall, perhaps side walls and a ceiling."""
    rng, view = studio.rng, studio.view
    back_dpt = view.dioptres(rng.uniform(0.8, 1.6))
    up = _ground(studio, view.dioptres(rng.uniform(-0.2, 0.4)), rng.uniform(-1.0, 0.4))
    turn = rng.uniform(-0.7, 0.7)
    ahead = unit(cross(up, (math.cos(turn), 0.0, math.sin(turn))))
    side = cross(ahead, up)
    x, y = rng.uniform(-0.5, 0.5, 2)
    _wall(studio, ahead, studio.at(x, y, back_dpt))
    for sign in (-1, 1):
        if rng.random() < 0.6:
            border = math.copysign(rng.uniform(0.5, 1.3), sign * side[0])
            outwards: Vector3 = (sign * side[0], sign * side[1], sign * side[2])
            _wall(studio, outwards, studio.at(border, 0, view.dioptres(rng.uniform(0.5, 1.2))))
    if rng.random() < 0.4:
        _wall(studio, up, studio.at(0, -rng.uniform(0.6, 1.2), back_dpt))


def _table_top(studio: Studio) -> None:
    """Ground seen from above, perhaps with a wall behind."""
    rng, view = studio.rng, studio.view
    _ground(studio, view.dioptres(rng.uniform(-0.3, 0.4)), rng.uniform(0.0, 0.9))
    if rng.random() < 0.6:
        tilt = rng.normal(0, 0.3, 2) * view.farthest_dpt
        _plane(studio, (*tilt.tolist(), view.dioptres(rng.uniform(0.7, 2))))


def _slanted_wall(studio: Studio) -> None:
    """A wall at any tilt, sometimes with objects on it as on a circuit board."""
    near, far = sorted(studio.rng.uniform(0.0, 1.3, 2))
    plane = _plane(studio, _slanted_dpt(studio, near, far))
    if studio.rng.random() < 0.5:
        studio.ground_dpt = plane


def _rough_ground(studio: Studio) -> None:
    """Hills, terraces, a coin or a stone up close; objects on it may sink in or float a little."""
    rng, view = studio.rng, studio.view
    near, far = sorted(rng.uniform(0.1, 1.1, 2))
    height = fractal(rng, _RELIEF_PX, rng.uniform(1.2, 2.2), finest=_RELIEF_PX // 6)
    if rng.random() < 0.5:
        steps = log_uniform(rng, 0.5, 3)
        sharp = rng.uniform(0.6, 0.95)
        height = height - sharp * np.sin(2 * math.pi * steps * height) / (2 * math.pi * steps)
    plane = _slanted_dpt(studio, near, far)
    # Depth in proportion to the working range: shallow in macro.
    amplitude = log_uniform(rng, 0.05, 0.5) * (1 - view.far_dpt / view.near_dpt)
    relief = np.clip(height / 3, -1, 1) * min(amplitude, 0.6)
    plane = studio.ground_dpt = _held_back(view, plane, 1 + float(relief.max()))
    heights = torch.from_numpy(relief.astype(np.float32)).to(studio.device)
    form = Relief(plane, heights, (view.half_width, view.half_height))
    identity = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    endless = (math.inf, math.inf, math.inf)
    studio.place(
        form, (0.0, 0.0, 0.0), identity, endless, seen_at_m=1 / plane[2], casts_shadow=False
    )


def _ground(studio: Studio, bottom_dpt: float, horizon: float) -> Vector3:
    """Set up the ground through the lower border of the picture; returns the direction up.

    Its inverse depth is `bottom_dpt` at the middle of the lower border, and `horizon` times that
    at the upper border; below 0 the picture shows the horizon.
    """
    view = studio.view
    roll = studio.rng.normal(0, 0.06)
    slope = bottom_dpt * (1 - horizon) / (2 * view.half_height)
    plane = (slope * roll, slope, bottom_dpt - slope * view.half_height)
    a, b, c = studio.ground_dpt = _plane(studio, plane)
    return unit((-a, -b, -c))


def _slanted_dpt(studio: Studio, near: float, far: float) -> Vector3:
    """Inverse depth a x + b y + c from one position to another, across the picture."""
    view, angle = studio.view, studio.rng.uniform(0, 2 * math.pi)
    first, last = view.dioptres(near), view.dioptres(far)
    reach = abs(math.cos(angle)) * view.half_width + abs(math.sin(angle)) * view.half_height
    slope = (first - last) / (2 * reach)
    return slope * math.cos(angle), slope * math.sin(angle), (first + last) / 2


def _wall(studio: Studio, outwards: Vector3, through_m: Vector3) -> None:
    """A plane through a point, with the camera on the inner side."""
    distance = sum(o * t for o, t in zip(outwards, through_m, strict=True))
    distance = max(distance, 0.1 * studio.view.nearest_m)
    _plane(studio, (outwards[0] / distance, outwards[1] / distance, outwards[2] / distance))


def _plane(studio: Studio, plane_dpt: Vector3) -> Vector3:
    """Set up the plane a X + b Y + c Z = 1, whose inverse depth at slopes (x, y) is a x + b y + c.

    Returns a, b and c, for which the plane may have been moved away from the camera.
    """
    view = studio.view
    plane_dpt = _held_back(view, plane_dpt)
    studio.walls_dpt.append(plane_dpt)
    length = math.hypot(*plane_dpt)
    normal = unit(plane_dpt)
    centre = (normal[0] / length, normal[1] / length, normal[2] / length)
    # Textures are level on walls and point towards the camera on the ground.
    level = (0.0, 0.0, -1.0) if abs(normal[1]) > 0.9 else (0.0, 1.0, 0.0)
    first = unit(cross(level, normal))
    axes = (first, cross(normal, first), normal)
    studio.place(
        Plane(),
        centre,
        axes,
        (math.inf, math.inf, 0.0),
        seen_at_m=1 / min(max(plane_dpt[2], view.farthest_dpt), view.nearest_dpt),
        casts_shadow=False,
    )
    return plane_dpt


def _held_back(view: View, plane_dpt: Vector3, factor: float = 1.0) -> Vector3:
    """A plane, moved away until `factor` times its inverse depth is in range at all corners."""
    a, b, c = plane_dpt
    highest = (abs(a) * view.half_width + abs(b) * view.half_height + c) * factor
    scale = min(1.0, view.nearest_dpt / highest) if highest > 0 else 1.0
    return a * scale, b * scale, c * scale
