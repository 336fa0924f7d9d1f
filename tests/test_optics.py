from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import TOLERANCE
from hypothesis import given
from hypothesis import strategies as st

from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import (
    Camera,
    blur_radius_px,
    far_bound_dpt,
    inverse_m,
    lens_distance_m,
    linear_to_srgb,
    srgb_to_linear,
)

F64 = torch.float64
metres = st.floats(0.05, 100)


def project(point_m: tuple[float, float, float], camera: Camera) -> tuple[float, float]:
    """Pixel (x, y) of a point in camera coordinates."""
    x, y, z = point_m
    centre_x, centre_y = camera.principal_point_px
    return (
        centre_x + camera.focal_length_px * x / z,
        centre_y + camera.focal_length_px * y / z,
    )


def test_blur_of_a_real_lens_by_hand():
    # 50 mm, f/2, focused at 2 m, a point at 1 m. Image distances by the lens equation:
    # v(2 m) = 0.1/1.95 = 51.28205 mm, v(1 m) = 0.05/0.95 = 52.63158 mm. The cone of light from the
    # 25 mm pupil is cut at v(2 m): diameter 25 mm (52.63158 - 51.28205)/52.63158 = 0.641026 mm.
    # 10 um pixels: 64.1026 px across, radius 32.0513 px, in front of the focus plane: negative.
    camera = LensFacts(0.05, 2.0, 10e-6).camera((1000, 1500), 2.0)
    radius = blur_radius_px(torch.tensor(1.0), torch.tensor(0.5), camera.blur_scale_px_m)
    assert radius.item() == pytest.approx(-32.0513, rel=1e-5)


def test_infinity_is_an_ordinary_distance():
    camera = LensFacts(0.05, 2.0, 10e-6).camera((1000, 1500))
    distance = inverse_m(torch.tensor([math.inf, 1.0]))
    radius = blur_radius_px(distance, torch.tensor(0.0), camera.blur_scale_px_m)
    # Focused at infinity, the blur of 1 m is A F / 2 = 0.025 * 5000 / 2.
    assert radius.tolist() == pytest.approx([0.0, -62.5])
    assert blur_radius_px(torch.tensor(0.0), torch.tensor(1.0), 125.0).item() == 62.5


@given(depth=metres, focus=metres, scale=st.floats(0.1, 1000))
def test_blur_is_zero_in_focus_and_positive_behind(depth, focus, scale):
    inverse = [inverse_m(torch.tensor(value, dtype=F64)) for value in (depth, focus)]
    radius = blur_radius_px(*inverse, scale).item()
    assert (radius > 0) == (depth > focus)
    assert radius == pytest.approx(-blur_radius_px(*reversed(inverse), scale).item(), abs=1e-12)


@given(height=st.integers(2, 500), width=st.integers(2, 500), depth=metres, focus=metres)
def test_halving_the_pixels_halves_the_blur(height, width, depth, focus):
    camera = Camera(800.0, 0.02, (2 * height, 2 * width))
    half = camera.resized((height, width))
    assert half.focal_length_px == pytest.approx(400)
    inverse = inverse_m(torch.tensor([depth, focus], dtype=F64))
    full_px, half_px = (blur_radius_px(*inverse, c.blur_scale_px_m).item() for c in (camera, half))
    assert half_px == pytest.approx(full_px / 2)


@given(
    x=st.floats(-2, 2),
    y=st.floats(-2, 2),
    z=metres,
    left=st.integers(0, 300),
    top=st.integers(0, 200),
)
def test_crop_then_project_equals_project_then_crop(x, y, z, left, top):
    camera = Camera(700.0, 0.01, (480, 640), principal_point_px=(311.5, 250.25))
    column, row = project((x, y, z), camera)
    cropped = project((x, y, z), camera.cropped(left, top, (100, 120)))
    assert cropped == pytest.approx((column - left, row - top), abs=1e-6)


@given(x=st.floats(-2, 2), y=st.floats(-2, 2), z=metres)
def test_resize_then_project_equals_project_then_resize(x, y, z):
    camera = Camera(700.0, 0.01, (480, 640), principal_point_px=(311.5, 250.25))
    column, row = project((x, y, z), camera)
    resized = project((x, y, z), camera.resized((240, 320)))
    assert resized == pytest.approx((column / 2, row / 2), abs=1e-6)


