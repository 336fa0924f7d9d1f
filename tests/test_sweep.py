from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import TOLERANCE
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import sweep as reference
from sample_stacks import BLUR_SCALE_PX_M, FOCUS_M, SIZE, photograph, texture

from focaldiffusion.filters import box_mean, noise_std
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera, srgb_to_linear
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF, blur
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture
from focaldiffusion.solve import plane_fit
from focaldiffusion.solve import sweep as sweep_module
from focaldiffusion.solve.posterior import own_texture_share
from focaldiffusion.solve.sharpness import sweep_sharpness
from focaldiffusion.solve.sweep import depth_hypotheses, ordered_focus, plane_misfit, sweep
from focaldiffusion.stack import FocalStack

DISC = PSF()


def sweep_of(stack: FocalStack):
    return sweep(stack, BLUR_SCALE_PX_M, DISC)


def best_plane(evidence) -> float:
    """The hypothesis that is most likely over all pixels together."""
    return float(evidence.hypotheses[evidence.posterior.log().sum((1, 2)).argmax()])


def reordered(stack: FocalStack, order: list[int]) -> FocalStack:
    distances_m = stack.focus_distances_m
    return replace(
        stack,
        images=stack.images[order],
        focus_distances_m=None if distances_m is None else distances_m[order],
    )


# The plane


@pytest.mark.parametrize("depth_m", [0.5, 0.58, 0.8, 1.0, 1.4, 2.0])
def test_a_textured_plane_is_most_likely_at_its_depth(depth_m):
    evidence = sweep_of(photograph(texture(), depth_m))
    torch.testing.assert_close(evidence.posterior.sum(0), torch.ones(SIZE))
    # Half a pixel of blur diameter: two steps of the hypotheses.
    assert abs(best_plane(evidence) - 1 / depth_m) * BLUR_SCALE_PX_M < 0.5


@pytest.mark.parametrize("depth_m", [0.45, 3.0])
def test_a_plane_beyond_the_focused_range_is_found_beyond_it(depth_m):
    inverse_depth_dpt = best_plane(sweep_of(photograph(texture(), depth_m)))
    near, far = 1 / FOCUS_M[0], 1 / FOCUS_M[-1]
    assert not far <= inverse_depth_dpt <= near
    # All frames are blurred there; a pixel and a half of blur diameter.
    assert abs(inverse_depth_dpt - 1 / depth_m) * BLUR_SCALE_PX_M < 1.5


def test_infinity_is_a_focus_distance_and_a_depth():
    stack = photograph(texture(), 1e6, (1.0, 2.0, math.inf))
    evidence = sweep_of(stack)
    assert evidence.hypotheses[0] == 0
    assert best_plane(evidence) * BLUR_SCALE_PX_M < 0.5


def test_two_frames_are_enough():
    evidence = sweep_of(photograph(texture(), 0.8, (0.5, 2.0)))
    assert abs(best_plane(evidence) - 1 / 0.8) * BLUR_SCALE_PX_M < 0.5


def test_pixels_that_are_never_sharp_are_marked():
    # Focused at 2 and 1.5 dpt; at 0.5 dpt the blur has a radius of 4 px.
    assert sweep_of(photograph(texture(), 2.0, (0.5, 0.67))).never_sharp.float().mean() > 0.95
    assert sweep_of(photograph(texture(), 0.6, (0.5, 0.67))).never_sharp.float().mean() < 0.05


@pytest.mark.parametrize("family", ["gaussian", "power_exponential"])
def test_the_misfit_is_lowest_for_the_shape_of_the_blur(family):
    camera = Camera(1000.0, BLUR_SCALE_PX_M / 1000, SIZE)
    depth = torch.full(SIZE, 0.8)
    scene = Scene(texture(), depth, torch.ones(SIZE, dtype=torch.bool), camera, "test")
    stack = capture(scene, [0.4, 2.0], psf=PSF(family), bit_depth=None)
    focus, truth = stack.focus_coordinates, torch.tensor([1.25])
    right, wrong = (
        plane_misfit(stack, focus, truth, BLUR_SCALE_PX_M, psf).mean()
        for psf in (PSF(family), DISC)
    )
    assert right < wrong


