"""Planes through confident depth: what floors, walls and tables are made of.

Inverse depth is linear in image coordinates on a plane of the scene, so a bare wall is known as
soon as three of its points are. Planes are drawn through triples of points of one neighbourhood
(Fischler & Bolles, Random Sample Consensus, 1981), in windows of all sizes, so that a faint wall
gets its own beside a well-textured picture on it. They only propose: which of them a pixel
belongs to, if to any, is decided by `matching`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_PLANES = 96
LEAST_CERTAINTY = 0.03
"""Certainty of a pixel that says anything."""

_GRID = 64  # cells along the longer side; each gives its most certain pixel
_SMALLEST_WINDOW = 8  # cells
_TRIPLES = 24  # of each window
_PER_WINDOW = 3  # planes kept of each window
_WINDOW_SUPPORT = 4.0  # points that a plane needs in its window ...
_SUPPORT = 6.0  # ... and in the image, those that earlier planes explain not counted
_MOST_POINTS = 400  # of a window; more would only take longer
_REFITS = 3

_Array = NDArray[np.float64]


def propose_planes(coordinate: Tensor, certainty: Tensor, hypotheses: Tensor) -> Tensor:
    """Planes that many certain pixels lie on, the same for the same arguments.

    Args:
        coordinate: (H, W) a surface in the unit of the hypotheses.
        certainty: (H, W) in [0, 1], how far to trust it.
        hypotheses: (K,) ascending; a step between them is how far a point may lie off its plane.

    Returns:
        (P, 3) coefficients of `plane_basis`, best supported first; P may be 0.
    """
    height, width = coordinate.shape
    cell = max(1, -(-max(height, width) // _GRID))
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.full((rows * cell, columns * cell), -1.0)
    padded[:height, :width] = certainty.cpu().numpy()
    cells = padded.reshape(rows, cell, columns, cell).swapaxes(1, 2).reshape(rows, columns, -1)
    best = cells.argmax(-1)
    y = np.arange(rows)[:, None] * cell + best // cell
    x = np.arange(columns) * cell + best % cell
    weight = cells.max(-1)
    z = coordinate.cpu().numpy().astype(np.float64)[y, x]
    steps = hypotheses.double().cpu().numpy()
    tolerance = np.interp(z, (steps[1:] + steps[:-1]) / 2, np.diff(steps))
    u, v = _image_coordinates(x, y, (height, width))
    points = np.stack([u, v, np.ones_like(u)]), z, tolerance, weight

    known = weight > LEAST_CERTAINTY
    proposals = []
    rng = np.random.default_rng(0)
    for down, across in _windows(rows, columns):
        seen = known[down, across]
        if seen.sum() >= 2 * _WINDOW_SUPPORT:
            inside = (field[..., down, across][..., seen] for field in points)
            proposals += _planes_of(rng, *inside)
    if not proposals:
        return coordinate.new_zeros(0, 3)
    planes = np.array(proposals)
    on_plane = _membership(planes, *(field[..., known] for field in points[:3]))
    chosen: list[np.intp] = []
    left = np.ones(on_plane.shape[1])
    while len(chosen) < MAX_PLANES:
        support = on_plane @ left
        winner = support.argmax()
        if support[winner] < _SUPPORT:
            break
        chosen.append(winner)
        left *= 1 - on_plane[winner]
    return torch.from_numpy(planes[chosen]).to(coordinate)


def plane_basis(like: Tensor, height: int, width: int) -> Tensor:
    """(3, H, W) u, v and 1 at every pixel: a plane is a u + b v + c.

    u and v run from the centre, to the right and downwards, in units of the longer side.
    """
    u, v = _image_coordinates(np.arange(width), np.arange(height)[:, None], (height, width))
    return torch.from_numpy(np.stack(np.broadcast_arrays(u, v, 1.0))).to(like)


def _image_coordinates(
    x: NDArray[np.int64], y: NDArray[np.int64], size: tuple[int, int]
) -> tuple[_Array, _Array]:
    height, width = size
    side = max(size)
    return (x - width / 2) / side, (y - height / 2) / side


def _windows(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Half-overlapping squares of cells, of all sizes up to the whole image."""
    side = _SMALLEST_WINDOW
    while True:
        stride = side // 2
        for top in range(0, max(rows - stride, 1), stride):
            for left in range(0, max(columns - stride, 1), stride):
                yield slice(top, top + side), slice(left, left + side)
        if side >= max(rows, columns):
            return
        side *= 2


def _planes_of(
    rng: np.random.Generator, basis: _Array, z: _Array, tolerance: _Array, weight: _Array
) -> list[_Array]:
    """The best planes of one window: of three of its points, or level through one."""
    if len(z) > _MOST_POINTS:
        few = rng.choice(len(z), _MOST_POINTS, replace=False)
        basis, z, tolerance, weight = basis[:, few], z[few], tolerance[few], weight[few]
    triples = rng.choice(len(z), (_TRIPLES, 3), p=weight / weight.sum())
    corners = basis.T[triples]
    # Points nearly in a row leave the slope across it open.
    open_slope = 1e-5 * (_SMALLEST_WINDOW / _GRID) ** 2
    proper = np.abs(np.linalg.det(corners)) > open_slope
    slanted = np.linalg.solve(corners[proper], z[triples[proper], None])[..., 0]
    level = np.zeros((_TRIPLES, 3))
    level[:, 2] = z[triples[:, 0]]
    candidates = np.concatenate([slanted, level])
    inside = _membership(candidates, basis, z, tolerance)
    left, planes = np.ones(len(z)), []
    for _ in range(_PER_WINDOW):
        support = inside @ left
        winner = support.argmax()
        if support[winner] < _WINDOW_SUPPORT:
            break
        plane, best = candidates[winner], support[winner]
        refitted = plane
        for _ in range(_REFITS):
            share = _membership(refitted[None], basis, z, tolerance)[0] * left
            normal = (basis * share) @ basis.T + 1e-6 * len(z) * np.diag([1.0, 1.0, 1e-6])
            refitted = np.linalg.solve(normal, (basis * share) @ z)
            reached = _membership(refitted[None], basis, z, tolerance)[0] @ left
            if reached > best:
                plane, best = refitted, reached
        planes.append(plane)
        left = left * (1 - _membership(plane[None], basis, z, tolerance)[0])
    return planes


def _membership(planes: _Array, basis: _Array, z: _Array, tolerance: _Array) -> _Array:
    """(P, M) in [0, 1]: 1 for a point on a plane, 0 for one a tolerance off it."""
    return np.clip(1 - ((planes @ basis - z) / tolerance) ** 2, 0, 1)
