"""Apertures that are not round: their shape, their size, and what the renderer makes of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.simulation.bokeh import Bokeh
from focaldiffusion.simulation.render import render

F64 = torch.float64
SHAPES = [Bokeh("hexagon"), Bokeh("cats_eye"), Bokeh("cats_eye", (0.7, -0.4))]


def radius(value: float) -> Tensor:
    return torch.tensor(value, dtype=F64)


def variances(kernel: Tensor) -> tuple[float, float]:
    at = torch.arange(len(kernel), dtype=F64) - len(kernel) // 2
    return float(kernel.sum(1) @ at**2), float(kernel.sum(0) @ at**2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("radius_px", [0.0, 0.3, 1.0, 4.5, 20.0])
def test_light_adds_up_and_half_a_turn_changes_nothing(shape: Bokeh, radius_px: float) -> None:
    kernel = shape.kernel(radius(radius_px))
    assert float(kernel.sum()) == pytest.approx(1)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    assert (kernel >= 0).all()


@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_blur_is_as_large_as_that_of_a_disc(shape: Bokeh) -> None:
    # A pixel's own extent adds a little to 30²/4.
    assert variances(shape.kernel(radius(30.0))) == pytest.approx((225, 225), rel=0.01)


def test_no_radius_is_no_blur() -> None:
    for shape in SHAPES:
        kernel = shape.kernel(radius(0.0))
        assert kernel[len(kernel) // 2, len(kernel) // 2] == 1


def test_a_hexagon_has_six_corners() -> None:
    kernel = Bokeh("hexagon").kernel(radius(40.0))
    centre = len(kernel) // 2
    angle = torch.arange(0, 360, dtype=F64).deg2rad()
    reach = [
        max(
            r
            for r in range(centre + 1)
            if kernel[round(centre + r * float(a.sin())), round(centre + r * float(a.cos()))] > 0
        )
        for a in angle
    ]
    corners = [
        d for d in range(360) if reach[d] == max(reach[(d + k) % 360] for k in range(-25, 26))
    ]
    sixths = {round(d / 60) % 6 for d in corners}
    assert sixths == set(range(6))


def test_a_cats_eye_is_narrow_along_its_shift() -> None:
    across, along = variances(Bokeh("cats_eye", (1.0, 0.0)).kernel(radius(30.0)))
    assert along < 0.5 * across


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [(16, 24), (17, 21)])
def test_factors_are_the_transform_of_the_kernel(shape: Bokeh, size: tuple[int, int]) -> None:
    radii = torch.tensor([0.0, 1.3, 5.0], dtype=F64)
    factors = shape.factors(radii, size)
    for one, radius_px in zip(factors, radii, strict=True):
        kernel = shape.kernel(radius_px)
        plane = torch.zeros(size, dtype=F64)
        for y in range(len(kernel)):
            for x in range(len(kernel)):
                reach = len(kernel) // 2
                plane[(y - reach) % size[0], (x - reach) % size[1]] += kernel[y, x]
        torch.testing.assert_close(one.to(torch.complex128), torch.fft.fft2(plane))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_light_out_of_focus_has_the_shape(shape: Bokeh) -> None:
    image = torch.zeros(3, 61, 71, dtype=F64)
    image[:, 30, 35] = 1
    depth = torch.ones(61, 71, dtype=F64)
    (frame,) = render(image, depth, torch.tensor([2.0], dtype=F64), 18.0, shape)
    kernel = shape.kernel(radius(9.0))
    reach = len(kernel) // 2
    found = frame[0, 30 - reach : 31 + reach, 35 - reach : 36 + reach]
    torch.testing.assert_close(found, kernel)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_constant_image_stays_constant(shape: Bokeh) -> None:
    depth = torch.ones(40, 60, dtype=F64)
    depth[:, 30:] = 0.2
    image = torch.full((3, 40, 60), 0.4, dtype=F64)
    frames = render(image, depth, torch.tensor([1.0, 0.2, 3.0], dtype=F64), 12.0, shape)
    torch.testing.assert_close(frames, image.expand_as(frames))


def test_shapes_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="'star' is unknown; expected one of disc, hexagon"):
        Bokeh("star")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"at most 1.5 radii"):
        Bokeh("cats_eye", (1.2, 1.2))