# Unknowns


def test_a_flat_wall_gives_no_evidence():
    evidence = sweep_of(photograph(0.3, 1.0))
    assert evidence.entropy.min() > 0.999
    assert evidence.certainty.max() < 1e-3
    assert evidence.sharpest.isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_clipped_walls_give_no_evidence(value):
    evidence = sweep_of(photograph(value, 1.0, noise_std_lsb=0))
    assert evidence.entropy.min() > 0.999
    assert evidence.certainty.max() < 1e-3
    assert evidence.sharpest.isfinite().all()


def test_beside_texture_a_flat_wall_still_gives_no_evidence():
    image = texture()
    image[:, :, 48:] = 0.3
    evidence = sweep_of(photograph(image, 1.0))
    textured, flat = evidence.certainty[:, :40], evidence.certainty[:, 64:]
    assert flat.max() < 1e-3
    assert textured.mean() > 0.05


def test_differences_that_no_blur_explains_give_little_evidence():
    stack = photograph(0.2, 1.0)
    noise = torch.randn(len(stack), 1, *SIZE, generator=torch.Generator().manual_seed(0))
    blotches = box_mean(box_mean(noise, 2), 2)  # as left by a JPEG coder
    blotches *= 4 / 255 / blotches.std()
    images = srgb_to_linear(0.5 + blotches).expand(-1, 3, -1, -1)
    assert noise_std(images) < 1 / 255
    evidence = sweep_of(replace(stack, images=images))
    assert evidence.certainty.mean() < 0.08  # 0.35 if they counted as texture


def test_texture_counts_despite_unexplained_differences():
    stack = photograph(texture(), 1.0)
    shifts = (1, 0, -1, 1)
    moved = [image.roll(one, -1) for image, one in zip(stack.images, shifts, strict=True)]
    evidence = sweep_of(replace(stack, images=torch.stack(moved)))
    assert best_plane(evidence) == pytest.approx(1.0, abs=0.1)


def test_a_clipped_highlight_is_no_evidence_against_its_surface():
    image = texture()
    image[:, 30:36, 40:46] = (
        4.0  # four times what the sensor holds; blurred, its rim is not clipped
    )
    stack = photograph(image, 1.0)
    assert (stack.images == 1).any()
    focus = stack.focus_coordinates
    planes = plane_misfit(stack, focus, sweep_of(stack).hypotheses, BLUR_SCALE_PX_M, DISC)
    assert (planes[:, stack.images.amin((0, 1)) >= 0.98] == 0).all()
    assert abs(best_plane(sweep_of(stack)) - 1) * BLUR_SCALE_PX_M < 0.5


def test_planes_between_others_half_a_pixel_apart_are_interpolated():
    stack = photograph(texture(), 1 / torch.linspace(0.5, 2.0, SIZE[1]))
    focus = stack.focus_coordinates
    hypotheses = torch.linspace(0.5, 2.0, 4 * round(1.5 * BLUR_SCALE_PX_M) + 1)  # 1/4 px apart
    every = plane_misfit(stack, focus, hypotheses, BLUR_SCALE_PX_M, DISC)
    apart = plane_misfit(stack, focus, hypotheses[1::3], BLUR_SCALE_PX_M, DISC)
    error = (every[1::3] - apart).abs().mean() / apart.mean()
    assert 0 < error < 2e-3  # fine texture: ten times what photographs show


# Invariants


def test_frame_order_does_not_matter():
    depth_m = 1 / torch.linspace(0.5, 2.0, SIZE[1])
    stack = photograph(texture(), depth_m)
    one, other = sweep_of(stack), sweep_of(reordered(stack, [2, 0, 3, 1]))
    # Sums over the frames round differently.
    torch.testing.assert_close(other.posterior, one.posterior, atol=1e-4, rtol=1e-2)
    same = (other.sharpest - one.sharpest).abs() < 1e-3
    # Elsewhere two hypotheses are equally good, and rounding decides.
    assert same.float().mean() > 0.999


