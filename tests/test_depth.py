from __future__ import annotations

import math

import pytest
import torch
from conftest import TOLERANCE
from hypothesis import given
from hypothesis import strategies as st

from focaldiffusion.depth import (
    depth_from_ray_distance,
    inverse_depth_bounds_dpt,
    ray_distance_from_depth,
)
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera, blur_radius_px

F64 = torch.float64


def test_ray_distance_by_hand():
    # One pixel at x = 30 - 20.5 + 0.5 = 10 px from the centre, F = 10 px: a ray at 45 degrees.
    camera = Camera(10.0, 0.01, (1, 31), principal_point_px=(20.5, 0.5))
    distance = ray_distance_from_depth(torch.ones(1, 31, dtype=F64), camera)
    assert distance[0, 20].item() == 1.0  # on the axis
    assert distance[0, 30].item() == pytest.approx(math.sqrt(2))
    # The 3-4-5 triangle, across both axes: (3, 4) px away and F = 5 px make a ray of sqrt(50)/5.
    camera = Camera(5.0, 0.01, (5, 4), principal_point_px=(0.5, 0.5))
    distance = ray_distance_from_depth(torch.full((5, 4), 2.0, dtype=F64), camera)
    assert distance[4, 3].item() == pytest.approx(2 * math.sqrt(50) / 5)


@given(
    focal_length_px=st.floats(5, 5000),
    centre=st.tuples(st.floats(-20, 50), st.floats(-20, 50)),
    seed=st.integers(0, 99),
)
def test_ray_distance_round_trip(focal_length_px, centre, seed):
    camera = Camera(focal_length_px, 0.01, (7, 9), principal_point_px=centre)
    depth = 0.1 + 10 * torch.rand(7, 9, dtype=F64, generator=torch.Generator().manual_seed(seed))
    distance = ray_distance_from_depth(depth, camera)
    assert (distance >= depth).all()
    torch.testing.assert_close(
        depth_from_ray_distance(distance, camera), depth, **TOLERANCE[torch.float64]
    )


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"camera of \(7, 9\), map of \(7, 8\)"):
        depth_from_ray_distance(torch.ones(7, 8), Camera(10.0, 0.01, (7, 9)))


def test_bounds_come_from_the_focus_range_and_the_blur():
    blur_scale_px_m = 12.5
    far, near = inverse_depth_bounds_dpt(torch.tensor([2.0, 0.5]), blur_scale_px_m)
    assert near == pytest.approx(2.0 + 16 / 12.5)  # 16 px of blur beyond the nearest focus ...
    assert inverse_depth_bounds_dpt(torch.tensor([8.0]), 12.5)[1] == 10.0  # ... or a quarter
    diameter = 2 * blur_radius_px(torch.tensor([far, 0.0]), torch.tensor(2.0), blur_scale_px_m)
    assert diameter.diff().item() == pytest.approx(0.25, abs=1e-5)
    # Focus beyond that bound moves it; focus at infinity does not.
    assert inverse_depth_bounds_dpt(torch.tensor([2.0, 0.01, 0.0]), 12.5)[0] == pytest.approx(0.01)
    assert inverse_depth_bounds_dpt(torch.tensor([2.0, 0.0]), 12.5)[0] == far


def test_a_focus_range_that_tells_no_depths_apart_is_refused():
    with pytest.raises(InputError, match=r"every frame is focused beyond 62\.5 m"):
        inverse_depth_bounds_dpt(torch.tensor([0.01, 0.0]), 12.5)
