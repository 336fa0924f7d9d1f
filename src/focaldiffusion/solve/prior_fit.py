"""A prior on the axis of a stack: its steps on the image's edges, its scale that of sure physics.

A monocular network knows the shape of a scene, but neither its scale nor where exactly edges lie.

1. `steps_on_edges`: near a depth step the prior is blurred and shifted, so there it is replaced by
   its surroundings on the same side of the image's edges.
2. `fitted`: one scale and one shift for the image, such that most regions in which physics is sure
   agree, regions and not pixels, for a network errs by whole objects. The sweep votes too: it
   usually covers the scene.
3. `bent`: a curve over its values brings it closer to sure physics, for its scale is not the same
   near and far.
4. `corrected`: where physics is sure, its ratio to the prior is known. A screened Poisson equation
   spreads the logarithm of that ratio within surfaces, and it fades to nothing far from what is
   known. So the gradient of the prior, times a smooth scale, remains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.solve.complete import smooth
from focaldiffusion.solve.segments import colour_gradient

Array = NDArray[Any]

_EDGE_PX = 7  # window in which a step makes the prior unsure
_EDGE_STEP = 0.08  # of the range of the prior, which does
_LARGE_STEP = 0.5  # of the same range, from which all steps count alike
_FEW_STEPS = 2000  # pixels beside steps, an outline of about 300 px, that may lie there by chance
_TEXTURED = 0.9  # mean rank of edges, here and at mirrored steps, from which they are everywhere
_SMOOTH = 1e-9  # share of the square that a quadric leaves, which is rounding
_IMAGE_SMOOTHING_PX = 1.0
_IMAGE_EDGE = 2.0  # weight of the image among the channels that stop the filling
_SIDE_PX = 7  # window in which only the nearer side of a step is compared with physics
_RANGE = (0.03, 0.97)  # quantiles that the sweep covers
_CELLS = 4  # regions are cut at a grid of this number of cells on the long side
_SMALLEST = 0.001  # share of the image, of a region that votes
_UNSURE = 0.03  # vote of a region without sure pixels, next to one with many
_HALF_SURE = 0.05  # mean sureness of a region that is worth half a vote
_TOLERATED = 0.2  # relative difference at which a vote counts half
_TOLERATED_SPAN = 0.02  # the same, of the range of focus
_SWEEP_TOLERATED = 0.5
_SWEEP_SPAN = 0.05
_SWEEP_VOTES = 0.2  # of all votes, for each end of the sweep
_MOST_REGIONS = 40  # two at a time propose a fit
_ROUNDS = 8
_MOST_FITS = 5
_LIKELY = 0.6  # of the votes of the best fit, from which another is worth a try ...
_OTHER_SCALE = 0.15  # ... if its scale differs by this share of that which spans the sweep
_PREDICTED = 0.1  # relative error of a prediction that counts 1 ...
_MOST_WRONG = 5.0  # ... and the most that any counts
_FLAT = 0.2  # mean error without a prior, up to which there is nothing to predict
_BINS = 16  # of the prior's range, over which a curve is smooth ...
_SMOOTH_BINS = 2.0  # ... within this standard deviation
_BENT_LOG = 0.15  # difference from the curve at which a ratio counts half
_BENT_ROUNDS = 3
_KNOWN_PIXELS = 0.5  # sure ones that are worth as much as none
_PRIOR_EDGE = 3.0  # weight of the prior's logarithm, whose steps stop smoothing
_LARGEST_LOG = 1.0  # of a ratio to the prior
_OUTLIER_LOG = 0.1  # difference from its surroundings, from which a known ratio counts little
_FAINT = 1e-3  # sureness that is worth as much as none, see `smooth`


@dataclass(frozen=True, eq=False)
class Regions:
    """Medians over regions in which a prior can be compared with physics, R in number.

    Attributes:
        prior: (R,) shape.
        level: (R,) what physics says.
        weight: (R,) votes.
        sure: (R,) those of them from sure pixels.
        cell: (R,) cell of a coarse grid.
    """

    prior: Array
    level: Array
    weight: Array
    sure: Array
    cell: Array

    @classmethod
    def of(cls, segments: Array, shape: Array, level: Array, sure: Array) -> Regions:
        """Gather the pixels (H, W) of segments, cut at a grid."""
        height, width = shape.shape
        side = -(-max(height, width) // _CELLS)
        y, x = np.mgrid[:height, :width] // side
        cells = y * _CELLS + x
        _, index = np.unique(segments * _CELLS**2 + cells, return_inverse=True)
        index = index.ravel()
        size = np.bincount(index)
        weight = sure + 1e-4

        def mean(field: Array) -> Array:
            total = np.bincount(index, (weight * field).ravel())
            return total / np.bincount(index, weight.ravel())

        known = np.bincount(index, sure.ravel())
        known = known / (known + _HALF_SURE * size + 1)
        area = (size / size.sum()) ** 0.75
        cell = np.zeros(len(size), int)
        cell[index] = cells.ravel()
        large = size >= _SMALLEST * size.sum()
        fields = mean(shape), mean(level), area * (known + _UNSURE), area * known, cell
        return cls(*(field[large] for field in fields))


@dataclass(frozen=True)
class Fit:
    """Scale and shift of a prior, and the share of votes that agree."""

    scale: float
    shift: float
    agreed: float

    def applied(self, shape: Array) -> Array:
        """The shape on the axis of physics."""
        return self.scale * shape + self.shift


def steps_on_edges(shape: Array, guide: Tensor) -> Array:
    """The prior (H, W) with its depth steps at the edges of the guide (3, H, W)."""
    certain = 1 / (1 + (_steps(shape) / _EDGE_STEP) ** 4)
    values, certainty = (torch.from_numpy(np.float32(field))[None] for field in (shape, certain))
    return smooth(values, certainty, _IMAGE_EDGE * guide.cpu()[None])[0].numpy()


def edges_at_steps(shape: Array, known: Array, guide: Tensor) -> float | None:
    """How much stronger edges of the image are at the depth steps of a prior than at mirrored ones.

    The depth of another image has its steps anywhere. Edges are ranked: contrast does not count.

    Args:
        shape: (H, W) the prior.
        known: (H, W) bool, where it is known.
        guide: (3, H, W) sRGB.

    Returns:
        Difference of mean ranks in [0, 1] to the best of three mirror images. None with few steps,
        or where the image has edges everywhere.
    """
    kernel, around = (np.ones((side, side), np.uint8) for side in (_EDGE_PX, 2 * _EDGE_PX + 1))
    step = np.minimum(_steps(shape), _LARGE_STEP)
    step -= cv2.erode(step, around)  # a slope is as steep all around
    weight = step * (step > _EDGE_STEP) * cv2.erode(known.astype(np.uint8), kernel)
    if np.count_nonzero(weight) < _FEW_STEPS:
        return None
    image = np.ascontiguousarray(guide.permute(1, 2, 0).cpu().numpy())
    edges = colour_gradient(cv2.GaussianBlur(image, (0, 0), _IMAGE_SMOOTHING_PX))
    rank = np.searchsorted(np.sort(edges.ravel()), edges) / edges.size
    near = cv2.dilate(np.float32(rank), kernel)
    here, *mirrored = (
        np.average(near[::down, ::across], weights=weight) for down in (1, -1) for across in (1, -1)
    )
    elsewhere = max(mirrored)
    return None if min(here, elsewhere) > _TEXTURED else float(here - elsewhere)


def beyond_quadric(fitted: Array, level: Array, sure: Array) -> float:
    """Correlation of a prior with sure physics, beyond quadrics of the image's coordinates.

    A slope, a bowl or a blurred field predicts a floor or a hall by chance: it is as smooth. The
    best quadric is subtracted from the logarithms of both.

    Args:
        fitted: (H, W) the fitted prior, positive.
        level: (H, W) physics, positive.
        sure: (H, W) in [0, 1].

    Returns:
        In [-1, 1]; 0 where either is a quadric, or nothing is sure.
    """
    y, x = (np.linspace(-1, 1, side) for side in level.shape)
    x, y = (field.ravel() for field in np.meshgrid(x, y))
    root = np.sqrt(sure.ravel())
    quadric = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], 1) * root[:, None]
    logs = np.log(np.stack([fitted.ravel(), level.ravel()], 1)) * root[:, None]
    rest = logs - quadric @ np.linalg.lstsq(quadric, logs, rcond=None)[0]
    moved, known = np.sum(rest**2, 0) > _SMOOTH * np.sum(logs**2, 0)
    if not (moved and known):
        return 0.0
    return float(np.sum(np.prod(rest, 1)) / np.sqrt(np.prod(np.sum(rest**2, 0))))


def _steps(shape: Array) -> Array:
    """(H, W) largest difference in a window, relative to the range of the prior."""
    plane, kernel = np.float32(shape), np.ones((_EDGE_PX, _EDGE_PX), np.uint8)
    return (cv2.dilate(plane, kernel) - cv2.erode(plane, kernel)) / _spread(plane)


def nearer_side(shape: Array) -> Array:
    """(H, W) in [0, 1], low where something nearer is close by, to which evidence belongs."""
    plane = np.float32(shape)
    above = (cv2.dilate(plane, np.ones((_SIDE_PX, _SIDE_PX), np.uint8)) - plane) / _spread(plane)
    return 1 / (1 + (above / _EDGE_STEP) ** 4)


def _spread(plane: Array) -> float:
    low, high = np.quantile(plane, _RANGE)
    return max(float(high - low), 1e-9)


def likely_fits(regions: Regions, shape: Array, near: float, far: float) -> list[Fit]:
    """Scales and shifts with which many regions agree, best first, each clearly another one.

    Args:
        regions: the votes.
        shape: (H, W) the prior, larger where nearer.
        near: coordinate of the near end of the sweep.
        far: that of its far end.
    """
    span, spread, ends = near - far, _spread(shape), np.array([far, near])
    prior = np.append(regions.prior, np.quantile(shape, _RANGE))
    level = np.append(regions.level, ends)
    votes = max(float(regions.weight.sum()), 1e-6)
    weight = np.append(regions.weight, np.full(2, _SWEEP_VOTES * votes))
    tolerance = np.hypot(_TOLERATED_SPAN * span, _TOLERATED * level)
    tolerance[-2:] = np.hypot(_SWEEP_SPAN * span, _SWEEP_TOLERATED * ends)
    # Any two regions propose a fit, and a region alone proposes a flat one.
    top = weight.argsort()[::-1][:_MOST_REGIONS]
    first, second = (top[one] for one in np.triu_indices(len(top), 1))
    run = prior[first] - prior[second]
    apart = np.abs(run) > 1e-3 * spread
    scale = (level[first] - level[second])[apart] / run[apart]
    first, scale = np.append(first[apart], top), np.append(scale.clip(0), np.zeros(len(top)))
    shift = level[first] - scale * prior[first]
    off = (level - scale[:, None] * prior - shift[:, None]) / tolerance
    agreed = (weight / (1 + off**2)).sum(1) / weight.sum()
    fits: list[Fit] = []
    for index in agreed.argsort()[::-1]:
        like = [abs(scale[index] - fit.scale) < _OTHER_SCALE * span / spread for fit in fits]
        if agreed[index] < _LIKELY * agreed.max() or len(fits) == _MOST_FITS:
            break
        if not any(like):
            a, b = float(scale[index]), float(shift[index])
            for _ in range(_ROUNDS):
                off = (level - a * prior - b) / tolerance
                trusted = weight / tolerance**2 / (1 + off**2) ** 2
                b = float((trusted * (level - a * prior)).sum() / trusted.sum())
            fits.append(Fit(a, b, float(agreed[index])))
    return fits


def predicts(regions: Regions, fit: Fit, near: float, far: float) -> float:
    """Error of predicting sure physics from the rest of the image, with the prior and without it.

    Each cell of a coarse grid is predicted from all others, which give the shift.

    Args:
        regions: the votes.
        fit: gives the scale; without the prior, it is 0.
        near: see `likely_fits`.
        far: see `likely_fits`.

    Returns:
        The error with the prior over that without it: 0 is perfect, 1 no help. 1 if there is
        nothing to predict.
    """
    errors = [0.0, 0.0]
    tolerance = np.hypot(_TOLERATED_SPAN * (near - far), _PREDICTED * regions.level)
    for cell in np.unique(regions.cell):
        here = regions.cell == cell
        if not (regions.sure[~here].any() and regions.sure[here].any()):
            continue
        for index, scale in enumerate((fit.scale, 0.0)):
            rest = regions.level - scale * regions.prior
            off = (rest - _median(rest[~here], regions.sure[~here]))[here] / tolerance[here]
            errors[index] += float((regions.sure[here] * np.abs(off).clip(None, _MOST_WRONG)).sum())
    is_flat = errors[1] <= _FLAT * regions.sure.sum()
    return 1.0 if is_flat else errors[0] / errors[1]


def _median(values: Array, weights: Array) -> float:
    order = values.argsort()
    total = weights[order].cumsum()
    return float(values[order][np.searchsorted(total, total[-1] / 2)])


def bent(shape: Array, level: Array, sure: Array) -> Array:
    """The fitted prior after the rising curve of its values that brings it to sure physics.

    A network's scale is not the same near and far. The logarithm of the ratio of physics to the
    prior is smoothed over the values of the prior, robustly, wherever they are in the image.

    Args:
        shape: (H, W) the fitted prior, positive.
        level: (H, W) physics, positive.
        sure: (H, W) in [0, 1].
    """
    ratio, root = np.log(level / shape), np.sqrt(shape)  # a scale between those of near and far
    low, high = np.quantile(root, (0.01, 0.99))
    place = ((root - low) / max(float(high - low), 1e-9)).clip(0, 1)
    index = np.minimum(place * _BINS, _BINS - 1).astype(int).ravel()
    centres = (np.arange(_BINS) + 0.5) / _BINS
    near = np.exp(-0.5 * (np.subtract.outer(centres, centres) * _BINS / _SMOOTH_BINS) ** 2)
    curve = np.zeros(_BINS)
    for _ in range(_BENT_ROUNDS):
        rest = (ratio - np.interp(place, centres, curve)).clip(-_LARGEST_LOG, _LARGEST_LOG)
        trusted = sure / (1 + (rest / _BENT_LOG) ** 2)
        known = near @ np.bincount(index, trusted.ravel(), minlength=_BINS)
        total = near @ np.bincount(index, (trusted * rest).ravel(), minlength=_BINS)
        curve += total / (known + _KNOWN_PIXELS)
    # A curve that falls would make sense of a prior that is wrong about near and far.
    values = 2 * np.log(low + centres * (high - low))
    rising, falling = values + curve, (values + curve)[::-1]
    curve = (np.maximum.accumulate(rising) + np.minimum.accumulate(falling)[::-1]) / 2 - values
    return shape * np.exp(np.interp(place, centres, curve))


def corrected(shape: Array, level: Array, sure: Array) -> Array:
    """The fitted prior, moved to physics where that is sure, and smoothly so around.

    min_r Σ W (r - log(level / shape))² + λ Σ a |∇r|², and the result is shape · exp(r).

    Args:
        shape: (H, W) the fitted prior, positive.
        level: (H, W) physics, positive.
        sure: (H, W) in [0, 1], W; a falls with the gradient of the prior.
    """
    ratio = np.log(level / shape)
    steps = torch.from_numpy(np.float32(_PRIOR_EDGE * np.log(shape)))[None]
    smoothed = _spread_out(ratio, sure, steps)
    # Physics is wrong beside outlines now and then: what stands out counts less the second time.
    trusted = sure / (1 + ((ratio - smoothed) / _OUTLIER_LOG) ** 2) ** 2
    return shape * np.exp(_spread_out(ratio, trusted, steps))


def _spread_out(ratio: Array, sure: Array, channels: Tensor) -> Array:
    """A logarithm (h, w) known where sure, smooth elsewhere, and 0 far away."""
    known = ratio.clip(-_LARGEST_LOG, _LARGEST_LOG) * sure / (sure + _FAINT)
    values, certainty = (torch.from_numpy(np.float32(field))[None] for field in (known, sure))
    return smooth(values, certainty, channels[None])[0].numpy()
