from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_evidence import known
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.solve import owners
from focaldiffusion.solve.complete import complete
from focaldiffusion.solve.owners import owned_surface
from focaldiffusion.solve.planes import planes_beneath

SIZE = (96, 128)
COUNT = 12  # hypotheses 0, 1, ...
SILENT = torch.zeros(COUNT, *SIZE)
NOISE_STD = 1 / 255
Y, X = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
CARD = (Y >= 30) & (Y < 70) & (X >= 40) & (X < 90)
BLUR_PX = 3  # reach of the blur on either side of an outline
HALF_A_HYPOTHESIS = 0.5
# Segments are rounded at the corners of a card, by a pixel each.
CORNERS = 4


def owned(evidence: Evidence) -> Tensor:
    """The surface of `owned_surface`, with the arguments that `with_outlines` has for it."""
    given = complete(evidence)
    certainty = evidence.certainty * given.agreement**2
    beneath = planes_beneath(given.coordinate, certainty, evidence.hypotheses)
    found = owned_surface(
        evidence.hypotheses,
        evidence.doubt,
        linear_to_srgb(evidence.all_in_focus),
        given.coordinate,
        torch.cat([given.planes, beneath]),
        NOISE_STD,
    )
    surface = found.surface
    assert surface.shape == found.segments.shape == found.joined.shape == given.coordinate.shape
    assert len(found.levels) == int(found.joined.max()) + 1
    assert surface.dtype == given.coordinate.dtype
    assert surface.min() >= evidence.hypotheses[0]
    assert surface.max() <= evidence.hypotheses[-1]
    return surface


def grown(mask: Tensor, reach_px: int) -> Tensor:
    """(H, W) pixels within a reach of a mask."""
    return functional.max_pool2d(mask[None].float(), 2 * reach_px + 1, 1, reach_px)[0] > 0


def outline(mask: Tensor) -> Tensor:
    """(H, W) pixels that the blur of a mask's outline reaches."""
    return grown(mask, BLUR_PX) & grown(~mask, BLUR_PX)


def grey(*parts: tuple[Tensor, float], ground: float = 0.6) -> Tensor:
    """(3, H, W) image of masks with their grey values."""
    image = torch.full(SIZE, ground)
    for mask, value in parts:
        image[mask] = value
    return image.expand(3, -1, -1)


def off(surface: Tensor, truth: Tensor | float, where: Tensor) -> int:
    """Pixels in `where` that are off by more than half a hypothesis."""
    return int(((surface - truth).abs() > HALF_A_HYPOTHESIS)[where].sum())


def test_a_bare_card_before_a_textured_wall_is_as_near_as_its_outline():
    # The wall is known but for the card, around which the card's blur hides it.
    depth = torch.where(outline(CARD), 9.0, 3.0)
    surface = owned(known(depth, outline(CARD) | ~CARD, SILENT, grey((CARD, 0.2))))
    assert off(surface, 9, CARD) <= CORNERS
    assert off(surface, 3, ~CARD) == 0


def test_a_bare_wall_behind_a_textured_card_is_not_as_near_as_its_outline():
    # The card is known, and so is its blur on the wall, which itself is known along the border of
    # the picture alone.
    border = torch.ones_like(CARD)
    border[6:-6, 6:-6] = False
    depth = torch.where(border, 2.0, 9.0)
    evidence = known(depth, border | grown(CARD, BLUR_PX), SILENT, grey((CARD, 0.2)))
    surface = owned(evidence)
    assert off(surface, 9, CARD) <= CORNERS
    assert off(surface, 2, ~CARD) == 0
    # Completion extends the blur of the card halfway to the border.
    assert off(complete(evidence).coordinate, 2, ~CARD) > 0.3 * int((~CARD).sum())


def test_a_slanted_bare_card_known_along_its_outline_is_a_plane():
    plane = 8 + 3 * (X - 65) / 25 + (Y - 50) / 20  # 4 to 12 on the card
    count = 16
    evidence = known(
        torch.where(outline(CARD), plane, 2.0),
        outline(CARD) | ~CARD,
        torch.zeros(count, *SIZE),
        grey((CARD, 0.2)),
    )
    surface = owned(evidence)
    assert off(surface, plane, CARD) <= CORNERS
    assert off(surface, 2, ~CARD) == 0


@pytest.mark.parametrize("slope", [0, 6])
def test_a_textured_plane_stays_whole(slope):
    # Tiles of eight pixels in random greys, with evidence at their edges alone.
    tile_px = 8
    plane = 5 + slope * (X - 64) / 128
    greys = 0.2 + 0.6 * torch.rand(12, 16, generator=torch.Generator().manual_seed(0))
    image = greys.repeat_interleave(tile_px, 0).repeat_interleave(tile_px, 1)
    at_edge = (X % tile_px < 2) | (X % tile_px >= 6) | (Y % tile_px < 2) | (Y % tile_px >= 6)
    surface = owned(known(plane, at_edge, SILENT, image.expand(3, -1, -1), std=1.0))
    # A tile that fell behind its neighbours would be off by two hypotheses and more.
    assert (surface - plane).abs().max() < 1


@pytest.mark.parametrize(("left", "right"), [(9.0, 5.0), (5.0, 9.0)])
def test_a_bare_wall_between_two_things_is_no_nearer_than_the_farther_one(left, right):
    # The wall has no evidence but the blur of both.
    on_left, on_right = X < 40, X >= 88
    between = ~(on_left | on_right)
    depth = torch.where(grown(on_left, BLUR_PX), left, right)
    where = grown(on_left, BLUR_PX) | grown(on_right, BLUR_PX)
    image = grey((on_left, 0.2), (on_right, 0.85), ground=0.5)
    surface = owned(known(depth, where, SILENT, image))
    assert off(surface, left, on_left) == off(surface, right, on_right) == 0
    assert surface[between].max() <= min(left, right) + HALF_A_HYPOTHESIS


