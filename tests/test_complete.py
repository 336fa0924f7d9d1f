from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from sample_stacks import BLUR_SCALE_PX_M, SIZE, photograph, texture

from focaldiffusion.evidence import Evidence
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.solve import complete as complete_module
from focaldiffusion.solve.complete import complete, smooth
from focaldiffusion.solve.matching import EDGE_STD, Labels, aggregate
from focaldiffusion.solve.sweep import sweep


def completed(image, depth_m):
    stack = photograph(image, depth_m)
    farthest_focus = float(stack.focus_coordinates.min())
    return complete(sweep(stack, BLUR_SCALE_PX_M, PSF()), background=farthest_focus)


def known(
    depth: torch.Tensor, where: torch.Tensor, elsewhere: torch.Tensor, image: torch.Tensor
) -> Evidence:
    """Evidence sure of the hypothesis nearest `depth` `where` it is true, (H, W).

    Hypotheses are 0, 1, 2, ...; the log posterior is `elsewhere` (K, H, W) otherwise.
    """
    hypotheses = torch.arange(float(len(elsewhere)))
    sure = -20 * (hypotheses[:, None, None] - depth).square()
    return Evidence(
        "inverse_depth_dpt",
        hypotheses,
        torch.where(where, sure, elsewhere).softmax(0),
        srgb_to_linear(image),
        torch.zeros(where.shape),
        torch.zeros_like(where),
    )


def dark_box() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """An image of a box before a light wall, the box, and the box with its blur around it."""
    box = torch.zeros(96, 128, dtype=torch.bool)
    box[30:70, 40:90] = True
    blurred = torch.zeros_like(box)
    blurred[27:73, 37:93] = True
    return torch.where(box, 0.2, 0.6).expand(3, -1, -1), box, blurred


def blur_px(inverse_depth_dpt: torch.Tensor, depth_m: torch.Tensor | float) -> torch.Tensor:
    """The error in pixels of blur diameter, the unit that the lens resolves."""
    return (inverse_depth_dpt - 1 / torch.as_tensor(depth_m)).abs() * BLUR_SCALE_PX_M


@pytest.mark.parametrize("depth_m", [0.5, 0.58, 0.8, 1.0, 1.4, 2.0])
def test_a_textured_plane_is_flat_and_at_its_depth(depth_m):
    completion = completed(texture(), depth_m)
    # A quarter pixel is the step of the hypotheses.
    assert blur_px(completion.coordinate, depth_m).median() < 0.25
    assert blur_px(completion.coordinate, depth_m).max() < 0.3


def test_a_slanted_plane_is_followed():
    depth_m = 1 / torch.linspace(0.5, 2.0, SIZE[1]).expand(SIZE)
    error_px = blur_px(completed(texture(), depth_m).coordinate, depth_m)
    assert error_px.median() < 0.3
    assert error_px.quantile(0.95) < 1.0
    error_m = (completed(texture(), depth_m).coordinate * depth_m - 1).abs()
    assert error_m.median() < 0.03


def test_a_hole_between_two_textured_parts_of_a_plane_takes_its_depth():
    image = texture()
    image[:, :, 36:60] = 0.3
    completion = completed(image, 0.8)
    assert blur_px(completion.coordinate, 0.8).max() < 0.3


def test_depth_jumps_where_the_image_has_an_edge():
    # A dark and a light surface, each with texture of its own.
    left = torch.arange(SIZE[1]) < 48
    image = torch.where(left, 0.15, 0.6) + 0.3 * (texture() - 0.2)
    depth_m = torch.where(left, 0.6, 1.5).expand(SIZE)
    coordinate = completed(image, depth_m).coordinate
    foreground, background = coordinate[:, :47], coordinate[:, 58:]
    assert (blur_px(foreground, 0.6) < 0.5).float().mean() > 0.95
    assert (blur_px(background, 1.5) < 1).float().mean() > 0.95
    # The blur of the foreground's rim covers the background beside the edge (4 px in the frames
    # focused there), so some of the drop trails behind it; none runs ahead of it.
    steepest = coordinate.diff(dim=1).abs().argmax(1)
    assert ((steepest >= 46) & (steepest <= 52)).float().mean() > 0.95


