"""Props of a scene: objects, tables, cards, rods, foliage, fences."""

from __future__ import annotations

import math
from collections.abc import Callable

from focaldiffusion.data.procedural.shapes import Box, Card, Cylinder, Ellipsoid
from focaldiffusion.data.procedural.studio import Studio
from focaldiffusion.data.procedural.textures import Material
from focaldiffusion.data.procedural.vectors import (
    Axes,
    Vector3,
    across,
    beyond,
    cross,
    direction,
    log_uniform,
    unit,
)

_TRIES = 8


def set_props(studio: Studio) -> None:
    """Set up a few groups of props, sometimes a single one or none."""
    groups = _ANYWHERE if studio.ground_dpt is None else _ANYWHERE + _ON_GROUND
    for _ in range(studio.rng.choice([0, 1, 2, 3, 5, 8], p=[0.03, 0.15, 0.2, 0.25, 0.22, 0.15])):
        groups[studio.rng.integers(len(groups))](studio)


# On the ground


def _foot(studio: Studio, near_to: tuple[float, float] | None = None) -> Vector3 | None:
    """A visible point of the ground within the scene's span, or None.

    It lies near the place `near_to` in the picture (-1 to 1), by default anywhere.
    """
    if studio.ground_dpt is None:
        return None
    rng, view = studio.rng, studio.view
    a, b, c = studio.ground_dpt
    nearest, farthest = (view.dioptres(end) for end in studio.span)
    for _ in range(_TRIES):
        x, y = rng.uniform(-1, 1, 2) if near_to is None else rng.normal(near_to, 0.25)
        dpt = a * x * view.half_width + b * y * view.half_height + c
        if farthest <= dpt <= nearest and abs(x) < 1.1 and abs(y) < 1.1:
            return studio.at(x, y, dpt)
    return None


def _upright(studio: Studio) -> Axes:
    """Axes turned about the vertical, the second one up."""
    a, b, c = studio.ground_dpt or (0.0, 1.0, 0.0)
    up = unit((-a, -b, -c))
    first, third = across(up, studio.rng)
    return first, up, third


def _things(studio: Studio) -> None:
    """Boxes, tins and balls on the ground, some on top of each other."""
    for _ in range(studio.rng.integers(2, 9)):
        if foot := _foot(studio):
            count = int(studio.rng.integers(1, 4))
            _stack(studio, foot, studio.size_m(foot[2], 0.08, 0.45), count)


def _pile(studio: Studio) -> None:
    """Many small objects of one kind: fruit, gravel, blocks."""
    x, y = studio.rng.uniform(-0.7, 0.7, 2)
    material = studio.material()
    low = log_uniform(studio.rng, 0.025, 0.1)
    for _ in range(studio.rng.integers(12, 45)):
        if foot := _foot(studio, (x, y)):
            _stack(studio, foot, studio.size_m(foot[2], low, 2 * low), 1, material)


def _stack(
    studio: Studio, foot: Vector3, half: float, count: int, material: Material | None = None
) -> None:
    """Objects on top of each other, ever narrower."""
    rng = studio.rng
    for _ in range(count):
        axes = _upright(studio)
        kind = rng.integers(3)
        if kind == 2:
            # Fitting would flatten balls, so they shrink instead.
            half = min(half, 0.4 * studio.room_m(foot[2]))
            sizes = (half, half * (0.5 if rng.random() < 0.3 else 1), half)
        else:
            wanted = (half, half * log_uniform(rng, 0.2, 2.5), half * rng.uniform(0.4, 1))
            sizes = studio.fitted(foot[2], axes, wanted)
        centre = beyond(foot, axes[1], sizes[1])
        studio.place((Box(), Cylinder(), Ellipsoid())[kind], centre, axes, sizes, material)
        if kind == 2:  # nothing stays on a ball
            return
        foot = beyond(centre, axes[1], sizes[1])
        half = min(sizes[0], sizes[2]) * rng.uniform(0.5, 0.95)