def test_a_bare_wall_on_both_sides_of_a_bar_stays_one():
    # The bar cuts the wall in two, and its blur alone shows on the right part.
    bar = (X >= 60) & (X < 68)
    left = X < 40
    depth = torch.where(left, 2.0, 9.0)
    surface = owned(known(depth, left | grown(bar, BLUR_PX), SILENT, grey((bar, 0.2))))
    assert off(surface, 9, bar) == 0
    assert off(surface, 2, ~bar) == 0
    # In another colour, nothing tells the right part from the bar.
    image = grey((bar, 0.2), (X >= 68, 0.85))
    surface = owned(known(depth, left | grown(bar, BLUR_PX), SILENT, image))
    assert off(surface, 9, X >= 60) == 0


def test_surface_behind_is_at_most_twice_as_far_as_what_is_seen():
    # The lower half of the picture shows a board; the upper half, in another colour, only has a
    # faint preference for infinity.
    board = Y >= 48
    faint = -0.01 * torch.arange(COUNT)[:, None, None].expand(-1, *SIZE)
    evidence = known(torch.full(SIZE, 8.0), Y >= 46, faint, grey((board, 0.2)))
    surface = owned(evidence)
    assert off(surface, 8, board) == 0
    assert surface.min() >= 8 / 2 - HALF_A_HYPOTHESIS


def test_a_nearly_bare_floor_is_found_beneath_the_things_on_it():
    floor = torch.linspace(4, 40, 96)[:, None].expand(SIZE)
    depth, fronts = torch.zeros(SIZE), torch.zeros(SIZE, dtype=torch.bool)
    for bottom, left in ((45, 8), (60, 50), (70, 95), (88, 30)):
        depth[bottom - 20 : bottom, left : left + 14] = floor[bottom - 1, 0]
        fronts[bottom - 20 : bottom, left : left + 14] = True
    faint = -0.01 * (torch.arange(48.0)[:, None, None] - floor).abs().clamp_max(12)
    surface = owned(known(depth, fronts, faint, grey((fronts, 0.2))))
    assert (surface - depth)[fronts].abs().max() < 1
    # Above the highest of the things the floor is a guess.
    between = ~fronts & (Y > 30)
    error = (surface - floor)[between].abs()
    # Of 48 hypotheses.
    assert error.median() < 1
    assert error.quantile(0.9) < 2.5


def test_joint_costs_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    sides = np.array([[0, 1], [0, 2], [0, 1], [1, 2]])
    amount, labels = len(sides), (3, 4, 2)
    doubt = rng.random((amount, COUNT)).astype(np.float32)
    price = rng.random(amount)
    contacts = owners._Contacts(
        sides, np.zeros((amount, 2, 2)), doubt, price, *(np.zeros(amount) for _ in range(3))
    )
    candidates = []
    for segment, count in enumerate(labels):
        mine = np.flatnonzero((sides == segment).any(1))
        ranks = (COUNT - 1) * rng.random((count, len(mine)))
        ranks[0] = (0, COUNT - 1) if segment == 0 and len(mine) == 2 else ranks[0]
        candidates.append(
            owners._Candidates(
                np.zeros((count - 1, 3)),
                np.zeros(count, np.float32),
                mine,
                ranks.astype(np.float32),
            )
        )
    joint = owners._joint_costs(contacts, candidates)
    assert set(joint) == {(0, 1), (0, 2), (1, 2)}
    for (one, other), table in joint.items():
        assert table.shape == (labels[one], labels[other])
        for a, b in np.ndindex(table.shape):
            expected = 0.0
            for contact in np.flatnonzero((sides == [one, other]).all(1)):
                rank_a, rank_b = (
                    candidate.ranks[label, candidate.contacts.tolist().index(contact)]
                    for candidate, label in ((candidates[one], a), (candidates[other], b))
                )
                expected += np.interp(max(rank_a, rank_b), np.arange(COUNT), doubt[contact])
                apart = abs(rank_a - rank_b)
                # A full price from so many hypotheses on, less below; and a little for each.
                step = min(apart / owners._JUMP_STEPS, 1) + owners._RECESSION_PRICE * apart
                expected += price[contact] * step
            assert table[a, b] == pytest.approx(expected, rel=1e-4)


def test_the_same_arguments_give_the_same_surface():
    depth = torch.where(outline(CARD), 9.0, 3.0)
    evidence = known(depth, outline(CARD) | ~CARD, SILENT, grey((CARD, 0.2)))
    assert torch.equal(owned(evidence), owned(evidence))


@pytest.mark.parametrize("size", [(3, 3), (3, 40)])
def test_a_tiny_image_raises_no_error(size):
    depth = torch.full(size, 3.0)
    everywhere = torch.ones(size, dtype=torch.bool)
    evidence = known(depth, everywhere, torch.zeros(COUNT, *size), torch.full((3, *size), 0.5))
    given = torch.full(size, 3.0)
    surface = owned_surface(
        evidence.hypotheses,
        evidence.doubt,
        linear_to_srgb(evidence.all_in_focus),
        given,
        torch.zeros(0, 3),
        NOISE_STD,
    ).surface
    assert torch.equal(surface, given)
