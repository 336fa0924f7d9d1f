"""Accuracy of metric depth: one function for each metric.

Depth is metric and not aligned to the truth, unless the caller passes it through `aligned` first.
Every metric takes (H, W) metres and covers the `valid` pixels of one image; the caller averages
over images. A prediction that is NaN, infinite or not positive is *missing*: it counts as depth 0
(relative error 1, delta false), except in metrics of log depth, which cover the predicted pixels
only. `coverage` is the share of predicted pixels. Everything is computed in float64.

Confidence is (H, W), higher is surer, without NaN where `valid`. Pixels of equal confidence count
alike: a boundary inside a tie takes the mean over all orders of the tie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.errors import InputError, check_shape

_Plane = NDArray[np.float64]
_Pixels = NDArray[np.float64]

DELTA_THRESHOLDS = {
    "delta_1.05": 1.05,
    "delta_1.15": 1.15,
    "delta_1.25": 1.25,
    "delta_1.25^2": 1.25**2,
    "delta_1.25^3": 1.25**3,
}

Alignment = Literal["scale", "scale_shift", "disparity_scale", "disparity_scale_shift"]
"""Quantities fitted to the truth, in depth or in its inverse."""


class Decile(NamedTuple):
    """A tenth of the valid pixels of one image, chosen by confidence."""

    mean_confidence: float
    abs_rel: float
    share: float
    """Share of the valid pixels."""


def depth_metrics(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> dict[str, float]:
    """Every depth metric of one image.

    Args:
        prediction_m: (H, W) metres; NaN, infinite or not positive is missing.
        truth_m: (H, W) metres, finite and positive where `valid`.
        valid: (H, W) bool, the pixels that count.

    Returns:
        abs_rel, sq_rel, mse, rmse, rmse_log, silog, the keys of `DELTA_THRESHOLDS`, coverage.

    Raises:
        InputError: no valid pixel, or truth that is not positive and finite there.
    """
    maps = prediction_m, truth_m, valid
    return {
        "abs_rel": abs_rel(*maps),
        "sq_rel": sq_rel(*maps),
        "mse": mse(*maps),
        "rmse": rmse(*maps),
        "rmse_log": rmse_log(*maps),
        "silog": silog(*maps),
        **{name: delta(*maps, threshold) for name, threshold in DELTA_THRESHOLDS.items()},
        "coverage": coverage(*maps),
    }


def abs_rel(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Mean of |p - z| / z (Eigen et al. 2014); arguments as in `depth_metrics`."""
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    return ((prediction - truth).abs() / truth).mean().item()


def abs_rel_untextured(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor, entropy: Tensor
) -> float:
    """`abs_rel` of the third of the valid pixels with the weakest evidence from defocus.

    Args:
        prediction_m, truth_m, valid: as in `depth_metrics`.
        entropy: (H, W) of `Evidence`, the same for every compared model. Ties with the last pixel
            of the third all count.
    """
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    check_shape("entropy", entropy, truth_m.shape)
    flatness = entropy[valid]
    third = math.ceil(len(flatness) / 3)
    counted = flatness >= flatness.topk(third).values[-1]
    return ((prediction - truth).abs() / truth)[counted].mean().item()


