"""Priors simulated from the truth, distorted as monocular networks err.

`simulated` distorts the true inverse depth, in this order: things thinner than a few pixels vanish,
a tenth of the surfaces is wrong by a factor of two, a smooth field bends the rest, a monotone curve
bends all, edges are shifted and blurred, and scale and shift are lost. Everything follows from a
seed. They augment training and serve benchmarks; no reconstruction ever sees one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.optics import inverse_m
from focaldiffusion.prior import Prior, PriorKind

Array = NDArray[Any]

_STEP = 1.08  # ratio of depths of neighbouring pixels on two surfaces
_SMALLEST = 0.002  # share of the image, of a surface that can be wrong as a whole ...
_LARGEST = 0.25  # ... and of the largest: wrong beyond that, it would be the rest that is wrong
_FIELD_KNOTS = 4  # per side, of the smooth field
_DEPTH_OFFSET = 0.3  # b of affine depth a z + b, relative to the median depth


@dataclass(frozen=True)
class Distortion:
    """Strength of each error of a network.

    Attributes:
        thin_px: things of this width and less are missing.
        wrong_share: share of the surfaces that are nearer or farther by a factor of two.
        field: largest relative error of a smooth field.
        curve: largest logarithm of the exponent of a monotone curve.
        shift_px: shift of edges, in any direction.
        blur_px: standard deviation of the blur of edges.
    """

    thin_px: float = 5.0
    wrong_share: float = 0.1
    field: float = 0.15
    curve: float = 0.3
    shift_px: float = 2.0
    blur_px: float = 3.0

    def times(self, strength: float) -> Distortion:
        """Every error made stronger by a factor."""
        return replace(
            self, **{one.name: strength * getattr(self, one.name) for one in fields(self)}
        )

    def without(self, name: str) -> Distortion:
        """Without one of the errors."""
        return replace(self, **{name: 0.0})


def simulated(
    depth_m: Tensor,
    valid: Tensor,
    seed: int,
    distortion: Distortion | None = None,
    kind: PriorKind = PriorKind.AFFINE_INVERSE_DEPTH,
) -> Prior:
    """The truth (H, W) of an image as a network would see it.

    Args:
        depth_m: metres; anything where not valid.
        valid: bool.
        seed: all errors follow from it.
        distortion: strength of the errors; None for the usual one.
        kind: scale of the prior.
    """
    errors = distortion or Distortion()
    draw = np.random.default_rng(seed)
    inverse = true_dpt(depth_m, valid)
    if (width := round(errors.thin_px)) > 1:
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        inverse = cv2.morphologyEx(inverse, cv2.MORPH_OPEN, disc)
    inverse = inverse * _wrong_surfaces(inverse, errors.wrong_share, draw)
    inverse = inverse * np.exp(errors.field * _smooth_field(inverse.shape, draw))
    inverse = _bent(inverse, np.exp(draw.uniform(-errors.curve, errors.curve)))
    inverse = _with_soft_edges(inverse, errors, draw)
    scale, offset = np.exp(draw.uniform(-1, 1)), draw.uniform(0, 1)
    if kind is PriorKind.AFFINE_INVERSE_DEPTH:
        values = scale * inverse + offset
    else:
        values = 1 / np.maximum(inverse, 1e-3)
        if kind is PriorKind.AFFINE_DEPTH:
            values = scale * (values + _DEPTH_OFFSET * np.median(values))
    return Prior(torch.from_numpy(np.float32(values)), kind, f"simulated, seed {seed}")


def true_dpt(depth_m: Tensor, valid: Tensor) -> Array:
    """Inverse depth (H, W) of a truth; where that is unknown, of the nearest known pixel."""
    known = (valid & (depth_m > 0)).numpy()
    return _nearest(inverse_m(depth_m.double()).numpy(), known)


def _nearest(field: Array, known: Array) -> Array:
    """A field (H, W) in which unknown pixels have the value of the nearest known one."""
    _, label = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.zeros(label.max() + 1, field.dtype)
    value_of[label[known]] = field[known]
    return value_of[label]


def _surfaces(inverse: Array) -> Array:
    """(H, W) index of the surface of each pixel, from 1; 0 at depth steps."""
    log, kernel = np.log(inverse.clip(1e-3)), np.ones((3, 3), np.uint8)
    steps = cv2.dilate(log, kernel) - cv2.erode(log, kernel) > np.log(_STEP)
    _, index = cv2.connectedComponents((~steps).astype(np.uint8), connectivity=4)
    return index


def _wrong_surfaces(inverse: Array, share: float, draw: np.random.Generator) -> Array:
    """(H, W) factor, 1/2 or 2 on a share of the surfaces, at least on one."""
    result = np.ones(inverse.shape)
    index = _surfaces(inverse)
    sizes = np.bincount(index.ravel()) / index.size
    sizes[0] = 0
    able = np.flatnonzero((sizes >= _SMALLEST) & (sizes <= _LARGEST))
    if share <= 0 or not len(able):
        return result
    count = max(1, round(min(share, 1.0) * len(able)))
    whole = _nearest(index, index > 0)
    for surface in draw.choice(able, count, replace=False):
        result[whole == surface] = draw.choice([0.5, 2.0])
    return result


def _smooth_field(size: tuple[int, ...], draw: np.random.Generator) -> Array:
    """(H, W) in [-1, 1]."""
    knots = draw.uniform(-1, 1, (_FIELD_KNOTS, _FIELD_KNOTS))
    field = cv2.resize(knots, size[::-1], interpolation=cv2.INTER_CUBIC)
    return field / np.abs(field).max()


def _bent(inverse: Array, exponent: float) -> Array:
    """A monotone curve over the range of values."""
    low, high = inverse.min(), inverse.max()
    span = max(high - low, 1e-6)
    return low + span * ((inverse - low) / span) ** exponent


def _with_soft_edges(inverse: Array, errors: Distortion, draw: np.random.Generator) -> Array:
    angle = draw.uniform(0, 2 * np.pi)
    move = errors.shift_px * np.array([np.cos(angle), np.sin(angle)])
    matrix = np.column_stack([np.eye(2), move])
    moved = cv2.warpAffine(
        np.float32(inverse), matrix, inverse.shape[::-1], borderMode=cv2.BORDER_REPLICATE
    )
    if errors.blur_px > 0:
        moved = cv2.GaussianBlur(moved, (0, 0), errors.blur_px)
    return moved
