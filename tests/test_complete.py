from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from drawn_evidence import known
from sample_stacks import BLUR_SCALE_PX_M, SIZE, photograph, texture

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import block_mean
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.solve import complete as complete_module
from focaldiffusion.solve.complete import complete, smooth
from focaldiffusion.solve.matching import EDGE_STD, Labels, aggregate
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.threads import threads


def completed(image, depth_m):
    return complete(sweep(photograph(image, depth_m), BLUR_SCALE_PX_M, PSF()))


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
    foreground, background = coordinate[:, :47], coordinate[:, 60:]
    assert (blur_px(foreground, 0.6) < 0.5).float().mean() > 0.95
    assert (blur_px(background, 1.5) < 1).float().mean() > 0.95
    # The blur of the foreground's rim covers the background beside the edge (5 px in the frames
    # focused there), and blocks of evidence reach as far again, so some of the drop trails behind
    # it, until `with_outlines`; none runs ahead of it.
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
    total, _ = aggregate(evidence.doubt, image, labels, Meter())
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


def test_pixels_follow_blocks_of_their_own_colour():
    # The edge runs through the middle of a column of blocks; the last blocks are cut off.
    guide = torch.full((3, 31, 62), 0.3)
    guide[:, :, 40:] = 0.6
    blocks = block_mean(guide, complete_module._BLOCK_PX)
    assert blocks.shape == (3, 11, 21)
    values = torch.where(torch.arange(21) < 13, 1.0, 2.0).expand(2, 11, 21)
    pixels = complete_module.follow_blocks(values, blocks, guide, complete_module._BLOCK_PX)
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


def test_threads_do_not_change_the_result():
    evidence = sweep(photograph(texture(), 0.8), BLUR_SCALE_PX_M, PSF())
    with threads(1):
        expected = complete(evidence)
    with threads(2):
        got = complete(evidence)
    assert torch.equal(got.coordinate, expected.coordinate)
    assert torch.equal(got.agreement, expected.agreement)


def test_agreement_is_a_share_of_the_directions():
    image = texture()
    image[:, 20:50, 30:70] = 0.3  # between two surfaces, which both reach into it
    agreement = completed(image, torch.where(torch.arange(SIZE[1]) < 50, 0.6, 1.5)).agreement
    assert agreement.min() >= 0
    assert agreement.max() == 1
    assert agreement[35, 50] < agreement[:20].mean() - 1 / 8


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
    (got,) = smooth(values[None], certainty[None], guide[None])
    difference = (got - torch.from_numpy(expected)).abs()
    # Conjugate gradients stop after 30 steps at each resolution.
    assert difference.max() < 1e-3
