from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sample_stacks import texture

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.sets.ddff12 import DISPARITY_PX_M
from focaldiffusion.evaluation import image_metrics, metrics
from focaldiffusion.evaluation.prediction import Prediction
from focaldiffusion.evaluation.scoring import METRICS, Metric, calibration_of, score
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.stack import FocalStack

SIZE = (48, 64)
COLUMNS = torch.arange(SIZE[1]).expand(SIZE)
ENTROPY = COLUMNS / SIZE[1]
"""Entropy of the evidence, which grows to the right."""
PERFECT = {"coverage": 1.0, "kept": 1.0, "ssim": 1.0, "psnr": 100.0, "boundary_f1": 1.0}


@pytest.fixture
def sample() -> StackSample:
    """A wall at 1 m and beside it one from 2 m on, each sharp in one of two frames; a hole."""
    sharp = texture(SIZE)
    flat = sharp.mean((1, 2), keepdim=True).expand_as(sharp)
    is_near = COLUMNS < 32
    depth_m = torch.where(is_near, 1.0, 2.0 + 0.01 * COLUMNS)
    depth_m[:5, :5] = torch.nan
    images = torch.stack([sharp.where(is_near, flat), flat.where(is_near, sharp)])
    stack = FocalStack(images, focus_distances_m=torch.tensor([1.0, 2.3]))
    return StackSample(stack, depth_m, ~depth_m.isnan(), sharp, "two walls")


@pytest.fixture
def truth(sample: StackSample) -> Prediction:
    assert sample.all_in_focus is not None
    return Prediction(sample.depth_m, linear_to_srgb(sample.all_in_focus), torch.rand(SIZE))


def worsened(truth: Prediction) -> Prediction:
    """Off by 3 % here and 20 % there, in places missing; faded here, noisy and too bright there."""
    assert truth.depth_m is not None
    assert truth.all_in_focus is not None
    random = torch.Generator().manual_seed(0)
    depth_m = truth.depth_m * torch.where(COLUMNS % 4 == 0, 1.2, 0.97)
    depth_m[20:25, 20:40] = torch.nan
    image = truth.all_in_focus.clone()
    image[..., :40] = 0.5 + 0.5 * (image[..., :40] - 0.5)
    image[..., 48:] += 0.5 * torch.rand(3, 48, 16, generator=random)
    confidence = torch.rand(SIZE, generator=random)
    return Prediction(depth_m, image.clamp(0, 1), confidence)


def test_the_truth_is_perfect_in_every_metric(sample: StackSample, truth: Prediction):
    found = score(sample, truth, "disparity", ENTROPY)

    assert set(METRICS) - set(found) <= {"lpips"}
    for name, value in found.items():
        metric = METRICS[name]
        perfect = PERFECT.get(name, float(metric.unit == "share" and metric.better == "up"))
        if not metric.oracle:
            # kept: a block's blur reaches over the seam; the rest: rounding of float32 fits.
            tolerance = 0.02 if name == "kept" else 1e-7
            assert value == pytest.approx(perfect, abs=tolerance), name


def test_every_metric_gets_worse_in_the_direction_it_names(sample: StackSample, truth: Prediction):
    best, worse = (score(sample, one, "disparity", ENTROPY) for one in (truth, worsened(truth)))

    assert list(worse) == [name for name in METRICS if name in worse]
    assert set(worse) == set(best)
    for name, metric in METRICS.items():
        if name in worse and not metric.oracle:
            assert worse[name] != best[name], name
            assert (worse[name] < best[name]) == (metric.better == "up"), name


