"""The studio in which a scene is set up: the camera's view, materials and bodies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.data.procedural.patterns import colour, leaf, outline, pattern
from focaldiffusion.data.procedural.shapes import Body, Card, Cylinder, Form
from focaldiffusion.data.procedural.textures import Material, Texture
from focaldiffusion.data.procedural.vectors import (
    Axes,
    Vector3,
    across,
    beyond,
    floats,
    log_uniform,
    unit,
)

_PLAIN_SHARE = 0.35
"""Share of materials of one colour, without evidence, where a network has to complete depth."""
_PHOTOGRAPH_SHARE = 0.5
"""Share of the other materials made from photographs, if available; the rest is drawn."""
_GLOSSY_SHARE = 0.35
_MAX_BODIES = 140

DrawPhotograph = Callable[[np.random.Generator], Tensor]
"""A photograph (3, h, w), linear light."""


@dataclass(frozen=True)
class View:
    """The view of the camera, and the range of its content.

    Attributes:
        half_width, half_height: slopes x/z and y/z at the image's borders.
        pixel: 1 / focal length in pixels.
        near_dpt, far_dpt: the working range, which a photographer would sweep.
        nearest_dpt, farthest_dpt: limits of every surface.
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
        rng: random numbers of the scene.
        view: view of its camera.
        bodies: bodies placed so far.
        ground_dpt: inverse depth a x + b y + c of the ground at slopes (x, y), or None.
        walls_dpt: inverse depth of every plane of the backdrop, including the ground.
        span: positions (see `View.dioptres`) between which props are placed.
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
        nearest = rng.uniform(-0.3, 0.2) if rng.random() < 0.85 else rng.uniform(0.2, 0.6)
        self.span = (nearest, rng.uniform(max(0.7, nearest + 0.3), 1.2))
        # Few materials, reused, so that some surfaces end in front of others that look the same.
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
        """A length at depth z that appears as `low` to `high` half picture widths."""
        return log_uniform(self.rng, low, high) * self.view.half_width * z

    def room_m(self, z: float) -> float:
        """Largest extent towards the camera of a body at depth z."""
        return max(z - self.view.nearest_m, 0.0)

    def fitted(self, z: float, axes: Axes, half_m: Vector3) -> Vector3:
        """Half sizes, reduced so that a body at depth z does not come too near.

        Axes across the view keep their size, even in shallow scenes.
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
        """Place a body, unless it would come too near or has no extent.

        Its texture has about the resolution of the picture at depth `seen_at_m`, by default the
        depth of its centre.
        """
        texel_m = log_uniform(self.rng, 0.6, 4.0) * (seen_at_m or centre_m[2]) * self.view.pixel
        material = material or self.material()
        # Python numbers multiply tensors faster than NumPy scalars.
        centre, first, second, third, half = map(floats, (centre_m, *axes, half_m))
        body = Body(form, centre, (first, second, third), half, material, texel_m, casts_shadow)
        endless = math.isinf(body.radius_m)
        too_near = not endless and centre_m[2] - body.depth_extent_m < self.view.nearest_m
        if not too_near and min(half[:2]) > 0 and len(self.bodies) < _MAX_BODIES:
            self.bodies.append(body)

    def place_rod(
        self, start_m: Vector3, end_m: Vector3, radius_m: float, material: Material
    ) -> None:
        """Place a round rod between two points."""
        half = math.dist(start_m, end_m) / 2
        along = unit((end_m[0] - start_m[0], end_m[1] - start_m[1], end_m[2] - start_m[2]))
        first, third = across(along, self.rng)
        centre = beyond(start_m, along, half)
        self.place(Cylinder(), centre, (first, along, third), (radius_m, half, radius_m), material)

    def _new_material(self) -> Material:
        rng = self.rng
        if rng.random() < _PLAIN_SHARE:
            one = torch.tensor(colour(rng), dtype=torch.float32, device=self.device)
            texture = Texture(one[:, None, None])
        elif self._draw_photograph is not None and rng.random() < _PHOTOGRAPH_SHARE:
            texture = Texture(self._draw_photograph(rng).to(self.device))
        else:
            texture = Texture(torch.from_numpy(pattern(rng)).to(self.device))
        if rng.random() >= _GLOSSY_SHARE:
            return Material(texture)
        return Material(texture, log_uniform(rng, 0.03, 3), log_uniform(rng, 8, 300))
