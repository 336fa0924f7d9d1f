"""Accuracy of metric depth and of all-in-focus images: one function for each metric.

Depth is metric and never aligned to the truth. Every depth metric takes (H, W) metres and
covers the `valid` pixels of one image; means over images are the caller's. A prediction that is
NaN, infinite or not positive is *missing*: it counts as depth 0 (relative error 1, delta false),
except in the metrics of log depth, which cover the predicted pixels only. `coverage` says how many
those are. All is computed in float64.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.errors import InputError, check_shape

Plane = NDArray[np.float64]

DELTA_THRESHOLDS = {
    "delta_1.05": 1.05,
    "delta_1.15": 1.15,
    "delta_1.25": 1.25,
    "delta_1.25^2": 1.25**2,
    "delta_1.25^3": 1.25**3,
}

_SSIM_BORDER = 5
"""Half of the 11-pixel window of SSIM."""

_SSIM_STRIP = 256
"""Rows of an image compared at a time, so that memory grows with its width alone."""


def depth_metrics(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> dict[str, float]:
    """Every depth metric of one image.

    Args:
        prediction_m: (H, W) metres; NaN, infinite or not positive is missing.
        truth_m: (H, W) metres, finite and positive where `valid`.
        valid: (H, W) bool, the pixels that count.

    Returns:
        abs_rel, sq_rel, rmse, rmse_log, silog, the keys of `DELTA_THRESHOLDS`, coverage.

    Raises:
        InputError: no valid pixel, or truth that is not positive and finite there.
    """
    maps = prediction_m, truth_m, valid
    return {
        "abs_rel": abs_rel(*maps),
        "sq_rel": sq_rel(*maps),
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


def sq_rel(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Mean of (p - z)² / z, metres (Eigen et al. 2014); arguments as in `depth_metrics`."""
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    return ((prediction - truth) ** 2 / truth).mean().item()


