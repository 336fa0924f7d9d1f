from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from conftest import TOLERANCE
from rooms import photographed, room, source

from focaldiffusion.config.data import Transforms
from focaldiffusion.data.batch import collate
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.photographer import photograph
from focaldiffusion.data.transforms import transform
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera, linear_to_srgb
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack

ALL = Transforms(random_crop=True, scale_range=(0.4, 1.0), flip=True)
COLOURS = Transforms(brightness=0.4, contrast=0.4, saturation=0.6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def surveyed(height: int, width: int, seed: int) -> Scene:
    """A scene whose red and green are where a pixel lies, and its depth the number of it.

    A third of the pixels, in blobs, have no depth.
    """
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    number = torch.arange(height * width, dtype=torch.float32).reshape(height, width) + 1
    blobs = torch.rand(1, 1, 5, 5, generator=seeded(seed))
    holes = torch.nn.functional.interpolate(blobs, size=(height, width))[0, 0] < 0.35
    depth = number.masked_fill(holes, math.nan)
    return Scene(
        torch.stack([x / width, y / height, torch.full_like(x, 0.5)]),
        depth,
        depth.isfinite(),
        Camera(200.0, 0.02, (height, width), principal_point_px=(0.45 * width, 0.6 * height)),
        "survey",
    )


@pytest.mark.parametrize("seed", range(200))
def test_whatever_is_drawn_content_mask_depth_and_camera_agree_and_nan_stays_out(seed):
    generator = seeded(seed)
    height, width, new_height, new_width = torch.randint(20, 60, (4,), generator=generator).tolist()
    scene = surveyed(height, width, seed)
    moved = transform(scene, ALL, (new_height, new_width), generator)
    assert moved.size == moved.camera.image_size == (new_height, new_width)
    step = scene.camera.focal_length_px / moved.camera.focal_length_px

    # Origin of each new pixel by its camera; the mirror image runs backwards.
    (cx, cy), (x0, y0) = scene.camera.principal_point_px, moved.camera.principal_point_px
    runs_back = bool(moved.all_in_focus[0, 0, 0] > moved.all_in_focus[0, 0, -1])
    x = cx + (torch.arange(new_width) + 0.5 - x0) * step * (-1 if runs_back else 1)
    y = cy + (torch.arange(new_height) + 0.5 - y0) * step

    # Light: an average of the pixels around that place.
    red, green, _ = moved.all_in_focus
    assert (red * width - x).abs().max() <= 0.51 * max(step, 1)
    assert (green * height - y[:, None]).abs().max() <= 0.51 * max(step, 1)

    # Depth: that of a pixel which touches the place, unchanged; valid exactly where it was.
    number = moved.depth_m[moved.valid].long() - 1
    rows, columns = torch.nonzero(moved.valid, as_tuple=True)
    assert torch.equal(scene.depth_m.flatten()[number], moved.depth_m[moved.valid])
    assert (number % width + 0.5 - x[columns]).abs().max() <= 0.5 + 1e-3
    assert (number // width + 0.5 - y[rows]).abs().max() <= 0.5 + 1e-3
    assert torch.equal(moved.valid, moved.depth_m.isfinite())

    # The input of a loss: no NaN, and the same depth where it is valid.
    stack = photograph(moved, source(options=RANDOM_LENS), generator)
    batch = collate([stack])
    assert batch.images.isfinite().all()
    assert batch.all_in_focus.isfinite().all()
    assert batch.depth_m.isfinite().all()
    assert torch.equal(batch.valid[0], moved.valid)
    assert torch.equal(batch.depth_m[0][moved.valid], moved.depth_m[moved.valid])


RANDOM_LENS = {
    "simulator_kwargs": {
        "psf": "power_exponential",
        "aperture_stops": 2.0,
        "focus_spacing": "random",
        "focus_range_jitter": 0.2,
        "focus_jitter_dpt": 0.05,
        "noise_std_lsb_range": [0.0, 3.0],
        "exposure_jitter": 0.1,
        "breathing": 0.004,
        "shift_px": 1.0,
    }
}


def test_nothing_to_vary_is_nothing_changed():
    scene = room()
    same = transform(scene, Transforms(), None, seeded())
    assert torch.equal(same.all_in_focus, scene.all_in_focus)
    torch.testing.assert_close(same.depth_m, scene.depth_m, rtol=0, atol=0, equal_nan=True)
    assert same.camera == scene.camera


def test_a_centre_crop_keeps_the_middle_and_square_pixels():
    scene = room(size=(40, 64))
    square = transform(scene, Transforms(), (20, 20), seeded())
    assert square.camera.focal_length_px == scene.camera.focal_length_px / 2
    assert square.camera.principal_point_px == (10, 10)


def test_a_small_image_is_enlarged_and_its_camera_with_it():
    scene = room()
    large = transform(scene, Transforms(), (96, 128), seeded())
    assert large.size == (96, 128)
    assert large.camera.focal_length_px == 2 * scene.camera.focal_length_px
    assert torch.equal(large.depth_m[::2, 32::2], scene.depth_m[:, 16:])


def test_half_of_the_images_are_mirrored():
    camera = Camera(200.0, 0.02, (48, 64), principal_point_px=(20.0, 24.0))
    scene = replace(room(), camera=camera)
    points = [
        transform(scene, Transforms(flip=True), None, seeded(seed)).camera.principal_point_px[0]
        for seed in range(100)
    ]
    assert set(points) == {20.0, 44.0}
    assert 35 <= points.count(44.0) <= 65  # three standard deviations


def test_frames_and_image_get_the_same_colours():
    image = torch.rand(3, 48, 64, generator=seeded(1))
    truth = room()
    sample = StackSample(
        FocalStack(torch.stack([image, image * 0.5])), truth.depth_m, truth.valid, image, "pair"
    )
    moved = transform(sample, COLOURS, None, seeded(2))
    assert (moved.all_in_focus - image).abs().mean() > 0.01
    assert torch.equal(moved.stack.images[0], moved.all_in_focus)
    scene = transform(replace(truth, all_in_focus=image), COLOURS, None, seeded(2))
    torch.testing.assert_close(scene.all_in_focus, moved.all_in_focus)


def test_brightness_scales_light():
    image = 0.1 + 0.5 * torch.rand(3, 48, 64, generator=seeded(1))
    scene = replace(room(), all_in_focus=image)
    moved = transform(scene, Transforms(brightness=0.5), None, seeded(5)).all_in_focus
    factor = (moved / image).mean()
    assert 0.01 < abs(factor - 1) < 0.5
    torch.testing.assert_close(moved, factor * image)


def test_contrast_stretches_codes_about_their_mean():
    image = 0.3 + 0.2 * torch.rand(3, 48, 64, generator=seeded(1))
    scene = replace(room(), all_in_focus=image)
    moved = transform(scene, Transforms(contrast=0.5), None, seeded(5)).all_in_focus
    code, new = linear_to_srgb(image), linear_to_srgb(moved)
    factor = new.std() / code.std()
    assert 0.01 < abs(factor - 1) < 0.5
    expected = code.mean() + factor * (code - code.mean())
    torch.testing.assert_close(new, expected, **TOLERANCE[torch.float32])


def test_saturation_leaves_grey_alone():
    grey = (0.3 + 0.2 * torch.rand(1, 48, 64, generator=seeded(1))).expand(3, -1, -1)
    moved = transform(
        replace(room(), all_in_focus=grey), Transforms(saturation=0.9), None, seeded(5)
    )
    torch.testing.assert_close(moved.all_in_focus, grey, **TOLERANCE[torch.float32])


def test_a_window_has_depth_somewhere():
    valid = torch.zeros(48, 64, dtype=torch.bool)
    valid[20:28, 28:36] = True
    scene = replace(room(), depth_m=torch.full((48, 64), 2.0), valid=valid)
    crop = Transforms(random_crop=True, scale_range=(0.3, 0.3))
    for seed in range(50):
        assert transform(scene, crop, (24, 32), seeded(seed)).valid.any()
    corner = replace(scene, valid=valid.roll((-20, -28), (0, 1)))
    middle = Transforms(scale_range=(0.3, 0.3))
    with pytest.raises(InputError, match=r"room 0: cropped to 32x24, its middle has no pixel with"):
        transform(corner, middle, (24, 32), seeded())


def test_a_stack_without_camera_or_image_stays_so():
    moved = transform(photographed(), ALL, (24, 32), seeded())
    assert moved.stack.camera is None
    assert moved.all_in_focus is None
    assert moved.stack.size == (24, 32)


# Evidence that is made already


def with_evidence(size: tuple[int, int] = (32, 48)) -> StackSample:
    stack = photograph(room(size=size), source(), seeded())
    estimate = estimate_depth(stack.stack, PSF()).mapped(torch.Tensor.clone)
    return replace(stack, estimate=estimate)


def test_evidence_is_mirrored_and_coloured_with_its_stack():
    sample = with_evidence()
    moved = [
        transform(sample, Transforms(flip=True, brightness=0.3), None, seeded(seed))
        for seed in range(8)
    ]
    mirrored = next(one for one in moved if one.depth_m[0, -1].isnan())
    before, after = sample.estimate, mirrored.estimate
    assert torch.equal(after.coordinate, before.coordinate.flip(-1))
    assert torch.equal(after.agreement, before.agreement.flip(-1))
    assert torch.equal(after.confidence, before.confidence.flip(-1))
    assert torch.equal(after.evidence.posterior, before.evidence.posterior.flip(-1))
    assert torch.equal(after.evidence.sharpest, before.evidence.sharpest.flip(-1))
    assert torch.equal(after.evidence.never_sharp, before.evidence.never_sharp.flip(-1))
    assert torch.equal(after.evidence.wide, before.evidence.wide.flip(-1))
    assert torch.equal(after.evidence.hypotheses, before.evidence.hypotheses)
    # The colours of the image of the evidence are those of the frames.
    share = mirrored.stack.images.mean() / sample.stack.images.mean()
    assert share != pytest.approx(1, abs=1e-3)
    image = after.evidence.all_in_focus.mean() / before.evidence.all_in_focus.mean()
    assert image == pytest.approx(float(share), abs=0.02)


def test_evidence_is_cropped_with_its_stack():
    sample = with_evidence()
    moved = transform(sample, Transforms(random_crop=True), (32, 32), seeded())
    left = int((sample.depth_m[0] - moved.depth_m[0, -1]).abs().nan_to_num(9).argmin()) - 31
    assert torch.equal(moved.estimate.coordinate, sample.estimate.coordinate[:, left : left + 32])
    assert moved.estimate.evidence.posterior.shape[-2:] == (32, 32)


@pytest.mark.parametrize(
    ("options", "size"), [(Transforms(), (16, 24)), (Transforms(scale_range=(0.5, 0.5)), None)]
)
def test_evidence_cannot_be_resized(options, size):
    message = r"room 0: its evidence was made at 48x32, and blur does not scale"
    with pytest.raises(InputError, match=message):
        transform(with_evidence(), options, size, seeded())
