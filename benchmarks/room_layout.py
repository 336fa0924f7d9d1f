"""Layout of the rooms of path_traced_rooms.py.

A room has a floor, a slanted back wall, sometimes side walls, objects on the floor, prints on the
wall, rods in between, and bulbs. Sizes are shares of the picture, so that a macro scene and a hall
are equally hard. The layout does not depend on the focus distances.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from wallpapers import colour, wallpaper

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))

import shapes
from parts import Bulb, Finish, Part, Softbox
from shapes import Array, Mesh
from textures import Colour, Rng, Texture

Shape = Callable[[Rng, float], Mesh]
"""Object on z = 0, called as shape(rng, size_m)."""
AMBIENT = (0.30, 0.32, 0.36)
PICTURE_PX = 512
"""Picture width for which textures and thin objects are sized [px]."""
TEXELS_PER_PX = 2.0
MOST_TEXELS = 2048


@dataclass(frozen=True)
class Difficulty:
    """Obstacles to depth from defocus.

    Attributes:
        bare_share: probability that a surface is textureless.
        polished_share: probability that it reflects its surroundings, at other depths.
        rods: number of thin rods across the picture.
        bulbs: number of visible lights, which saturate.
    """

    bare_share: float
    polished_share: float
    rods: int
    bulbs: int


DIFFICULTIES = {
    "easy": Difficulty(bare_share=0.1, polished_share=0.05, rods=1, bulbs=0),
    "medium": Difficulty(bare_share=0.3, polished_share=0.2, rods=4, bulbs=2),
    "hard": Difficulty(bare_share=0.5, polished_share=0.3, rods=8, bulbs=5),
}


@dataclass(frozen=True)
class Eye:
    """The lens above the floor z = 0, at x = y = 0, looking along y and downwards.

    Attributes:
        height_m: height of the lens.
        pitch: angle below the horizon [rad].
        half_width, half_height: half the size of the picture over the image distance.
    """

    height_m: float
    pitch: float
    half_width: float
    half_height: float

    @classmethod
    def above_floor(
        cls, floor_m: float, pitch: float, half_width: float, half_height: float
    ) -> Eye:
        """Choose the height at which the floor at the lower picture edge has depth `floor_m`."""
        fall = math.sin(pitch) + half_height * math.cos(pitch)
        return cls(floor_m * fall, pitch, half_width, half_height)

    @property
    def position_m(self) -> tuple[float, float, float]:
        """The centre of the lens."""
        return 0.0, 0.0, self.height_m

    @property
    def target_m(self) -> tuple[float, float, float]:
        """A point on the optical axis."""
        return 0.0, math.cos(self.pitch), self.height_m - math.sin(self.pitch)

    def point(self, x: float, y: float, depth_m: float) -> Array:
        """The point at picture coordinates (x, y), -1 to 1 with y up, and a depth."""
        forward = np.array([0.0, math.cos(self.pitch), -math.sin(self.pitch)])
        up = np.array([0.0, math.sin(self.pitch), math.cos(self.pitch)])
        right = np.array([1.0, 0.0, 0.0])
        ray = forward + x * self.half_width * right + y * self.half_height * up
        return np.array(self.position_m) + depth_m * ray

    def seen(self, points: Array) -> Array:
        """Picture coordinates and depths (n, 3) of points (n, 3): the inverse of `point`."""
        relative = points - np.array(self.position_m)
        depth = relative @ [0.0, math.cos(self.pitch), -math.sin(self.pitch)]
        y = relative @ [0.0, math.sin(self.pitch), math.cos(self.pitch)]
        x = relative[:, 0]
        return np.stack([x / (self.half_width * depth), y / (self.half_height * depth), depth], 1)

    def floor_y_m(self, depth_m: float) -> float:
        """The y coordinate at which the floor has that depth."""
        return (depth_m - self.height_m * math.sin(self.pitch)) / math.cos(self.pitch)

    def picture_m(self, depth_m: float) -> float:
        """Width that the picture covers at a depth."""
        return 2 * self.half_width * depth_m


@dataclass(frozen=True, eq=False)
class Room:
    """A viewpoint, and everything visible from it."""

    eye: Eye
    parts: list[Part]
    lights: list[Softbox | Bulb]


def draw_room(
    rng: Rng,
    reach_m: tuple[float, float],
    pitch_deg: tuple[float, float],
    half_field: tuple[float, float],
    difficulty: Difficulty,
    *,
    hall: bool = False,
) -> Room:
    """A random room.

    Args:
        rng: generator of all choices.
        reach_m: nearest and farthest depth; the room need not fill the range.
        pitch_deg: smallest and largest angle of the camera below the horizon.
        half_field: half the (width, height) of the picture over the image distance.
        difficulty: difficulty of surfaces and objects.
        hall: walls on both sides; otherwise at most one.
    """
    near_m = reach_m[0] * rng.uniform(1.02, 1.25)
    far_m = reach_m[1] * (0.97 if hall else rng.uniform(0.7, 0.98))
    pitch = math.radians(rng.uniform(*pitch_deg))
    eye = Eye.above_floor(near_m * rng.uniform(1.05, 1.4), pitch, *half_field)
    builder = Builder(rng, eye, difficulty, near_m, far_m)
    builder.add_shell(hall)
    for _ in range(9):
        builder.add_standing(_OBJECTS)
    for _ in range(difficulty.rods):
        builder.add_rod()
    side = -1.0 if builder.right_m < builder.left_m else 1.0
    key = Softbox(
        (-side * 0.6 * far_m, 0.1 * far_m, 0.95 * far_m),
        (0.0, 0.55 * far_m, 0.0),
        0.6 * far_m,
        0.5 * far_m,
        (8.0, 7.5, 6.8),
    )
    bulbs = [builder.bulb() for _ in range(difficulty.bulbs)]
    return Room(eye, builder.parts, [key, *bulbs])


@dataclass(eq=False)
class Builder:
    """Adds parts.

    Attributes:
        rng, eye, difficulty: generator of all choices; viewpoint; obstacles.
        near_m, far_m: nearest and farthest depth.
        left_m, right_m: bounds of the floor, measured from its middle.
        parts: everything added so far.
        taken: discs (x, y, radius) of the floor that objects stand on.
        deck: whether each of the next surfaces is bare, last first; surfaces beyond it are drawn.
    """

    rng: Rng
    eye: Eye
    difficulty: Difficulty
    near_m: float
    far_m: float
    left_m: float = math.inf
    right_m: float = math.inf
    parts: list[Part] = field(default_factory=list)
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    deck: list[bool] = field(default_factory=list)

    def depth_m(self) -> float:
        """A random depth of the room, uniform in inverse depth."""
        return 1 / self.rng.uniform(1 / (0.9 * self.far_m), 1 / self.near_m)

    def surface(
        self, width_m: float, height_m: float, depth_m: float, *, bare: bool | None = None
    ) -> tuple[Colour | Texture, Finish, float]:
        """Paint, or wallpaper with features of 3 to 20 px at a depth; a finish and a roughness."""
        finish: Finish = "matte"
        if self.rng.random() < self.difficulty.polished_share:
            finish = "gloss" if self.rng.random() < 0.7 else "metal"
        roughness = self.rng.uniform(0.08, 0.3)
        if bare is None and self.deck:
            bare = self.deck.pop()
        if bare is None:
            bare = self.rng.random() < self.difficulty.bare_share
        if bare:
            return colour(self.rng), finish, roughness
        texel_m = self.eye.picture_m(depth_m) / PICTURE_PX / TEXELS_PER_PX
        texel_m = max(texel_m, max(width_m, height_m) / MOST_TEXELS)
        shape = max(64, round(height_m / texel_m)), max(64, round(width_m / texel_m))
        feature_m = math.exp(self.rng.uniform(math.log(3), math.log(20))) * (
            self.eye.picture_m(depth_m) / PICTURE_PX
        )
        return wallpaper(self.rng, shape, max(2.0, feature_m / texel_m)), finish, roughness

    def add_shell(self, hall: bool) -> None:
        """Add floor, back wall with prints, and side walls, which together fill the picture."""
        eye, rng = self.eye, self.rng
        yaw = 0.0 if hall else math.radians(rng.uniform(-25, 25))
        hard = self.difficulty.bare_share >= 0.5
        y, middle_m = self.add_wall_and_floor(yaw, wall_bare=True if hard else None)
        for _ in range(2):
            self._add_print(y, yaw, middle_m)
        sides = (-1, 1) if hall else (int(rng.choice([-1, 0, 1])),)
        half = 1.1 * eye.half_width * self.far_m
        top = eye.height_m + 1.1 * eye.half_height * self.far_m
        depth = y + half
        middle = math.sqrt(self.near_m * self.far_m)
        for side in sides:
            if side == 0:
                continue
            share = rng.uniform(0.25, 0.4) if hall else rng.uniform(0.55, 0.85)
            x = share * eye.half_width * self.far_m
            mesh = _quad((side * x, 0, 0), (side * x, depth, 0), (side * x, depth, top))
            self.parts.append(Part(mesh, *self.surface(depth, top, middle)))
            if side < 0:
                self.left_m = x
            else:
                self.right_m = x

    def add_wall_and_floor(
        self, yaw: float, *, wall_bare: bool | None = None
    ) -> tuple[float, float]:
        """Add a back wall turned by `yaw`, and a floor.

        Returns:
            y coordinate and depth of the middle of the wall [m].
        """
        eye = self.eye
        # The farther side of a slanted wall reaches far_m at the edge of the picture.
        middle_m = self.far_m / (1 + 1.1 * math.tan(abs(yaw)) * eye.half_width)
        y = eye.floor_y_m(middle_m)
        half = 1.1 * eye.half_width * self.far_m
        top = eye.height_m + 1.1 * eye.half_height * self.far_m
        slant = half * math.tan(yaw)
        wall = _quad((-half, y - slant, 0), (half, y + slant, 0), (half, y + slant, top))
        width = 2 * half / math.cos(yaw)
        self.parts.append(Part(wall, *self.surface(width, top, self.far_m, bare=wall_bare)))
        depth = y + half
        floor = _quad((-half, 0, 0), (half, 0, 0), (half, depth, 0))
        middle = math.sqrt(self.near_m * self.far_m)
        self.parts.append(Part(floor, *self.surface(2 * half, depth, middle)))
        return y, middle_m

    def _add_print(self, wall_y_m: float, yaw: float, depth_m: float) -> None:
        """Add a textured print to the wall."""
        eye, rng = self.eye, self.rng
        width, height = eye.picture_m(depth_m) * rng.uniform(0.12, 0.3, 2)
        x = rng.uniform(-0.7, 0.7) * eye.half_width * depth_m
        top = eye.point(0, 0.95, depth_m)[2]
        z = rng.uniform(min(height / 2, top), max(height / 2, top))
        sheet = shapes.plate(width, height).turned("x", 90).turned("z", math.degrees(yaw))
        y = wall_y_m + x * math.tan(yaw) - 0.004 * depth_m
        surface = self.surface(width, height, depth_m, bare=False)
        self.parts.append(Part(sheet.at(x, y, z), *surface))

    def add_standing(self, objects: Sequence[Shape]) -> None:
        """Add one of the objects on the floor if there is room."""
        eye, rng = self.eye, self.rng
        nearest_m = eye.height_m / (math.sin(eye.pitch) + eye.half_height * math.cos(eye.pitch))
        spot = self.free_spot((0.1, 0.28), 1.08 * nearest_m)
        if spot is None:
            return
        x, y, depth, size = spot
        mesh = objects[rng.integers(len(objects))](rng, size).turned("z", rng.uniform(0, 360))
        # Textures unroll round objects, which are three times as wide as high.
        self.parts.append(Part(mesh.at(x, y), *self.surface(2 * size, size, depth)))

    def free_spot(
        self, shares: tuple[float, float], nearest_m: float
    ) -> tuple[float, float, float, float] | None:
        """Take a free disc of the floor.

        Args:
            shares: smallest and largest size of the object, as a share of the picture's width.
            nearest_m: smallest depth.

        Returns:
            x and y, depth and size of the object [m]; None if all tries were in vain.
        """
        eye, rng = self.eye, self.rng
        for _ in range(30):
            depth = 1 / rng.uniform(1 / (0.85 * self.far_m), 1 / nearest_m)
            size = eye.picture_m(depth) * rng.uniform(*shares)
            radius = 0.75 * size
            x = rng.uniform(-0.95, 0.95) * eye.half_width * depth
            y = eye.floor_y_m(depth)
            free = all(math.hypot(x - a, y - b) > radius + r for a, b, r in self.taken)
            inside = -self.left_m + radius < x < self.right_m - radius
            if free and inside and depth - radius > self.near_m:
                self.taken.append((x, y, radius))
                return x, y, depth, size
        return None

    def add_rod(self) -> None:
        """Add a thin rod, straight or bent, between random points."""
        eye, rng = self.eye, self.rng
        depths = [self.depth_m(), self.depth_m()]
        ends = []
        for depth in depths:
            end = eye.point(*rng.uniform(-1.1, 1.1, 2), depth)
            end[0] = np.clip(end[0], -self.left_m, self.right_m)
            end[2] = max(end[2], 0.0)
            ends.append(end)
        middle = np.mean(ends, 0) + rng.uniform(-0.06, 0.06, 3) * eye.picture_m(min(depths))
        radius = eye.picture_m(min(depths)) * rng.uniform(1.0, 4.0) / PICTURE_PX
        path = shapes.curve([ends[0], middle, ends[1]])
        length = float(np.linalg.norm(ends[1] - ends[0]))
        surface = self.surface(6 * radius, length, min(depths))
        caps = [shapes.sphere(radius, 24).at(*end) for end in ends]
        self.parts.append(Part(shapes.merged([shapes.tube(path, radius), *caps]), *surface))

    def bulb(self) -> Bulb:
        """A small bright sphere in the upper part of the picture."""
        eye, rng = self.eye, self.rng
        depth = self.depth_m()
        x, y, z = eye.point(rng.uniform(-0.9, 0.9), rng.uniform(-0.2, 0.9), depth)
        radius = eye.picture_m(depth) * rng.uniform(1.5, 4.0) / PICTURE_PX
        x = float(np.clip(x, -self.left_m + radius, self.right_m - radius))
        red, green, blue = (rng.uniform(8, 40) * rng.uniform([0.9, 0.6, 0.3], 1.0)).tolist()
        return Bulb((x, float(y), max(float(z), radius)), radius, (red, green, blue))


def _quad(a: tuple[float, ...], b: tuple[float, ...], c: tuple[float, ...]) -> Mesh:
    """The rectangle with lower edge a to b and right edge b to c."""
    d = np.array(a) + np.array(c) - np.array(b)
    return shapes.grid(np.array([[a, b], [d, c]], float))


def cuboid(x: float, y: float, z: float) -> Mesh:
    """A box on z = 0 with the same texture on each side."""
    side_x = shapes.plate(x, z).turned("x", 90).at(0, -y / 2, z / 2)
    side_y = shapes.plate(y, z).turned("x", 90).at(0, -x / 2, z / 2).turned("z", 90)
    sides = [side_x, side_x.turned("z", 180), side_y, side_y.turned("z", 180)]
    return shapes.merged([*sides, shapes.plate(x, y).at(0, 0, z)])


def box(rng: Rng, size_m: float) -> Mesh:
    return cuboid(*(size_m * rng.uniform(0.5, 1.1, 3)).tolist())


def ball(rng: Rng, size_m: float) -> Mesh:
    radius = size_m * rng.uniform(0.35, 0.6)
    tilted = shapes.sphere(radius).turned("x", rng.uniform(0, 90))
    return tilted.at(0, 0, radius)


def can(rng: Rng, size_m: float) -> Mesh:
    radius, height = size_m * rng.uniform(0.2, 0.45), size_m * rng.uniform(0.6, 1.6)
    lid = shapes.ring(np.zeros((64, 2)), shapes.circle(radius, 64), 0.01 * height)
    return shapes.merged([shapes.lathe([(radius, 0), (radius, height)]), lid.at(0, 0, height)])


def _vase(rng: Rng, size_m: float) -> Mesh:
    z = np.linspace(0, rng.uniform(0.9, 1.5), 6)
    radius = rng.uniform(0.15, 0.5, 6)
    return shapes.lathe(size_m * shapes.curve(np.stack([radius, z], 1)))


def card(rng: Rng, size_m: float) -> Mesh:
    """A slanted board with its lower edge on the floor."""
    width, height = (size_m * rng.uniform(0.7, 1.3, 2)).tolist()
    return shapes.plate(width, height).at(0, height / 2).turned("x", rng.uniform(25, 80))


def _spring(rng: Rng, size_m: float) -> Mesh:
    turns = rng.uniform(4, 9)
    path = shapes.helix(0.35 * size_m, 1.1 * size_m / turns, turns)
    return shapes.tube(path, size_m * rng.uniform(0.025, 0.06)).at(0, 0, 0.05 * size_m)


def _hoop(rng: Rng, size_m: float) -> Mesh:
    thick = size_m * rng.uniform(0.04, 0.14)
    circle = np.column_stack([shapes.circle(0.45 * size_m, 96), np.zeros(96)])
    upright = shapes.tube(circle, thick, 24, closed=True).turned("x", rng.uniform(60, 90))
    return upright.at(0, 0, 0.45 * size_m + thick)


_OBJECTS = (box, box, ball, ball, can, can, _vase, card, card, _spring, _hoop)
