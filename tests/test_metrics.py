from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve
from torchmetrics.functional import mean_absolute_percentage_error, mean_squared_error

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
            "mse": (0.25 + 1 + 0 + 4) / 4,
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


def test_untextured_third_by_hand():
    # relative errors in reading order: 0.1, 0.2, ..., 0.9
    truth = torch.full((3, 3), 2.0)
    prediction = 2 + 0.2 * torch.arange(1.0, 10.0).reshape(3, 3)
    valid = torch.ones(3, 3, dtype=torch.bool)
    entropy = torch.tensor([[0.9, 0.1, 0.2], [0.3, 0.8, 0.1], [0.2, 0.3, 0.7]])

    def of(entropy, valid):
        return metrics.abs_rel_untextured(prediction, truth, valid, entropy)

    assert of(entropy, valid) == pytest.approx((0.1 + 0.5 + 0.9) / 3, rel=1e-6)
    # A third of the remaining seven is 2.3, so three count: 0.7, 0.3 and its equal.
    fewer = valid & (entropy < 0.75)
    assert of(entropy, fewer) == pytest.approx((0.9 + 0.4 + 0.8) / 3, rel=1e-6)
    # All as flat as the last one of the third count.
    tied = torch.where(entropy == 0.3, 0.7, entropy)
    assert of(tied, valid) == pytest.approx((0.1 + 0.5 + 0.9 + 0.4 + 0.8) / 5, rel=1e-6)
    assert of(torch.ones(3, 3), valid) == metrics.abs_rel(prediction, truth, valid)
    prediction[0, 0] = NAN  # counts 1
    assert of(entropy, valid) == pytest.approx((1 + 0.5 + 0.9) / 3, rel=1e-6)


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
        "mse": np.mean((p - z) ** 2),
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


def test_agrees_with_torchmetrics():
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(30, 40, generator=random, dtype=torch.float64) + 0.5
    prediction = truth * (1 + 0.1 * torch.randn(30, 40, generator=random))
    maps = prediction, truth, torch.ones(30, 40, dtype=torch.bool)

    relative = mean_absolute_percentage_error(prediction, truth)
    assert metrics.abs_rel(*maps) == pytest.approx(relative.item(), rel=1e-12)
    assert metrics.mse(*maps) == pytest.approx(mean_squared_error(*maps[:2]).item(), rel=1e-12)


def test_refuses_truth_that_says_nothing():
    with pytest.raises(InputError, match="no valid pixel; leave this sample out"):
        metrics.abs_rel(TRUTH, TRUTH, ~ALL)
    with pytest.raises(InputError, match="not positive and finite at every valid pixel"):
        metrics.abs_rel(TRUTH, torch.tensor([[1.0, NAN], [4.0, 10.0]]), ALL)
    with pytest.raises(ValueError, match=r"prediction_m: got shape \(1, 2\), expected \(2, 2\)"):
        metrics.abs_rel(TRUTH[:1], TRUTH, ALL)


