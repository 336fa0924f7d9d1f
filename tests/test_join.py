"""A prior joined with physics: it helps where defocus is silent, and loses where it lies."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sample_stacks import FOCUS_M, SIZE, native, photograph, texture
from torch import Tensor

from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.priors.given import GivenPrior
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import Estimate, estimate_depth, recover
from focaldiffusion.solve import prior_fit
from focaldiffusion.solve.join import Joined, join, why_refused
from focaldiffusion.solve.prior_fit import (
    Fit,
    Regions,
    bent,
    beyond_quadric,
    corrected,
    edges_at_steps,
    likely_fits,
    nearer_side,
    predicts,
    steps_on_edges,
)
from focaldiffusion.stack import FocalStack

Y, X = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
CARD = (Y >= 24) & (Y < 60) & (X >= 10) & (X < 50)
LARGE = CARD.repeat_interleave(4, 0).repeat_interleave(4, 1)
BARE = (X >= 66) & (Y >= 8)
"""Part of the wall without texture, at least 16 px wide in all directions."""
DOME_DPT = 0.4 * torch.exp(-(((X - 82) / 8) ** 2 + ((Y - 40) / 12) ** 2))
TRUTH_DPT = torch.where(CARD, 1.8, 0.55 + 0.5 * Y / SIZE[0] + DOME_DPT)
NEAR_DPT, FAR_DPT = 2.0, 0.5


def photographed(focus_m: Sequence[float] = FOCUS_M) -> tuple[FocalStack, Estimate]:
    """A textured card before a slanted wall, with a bare dome on its right."""
    image = torch.where(CARD, 0.6 * texture(seed=1), texture())
    image = torch.where(BARE, image.mean(), image)
    stack = photograph(image, 1 / TRUTH_DPT, focus_m)
    return stack, estimate_depth(stack, PSF())


@pytest.fixture(scope="module")
def scene() -> tuple[FocalStack, Estimate]:
    return photographed()


@pytest.fixture(scope="module", params=[(0.5, 2.0), (0.5, 1.0), (0.5, 1.0, 2.0)])
def few_frames(request: pytest.FixtureRequest) -> tuple[FocalStack, Estimate]:
    return photographed(request.param)


def joined(scene: tuple[FocalStack, Estimate], prior: Prior) -> Joined:
    stack, found = scene
    surface = found.evidence, found.coordinate, found.agreement, found.confidence
    return join(stack, *surface, prior, found.calibration.blur_scale, found.psf)


def prior_of(values: Tensor, kind: PriorKind = PriorKind.AFFINE_INVERSE_DEPTH) -> Prior:
    return Prior(values.float(), kind, "by hand")


def error(coordinate: Tensor, where: Tensor | None = None) -> float:
    """Mean relative error of inverse depth."""
    relative = (coordinate / TRUTH_DPT - 1).abs()
    return float(relative[BARE if where is None else where].mean())


PRIORS = {
    PriorKind.AFFINE_INVERSE_DEPTH: 3 * TRUTH_DPT - 7,
    PriorKind.METRIC_DEPTH: 1.3 / TRUTH_DPT,
    PriorKind.AFFINE_DEPTH: 0.4 / TRUTH_DPT + 5,
}


@pytest.mark.parametrize("kind", PriorKind)
def test_the_true_shape_in_any_scale_completes_what_is_bare(scene, kind):
    result = joined(scene, prior_of(PRIORS[kind], kind))
    assert result.accepted
    assert error(result.coordinate) < 0.5 * error(scene[1].coordinate)
    assert error(result.coordinate, CARD) < 1.1 * error(scene[1].coordinate, CARD)


def test_the_prior_decides_where_defocus_is_silent(scene):
    result = joined(scene, prior_of(TRUTH_DPT))
    assert result.share[BARE].mean() > 0.9
    assert result.share[CARD].mean() < 0.6
    assert 0 <= result.share.min() <= result.share.max() <= 1


HOSTILE = {
    "constant": torch.ones(SIZE),
    "inverted": -TRUTH_DPT,
    "noise": torch.rand(SIZE, generator=torch.Generator().manual_seed(0)),
    "another scene": torch.where((X > 30) & (Y > 40), 3.0, 1.0 + X / 50),
    "floor": Y / SIZE[0],
    "bowl": ((X - SIZE[1] / 2) / SIZE[1]) ** 2 + (Y / SIZE[0]) ** 2,
    "ramp": torch.tanh((Y - SIZE[0] / 2) / 10),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_prior_changes_nothing(scene, name):
    result = joined(scene, prior_of(HOSTILE[name]))
    assert not result.accepted
    assert torch.equal(result.coordinate, scene[1].coordinate)
    assert not result.share.any()


def test_two_or_three_frames_give_the_scale_and_the_prior_the_shape(few_frames):
    result = joined(few_frames, prior_of(3 * TRUTH_DPT - 7))
    assert result.accepted
    assert error(result.coordinate) < 0.5 * error(few_frames[1].coordinate)
    assert error(result.coordinate, CARD) < error(few_frames[1].coordinate, CARD)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_prior_changes_nothing_of_two_or_three_frames(few_frames, name):
    result = joined(few_frames, prior_of(HOSTILE[name]))
    assert not result.accepted
    assert torch.equal(result.coordinate, few_frames[1].coordinate)


def test_where_the_prior_is_unknown_physics_stays(scene):
    unknown = X >= 80
    result = joined(scene, prior_of(TRUTH_DPT.masked_fill(unknown, math.nan)))
    assert result.accepted
    assert torch.equal(result.coordinate[unknown], scene[1].coordinate[unknown])
    assert not result.share[unknown].any()


@pytest.mark.parametrize("spacing_px", [2, 4])
def test_gaps_between_the_values_of_a_lidar_are_filled(scene, spacing_px):
    is_hit = (X % spacing_px == 1) & (Y % spacing_px == 0)
    result = joined(scene, prior_of((2 * TRUTH_DPT).masked_fill(~is_hit, math.nan)))
    dense = joined(scene, prior_of(2 * TRUTH_DPT))
    assert result.accepted
    assert error(result.coordinate) < 0.5 * (error(scene[1].coordinate) + error(dense.coordinate))
    # All between them is decided alike, not the hits alone.
    assert result.share[is_hit].mean() == pytest.approx(
        float(result.share[~is_hit].mean()), rel=0.1
    )


def test_a_prior_of_another_size_is_resampled(scene):
    larger = prior_of(TRUTH_DPT).values.repeat_interleave(3, 0).repeat_interleave(3, 1)
    same, large = joined(scene, prior_of(TRUTH_DPT)), joined(scene, prior_of(larger))
    assert torch.allclose(same.coordinate, large.coordinate, atol=1e-5)


@pytest.mark.parametrize("reversed_order", [False, True])
def test_without_metres_either_end_of_the_sweep_may_be_near(scene, reversed_order):
    images = scene[0].images.flip(0) if reversed_order else scene[0].images
    stack = FocalStack(images)
    found = estimate_depth(stack, PSF())
    result = joined((stack, found), prior_of(5 * TRUTH_DPT))
    assert result.accepted
    place = (2.0 - TRUTH_DPT) / 1.5
    place = 1 - place if reversed_order else place
    surfaces = found.coordinate, result.coordinate
    before, after = ((one - place).abs()[BARE].mean() for one in surfaces)
    assert after < before


@pytest.mark.parametrize("name", ["constant", "noise", "another scene", "floor"])
def test_a_hostile_prior_changes_nothing_without_metres(scene, name):
    stack = FocalStack(scene[0].images)
    found = estimate_depth(stack, PSF())
    result = joined((stack, found), prior_of(HOSTILE[name]))
    assert not result.accepted
    assert torch.equal(result.coordinate, found.coordinate)


def test_the_result_says_what_the_prior_did(scene, tmp_path: Path):
    stack = replace(scene[0], frames=native(scene[0]))
    result = recover(stack, prior=GivenPrior(prior_of(TRUTH_DPT)), physical=scene[1])
    assert result.prior_share is not None
    result.save(tmp_path)
    summary = json.loads((tmp_path / "metadata.json").read_text())["prior"]
    assert (summary["name"], summary["kind"]) == ("by hand", "affine-inverse-depth")
    assert summary["accepted"]
    assert summary["refused"] is None
    assert summary["share"] == pytest.approx(float(result.prior_share.mean()), abs=1e-6)
    picture = cv2.imread(str(tmp_path / "prior_share.png"), cv2.IMREAD_UNCHANGED)
    assert np.abs(picture / 255 - result.prior_share).max() <= 0.5 / 255 + 1e-6


def test_steps_move_to_the_edges_of_the_image():
    image = torch.where(CARD, 0.2, 0.8).expand(3, *SIZE)
    truth = CARD.float().numpy()
    moved = np.roll(cv2.GaussianBlur(truth, (0, 0), 1.5), 2, axis=1)
    placed = steps_on_edges(moved, image)
    assert np.abs(placed - truth).mean() < 0.2 * np.abs(moved - truth).mean()


def test_evidence_beside_a_step_counts_for_the_nearer_side_alone():
    weight = nearer_side(CARD.float().numpy())
    beside = (X >= 50) & (X < 53) & (Y >= 30) & (Y < 50)
    assert weight[CARD.numpy()].min() == 1
    assert weight[beside.numpy()].max() < 1e-3
    assert weight[(X > 70).numpy()].min() == 1


def regions(level: np.ndarray, prior: np.ndarray) -> Regions:
    count = len(level)
    return Regions(prior, level, np.ones(count), np.ones(count), np.arange(count) % 6)


def test_most_regions_agree_on_scale_and_shift():
    prior = np.linspace(0, 1, 12)
    level = 1.5 * prior + 0.5
    level[[2, 7]] *= 2  # two regions about which the network errs
    best = likely_fits(regions(level, prior), prior[None], NEAR_DPT, FAR_DPT)[0]
    assert best.scale == pytest.approx(1.5, rel=0.01)
    assert best.shift == pytest.approx(0.5, rel=0.05)
    assert best.agreed > 0.8


def test_a_scale_is_never_negative():
    prior = np.linspace(0, 1, 12)
    fits = likely_fits(regions(2 - prior, prior), prior[None], NEAR_DPT, FAR_DPT)
    assert all(fit.scale >= 0 for fit in fits)


def test_fits_differ_clearly():
    prior = np.linspace(0, 1, 12)
    level = 0.5 + np.random.default_rng(0).uniform(0, 1.5, 12)
    fits = likely_fits(regions(level, prior), prior[None], NEAR_DPT, FAR_DPT)
    scales = sorted(fit.scale for fit in fits)
    assert len(fits) > 1
    assert [one.agreed for one in fits] == sorted((one.agreed for one in fits), reverse=True)
    assert np.diff(scales).min() > 0.1


def test_a_prior_predicts_physics_or_does_not():
    prior = np.linspace(0, 1, 12)
    seen = regions(1.5 * prior + 0.5, prior)
    assert predicts(seen, Fit(1.5, 0.5, 1.0), NEAR_DPT, FAR_DPT) == pytest.approx(0, abs=1e-9)
    assert predicts(seen, Fit(0.0, 0.5, 1.0), NEAR_DPT, FAR_DPT) == 1
    nothing = regions(np.ones(12), prior)
    assert predicts(nothing, Fit(0.0, 1.0, 1.0), NEAR_DPT, FAR_DPT) == 1


def test_steps_of_a_prior_lie_on_edges_of_its_image_alone():
    image = torch.where(LARGE, 0.2, 0.8).expand(3, *LARGE.shape)
    known, card = np.ones(LARGE.shape, bool), LARGE.double().numpy()
    assert edges_at_steps(card, known, image) > 0.1
    # A network draws outlines two pixels off.
    assert edges_at_steps(np.roll(card, 2, (0, 1)), known, image) > 0.1
    # A mirrored card has its steps where there is nothing, and edges at those of its mirror image.
    assert edges_at_steps(card[:, ::-1].copy(), known, image) < -0.1


def test_a_mirrored_prior_is_refused_for_its_steps(scene, monkeypatch):
    mirrored = prior_of(torch.where(CARD, 1.8, 0.6).flip(1))
    assert joined(scene, mirrored).prior["on_edges"] is None  # too few of them in so small an image
    monkeypatch.setattr(prior_fit, "_FEW_STEPS", 50)
    result = joined(scene, mirrored)
    assert not result.accepted
    assert result.prior["refused"] == "its depth steps miss the edges of the image"


def test_priors_whose_steps_tell_nothing_are_not_judged_by_them():
    image = torch.where(LARGE, 0.2, 0.8).expand(3, *LARGE.shape)
    known, card = np.ones(LARGE.shape, bool), LARGE.double().numpy()
    slope = np.linspace(0, 1, LARGE.shape[0])[:, None] * np.ones(LARGE.shape)
    assert edges_at_steps(slope, known, image) is None
    # Where the prior ends, it has no step.
    assert edges_at_steps(card, LARGE.numpy(), image) is None
    # An image with edges everywhere has them at any outline.
    noise = torch.rand(3, *LARGE.shape, generator=torch.Generator().manual_seed(0))
    assert edges_at_steps(card, known, noise) is None


def test_what_a_prior_knows_beyond_a_smooth_surface():
    level, sure = TRUTH_DPT.double().numpy(), np.ones(SIZE)
    y, x = Y.numpy() / SIZE[0], X.numpy() / SIZE[1]
    bowl = np.exp(0.3 + x - y + 0.5 * x * x - x * y)
    assert beyond_quadric(level, level, sure) == pytest.approx(1)
    assert beyond_quadric(2 * level**1.5 * bowl, level, sure) == pytest.approx(1)
    assert beyond_quadric(1 / level, level, sure) == pytest.approx(-1)
    # Rounding aside, a quadric has nothing left to compare, nor has an image without sure pixels.
    assert beyond_quadric(bowl, level, sure) == 0
    assert beyond_quadric(level, bowl, sure) == 0
    assert beyond_quadric(level, level, np.zeros(SIZE)) == 0


def test_a_smooth_prior_is_refused_for_knowing_nothing_else(scene):
    # The wall behind the card is such a slope, so it predicts most of the scene.
    result = joined(scene, prior_of(Y / SIZE[0]))
    assert result.prior["refused"] == "it follows sure depth no better than a smooth surface does"


@pytest.mark.parametrize(
    ("on_edges", "beyond", "error", "rendered", "reason"),
    [
        (0.1, 0.7, 0.4, 1.2, None),
        (None, 0.7, 0.4, 1.2, None),  # too few steps to judge
        (0.0, 0.7, 0.4, 0.9, "its depth steps miss the edges of the image"),
        (0.1, 0.5, 0.4, 1.0, "it follows sure depth no better than a smooth surface does"),
        (0.1, 0.5, 0.4, 0.9, None),  # the frames speak for it
        (0.1, 0.7, 1.0, 1.0, "the frames contradict it"),
        (0.1, 0.8, 1.0, 1.0, None),  # far beyond a smooth surface, it predicts enough
        (0.1, 0.8, 1.0, 1.2, "the frames contradict it"),
        (0.1, 0.7, 0.4, None, None),  # nothing can be rendered
        (0.1, 0.7, 0.6, None, "the frames contradict it"),
    ],
)
def test_the_judge(on_edges, beyond, error, rendered, reason):
    judged = {"on_edges": on_edges, "beyond_quadric": beyond}
    assert why_refused(judged | {"predicts": error, "rendered": rendered}) == reason


def test_a_curve_over_the_prior_brings_it_to_physics():
    level = TRUTH_DPT.double().numpy()
    shape = level**1.3
    sure = np.where(CARD.numpy() | BARE.numpy(), 0.0, 0.5)  # where the same depths are seen
    before, after = (np.abs(one / level - 1)[BARE] for one in (shape, bent(shape, level, sure)))
    assert after.mean() < 0.3 * before.mean()
    sure[::7, ::5] = 0.5
    level[::7, ::5] *= 3  # physics errs now and then
    again = np.abs(bent(shape, level, sure) / TRUTH_DPT.numpy() - 1)[BARE]
    assert again.mean() < 0.5 * before.mean()


def test_a_correction_reaches_physics_and_fades():
    shape, level = np.ones((64, 256)), np.full((64, 256), 1.2)
    sure = np.zeros((64, 256))
    sure[:, :20] = 1.0
    result = corrected(shape, level, sure)
    assert result[:, :15] == pytest.approx(1.2, rel=1e-2)
    assert result[:, -15:] == pytest.approx(1.0, rel=1e-2)
