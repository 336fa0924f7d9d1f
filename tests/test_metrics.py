from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from focaldiffusion.errors import InputError
from focaldiffusion.evaluation import metrics

NAN = float("nan")
TRUTH = torch.tensor([[1.0, 2.0], [4.0, 10.0]])
ALL = torch.ones(2, 2, dtype=torch.bool)


def test_hand_computed_two_by_two():
    # errors 0.5, -1, 0, 2; relative 0.5, 0.5, 0, 0.2
    prediction = torch.tensor([[1.5, 1.0], [4.0, 12.0]])
    found = metrics.depth_metrics(prediction, TRUTH, ALL)

    logs = [math.log(1.5), -math.log(2), 0.0, math.log(1.2)]
    mean_square = sum(log**2 for log in logs) / 4
    assert found == pytest.approx(
        {
            "abs_rel": (0.5 + 0.5 + 0 + 0.2) / 4,
            "sq_rel": (0.25 / 1 + 1 / 2 + 0 + 4 / 10) / 4,
            "rmse": math.sqrt((0.25 + 1 + 0 + 4) / 4),
            "rmse_log": math.sqrt(mean_square),
            "silog": 100 * math.sqrt(mean_square - (sum(logs) / 4) ** 2),
            "delta_1.05": 0.25,
            "delta_1.15": 0.25,
            "delta_1.25": 0.5,  # ratios 1.5, 2, 1, 1.2
            "delta_1.25^2": 0.75,  # below 1.5625
            "delta_1.25^3": 0.75,  # below 1.953125
            "coverage": 1.0,
        },
        rel=1e-7,  # the prediction 1.2 x 10 is float32
    )


def test_perfect_prediction():
    found = metrics.depth_metrics(TRUTH, TRUTH, ALL)

    assert {name for name, value in found.items() if value == 1} == {
        "coverage",
        *metrics.DELTA_THRESHOLDS,
    }
    assert all(value in (0, 1) for value in found.values())


@pytest.mark.parametrize("missing", [NAN, float("inf"), 0.0, -3.0])
def test_missing_predictions_count_as_depth_zero(missing):
    prediction = torch.tensor([[1.0, missing], [4.4, missing]])
    found = metrics.depth_metrics(prediction, TRUTH, ALL)

    assert found["coverage"] == 0.5
    assert found["abs_rel"] == pytest.approx((0 + 1 + 0.1 + 1) / 4, rel=1e-6)
    assert found["sq_rel"] == pytest.approx((0 + 2 + 0.04 + 10) / 4, rel=1e-6)
    assert found["rmse"] == pytest.approx(math.sqrt((0 + 4 + 0.16 + 100) / 4), rel=1e-6)
    assert found["delta_1.25^3"] == 0.5
    assert found["rmse_log"] == pytest.approx(math.log(1.1) / math.sqrt(2), rel=1e-6)
    assert found["silog"] == pytest.approx(100 * math.log(1.1) / 2, rel=1e-6)


def test_no_prediction_at_all():
    found = metrics.depth_metrics(torch.full((2, 2), NAN), TRUTH, ALL)

    assert found["abs_rel"] == 1
    assert found["coverage"] == found["delta_1.05"] == 0
    assert math.isnan(found["rmse_log"])
    assert math.isnan(found["silog"])


def test_invalid_pixels_do_not_count():
    prediction = torch.tensor([[1.1, NAN], [99.0, 10.0]])
    truth = torch.tensor([[1.0, NAN], [-1.0, 10.0]])
    valid = torch.tensor([[True, False], [False, True]])
    found = metrics.depth_metrics(prediction, truth, valid)

    assert found["abs_rel"] == pytest.approx(0.05, rel=1e-6)
    assert found["coverage"] == 1


def test_silog_ignores_scale_and_nothing_else_does():
    scaled = metrics.depth_metrics(TRUTH * 1.3, TRUTH, ALL)

    assert scaled["silog"] == pytest.approx(0, abs=1e-4)
    assert scaled["abs_rel"] == pytest.approx(0.3, rel=1e-6)
    assert scaled["rmse_log"] == pytest.approx(math.log(1.3), rel=1e-6)


