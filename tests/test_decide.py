from __future__ import annotations

import numpy as np
import pytest
import torch
from sample_stacks import BLUR_SCALE_PX_M, SIZE, photograph, texture
from torch import Tensor

from focaldiffusion.evidence import Evidence
from focaldiffusion.psf import PSF
from focaldiffusion.solve import decide
from focaldiffusion.solve.consistency import Rerendering, in_step
from focaldiffusion.solve.decide import better_levels, second_fits_better
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.stack import FocalStack

NEAR_DPT, FAR_DPT = 5 / 3, 2 / 3
Y, X = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
CARD = (Y >= 20) & (Y < 52) & (X >= 30) & (X < 66)
LEFT = CARD & (X < 48)
TRUTH = torch.where(CARD, NEAR_DPT, FAR_DPT)
NOWHERE = torch.zeros(SIZE, dtype=torch.bool)
DIFFERENT_DPT = 1 / BLUR_SCALE_PX_M


@pytest.fixture(scope="module")
def card() -> tuple[FocalStack, Evidence]:
    """A textured card before a textured wall."""
    image = torch.where(CARD, 0.5 * texture(seed=1), texture())
    stack = photograph(image, 1 / TRUTH)
    return stack, sweep(stack, BLUR_SCALE_PX_M, PSF())


def fits_better(
    photographed: tuple[FocalStack, Evidence],
    first: Tensor,
    second: Tensor,
    segments: Tensor | None = None,
) -> Tensor:
    segments = CARD.long() if segments is None else segments
    search = second_fits_better(rerendering(photographed), first, second, segments, DIFFERENT_DPT)
    return in_step([search])[0]


def levels_of(
    photographed: tuple[FocalStack, Evidence],
    surface: Tensor,
    segments: Tensor,
    levels: list[np.ndarray],
) -> Tensor:
    search = better_levels(rerendering(photographed), surface, segments, levels, DIFFERENT_DPT)
    return in_step([search])[0]


def rerendering(photographed: tuple[FocalStack, Evidence]) -> Rerendering:
    stack, evidence = photographed
    focus = stack.focus_coordinates
    return Rerendering(stack, evidence, focus, BLUR_SCALE_PX_M, PSF(), max(SIZE))


def test_the_true_surface_wins_whichever_is_first(card):
    without_card = torch.full(SIZE, FAR_DPT)
    assert torch.equal(fits_better(card, without_card, TRUTH), CARD)
    assert torch.equal(fits_better(card, TRUTH, without_card), NOWHERE)


@pytest.mark.parametrize("moved_dpt", [-0.5, 0.3])
def test_an_object_at_its_true_depth_wins_over_one_moved(card, moved_dpt):
    moved = torch.where(CARD, NEAR_DPT + moved_dpt, FAR_DPT)
    assert torch.equal(fits_better(card, moved, TRUTH), CARD)
    assert torch.equal(fits_better(card, TRUTH, moved), NOWHERE)


