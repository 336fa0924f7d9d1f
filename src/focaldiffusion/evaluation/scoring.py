"""Every metric of a prediction, by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.sets.ddff12 import DISPARITY_PX_M
from focaldiffusion.evaluation import image_metrics, metrics
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.optics import linear_to_srgb

Domain = Literal["depth", "disparity"]


@dataclass(frozen=True)
class Metric:
    """Unit, direction and meaning of a metric.

    Attributes:
        unit: "m", "dB" and so on; "share" of pixels or blocks, in [0, 1]; empty for other ratios.
        better: the direction of improvement.
        meaning: one sentence.
        oracle: found with knowledge of the truth: a bar to compare with, not a figure of the model.
    """

    unit: str
    better: Literal["up", "down"]
    meaning: str
    oracle: bool = False


_FITTED = {
    "scale": "depth scaled to the truth",
    "scale_shift": "depth scaled and shifted to the truth",
    "disparity_scale": "inverse depth scaled to the truth",
    "disparity_scale_shift": "inverse depth scaled and shifted to the truth",
}

METRICS: dict[str, Metric] = {
    "abs_rel": Metric("", "down", "Mean of |p - z| / z; a missing prediction counts 1."),
    "abs_rel_untextured": Metric(
        "", "down", "AbsRel of the third of the pixels on which defocus alone says least."
    ),
    "sq_rel": Metric("m", "down", "Mean of (p - z)² / z."),
    "mse": Metric("m²", "down", "Mean of (p - z)²."),
    "rmse": Metric("m", "down", "Root of the mean of (p - z)²."),
    "rmse_log": Metric("", "down", "Root of the mean of (ln p - ln z)², predicted pixels only."),
    "silog": Metric("", "down", "100 times the spread of ln p - ln z, predicted pixels only."),
    "delta_1.05": Metric("share", "up", "Pixels with max(p / z, z / p) < 1.05."),
    "delta_1.15": Metric("share", "up", "Pixels with max(p / z, z / p) < 1.15."),
    "delta_1.25": Metric("share", "up", "Pixels with max(p / z, z / p) < 1.25."),
    "delta_1.25^2": Metric("share", "up", "Pixels with max(p / z, z / p) < 1.25²."),
    "delta_1.25^3": Metric("share", "up", "Pixels with max(p / z, z / p) < 1.25³."),
    "coverage": Metric("share", "up", "Pixels with truth that have a prediction."),
    "boundary_f1": Metric("", "up", "F1 of occlusion contours, after Depth Pro."),
    "abs_rel_confident_half": Metric("", "down", "AbsRel of the most confident half."),
    "ause": Metric("", "down", "Area between the AbsRel of the surest and of the truest pixels."),
    **{
        f"{alignment}:abs_rel": Metric("", "down", f"AbsRel, {fitted}.")
        for alignment, fitted in _FITTED.items()
    },
    "scale:delta_1.05": Metric("share", "up", "δ1.05, depth scaled to the truth."),
    **{
        f"{alignment}:delta_1.25": Metric("share", "up", f"δ1.25, {fitted}.")
        for alignment, fitted in _FITTED.items()
    },
    "disparity:mse": Metric("px²", "down", "Mean squared error of disparity, as DDFF-12's."),
    "disparity:rmse": Metric("px", "down", "Root of the mean squared error of disparity."),
    "disparity:abs_rel": Metric("", "down", "AbsRel of disparity."),
    "disparity:delta_1.25": Metric("share", "up", "δ1.25 of disparity."),
    "disparity:delta_1.25^2": Metric("share", "up", "δ1.25² of disparity."),
    "disparity:delta_1.25^3": Metric("share", "up", "δ1.25³ of disparity."),
    "disparity:bad_pixel_0.07": Metric("share", "down", "Pixels more than 0.07 px off."),
    "disparity:bumpiness": Metric("", "down", "Second derivatives of the error, as DFV's."),
    "psnr": Metric(
        "dB", "up", "Peak signal-to-noise ratio of the all-in-focus image, at most 100."
    ),
    "ssim": Metric("", "up", "Structural similarity of the all-in-focus image."),
    "lpips": Metric("", "down", "Learned perceptual distance of the all-in-focus image, AlexNet."),
    "best_frame_psnr": Metric("dB", "up", "PSNR of the frame nearest the truth.", oracle=True),
    "in_range": Metric("share", "up", "All-in-focus pixels within the range of the frames there."),
    "kept": Metric("", "up", "Detail relative to the sharpest frame, median over blocks."),
    "soft": Metric("share", "down", "Detailed blocks with less than 0.7 of the sharpest frame's."),
    "invented": Metric("share", "down", "Blocks with more than 1.5 times any frame's detail."),
}
"""Every metric that `score` may return, in the order of a table."""

_MOST_PSNR_DB = 100.0
"""PSNR of equal images instead of infinity, so that a mean over images exists."""


def score(
    sample: StackSample,
    prediction: Prediction,
    domain: Domain = "depth",
    entropy: Tensor | None = None,
) -> dict[str, float]:
    """The metrics of one prediction, keyed as `METRICS`; metrics that do not apply are absent.

    Absent are metrics of missing predictions, of missing truth, and those without meaning for the
    pair, such as the boundary F1 of a flat wall.

    Args:
        sample: the truth; pixels at infinity do not count.
        prediction: at the size of the sample.
        domain: domain of the protocol's published figures; "disparity" adds errors in pixels of
            DDFF-12's disparity.
        entropy: (H, W) entropy of the physical evidence of the stack, the same for every model;
            None where unknown.

    Raises:
        InputError: no valid depth in the sample, or a metric that cannot run on this machine.
    """
    found: dict[str, float | None] = {}
    if prediction.depth_m is not None:
        maps = _maps(sample, prediction.depth_m)
        found |= _depth_scores(*maps, prediction.confidence)
        if entropy is not None:
            found["abs_rel_untextured"] = metrics.abs_rel_untextured(*maps, entropy.cpu())
        if domain == "disparity":
            errors = metrics.disparity_metrics(*maps, DISPARITY_PX_M)
            found |= {f"disparity:{name}": value for name, value in errors.items()}
    if prediction.all_in_focus is not None:
        found |= _image_scores(sample, prediction.all_in_focus.cpu())
    return {
        name: value
        for name in METRICS
        if (value := found.get(name)) is not None and not math.isnan(value)
    }


def calibration_of(sample: StackSample, prediction: Prediction) -> list[list[float]] | None:
    """Mean confidence, AbsRel and share of the pixels of each tenth, the least confident first.

    None without depth or confidence; see `metrics.deciles`.
    """
    if prediction.depth_m is None or prediction.confidence is None:
        return None
    maps = _maps(sample, prediction.depth_m)
    tenths = metrics.deciles(*maps, prediction.confidence.cpu())
    return [list(tenth) for tenth in tenths]


def _maps(sample: StackSample, prediction_m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Prediction, truth and the pixels that count: not infinity, which has no relative error."""
    truth_m = sample.depth_m.cpu()
    return prediction_m.cpu(), truth_m, sample.valid.cpu() & truth_m.isfinite()


