"""Odds that a joined surface is nearer to the truth than physics, pixel by pixel.

Physics is wrong where it had to guess, a network about whole objects or smoothly over the image, and
neither says so. What tells them apart is weak by itself: how sure physics is of a pixel and of its
segment, how well the frames are reproduced around the segment with either surface, how far apart the
two are, and how well the prior predicts sure physics elsewhere. A logistic regression weighs these.
Its weights were fitted by `benchmarks/prior_odds.py`, to the error of the blended depth of
path-traced scenes with simulated priors, hostile ones included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_NOISE = 0.8  # share of the median squared residual that is subtracted
_BAND_PX = 15  # window around a pixel in which a residual counts
_LEAST_SURE = 1e-3
_LEAST_APART = 0.02  # logarithm


@dataclass(frozen=True, eq=False)
class Signs:
    """Signs of which of two surfaces is right; fields are (h, w).

    Attributes:
        segments: index of each pixel's segment, from 0 without gaps.
        sure: in [0, 1], how sure physics is.
        confidence: in [0, 1], trust in the surface of physics.
        apart: logarithm of the joined surface over that of physics, on an axis that is larger where
            nearer.
        physics_excess: residual of re-rendering with physics; None if nothing can be rendered.
        joined_excess: the same with the joined surface.
        predicts: see `prior_fit.predicts`.
    """

    segments: Array
    sure: Array
    confidence: Array
    apart: Array
    physics_excess: Array | None
    joined_excess: Array | None
    predicts: float