def test_agrees_with_plain_numpy_float64():
    random = np.random.default_rng(0)
    z = random.uniform(0.3, 12, (37, 53))
    p = z * np.exp(random.normal(0, 0.3, z.shape))
    valid = random.random(z.shape) < 0.8
    found = metrics.depth_metrics(*map(torch.from_numpy, (p, z, valid)))

    p, z = p[valid], z[valid]
    d = np.log(p) - np.log(z)
    ratio = np.maximum(p / z, z / p)
    expected = {
        "abs_rel": np.mean(np.abs(p - z) / z),
        "sq_rel": np.mean((p - z) ** 2 / z),
        "rmse": np.sqrt(np.mean((p - z) ** 2)),
        "rmse_log": np.sqrt(np.mean(d**2)),
        "silog": 100 * np.sqrt(np.mean(d**2) - np.mean(d) ** 2),
        "delta_1.05": np.mean(ratio < 1.05),
        "delta_1.15": np.mean(ratio < 1.15),
        "delta_1.25": np.mean(ratio < 1.25),
        "delta_1.25^2": np.mean(ratio < 1.25**2),
        "delta_1.25^3": np.mean(ratio < 1.25**3),
        "coverage": 1.0,
    }
    assert found == pytest.approx(expected, rel=1e-9)


def test_refuses_truth_that_says_nothing():
    with pytest.raises(InputError, match="no valid pixel; leave this sample out"):
        metrics.abs_rel(TRUTH, TRUTH, ~ALL)
    with pytest.raises(InputError, match="not positive and finite at every valid pixel"):
        metrics.abs_rel(TRUTH, torch.tensor([[1.0, NAN], [4.0, 10.0]]), ALL)
    with pytest.raises(ValueError, match=r"prediction_m: got shape \(1, 2\), expected \(2, 2\)"):
        metrics.abs_rel(TRUTH[:1], TRUTH, ALL)


class TestAbsRelConfident:
    prediction = torch.tensor([[1.1, 2.4], [5.2, 14.0]])  # relative errors .1, .2, .3, .4

    def score(self, confidence: list[list[float]], share: float) -> float:
        return metrics.abs_rel_confident(
            self.prediction, TRUTH, ALL, torch.tensor(confidence), share
        )

    def test_takes_the_most_confident(self):
        confidence = [[0.9, 0.1], [0.8, 0.2]]
        assert self.score(confidence, 0.25) == pytest.approx(0.1, rel=1e-6)
        assert self.score(confidence, 0.5) == pytest.approx(0.2, rel=1e-6)
        assert self.score(confidence, 1.0) == pytest.approx(0.25, rel=1e-6)

    def test_part_of_a_pixel(self):
        # one and a half pixels: all of .1, half of .3
        assert self.score([[0.9, 0.1], [0.8, 0.2]], 0.375) == pytest.approx(0.25 / 1.5, rel=1e-6)

    def test_ties_share_the_places_left(self):
        # .1 is in; the three others share one place
        assert self.score([[0.9, 0.5], [0.5, 0.5]], 0.5) == pytest.approx((0.1 + 0.3) / 2, rel=1e-6)
        for share in (0.01, 0.3, 0.5, 1.0):
            assert self.score([[0.5, 0.5], [0.5, 0.5]], share) == pytest.approx(0.25, rel=1e-6)

    def test_invalid_pixels_take_no_place_and_missing_ones_do(self):
        valid = torch.tensor([[True, True], [False, True]])
        prediction = torch.tensor([[NAN, 2.4], [5.2, 14.0]])
        confidence = torch.tensor([[0.9, 0.8], [NAN, 0.1]])
        score = metrics.abs_rel_confident(prediction, TRUTH, valid, confidence, 2 / 3)
        assert score == pytest.approx((1 + 0.2) / 2, rel=1e-6)

    def test_order_of_pixels_changes_nothing(self):
        random = torch.Generator().manual_seed(0)
        truth = torch.rand(20, 30, generator=random) + 0.5
        prediction = truth + 0.1 * torch.randn(20, 30, generator=random)
        confidence = (4 * torch.rand(20, 30, generator=random)).round()
        valid = torch.ones(20, 30, dtype=torch.bool)
        shuffled = torch.randperm(600, generator=random)
        maps = [
            image.flatten()[shuffled].view(20, 30)
            for image in (prediction, truth, valid, confidence)
        ]
        assert metrics.abs_rel_confident(*maps) == pytest.approx(
            metrics.abs_rel_confident(prediction, truth, valid, confidence), rel=1e-12
        )

    def test_refuses_nonsense(self):
        with pytest.raises(ValueError, match="share is 0; expected 0 < share <= 1"):
            self.score([[1.0, 1.0], [1.0, 1.0]], 0)
        with pytest.raises(ValueError, match="confidence is NaN"):
            self.score([[NAN, 1.0], [1.0, 1.0]], 0.5)