def test_evidence_turns_corners():
    # A bare wall with one textured spot: evidence along its eight rays, and noise between them.
    image = torch.full((3, 60, 80), 0.3)
    spot = torch.zeros(60, 80, dtype=torch.bool)
    spot[28:32, 38:42] = True
    noise = torch.randn(6, 60, 80, generator=torch.Generator().manual_seed(0))
    evidence = known(torch.full((60, 80), 3.0), spot, 0.03 * noise, image)
    labels = Labels(evidence.hypotheses, torch.zeros(0, 60, 80))
    total, _ = aggregate(complete_module._cost(evidence), image, labels, Meter())
    assert (total.argmin(0) == 3).float().mean() < 0.5
    assert ((complete(evidence).coordinate - 3).abs() < 0.5).float().mean() > 0.99


def test_a_bare_wall_follows_the_plane_of_its_borders():
    # Slanted in both directions; known only along the border of the picture.
    size = (96, 128)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    depth = 4 + 10 * x / 128 + 5 * y / 96
    frame = torch.ones(size, dtype=torch.bool)
    frame[6:-6, 6:-6] = False
    coordinate = complete(
        known(depth, frame, torch.zeros(24, *size), torch.full((3, *size), 0.4))
    ).coordinate
    error = (coordinate - depth)[~frame].abs()
    # The slant spans fifteen hypotheses.
    assert error.mean() < 0.2
    assert error.max() < 0.5


def test_a_box_before_a_bare_wall_ends_at_its_outline():
    # The box and three pixels around it are known, at the depth of the box, because its blur lies
    # there. The wall behind is known only along the border of the picture.
    image, box, blurred = dark_box()
    border = torch.ones_like(box)
    border[6:-6, 6:-6] = False
    evidence = known(
        torch.where(border, 2.0, 9.0), border | blurred, torch.zeros(12, *box.shape), image
    )
    coordinate = complete(evidence, background=1.0).coordinate
    assert (coordinate[box] - 9).abs().max() < 0.5
    beside = torch.ones_like(box)
    beside[12:88, 22:108] = False
    assert (coordinate[beside] - 2).abs().max() < 0.5
    # If near and far are not distinguished, the blur of the box extends halfway to the border.
    assert (complete(evidence).coordinate[beside] - 2).max() > 2


def test_surface_behind_an_outline_is_no_farther_than_the_background():
    # A box and its blur; around them only a faint preference for the farthest hypothesis.
    image, _, blurred = dark_box()
    faint = -0.005 * torch.arange(12.0)[:, None, None].expand(-1, *blurred.shape)
    evidence = known(torch.full(blurred.shape, 9.0), blurred, faint, image)
    for background in (5.0, 6.0):
        coordinate = complete(evidence, background=background).coordinate
        assert (coordinate[:12] - background).abs().max() < 0.5


def test_surface_behind_is_at_most_twice_as_far_as_what_is_seen():
    # The farthest focus is at infinity. The lower half of the picture shows a board; the upper
    # half, in another colour, only has a faint preference for infinity.
    size = (96, 128)
    image = torch.full((3, *size), 0.6)
    image[:, 48:] = 0.2
    board = torch.zeros(size, dtype=torch.bool)
    board[46:] = True
    faint = -0.01 * torch.arange(12.0)[:, None, None].expand(-1, *size)
    evidence = known(torch.full(size, 8.0), board, faint, image)
    coordinate = complete(evidence, background=0.0).coordinate
    assert (coordinate[:36] - 4).abs().max() < 0.5


def test_a_nearly_bare_floor_is_found_beneath_the_things_on_it():
    size = (96, 128)
    floor = torch.linspace(4, 40, 96)[:, None].expand(size)
    depth, fronts = torch.zeros(size), torch.zeros(size, dtype=torch.bool)
    for bottom, left in ((45, 8), (60, 50), (70, 95), (88, 30)):
        depth[bottom - 20 : bottom, left : left + 14] = floor[bottom - 1, 0]
        fronts[bottom - 20 : bottom, left : left + 14] = True
    image = torch.where(fronts, 0.2, 0.6).expand(3, *size)
    faint = -0.01 * (torch.arange(48.0)[:, None, None] - floor).abs().clamp_max(12)
    coordinate = complete(known(depth, fronts, faint, image), background=0.0).coordinate
    between = ~fronts & (torch.arange(96)[:, None] > 30)
    error = (coordinate - floor)[between].abs()
    assert error.quantile(0.9) < 2  # 7.7 without supporting planes


