"""The studio that a scene is set up in: what the camera sees, the materials, the bodies so far."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.data.procedural.dice import chance, log_uniform
from focaldiffusion.data.procedural.patterns import colour, leaf, outline, pattern
from focaldiffusion.data.procedural.shapes import Body, Card, Cylinder, Form
from focaldiffusion.data.procedural.textures import Material, Texture, plain
from focaldiffusion.data.procedural.vectors import Axes, Vector3, across, beyond, floats, unit

_PLAIN_SHARE = 0.35
"""Materials of one colour: where the evidence is empty and a network has to complete."""
_PHOTOGRAPH_SHARE = 0.5
"""Of the other materials, where there are photographs; the rest is drawn."""
_GLOSSY_SHARE = 0.35
_MAX_BODIES = 140

DrawPhotograph = Callable[[np.random.Generator], Tensor]
"""A photograph (3, h, w), linear light."""


@dataclass(frozen=True)
class View:
    """What the camera sees, and how far its content may reach.

    Attributes:
        half_width, half_height: slopes x/z and y/z at the image's borders.
        pixel: 1 / focal length in pixels.
        near_dpt, far_dpt: the working range, which a photographer would sweep.
        nearest_dpt, farthest_dpt: between these every surface lies.
    """

    half_width: float
    half_height: float
    pixel: float
    near_dpt: float
    far_dpt: float
    nearest_dpt: float
    farthest_dpt: float

    def dioptres(self, position: float) -> float:
        """Inverse depth at a position: 0 is the near end of the working range, 1 the far end."""
        inside = self.near_dpt - position * (self.near_dpt - self.far_dpt)
        return min(max(inside, self.farthest_dpt), self.nearest_dpt)

    @property
    def nearest_m(self) -> float:
        """The nearest depth of any surface."""
        return 1 / self.nearest_dpt


class Studio:
    """A scene in the making.

    Attributes:
        rng: of the scene.
        view: of its camera.
        bodies: set up so far.
        ground_dpt: inverse depth a x + b y + c of the ground at slopes (x, y), or None.
        walls_dpt: that of every plane of the backdrop, the ground's included.
        span: positions (see `View.dioptres`) between which props are set up.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        view: View,
        draw_photograph: DrawPhotograph | None,
        device: torch.device,
    ) -> None:
        self.rng, self.view, self.device = rng, view, device
        self.bodies: list[Body] = []
        self.ground_dpt: Vector3 | None = None
        self.walls_dpt: list[Vector3] = []
        nearest = rng.uniform(-0.3, 0.2) if chance(rng, 0.85) else rng.uniform(0.2, 0.6)
        self.span = (nearest, rng.uniform(max(0.7, nearest + 0.3), 1.2))
        # Few materials, used again: then a surface ends in front of one that looks the same.
        self._draw_photograph = draw_photograph
        self._materials = [self._new_material() for _ in range(int(rng.integers(3, 8)))]

    def material(self) -> Material:
        """One of the scene's materials."""
        return self._materials[self.rng.integers(len(self._materials))]

    def position(self) -> float:
        """A random position of a prop, see `View.dioptres`."""
        return float(self.rng.uniform(*self.span))

    def somewhere(self) -> Vector3:
        """A point within the picture at a random position of the span."""
        x, y = self.rng.uniform(-1, 1, 2)
        return self.at(x, y, self.view.dioptres(self.position()))

    def at(self, x: float, y: float, dpt: float) -> Vector3:
        """The point at depth 1/dpt, seen at (x, y): -1 and 1 are the picture's borders."""
        z = 1 / dpt
        return x * self.view.half_width * z, y * self.view.half_height * z, z

    def size_m(self, z: float, low: float, high: float) -> float:
        """A length at depth z that looks `low` to `high` half picture widths long."""
        return log_uniform(self.rng, low, high) * self.view.half_width * z

    def room_m(self, z: float) -> float:
        """How far something at depth z may stick out towards the camera."""
        return max(z - self.view.nearest_m, 0.0)

    def fitted(self, z: float, axes: Axes, half_m: Vector3) -> Vector3:
        """Half sizes, each reduced so that a body on something at depth z comes not too near.

        What lies across the view keeps its size, however shallow the scene is.
        """
        share = 0.25 * self.room_m(z)
        a, b, c = (
            min(half, share / max(abs(axis[2]), 1e-3))
            for axis, half in zip(axes, half_m, strict=True)
        )
        return a, b, c

    def new_outline(self, *, of_leaf: bool = False) -> Card:
        """A card cut along a random outline."""
        field = leaf(self.rng) if of_leaf else outline(self.rng)
        return Card(torch.from_numpy(field.astype(np.float32)).to(self.device))

    def place(
        self,
        form: Form,
        centre_m: Vector3,
        axes: Axes,
        half_m: Vector3,
        material: Material | None = None,
        *,
        seen_at_m: float | None = None,
        casts_shadow: bool = True,
    ) -> None:
        """Set up a body; nothing happens where it would come too near, or has no room to be at all.

        The pixels of its texture are about those of the picture at depth `seen_at_m`, by default
        that of its centre.
        """
        texel_m = log_uniform(self.rng, 0.6, 4.0) * (seen_at_m or centre_m[2]) * self.view.pixel
        material = material or self.material()
        # Numbers of NumPy would be asked first how to multiply a tensor, which takes longer.
        centre, first, second, third, half = map(floats, (centre_m, *axes, half_m))
        body = Body(form, centre, (first, second, third), half, material, texel_m, casts_shadow)
        endless = math.isinf(body.radius_m)
        too_near = not endless and centre_m[2] - body.depth_extent_m < self.view.nearest_m
        if not too_near and min(half[:2]) > 0 and len(self.bodies) < _MAX_BODIES:
            self.bodies.append(body)

    def place_rod(
        self, start_m: Vector3, end_m: Vector3, radius_m: float, material: Material
    ) -> None:
        """Set up a round rod between two points."""
        half = math.dist(start_m, end_m) / 2
        along = unit((end_m[0] - start_m[0], end_m[1] - start_m[1], end_m[2] - start_m[2]))
        first, third = across(along, self.rng)
        centre = beyond(start_m, along, half)
        self.place(Cylinder(), centre, (first, along, third), (radius_m, half, radius_m), material)

    def _new_material(self) -> Material:
        rng = self.rng
        if chance(rng, _PLAIN_SHARE):
            texture = plain(colour(rng), self.device)
        elif self._draw_photograph is not None and chance(rng, _PHOTOGRAPH_SHARE):
            texture = Texture(self._draw_photograph(rng).to(self.device))
        else:
            texture = Texture(torch.from_numpy(pattern(rng)).to(self.device))
        if not chance(rng, _GLOSSY_SHARE):
            return Material(texture)
        return Material(texture, log_uniform(rng, 0.03, 3), log_uniform(rng, 8, 300))
