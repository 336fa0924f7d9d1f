"""The benchmark's own renderer against closed forms: a disc's blur of planes and edges."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from scenery import Layer, polygon_patch
from static_stacks import composite, defocus, depth_map, disc

SIZE = (96, 120)
BLUR_SCALE_PX_M = 10.0


def opaque(near_m: float, far_m: float | None = None, columns: slice = slice(None)) -> Layer:
    layer = Layer.empty(SIZE, near_m, far_m)
    layer.alpha[:, columns] = 1
    layer.colour[:, columns] = (0.2, 0.5, 0.8)
    return layer


def test_layer_in_focus_is_untouched() -> None:
    layer = opaque(0.5, columns=slice(0, 60))
    colour, alpha = defocus(layer, 2.0, BLUR_SCALE_PX_M)
    np.testing.assert_allclose(colour, layer.colour, atol=1e-6)
    np.testing.assert_allclose(alpha, layer.alpha, atol=1e-6)


@pytest.mark.parametrize("far_m", [None, 2.0])
def test_constant_plane_stays_constant_to_the_border(far_m: float | None) -> None:
    layer = opaque(0.5, far_m)
    colour, alpha = defocus(layer, 0.3, BLUR_SCALE_PX_M)
    np.testing.assert_allclose(colour, layer.colour, atol=1e-5)
    np.testing.assert_allclose(alpha, 1, atol=1e-5)


def test_edge_follows_the_integral_of_the_disc() -> None:
    # Defocus 1.6 dpt at 10 px/dpt: a disc of radius 8 px. Coverage at distance x outside a
    # half-plane is the disc's share beyond a chord: (acos(x/r) - x/r sqrt(1 - (x/r)^2)) / pi.
    _, alpha = defocus(opaque(0.5, columns=slice(0, 60)), 0.4, BLUR_SCALE_PX_M)
    x = (np.arange(53, 67) + 0.5 - 60) / 8
    expected = (np.arccos(x) - x * np.sqrt(1 - x**2)) / np.pi
    # 1/250: the kernel is the disc's share of pixels, the formula that at their centres.
    np.testing.assert_allclose(alpha[40, 53:67], expected, atol=4e-3)


def test_tilted_plane_matches_an_upright_one_where_their_depths_meet() -> None:
    tilted = opaque(0.5, 2.0, columns=slice(0, 60))
    row = 48
    upright = opaque(tilted.depth_m((row + 0.5) / SIZE[0]), columns=slice(0, 60))
    # The tilt changes the radius by 0.08 px a row, so the edges differ by as little.
    for inverse_focus_dpt in (0.4, 1.9):
        _, alpha = defocus(tilted, inverse_focus_dpt, BLUR_SCALE_PX_M)
        _, expected = defocus(upright, inverse_focus_dpt, BLUR_SCALE_PX_M)
        np.testing.assert_allclose(alpha[row], expected[row], atol=0.02)


@pytest.mark.parametrize("radius_px", [1.0, 7.25, 20.0])
def test_disc_keeps_the_light_and_has_the_variance_of_a_disc(radius_px: float) -> None:
    kernel = disc(radius_px)
    half = kernel.shape[0] // 2
    variance = (kernel.sum(axis=0) * np.arange(-half, half + 1) ** 2).sum()
    assert kernel.sum() == pytest.approx(1, abs=1e-6)
    # Gathering the disc into pixels adds 1/12, a pixel's own variance, give or take as much.
    assert variance == pytest.approx(radius_px**2 / 4 + 1 / 12, abs=1 / 12)


@pytest.mark.parametrize("radius_px", [0.0, 0.3])
def test_disc_within_a_pixel_is_that_pixel(radius_px: float) -> None:
    kernel = disc(radius_px)
    assert kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] == kernel.sum() == 1


def test_front_layer_hides_and_depth_is_the_front_layer_s() -> None:
    front, back = opaque(0.5, columns=slice(0, 60)), opaque(1.0)
    back.colour[:] = 0.1
    image = composite([(layer.colour, layer.alpha) for layer in (front, back)])
    np.testing.assert_allclose(image[0, [0, 119]], [[0.2, 0.5, 0.8], [0.1] * 3], atol=1e-6)
    np.testing.assert_allclose(depth_map([front, back])[0, [0, 119]], [0.5, 1.0])


def test_polygon_covers_its_area() -> None:
    triangle = np.array([[3.25, 2.5], [40.75, 9.0], [12.0, 33.5]])
    (ax, ay), (bx, by) = triangle[1] - triangle[0], triangle[2] - triangle[0]
    _, _, alpha = polygon_patch(triangle, 0.0)
    # A filled polygon keeps the sub-pixels on its outline: half a sub-pixel along 115 px.
    assert alpha.sum() == pytest.approx(abs(ax * by - ay * bx) / 2, abs=115 / 8 + 1)