class TestBoundaryF1:
    truth = torch.tensor([[1.0, 2.0], [1.0, 1.0]])  # one pixel farther than its left and lower ones

    def score(self, prediction: list[list[float]]) -> float:
        return metrics.boundary_f1(torch.tensor(prediction), self.truth, ALL)

    def test_contours_at_the_low_thresholds_only(self):
        # 1.05, 1.0722 and 1.0944 of ten thresholds that add up to 11.5 see a step of 1.1
        seen = (1.05 + (1.05 + 0.2 / 9) + (1.05 + 0.4 / 9)) / 11.5
        assert self.score([[1.0, 1.1], [1.0, 1.0]]) == pytest.approx(seen, rel=1e-12)

    def test_one_hit_one_miss_one_false(self):
        # Farther at the top: both columns, one of them rightly, P = 1/2, R = 1.
        # Farther at the right: missed, P = R = 0. Means 1/4 and 1/2.
        expected = 2 * (1 / 4) * (1 / 2) / (1 / 4 + 1 / 2)
        assert self.score([[2.0, 2.0], [1.0, 1.0]]) == pytest.approx(expected, rel=1e-12)

    def test_contours_where_the_truth_has_none_cost_precision(self):
        # Right and top as in the truth; left and bottom false: P = 1/2 of four directions, R = 1.
        prediction = [[1.0, 2.0], [1.5, 1.0]]
        assert self.score(prediction) == pytest.approx(2 * (1 / 2) / (3 / 2), rel=1e-12)

    def test_a_missing_prediction_has_no_contour(self):
        assert self.score([[1.0, NAN], [1.0, 1.0]]) == 0
        # found at the top, lost at the right
        assert self.score([[NAN, 2.0], [1.0, 1.0]]) == 0.5

    def test_scale_changes_nothing(self):
        assert metrics.boundary_f1(7 * self.truth, self.truth, ALL) == 1

    def test_pairs_with_an_invalid_pixel_do_not_count(self):
        truth = torch.tensor([[1.0, 2.0, NAN, 1.0, 3.0]])
        valid = torch.tensor([[True, True, False, False, True]])
        prediction = torch.tensor([[1.0, 2.0, 9.0, 0.1, 3.0]])
        assert metrics.boundary_f1(prediction, truth, valid) == 1

    def test_no_contour_to_find(self):
        assert math.isnan(metrics.boundary_f1(TRUTH, torch.ones(2, 2), ALL))

    def test_equals_depth_pro_where_all_directions_have_contours(self):
        random = np.random.default_rng(0)
        truth = np.exp(random.normal(0, 0.1, (12, 15)))
        prediction = truth * np.exp(random.normal(0, 0.05, truth.shape))
        thresholds = np.linspace(1.05, 1.25, 10)
        scores = []
        for threshold in thresholds:
            shares = []
            for turns in range(4):  # farther at the right of the turned image
                found, true = (
                    np.rot90(depth, turns)[:, 1:] > threshold * np.rot90(depth, turns)[:, :-1]
                    for depth in (prediction, truth)
                )
                hits = (found & true).sum()
                shares.append((hits / found.sum(), hits / true.sum()))
            precision, recall = np.mean(shares, axis=0)
            scores.append(2 * precision * recall / (precision + recall))
        expected = np.average(scores, weights=thresholds)

        maps = torch.from_numpy(prediction), torch.from_numpy(truth), torch.ones(12, 15).bool()
        assert 0.2 < expected < 0.9
        assert metrics.boundary_f1(*maps) == pytest.approx(expected, rel=1e-12)