def rmse(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Root of the mean of (p - z)², metres; arguments as in `depth_metrics`."""
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    return ((prediction - truth) ** 2).mean().sqrt().item()


def rmse_log(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Root of the mean of (ln p - ln z)² (Eigen et al. 2014); arguments as in `depth_metrics`.

    Covers the predicted pixels; NaN when there is none.
    """
    return (_log_error(prediction_m, truth_m, valid) ** 2).mean().sqrt().item()


def silog(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Scale-invariant log error as in the KITTI depth benchmark; arguments as in `depth_metrics`.

    100 sqrt(mean(d²) - mean(d)²) with d = ln p - ln z (Eigen et al. 2014, lambda = 1).

    Covers the predicted pixels; NaN when there is none.
    """
    error = _log_error(prediction_m, truth_m, valid)
    # The variance about the mean is the same number without the cancellation.
    return 100 * ((error - error.mean()) ** 2).mean().sqrt().item()


def delta(prediction_m: Tensor, truth_m: Tensor, valid: Tensor, threshold: float) -> float:
    """Share of pixels with max(p / z, z / p) < threshold (Ladicky et al. 2014).

    Args:
        prediction_m: as in `depth_metrics`.
        truth_m: as in `depth_metrics`.
        valid: as in `depth_metrics`.
        threshold: > 1.
    """
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    # z / 0 is infinite, so a missing prediction is below no threshold.
    ratio = torch.maximum(prediction / truth, truth / prediction)
    return (ratio < threshold).double().mean().item()


def coverage(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> float:
    """Share of the valid pixels that have a prediction; arguments as in `depth_metrics`."""
    prediction, _ = _valid_pixels(prediction_m, truth_m, valid)
    return (prediction > 0).double().mean().item()


def abs_rel_confident(
    prediction_m: Tensor,
    truth_m: Tensor,
    valid: Tensor,
    confidence: Tensor,
    share: float = 0.5,
) -> float:
    """`abs_rel` of the most confident share of the valid pixels.

    Pixels tied at the cut share the remaining places equally: each counts with the same fraction,
    which is the mean over all orders of the tie. Constant confidence thus gives plain `abs_rel`.

    Args:
        prediction_m: as in `depth_metrics`; missing counts 1 here too.
        truth_m: as in `depth_metrics`.
        valid: as in `depth_metrics`.
        confidence: (H, W), larger is surer; no NaN where `valid`.
        share: in (0, 1].

    Raises:
        InputError: as in `depth_metrics`.
        ValueError: `share` out of range, or NaN confidence.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; expected 0 < share <= 1")
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    check_shape("confidence", confidence, valid.shape)
    sureness = confidence[valid].double()
    if sureness.isnan().any():
        raise ValueError("confidence is NaN at valid pixels")
    error = (prediction - truth).abs() / truth
    places = share * sureness.numel()
    cut = sureness.sort(descending=True).values[math.ceil(places) - 1]
    above, tied = sureness > cut, sureness == cut
    # `places` need not be whole, so the tied pixels may share a fraction of one.
    weight = above.double() + tied * (places - above.sum()) / tied.sum()
    return ((weight * error).sum() / weight.sum()).item()


def psnr(prediction: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio over all pixels and channels, dB.

    10 log10(1 / mean((p - t)²)); infinite for equal images.

    Args:
        prediction: (3, H, W) sRGB-encoded, [0, 1].
        truth: likewise.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    _check_images(prediction, truth)
    return peak_signal_noise_ratio(prediction.double(), truth.double(), data_range=1.0).item()


def ssim(prediction: Tensor, truth: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), mean over pixels and channels.

    11x11 Gaussian window of standard deviation 1.5, K1 = 0.01, K2 = 0.03, range 1; pixels whose
    window leaves the image do not count.

    Args:
        prediction: (3, H, W) sRGB-encoded, [0, 1], at least 11 pixels either way.
        truth: likewise.

    Raises:
        ValueError: images of different sizes, or smaller than the window.
    """
    _check_images(prediction, truth)
    height, width = truth.shape[1:]
    inner_height, inner_width = height - 2 * _SSIM_BORDER, width - 2 * _SSIM_BORDER
    if min(inner_height, inner_width) < 1:
        raise ValueError(f"images of {(height, width)}; the SSIM window needs 11 px")
    total = 0.0
    for top in range(0, inner_height, _SSIM_STRIP):
        rows = slice(top, top + _SSIM_STRIP + 2 * _SSIM_BORDER)
        for channels in zip(prediction[:, rows], truth[:, rows], strict=True):
            total += _similarity(*(channel.double().cpu().numpy() for channel in channels)).sum()
    return float(total / (3 * inner_height * inner_width))


def _similarity(prediction: Plane, truth: Plane) -> Plane:
    """SSIM at each pixel of (H, W) planes whose window lies inside: (H - 10, W - 10).

    (2 p t + C1) (2 cov + C2) / ((p² + t² + C1) (var_p + var_t + C2)) of local means p and t.
    """
    # torchmetrics has the same formula, but its convolution needs gigabytes for a few megapixels.
    mean_p, mean_t = _local_mean(prediction), _local_mean(truth)
    variances = _local_mean(prediction**2 + truth**2) - mean_p**2 - mean_t**2
    covariance = _local_mean(prediction * truth) - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    contrast = (2 * covariance + c2) / (variances + c2)
    return (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1) * contrast


def _local_mean(plane: Plane) -> Plane:
    window = 2 * _SSIM_BORDER + 1
    inner = slice(_SSIM_BORDER, -_SSIM_BORDER)
    return np.asarray(cv2.GaussianBlur(plane, (window, window), 1.5)[inner, inner])


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
    prediction = prediction_m[valid].double()
    missing = ~(prediction.isfinite() & (prediction > 0))
    return prediction.masked_fill(missing, 0.0), truth


def _log_error(prediction_m: Tensor, truth_m: Tensor, valid: Tensor) -> Tensor:
    """ln p - ln z at the valid pixels that have a prediction; one NaN when there is none."""
    prediction, truth = _valid_pixels(prediction_m, truth_m, valid)
    predicted = prediction > 0
    if not predicted.any():
        return prediction.new_full((1,), torch.nan)
    return prediction[predicted].log() - truth[predicted].log()


def _check_images(prediction: Tensor, truth: Tensor) -> None:
    check_shape("truth", truth, (3, "H", "W"))
    check_shape("prediction", prediction, truth.shape)
