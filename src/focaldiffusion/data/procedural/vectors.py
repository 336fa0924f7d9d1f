"""Vectors of three components: x right, y down, z away from the camera; random draws.

Draws happen on the CPU, so that a scene is the same on every device.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

Vector3 = tuple[float, float, float]
Axes = tuple[Vector3, Vector3, Vector3]
"""Three orthogonal unit vectors."""


def floats(vector: Iterable[float]) -> Vector3:
    """Three components as Python numbers."""
    x, y, z = map(float, vector)
    return x, y, z


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform between those of `low` and `high`, both > 0."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def direction(rng: np.random.Generator) -> Vector3:
    """A unit vector, uniform over the sphere."""
    return unit(floats(rng.standard_normal(3)))


def across(axis: Vector3, rng: np.random.Generator) -> tuple[Vector3, Vector3]:
    """Two unit vectors, orthogonal to a unit vector and to each other."""
    first = unit(cross(axis, direction(rng)))
    return first, cross(axis, first)


def cross(a: Vector3, b: Vector3) -> Vector3:
    """The vector product."""
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


def unit(vector: Vector3) -> Vector3:
    """The vector scaled to length 1."""
    length = math.hypot(*vector)
    return vector[0] / length, vector[1] / length, vector[2] / length


def beyond(point: Vector3, along: Vector3, distance: float) -> Vector3:
    """The point at a distance from another along a direction."""
    return (
        point[0] + distance * along[0],
        point[1] + distance * along[1],
        point[2] + distance * along[2],
    )
