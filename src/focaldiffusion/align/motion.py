"""The motion between two photographs of one scene that are focused at different distances.

Area-based, like OpenCV's ECC (Evangelidis and Psarakis, TPAMI 2008), but with a similarity, which
ECC lacks, and with three measures against mistaking a change of focus for a motion:

- Linear light is compared. There blur spreads an edge evenly to both sides; in the display
  encoding it spreads further to the dark side, which shifts the edge.
- Each tile of the image fits its own contrast, offset and change of blur (to first order, blur
  adds a multiple of the Laplacian), so near and far may blur differently.
- A tile is weighted by the quality of its fit, which is poor if only one frame is sharp there.

Motions are 3x3 matrices in *centred* coordinates: the image centre is 0 and its corners lie at
distance 1, so they hold at every resolution. `to_pixels` gives the matrix in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.align.pyramid import TILE_PX, Plane, Pyramid

Matrix = NDArray[np.float64]
MotionModel = Literal["similarity", "affine"]
Method = Literal["identity", "intensity", "features"]

BASIS: dict[MotionModel, Matrix] = {
    # Columns: scale, rotation, shift x, shift y. Rows as an affine matrix is read, row by row.
    "similarity": np.array(
        [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]],
        dtype=np.float64,
    ),
    "affine": np.eye(6),
}
"""Matrices from the parameters of each model to the six entries of an affine matrix."""

LEAST_CORRELATION = 0.7
"""Frames of different scenes reach 0.6; neighbours in the hardest known stacks, 0.85."""
_LARGEST_MOTION = 0.5  # half diagonals: beyond, more than a third of the frame is lost
_LEAST_CONTRAST = 0.01  # over the mean brightness: misalignment of weaker structure is invisible
_SAME_LIGHT = 0.04
"""RMS difference of light and shade, relative to the brightness, up to which a repeating texture
is taken as the same. A guess: a foreign scene beside a cloth, in the tests, has 0.2."""
_EQUALLY_GOOD = 1.1  # residual over the least one, up to which the smaller motion is preferred
_DISTINCT_PX = 3.0  # at the middle level: two motions farther apart are different matches
_TILES_AT_ONCE = 64
_NOISE_FLOOR = 1e-6  # squared, relative to the brightness: 8-bit rounding after the low-pass


@dataclass(frozen=True, eq=False)
class Motion:
    """The motion from a first frame to a second one.

    Attributes:
        matrix: (3, 3), first to second, centred coordinates.
        covariance: (P, P) of the model's parameters, from the spread between tiles.
        correlation: of the second frame with the best fit of the first, in [0, 1].
        residual: mean square error of that fit, relative to the brightness.
        still_residual: the same without motion.
        method: source of the motion; identity if the structure shows none.
    """

    matrix: Matrix
    covariance: Matrix
    correlation: float
    residual: float
    still_residual: float
    method: Method

    @property
    def is_reliable(self) -> bool:
        """Whether the two frames show the same scene."""
        return self.method == "identity" or (
            self.correlation >= LEAST_CORRELATION
            and corner_displacement(self.matrix) <= _LARGEST_MOTION
        )

    @property
    def improvement(self) -> float:
        """Share of the difference between the frames that the motion explains."""
        return 1 - self.residual / self.still_residual if self.still_residual > 0 else 0.0


def find_motion(first: Pyramid, second: Pyramid) -> Motion:
    """The similarity between two frames, from features if comparing areas fails.

    The smallest of motions that fit equally well counts: the structure of a cloth fits again
    after each of its threads. Where such a texture is blurred beyond recognition in one of the
    frames, no motion fits, and equal light and shade decide that the frames show the same.

    Returns:
        The best of all attempts; check its `is_reliable`.
    """
    motion = refine_motion(first, second)
    if motion.method == "identity":
        return motion
    if not motion.is_reliable:
        start = _match_features(first.structure(-1), second.structure(-1))
        if start is not None:
            by_features = refine_motion(first, second, start=start)
            if by_features.is_reliable or by_features.correlation > motion.correlation:
                motion = replace(by_features, method="features")
    distinct = _DISTINCT_PX / half_diagonal_px(first.levels[first.middle].shape)
    if motion.is_reliable and corner_displacement(motion.matrix) <= distinct:
        return motion
    near = refine_motion(first, second, start=np.eye(3))
    least = _EQUALLY_GOOD * motion.residual if motion.is_reliable else np.inf
    if (
        near.is_reliable
        and near.residual <= least
        and corner_displacement(near.matrix) < corner_displacement(motion.matrix)
        and corner_displacement(np.linalg.inv(near.matrix) @ motion.matrix) > distinct
    ):
        return near
    if motion.is_reliable or not (first.repeats or second.repeats):
        return motion
    difference = float(np.sqrt(np.square(first.coarse - second.coarse).mean()))
    return motion if difference > _SAME_LIGHT else _still(BASIS["similarity"])


def refine_motion(
    first: Pyramid,
    second: Pyramid,
    *,
    model: MotionModel = "similarity",
    start: Matrix | None = None,
    only_middle: bool = False,
) -> Motion:
    """Minimise the difference between two frames over the motion, from coarse to fine.

    Args:
        first: the frame where the motion starts.
        second: the frame where it ends.
        model: the motions allowed.
        start: a motion accurate to a few pixels of the middle level; skips coarser levels.
        only_middle: stop at the middle level, enough to decide whether frames match.
    """
    basis = BASIS[model]
    still = _still(basis)
    if min(first.contrast, second.contrast) < _LEAST_CONTRAST:
        return still
    matrix = np.eye(3) if start is None else start
    lowest = 0 if start is None else first.middle
    highest = first.middle + 1 if only_middle else len(first.levels)
    pairs = [_TilePair(first, second, level, basis) for level in range(lowest, highest)]
    fit: _Fit | None = None
    for pair in pairs:
        fit = pair.minimise(matrix, 4 if pair is pairs[-1] else 12)
        if fit is None or corner_displacement(fit.matrix) > _LARGEST_MOTION:
            return replace(still, method="intensity")
        matrix = fit.matrix
    assert fit is not None
    middle = pairs[first.middle - lowest].evaluate(matrix)
    unmoved = pairs[-1].evaluate(np.eye(3))
    return Motion(
        matrix=matrix,
        covariance=fit.covariance,
        correlation=middle.correlation if middle is not None else 0.0,
        residual=fit.residual,
        still_residual=unmoved.residual if unmoved is not None else fit.residual,
        method="intensity",
    )


def _still(basis: Matrix) -> Motion:
    """No motion, and nothing known of it."""
    return Motion(np.eye(3), np.eye(basis.shape[1]), 0.0, 0.0, 0.0, "identity")


def corner_displacement(matrix: Matrix) -> float:
    """Largest motion of the corners of a square frame, in half diagonals."""
    corners = np.array([[x, y, 1] for x in (-1, 1) for y in (-1, 1)]) * [0.5**0.5, 0.5**0.5, 1]
    return float(np.linalg.norm(corners @ matrix[:2].T - corners[:, :2], axis=1).max())


def half_diagonal_px(size: tuple[int, int]) -> float:
    """The unit of centred coordinates, in pixels of an image of (height, width)."""
    return float(np.hypot(*size)) / 2


def to_pixels(matrix: Matrix, size: tuple[int, int]) -> Matrix:
    """(2, 3) motion in pixels of an image of (height, width), pixel centres at halves."""
    centre = np.array([size[1], size[0]]) / 2
    linear = matrix[:2, :2]
    shift = matrix[:2, 2] * half_diagonal_px(size) + centre - linear @ centre
    return np.column_stack([linear, shift])


def warp(
    image: Plane,
    pixels: Matrix,
    size: tuple[int, int],
    *,
    interpolation: int = cv2.INTER_LINEAR,
    border: int = cv2.BORDER_REFLECT_101,
) -> Plane:
    """Resample an image through a motion.

    Args:
        image: (H, W) or (H, W, C).
        pixels: (2, 3) from the result to `image`, pixel centres at halves.
        size: (height, width) of the result.
        interpolation: OpenCV's constant.
        border: OpenCV's constant for pixels outside `image`.
    """
    # OpenCV has pixel centres at integers.
    linear = pixels[:, :2]
    shift = pixels[:, 2] + linear @ [0.5, 0.5] - 0.5
    return cv2.warpAffine(  # type: ignore[return-value]
        image,
        np.column_stack([linear, shift]),
        (size[1], size[0]),
        flags=interpolation | cv2.WARP_INVERSE_MAP,
        borderMode=border,
    )


@dataclass(frozen=True, eq=False)
class _Fit:
    """Motion at one level, and its fit to the second frame."""

    matrix: Matrix
    step: Matrix
    covariance: Matrix
    correlation: float
    residual: float


class _TilePair:
    """One level of two frames, cut into tiles that each fit a contrast, an offset and a blur.

    Gauss-Newton on  second(W x) = a first(x) + b + c laplacian(first)(x),  a, b and c eliminated
    in each tile (Schur complement), the motion W composed with the step.
    """

    def __init__(self, frame: Pyramid, other: Pyramid, level: int, basis: Matrix) -> None:
        first, self.second = frame.structure(level), other.structure(level)
        self.first_shown, self.second_shown = frame.shown(level), other.shown(level)
        self.basis = basis
        parameters = basis.shape[1]
        self.reduction = np.zeros((6 + 4, parameters + 4))
        self.reduction[:6, :parameters] = basis
        self.reduction[6:, parameters:] = np.eye(4)
        self.size = height, width = first.shape
        self.unit_px = half_diagonal_px(self.size)
        self.tile = min(TILE_PX, height, width)
        rows, columns = height // self.tile * self.tile, width // self.tile * self.tile
        top, left = (height - rows) // 2, (width - columns) // 2
        self.window = np.s_[top : top + rows, left : left + columns]
        self.x, self.y = (self._in_tiles(one) for one in _positions(self.size))
        # Half, because the mean of both frames' gradients counts; derivatives by centred shifts.
        self.slope_scale = 0.5 * self.unit_px / 32
        self.slopes = [self._in_tiles(slope) for slope in _slopes(first, self.slope_scale)]
        laplacian: Plane = cv2.Laplacian(first, cv2.CV_32F)  # type: ignore[assignment]
        self.nuisances = [
            self._in_tiles(image) for image in (first, np.ones_like(first), laplacian)
        ]
        # Reused, and small enough for a cache: allocating it costs more than the computation.
        self.columns = np.empty((_TILES_AT_ONCE, 6 + 3 + 1, self.tile**2), np.float32)

    def minimise(self, matrix: Matrix, iterations: int) -> _Fit | None:
        """Improve a motion until its steps are below 0.01 px; None if the frames lose overlap."""
        fit = None
        for _ in range(iterations):
            fit = self.evaluate(matrix)
            if fit is None:
                return None
            matrix = matrix @ fit.step
            if corner_displacement(fit.step) * self.unit_px < 0.01:
                break
        return fit if fit is None else replace(fit, matrix=matrix)

    def evaluate(self, matrix: Matrix) -> _Fit | None:
        """Fit of a motion and the step that improves it; None if the frames lose overlap."""
        moments, counts = self._moments(matrix)
        overlapping = counts > self.tile**2 / 2
        if not overlapping.any():
            return None
        moments, counts = moments[overlapping], counts[overlapping]
        hessians, gradients, residuals = _eliminate(moments, self.basis.shape[1])
        totals = moments[:, -1, -1]
        weights = 1 / (residuals / counts + _NOISE_FLOOR)
        hessian = np.einsum("n,nij->ij", weights, hessians)
        gradients = weights[:, None] * gradients
        # The ridge keeps frames solvable whose structure runs in one direction only.
        ridge = 1e-9 * np.trace(hessian) + 1e-12
        inverse = np.linalg.inv(hessian + ridge * np.eye(len(hessian)))
        step = np.eye(3)
        step[:2] += (self.basis @ (-inverse @ gradients.sum(0))).reshape(2, 3)
        explained = 1 - float(residuals.sum()) / max(float(totals.sum()), 1e-12)
        return _Fit(
            matrix=matrix,
            step=step,
            covariance=inverse @ (gradients.T @ gradients) @ inverse,
            correlation=float(np.sqrt(max(explained, 0))),
            residual=float(residuals.sum() / counts.sum()),
        )

    def _moments(self, matrix: Matrix) -> tuple[Matrix, Matrix]:
        """Products of all columns of the least-squares problem, summed per tile, and pixel counts.

        Columns: derivatives by the six entries of an affine matrix, then reduced to the P
        parameters; the three nuisances; the second frame.
        """
        pixels = to_pixels(matrix, self.size)
        moved = warp(self.second, pixels, self.size)
        inside = warp(self.second_shown, pixels, self.size, border=cv2.BORDER_CONSTANT)
        shown = self._in_tiles(self.first_shown * (inside > 0.999))
        # The mean of both slopes: noise of a single one would bias the scale.
        slopes = [
            slope + self._in_tiles(other)
            for slope, other in zip(self.slopes, _slopes(moved, self.slope_scale), strict=True)
        ]
        images = (*self.nuisances, self._in_tiles(moved))
        moments = np.empty((len(shown), 10, 10))
        for start in range(0, len(shown), _TILES_AT_ONCE):
            some = slice(start, start + _TILES_AT_ONCE)
            columns = self.columns[: len(shown[some])]
            for k, slope in enumerate(slopes):
                by_x, by_y, by_shift = (columns[:, 3 * k + i] for i in range(3))
                np.multiply(slope[some], shown[some], out=by_shift)
                np.multiply(by_shift, self.x[some], out=by_x)
                np.multiply(by_shift, self.y[some], out=by_y)
            for k, image in enumerate(images):
                np.multiply(image[some], shown[some], out=columns[:, 6 + k])
            tensor = torch.from_numpy(columns)
            moments[some] = torch.bmm(tensor, tensor.mT).numpy()  # twice as fast as NumPy's
        return self.reduction.T @ moments @ self.reduction, moments[:, 7, 7]

    def _in_tiles(self, image: Plane) -> Plane:
        """The window of an image, as (tiles, pixels of a tile)."""
        image = image[self.window]
        rows, columns = image.shape
        shape = rows // self.tile, self.tile, columns // self.tile, self.tile
        return image.reshape(shape).transpose(0, 2, 1, 3).reshape(-1, self.tile**2)


@lru_cache(maxsize=16)
def _positions(size: tuple[int, int]) -> tuple[Plane, Plane]:
    """x and y (H, W) of all pixels in half diagonals from the centre."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    unit_px = half_diagonal_px(size)
    return (x + 0.5 - width / 2) / unit_px, (y + 0.5 - height / 2) / unit_px


