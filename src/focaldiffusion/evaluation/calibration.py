"""Relative error of depth against confidence.

_Pixels of equal confidence count alike: a boundary inside a tie takes the mean over all orders of
the tie. Depth and truth are as in `metrics.depth_metrics`; a missing prediction has relative
error 1. Confidence is (H, W), higher is surer, without NaN where `valid`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.errors import check_shape
from focaldiffusion.evaluation.metrics import valid_pixels

_Pixels = NDArray[np.float64]


class Decile(NamedTuple):
    """A tenth of the valid pixels of one image, chosen by confidence."""

    mean_confidence: float
    abs_rel: float
    share: float
    """Share of the valid pixels."""


def abs_rel_confident(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor, confidence: Tensor, share: float = 0.5
) -> float:
    """`abs_rel` of the most confident share of the valid pixels; of all if confidence is constant.

    Args:
        prediction_m: as in `metrics.depth_metrics`.
        truth_m: as in `metrics.depth_metrics`.
        valid: as in `metrics.depth_metrics`.
        confidence: (H, W).
        share: in (0, 1].

    Raises:
        InputError: as `metrics.depth_metrics`.
        ValueError: `share` out of range, or NaN confidence.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected 0 < share <= 1")
    error, sureness = _error_and_confidence(prediction_m, truth_m, valid, confidence)
    places = share * len(error)
    (total,) = _sums_of_surest([error], sureness, places)
    return float(total / places)


def ause(prediction_m: Tensor, truth_m: Tensor, valid: Tensor, confidence: Tensor) -> float:
    """Area under the sparsification error curve of AbsRel (Ilg et al. 2018, arXiv 1802.07095).

    The curve is the AbsRel of the most confident share of pixels minus the AbsRel of the most
    accurate share (the oracle), for shares from one pixel to all; the area is its mean. Zero if
    confidence ranks pixels exactly by their error.

    Arguments and errors are those of `abs_rel_confident`.
    """
    error, sureness = _error_and_confidence(prediction_m, truth_m, valid, confidence)
    places = np.arange(1, len(error) + 1, dtype=np.float64)
    (by_confidence,) = _sums_of_surest([error], sureness, places)
    return float(((by_confidence - np.sort(error).cumsum()) / places).mean())


def deciles(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor, confidence: Tensor
) -> list[Decile]:
    """Error by confidence: ten tenths of the valid pixels, the least confident first.

    A pixel on a boundary is split between both sides.

    Arguments and errors are those of `abs_rel_confident`.
    """
    error, sureness = _error_and_confidence(prediction_m, truth_m, valid, confidence)
    places = np.linspace(0, len(error), 11)
    means = np.diff(_sums_of_surest([sureness, error], sureness, places)) / np.diff(places)
    return [Decile(mean, abs_rel, 0.1) for mean, abs_rel in means.T[::-1].tolist()]


def _error_and_confidence(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor, confidence: Tensor
) -> tuple[_Pixels, _Pixels]:
    """Relative error and confidence of the valid pixels, (P,)."""
    prediction, truth = valid_pixels(prediction_m, truth_m, valid)
    check_shape("confidence", confidence, valid.shape)
    sureness = confidence[valid].double()
    if sureness.isnan().any():
        raise ValueError("confidence is NaN at valid pixels")
    return ((prediction - truth).abs() / truth).cpu().numpy(), sureness.cpu().numpy()


def _sums_of_surest(
    columns: Sequence[_Pixels], sureness: _Pixels, places: float | _Pixels
) -> _Pixels:
    """Sum of each (P,) column over the n surest pixels, for each n of places (K,): (columns, K).

    Inside a tie, or a pixel, the sum is interpolated linearly between its two ends.
    """
    order = np.argsort(-sureness)
    ranked = sureness[order]
    ends = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True)) + 1
    knots = np.append(0, ends)
    sums = (np.append(0.0, column[order].cumsum()[ends - 1]) for column in columns)
    return np.stack([np.interp(places, knots, sums_at_knots) for sums_at_knots in sums])
