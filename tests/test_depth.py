from __future__ import annotations

import math

import pytest
import torch
from conftest import TOLERANCE
from hypothesis import given
from hypothesis import strategies as st

from focaldiffusion.depth import (
    DepthCodec,
    depth_from_ray_distance,
    inverse_depth_bounds_dpt,
    ray_distance_from_depth,
)
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera, blur_radius_px
from focaldiffusion.stack import FocalStack

F64 = torch.float64


def stack(**focus: torch.Tensor) -> FocalStack:
    count = next((len(values) for values in focus.values()), 3)
    return FocalStack(torch.zeros(count, 3, 4, 5), **focus)


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


@given(
    kind=st.sampled_from(["log", "inverse"]),
    near=st.floats(0.01, 5),
    ratio=st.floats(1.5, 200),
    share=st.floats(0, 1),
)
def test_codec_round_trip(kind, near, ratio, share):
    codec = DepthCodec(kind, near, near * ratio)
    depth = torch.tensor(near + share * (near * ratio - near), dtype=F64)
    code = codec.encode(depth)
    assert -1 <= code.item() <= 1
    assert codec.decode(code).item() == pytest.approx(depth.item(), rel=1e-9)


@pytest.mark.parametrize("kind", ["log", "inverse"])
def test_codes_run_from_near_to_far_and_stop_at_the_bounds(kind):
    codec = DepthCodec(kind, 0.5, 8.0)
    depth = torch.tensor([0.1, 0.5, 1.0, 3.0, 8.0, 20.0, math.inf], dtype=F64)
    code = codec.encode(depth)
    assert code[[0, 1, 4, 5, 6]].tolist() == pytest.approx([-1, -1, 1, 1, 1])
    assert (code[1:5].diff() > 0).all()
    assert codec.decode(torch.tensor([-1.7, 1.7], dtype=F64)).tolist() == pytest.approx([0.5, 8.0])
    assert codec.encode(torch.tensor(math.nan)).isnan()


def test_codes_by_hand():
    # log: 2 m is the middle of 0.5 m to 8 m. inverse: the middle of 2 and 0.125 dpt is 1.0625 dpt.
    depth = torch.tensor([2.0, 1 / 1.0625], dtype=F64)
    assert DepthCodec("log", 0.5, 8.0).encode(depth)[0].item() == pytest.approx(0, abs=1e-12)
    assert DepthCodec("inverse", 0.5, 8.0).encode(depth)[1].item() == pytest.approx(0, abs=1e-12)
    infinite = DepthCodec("inverse", 0.5, math.inf)
    assert infinite.encode(torch.tensor([1.0, math.inf])).tolist() == pytest.approx([0.0, 1.0])
    assert infinite.decode(torch.tensor(1.0)).item() == math.inf


@pytest.mark.parametrize("kind", ["log", "inverse"])
def test_codec_gradients(kind):
    codec = DepthCodec(kind, 0.5, 8.0)
    depth = torch.tensor([0.6, 1.3, 7.0], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(codec.encode, (depth,))
    code = torch.tensor([-0.9, 0.1, 0.8], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(codec.decode, (code,))


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
    codec = DepthCodec.from_stack(
        stack(focus_distances_m=torch.tensor([0.5, 2.0, math.inf])), blur_scale_px_m
    )
    assert (codec.kind, codec.near_m, codec.far_m) == (
        "log",
        pytest.approx(1 / 3.28),
        pytest.approx(50),
    )


def test_errors_say_what_to_do():
    with pytest.raises(InputError, match="needs focus distances, and this stack has none"):
        DepthCodec.from_stack(stack(), 12.5)
    with pytest.raises(InputError, match="needs focus distances"):
        DepthCodec.from_stack(stack(focus_positions_m=torch.tensor([0.0, 1e-5])), 12.5)
    with pytest.raises(InputError, match=r"every frame is focused beyond 62\.5 m"):
        inverse_depth_bounds_dpt(torch.tensor([0.01, 0.0]), 12.5)
    with pytest.raises(InputError, match="expected 0 < near < far"):
        DepthCodec("log", 2.0, 2.0)
    with pytest.raises(InputError, match="log needs a finite far depth"):
        DepthCodec("log", 2.0, math.inf)
    with pytest.raises(InputError, match="'linear' is unknown; expected log or inverse"):
        DepthCodec("linear", 1.0, 2.0)  # type: ignore[arg-type]