def _eliminate(moments: Matrix, count: int) -> tuple[Matrix, Matrix, Matrix]:
    """Hessian (n, P, P), gradient (n, P) and residual (n,) with the nuisances of tiles fitted."""
    kept = [*range(count), moments.shape[1] - 1]
    nuisance = slice(count, count + 3)
    block = moments[:, nuisance, nuisance]
    scale = np.sqrt(np.einsum("nii->ni", block)) + 1e-9
    # The ridge assumes equal blur where a tile is too smooth to measure it.
    block = block / (scale[:, :, None] * scale[:, None, :]) + 1e-4 * np.eye(3)
    mixed = moments[:, nuisance][:, :, kept] / scale[:, :, None]
    reduced = moments[:, kept][:, :, kept] - mixed.transpose(0, 2, 1) @ np.linalg.solve(
        block, mixed
    )
    return reduced[:, :-1, :-1], reduced[:, :-1, -1], np.maximum(reduced[:, -1, -1], 0)


def _slopes(image: Plane, scale: float) -> tuple[Plane, Plane]:
    """Responses to Scharr's filters along x and y, which have a gain of 32, times a scale."""
    return (
        cv2.Scharr(image, cv2.CV_32F, 1, 0, scale=scale),  # type: ignore[return-value]
        cv2.Scharr(image, cv2.CV_32F, 0, 1, scale=scale),
    )