def test_a_camera_of_another_aspect_is_refused():
    camera = Camera(700.0, 0.01, (480, 640))
    assert camera.resized((101, 135)).image_size == (101, 135)  # 134.67 rounded
    with pytest.raises(ValueError, match="changes the aspect ratio"):
        camera.resized((240, 240))


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ((0.0, 0.01, (9, 9)), r"focal_length_px is 0\.0; expected a positive number"),
        ((5e10, 0.01, (9, 9)), r"focal_length_px is 5e\+10; no camera has more than 1e\+07"),
        ((900.0, 25.0, (9, 9)), r"aperture_diameter_m is 25; no camera has more than 10"),
        ((900.0, math.nan, (9, 9)), "aperture_diameter_m is nan"),
        ((900.0, 0.01, (0, 9)), r"image_size is \(0, 9\)"),
    ],
)
def test_impossible_cameras_are_refused(camera, message):
    with pytest.raises(InputError, match=message):
        Camera(*camera)


def test_a_camera_without_an_aperture_keeps_its_principal_point():
    known, unknown = Camera(700.0, 0.01, (480, 640)), Camera(700.0, None, (480, 640))
    assert unknown.blur_scale_px_m is None
    for change in (
        lambda camera: camera.resized((240, 320)),
        lambda camera: camera.cropped(20, 10, (300, 400)),
        lambda camera: camera.cropped(20, 10, (300, 400)).mirrored(),
    ):
        assert change(unknown) == replace(change(known), aperture_diameter_m=None)


@given(focal_length=st.floats(0.004, 0.2), ratio=st.floats(1.01, 500))
def test_lens_distance_is_where_the_lens_equation_holds(focal_length, ratio):
    lens_distance = 2 * focal_length * ratio  # beyond 2 f, the branch of photography
    image_distance = 1 / (1 / focal_length - 1 / lens_distance)
    found = lens_distance_m(lens_distance + image_distance, focal_length)
    assert found == pytest.approx(lens_distance, rel=1e-6)


def test_lens_distance_at_its_ends():
    assert lens_distance_m(math.inf, 0.05) == math.inf
    assert lens_distance_m(0.2, 0.05) == pytest.approx(0.1)  # 4 f apart, at magnification 1
    with pytest.raises(InputError, match="nearer than four focal lengths"):
        lens_distance_m(0.19, 0.05)


def test_beyond_the_far_bound_blur_stays_within_the_tolerance_of_infinity():
    bound = far_bound_dpt(12.5, tolerance_px=0.25)
    radius = blur_radius_px(torch.tensor([bound, 0.0]), torch.tensor(1.0), 12.5)
    assert 2 * (radius[1] - radius[0]).item() == pytest.approx(0.25)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    depth, focus = torch.rand(2, 3, 4, dtype=F64, generator=generator)
    scale = torch.tensor(12.5, dtype=F64)
    inputs = tuple(value.requires_grad_() for value in (depth, focus, scale))
    assert torch.autograd.gradcheck(blur_radius_px, inputs)
    colour = torch.linspace(0.001, 1, 23, dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(srgb_to_linear, (colour,))
    assert torch.autograd.gradcheck(linear_to_srgb, (colour,))
    (at_black,) = torch.autograd.grad(
        linear_to_srgb(zero := torch.zeros(1, requires_grad=True)), zero
    )
    assert at_black.item() == pytest.approx(12.92)


def test_srgb_round_trip_and_known_values():
    code = torch.arange(65536, dtype=F64) / 65535
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(code)), code, rtol=0, atol=1e-6)
    # Mid grey 0.5 is 21.4 % of the light; 8-bit 188 is the code of half the light.
    known = srgb_to_linear(torch.tensor([0.0, 0.04045, 0.5, 1.0], dtype=F64))
    expected = torch.tensor([0.0, 0.04045 / 12.92, 0.21404114, 1.0], dtype=F64)
    torch.testing.assert_close(known, expected, rtol=0, atol=1e-8)
    assert round(255 * linear_to_srgb(torch.tensor(0.5)).item()) == 188
    byte = torch.arange(256) / 255
    torch.testing.assert_close(
        linear_to_srgb(srgb_to_linear(byte)), byte, **TOLERANCE[torch.float32]
    )


def test_a_reduced_camera_can_be_enlarged_again():
    native = Camera(5000.0, 0.02, (4000, 6000))
    again = native.resized((683, 1024)).resized((4000, 6000))
    assert again.focal_length_px == pytest.approx(5000, rel=1e-3)