def test_an_object_moves_as_a_whole_though_each_of_its_segments_is_too_small(card):
    tiles = torch.where(CARD, 1 + (Y // 4) * SIZE[1] + X // 4, 0)
    assert tiles[CARD].bincount().max() < decide._SMALLEST_PX
    taken = fits_better(card, torch.full(SIZE, FAR_DPT), TRUTH, tiles)
    assert torch.equal(taken, CARD)


def test_each_region_is_decided_for_itself(card):
    # The second surface is right about the card and wrong about a patch of the wall.
    patch = (Y >= 24) & (Y < 48) & (X >= 74) & (X < 92)
    first = torch.full(SIZE, FAR_DPT)
    second = torch.where(patch, NEAR_DPT, TRUTH)
    assert torch.equal(fits_better(card, first, second), CARD)
    assert torch.equal(fits_better(card, second, first), patch)


def test_one_segment_of_a_region_is_decided_where_the_whole_is_not(card):
    # Half of the card is right in the second surface. The other half is as wrong as before, and
    # too far on the other side.
    first = torch.where(CARD, NEAR_DPT - 0.3, FAR_DPT)
    second = torch.where(CARD & ~LEFT, NEAR_DPT + 0.4, TRUTH)
    segments = CARD.long() + LEFT
    assert torch.equal(fits_better(card, first, second, segments), LEFT)
    # Within one segment nothing is taken, for half of it would be worse.
    assert torch.equal(fits_better(card, first, second), NOWHERE)


def test_equal_surfaces_change_nothing(card):
    assert torch.equal(fits_better(card, TRUTH, TRUTH.clone()), NOWHERE)


def test_a_difference_below_a_pixel_of_blur_changes_nothing(card):
    wrong = TRUTH + 0.9 * DIFFERENT_DPT
    assert torch.equal(fits_better(card, wrong, TRUTH), NOWHERE)


def test_regions_of_a_few_pixels_are_left_as_they_are(card):
    speck = (Y >= 30) & (Y < 34) & (X >= 40) & (X < 44)
    assert speck.sum() < decide._SMALLEST_PX
    wrong = torch.where(speck, FAR_DPT, TRUTH)
    assert torch.equal(fits_better(card, wrong, TRUTH), NOWHERE)


@pytest.mark.parametrize("noise_std_lsb", [0.5, 3.0])
def test_noise_alone_changes_nothing(noise_std_lsb):
    # A bare picture looks alike at every depth.
    stack = photograph(0.3, 1 / TRUTH, noise_std_lsb=noise_std_lsb)
    bare = stack, sweep(stack, BLUR_SCALE_PX_M, PSF())
    level = torch.full(SIZE, FAR_DPT)
    assert torch.equal(fits_better(bare, TRUTH, level), NOWHERE)
    assert torch.equal(fits_better(bare, level, TRUTH), NOWHERE)


def test_noise_of_depth_is_not_taken(card):
    # Two pixels of blur, independently in each pixel.
    noise = torch.randn(SIZE, generator=torch.Generator().manual_seed(0)) * 2 / BLUR_SCALE_PX_M
    assert torch.equal(fits_better(card, TRUTH, TRUTH + noise), NOWHERE)


def test_surfaces_may_be_smaller_than_the_stack(card):
    half = (slice(None, None, 2),) * 2
    first = torch.full(SIZE, FAR_DPT)[half]
    taken = fits_better(card, first, TRUTH[half], CARD.long()[half])
    assert torch.equal(taken, CARD[half])


@pytest.mark.parametrize("wrong_dpt", [FAR_DPT, NEAR_DPT + 0.5])
def test_a_segment_at_a_wrong_depth_takes_the_level_that_fits_best(card, wrong_dpt):
    surface = torch.where(CARD, wrong_dpt, FAR_DPT)
    levels = [torch.tensor([NEAR_DPT]).numpy(), torch.tensor([1.2, NEAR_DPT, 2.0]).numpy()]
    found = levels_of(card, surface, CARD.long(), levels)
    assert found[CARD].unique().tolist() == pytest.approx([NEAR_DPT])
    assert found[~CARD].isnan().all()


def test_a_right_surface_keeps_its_levels(card):
    levels = [torch.tensor([NEAR_DPT]).numpy(), torch.tensor([FAR_DPT, 1.2]).numpy()]
    found = levels_of(card, TRUTH, CARD.long(), levels)
    assert found.isnan().all()


def test_neighbours_at_wrong_depths_are_mended_one_after_another(card):
    parts = torch.where(LEFT, 1, torch.where(CARD, 2, 0))
    levels = [torch.tensor([]).numpy(), *2 * [torch.tensor([1.2, NEAR_DPT]).numpy()]]
    surface = torch.full(SIZE, FAR_DPT)
    found = levels_of(card, surface, parts, levels)
    assert found[CARD].unique().tolist() == pytest.approx([NEAR_DPT])