def sq_rel(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Mean of (p - z)² / z, metres (Eigen et al. 2014); arguments as in `depth_metrics`."""
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    return ((prediction - truth) ** 2 / truth).mean().item()


def mse(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Mean of (p - z)², square metres; arguments as in `depth_metrics`."""
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    return ((prediction - truth) ** 2).mean().item()


def rmse(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Root of the mean of (p - z)², metres; arguments as in `depth_metrics`."""
    return mse(prediction_m, truth_m, valid) ** 0.5


def rmse_log(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Root of the mean of (ln p - ln z)² (Eigen et al. 2014); arguments as in `depth_metrics`.

    Covers the predicted pixels; NaN without any.
    """
    return (_log_error(prediction_m, truth_m, valid) ** 2).mean().sqrt().item()


def silog(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Scale-invariant log error as in the KITTI depth benchmark; arguments as in `depth_metrics`.

    100 sqrt(mean(d²) - mean(d)²) with d = ln p - ln z (Eigen et al. 2014, lambda = 1).

    Covers the predicted pixels; NaN without any.
    """
    error = _log_error(prediction_m, truth_m, valid)
    # The variance about the mean is the same number without the cancellation.
    return 100 * ((error - error.mean()) ** 2).mean().sqrt().item()


def delta(prediction_m: Tensor, truth_m: Tensor, valid: Tensor, threshold: float) -> float:
    """Share of pixels with max(p / z, z / p) < threshold (Ladicky et al. 2014).

    Args:
        prediction_m, truth_m, valid: as in `depth_metrics`.
        threshold: > 1.
    """
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    # z / 0 is infinite, so a missing prediction fails every threshold.
    ratio = torch.maximum(prediction / truth, truth / prediction)
    return (ratio < threshold).double().mean().item()


def coverage(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Share of the valid pixels that have a prediction; arguments as in `depth_metrics`."""
    prediction, _ = _valid_pixels(prediction_m, truth_m, valid)
    return (prediction > 0).double().mean().item()


def boundary_f1(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Agreement of occlusion contours: the scale-invariant boundary F1 of Depth Pro.

    Bochkovskii et al. 2024, arXiv 2410.02073. A contour lies between two neighbours when one is
    more than t times as far as the other. For each of the four directions (farther to the left,
    right, top, bottom), recall is the share of true contours predicted between the same pixels,
    precision that of predicted contours which are true. F1 = 2 P R / (P + R) of their means over
    directions; the result is the mean over ten t from 1.05 to 1.25, weighted by t.

    Depth Pro scores 0 in a direction without true contours, even if none is predicted. Here a
    direction counts for recall if the truth has contours and for precision if either has, and a t
    counts if the truth has contours at all. Both are equal if the truth has contours in all
    directions.

    Args:
        prediction_m, truth_m, valid: as in `depth_metrics`; missing pixels have no contours, and
            a pair with an invalid pixel does not count.

    Returns:
        F1 in [0, 1]; NaN if the truth has no contour.
    """
    thresholds = torch.linspace(1.05, 1.25, 10, dtype=torch.float64)
    counts = []
    for truth_ratio, prediction_ratio in _neighbour_ratios(prediction_m, truth_m, valid):
        true = truth_ratio.cpu() > thresholds[:, None]
        predicted = prediction_ratio.cpu() > thresholds[:, None]
        counts.append(torch.stack([(true & predicted).sum(1), predicted.sum(1), true.sum(1)]))
    per_direction = torch.stack(counts, dim=1).double()
    counted = per_direction[2].sum(0) > 0
    hits, predicted, true = per_direction[:, :, counted]  # each (4 directions, thresholds)
    precision = (hits / predicted.clamp_min(1)).where(predicted + true > 0, torch.nan).nanmean(0)
    recall = (hits / true).nanmean(0)
    f1 = (2 * precision * recall / (precision + recall)).where(precision + recall > 0, 0)
    weights = thresholds[counted]
    return ((weights * f1).sum() / weights.sum()).item()


def aligned(prediction_m: Tensor, truth_m: Tensor, valid: Tensor, alignment: Alignment) -> Tensor:
    """The prediction after a least-squares fit to the truth, as input of any metric.

    `scale` minimises the sum of (a p - z)² and `scale_shift` that of (a p + b - z)² over the valid
    pixels that have a prediction, p and z being depths; with `disparity_` they are inverse depths
    (any disparity is a multiple of it, and the fit absorbs the factor).

    Args:
        prediction_m, truth_m, valid: as in `depth_metrics`.
        alignment: which fit.

    Returns:
        (H, W) metres, float64; NaN where the prediction is missing or the fit is infinite or below
        zero: clipping would improve a bad fit.
    """
    inverse = alignment.startswith("disparity")
    whole = _known(prediction_m)
    predicted, truth = _valid_pixels(prediction_m, truth_m, valid)
    predicted, truth = predicted[predicted > 0], truth[predicted > 0]
    if inverse:
        whole, predicted, truth = whole.reciprocal(), predicted.reciprocal(), truth.reciprocal()
    if len(predicted) == 0:
        return whole
    if alignment.endswith("shift"):
        # Relative to the first value, so that a constant has a spread of exactly 0.
        spread = predicted - predicted[0]
        centre = predicted[0] + spread.mean()
        spread = spread - spread.mean()
        power = spread.square().sum()
        slope = (spread * (truth - truth.mean())).sum() / power if power > 0 else power
        fitted = truth.mean() + slope * (whole - centre)
    else:
        fitted = whole * (predicted * truth).sum() / predicted.square().sum()
    depth_m = fitted.reciprocal() if inverse else fitted
    return _known(depth_m)


def disparity_metrics(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor, disparity_px_m: float
) -> dict[str, float]:
    """The published metrics of DDFF-12: errors of disparity, not of depth.

    As in DFV (Yang et al. 2022, https://github.com/fuy34/DFV, eval_DDFF12.py), but shares instead
    of per cent.

    Args:
        prediction_m, truth_m, valid: as in `depth_metrics`; missing counts as disparity 0.
        disparity_px_m: disparity [px] times depth [m].

    Returns:
        mse [px²], rmse [px], abs_rel, the deltas of 1.25, bad_pixel_0.07 (share with an error above
        0.07 px) and bumpiness.
    """
    maps = disparity_px_m / prediction_m.double(), disparity_px_m / truth_m.double(), valid
    predicted, truth = _valid_pixels(*maps)
    return {
        "mse": mse(*maps),
        "rmse": rmse(*maps),
        "abs_rel": abs_rel(*maps),
        "delta_1.25": delta(*maps, 1.25),
        "delta_1.25^2": delta(*maps, 1.25**2),
        "delta_1.25^3": delta(*maps, 1.25**3),
        "bad_pixel_0.07": ((predicted - truth).abs() > 0.07).double().mean().item(),
        "bumpiness": _bumpiness(*maps),
    }


def abs_rel_confident(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor, confidence: Tensor, share: float = 0.5
) -> float:
    """`abs_rel` of the most confident share of the valid pixels; of all if confidence is constant.

    Args:
        prediction_m, truth_m, valid: as in `depth_metrics`.
        confidence: (H, W).
        share: in (0, 1].

    Raises:
        InputError: as `depth_metrics`.
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


def _valid_pixels(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(P,) float64 prediction, 0 where missing, and truth at the valid pixels."""
    check_shape("truth_m", truth_m, ("H", "W"))
    check_shape("prediction_m", prediction_m, truth_m.shape)
    check_shape("valid", valid, truth_m.shape)
    if not valid.any():
        raise InputError("the depth truth has no valid pixel; leave this sample out.")
    truth = truth_m[valid].double()
    if not (truth.isfinite() & (truth > 0)).all():
        raise InputError(
            "the depth truth is not positive and finite at every valid pixel; "
            "mark such pixels invalid."
        )
    return _known(prediction_m[valid]).nan_to_num(nan=0.0), truth


def _log_error(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> Tensor:
    """ln p - ln z at the predicted valid pixels; one NaN without any."""
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    predicted = prediction > 0
    if not predicted.any():
        return prediction.new_full((1,), torch.nan)
    return prediction[predicted].log() - truth[predicted].log()


def _neighbour_ratios(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Depth of one neighbour over that of the other, in four directions: true and predicted.

    Each (P,) over the pairs that are valid on both sides; NaN where a prediction is missing.
    """
    _valid_pixels(prediction_m, truth_m, valid)  # checks the input
    maps = _known(prediction_m), truth_m.double(), valid
    for prediction, truth, mask in (maps, tuple(plane.T for plane in maps)):
        pairs = mask[1:] & mask[:-1]
        truth_ratio = (truth[1:] / truth[:-1])[pairs]
        prediction_ratio = (prediction[1:] / prediction[:-1])[pairs]
        yield truth_ratio, prediction_ratio
        yield truth_ratio.reciprocal(), prediction_ratio.reciprocal()


def _bumpiness(prediction_px: Tensor, truth_px: Tensor, valid: Tensor) -> float:
    """100 times the mean norm of the second derivatives of p - d, clipped at 0.05 (DFV).

    Frobenius norm; derivatives are Scharr filters, twice the slope. As in DFV, holes of the truth
    have disparity 0 in the difference, and their rims add to the figure.
    """
    difference = _known(prediction_px).nan_to_num(nan=0.0) - truth_px.where(valid, 0)

    def derivatives(plane: _Plane) -> list[_Plane]:
        options: Any = {"scale": 1 / 16, "borderType": cv2.BORDER_REFLECT}
        orders = ((1, 0), (0, 1))
        return [np.asarray(cv2.Scharr(plane, cv2.CV_64F, *order, **options)) for order in orders]

    first = derivatives(difference.cpu().numpy())
    squares = [second**2 for plane in first for second in derivatives(plane)]
    norm = np.sqrt(np.sum(squares, axis=0)).clip(max=0.05)
    return float(100 * norm[valid.cpu().numpy()].mean())


def _known(prediction: Tensor) -> Tensor:
    """The prediction in float64, NaN where it is missing."""
    prediction = prediction.double()
    return prediction.where(prediction.isfinite() & (prediction > 0), torch.nan)


def _error_and_confidence(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor, confidence: Tensor
) -> tuple[_Pixels, _Pixels]:
    """Relative error and confidence of the valid pixels, (P,)."""
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
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
