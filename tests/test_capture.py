from __future__ import annotations

import math

import pytest
import torch
from conftest import TOLERANCE

from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF, blur
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import Imperfections, capture, filled_inverse_depth

SIZE = (48, 64)
DISTANCES_M = [0.5, 1.0, math.inf]


def scene(image: torch.Tensor | float, depth_m: torch.Tensor | float = 1.0, **changes) -> Scene:
    depth = torch.as_tensor(depth_m, dtype=torch.float32).expand(SIZE)
    fields = {
        "all_in_focus": torch.as_tensor(image, dtype=torch.float32).expand(3, *SIZE),
        "depth_m": depth,
        "valid": depth.isfinite(),
        "camera": Camera(200.0, 0.02, SIZE),  # 4 px of blur diameter a dioptre
        "source": "test",
    }
    return Scene(**{**fields, **changes})


def texture(seed: int = 0) -> torch.Tensor:
    return torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(seed))


def test_the_frame_in_focus_is_the_image_as_its_file_would_hold_it():
    image = texture()
    stack = capture(scene(image), DISTANCES_M)
    assert stack.camera == scene(image).camera
    assert stack.focus_distances_m.tolist() == DISTANCES_M
    code = torch.round(linear_to_srgb(image) * 255) / 255
    torch.testing.assert_close(linear_to_srgb(stack.images[1]), code, **TOLERANCE[torch.float32])


@pytest.mark.parametrize(("index", "radius_px"), [(0, 2.0), (2, 2.0)])
def test_the_lens_of_the_scene_sets_the_blur(index, radius_px):
    image = texture()
    frame = capture(scene(image), DISTANCES_M, psf=PSF("gaussian"), bit_depth=None).images[index]
    expected = blur(image, radius_px, PSF("gaussian"))
    torch.testing.assert_close(frame, expected, **TOLERANCE[torch.float32])