@pytest.mark.parametrize("side", [-1, -2])
def test_a_mirrored_scene_has_the_mirrored_posterior(side):
    stack = photograph(texture(), 1 / torch.linspace(0.5, 2.0, SIZE[1]))
    mirrored = replace(stack, images=stack.images.flip(side))
    torch.testing.assert_close(
        sweep_of(mirrored).posterior.flip(side), sweep_of(stack).posterior, atol=1e-4, rtol=1e-2
    )


def test_tiles_agree_with_the_whole(monkeypatch):
    stack = photograph(texture(), 1 / torch.linspace(0.5, 2.0, SIZE[1]))
    focus = stack.focus_coordinates
    hypotheses = depth_hypotheses(focus, BLUR_SCALE_PX_M)
    whole = plane_misfit(stack, focus, hypotheses, BLUR_SCALE_PX_M, DISC)
    monkeypatch.setattr(sweep_module, "_TILE_PX", 40)
    done = []
    tiled = plane_misfit(
        stack, focus, hypotheses, BLUR_SCALE_PX_M, DISC, meter=Meter(lambda *now: done.append(now))
    )
    count, total = done[-1]
    assert count == total
    assert total % 6 == 0
    # Tiles overlap by the reach of the blur; J reaches farther, as inverse filters do.
    difference = (tiled - whole).abs().mean() / whole.mean()
    assert difference < 0.02
    step = (tiled.argmin(0) - whole.argmin(0)).abs()
    assert (step <= 1).float().mean() > 0.95


def test_double_precision_agrees_with_single():
    stack = photograph(texture(), 0.8)
    double = replace(stack, images=stack.images.double())
    evidence = sweep_of(double)
    assert evidence.posterior.dtype == torch.float64
    # Float32 spectra carry the misfit, in units of a variance near (1/400)², to a thousandth.
    torch.testing.assert_close(
        evidence.posterior.float(), sweep_of(stack).posterior, atol=1e-4, rtol=1e-2
    )


# The slow version


def tiny_stack() -> tuple[FocalStack, torch.Tensor, float]:
    images = torch.rand(2, 3, 8, 9, generator=torch.Generator().manual_seed(4)).double()
    # Radii beyond the image's side, where the mirrored image is its own exact continuation.
    return (
        FocalStack(images, focus_distances_m=torch.tensor([0.5, 2.0])),
        torch.tensor([0.4, 1.3, 2.1], dtype=torch.float64),
        12.0,
    )


PRIOR = (plane_fit._PRIOR_STRENGTH, plane_fit._PRIOR_KNEE)


def reference_radii(stack: FocalStack, hypotheses: torch.Tensor, scale: float) -> np.ndarray:
    focus = 1 / stack.focus_distances_m.double().numpy()
    return np.abs(0.5 * scale * (focus - hypotheses.numpy()[:, None]))


@pytest.mark.parametrize(
    ("psf", "tolerance"),
    [
        (PSF("gaussian"), TOLERANCE[torch.float64]),
        # Beyond x = 5 torch's J1 is off by 4e-7, in double precision too.
        (DISC, {"rtol": 1e-5, "atol": 1e-5}),
    ],
)
def test_misfit_matches_the_slow_version(psf, tolerance):
    stack, hypotheses, scale = tiny_stack()
    images = stack.images.numpy()
    luma = np.einsum("c,nchw->nhw", reference.LUMA, images)
    radii_px = reference_radii(stack, hypotheses, scale)
    assert radii_px.max() > max(stack.size)
    expected = reference.plane_misfit(luma, reference.frame_weight(images), radii_px, psf, PRIOR)
    got = plane_misfit(stack, stack.focus_coordinates, hypotheses, scale, psf)
    torch.testing.assert_close(got, torch.from_numpy(expected), **tolerance)


