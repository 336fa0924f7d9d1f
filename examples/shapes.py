"""Meshes for the example scenes: parametric grids, surfaces of revolution, tubes, boxes, plates.

Pure numpy. Metres, z up, counter-clockwise faces seen from outside, uv in [0, 1] with v up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh: positions (V, 3), unit normals (V, 3), uv (V, 2), faces (F, 3)."""

    positions: Array
    normals: Array
    uv: Array
    faces: NDArray[np.int64]

    def turned(self, axis: str, degrees: float) -> Mesh:
        """Rotated about the local x, y or z axis, right-handed."""
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        i, j = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
        matrix = np.eye(3)
        matrix[[i, i, j, j], [i, j, i, j]] = c, -s, s, c
        return Mesh(self.positions @ matrix.T, self.normals @ matrix.T, self.uv, self.faces)

    def at(self, x: float, y: float, z: float = 0.0) -> Mesh:
        """Moved by (x, y, z) [m]."""
        return Mesh(np.add(self.positions, (x, y, z)), self.normals, self.uv, self.faces)


def merged(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes as one."""
    starts = np.cumsum([0] + [len(mesh.positions) for mesh in meshes[:-1]])
    return Mesh(
        np.concatenate([mesh.positions for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([m.faces + start for m, start in zip(meshes, starts, strict=True)]),
    )


def grid(points: Array, *, wrap: tuple[bool, bool] = (False, False)) -> Mesh:
    """Smooth surface through points (R, C, 3); uv runs along columns (u) and rows (v).

    Normals are the cross product of the column and the row direction.

    Args:
        points: (R, C, 3); a closed direction repeats its first row or column at the end.
        wrap: whether rows, columns close, so that normals meet there.
    """
    rows, columns = points.shape[:2]
    along_rows = _difference(points, 0, wrap[0])
    along_columns = _difference(points, 1, wrap[1])
    normals = np.cross(along_columns, along_rows)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    normals = normals / np.maximum(length, 1e-300)
    for row, inner in ((0, 1), (rows - 1, rows - 2)):  # a pole: one row shrunk to a point
        if np.allclose(points[row], points[row, 0], atol=1e-12):
            mean = normals[inner].mean(0)
            normals[row] = mean / np.linalg.norm(mean)
    v, u = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return Mesh(
        points.reshape(-1, 3), normals.reshape(-1, 3), np.stack([u, v], -1).reshape(-1, 2), faces
    )


def _difference(points: Array, axis: int, wrap: bool) -> Array:
    if not wrap:
        return np.gradient(points, axis=axis)
    moved = np.moveaxis(points, axis, 0)[:-1]  # without the repeated end
    difference = np.roll(moved, -1, 0) - np.roll(moved, 1, 0)
    return np.moveaxis(np.concatenate([difference, difference[:1]]), 0, axis)


def lathe(profile: ArrayLike, segments: int = 96) -> Mesh:
    """Surface of revolution about z; profile (n, 2) of (radius, z), upwards for an outer wall.

    A repeated profile point makes a hard edge.
    """
    pieces, piece = [], [np.asarray(profile, float)[0]]
    for point in np.asarray(profile, float)[1:]:
        if np.array_equal(point, piece[-1]):
            pieces.append(piece)
            piece = []
        piece.append(point)
    pieces.append(piece)
    angle = np.linspace(0, 2 * np.pi, segments + 1)
    heights = np.asarray(profile, float)[:, 1]
    low, span = heights.min(), max(np.ptp(heights), 1e-12)
    meshes = []
    for piece in pieces:
        radius, z = np.array(piece).T
        x, y = np.cos(angle) * radius[:, None], np.sin(angle) * radius[:, None]
        z_grid = np.broadcast_to(z[:, None], x.shape)
        mesh = grid(np.stack([x, y, z_grid], -1), wrap=(False, True))
        mesh.uv[:, 1] = (mesh.positions[:, 2] - low) / span
        meshes.append(mesh)
    return merged(meshes)


def curve(points: ArrayLike, count: int = 48) -> Array:
    """Catmull-Rom curve (count, d) through control points (n, d), ends included."""
    p = np.asarray(points, float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = np.linspace(0, len(p) - 3, count)
    i = np.minimum(t.astype(int), len(p) - 4)
    t = (t - i)[:, None]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    return 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )


def sphere(radius: float, segments: int = 128) -> Mesh:
    """Sphere about the origin; v runs from the south to the north pole."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, segments // 2 + 1)
    profile = radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    profile[[0, -1], 0] = 0
    mesh = lathe(profile, segments)
    mesh.uv[:, 1] = np.repeat(np.linspace(0, 1, len(profile)), segments + 1)
    return mesh


def tube(path: ArrayLike, radius: ArrayLike, sides: int = 16, *, closed: bool = False) -> Mesh:
    """Round tube along a path (n, 3) with open ends; radius is one number or one a point [m]."""
    p = np.asarray(path, float)
    if closed:
        p = np.concatenate([p, p[:1]])
    tangent = _difference(p, 0, closed)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent[0], (0.0, 0.0, 1.0) if abs(tangent[0, 2]) < 0.9 else (1.0, 0.0, 0.0))
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    rings = []
    radii = np.broadcast_to(np.asarray(radius, float), len(p))
    for point, direction, r in zip(p, tangent, radii, strict=True):
        side = side - direction * (side @ direction)  # parallel transport: no twist
        side /= np.linalg.norm(side)
        other = np.cross(direction, side)
        rings.append(point + r * (np.cos(angle)[:, None] * side + np.sin(angle)[:, None] * other))
    return grid(np.array(rings), wrap=(closed, True))