def _table(studio: Studio) -> None:
    """A board on four legs with objects on it."""
    rng, foot = studio.rng, _foot(studio)
    if foot is None:
        return
    axes = first, up, third = _upright(studio)
    length = studio.size_m(foot[2], 0.25, 0.8)
    wanted = (length, length * rng.uniform(0.4, 1), length * rng.uniform(0.4, 0.9))
    length, height, depth = studio.fitted(foot[2], axes, wanted)
    thin, material = 0.05 * min(length, depth), studio.material()
    top = beyond(foot, up, 2 * height)
    studio.place(Box(), top, axes, (length, thin, depth), material)
    for x in (-0.92, 0.92):
        for z in (-0.92, 0.92):
            below = beyond(beyond(foot, first, x * length), third, z * depth)
            studio.place(Box(), beyond(below, up, height), axes, (thin, height, thin), material)
    for _ in range(rng.integers(0, 6)):
        x, z = rng.uniform(-0.8, 0.8, 2)
        place = beyond(beyond(top, first, x * length), third, z * depth)
        _stack(studio, beyond(place, up, thin), min(length, depth) * rng.uniform(0.1, 0.4), 2)


def _papers(studio: Studio) -> None:
    """Sheets on the ground: edges in the image without edges in depth."""
    for _ in range(studio.rng.integers(1, 5)):
        if foot := _foot(studio):
            first, up, third = _upright(studio)
            axes = (first, third, up)
            size = studio.size_m(foot[2], 0.1, 0.6)
            wanted = (size, size * studio.rng.uniform(0.5, 1), 0.0)
            half = studio.fitted(foot[2], axes, wanted)
            above = beyond(foot, up, 0.004 * half[1])
            studio.place(Card(), above, axes, half, casts_shadow=False)


def _grass(studio: Studio) -> None:
    """Upright blades."""
    x, y = studio.rng.uniform(-0.8, 0.8, 2)
    blade, material = studio.new_outline(of_leaf=True), studio.material()
    looks = log_uniform(studio.rng, 0.06, 0.3)
    for _ in range(studio.rng.integers(20, 80)):
        if foot := _foot(studio, (x, y)):
            _, up, third = _upright(studio)
            lean = direction(studio.rng)
            axis = unit((up[0] + 0.3 * lean[0], up[1] + 0.3 * lean[1], up[2] + 0.3 * lean[2]))
            wide = unit(cross(axis, third))
            axes = (wide, axis, cross(wide, axis))
            height = studio.size_m(foot[2], looks, 1.5 * looks)
            wanted = (height * studio.rng.uniform(0.05, 0.25), height, 0.0)
            half = studio.fitted(foot[2], axes, wanted)
            centre = beyond(foot, axis, half[1])
            studio.place(blade, centre, axes, half, material, casts_shadow=False)


# Anywhere


def _on_walls(studio: Studio) -> None:
    """Pictures, doors and cupboards: some flush with the wall, some deep."""
    rng, view = studio.rng, studio.view
    for _ in range(rng.integers(1, 6) if studio.walls_dpt else 0):
        x, y = rng.uniform(-1, 1, 2)
        seen_dpt, wall = max(
            (a * x * view.half_width + b * y * view.half_height + c, (a, b, c))
            for a, b, c in studio.walls_dpt
        )
        foot = studio.at(x, y, max(seen_dpt, view.farthest_dpt))
        inwards = unit((-wall[0], -wall[1], -wall[2]))
        level = (0.0, 0.0, -1.0) if abs(inwards[1]) > 0.9 else (0.0, 1.0, 0.0)
        first = unit(cross(inwards, level))
        axes = (first, cross(first, inwards), inwards)
        width = studio.size_m(foot[2], 0.08, 0.5)
        wanted = (width, width * log_uniform(rng, 0.4, 2.5), width * log_uniform(rng, 0.005, 0.5))
        studio.place(Box(), foot, axes, studio.fitted(foot[2], axes, wanted))


def _cards(studio: Studio) -> None:
    """Sheets at any tilt, whole or cut."""
    for _ in range(studio.rng.integers(1, 8)):
        form = studio.new_outline() if studio.rng.random() < 0.65 else Card()
        _card(studio, form, studio.somewhere(), (0.12, 0.8))


def _fence(studio: Studio) -> None:
    """A large perforated sheet across the picture, in front of the rest."""
    x, y = studio.rng.uniform(-0.5, 0.5, 2)
    nearest, farthest = studio.span
    near = studio.view.dioptres(studio.rng.uniform(nearest, (nearest + farthest) / 2))
    _card(studio, studio.new_outline(), studio.at(x, y, near), (0.6, 1.3))


