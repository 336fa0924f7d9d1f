from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from sample_stacks import BLUR_SCALE_PX_M, SIZE, photograph, texture

from focaldiffusion.evidence import Evidence
from focaldiffusion.physics import complete as complete_module
from focaldiffusion.physics.complete import aggregate, complete, smooth
from focaldiffusion.physics.psf import PSF
from focaldiffusion.physics.sweep import sweep


def completed(image, depth_m):
    return complete(sweep(photograph(image, depth_m), BLUR_SCALE_PX_M, PSF()))


def blur_px(inverse_depth_dpt: torch.Tensor, depth_m: torch.Tensor | float) -> torch.Tensor:
    """The error in pixels of blur diameter: what the lens can tell apart."""
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


def test_agreement_is_a_share_of_eight_directions():
    image = texture()
    image[:, 20:50, 30:70] = 0.3
    agreement = completed(image, 1.0).agreement
    eighths = agreement * 8
    torch.testing.assert_close(eighths, eighths.round())
    assert agreement.min() >= 0
    assert agreement.max() == 1


def one_dimensional(cost: torch.Tensor, step: float, jump: float) -> torch.Tensor:
    """Path costs from left to right along one row of one colour, (K, W), by the formula."""
    count, width = cost.shape
    path = cost.clone()
    for x in range(1, width):
        for k in range(count):
            previous = path[:, x - 1]
            ways = [previous[k], previous.min() + jump]
            ways += [previous[j] + step for j in (k - 1, k + 1) if 0 <= j < count]
            path[k, x] = cost[k, x] + min(ways) - previous.min()
    return path


def test_path_costs_follow_their_recursion():
    cost = 40 * torch.rand(6, 1, 12, generator=torch.Generator().manual_seed(0))
    total, choices = aggregate(cost, torch.full((3, 1, 12), 0.5))
    # One row of one colour: rightwards and leftwards travel; the other six directions see each
    # pixel alone.
    prices = (complete_module._STEP_PRICE, complete_module._JUMP_PRICE)
    rightwards = one_dimensional(cost[:, 0], *prices)
    leftwards = one_dimensional(cost[:, 0].flip(1), *prices).flip(1)
    torch.testing.assert_close(total[:, 0], rightwards + leftwards + 6 * cost[:, 0])
    expected = sorted([rightwards.argmin(0).tolist(), leftwards.argmin(0).tolist()])
    assert sorted(choices[6:, 0].tolist()) == expected
    assert (choices[:6, 0] == cost[:, 0].argmin(0)).all()


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
    # Ties between hypotheses fall to either side by rounding.
    assert (back - expected.coordinate).abs().quantile(0.99) * BLUR_SCALE_PX_M < 0.05


def direct_solution(values, certainty, guide):
    """The normal equations of `smooth`, assembled pair by pair and solved exactly."""
    smoothness, floor = complete_module._SMOOTHNESS, complete_module._MATCHED_WEIGHT
    edge_std = complete_module._EDGE_STD
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
                smoothness * np.exp(-step / edge_std),
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