def helix(radius: float, pitch: float, turns: float, per_turn: int = 40) -> Array:
    """Helix about z, from z = 0 upwards (n, 3)."""
    angle = np.linspace(0, 2 * np.pi * turns, int(per_turn * turns))
    z = pitch * angle / (2 * np.pi)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], -1)


def plate(width: float, depth: float) -> Mesh:
    """Rectangle in the xy plane about the origin, facing up; uv covers it once."""
    x, y = np.meshgrid([-width / 2, width / 2], [-depth / 2, depth / 2])
    return grid(np.stack([x, y, np.zeros_like(x)], -1))


def rounded_box(size: Sequence[float], radius: float, steps: int = 5) -> Mesh:
    """Box standing on z = 0 with rounded edges; uv projects from above, so a print faces up."""
    half = np.array(size, float) / 2
    quarter = np.linspace(0, np.pi / 2, steps)
    longitude = np.concatenate([quarter + k * np.pi / 2 for k in range(4)] + [[2 * np.pi]])
    latitude = np.concatenate([quarter - np.pi / 2, quarter])
    lat, lon = np.meshgrid(latitude, longitude, indexing="ij")
    normal = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    # Each octant of the sphere moves to its corner; the repeated angles span the flat faces.
    octant_x = np.repeat([1, -1, -1, 1, 1], [steps, steps, steps, steps, 1])
    octant_y = np.repeat([1, 1, -1, -1, 1], [steps, steps, steps, steps, 1])
    octant_z = np.repeat([-1, 1], steps)
    octant = np.stack(np.broadcast_arrays(octant_x, octant_y, octant_z[:, None]), -1)
    mesh = grid(normal * radius + octant * (half - radius))
    caps = [plate(2 * (half[0] - radius), 2 * (half[1] - radius)).at(0, 0, half[2])]
    caps.append(caps[0].turned("x", 180))
    body = Mesh(mesh.positions, normal.reshape(-1, 3), mesh.uv, mesh.faces)
    box = merged([body, *caps])
    uv = box.positions[:, :2] / (2 * half[:2]) + 0.5
    return Mesh(np.add(box.positions, (0, 0, half[2])), box.normals, uv, box.faces)


def ring(inner: Array, outer: Array, height: float) -> Mesh:
    """Prism on z = 0 between two outlines (n, 2), counter-clockwise; flat sides.

    An inner outline of zeros gives a solid prism.
    """
    inner, outer = (np.concatenate([outline, outline[:1]]) for outline in (inner, outer))
    meshes = []
    for lower, upper, z_lower, z_upper in (
        (outer, outer, 0.0, height),
        (outer, inner, height, height),
        (inner, inner, height, 0.0),
        (inner, outer, 0.0, 0.0),
    ):
        a = np.column_stack([lower, np.full(len(lower), z_lower)])
        b = np.column_stack([upper, np.full(len(upper), z_upper)])
        quads = np.stack([a[:-1], a[1:], b[1:], b[:-1]], 1)  # (n, 4, 3)
        normal = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        keep = length[:, 0] > 0
        quads, normal = quads[keep], (normal / np.maximum(length, 1e-300))[keep]
        first = 4 * np.arange(len(quads))[:, None]
        faces = np.concatenate([np.add(first, corners) for corners in ((0, 1, 2), (0, 2, 3))])
        positions = quads.reshape(-1, 3)
        reach = 2 * np.abs(outer).max()
        meshes.append(
            Mesh(positions, np.repeat(normal, 4, 0), positions[:, :2] / reach + 0.5, faces)
        )
    return merged([mesh for mesh in meshes if len(mesh.faces)])


def circle(radius: ArrayLike, count: int) -> Array:
    """Outline (count, 2), counter-clockwise; radius is one number or one a point [m]."""
    angle = np.arange(count) * 2 * np.pi / count
    return np.stack([np.cos(angle), np.sin(angle)], -1) * np.broadcast_to(radius, count)[:, None]


def gear(radius: float, teeth: int, height: float, bore: float) -> Mesh:
    """Spur gear on z = 0 with trapezoidal teeth."""
    tooth = np.array([0.86, 0.86, 0.88, 0.97, 1.0, 1.0, 0.97, 0.88])
    outline = radius * np.tile(tooth, teeth)
    return ring(circle(bore, 8 * teeth), circle(outline, 8 * teeth), height)
