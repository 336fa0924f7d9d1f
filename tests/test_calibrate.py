from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from sample_stacks import FOCUS_M, SIZE, photograph, texture

from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.solve.calibrate import find_blur_scale
from focaldiffusion.solve.plane_fit import between_planes, fitted_planes
from focaldiffusion.stack import FocalStack
from focaldiffusion.threads import threads

DEPTH_M = 1 / torch.linspace(0.5, 2.0, SIZE[1])


def uncalibrated(stack: FocalStack) -> FocalStack:
    return FocalStack(stack.images, focus_distances_m=stack.focus_distances_m)


@pytest.mark.parametrize(
    ("scale_px_m", "tolerance"),
    # 15 and 30 px of blur between the outermost frames; for 6 px the search is off by a sixth.
    [(10.0, 0.1), (20.0, 0.1), (4.0, 0.2)],
)
def test_the_lens_is_found_from_the_frames(scale_px_m, tolerance):
    stack = photograph(texture(), DEPTH_M, blur_scale_px_m=scale_px_m)
    found = find_blur_scale(uncalibrated(stack), PSF())
    assert found.is_clear
    assert found.value == pytest.approx(scale_px_m, rel=tolerance)


def test_two_threads_find_the_bits_of_one():
    stack = FocalStack(photograph(texture(), DEPTH_M, blur_scale_px_m=12.0).images)
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(find_blur_scale(stack, PSF()))
    assert found[0] == found[1]


def test_scale_refers_to_the_stack_not_the_search():
    # Above 256 px the search shrinks the frames.
    size = (192, 384)
    stack = photograph(
        texture(size), 1 / torch.linspace(0.5, 2.0, size[1]), size=size, blur_scale_px_m=16.0
    )
    found = find_blur_scale(uncalibrated(stack), PSF())
    assert found.is_clear
    assert found.value == pytest.approx(16.0, rel=0.1)


@pytest.mark.parametrize(
    ("focus_dpt", "step_growth"),
    [
        ((0.5, 1.0, 1.5, 2.0), 0.0),
        ((0.5, 0.7, 1.1, 2.0), 1.5),  # steps of 0.2, 0.4 and 0.9: about doubling
        ((0.5, 1.4, 1.8, 2.0), -1.5),
    ],
)
def test_steps_of_ordered_frames_are_found_too(focus_dpt, step_growth):
    focus_m = [1 / one for one in focus_dpt]
    stack = photograph(texture(), DEPTH_M, focus_m, blur_scale_px_m=12.0)
    found = find_blur_scale(FocalStack(stack.images), PSF())
    assert found.is_clear
    # 18 px over the sweep.
    assert found.value == pytest.approx(18.0, rel=0.15)
    assert found.step_growth == pytest.approx(step_growth, abs=0.4)


def test_frames_in_another_order_do_not_make_even_steps_uneven():
    focus_m = [1 / one for one in torch.linspace(0.5, 2.0, 8).tolist()]
    stack = photograph(texture(), DEPTH_M, focus_m, blur_scale_px_m=12.0)
    found = find_blur_scale(FocalStack(stack.images[[0, 1, 2, 3, 6, 7, 4, 5]]), PSF())
    assert found.step_growth == 0


def test_part_of_a_long_stack_is_enough():
    focus_m = [1 / one for one in torch.linspace(0.5, 2.0, 24).tolist()]
    stack = photograph(texture(), DEPTH_M, focus_m, blur_scale_px_m=12.0)
    calls = []
    found = find_blur_scale(
        FocalStack(stack.images), PSF(), meter=Meter(lambda *one: calls.append(one))
    )
    assert found.value == pytest.approx(18.0, rel=0.1)
    assert all(0 < done <= total for done, total in calls)


def test_frame_order_does_not_matter():
    stack = photograph(texture(), DEPTH_M, blur_scale_px_m=6.0)
    order = [2, 0, 3, 1]
    shuffled = FocalStack(stack.images[order], focus_distances_m=stack.focus_distances_m[order])
    one, other = find_blur_scale(uncalibrated(stack), PSF()), find_blur_scale(shuffled, PSF())
    assert other.value == pytest.approx(one.value, rel=1e-3)


def test_stage_positions_replace_distances():
    stack = photograph(texture(), DEPTH_M, blur_scale_px_m=10.0)
    # A millimetre of travel per dioptre.
    positions_m = 1e-3 / torch.tensor(FOCUS_M)
    found = find_blur_scale(FocalStack(stack.images, focus_positions_m=positions_m), PSF())
    assert found.is_clear
    assert found.value == pytest.approx(10.0 / 1e-3, rel=0.1)


@pytest.mark.parametrize(
    ("value", "noise_std_lsb"),
    [
        (0.3, 0.0),
        (0.3, 1.0),
        pytest.param(0.0, 0.0, id="black"),
        pytest.param(1.0, 0.0, id="clipped"),
    ],
)
def test_a_flat_stack_is_not_clear(value, noise_std_lsb):
    stack = photograph(value, 1.0, noise_std_lsb=noise_std_lsb)
    assert not find_blur_scale(uncalibrated(stack), PSF()).is_clear


def test_flat_frames_of_different_brightness_are_not_clear():
    # Neighbouring scales fit these equally well, to the last bit.
    images = srgb_to_linear(torch.linspace(40, 200, 5) / 255)[:, None, None, None]
    images = images.expand(5, 3, 48, 64)
    focus_m = torch.tensor([0.1, 0.15, 0.3, 0.7, 1.5])
    assert not find_blur_scale(FocalStack(images, focus_distances_m=focus_m), PSF()).is_clear


def test_progress_counts_up_to_its_total():
    calls = []
    find_blur_scale(
        uncalibrated(photograph(0.3, 1.0, size=(32, 32))),
        PSF(),
        meter=Meter(lambda done, total: calls.append((done, total))),
    )
    assert [done for done, _ in calls] == list(range(1, len(calls) + 1))
    assert calls[-1][0] <= calls[-1][1]


def test_elongated_frames_are_searched_too():
    images = photograph(texture((10, 1024)), 1.0, size=(10, 1024)).images
    found = find_blur_scale(FocalStack(images), PSF())
    assert found.value > 0


def test_planes_between_fitted_ones_follow_a_cubic() -> None:
    places = [0.0, 0.1, 0.3, 0.45, 0.9, 1.0, 1.2, 1.3, 2.5, 2.6, 2.7]
    fitted = fitted_planes(places, 0.5)
    assert fitted[0] == 0
    assert fitted[-1] == len(places) - 1
    for before, after in pairwise(fitted):
        assert after == before + 1 or places[after] - places[before] <= 0.5
    between = list(between_planes(places, fitted))
    assert sorted([*fitted, *(k for k, _, _ in between)]) == list(range(len(places)))
    for k, around, weights in between:
        cubes = sum(weight * places[one] ** 3 for one, weight in zip(around, weights, strict=True))
        assert cubes == pytest.approx(places[k] ** 3)