def test_values_are_those_of_the_functions(sample: StackSample, truth: Prediction):
    prediction = worsened(truth)
    found = score(sample, prediction, entropy=ENTROPY)
    assert prediction.depth_m is not None
    assert prediction.confidence is not None
    maps = prediction.depth_m, sample.depth_m, sample.valid

    assert found.items() >= metrics.depth_metrics(*maps).items()
    assert found["boundary_f1"] == metrics.boundary_f1(*maps)
    assert found["abs_rel_untextured"] == metrics.abs_rel_untextured(*maps, ENTROPY)
    fitted = metrics.aligned(*maps, "scale"), *maps[1:]
    assert found["scale:delta_1.05"] == metrics.delta(*fitted, 1.05)
    fitted = metrics.aligned(*maps, "disparity_scale_shift"), *maps[1:]
    assert found["disparity_scale_shift:abs_rel"] == metrics.abs_rel(*fitted)
    assert found["ause"] == metrics.ause(*maps, prediction.confidence)
    frames = linear_to_srgb(sample.stack.images)
    assert prediction.all_in_focus is not None
    assert found.items() >= image_metrics.detail_metrics(prediction.all_in_focus, frames).items()


def test_disparity_is_that_of_ddff12(sample: StackSample, truth: Prediction):
    prediction = worsened(truth)
    found = score(sample, prediction, "disparity")
    assert prediction.depth_m is not None
    expected = metrics.disparity_metrics(
        prediction.depth_m, sample.depth_m, sample.valid, DISPARITY_PX_M
    )
    assert {name: found[f"disparity:{name}"] for name in expected} == expected
    assert found.items() >= score(sample, prediction).items()


def test_the_best_frame_is_an_oracle_and_no_matter_of_the_prediction(
    sample: StackSample, truth: Prediction
):
    frames = linear_to_srgb(sample.stack.images)
    assert truth.all_in_focus is not None
    expected = max(image_metrics.psnr(frame, truth.all_in_focus) for frame in frames)

    assert score(sample, truth)["best_frame_psnr"] == expected
    assert score(sample, worsened(truth))["best_frame_psnr"] == expected
    assert [name for name, metric in METRICS.items() if metric.oracle] == ["best_frame_psnr"]


def test_what_does_not_apply_is_absent(sample: StackSample, truth: Prediction):
    assert score(sample, Prediction()) == {}

    depth_only = score(sample, replace(truth, all_in_focus=None, confidence=None))
    assert {"psnr", "in_range", "kept", "best_frame_psnr", "ause"} & set(depth_only) == set()
    assert {"disparity:mse", "abs_rel_untextured"} & set(depth_only) == set()
    assert "abs_rel_untextured" not in score(sample, replace(truth, depth_m=None), entropy=ENTROPY)

    no_reference = score(replace(sample, all_in_focus=None), replace(truth, depth_m=None))
    assert set(no_reference) == {"in_range", "kept", "soft", "invented"}

    wall = replace(sample, depth_m=torch.ones(SIZE), valid=torch.ones(SIZE, dtype=torch.bool))
    nothing = score(wall, Prediction(depth_m=torch.full(SIZE, torch.nan)))
    assert {"boundary_f1", "rmse_log", "silog"} & set(nothing) == set()
    assert nothing["abs_rel"] == nothing["scale:abs_rel"] == 1
    assert nothing["coverage"] == 0


def test_pixels_at_infinity_do_not_count(sample: StackSample, truth: Prediction):
    depth_m = sample.depth_m.clone()
    depth_m[:, :8] = torch.inf
    found = score(replace(sample, depth_m=depth_m), truth)
    assert found["abs_rel"] == 0
    assert found["coverage"] == 1


def test_calibration(sample: StackSample, truth: Prediction):
    prediction = worsened(truth)
    rows = calibration_of(sample, prediction)

    assert rows is not None
    confidence, error, share = zip(*rows, strict=True)
    assert list(confidence) == sorted(confidence)
    assert sum(share) == pytest.approx(1)
    mean = sum(one * weight for one, weight in zip(error, share, strict=True))
    assert mean == pytest.approx(score(sample, prediction)["abs_rel"], rel=1e-9)
    assert calibration_of(sample, replace(prediction, confidence=None)) is None
    assert calibration_of(sample, replace(prediction, depth_m=None)) is None


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_explained(name: str):
    metric = METRICS[name]
    assert isinstance(metric, Metric)
    assert metric.meaning.endswith(".")
    assert metric.unit == "share" or not name.split(":")[-1].startswith("delta")
