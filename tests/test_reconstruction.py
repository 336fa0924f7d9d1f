from __future__ import annotations

import json
import math
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sample_stacks import BLUR_SCALE_PX_M, FOCUS_M, SIZE, native, photograph, texture

from focaldiffusion import frames as frames_module
from focaldiffusion.evaluation.metrics import abs_rel
from focaldiffusion.io.results import strict_json
from focaldiffusion.io.stacks import OpenedStack, open_stack
from focaldiffusion.psf import PSF
from focaldiffusion.reconstruction import DoubtfulInput, Settings, reconstruct
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.stack import FocalStack, Grade

INVERSE_DEPTH_DPT = torch.linspace(0.5, 2.0, SIZE[1]).expand(SIZE)
CAMERA = {"focal_length_px": 1000.0, "aperture_diameter_m": BLUR_SCALE_PX_M / 1000}
UNALIGNED = Settings(align="off")
DEPTH_FIELDS = ("depth_m", "height_m", "depth_relative")


def write_stack(folder: Path, stack: FocalStack, order: list[int] | None = None, **sidecar) -> Path:
    """Save a stack's frames as 8-bit PNG files, in another order if asked, with a `stack.json`."""
    folder.mkdir()
    frames = native(stack)
    for place, index in enumerate(order or range(len(stack))):
        pixels = np.round(frames.read(index)[..., ::-1] * 255).astype(np.uint8)
        assert cv2.imwrite(str(folder / f"frame_{place:02d}.png"), pixels)
    (folder / "stack.json").write_text(json.dumps(sidecar))
    return folder


def slanted_plane() -> FocalStack:
    return photograph(texture(), 1 / INVERSE_DEPTH_DPT)


@pytest.fixture
def opened(tmp_path) -> OpenedStack:
    folder = tmp_path / "plane"
    return open_stack(
        write_stack(folder, slanted_plane(), focus_distances_m=FOCUS_M, camera=CAMERA)
    )


# Grades


def test_a_calibrated_stack_gives_metres(opened):
    result = reconstruct(opened, settings=UNALIGNED)
    assert result.grade == "calibrated"
    assert result.depth_field == "depth_m"
    assert result.camera.image_size == SIZE
    error = np.abs(result.depth_m * INVERSE_DEPTH_DPT.numpy() - 1)
    # A quarter pixel of blur diameter, at 1 dpt.
    assert np.median(error) < 0.03
    assert np.quantile(error, 0.95) < 0.1
    sharp = native(photograph(texture(), 0.5, noise_std_lsb=0)).images[0]
    # 30 dB: half the frames' spacing of blur, 1.5 px, remains between frames.
    assert np.square(result.all_in_focus - sharp).mean() < 1e-3


def test_without_a_camera_the_lens_is_found(tmp_path):
    # 15 px of blur between the outermost frames.
    stack = photograph(texture(), 1 / INVERSE_DEPTH_DPT, blur_scale_px_m=10.0)
    opened = open_stack(write_stack(tmp_path / "plane", stack, focus_distances_m=FOCUS_M))
    result = reconstruct(opened, settings=UNALIGNED)
    assert result.grade == "focus distances only"
    assert result.provenance["blur_scale_measured"]["is_clear"]
    error = np.abs(result.depth_m * INVERSE_DEPTH_DPT.numpy() - 1)
    # Between the focus planes, depth hardly depends on the scale, which is off by up to a tenth.
    assert np.median(error) < 0.04


@pytest.mark.parametrize("error", [1 / 4, 1.0, 4.0])
def test_a_lens_that_the_frames_contradict_is_doubted(tmp_path, error):
    stack = photograph(texture(), 1 / INVERSE_DEPTH_DPT)
    camera = {"focal_length_px": 1000 * error, "aperture_diameter_m": BLUR_SCALE_PX_M / 1000}
    folder = write_stack(tmp_path / "plane", stack, focus_distances_m=FOCUS_M, camera=camera)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = reconstruct(folder, settings=UNALIGNED)
    assert any(issubclass(one.category, DoubtfulInput) for one in caught) == (error != 1)
    seen = result.calibration.measured.value
    assert seen == pytest.approx(BLUR_SCALE_PX_M, rel=0.1)
    if error == 1:
        assert result.calibration.contradiction is None
    else:
        assert result.calibration.contradiction == pytest.approx(1 / error, rel=0.1)