def _card(studio: Studio, form: Card, centre: Vector3, looks: tuple[float, float]) -> None:
    rng = studio.rng
    width = studio.size_m(centre[2], *looks)
    # The slant is limited by the room between card and camera.
    steepest = min(0.9, 0.6 * studio.room_m(centre[2]) / width)
    tilt, angle = math.asin(steepest * rng.uniform(0, 1)), rng.uniform(0, 2 * math.pi)
    slant = math.sin(tilt)
    normal = (slant * math.cos(angle), slant * math.sin(angle), -math.cos(tilt))
    lean = rng.normal(0, 0.4)
    first = unit(cross(normal, (math.sin(lean), math.cos(lean), 0.0)))
    half = (width, width * rng.uniform(0.5, 1), 0.0)
    studio.place(form, centre, (first, cross(first, normal), normal), half)


def _rods(studio: Studio) -> None:
    """Sticks and wires from one depth to another."""
    material = studio.material()
    for _ in range(studio.rng.integers(2, 12)):
        start, end = studio.somewhere(), studio.somewhere()
        thickness = log_uniform(studio.rng, 0.7, 10) * studio.view.pixel * min(start[2], end[2])
        studio.place_rod(start, end, thickness, material)


def _foliage(studio: Studio) -> None:
    """A twig with leaves."""
    rng, view = studio.rng, studio.view
    x, y = rng.uniform(-1, 1, 2)
    position, spread = studio.position(), rng.uniform(0.05, 0.3)
    leaf, materials = studio.new_outline(of_leaf=True), (studio.material(), studio.material())
    reach, looks = rng.uniform(0.2, 0.7), log_uniform(rng, 0.03, 0.15)
    tip = studio.at(x, y, view.dioptres(position))
    for number in range(rng.integers(15, 70)):
        dx, dy, further = rng.normal(0, (reach, reach, spread))
        centre = studio.at(x + dx, y + dy, view.dioptres(position + further))
        axis = direction(rng)
        wide, normal = across(axis, rng)
        axes = (wide, axis, normal)
        length = studio.size_m(centre[2], looks, 1.5 * looks)
        half = studio.fitted(centre[2], axes, (0.5 * length, length, 0.0))
        studio.place(leaf, centre, axes, half, materials[number % 2])
        if number % 6 == 0:
            studio.place_rod(tip, centre, 0.04 * length + view.pixel * centre[2], materials[0])


def _wire_ball(studio: Studio) -> None:
    """Rods across a ball."""
    centre, material = studio.somewhere(), studio.material()
    radius = min(studio.size_m(centre[2], 0.2, 0.7), 0.9 * studio.room_m(centre[2]))
    thickness = radius * studio.rng.uniform(0.02, 0.08)
    for _ in range(studio.rng.integers(8, 28)):
        ends = (direction(studio.rng), direction(studio.rng))
        start, end = (beyond(centre, end, 0.9 * radius) for end in ends)
        studio.place_rod(start, end, thickness, material)


def _drifting(studio: Studio) -> None:
    """Boxes, balls and tins in any orientation."""
    for _ in range(studio.rng.integers(1, 8)):
        centre = studio.somewhere()
        axis = direction(studio.rng)
        first, third = across(axis, studio.rng)
        axes = (first, axis, third)
        half = studio.size_m(centre[2], 0.08, 0.5)
        wanted = (half, half * studio.rng.uniform(0.3, 1), half * studio.rng.uniform(0.3, 1))
        form = (Box(), Cylinder(), Ellipsoid())[studio.rng.integers(3)]
        studio.place(form, centre, axes, studio.fitted(centre[2], axes, wanted))


def _lamp(studio: Studio) -> None:
    """A glowing ball, too bright for the sensor."""
    centre = studio.somewhere()
    radius = min(studio.size_m(centre[2], 0.03, 0.15), 0.5 * studio.room_m(centre[2]))
    axes = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    shining = Material(studio.material().texture, glow=log_uniform(studio.rng, 3, 30))
    studio.place(Ellipsoid(), centre, axes, (radius, radius, radius), shining, casts_shadow=False)


_Group = Callable[[Studio], None]
_ON_GROUND: tuple[_Group, ...] = (_things, _things, _things, _pile, _table, _table, _papers, _grass)
_ANYWHERE: tuple[_Group, ...] = (
    _on_walls,
    _cards,
    _cards,
    _fence,
    _rods,
    _foliage,
    _wire_ball,
    _drifting,
    _drifting,
    _lamp,
)
