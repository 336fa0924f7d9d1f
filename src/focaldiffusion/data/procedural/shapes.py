"""Shapes with ray intersections in closed form: entry, exit and surface.

A vector has three components, each a number or a tensor: components constant over the rays stay
numbers, and slopes of shape (1, W) and (H, 1) broadcast as late as possible.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.data.procedural.textures import Material
from focaldiffusion.data.procedural.vectors import Axes, Vector3

_Vector = tuple[Any, Any, Any]
_Span = tuple[Tensor, Tensor]
_Surface = tuple[_Vector, tuple[Tensor, Tensor]]

_TINY = 1e-12  # keeps a ray along a face from dividing zero by zero


class Form(Protocol):
    """A shape in its own frame, about its own centre, of given half sizes along its axes [m]."""

    def span(self, origin: _Vector, ray: _Vector, half_m: Vector3) -> _Span:
        """Multiples of `ray` at entry and exit; the exit comes first where the ray misses."""
        ...

    def surface(self, point: _Vector, half_m: Vector3) -> _Surface:
        """Normal (any length, either side) and texture coordinates [m] at points on the surface."""
        ...


class Box:
    """A cuboid."""

    def span(self, origin: _Vector, ray: _Vector, half_m: Vector3) -> _Span:
        """See `Form`."""
        spans = [_slab(*axis) for axis in zip(origin, ray, half_m, strict=True)]
        return _common(_common(spans[0], spans[1]), spans[2])

    def surface(self, point: _Vector, half_m: Vector3) -> _Surface:
        """See `Form`."""
        share = torch.stack([p.abs() / h for p, h in zip(point, half_m, strict=True)])
        axis = share.argmax(0)
        normal = tuple(torch.sign(p) * (axis == number) for number, p in enumerate(point))
        u = torch.where(axis == 0, point[2], point[0])
        v = torch.where(axis == 1, point[2], point[1])
        return normal, (u, v)  # type: ignore[return-value]


class Ellipsoid:
    """A sphere, stretched."""

    def span(self, origin: _Vector, ray: _Vector, half_m: Vector3) -> _Span:
        """See `Form`."""
        return _quadric(
            [o / h for o, h in zip(origin, half_m, strict=True)],
            [r / h for r, h in zip(ray, half_m, strict=True)],
        )

    def surface(self, point: _Vector, half_m: Vector3) -> _Surface:
        """See `Form`."""
        x, y, z = (p / h for p, h in zip(point, half_m, strict=True))
        u = torch.atan2(x, z) * half_m[0]
        v = torch.asin(y.clamp(-1, 1)) * half_m[1]
        return (x / half_m[0], y / half_m[1], z / half_m[2]), (u, v)


class Cylinder:
    """A cylinder along its second axis, with flat ends."""

    def span(self, origin: _Vector, ray: _Vector, half_m: Vector3) -> _Span:
        """See `Form`."""
        side = _quadric(
            [origin[0] / half_m[0], origin[2] / half_m[2]],
            [ray[0] / half_m[0], ray[2] / half_m[2]],
        )
        return _common(side, _slab(origin[1], ray[1], half_m[1]))

    def surface(self, point: _Vector, half_m: Vector3) -> _Surface:
        """See `Form`."""
        x, y, z = (p / h for p, h in zip(point, half_m, strict=True))
        at_end = y * y > x * x + z * z
        normal = (
            torch.where(at_end, 0.0, x / half_m[0]),
            torch.where(at_end, torch.sign(y), 0.0),
            torch.where(at_end, 0.0, z / half_m[2]),
        )
        u = torch.where(at_end, point[0], torch.atan2(x, z) * half_m[0])
        return normal, (u, torch.where(at_end, point[2], point[1]))


class Plane:
    """The unbounded plane across its third axis."""

    def span(self, origin: _Vector, ray: _Vector, half_m: Vector3) -> _Span:
        """See `Form`."""
        at = -origin[2] / ray[2]
        return at, at

    def surface(self, point: _Vector, half_m: Vector3) -> _Surface:
        """See `Form`."""
        return (0.0, 0.0, torch.ones_like(point[2])), (point[0], point[1])


@dataclass(frozen=True, eq=False)
class Card:
    """A thin sheet across its third axis, rectangular or cut along an outline.

    Attributes:
        outline: (h, w), interpolated, positive inside the sheet; None for the whole rectangle.
    """

    outline: Tensor | None = None

    def span(self, origin: _Vector, ray: _Vector, half_m: Vector3) -> _Span:
        """See `Form`. For shadows, the sheet is thickest far from its edges."""
        at = -origin[2] / (ray[2] + _TINY)
        u = (origin[0] + at * ray[0]) / half_m[0]
        v = (origin[1] + at * ray[1]) / half_m[1]
        inside = torch.minimum(1 - u.abs(), 1 - v.abs())
        if self.outline is not None:
            grid = torch.stack([u, v], -1)
            field = functional.grid_sample(
                self.outline[None, None],
                grid.reshape(1, 1, -1, 2),
                padding_mode="border",
                align_corners=False,
            )
            inside = torch.minimum(inside, field.reshape(u.shape))
        return at, at + min(half_m[0], half_m[1]) * inside

    def surface(self, point: _Vector, half_m: Vector3) -> _Surface:
        """See `Form`."""
        return Plane().surface(point, half_m)


@dataclass(frozen=True, eq=False)
class Relief:
    """A rough surface: a plane whose inverse depth is scaled by 1 + a smooth map of the view.

    Defined along the camera's rays, it has no frame and casts no shadow.

    Attributes:
        plane_dpt: a, b, c of the inverse depth a x + b y + c at slopes (x, y).
        height: (h, w) over the view, relative, > -1.
        half_view: slopes (x, y) at the right and lower border of `height`.
    """

    plane_dpt: Vector3
    height: Tensor
    half_view: tuple[float, float]

    def span(self, origin: _Vector, ray: _Vector, half_m: Vector3) -> _Span:
        """See `Form`."""
        at = 1 / self.inverse_depth_dpt(*torch.broadcast_tensors(ray[0], ray[1]))
        return at, at

    def surface(self, point: _Vector, half_m: Vector3) -> _Surface:
        """See `Form`.

        A surface q(x, y) in slopes has the normal (q_x, q_y, q - x q_x - y q_y), like a plane.
        """
        x, y = point[0] / point[2], point[1] / point[2]
        step = 2 * self.half_view[0] / self.height.shape[1]
        here = self.inverse_depth_dpt(x, y)
        slope_x = (self.inverse_depth_dpt(x + step, y) - here) / step
        slope_y = (self.inverse_depth_dpt(x, y + step) - here) / step
        return (slope_x, slope_y, here - x * slope_x - y * slope_y), (point[0], point[1])

    def inverse_depth_dpt(self, x: Tensor, y: Tensor) -> Tensor:
        """1/z of the rays with slopes x and y."""
        a, b, c = self.plane_dpt
        grid = torch.stack([x / self.half_view[0], y / self.half_view[1]], -1).reshape(1, 1, -1, 2)
        height = functional.grid_sample(
            self.height[None, None],
            grid,
            mode="bicubic",
            padding_mode="border",
            align_corners=False,
        )
        return (a * x + b * y + c) * (1 + height.reshape(x.shape))


@dataclass(frozen=True, eq=False)
class Body:
    """A placed shape and its material.

    Attributes:
        form: the shape.
        centre_m: in camera coordinates: x right, y down, z forward.
        axes: its three axes, unit vectors in camera coordinates.
        half_m: half sizes along the axes, may be infinite.
        material: material of its surface.
        texel_m: metres per pixel of the material's texture.
        casts_shadow: False for backdrops.
    """

    form: Form
    centre_m: Vector3
    axes: Axes
    half_m: Vector3
    material: Material
    texel_m: float
    casts_shadow: bool = True

    @property
    def radius_m(self) -> float:
        """Radius of the sphere around its centre that contains it."""
        return math.hypot(*self.half_m)

    @property
    def depth_extent_m(self) -> float:
        """Half the extent of its bounding box along the optical axis."""
        return sum(abs(axis[2]) * half for axis, half in zip(self.axes, self.half_m, strict=True))

    def span(self, origin: _Vector, ray: _Vector) -> _Span:
        """`Form.span` of rays in camera coordinates."""
        return self.form.span(self.local(origin), self._turned(ray), self.half_m)

    def surface(self, point: _Vector) -> _Surface:
        """`Form.surface` at points in camera coordinates, with the normal in camera coordinates."""
        (a, b, c), coordinates = self.form.surface(self.local(point), self.half_m)
        first, second, third = self.axes
        return (
            a * first[0] + (b * second[0] + c * third[0]),
            a * first[1] + (b * second[1] + c * third[1]),
            a * first[2] + (b * second[2] + c * third[2]),
        ), coordinates

    def local(self, point: _Vector) -> _Vector:
        """A point in the body's frame."""
        x, y, z = (p - c for p, c in zip(point, self.centre_m, strict=True))
        return self._turned((x, y, z))

    @cached_property
    def bounds(self) -> tuple[float, float, float, float] | None:
        """Slopes (left, right, top, bottom) of its bounding box in view; None for unbounded."""
        if math.isinf(self.radius_m):
            return None
        xs, ys = [], []
        for signs in range(8):
            corner = list(self.centre_m)
            for number, (axis, half) in enumerate(zip(self.axes, self.half_m, strict=True)):
                reach = half if signs >> number & 1 else -half
                corner = [c + reach * a for c, a in zip(corner, axis, strict=True)]
            if corner[2] <= 0:
                return None
            xs.append(corner[0] / corner[2])
            ys.append(corner[1] / corner[2])
        return min(xs), max(xs), min(ys), max(ys)

    def _turned(self, vector: _Vector) -> _Vector:
        x, y, z = vector
        turned = tuple(a[0] * x + (a[1] * y + a[2] * z) for a in self.axes)
        return turned  # type: ignore[return-value]


def _slab(origin: Any, ray: Any, half_m: float) -> _Span:
    """The span between two parallel faces, across one axis."""
    inverse = 1 / (ray + _TINY)
    middle, reach = -origin * inverse, half_m * abs(inverse)
    return middle - reach, middle + reach


def _quadric(origin: list[Any], ray: list[Any]) -> _Span:
    """The span within the unit sphere (three components) or circle (two).

    Measured from the nearest approach: in the usual b² - 4 a c small, far spheres vanish in
    rounding.
    """
    length_squared = sum(r * r for r in ray) + _TINY
    nearest = -sum(o * r for o, r in zip(origin, ray, strict=True)) / length_squared
    miss_squared = sum((o + nearest * r) ** 2 for o, r in zip(origin, ray, strict=True))
    reach_squared = (1 - miss_squared) / length_squared
    # Negative where it misses. (Square roots of negative numbers take ten times as long.)
    reach = torch.copysign(reach_squared.abs().sqrt(), reach_squared)
    return nearest - reach, nearest + reach


def _common(one: _Span, other: _Span) -> _Span:
    """The intersection of two spans."""
    return torch.maximum(one[0], other[0]), torch.minimum(one[1], other[1])