class TestAligned:
    def test_by_hand(self):
        # p = 1, 1, 2, 4: sums of p z and p² are 1 + 2 + 8 + 40 = 51 and 1 + 1 + 4 + 16 = 22
        prediction = torch.tensor([[1.0, 1.0], [2.0, 4.0]])
        fitted = metrics.aligned(prediction, TRUTH, ALL, "scale")
        assert torch.equal(fitted, prediction.double() * (51 / 22))

        # p about its mean of 2: -1, -1, 0, 2; times z - 4.25: 3.25 + 2.25 + 0 + 11.5 = 17, over 6
        fitted = metrics.aligned(prediction, TRUTH, ALL, "scale_shift")
        expected = 4.25 + 17 / 6 * (prediction.double() - 2)
        torch.testing.assert_close(fitted, expected, rtol=1e-12, atol=0)

    @pytest.mark.parametrize("shift", [False, True])
    @pytest.mark.parametrize("disparity", [False, True])
    def test_agrees_with_least_squares_of_numpy(self, disparity: bool, shift: bool):
        random = np.random.default_rng(3)
        truth = random.uniform(1, 5, (20, 30))
        prediction = 0.4 * truth + 1 + random.normal(0, 0.05, truth.shape)
        valid = random.random(truth.shape) < 0.7
        prediction[random.random(truth.shape) < 0.1] = NAN
        power = -1 if disparity else 1
        p, z = prediction**power, truth**power
        used = valid & ~np.isnan(p)
        columns = np.stack([p, np.ones_like(p)] if shift else [p], axis=-1)
        solution = np.linalg.lstsq(columns[used], z[used], rcond=None)[0]
        expected = (columns @ solution) ** power

        name = ("disparity_" if disparity else "") + ("scale_shift" if shift else "scale")
        found = metrics.aligned(*map(torch.from_numpy, (prediction, truth, valid)), name)
        np.testing.assert_allclose(found.numpy(), np.where(np.isnan(p), NAN, expected), rtol=1e-9)

    def test_constant_predictions_fit_as_the_mean(self):
        fitted = metrics.aligned(torch.full((2, 2), 0.1), TRUTH, ALL, "scale_shift")
        assert torch.equal(fitted, torch.full((2, 2), 4.25, dtype=torch.float64))

    def test_what_the_fit_takes_below_zero_is_missing(self):
        truth = torch.tensor([[1.0, 2.0, 3.0, 1.0]])
        prediction = torch.tensor([[11.0, 12.0, 13.0, 9.0]])
        valid = torch.tensor([[True, True, True, False]])
        fitted = metrics.aligned(prediction, truth, valid, "scale_shift")
        assert fitted[0, :3].tolist() == pytest.approx([1, 2, 3])
        assert math.isnan(fitted[0, 3])

    def test_nothing_to_fit(self):
        nothing = torch.full((2, 2), NAN)
        for name in ("scale", "disparity_scale_shift"):
            fitted = metrics.aligned(nothing, TRUTH, ALL, name)
            assert metrics.abs_rel(fitted, TRUTH, ALL) == 1


class TestDisparity:
    def test_by_hand(self):
        # disparities 2, 1, 0.5, 0.2 px; predicted 2.6, 1.06, missing, 0.2
        prediction = torch.tensor([[2 / 2.6, 2 / 1.06], [NAN, 10.0]])
        found = metrics.disparity_metrics(prediction, TRUTH, ALL, disparity_px_m=2.0)

        assert found.pop("bumpiness") > 0
        assert found == pytest.approx(
            {
                "mse": (0.36 + 0.0036 + 0.25 + 0) / 4,
                "rmse": math.sqrt((0.36 + 0.0036 + 0.25 + 0) / 4),
                "abs_rel": (0.3 + 0.06 + 1 + 0) / 4,
                "delta_1.25": 0.5,  # ratios 1.3, 1.06, infinite, 1
                "delta_1.25^2": 0.75,
                "delta_1.25^3": 0.75,
                "bad_pixel_0.07": 0.5,
            },
            rel=1e-6,
        )

    def test_bumpiness_is_that_of_dfv(self):
        random = np.random.default_rng(5)
        truth_px = random.uniform(0.05, 0.25, (15, 20))
        prediction_px = truth_px + random.normal(0, 0.01, truth_px.shape)
        valid = random.random(truth_px.shape) < 0.9
        along_x = np.outer([3, 10, 3], [-1, 0, 1]) / 16
        filters = along_x, along_x.T
        difference = prediction_px - np.where(valid, truth_px, 0)
        first = [convolve(difference, one, mode="reflect") for one in filters]
        second = [convolve(plane, one, mode="reflect") for plane in first for one in filters]
        norm = np.sqrt(sum(plane**2 for plane in second))
        expected = 100 * norm.clip(0, 0.05)[valid].mean()

        maps = (torch.from_numpy(0.14 / plane) for plane in (prediction_px, truth_px))
        found = metrics.disparity_metrics(*maps, torch.from_numpy(valid), disparity_px_m=0.14)
        assert 2 < expected < 5
        assert found["bumpiness"] == pytest.approx(expected, rel=1e-9)