def test_psnr_by_hand():
    truth = torch.zeros(3, 2, 2)
    prediction = truth.clone()
    prediction[1, 0, 0] = 0.6  # mean square 0.36 / 12 = 0.03
    assert metrics.psnr(prediction, truth) == pytest.approx(10 * math.log10(1 / 0.03), rel=1e-7)
    assert metrics.psnr(truth, truth) == math.inf
    with pytest.raises(ValueError, match=r"expected \(3, 2, 2\)"):
        metrics.psnr(truth[:, :1], truth)


def test_ssim_follows_its_definition():
    random = np.random.default_rng(1)
    truth = gaussian_filter(random.random((3, 40, 50)), (0, 2, 2))
    prediction = (truth + random.normal(0, 0.05, truth.shape)).clip(0, 1)

    def local_mean(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, (0, 1.5, 1.5), radius=5)[:, 5:-5, 5:-5]

    mean_p, mean_t = local_mean(prediction), local_mean(truth)
    var_p, var_t = local_mean(prediction**2) - mean_p**2, local_mean(truth**2) - mean_t**2
    covariance = local_mean(prediction * truth) - mean_p * mean_t
    c1, c2 = 0.01**2, 0.03**2
    expected = np.mean(
        (2 * mean_p * mean_t + c1)
        * (2 * covariance + c2)
        / ((mean_p**2 + mean_t**2 + c1) * (var_p + var_t + c2))
    )
    found = metrics.ssim(torch.from_numpy(prediction), torch.from_numpy(truth))

    assert 0.1 < found < 0.99
    assert found == pytest.approx(expected, rel=1e-9)
    assert metrics.ssim(torch.from_numpy(truth), torch.from_numpy(truth)) == pytest.approx(1)
    with pytest.raises(ValueError, match="the SSIM window needs 11 px"):
        metrics.ssim(torch.zeros(3, 10, 20), torch.zeros(3, 10, 20))


@pytest.mark.parametrize("height", [11, 266, 267, 600])  # strips: one row, one whole, two, three
def test_ssim_agrees_with_torchmetrics_however_many_strips(height):
    from torchmetrics.functional.image import structural_similarity_index_measure

    random = torch.Generator().manual_seed(2)
    # float32 as images are; the strips differ, so a row counted twice or never shows.
    truth = torch.rand(3, height, 37, generator=random) * torch.linspace(0, 1, height)[:, None]
    prediction = (truth + 0.1 * torch.randn(truth.shape, generator=random)).clamp(0, 1)
    _, similarity = structural_similarity_index_measure(
        prediction.double()[None],
        truth.double()[None],
        data_range=1.0,
        sigma=1.5,
        return_full_image=True,
    )
    # Wang et al. have no border; what torchmetrics does there differs between its versions.
    expected = similarity[..., 5:-5, 5:-5].mean().item()

    assert metrics.ssim(prediction, truth) == pytest.approx(expected, rel=1e-12)
