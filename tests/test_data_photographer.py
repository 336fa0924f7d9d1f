from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import TOLERANCE
from rooms import room, source

from focaldiffusion.data.photographer import photograph
from focaldiffusion.errors import InputError
from focaldiffusion.psf import PSF
from focaldiffusion.simulation.capture import capture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def lens(**kwargs) -> dict:
    return {"simulator_kwargs": kwargs}


def sweeps(count: int, **changes) -> list[list[float]]:
    """The focus distances [dpt] of `count` stacks."""
    where = source(**changes)
    stacks = [photograph(room(), where, seeded(seed)).stack for seed in range(count)]
    return [(1 / stack.focus_distances_m).tolist() for stack in stacks]


def test_an_ideal_lens_takes_what_capture_takes_and_the_truth_stays():
    scene = room()
    sample = photograph(scene, source(), seeded())
    expected = capture(scene, [0.5, 1 / 1.125, 4.0])
    torch.testing.assert_close(sample.stack.images, expected.images, **TOLERANCE[torch.float32])
    assert sample.stack.camera == scene.camera
    assert sample.all_in_focus is scene.all_in_focus
    assert sample.depth_m is scene.depth_m
    assert sample.valid is scene.valid
    assert sample.source == "room 0"


def test_a_seed_repeats_a_stack():
    where = source(
        options=lens(
            psf="power_exponential",
            aperture_stops=1.0,
            focus_spacing="random",
            focus_range_jitter=0.2,
            focus_jitter_dpt=0.05,
            noise_std_lsb_range=[0.5, 2.0],
            exposure_jitter=0.1,
            breathing=0.004,
            shift_px=1.0,
            jpeg_quality_range=[70, 95],
        ),
        focal_stack_size=(2, 6),
    )
    first, again, other = (photograph(room(), where, seeded(seed)).stack for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.focus_distances_m, again.focus_distances_m)
    assert first.camera == again.camera
    assert first.camera != other.camera


def test_depth_moves_no_focus_plane():
    # The same scene five times as deep: the sweep, the lens and all else are the same.
    where = source(
        options=lens(focus_spacing="random", focus_range_jitter=0.3, aperture_stops=1.0),
        focal_stack_size=(2, 6),
    )
    near, deep = room(), replace(room(), depth_m=5 * room().depth_m)
    for seed in range(10):
        one, two = (photograph(scene, where, seeded(seed)).stack for scene in (near, deep))
        assert torch.equal(one.focus_distances_m, two.focus_distances_m)
        assert one.camera == two.camera


@pytest.mark.parametrize(
    ("spacing", "distances"),
    [("dioptre", [0.5, 2 / 3, 1.0, 2.0]), ("log", [0.5, 2**-0.333333, 2**0.333333, 2.0])],
)
def test_frames_are_spaced_as_asked(spacing, distances):
    where = source(
        options=lens(focus_spacing=spacing), focal_range=(0.5, 2.0), focal_stack_size=(4, 4)
    )
    found = photograph(room(), where, seeded()).stack.focus_distances_m.tolist()
    assert found == pytest.approx(distances, rel=1e-5)


def test_random_spacing_keeps_the_ends_and_the_order():
    found = sweeps(20, options=lens(focus_spacing="random"), focal_stack_size=(5, 5))
    for sweep in found:
        assert sweep[0] == pytest.approx(2.0)
        assert sweep[-1] == pytest.approx(0.25)
        assert sweep == sorted(sweep, reverse=True)
    assert len({round(sweep[2], 3) for sweep in found}) > 10


def test_the_ends_of_the_sweep_jitter_and_the_far_one_may_reach_infinity():
    found = sweeps(60, options=lens(focus_range_jitter=0.2), focal_stack_size=(2, 2))
    nears, fars = ([sweep[i] for sweep in found] for i in (0, -1))
    reach = 0.2 * (2.0 - 0.25)
    assert all(2.0 - reach <= near <= 2.0 + reach for near in nears)
    assert all(0 <= far <= 0.25 + reach for far in fars)
    assert max(nears) - min(nears) > reach
    assert fars.count(0.0) >= 1
    # Even steps in log s end ten times as far at most.
    logarithmic = sweeps(60, options=lens(focus_range_jitter=0.2, focus_spacing="log"))
    assert min(sweep[-1] for sweep in logarithmic) == pytest.approx(0.025)


def test_the_number_of_frames_is_drawn_from_the_fewest_to_the_most():
    assert {len(sweep) for sweep in sweeps(40, focal_stack_size=(2, 5))} == {2, 3, 4, 5}


def test_a_scene_that_knows_where_to_focus_is_focused_there():
    own = replace(room(), focus_distances_m=(0.7, 1.9, math.inf))
    where = source(options=lens(focus_range_jitter=0.3), focal_range=None)
    found = photograph(own, where, seeded()).stack.focus_distances_m
    assert found.tolist() == pytest.approx([0.7, 1.9, math.inf])
    ranged = replace(room(), focal_range_m=(1.0, 3.0))
    found = photograph(ranged, source(), seeded()).stack.focus_distances_m
    assert found.tolist() == pytest.approx([1.0, 1.5, 3.0])