def test_pixels_follow_blocks_of_their_own_colour():
    # The edge runs through the middle of a column of blocks; the last blocks are cut off.
    guide = torch.full((3, 31, 62), 0.3)
    guide[:, :, 40:] = 0.6
    blocks = complete_module._blocks(guide)
    assert blocks.shape == (3, 11, 21)
    values = torch.where(torch.arange(21) < 13, 1.0, 2.0).expand(2, 11, 21)
    pixels = complete_module._follow_blocks(values, blocks, guide)
    expected = torch.where(torch.arange(62) < 40, 1.0, 2.0).expand(2, 31, 62)
    torch.testing.assert_close(pixels, expected)


def test_progress_counts_the_directions_of_all_rounds():
    calls: list[tuple[int, int]] = []
    nowhere = torch.zeros(8, 8, dtype=torch.bool)
    complete(
        known(torch.zeros(8, 8), nowhere, torch.zeros(3, 8, 8), torch.full((3, 8, 8), 0.5)),
        meter=Meter(lambda done, total: calls.append((done, total))),
    )
    assert calls == [(done, 24) for done in range(1, 25)]


def test_agreement_is_a_share_of_the_directions():
    image = texture()
    image[:, 20:50, 30:70] = 0.3
    agreement = completed(image, 1.0).agreement
    assert agreement.min() >= 0
    assert agreement.max() == 1
    assert agreement[35, 50] < agreement[:20].mean()


def test_a_turned_scene_has_the_turned_surface():
    evidence = sweep(
        photograph(texture(), 1 / torch.linspace(0.5, 2.0, SIZE[1])), BLUR_SCALE_PX_M, PSF()
    )
    turned = Evidence(
        evidence.axis,
        evidence.hypotheses,
        *(
            field.transpose(-1, -2).flip(-1).contiguous()
            for field in (
                evidence.posterior,
                evidence.all_in_focus,
                evidence.sharpest,
                evidence.never_sharp,
            )
        ),
    )
    expected, got = complete(evidence), complete(turned)
    back = got.coordinate.flip(-1).transpose(-1, -2)
    # Planes pass through other points: half a step of the hypotheses.
    assert (back - expected.coordinate).abs().quantile(0.99) * BLUR_SCALE_PX_M < 0.125


def direct_solution(values, certainty, guide):
    """The normal equations of `smooth`, assembled pair by pair and solved exactly."""
    smoothness, floor = complete_module._SMOOTHNESS, complete_module._MATCHED_WEIGHT
    height, width = values.shape
    number = np.arange(height * width).reshape(height, width)
    rows, columns, entries = [], [], []
    for y, x in np.ndindex(height, width):
        rows.append(number[y, x])
        columns.append(number[y, x])
        entries.append(certainty[y, x] + floor)
        for other_y, other_x in ((y + 1, x), (y, x + 1)):
            if other_y == height or other_x == width:
                continue
            step = np.linalg.norm(guide[:, y, x] - guide[:, other_y, other_x])
            a, b, weight = (
                number[y, x],
                number[other_y, other_x],
                smoothness * np.exp(-step / EDGE_STD),
            )
            rows += [a, b, a, b]
            columns += [a, b, b, a]
            entries += [weight, weight, -weight, -weight]
    system = scipy.sparse.coo_matrix((entries, (rows, columns))).tocsc()
    right = ((certainty + floor) * values).ravel()
    return scipy.sparse.linalg.spsolve(system, right).reshape(height, width)


@pytest.mark.parametrize("size", [(12, 15), (72, 96)])
def test_smoothing_solves_its_least_squares(size):
    generator = torch.Generator().manual_seed(3)
    values = torch.rand(size, generator=generator).double()
    certainty = (torch.rand(size, generator=generator) > 0.7).double()
    certainty[4:9, 4:12] = 0  # a hole
    guide = torch.rand(3, *size, generator=generator).double() * 0.05
    expected = direct_solution(values.numpy(), certainty.numpy(), guide.numpy())
    got = smooth(values, certainty, guide)
    difference = (got - torch.from_numpy(expected)).abs()
    # Conjugate gradients stop after 30 steps at each resolution.
    assert difference.max() < 1e-3