def test_an_unmeasurable_lens_falls_back_to_sharpness():
    images = photograph(0.3, 1.0).images
    stack = FocalStack(images, focus_distances_m=torch.tensor(FOCUS_M))
    estimate = estimate_depth(stack, PSF())
    assert str(estimate.calibration) == "focus distances only, depth from sharpness"
    assert not estimate.calibration.measured.is_clear
    assert estimate.coordinate.isfinite().all()
    assert estimate.confidence.max() < 0.1


@pytest.mark.parametrize("direction", [1, -1])
def test_stage_positions_give_heights_in_their_direction(tmp_path, direction):
    # A millimetre of travel per dioptre, starting at 20 mm.
    stack = photograph(texture(), 1 / INVERSE_DEPTH_DPT, blur_scale_px_m=10.0)
    positions_m = [0.02 + 1e-3 / distance_m for distance_m in FOCUS_M][::-direction]
    folder = write_stack(
        tmp_path / "stage",
        stack,
        order=list(range(4))[::-direction],
        focus_positions_m=positions_m,
    )
    result = reconstruct(folder, settings=UNALIGNED)
    assert result.grade is Grade.STAGE_POSITIONS
    assert result.depth_field == "height_m"
    from_first = (0.02 + 1e-3 * INVERSE_DEPTH_DPT - positions_m[0]) * direction
    error_m = np.abs(result.height_m - from_first.numpy())
    # A fifth of a step between two positions.
    assert np.median(error_m) < 1e-4


def test_uneven_steps_of_ordered_frames_are_measured_in_frames(tmp_path):
    focus_dpt = [0.5, 0.7, 1.1, 2.0]
    stack = photograph(texture(), 1 / INVERSE_DEPTH_DPT, [1 / one for one in focus_dpt])
    folder = write_stack(tmp_path / "order", stack, order=range(4))
    result = reconstruct(folder, settings=UNALIGNED)
    assert result.grade == "order only"
    frame = np.interp(INVERSE_DEPTH_DPT, focus_dpt, range(4))
    error = np.abs(3 * result.depth_relative - frame)
    assert np.median(error) < 0.1
    assert np.quantile(error, 0.95) < 0.3


def test_flat_ordered_frames_fall_back_to_sharpness():
    estimate = estimate_depth(FocalStack(photograph(0.3, 1.0).images), PSF())
    assert str(estimate.calibration) == "order only, depth from sharpness"
    assert estimate.confidence.max() < 0.1


def test_order_alone_gives_relative_depth(tmp_path):
    folder = write_stack(tmp_path / "order", slanted_plane())
    result = reconstruct(folder, settings=UNALIGNED)
    assert result.grade == "order only"
    assert result.depth_field == "depth_relative"
    relative = result.depth_relative
    assert relative.min() >= 0
    assert relative.max() <= 1
    # Frame 0 is the nearest. Columns go from far to near, one frame per third of the sweep.
    expected = (2.0 - INVERSE_DEPTH_DPT) / 1.5
    assert np.median(np.abs(relative - expected.numpy())) < 0.1 / 3


def test_exactly_one_depth_field_is_set(opened):
    result = reconstruct(opened, settings=UNALIGNED)
    assert [name for name in DEPTH_FIELDS if getattr(result, name) is not None] == ["depth_m"]


# Unknowns


def test_a_bare_wall_gets_no_confidence_and_no_nan():
    estimate = estimate_depth(photograph(0.3, 1.0), PSF())
    assert estimate.coordinate.isfinite().all()
    assert estimate.confidence.max() < 0.1


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("knows_camera", [True, False])
def test_black_and_clipped_stacks_get_no_confidence_and_no_nan(value, knows_camera):
    stack = photograph(value, 1.0, noise_std_lsb=0)
    if not knows_camera:
        stack = FocalStack(stack.images, focus_distances_m=stack.focus_distances_m)
    estimate = estimate_depth(stack, PSF())
    assert estimate.coordinate.isfinite().all()
    assert estimate.confidence.max() < 0.1


