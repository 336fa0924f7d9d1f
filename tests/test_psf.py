from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import psf as reference

from focaldiffusion.errors import InputError
from focaldiffusion.psf import PSF, MirrorGrid, blur

SHAPES = [
    PSF("disc"),
    PSF("gaussian"),
    PSF("power_exponential", 2.5),
    PSF("power_exponential", 8),
    PSF("power_exponential", 32),
]
F64 = torch.float64


@pytest.mark.parametrize("psf", SHAPES, ids=str)
def test_transfer_function_is_the_transform_of_the_spatial_shape(psf):
    # 17 is beyond the last zero that matters; the quadrature of the reference reaches 1e-8.
    frequency_radius = [0.0, 1e-4, 0.07, 0.3, 0.61, 1.0, 2.2, 5.3, 17.0]
    expected = [reference.otf(psf, value) for value in frequency_radius]
    found = psf.otf(torch.tensor(frequency_radius, dtype=F64)).tolist()
    assert found == pytest.approx(expected, abs=2e-6)


def test_power_exponential_ends_in_the_gaussian_and_the_disc():
    x = torch.linspace(0, 20, 500, dtype=F64)
    gaussian, power = PSF("gaussian").otf(x), PSF("power_exponential", 2).otf(x)
    torch.testing.assert_close(power, gaussian, rtol=0, atol=1e-6)
    # The edge of exponent 32 is R/32 wide, which shows at |f| R = 1 as a difference of some 1e-3.
    low = torch.linspace(0, 1, 50, dtype=F64)
    difference = PSF("power_exponential", 32).otf(low) - PSF("disc").otf(low)
    assert difference.abs().max() < 5e-3


@pytest.mark.parametrize("psf", SHAPES, ids=str)
def test_a_point_becomes_the_unit_sum_shape(psf):
    image = torch.zeros(41, 41, dtype=F64)
    image[20, 20] = 1
    radius = 7.0
    spot = blur(image, radius, psf)
    # The ripple of the band limit that leaves the padded grid comes back mirrored, or not at all.
    assert spot.sum().item() == pytest.approx(1, abs=2e-4)

    kernel = torch.from_numpy(reference.coverage_kernel(psf, radius))
    half = kernel.shape[0] // 2
    expected = torch.nn.functional.pad(kernel, (20 - half,) * 4)
    # A pixel's value is the band-limited sample there, the reference's its coverage: they differ
    # by the ripple at a hard edge, a tenth of the light for this disc and none for a soft shape.
    assert (spot - expected).abs().sum() < (
        0.12 if psf.exponent == 32 or psf.family == "disc" else 0.08
    )
    assert spot.min() > -0.1 * expected.max()


@pytest.mark.parametrize("psf", SHAPES, ids=str)
@pytest.mark.parametrize("radius", [0.1, 0.7, 3.0])
def test_every_blur_has_the_variance_of_the_disc(psf, radius):
    # A wave of frequency f loses (2 pi f)^2 / 2 times the variance, R^2 / 4, and terms in f^4.
    grid = MirrorGrid((256, 256), 1e6)
    gain = grid.transfer(psf, torch.tensor(radius, dtype=F64))[1, 0].item()
    variance = (1 - gain) * 2 / (2 * math.pi / 512) ** 2
    assert variance == pytest.approx(radius**2 / 4, rel=1e-3)


def test_edges_do_not_ring():
    image = torch.zeros(4, 128, dtype=F64)
    image[:, 64:] = 1
    overshoot = [
        float(blur(image, radius, PSF()).max()) - 1 for radius in np.geomspace(0.1, 30, 40)
    ]
    assert max(overshoot) < 0.0071


@pytest.mark.parametrize("radius", [2.0, 5.0, 15.0])
def test_a_half_plane_follows_the_integral_of_the_disc(radius):
    image = torch.zeros(8, 96, dtype=F64)
    image[:, 48:] = 1
    profile = blur(image, radius, PSF())[3]
    expected = [reference.disc_integral(x + 0.5 - 48, radius) for x in range(96)]
    # The image is a band-limited step, not a sharp one, and so differs beside the line.
    assert profile.tolist() == pytest.approx(expected, abs=0.04 / radius)


