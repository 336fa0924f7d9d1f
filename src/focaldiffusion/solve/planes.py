"""Planes through confident depth: candidates for floors, walls and tables.

On a plane of the scene, inverse depth is linear in image coordinates, so three known points
determine a bare wall. Two searches propose planes:

- `propose_planes` fits planes to random triples of neighbouring points (RANSAC: Fischler & Bolles,
  Random Sample Consensus, 1981). It searches windows of all sizes, so that a faint wall gets its
  own plane beside a well-textured picture on it.
- `planes_beneath` finds a floor without any texture by the things that stand on it: several of
  them touch it, and none lies behind it.

These are only proposals: `matching` decides which plane a pixel belongs to, if any.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_PLANES = 96
LEAST_CERTAINTY = 0.03
"""Certainty from which a pixel counts."""

_GRID = 64  # cells along the longer side; each contributes its most certain pixel
_SMALLEST_WINDOW = 8  # cells
_TRIPLES = 24  # triples drawn per window
_PER_WINDOW = 3  # planes kept per window
_WINDOW_SUPPORT = 4.0  # points that a plane needs in its window
_SUPPORT = 6.0  # points that a plane needs in the image, not counting those of earlier planes
_MOST_POINTS = 400  # points used per window; more would only take longer
_REFITS = 3
_WIDE_TRIPLES = 5000  # triples drawn from the whole image by `planes_beneath`
_WIDE_POINTS = 1000  # points that such planes are compared with
_MOST_BEHIND = 0.01  # share of those points that may lie behind a plane by more than the tolerance
_MOST_BENEATH = 12  # such planes kept

_Array = NDArray[np.float64]


def propose_planes(coordinate: Tensor, certainty: Tensor, hypotheses: Tensor) -> Tensor:
    """Planes that many certain pixels lie on. Deterministic: same arguments, same planes.

    Args:
        coordinate: (H, W) surface in the unit of the hypotheses.
        certainty: (H, W) in [0, 1], trust in the surface.
        hypotheses: (K,) ascending; a point may lie off its plane by one step between them.

    Returns:
        (P, 3) coefficients of `plane_basis`, best supported first; P may be 0.
    """
    points = _points(coordinate, certainty, hypotheses)
    known = points[-1] > LEAST_CERTAINTY
    proposals = []
    rng = np.random.default_rng(0)
    for down, across in _windows(*known.shape):
        seen = known[down, across]
        if seen.sum() >= 2 * _WINDOW_SUPPORT:
            inside = (field[..., down, across][..., seen] for field in points)
            proposals += _planes_of(rng, *inside)
    if not proposals:
        return coordinate.new_zeros(0, 3)
    planes = np.array(proposals)
    on_plane = _membership(planes, *(field[..., known] for field in points[:3]))
    chosen = _best_supported(on_plane, MAX_PLANES)
    return torch.from_numpy(planes[chosen]).to(coordinate)


def planes_beneath(coordinate: Tensor, certainty: Tensor, hypotheses: Tensor) -> Tensor:
    """Planes that several certain points touch and no certain point lies behind.

    These are facets on the far side of the convex hull of all known points. They recover a bare
    floor or wall from the objects in front of it.

    Args:
        coordinate: (H, W) surface in the unit of the hypotheses, larger where it is nearer.
        certainty: see `propose_planes`.
        hypotheses: see `propose_planes`.

    Returns:
        (P, 3), see `propose_planes`.
    """
    basis, z, tolerance, weight = _points(coordinate, certainty, hypotheses)
    known = np.flatnonzero(weight > LEAST_CERTAINTY)
    if len(known) < 2 * _SUPPORT:
        return coordinate.new_zeros(0, 3)
    rng = np.random.default_rng(0)
    if len(known) > _WIDE_POINTS:
        known = rng.choice(known, _WIDE_POINTS, replace=False)
    basis, z, tolerance = (
        field.reshape(*field.shape[:-2], -1)[..., known] for field in (basis, z, tolerance)
    )
    planes = _through(basis, z, rng.integers(0, len(z), (_WIDE_TRIPLES, 3)))
    behind = (planes @ basis - z > tolerance).mean(1)
    planes = planes[behind <= _MOST_BEHIND]
    chosen = _best_supported(_membership(planes, basis, z, tolerance), _MOST_BENEATH)
    return torch.from_numpy(planes[chosen]).to(coordinate)


def planes_through(basis: _Array, shown: _Array, weight: _Array, hypotheses: _Array) -> _Array:
    """Planes through points of one segment; see `propose_planes`.

    Args:
        basis: (3, M) basis of planes at the points.
        shown: (M,) their coordinates.
        weight: (M,) trust in them.
        hypotheses: (K,) ascending.

    Returns:
        (P, 3), best supported first; P may be 0.
    """
    if len(shown) < 2 * _WINDOW_SUPPORT:
        return np.zeros((0, 3))
    tolerance = _tolerance(shown, hypotheses)
    planes = _planes_of(np.random.default_rng(0), basis, shown, tolerance, weight)
    return np.array(planes).reshape(-1, 3)


def plane_basis(like: Tensor, height: int, width: int) -> Tensor:
    """Basis (3, H, W) of planes a u + b v + c: u, v and 1 at every pixel.

    u and v are measured from the centre, to the right and downwards, in units of the longer side.
    """
    u, v = image_coordinates(np.arange(width), np.arange(height)[:, None], (height, width))
    return torch.from_numpy(np.stack(np.broadcast_arrays(u, v, 1.0))).to(like)


def _points(
    coordinate: Tensor, certainty: Tensor, hypotheses: Tensor
) -> tuple[_Array, _Array, _Array, _Array]:
    """The most certain pixel of each cell of a grid (R, C).

    Returns:
        Its basis (3, R, C), and its coordinate, tolerance and certainty, (R, C) each. Certainty is
        negative in cells outside the image.
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
    tolerance = _tolerance(z, hypotheses.cpu().double().numpy())
    u, v = image_coordinates(x, y, (height, width))
    return np.stack([u, v, np.ones_like(u)]), z, tolerance, weight