def test_equal_recorded_distances_are_accepted():
    stack = photograph(texture(), 1.0, (0.5, 0.6, 1.0, 1.1))
    rounded = FocalStack(
        stack.images, camera=stack.camera, focus_distances_m=torch.tensor([0.5, 0.5, 1.0, 1.0])
    )
    estimate = estimate_depth(rounded, PSF())
    assert estimate.coordinate.isfinite().all()
    assert (estimate.coordinate - 1).abs().median() * BLUR_SCALE_PX_M < 1


# Invariants


def test_frames_in_another_order_give_the_same_result(tmp_path):
    order = [2, 0, 3, 1]
    stack = slanted_plane()
    one, other = (
        reconstruct(
            open_stack(
                write_stack(
                    tmp_path / name,
                    stack,
                    order,
                    focus_distances_m=[FOCUS_M[index] for index in order],
                    camera=CAMERA,
                )
            ),
            settings=UNALIGNED,
        )
        for name, order in (("listed", list(range(4))), ("shuffled", order))
    )
    # Float32 sums over the frames round differently; where two hypotheses are equally good
    # rounding decides.
    near = np.abs(other.all_in_focus - one.all_in_focus) < 0.5 / 255
    assert near.mean() > 0.999
    same = np.array(order)[other.source_index] == one.source_index
    assert same.mean() > 0.999
    assert np.quantile(np.abs(other.depth_m / one.depth_m - 1), 0.999) < 1e-2


def test_every_pixel_of_the_image_is_within_the_frames(opened):
    image = reconstruct(opened, settings=UNALIGNED).all_in_focus
    frames = np.stack([opened.frames.read(index) for index in range(4)])
    assert (image >= frames.min(0) - 1e-6).all()
    assert (image <= frames.max(0) + 1e-6).all()


# Sizes


def test_depth_is_solved_at_the_working_size_and_returned_at_the_native(opened):
    result = reconstruct(opened, settings=Settings(align="off", working_size=48))
    assert result.stack.size == (36, 48)
    assert result.stack.camera.image_size == (36, 48)
    # Half as many pixels of blur.
    assert result.stack.camera.blur_scale_px_m == pytest.approx(BLUR_SCALE_PX_M / 2)
    assert result.depth_m.shape == result.confidence.shape == SIZE
    assert result.camera.blur_scale_px_m == pytest.approx(BLUR_SCALE_PX_M)
    error = np.abs(result.depth_m * INVERSE_DEPTH_DPT.numpy() - 1)
    # Half a pixel of blur diameter at working size, at 1 dpt.
    assert np.median(error) < 0.12


def test_longer_stacks_are_solved_at_a_smaller_size(opened, monkeypatch):
    monkeypatch.setattr(frames_module, "_WORKING_PIXELS", len(FOCUS_M) * 36 * 48)
    assert reconstruct(opened, settings=UNALIGNED).stack.size == (36, 48)


def test_light_is_averaged_not_its_encoding(tmp_path):
    checks = (torch.arange(SIZE[1]) % 2).float().expand(3, *SIZE)
    stack = FocalStack(torch.stack([checks, checks]), focus_distances_m=torch.tensor([1.0, 2.0]))
    folder = write_stack(tmp_path / "checks", stack, focus_distances_m=[1.0, 2.0], camera=CAMERA)
    result = reconstruct(folder, settings=Settings(align="off", working_size=48))
    torch.testing.assert_close(result.stack.images, torch.full((2, 3, 36, 48), 0.5))