def _match_features(first: Plane, second: Plane) -> Matrix | None:
    """The similarity supported by most SIFT matches, centred coordinates, or None."""
    sift = cv2.SIFT_create(nfeatures=2000)  # type: ignore[attr-defined]
    points, descriptors = [], []
    for image in (first, second):
        grey = np.clip(128 + 40 * image / max(float(image.std()), 1e-6), 0, 255).astype(np.uint8)
        keys, described = sift.detectAndCompute(grey, None)
        if described is None or len(keys) < 2:
            return None
        found = np.array([key.pt for key in keys]) + 0.5
        centre = np.array([image.shape[1], image.shape[0]]) / 2
        points.append((found - centre) / half_diagonal_px(image.shape))
        descriptors.append(described)
    pairs = cv2.BFMatcher().knnMatch(descriptors[0], descriptors[1], k=2)
    good = [best for best, other in pairs if best.distance < 0.75 * other.distance]
    if len(good) < 8:
        return None
    three_px = 3 / half_diagonal_px(first.shape)
    affine, inliers = cv2.estimateAffinePartial2D(
        points[0][[match.queryIdx for match in good]],
        points[1][[match.trainIdx for match in good]],
        ransacReprojThreshold=three_px,
    )
    if affine is None or inliers.sum() < 8:
        return None
    return np.vstack([affine, [0, 0, 1]])