def test_gradient_of_the_misfit_matches_the_slow_version():
    stack, hypotheses, scale = tiny_stack()
    images = stack.images.clone().requires_grad_()
    generator = torch.Generator().manual_seed(5)
    against = torch.rand(3, 8, 9, generator=generator, dtype=torch.float64)
    misfit = plane_misfit(
        replace(stack, images=images), stack.focus_coordinates, hypotheses, scale, PSF("gaussian")
    )
    (gradient,) = torch.autograd.grad((misfit * against).sum(), images)
    # The noise is measured, not differentiated; then the misfit is quadratic in the images, and
    # a central difference is exact.
    weight = reference.frame_weight(stack.images.numpy())
    radii_px = reference_radii(stack, hypotheses, scale)
    for _ in range(2):
        direction = torch.randn(images.shape, generator=generator, dtype=torch.float64)
        ends = [
            reference.plane_misfit(
                np.einsum("c,nchw->nhw", reference.LUMA, (stack.images + end * direction).numpy()),
                weight,
                radii_px,
                PSF("gaussian"),
                PRIOR,
            )
            for end in (-0.5, 0.5)
        ]
        expected = float(((ends[1] - ends[0]) * against.numpy()).sum())
        assert abs(expected) > 1
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-8)


def test_the_posterior_has_a_gradient_in_every_frame():
    stack = photograph(texture(), 0.8)
    images = stack.images.clone().requires_grad_()
    evidence = sweep_of(replace(stack, images=images))
    (evidence.mean - 1.25).square().mean().backward()
    strength = images.grad.square().mean((1, 2, 3)).sqrt()
    assert (strength > 0.01 * strength.max()).all()
    assert images.grad.isfinite().all()


# Hypotheses


@given(
    inverse_m=st.lists(st.floats(0, 10), min_size=2, max_size=30, unique=True),
    scale=st.floats(2, 2000),
)
@settings(deadline=None)
def test_hypotheses_cover_the_focus_distances_in_order(inverse_m, scale):
    focus = torch.tensor(inverse_m)
    if float(focus.max()) * 1.25 <= 0.25 / scale:
        return  # refused: for this lens, all frames are focused at infinity
    hypotheses = depth_hypotheses(focus, scale)
    assert (hypotheses.diff() > 0).all()
    assert hypotheses[0] >= 0
    assert hypotheses[0] <= focus.min()
    nearest = float(focus.max())
    assert hypotheses[-1] == pytest.approx(max(1.25 * nearest, nearest + 16 / scale), rel=1e-6)
    assert 3 <= len(hypotheses) <= 260


@pytest.mark.parametrize(
    ("camera", "focus_m"),
    [
        # A phone: f = 6.8 mm at f/1.8, 1024 px across a 9.8 mm sensor.
        (LensFacts(6.8e-3, 1.8, 9.8e-3 / 1024).camera((768, 1024), 0.1), (0.1, 0.3, math.inf)),
        # Full frame portrait lens: 85 mm at f/1.4.
        (LensFacts(85e-3, 1.4, 36e-3 / 1024).camera((683, 1024), 0.8), (0.8, 1.5, 10.0)),
        # A macro lens at 1:1: 100 mm at f/2.8, 200 mm away, in steps of half a millimetre.
        (
            LensFacts(0.1, 2.8, 36e-3 / 1024).camera((683, 1024), 0.2),
            tuple(0.2 + 0.0005 * step for step in range(20)),
        ),
    ],
)
def test_real_lenses_get_a_moderate_number_of_hypotheses(camera, focus_m):
    hypotheses = depth_hypotheses(1 / torch.tensor(focus_m), camera.blur_scale_px_m)
    assert 10 <= len(hypotheses) <= 200
    inside = hypotheses[(hypotheses >= 1 / max(focus_m)) & (hypotheses <= 1 / min(focus_m))]
    span_px = (1 / min(focus_m) - 1 / max(focus_m)) * camera.blur_scale_px_m
    steps_px = [camera.blur_scale_px_m * float(b - a) for a, b in pairwise(inside)]
    assert max(steps_px) <= max(1.0, span_px / 80) * 1.001


# Sharpness


