from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from pipelines import of_grade, slanted_plane
from sample_stacks import BLUR_SCALE_PX_M, SIZE, photograph, texture
from torch import Tensor
from torch.nn import functional

from focaldiffusion.filters import interpolated
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.solve import outlines
from focaldiffusion.solve.complete import Completion, complete
from focaldiffusion.solve.nearness import Nearness, clear_way
from focaldiffusion.solve.outlines import with_outlines
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.stack import FocalStack

NEAR_M, FAR_M = 0.6, 1.5
BARE = float(srgb_to_linear(torch.tensor(0.25)))
# Solved as it is, and at half its size.
SMALL, LARGE = (96, 128), (64, 800)


@dataclass(frozen=True, eq=False)
class Solved:
    """A scene with its depth, completed with and without outlines."""

    inverse_depth_dpt: Tensor
    before: Completion
    after: Completion

    def right(self, completion: Completion, where: Tensor) -> float:
        """Share of pixels in `where` whose depth is right to a pixel of blur."""
        error = (completion.coordinate - self.inverse_depth_dpt).abs() * BLUR_SCALE_PX_M
        return float((error < 1)[where].float().mean())


def solved(stack: FocalStack, depth_m: Tensor) -> Solved:
    with torch.inference_mode():  # as `estimate_depth` does
        evidence = sweep(stack, BLUR_SCALE_PX_M, PSF())
        before = complete(evidence)
        after = with_outlines(stack, evidence, before, BLUR_SCALE_PX_M, PSF())
    return Solved(1 / depth_m, before, after)


def card_in(size: tuple[int, int]) -> Tensor:
    """(H, W) the middle of the picture."""
    height, width = size
    y, x = torch.arange(height)[:, None], torch.arange(width)
    return (4 * y >= height) & (4 * y < 3 * height) & (4 * x >= width) & (4 * x < 3 * width)


def beside(card: Tensor) -> Tensor:
    """(H, W) what the blur of a card covers around it: six pixels."""
    return (functional.max_pool2d(card[None].float(), 13, 1, 6)[0] > 0) & ~card


@cache
def bare_card(size: tuple[int, int]) -> Solved:
    """A bare card before a textured wall."""
    card = card_in(size)
    depth_m = torch.where(card, NEAR_M, FAR_M)
    return solved(photograph(torch.where(card, BARE, texture(size)), depth_m, size=size), depth_m)


each_size = pytest.mark.parametrize("size", [SMALL, LARGE])


def test_one_size_is_solved_as_it_is_and_the_other_at_half():
    assert max(SMALL) <= outlines._LONG_SIDE_PX
    assert round(max(LARGE) / outlines._LONG_SIDE_PX) == 2


@each_size
def test_a_bare_card_before_a_textured_wall_ends_at_its_outline(size):
    found, card = bare_card(size), card_in(size)
    # A few pixels are missing at the corners of the card.
    assert found.right(found.after, card) > 0.99
    assert found.right(found.after, ~card) > 0.99
    assert found.right(found.after, beside(card)) > 0.99
    # Completion alone gives half of the surroundings the depth of the card.
    assert found.right(found.before, beside(card)) < 0.5


@each_size
def test_agreement_is_low_where_the_proposals_contradict_each_other(size):
    found = bare_card(size)
    change_px = (found.after.coordinate - found.before.coordinate).abs() * BLUR_SCALE_PX_M
    expected = found.before.agreement * torch.where(
        change_px > outlines._APART_PX, outlines._CONTRADICTED, 1.0
    )
    # Here the outlines win everywhere: what changed is what was contradicted.
    assert 0 < (change_px > outlines._APART_PX).float().mean() < 0.1
    torch.testing.assert_close(found.after.agreement, expected)


@each_size
def test_completions_keep_their_form(size):
    found = bare_card(size)
    for field in (found.after.coordinate, found.after.agreement):
        assert field.shape == size
        assert field.dtype == torch.float32
        assert field.device == found.before.coordinate.device
        assert field.isfinite().all()
    assert torch.equal(found.after.planes, found.before.planes)


def test_a_bare_wall_behind_a_textured_card_ends_at_its_outline():
    # The wall has texture along the border of the picture alone.
    card = card_in(SMALL)
    border = torch.ones_like(card)
    border[10:-10, 10:-10] = False
    depth_m = torch.where(card, NEAR_M, FAR_M)
    image = torch.where(
        card, 0.4 * texture(SMALL, seed=1), torch.where(border, 1, 0) * texture(SMALL)
    )
    image = torch.where(card | border, image, 0.6)
    found = solved(photograph(image, depth_m, size=SMALL), depth_m)
    assert found.right(found.after, card) > 0.99
    assert found.right(found.after, ~card) > 0.99
    assert found.right(found.before, ~card) < 0.9


