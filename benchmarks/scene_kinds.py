"""Layouts of the kinds cards, desk, outdoor and thin of path_traced_rooms.py.

Each has a floor, a back wall, and things that cover each other, all matte. Which surfaces are bare
is dealt like cards: the difficulty sets how many, and chance which. So bare things stand in front
of textured ones as often as behind them, and no scene is all bare or all textured.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from room_layout import Builder, Difficulty, Eye, Room, Shape, ball, box, can, card, cuboid

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import shapes
from parts import Part, Softbox
from shapes import Array, Mesh
from textures import Rng

Reach = tuple[float, float]
Tall = Callable[[Rng, float, float], Mesh]
"""Object on z = 0, called as tall(rng, width_m, height_m)."""
Volume = tuple[Array, Array]
"""Smallest and largest picture coordinates and depth (3,) of a thing."""


def deal(rng: Rng, count: int, bare_share: float) -> list[bool]:
    """Whether each of `count` surfaces is bare, in random order."""
    bare = np.arange(count) < round(bare_share * count)
    return [bool(flag) for flag in rng.permutation(bare)]


def draw_cards(
    rng: Rng, reach_m: Reach, pitch_deg: Reach, half_field: Reach, difficulty: Difficulty
) -> Room:
    """Cards that hang at any depth and tilt, before a wall; arguments as for `draw_room`."""
    builder = _empty(rng, reach_m, pitch_deg, half_field, difficulty, (2.0, 5.0), (0.9, 1.3), 12)
    hung: list[Volume] = []
    for _ in range(10):
        _hang(builder, _sheet, (0.15, 0.4), (180, 40, 50), hung)
    return _lit(builder)


def draw_desk(
    rng: Rng, reach_m: Reach, pitch_deg: Reach, half_field: Reach, difficulty: Difficulty
) -> Room:
    """Bottles, balls, boxes and cards on a table; arguments as for `draw_room`."""
    builder = _empty(rng, reach_m, pitch_deg, half_field, difficulty, (1.05, 1.4), (0.7, 1.3), 11)
    for _ in range(9):
        builder.add_standing((_bottle, _bottle, _bottle, ball, box, card))
    return _lit(builder)


def draw_outdoor(
    rng: Rng, reach_m: Reach, pitch_deg: Reach, half_field: Reach, difficulty: Difficulty
) -> Room:
    """Trunks, posts, walls and boxes on the ground, and a background that may be beyond the reach.

    Arguments as for `draw_room`.
    """
    builder = _empty(rng, reach_m, pitch_deg, half_field, difficulty, (2.0, 6.0), (0.8, 2.5), 13)
    for _ in range(2):
        _stand(builder, _slab, (0.2, 0.4), (0.0, 1.3), 2.0)
    for _ in range(5):
        _stand(builder, _trunk, (0.05, 0.12), (1.2, 1.5), 1.1)
    for _ in range(2):
        _stand(builder, _post, (0.05, 0.12), (-0.2, 0.8), 1.1)
    for _ in range(2):
        builder.add_standing((box,))
    return _lit(builder)


def draw_thin(
    rng: Rng, reach_m: Reach, pitch_deg: Reach, half_field: Reach, difficulty: Difficulty
) -> Room:
    """Wires, poles, leaves and lattices before boxes and a wall; arguments as for `draw_room`."""
    wires = 2 + difficulty.rods
    count = 2 + 3 + 3 + 9 + 2 + wires
    builder = _empty(rng, reach_m, pitch_deg, half_field, difficulty, (1.4, 2.4), (0.8, 1.3), count)
    for _ in range(3):
        builder.add_standing((box, can))
    for _ in range(3):
        _stand(builder, _pole, (0.01, 0.03), (0.5, 1.5), 1.1)
    hung: list[Volume] = []
    for _ in range(9):
        _hang(builder, _leaf, (0.08, 0.2), (180, 60, 60), hung)
    for _ in range(2):
        _hang(builder, _lattice, (0.4, 0.9), (20, 15, 30), [])
    for _ in range(wires):
        builder.add_rod()
    return _lit(builder)


def _empty(
    rng: Rng,
    reach_m: Reach,
    pitch_deg: Reach,
    half_field: Reach,
    difficulty: Difficulty,
    floor: Reach,
    background: Reach,
    surfaces: int,
) -> Builder:
    """A floor and a wall.

    Args:
        rng, reach_m, pitch_deg, half_field, difficulty: as for `draw_room`.
        floor: range of depths of the floor at the lower picture edge, over the nearest depth.
        background: range of depths of the wall, over the farthest focus distance.
        surfaces: number of surfaces, floor and wall included.
    """
    near_m = reach_m[0] * rng.uniform(1.02, 1.25)
    far_m = reach_m[1] * rng.uniform(*background)
    pitch = math.radians(rng.uniform(*pitch_deg))
    eye = Eye.above_floor(near_m * rng.uniform(*floor), pitch, *half_field)
    deck = deal(rng, surfaces, difficulty.bare_share)
    matte = replace(difficulty, polished_share=0.0)
    builder = Builder(rng, eye, matte, near_m, far_m, deck=deck)
    builder.add_wall_and_floor(math.radians(rng.uniform(-8, 8)))
    return builder


def _lit(builder: Builder) -> Room:
    """The finished scene under a large soft box above and behind the camera."""
    far_m, side = builder.far_m, builder.rng.choice([-1.0, 1.0])
    key = Softbox(
        (side * 0.8 * far_m, -1.0 * far_m, 1.4 * far_m),
        (0.0, 0.5 * far_m, 0.0),
        1.3 * far_m,
        1.3 * far_m,
        (8.0, 7.5, 6.8),
    )
    return Room(builder.eye, builder.parts, [key])


def _hang(
    builder: Builder,
    shape: Shape,
    shares: Reach,
    tilt_deg: tuple[float, float, float],
    hung: list[Volume],
) -> None:
    """Add a thing in mid-air if there is room.

    Args:
        builder: gets the part.
        shape: the thing, upright about the origin.
        shares: smallest and largest size, as a share of the picture's width.
        tilt_deg: largest turn in its plane, backwards and sideways.
        hung: volumes to keep free, to which that of the thing is added.
    """
    rng, eye = builder.rng, builder.eye
    for _ in range(30):
        depth = builder.depth_m()
        size = eye.picture_m(depth) * rng.uniform(*shares)
        mesh = shape(rng, size)
        for axis, most in zip("yxz", tilt_deg, strict=True):
            mesh = mesh.turned(axis, rng.uniform(-most, most))
        mesh = mesh.at(*eye.point(*rng.uniform(-0.85, 0.85, 2), depth))
        seen = eye.seen(mesh.positions)
        low, high = seen.min(0), seen.max(0)
        inside = low[2] > builder.near_m and high[2] < 0.8 * builder.far_m
        free = not any((low < b).all() and (high > a).all() for a, b in hung)
        if inside and free and mesh.positions[:, 2].min() > 0:
            hung.append((low, high))
            builder.parts.append(Part(mesh, *builder.surface(size, size, depth)))
            return


def _stand(builder: Builder, shape: Tall, shares: Reach, top: Reach, nearest: float) -> None:
    """Add something tall on the ground if there is room.

    Args:
        builder: gets the part.
        shape: the thing.
        shares: smallest and largest width, as a share of the picture's.
        top: lowest and highest picture coordinate of the upper end.
        nearest: smallest depth, over that of the scene.
    """
    rng, eye = builder.rng, builder.eye
    spot = builder.free_spot(shares, nearest * builder.near_m)
    if spot is None:
        return
    x, y, depth, width = spot
    height = float(eye.point(0, rng.uniform(*top), depth)[2])
    mesh = shape(rng, width, height).at(x, y)
    builder.parts.append(Part(mesh, *builder.surface(3 * width, height, depth)))


def _trunk(rng: Rng, width_m: float, height_m: float) -> Mesh:
    """A bent, tapered trunk."""
    bend = np.column_stack([rng.uniform(-0.25, 0.25, (4, 2)) * width_m, np.linspace(0, 1, 4)])
    path = shapes.curve(bend * [1, 1, height_m])
    return shapes.tube(path, width_m / 2 * np.linspace(1, rng.uniform(0.6, 1), len(path)), 48)


def _pole(rng: Rng, width_m: float, height_m: float) -> Mesh:
    """A thin straight rod, leaning a little."""
    lean = rng.uniform(-0.06, 0.06, 2) * height_m
    return shapes.tube([(0, 0, 0), (*lean, height_m)], width_m / 2)


def _post(rng: Rng, width_m: float, height_m: float) -> Mesh:
    return cuboid(width_m, width_m * rng.uniform(0.4, 1), height_m).turned("z", rng.uniform(0, 90))


def _slab(rng: Rng, width_m: float, height_m: float) -> Mesh:
    """A free-standing wall."""
    return cuboid(width_m, 0.06 * width_m, height_m).turned("z", rng.uniform(-50, 50))


def _bottle(rng: Rng, size_m: float) -> Mesh:
    """A bottle with shoulders and a neck."""
    body, neck = rng.uniform(0.25, 0.4), rng.uniform(0.08, 0.13)
    shoulder = rng.uniform(0.8, 1.3)
    bow = [(body, shoulder), (0.85 * body, shoulder + 0.15), (neck, shoulder + 0.3)]
    top = shoulder + rng.uniform(0.45, 0.7)
    below, above = [(body, 0.0), (body, shoulder)], [(neck, top), (neck, top), (0.0, top)]
    return shapes.lathe(size_m * np.concatenate([below, shapes.curve(bow, 16), above]))


def _sheet(rng: Rng, size_m: float) -> Mesh:
    """An upright card about the origin."""
    width, height = (size_m * rng.uniform([0.7, 0.5], 1.0)).tolist()
    return shapes.plate(width, height).turned("x", 90)


def _leaf(rng: Rng, size_m: float) -> Mesh:
    """A small sheet, twice as high as wide or more."""
    return shapes.plate(size_m * rng.uniform(0.2, 0.5), size_m).turned("x", 90)


def _lattice(rng: Rng, size_m: float) -> Mesh:
    """Crossed bars in an upright plane about the origin."""
    half_width, half_height = (size_m / 2 * np.array([1.0, rng.uniform(0.4, 0.75)])).tolist()
    radius = size_m * rng.uniform(0.004, 0.012)
    bars = [
        shapes.tube([(x, 0, -half_height), (x, 0, half_height)], radius)
        for x in np.linspace(-half_width, half_width, rng.integers(3, 7))
    ]
    bars += [
        shapes.tube([(-half_width, 0, z), (half_width, 0, z)], radius)
        for z in np.linspace(-half_height, half_height, rng.integers(2, 6))
    ]
    return shapes.merged(bars)