def test_f1_4_and_f22_photograph_differently():
    wide, narrow = (replace(room().camera, aperture_diameter_m=0.05 / n) for n in (1.4, 22))
    one, two = (
        photograph(replace(room(), camera=c), source(), seeded()).stack.images
        for c in (wide, narrow)
    )
    detail = [images.diff(dim=-1).abs().mean(dim=(1, 2, 3)).min() for images in (one, two)]
    assert detail[1] > 2 * detail[0]


def test_the_aperture_varies_by_stops_and_the_camera_says_so():
    where = source(options=lens(aperture_stops=2.0))
    scene = room()
    found = [photograph(scene, where, seeded(seed)).stack.camera for seed in range(40)]
    stops = [
        2 * math.log2(camera.aperture_diameter_m / scene.camera.aperture_diameter_m)
        for camera in found
    ]
    assert -2 <= min(stops) < -1 < 1 < max(stops) <= 2
    assert {camera.focal_length_px for camera in found} == {scene.camera.focal_length_px}


def test_the_shape_of_the_blur_is_drawn():
    where = source(options=lens(psf="power_exponential", psf_exponent_range=[2, 2]))
    found = photograph(room(), where, seeded()).stack.images
    expected = capture(room(), [0.5, 1 / 1.125, 4.0], psf=PSF("gaussian")).images
    # An exponent of 2 is the Gaussian; a table of its transfer function is exact to 1e-6.
    assert ((found - expected).abs() < 1e-6).float().mean() > 0.999
    varied = source(options=lens(psf="power_exponential"))
    stacks = [photograph(room(), varied, seeded(seed)).stack.images for seed in range(5)]
    assert len({float(images.std()) for images in stacks}) > 2


def test_no_range_and_no_distances_names_the_source_and_the_key():
    message = r"rooms: focal_range is missing, and room 0 does not say where to focus. Give the"
    with pytest.raises(InputError, match=message):
        photograph(room(), source(focal_range=None), seeded())


def test_focus_within_the_focal_length_names_the_scene():
    options = {"camera_defaults": {"focal_length_m": 0.6}}
    message = r"room 0: the nearest focus, 0.5 m, lies within the focal length, 0.6 m"
    with pytest.raises(InputError, match=message):
        photograph(room(), source(options=options), seeded())
    # 20 mm of aperture: even at f/0.5 the focal length is 10 mm.
    with pytest.raises(InputError, match=r"room 0: the nearest focus, 0.008 m, lies within"):
        photograph(room(), source(focal_range=(0.008, 1.0)), seeded())
    equal = replace(room(), focus_distances_m=(1.0, 1.0))
    with pytest.raises(InputError, match=r"room 0: focus_distances_m: 1.0 appears more than once"):
        photograph(equal, source(), seeded())


@pytest.mark.parametrize(
    "option",
    [
        {"focus_jitter_dpt": 0.2},
        {"noise_std_lsb_range": [1.0, 2.0]},
        {"exposure_jitter": 0.1},
        {"breathing": 0.01},
        {"shift_px": 1.0},
        {"jpeg_quality_range": [60, 70]},
    ],
)
def test_every_flaw_changes_the_frames_and_not_what_the_stack_reports(option):
    ideal = photograph(room(), source(), seeded(1)).stack
    flawed = photograph(room(), source(options=lens(**option)), seeded(1)).stack
    assert torch.equal(flawed.focus_distances_m, ideal.focus_distances_m)
    assert flawed.camera == ideal.camera
    difference = (flawed.images - ideal.images).abs().mean(dim=(1, 2, 3))
    # Breathing leaves a frame in the middle of the sweep where it is.
    assert (difference > 1e-3).sum() >= 2


def test_exposure_varies_from_frame_to_frame_within_its_bounds():
    flat = replace(room(), all_in_focus=torch.full((3, 48, 64), 0.3))
    where = source(options=lens(exposure_jitter=0.2, bit_depth=None), focal_stack_size=(40, 40))
    gains = photograph(flat, where, seeded()).stack.images.mean(dim=(1, 2, 3)) / 0.3
    assert 0.8 <= gains.min() < 0.85
    assert 1.15 < gains.max() <= 1.2


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_ideal_stacks_have_none_of_the_faults(share):
    """Their lens and their sweep are drawn as those of the others."""
    faults = {
        "psf": "power_exponential",
        "focus_jitter_dpt": 0.2,
        "noise_std_lsb_range": [2, 2],
        "exposure_jitter": 0.1,
        "breathing": 0.004,
        "shift_px": 1.0,
    }
    drawn = {"aperture_stops": 1.0, "focus_spacing": "random", "bit_depth": None}
    where = source(options=lens(**faults, **drawn, ideal_share=share))
    ideal = 0
    for seed in range(20):
        found = photograph(room(), where, seeded(seed)).stack
        lensed = replace(room(), camera=found.camera)
        exact = capture(lensed, found.focus_distances_m, bit_depth=None).images
        ideal += bool((found.images - exact).abs().max() < 1e-5)
    # Of 20 fair draws, 3 to 17 in all but 4 of 10,000.
    assert ideal in {0.0: [0], 0.5: range(3, 18), 1.0: [20]}[share]
    cameras = {photograph(room(), where, seeded(seed)).stack.camera for seed in range(5)}
    assert len(cameras) == 5