def _depth_scores(
    prediction_m: Tensor, truth_m: Tensor, valid: Tensor, confidence: Tensor | None
) -> dict[str, float]:
    maps = prediction_m, truth_m, valid
    found = metrics.depth_metrics(*maps)
    found["boundary_f1"] = metrics.boundary_f1(*maps)
    for alignment in get_args(metrics.Alignment):
        fitted = metrics.aligned(*maps, alignment), truth_m, valid
        found[f"{alignment}:abs_rel"] = metrics.abs_rel(*fitted)
        found[f"{alignment}:delta_1.25"] = metrics.delta(*fitted, 1.25)
        if alignment == "scale":
            found["scale:delta_1.05"] = metrics.delta(*fitted, 1.05)
    if confidence is not None:
        found["abs_rel_confident_half"] = metrics.abs_rel_confident(*maps, confidence.cpu())
        found["ause"] = metrics.ause(*maps, confidence.cpu())
    return found


def _image_scores(sample: StackSample, image: Tensor) -> dict[str, float | None]:
    frames = linear_to_srgb(sample.stack.images.cpu())
    found: dict[str, float | None] = {
        "in_range": image_metrics.in_range(image, frames),
        **image_metrics.detail_metrics(image, frames),
    }
    if sample.all_in_focus is not None:
        truth = linear_to_srgb(sample.all_in_focus.cpu())
        found["psnr"] = min(image_metrics.psnr(image, truth), _MOST_PSNR_DB)
        found["ssim"] = image_metrics.ssim(image, truth)
        found["lpips"] = image_metrics.lpips(image, truth)
        of_frames = [image_metrics.psnr(frame, truth) for frame in frames]
        found["best_frame_psnr"] = min(max(of_frames), _MOST_PSNR_DB)
    return found