def test_blur_acts_on_light_not_on_codes():
    edge = (torch.arange(SIZE[1]) >= SIZE[1] // 2).float()
    frame = capture(scene(edge), [0.5, 1.0], bit_depth=None).images[0]
    # Half the light where the edge was. Blurred codes would show half the code: 21 % of the light.
    middle = frame[:, :, SIZE[1] // 2 - 1 : SIZE[1] // 2 + 1].mean()
    assert middle.item() == pytest.approx(0.5, abs=1e-3)


def test_codes_are_blurred_where_that_is_asked_for():
    edge = (torch.arange(SIZE[1]) >= SIZE[1] // 2).float()
    stack = capture(scene(edge), [0.5, 1.0], blur_of="srgb", bit_depth=None)
    middle = linear_to_srgb(stack.images[0])[:, :, SIZE[1] // 2 - 1 : SIZE[1] // 2 + 1].mean()
    assert middle.item() == pytest.approx(0.5, abs=1e-3)
    torch.testing.assert_close(stack.images[1], scene(edge).all_in_focus)


@pytest.mark.parametrize("bit_depth", [8, 16])
def test_frames_hold_the_levels_of_their_bit_depth(bit_depth):
    stack = capture(scene(texture()), DISTANCES_M, noise_std_lsb=1.0, bit_depth=bit_depth)
    levels = linear_to_srgb(stack.images.double()) * (2**bit_depth - 1)
    # float32 linear light holds a 16-bit code to a hundredth of a step.
    assert (levels - levels.round()).abs().max() < 0.02
    assert stack.images.min() >= 0
    assert stack.images.max() <= 1


def test_a_jpeg_file_keeps_colours_and_loses_detail():
    smooth = torch.linspace(0.1, 0.8, SIZE[1]) * torch.tensor([1.0, 0.5, 0.1])[:, None, None]
    for image, quality, least, most in (
        (smooth, 95, 0.0, 0.01),
        (texture(), 95, 0.02, 0.2),
        (texture(), 50, 0.1, 0.4),
    ):
        raw = capture(scene(image), DISTANCES_M, bit_depth=None).images
        frames = capture(scene(image), DISTANCES_M, jpeg_quality=quality).images
        difference = (linear_to_srgb(frames) - linear_to_srgb(raw))[1].abs().mean()
        assert least <= difference < most
        levels = 255 * linear_to_srgb(frames)
        assert (levels - levels.round()).abs().max() < 1e-2


def test_noise_has_the_strength_asked_for_and_repeats_with_its_seed():
    grey = srgb_to_linear(torch.tensor(0.5))
    shots = [
        capture(
            scene(grey),
            DISTANCES_M,
            noise_std_lsb=2.0,
            bit_depth=None,
            generator=torch.Generator().manual_seed(seed),
        ).images
        for seed in (3, 3, 4)
    ]
    assert torch.equal(shots[0], shots[1])
    assert not torch.equal(shots[0], shots[2])
    noise = (linear_to_srgb(shots[0]) - 0.5) * 255
    # 27,648 samples: the standard error of the estimate is 0.4 %.
    assert noise.std().item() == pytest.approx(2.0, rel=0.02)
    assert noise.mean().item() == pytest.approx(0.0, abs=0.05)
    # Each frame has noise of its own.
    correlation = torch.corrcoef(noise.flatten(1))
    assert (correlation - torch.eye(3)).abs().max() < 0.05


def test_holes_in_the_depth_leave_no_mark():
    image = texture()
    holed = torch.ones(SIZE)
    holed[10:30, 20:40] = math.nan
    whole, patched = (capture(scene(image, depth), DISTANCES_M) for depth in (1.0, holed))
    torch.testing.assert_close(patched.images, whole.images, **TOLERANCE[torch.float32])


def test_a_hole_takes_the_nearest_valid_depth():
    depth = torch.full(SIZE, math.nan)
    depth[24, 10], depth[24, 40] = 1.0, 4.0
    found = filled_inverse_depth(scene(0.5, depth))
    assert torch.equal(found[24, :25], torch.ones(25))
    assert torch.equal(found[24, 26:], torch.full((SIZE[1] - 26,), 0.25))
    assert set(found.unique().tolist()) == {1.0, 0.25}


@pytest.mark.parametrize(
    ("distances", "message"),
    [
        ([1.0, 1.0], "appears more than once"),
        ([1.0, -2.0], "not all positive"),
        ([500.0, 1000.0], "look like millimetres"),
        ([1.0], "at least 2 frames, got 1"),
    ],
)
def test_impossible_focus_distances_are_refused(distances, message):
    with pytest.raises(InputError, match=message):
        capture(scene(0.5), distances)


def test_a_lens_that_focuses_beside_what_it_reports():
    image = texture()
    off = Imperfections(focus_errors_dpt=torch.tensor([0.5, 0.0, -3.0]))
    stack = capture(scene(image), DISTANCES_M, imperfections=off, bit_depth=None)
    assert stack.focus_distances_m.tolist() == DISTANCES_M
    # 1/0.5 + 0.5; 1; and infinity, beyond which nothing focuses.
    really = capture(scene(image), [0.4, 1.0, math.inf], bit_depth=None)
    torch.testing.assert_close(stack.images, really.images, **TOLERANCE[torch.float32])


def test_exposure_scales_light_before_it_clips():
    image = texture()
    exposed = Imperfections(gains=torch.tensor([0.5, 1.0, 2.0]))
    stack = capture(scene(image, 1.0), DISTANCES_M, imperfections=exposed, bit_depth=None)
    plain = capture(scene(image, 1.0), DISTANCES_M, bit_depth=None)
    for frame, ideal, gain in zip(stack.images, plain.images, (0.5, 1.0, 2.0), strict=True):
        torch.testing.assert_close(frame, (gain * ideal).clamp(0, 1), **TOLERANCE[torch.float32])


def test_shake_moves_a_frame_by_whole_pixels_exactly():
    image = texture()
    moved = Imperfections(shifts_px=torch.tensor([[0.0, 0.0], [3.0, -2.0], [0.0, 0.0]]))
    frame = capture(scene(image), DISTANCES_M, imperfections=moved, bit_depth=None).images[1]
    # To the right and up; what comes in from the left and from below is mirrored.
    expected = image.roll((3, -2), (2, 1))
    expected[:, :, :3] = expected[:, :, 3:6].flip(-1)
    expected[:, -2:] = expected[:, -4:-2].flip(-2)
    torch.testing.assert_close(frame, expected, rtol=0, atol=1e-4)


def test_breathing_magnifies_about_the_principal_point():
    x = (torch.arange(SIZE[1]) + 0.5) / SIZE[1]
    camera = Camera(200.0, 0.02, SIZE, principal_point_px=(20.0, 10.0))
    larger = Imperfections(magnifications=torch.tensor([1.0, 1.25, 1.0]))
    frame = capture(
        scene(x, camera=camera), DISTANCES_M, imperfections=larger, bit_depth=None
    ).images[1]
    expected = (20 + ((torch.arange(SIZE[1]) + 0.5) - 20) / 1.25) / SIZE[1]
    # Torch's cubic kernel reads a ramp up to 0.045 px beside where it should.
    off_px = (frame[0] - expected).abs().max() * SIZE[1]
    assert off_px < 0.05


def test_imperfections_have_one_entry_a_frame():
    with pytest.raises(ValueError, match=r"Imperfections.shifts_px: got shape \(3,\), expected"):
        capture(scene(0.5), DISTANCES_M, imperfections=Imperfections(shifts_px=torch.ones(3)))
