from __future__ import annotations

import numpy as np
import pytest
import torch

from focaldiffusion.evaluation import calibration, metrics

NAN = float("nan")
TRUTH = torch.tensor([[1.0, 2.0], [4.0, 10.0]])
ALL = torch.ones(2, 2, dtype=torch.bool)


class TestAbsRelConfident:
    prediction = torch.tensor([[1.1, 2.4], [5.2, 14.0]])  # relative errors .1, .2, .3, .4

    def score(self, confidence: list[list[float]], share: float) -> float:
        return calibration.abs_rel_confident(
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
        # .1 is in; the other three share one place
        assert self.score([[0.9, 0.5], [0.5, 0.5]], 0.5) == pytest.approx((0.1 + 0.3) / 2, rel=1e-6)
        for share in (0.01, 0.3, 0.5, 1.0):
            assert self.score([[0.5, 0.5], [0.5, 0.5]], share) == pytest.approx(0.25, rel=1e-6)

    def test_invalid_pixels_take_no_place_and_missing_ones_do(self):
        valid = torch.tensor([[True, True], [False, True]])
        prediction = torch.tensor([[NAN, 2.4], [5.2, 14.0]])
        confidence = torch.tensor([[0.9, 0.8], [NAN, 0.1]])
        score = calibration.abs_rel_confident(prediction, TRUTH, valid, confidence, 2 / 3)
        assert score == pytest.approx((1 + 0.2) / 2, rel=1e-6)

    def test_pixel_order_does_not_matter(self):
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
        assert calibration.abs_rel_confident(*maps) == pytest.approx(
            calibration.abs_rel_confident(prediction, truth, valid, confidence), rel=1e-12
        )

    def test_refuses_nonsense(self):
        with pytest.raises(ValueError, match="share is 0; expected 0 < share <= 1"):
            self.score([[1.0, 1.0], [1.0, 1.0]], 0)
        with pytest.raises(ValueError, match="confidence is NaN"):
            self.score([[NAN, 1.0], [1.0, 1.0]], 0.5)


class TestAuse:
    prediction = torch.tensor([[1.1, 2.4], [5.2, 14.0]])  # relative errors .1, .2, .3, .4

    def score(self, confidence: list[list[float]]) -> float:
        return calibration.ause(self.prediction, TRUTH, ALL, torch.tensor(confidence))

    def test_by_hand(self):
        # Best first .1 .2 .3 .4: means .1 .15 .2 .25. Worst first .4 .3 .2 .1: .4 .35 .3 .25.
        assert self.score([[0.9, 0.8], [0.2, 0.1]]) == 0
        worst = (0.3 + 0.2 + 0.1 + 0) / 4
        assert self.score([[0.1, 0.2], [0.8, 0.9]]) == pytest.approx(worst, rel=1e-6)

    def test_ties_are_the_mean_over_their_orders(self):
        # Constant confidence: .25 for any share. Errors .2 and .3 tied: .1 .175 .2 .25.
        assert self.score([[1, 1], [1, 1]]) == pytest.approx((0.15 + 0.1 + 0.05) / 4, rel=1e-6)
        assert self.score([[3, 2], [2, 1]]) == pytest.approx(0.025 / 4, rel=1e-5)

    def test_perfect_depth_needs_no_ranking(self):
        confidence = torch.rand(2, 2, generator=torch.Generator().manual_seed(0))
        assert calibration.ause(TRUTH, TRUTH, ALL, confidence) == 0

    def test_agrees_with_a_loop_over_shares(self):
        prediction, truth, valid, confidence = random_maps()
        error = (prediction[valid] - truth[valid]).abs() / truth[valid]
        count = len(error)
        excess = 0.0
        for places in range(1, count + 1):
            oracle = error.sort().values[:places].mean().item()
            share = places / count
            excess += (
                calibration.abs_rel_confident(prediction, truth, valid, confidence, share) - oracle
            )
        found = calibration.ause(prediction, truth, valid, confidence)
        assert found == pytest.approx(excess / count, rel=1e-9)

    def test_refuses_nan(self):
        with pytest.raises(ValueError, match="confidence is NaN"):
            self.score([[NAN, 1.0], [1.0, 1.0]])


class TestDeciles:
    def test_ten_pixels_one_per_decile(self):
        truth = torch.ones(2, 5)
        error = torch.tensor([[0.0, 0.01, 0.02, 0.04, 0.06], [0.08, 0.2, 0.3, 0.5, 0.9]])
        confidence = 1 - error
        found = calibration.deciles(truth + error, truth, truth.bool(), confidence)

        assert [one.abs_rel for one in found] == pytest.approx(
            error.flatten().tolist()[::-1], abs=1e-6
        )
        for one in found:
            assert one.mean_confidence == pytest.approx(1 - one.abs_rel, abs=1e-6)
        assert [one.within_5_percent for one in found] == pytest.approx([0] * 6 + [1] * 4)
        assert [one.within_10_percent for one in found] == pytest.approx([0] * 4 + [1] * 6)
        assert sum(one.share for one in found) == pytest.approx(1)

    def test_four_pixels_are_cut_into_tenths(self):
        # A decile is 0.4 pixels: the third takes 0.2 of the least and 0.2 of the next.
        prediction = torch.tensor([[1.1, 2.4], [5.2, 14.0]])
        found = calibration.deciles(prediction, TRUTH, ALL, torch.tensor([[4.0, 3.0], [2.0, 1.0]]))
        errors = [0.4, 0.4, 0.35, 0.3, 0.3, 0.2, 0.2, 0.15, 0.1, 0.1]
        assert [one.abs_rel for one in found] == pytest.approx(errors, rel=1e-5)

    def test_constant_confidence_has_equal_deciles(self):
        prediction, truth, valid, _ = random_maps()
        found = calibration.deciles(prediction, truth, valid, torch.ones(20, 30))
        expected = metrics.abs_rel(prediction, truth, valid)
        for one in found:
            assert one.abs_rel == pytest.approx(expected, rel=1e-9)
            assert one.mean_confidence == pytest.approx(1, rel=1e-12)

    def test_agrees_with_many_orders_of_the_ties(self):
        prediction, truth, valid, confidence = random_maps()
        error = ((prediction - truth).abs() / truth)[valid].numpy()[:500]
        sureness = confidence[valid].numpy()[:500]
        random = np.random.default_rng(0)
        total = np.zeros(10)
        for _ in range(2000):
            order = np.lexsort((random.random(500), sureness))
            total += error[order].reshape(10, 50).mean(1)
        only = torch.zeros(20, 30, dtype=torch.bool)
        rows, columns = torch.nonzero(valid, as_tuple=True)
        only[rows[:500], columns[:500]] = True
        found = calibration.deciles(prediction, truth, only, confidence)
        # The spread of a decile's mean over 2000 orders is about 0.0002.
        assert [one.abs_rel for one in found] == pytest.approx(total / 2000, abs=1e-3)


def random_maps() -> tuple[torch.Tensor, ...]:
    """Depth with a partly correct confidence of five levels, float64."""
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(20, 30, generator=random, dtype=torch.float64) + 0.5
    error = 0.1 * torch.randn(20, 30, generator=random, dtype=torch.float64)
    noise = 0.2 * torch.rand(20, 30, generator=random, dtype=torch.float64)
    confidence = (20 * (error.abs() + noise)).neg().exp().mul(5).round()
    valid = torch.rand(20, 30, generator=random) < 0.9
    return truth * (1 + error), truth, valid, confidence