def test_depth_jumps_at_the_edge_of_two_textures():
    # A dark and a light surface, each with texture of its own.
    left = (torch.arange(SIZE[1]) < 48).expand(SIZE)
    depth_m = torch.where(left, NEAR_M, FAR_M)
    image = torch.where(left, 0.15, 0.6) + 0.3 * (texture() - 0.2)
    found = solved(photograph(image, depth_m), depth_m)
    assert found.right(found.after, left) > 0.99
    # Two pixels for the width of the edge; completion alone trails for twelve.
    edge = torch.arange(SIZE[1]) >= 50
    assert found.right(found.after, edge.expand(SIZE)) > 0.99
    assert found.right(found.before, edge.expand(SIZE)) < 0.9


def test_a_textured_slanted_plane_is_hardly_touched():
    depth_m = 1 / torch.linspace(0.5, 2.0, SIZE[1]).expand(SIZE)
    found = solved(slanted_plane(), depth_m)
    everywhere = torch.ones(SIZE, dtype=torch.bool)
    # Single segments of the texture become level.
    assert found.right(found.after, everywhere) > 0.97
    error_px = (found.after.coordinate - found.inverse_depth_dpt).abs() * BLUR_SCALE_PX_M
    assert (error_px > outlines._APART_PX).float().mean() < 1e-3  # single pixels


def test_a_bare_picture_raises_no_error():
    found = solved(photograph(0.3, FAR_M), torch.full(SIZE, FAR_M))
    assert found.after.coordinate.isfinite().all()


@pytest.mark.parametrize("grade", ["stage positions", "order"])
def test_an_axis_without_a_near_end_is_only_completed(grade):
    found = estimate_depth(of_grade(grade), PSF())
    with torch.inference_mode():
        completion = complete(found.evidence)
    assert torch.equal(found.coordinate, completion.coordinate)
    assert torch.equal(found.agreement, completion.agreement)


@pytest.mark.parametrize("nearest_first", [False, True])
def test_an_order_gets_outlines_where_occlusion_shows_the_near_end(nearest_first):
    card = card_in(SMALL)
    depth_m = torch.where(card, NEAR_M, FAR_M)
    metric = photograph(torch.where(card, BARE, texture(SMALL)), depth_m, size=SMALL)
    order = metric.focus_coordinates.argsort(descending=nearest_first)
    found = estimate_depth(FocalStack(metric.images[order]), PSF())
    nearness = 1 - found.coordinate if nearest_first else found.coordinate
    inner, outer = card & ~beside(~card), ~card & ~beside(card)
    middle = (nearness[inner].median() + nearness[outer].median()) / 2
    assert nearness[inner].median() > nearness[outer].median()
    assert ((nearness > middle) == card)[beside(card)].float().mean() > 0.99
    assert found.competing is not None
    low, high = found.competing
    assert (low <= high).all()


def test_surfaces_shared_and_of_their_own_show_the_near_end():
    card = card_in(SMALL)
    near = 1 / torch.where(card, NEAR_M, FAR_M)
    metric = photograph(torch.where(card, BARE, texture(SMALL)), 1 / near, size=SMALL)
    order = metric.focus_coordinates.argsort()
    stack = FocalStack(metric.images[order])
    scale = estimate_depth(stack, PSF()).calibration.blur_scale
    assert scale is not None
    evidence = sweep(stack, scale, PSF())
    rising, falling = (
        Nearness.of(stack, evidence, scale, 0.0, is_rising=one) for one in (True, False)
    )
    first, last = metric.focus_coordinates.aminmax()
    truth, flat = (near - first) / (last - first), torch.full(SMALL, 0.5)
    # The card hides the wall if larger coordinates are nearer, and the wall the card otherwise.
    own = tuple(interpolated(truth, way.points, way.values) for way in (rising, falling))
    assert clear_way((rising, falling), truth, own, PSF()) == 0
    assert clear_way((falling, rising), truth, own[::-1], PSF()) == 1
    # A flat surface hides nothing, but each way may still have a surface of its own.
    level = tuple(interpolated(flat, way.points, way.values) for way in (rising, falling))
    assert clear_way((rising, falling), flat, own, PSF()) == 0
    assert clear_way((rising, falling), flat, level, PSF()) is None


def test_the_estimate_has_outlines():
    found = estimate_depth(of_grade("calibrated"), PSF())
    scale = found.calibration.blur_scale
    assert scale is not None
    with torch.inference_mode():
        stack = of_grade("calibrated")
        farthest_focus = float(stack.focus_coordinates.min())
        given = complete(found.evidence, background=farthest_focus)
        expected = with_outlines(stack, found.evidence, given, scale, PSF())
    assert torch.equal(found.coordinate, expected.coordinate)
    assert torch.equal(found.agreement, expected.agreement)


def test_a_stage_that_moves_by_micrometres_gets_outlines():
    card = card_in(SMALL)
    depth_m = torch.where(card, NEAR_M, FAR_M)
    metric = photograph(torch.where(card, BARE, texture(SMALL)), depth_m, size=SMALL)
    heights_m = 2e-6 * metric.focus_coordinates
    found = estimate_depth(FocalStack(metric.images, focus_positions_m=heights_m), PSF())
    outer, edge = ~card & ~beside(card), card & beside(~card)
    middle = (found.coordinate[card].median() + found.coordinate[outer].median()) / 2
    assert (found.coordinate[edge] > middle).float().mean() > 0.99
    assert found.competing is not None
