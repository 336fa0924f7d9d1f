from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import TOLERANCE
from sample_stacks import SIZE, texture
from torch.nn import functional

from focaldiffusion.filters import (
    block_mean,
    box_mean,
    greatest_nearby,
    interpolated,
    noise_std,
    refine_minimum,
    smooth_mean,
)
from focaldiffusion.optics import linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF, blur


def test_interpolation_matches_numpy():
    points, targets = torch.tensor([0.0, 0.1, 0.4, 1.0]), torch.tensor([-1.0, 0.0, 3.0, 4.0])
    values = torch.linspace(-0.2, 1.2, 36).reshape(4, 9)
    expected = np.interp(values.numpy(), points.numpy(), targets.numpy())
    np.testing.assert_allclose(interpolated(values, points, targets), expected, atol=1e-6)


def test_noise_is_measured_through_texture():
    noise = torch.randn(3, 3, *SIZE, generator=torch.Generator().manual_seed(2))
    smooth = linear_to_srgb(blur(texture(), 4.0, PSF("gaussian")))
    images = srgb_to_linear((smooth + 3 / 255 * noise).clamp(0, 1))
    # Luma averages the channels' noise: the root of 0.3² + 0.5² + 0.2².
    assert noise_std(images) * 255 == pytest.approx(3 * math.sqrt(0.38), rel=0.1)


def test_refined_minimum_of_a_parabola_is_its_vertex():
    hypotheses = torch.linspace(0, 1, 11)
    vertex = torch.tensor([[0.0, 0.31, 0.55], [0.78, 1.0, -0.2]])
    cost = (hypotheses[:, None, None] - vertex) ** 2
    torch.testing.assert_close(
        refine_minimum(cost, hypotheses), vertex.clamp(0, 1), **TOLERANCE[torch.float32]
    )


def test_box_mean_is_the_mean_of_a_window_that_replicates_the_border():
    plane = torch.arange(20.0).reshape(4, 5)
    padded = np.pad(plane.numpy(), 1, mode="edge")
    expected = [[padded[y : y + 3, x : x + 3].mean() for x in range(5)] for y in range(4)]
    torch.testing.assert_close(box_mean(plane, 1), torch.tensor(np.array(expected)))


@pytest.mark.parametrize("size", [(6, 9), (7, 8), (1, 2)])
@pytest.mark.parametrize("side_px", [1, 2, 3])
def test_block_means_count_the_pixels_of_smaller_blocks_alone(size, side_px):
    planes = torch.rand(2, *size, generator=torch.Generator().manual_seed(0))
    pooled = functional.avg_pool2d(planes[None], side_px, ceil_mode=True, count_include_pad=False)
    torch.testing.assert_close(block_mean(planes, side_px), pooled[0])


def test_the_greatest_value_nearby_is_the_same_with_gradients():
    plane = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    windows = [
        plane[max(0, y - 1) : y + 2, max(0, x - 2) : x + 3] for y in range(5) for x in range(7)
    ]
    expected = torch.stack([window.max() for window in windows]).view(5, 7)
    assert torch.equal(greatest_nearby(plane, 1, 2), expected)
    assert torch.equal(greatest_nearby(plane.requires_grad_(), 1, 2), expected)


@pytest.mark.parametrize("half_width", [4, 8])
def test_a_smooth_mean_is_as_wide_as_a_box(half_width):
    point = torch.zeros(101, 101)
    point[50, 50] = 1
    place = torch.arange(101.0) - 50
    bell, box = smooth_mean(point, half_width), box_mean(point, half_width)
    assert float(bell.sum()) == pytest.approx(1, rel=1e-5)
    variances = [float((one.sum(0) * place.square()).sum()) for one in (bell, box)]
    # Sides of boxes are odd numbers, so variances come in steps.
    assert variances[0] == pytest.approx(variances[1], rel=0.2)
    # It falls from its middle on, where a box has a plateau and a cliff.
    assert bool((bell[50, 50:60].diff() <= 0).all())
    assert float(bell[50, 50 + half_width]) < 0.5 * float(bell[50, 50])