@pytest.mark.parametrize("psf", SHAPES, ids=str)
@pytest.mark.parametrize("radius", [0.2, 4.0, 31.0, 1000.0])
def test_a_constant_stays_constant_up_to_the_border(psf, radius):
    image = torch.full((3, 17, 30), 0.7)
    torch.testing.assert_close(blur(image, radius, psf), image, **TOLERANCE[torch.float32])


def test_zero_radius_returns_the_image_itself():
    image = torch.rand(2, 3, 9, 11)
    assert torch.equal(blur(image, 0.0, PSF()), image)
    radii = torch.tensor([[0.0], [2.0]])
    blurred = blur(image, radii, PSF())
    assert torch.equal(blurred[0], image[0])
    torch.testing.assert_close(blurred[1], blur(image[1], 2.0, PSF()))


@given(
    height=st.integers(2, 24),
    width=st.integers(2, 24),
    radius=st.floats(0.1, 60),
    seed=st.integers(0, 1000),
)
@settings(max_examples=40, deadline=None)
def test_mirroring_keeps_the_light_and_commutes_with_flips(height, width, radius, seed):
    image = torch.rand(height, width, dtype=F64, generator=torch.Generator().manual_seed(seed))
    blurred = blur(image, radius, PSF())
    # Beyond the border of the padded grid lies a ripple; in white noise at a radius of 1 px it
    # came to 4.6e-3 at worst, over 1500 draws of size, radius and seed.
    torch.testing.assert_close(
        blur(image.flip(-1, -2), radius, PSF()).flip(-1, -2), blurred, rtol=0, atol=6e-3
    )
    assert blurred.mean().item() == pytest.approx(image.mean().item(), abs=3e-3)


def test_a_padded_grid_matches_the_fully_mirrored_one():
    image = torch.rand(64, 70, dtype=F64, generator=torch.Generator().manual_seed(0))
    psf, radius = PSF(), torch.tensor(6.0, dtype=F64)
    everything = MirrorGrid((64, 70), 1e6)
    assert everything.grid_size == (128, 140)
    expected = everything.image(everything.spectrum(image) * everything.transfer(psf, radius))
    torch.testing.assert_close(blur(image, radius, psf), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("psf", SHAPES, ids=str)
def test_gradients(psf):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, dtype=F64, generator=generator) * 4
    assert torch.autograd.gradcheck(psf.otf, x.requires_grad_())
    image = torch.rand(2, 5, 6, dtype=F64, generator=generator, requires_grad=True)
    radius = torch.tensor([0.4, 2.3], dtype=F64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda i, r: blur(i, r, psf), (image, radius))


def test_the_jinc_of_tiny_arguments_does_not_cancel():
    x = torch.logspace(-6, 0, 200, dtype=torch.float32, requires_grad=True)
    value = PSF().otf(x)
    (slope,) = torch.autograd.grad(value.sum(), x)
    exact = x.detach().double().requires_grad_()
    exact_value = PSF().otf(exact)
    (exact_slope,) = torch.autograd.grad(exact_value.sum(), exact)
    torch.testing.assert_close(value.detach().double(), exact_value.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-3, atol=1e-5)


def test_a_batch_of_radii_equals_singles():
    image = torch.rand(3, 14, 15, dtype=F64, generator=torch.Generator().manual_seed(1))
    radii = torch.tensor([0.5, 1.5, 4.0], dtype=F64)
    together = blur(image[None], radii[:, None], PSF())
    for one, radius in zip(together, radii, strict=True):
        # The padding follows the largest radius, see the ripple above.
        torch.testing.assert_close(one, blur(image, radius, PSF()), rtol=0, atol=3e-3)


def test_errors_name_what_is_expected():
    with pytest.raises(InputError, match="'hexagon' is unknown; expected one of disc, gaussian"):
        PSF("hexagon")  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"exponent is 40\.0; expected a number from 2"):
        PSF("power_exponential", 40.0)
    with pytest.raises(InputError, match="exponent is nan"):
        PSF("power_exponential", np.nan)