def test_alignment_crops_the_camera_with_the_frames(tmp_path):
    size = (200, 260)
    stack = photograph(
        texture(size), 1.0, (0.8, 1.0, 1.25), size=size, blur_scale_px_m=BLUR_SCALE_PX_M
    )
    # The second frame looks 6 px to the right and 4 px down.
    shifted = stack.images.clone()
    shifted[1] = torch.roll(stack.images[1], (-4, -6), (1, 2))
    stack = FocalStack(shifted, focus_distances_m=stack.focus_distances_m)
    folder = write_stack(
        tmp_path / "shaken", stack, focus_distances_m=[0.8, 1.0, 1.25], camera=CAMERA
    )
    result = reconstruct(folder, settings=Settings(align="on"))
    crop = result.provenance["alignment"]["crop"]
    height, width = result.all_in_focus.shape[:2]
    assert (height, width) == (crop["height"], crop["width"])
    assert size[0] - 10 <= height <= size[0] - 4
    assert size[1] - 12 <= width <= size[1] - 6
    assert result.camera.image_size == (height, width)
    assert result.camera.focal_length_px == pytest.approx(1000.0)
    # The axis stays on the same point of the scene.
    assert result.camera.principal_point_px == pytest.approx(
        (130 - crop["left"], 100 - crop["top"])
    )
    assert np.median(np.abs(result.depth_m - 1)) < 0.03


def test_source_index_counts_the_frames_that_were_given(tmp_path):
    size = (200, 260)
    focus_m = [0.7, 1.0, 1.4]
    stack = photograph(texture(size), 1.0, focus_m, size=size)
    # A stray picture comes before the others.
    stray = photograph(texture(size, seed=9), 1.0, focus_m, size=size).images[:1]
    stack = FocalStack(torch.cat([stray, stack.images]))
    folder = write_stack(
        tmp_path / "strayed", stack, focus_distances_m=[0.5, *focus_m], camera=CAMERA
    )
    result = reconstruct(folder, settings=Settings(align="on", drop_unaligned=True))
    assert result.provenance["alignment"]["dropped"].keys() == {"0"}
    # The plane is in focus in the third frame of the folder.
    assert np.median(result.source_index) == 2


# Provenance


def test_provenance_is_json_and_enough_to_repeat(tmp_path):
    focus_m = (0.5, 1.0, 2.0, math.inf)
    stack = photograph(texture(), 1 / INVERSE_DEPTH_DPT, focus_m)
    written = [0.5, 1.0, 2.0, None]
    opened = open_stack(
        write_stack(tmp_path / "far", stack, focus_distances_m=written, camera=CAMERA)
    )
    seen = []
    result = reconstruct(opened, settings=UNALIGNED, progress=lambda *call: seen.append(call))
    text = json.dumps(strict_json(result.provenance), allow_nan=False)
    provenance = json.loads(text)
    assert provenance["grade"] == "calibrated"
    assert provenance["focus_distances_m"] == written
    assert provenance["working_size"] == list(SIZE)
    assert provenance["settings"]["psf"] == {"family": "disc", "exponent": 8.0}
    assert provenance["camera_at_working_size"]["focal_length_px"] == 1000.0
    assert [Path(name).name for name in provenance["frames"]] == [
        f"frame_0{index}.png" for index in range(4)
    ]
    stages = list(dict.fromkeys(name for name, _, _ in seen))
    assert stages == list(provenance["seconds"])
    assert stages == [
        "aligning",
        "reading",
        "calibrating",
        "sweeping",
        "completing",
        "checking",
        "fusing",
        "enlarging",
    ]
    for name in stages:
        counts = [(done, total) for stage, done, total in seen if stage == name]
        assert counts[-1] == (1, 1)
        assert all(0 <= done <= total for done, total in counts)


# Path-traced rooms


@pytest.mark.parametrize(("room", "bound"), [("room_0", 0.09), ("room_3", 0.06)])
def test_path_traced_rooms_come_out_in_metres(shared_data, room, bound):
    folder = shared_data / "rendered" / room
    result = reconstruct(folder / "stack", settings=Settings(align="off", working_size=256))
    truth_m = np.load(folder / "truth" / "depth.npz")["depth"]
    depth_m, confidence = result.depth_m, result.confidence
    # 1.5 times the measured errors (0.060 and 0.039), which come almost entirely from bare walls
    # without texture.
    truth = torch.from_numpy(truth_m)
    assert abs_rel(torch.from_numpy(depth_m), truth, truth > 0) < bound
    sure = confidence > 0.5
    assert sure.mean() > 0.6
    error = np.abs(depth_m / truth_m - 1)
    assert error[sure].mean() < 0.05
    assert error[sure].mean() < 0.3 * error[confidence < 0.1].mean()