def _tolerance(z: _Array, hypotheses: _Array) -> _Array:
    """The step between hypotheses at coordinates z."""
    return np.interp(z, (hypotheses[1:] + hypotheses[:-1]) / 2, np.diff(hypotheses))


def image_coordinates(
    x: NDArray[np.int64], y: NDArray[np.int64], size: tuple[int, int]
) -> tuple[_Array, _Array]:
    """u and v of `plane_basis` at columns x and rows y of an image of (height, width)."""
    height, width = size
    side = max(size)
    return (x - width / 2) / side, (y - height / 2) / side


def _windows(rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
    """Squares of cells that overlap by half, of all sizes up to the whole image."""
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
    """The best planes of one window: through three of its points, or level through one."""
    if len(z) > _MOST_POINTS:
        few = rng.choice(len(z), _MOST_POINTS, replace=False)
        basis, z, tolerance, weight = basis[:, few], z[few], tolerance[few], weight[few]
    triples = rng.choice(len(z), (_TRIPLES, 3), p=weight / weight.sum())
    slanted = _through(basis, z, triples)
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


def _through(basis: _Array, z: _Array, triples: NDArray[np.int64]) -> _Array:
    """(P, 3) planes through triples (T, 3) of points, except nearly collinear ones."""
    corners = basis.T[triples]
    # Collinear points leave the slope across their line undetermined.
    open_slope = 1e-5 * (_SMALLEST_WINDOW / _GRID) ** 2
    proper = np.abs(np.linalg.det(corners)) > open_slope
    return np.linalg.solve(corners[proper], z[triples[proper], None])[..., 0]


def _best_supported(on_plane: _Array, most: int) -> list[np.intp]:
    """Indices of the planes that explain most points (P, M) in [0, 1] left by earlier ones."""
    chosen: list[np.intp] = []
    left = np.ones(on_plane.shape[1])
    while len(on_plane) and len(chosen) < most:
        support = on_plane @ left
        winner = support.argmax()
        if support[winner] < _SUPPORT:
            break
        chosen.append(winner)
        left *= 1 - on_plane[winner]
    return chosen


def _membership(planes: _Array, basis: _Array, z: _Array, tolerance: _Array) -> _Array:
    """(P, M) in [0, 1]: 1 for a point on a plane, 0 from one tolerance off it."""
    return np.clip(1 - ((planes @ basis - z) / tolerance) ** 2, 0, 1)