def staircase(count: int = 4) -> tuple[FocalStack, torch.Tensor]:
    """Frames of a textured staircase, whose step i is sharp in frame i; and each column's step."""
    image = texture((64, 32 * count))
    step = torch.arange(32 * count) // 32
    frames = []
    for index in range(count):
        blurred = [blur(image, 1.5 * abs(index - other), DISC) for other in range(count)]
        frames.append(torch.cat([b[:, :, step == i] for i, b in enumerate(blurred)], dim=2))
    return FocalStack(torch.stack(frames)), step


@pytest.mark.parametrize("frame", [0, 1, 2, 3])
def test_a_plane_in_the_focus_of_an_ordered_frame_is_found_there(frame):
    focus_m = [1 / one for one in (0.5, 0.7, 1.1, 1.9)]  # steps double
    stack = FocalStack(photograph(texture(), focus_m[frame], focus_m).images)
    evidence = sweep(stack, 1.4 * BLUR_SCALE_PX_M, DISC, step_growth=math.log(4))
    assert best_plane(evidence) == pytest.approx(frame / 3, abs=0.03)
    assert float(evidence.sharpest.median()) == pytest.approx(frame / 3, abs=0.03)


def test_steps_of_ordered_frames_grow_by_a_factor():
    places = ordered_focus(5, math.log(8))
    assert places[[0, -1]].tolist() == [0, 1]
    steps = places.diff()
    torch.testing.assert_close(steps[1:] / steps[:-1], torch.full((3,), 2.0).double())
    assert ordered_focus(2, 3.0).tolist() == [0, 1]
    torch.testing.assert_close(ordered_focus(4, 0.0), torch.linspace(0, 1, 4).double())


def test_sharpness_finds_the_order_of_a_staircase():
    stack, step = staircase()
    evidence = sweep_sharpness(stack)
    assert evidence.axis == "order"
    inside = (torch.arange(len(step)) % 32 >= 8) & (torch.arange(len(step)) % 32 < 24)
    for index in range(4):
        columns = inside & (step == index)
        # Half a frame.
        middle = evidence.sharpest[:, columns].median()
        assert abs(float(middle) - index / 3) < 0.5 / 3
        likelihood = evidence.posterior[:, :, columns].log().sum((1, 2))
        assert abs(float(evidence.hypotheses[likelihood.argmax()]) - index / 3) < 0.5 / 3


def test_sharpness_does_not_depend_on_the_order_of_known_positions():
    stack, _ = staircase()
    positions = torch.tensor([0.0, 1e-3, 2e-3, 3e-3])
    order = [2, 0, 3, 1]
    one = sweep_sharpness(replace(stack, focus_positions_m=positions))
    other = sweep_sharpness(
        replace(stack, images=stack.images[order], focus_positions_m=positions[order])
    )
    assert one.axis == "position_m"
    assert one.hypotheses[-1] == pytest.approx(3e-3)
    torch.testing.assert_close(other.posterior, one.posterior)


def test_sharpness_gives_no_evidence_on_a_flat_wall():
    images = photograph(0.3, 1.0, noise_std_lsb=1.0).images
    evidence = sweep_sharpness(FocalStack(images))
    # Noise alone differs between frames; a textured pixel reaches 0.5.
    assert evidence.entropy.min() > 0.99
    assert evidence.certainty.max() < 0.1


def test_sharpness_gives_little_evidence_where_a_halo_ends():
    image = torch.full((3, *SIZE), 0.05)
    image[:, :, 44:52] = 0.7
    evidence = sweep_sharpness(FocalStack(photograph(image, 1.0, blur_scale_px_m=24).images))
    assert evidence.certainty[:, 42:46].max() > 0.5
    assert evidence.certainty[:, :41].max() < 0.25


# Parts


def test_texture_counts_unless_a_stronger_edge_is_within_reach():
    image = torch.full((3, 80, 80), 0.2)
    image[:, :, 40:] = 0.6  # one edge
    image[:, ::8, 8:12] = 0.25  # and fainter texture, 30 px away
    wide, narrow = (own_texture_share(image, reach_px, 1.2, 1 / 255) for reach_px in (32.0, 4.0))
    assert narrow[20, 40] > 0.3
    assert narrow[:, 6:14].max() > 0.3
    assert wide[:, 6:14].max() < 0.1
