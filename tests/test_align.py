"""Alignment: known motions, blur that differs in depth, and stacks that must stay untouched."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from focaldiffusion.align.alignment import common_crop, divide_light
from focaldiffusion.align.motion import Motion, to_pixels, warp
from focaldiffusion.align.poses import Link, adjust_poses
from focaldiffusion.align.registration import find_alignment
from focaldiffusion.errors import InputError
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.optics import linear_to_srgb, srgb_to_linear
from focaldiffusion.progress import Meter

SIZE = (300, 400)
MARGIN = 60
STILL = np.eye(2, 3)

Array = NDArray[np.float64]


class Frames:
    """A FrameSource of frames in memory."""

    bit_depth = 8
    is_grey = False

    def __init__(self, images: list[NDArray[np.float32]], names: list[str] | None = None) -> None:
        self.images = images
        self.names = tuple(names or (f"frame_{i}.png" for i in range(len(images))))
        self.size = images[0].shape[:2]

    def read(self, index: int) -> NDArray[np.float32]:
        return self.images[index]


class Unreadable(Frames):
    def read(self, index: int) -> NDArray[np.float32]:
        raise AssertionError("read although alignment is off")


def scene(seed: int) -> NDArray[np.float32]:
    """Linear light with structure of all sizes, MARGIN larger than a frame on each side."""
    rng = np.random.default_rng(seed)
    height, width = (side + 2 * MARGIN for side in SIZE)
    image = np.full((height, width, 3), 0.2, np.float32)
    for scale in (40, 20, 10, 5, 3):
        for _ in range(25_000 // scale**2):
            x, y = rng.uniform(0, width), rng.uniform(0, height)
            box = cv2.boxPoints(((x, y), tuple(rng.uniform(scale / 2, 2 * scale, 2)), 0.0))
            turned = cv2.transform(box[None], cv2.getRotationMatrix2D((x, y), x * 7, 1.0))
            colour = rng.uniform(0.02, 0.8, 3).tolist()
            cv2.fillPoly(image, [turned.astype(np.int32)], colour, lineType=cv2.LINE_AA)
    return image


def motion(scale: float = 1.0, degrees: float = 0.0, x: float = 0.0, y: float = 0.0) -> Array:
    """(2, 3): turned and scaled about the image centre, then shifted [px]."""
    angle = np.radians(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([SIZE[1], SIZE[0]]) / 2
    return np.column_stack([linear, centre - linear @ centre + [x, y]])


def photograph(
    light: NDArray[np.float32],
    moved: Array,
    near_blur_px: float,
    far_blur_px: float,
    gain: float = 1.0,
    seed: int = 0,
) -> NDArray[np.float32]:
    """A frame of 8 bits: upper half of the scene far, lower half near, noise of 1 LSB."""
    near, far = (
        # 0.7 px: a lens in focus, without which the scene's edges alias when it is moved.
        cv2.GaussianBlur(light, (0, 0), float(np.hypot(blur, 0.7)))
        for blur in (near_blur_px, far_blur_px)
    )
    rows = np.arange(light.shape[0], dtype=np.float32)[:, None, None]
    share = np.clip((rows - light.shape[0] / 2) / 20 + 0.5, 0, 1)
    whole = near * share + far * (1 - share)
    back = np.linalg.inv(np.vstack([moved, [0, 0, 1]]))[:2]
    back[:, 2] += MARGIN
    frame = gain * warp(whole, back, SIZE, interpolation=cv2.INTER_CUBIC)
    srgb = linear_to_srgb(torch.from_numpy(np.clip(frame, 0, 1))).numpy()
    noise = np.random.default_rng(seed).normal(0, 1, srgb.shape)
    return (np.clip(np.rint(255 * srgb + noise), 0, 255) / 255).astype(np.float32)


def corner_error_px(found: Array, expected: Array) -> float:
    corners = np.array([[x, y, 1] for x in (0, SIZE[1]) for y in (0, SIZE[0])])
    return float(np.linalg.norm(corners @ (found - expected).T, axis=1).max())


def relative(moved: Array, reference: Array) -> Array:
    first = np.vstack([reference, [0, 0, 1]])
    return moved @ np.linalg.inv(first)


MOTIONS = [
    motion(0.985, 0.4, -5, 3),
    motion(0.991, -0.2, 4, 6),
    motion(0.995, 0.5, 2, -7),
    motion(0.998, 0.1, -3, -2),
    motion(1.0, -0.3, 5, 1),
]
GAINS = [1.0, 0.9, 1.06, 1.0, 0.95]


@pytest.fixture(scope="module")
def handheld() -> list[NDArray[np.float32]]:
    """Five frames focused from near to far, each moved, magnified and exposed differently."""
    light = scene(1)
    return [
        photograph(light, moved, 1.2 * i, 1.2 * (4 - i), gain, seed=i)
        for i, (moved, gain) in enumerate(zip(MOTIONS, GAINS, strict=True))
    ]


@pytest.fixture(scope="module")
def tripod() -> list[NDArray[np.float32]]:
    """Five frames that differ in focus only."""
    light = scene(2)
    return [photograph(light, STILL, 1.5 * i, 1.5 * (4 - i), seed=i) for i in range(5)]


def test_known_motions_and_gains_are_recovered(handheld: list[NDArray[np.float32]]) -> None:
    found = find_alignment(Frames(handheld))
    assert found.reference == 4  # the narrowest field of view
    assert found.kept == (0, 1, 2, 3, 4)
    for frame, moved, gain in zip(found.frames, MOTIONS, GAINS, strict=True):
        assert corner_error_px(frame.matrix, relative(moved, MOTIONS[4])) < 0.3
        # Relative to the median exposure, whichever frame defines the view.
        assert frame.gain == pytest.approx(gain / np.median(GAINS), rel=0.01)
    assert found.frames[0].scale == pytest.approx(0.985, abs=1e-3)
    assert found.frames[0].rotation_deg == pytest.approx(0.7, abs=0.02)
    assert found.frames[0].method == "intensity"
    assert found.frames[0].residual < 0.5 * found.frames[0].residual_before
    written = json.loads(json.dumps(found.summary()))
    assert written["frames"][0]["matrix"] == found.frames[0].matrix.tolist()
    assert written["crop"]["height"] == found.crop.height


def test_a_long_chain_does_not_drift() -> None:
    light, rng, count = scene(3), np.random.default_rng(5), 100
    shifts = np.cumsum(rng.normal(0, 0.5, (count, 2)), axis=0)
    moved = [motion(1 - 1e-4 * i, 0.01 * i, *shifts[i]) for i in range(count)]
    blurs = np.linspace(0, 5, count)
    frames = [photograph(light, moved[i], blurs[i], blurs[-1 - i], seed=i) for i in range(count)]
    found = find_alignment(Frames(frames), reference=0)
    errors = [
        corner_error_px(one.matrix, relative(moved[i], moved[0]))
        for i, one in enumerate(found.frames)
    ]
    assert max(errors) < 0.5


def test_aligned_frames_show_what_the_reference_would_have(
    handheld: list[NDArray[np.float32]],
) -> None:
    source = Frames(handheld)
    found = find_alignment(source)
    aligned = found.apply(source)
    crop = found.crop
    window = np.s_[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    assert aligned.size == crop.size
    assert aligned.names == source.names
    for i in range(5):
        # The same focus and blur, seen and exposed as the reference is.
        blur = 1.2 * i, 1.2 * (4 - i)
        wanted = photograph(scene(1), MOTIONS[4], *blur, seed=9)[window]
        error = aligned.read(i) - wanted
        # Two frames with noise of 1 LSB differ by 1.4; the rest is interpolation and clipping.
        assert 255 * np.sqrt(np.square(error).mean()) < 2
        if i != found.reference:
            assert 255 * np.sqrt(np.square(handheld[i][window] - wanted).mean()) > 20


def test_order_of_the_frames_changes_nothing(handheld: list[NDArray[np.float32]]) -> None:
    shuffle = [3, 0, 4, 2, 1]
    plain = find_alignment(Frames(handheld))
    shuffled = find_alignment(
        Frames([handheld[i] for i in shuffle]),
        focus_order=[shuffle.index(i) for i in range(5)],
    )
    assert shuffle[shuffled.reference] == plain.reference
    assert shuffled.crop == plain.crop
    for place, index in enumerate(shuffle):
        np.testing.assert_allclose(
            shuffled.frames[place].matrix, plain.frames[index].matrix, atol=1e-6
        )
        assert shuffled.frames[place].gain == pytest.approx(plain.frames[index].gain)


def test_two_frames_are_enough(handheld: list[NDArray[np.float32]]) -> None:
    found = find_alignment(Frames(handheld[1:3]), reference=0)
    assert found.reference == 0
    expected = relative(MOTIONS[2], MOTIONS[1])
    assert corner_error_px(found.frames[1].matrix, expected) < 0.3


def test_tripod_stack_stays_untouched(tripod: list[NDArray[np.float32]]) -> None:
    source = Frames(tripod)
    found = find_alignment(source)
    assert found.is_identity
    assert found.apply(source) is source
    assert found.reference == 2
    assert found.crop.size == SIZE
    assert {frame.method for frame in found.frames} == {"identity"}


@pytest.mark.parametrize("room", ["room_0", "room_2", "room_7"])
def test_path_traced_stacks_stay_untouched(shared_data: Path, room: str) -> None:
    assert find_alignment(open_stack(shared_data / "rendered" / room / "stack").frames).is_identity


def test_light_field_stack_stays_untouched(shared_data: Path) -> None:
    files = sorted((shared_data / "stacks" / "lytro_figures").glob("frame_0[6-9].jpg"))
    assert find_alignment(open_stack(files).frames).is_identity


def test_handheld_phone_stack_is_registered(shared_data: Path) -> None:
    files = sorted((shared_data / "stacks" / "phone_balls").glob("frame_0[0369].jpg"))
    found = find_alignment(open_stack(files).frames)
    assert found.reference == 3
    # It breathes by 6 %, evenly from frame to frame.
    scales = [frame.scale for frame in found.frames]
    assert scales == sorted(scales)
    assert scales[0] == pytest.approx(0.94, abs=0.005)
    before, after = (
        np.mean([getattr(frame, name) for frame in found.frames])
        for name in ("residual_before", "residual")
    )
    assert after < 0.3 * before


def test_flicker_alone_is_evened_out_without_resampling(
    tripod: list[NDArray[np.float32]],
) -> None:
    light = scene(2)
    source = Frames([*tripod[:4], photograph(light, STILL, 6, 0, gain=0.9, seed=4)])
    found = find_alignment(source)
    assert not found.is_identity
    assert not any(frame.is_moved for frame in found.frames)
    assert found.crop.size == SIZE
    assert found.frames[4].gain == pytest.approx(0.9, rel=0.01)
    lighter = found.apply(source).read(4)
    assert lighter.mean() == pytest.approx(tripod[4].mean(), rel=0.01)


def test_on_applies_what_auto_finds_negligible(tripod: list[NDArray[np.float32]]) -> None:
    found = find_alignment(Frames(tripod), mode="on", reference=2)
    assert not found.is_identity
    assert all(corner_error_px(frame.matrix, STILL) < 0.3 for frame in found.frames)


def test_off_looks_at_nothing(tripod: list[NDArray[np.float32]]) -> None:
    source = Unreadable(tripod)
    found = find_alignment(source, mode="off")
    assert found.is_identity
    assert found.apply(source) is source
    assert found.frames[0].residual is None


def test_foreign_frame_is_refused_or_dropped(handheld: list[NDArray[np.float32]]) -> None:
    foreign = photograph(scene(99), STILL, 0, 0)
    source = Frames([*handheld[:2], foreign, *handheld[2:]])
    with pytest.raises(
        InputError,
        match=r"^frame_2\.png: shows a different scene from the other frames\. Its best match is "
        r"frame_\d\.png, with a correlation of 0\.\d\d; expected at least 0\.7\. Leave it out with "
        r"--drop-unaligned, or turn alignment off with --align off\.$",
    ):
        find_alignment(source)
    found = find_alignment(source, drop_unaligned=True)
    assert found.kept == (0, 1, 3, 4, 5)
    assert found.dropped == {2: "matches no other frame"}
    aligned = found.apply(source)
    assert aligned.names == tuple(source.names[i] for i in found.kept)
    for frame, moved in zip(found.frames, MOTIONS, strict=True):
        assert corner_error_px(frame.matrix, relative(moved, MOTIONS[4])) < 0.3
    with pytest.raises(InputError, match=r"^frame_2\.png: chosen as the reference, but it"):
        find_alignment(source, drop_unaligned=True, reference=2)


def test_foreign_first_frame_is_the_one_to_blame(handheld: list[NDArray[np.float32]]) -> None:
    source = Frames([photograph(scene(99), STILL, 0, 0), *handheld])
    assert find_alignment(source, drop_unaligned=True).dropped.keys() == {0}
    with pytest.raises(InputError, match=r"^frame_0\.png: shows a different scene"):
        find_alignment(source)


def test_two_frames_of_different_scenes_are_refused(handheld: list[NDArray[np.float32]]) -> None:
    source = Frames([handheld[0], photograph(scene(99), STILL, 0, 0)])
    with pytest.raises(InputError, match=r"Give frames of one scene, or turn alignment off"):
        find_alignment(source, drop_unaligned=True)


def test_features_find_what_is_too_far_for_areas() -> None:
    light = scene(3)
    far = motion(1.05, 14, 45, -30)
    found = find_alignment(
        Frames([photograph(light, STILL, 0, 0.5), photograph(light, far, 0.5, 0)]), reference=0
    )
    assert found.frames[1].method == "features"
    assert corner_error_px(found.frames[1].matrix, far) < 0.3


def test_shear_of_a_rolling_shutter_is_followed() -> None:
    light = scene(4)
    sheared = np.array([[1, 0.012, -3.0], [0, 1, 2.0]])
    moved = [STILL, sheared, STILL]
    found = find_alignment(
        Frames([photograph(light, m, 0.5 * i, 1 - 0.5 * i, seed=i) for i, m in enumerate(moved)]),
        reference=0,
    )
    assert corner_error_px(found.frames[1].matrix, sheared) < 0.3


@pytest.mark.parametrize("size", [(24, 32), (8, 8), (40, 600)])
def test_frames_with_nothing_to_see_are_left_alone(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    frames = [(0.5 + rng.normal(0, 1 / 255, (*size, 3))).astype(np.float32) for _ in range(3)]
    assert find_alignment(Frames(frames)).is_identity
    assert find_alignment(Frames([np.zeros((*size, 3), np.float32)] * 3)).is_identity


def test_progress_is_complete(tripod: list[NDArray[np.float32]]) -> None:
    steps: list[tuple[int, int]] = []
    meter = Meter(lambda done, total: steps.append((done, total)))
    find_alignment(Frames(tripod[:3]), meter=meter)
    assert steps == [(i + 1, 9) for i in range(9)]


def test_crop_keeps_only_what_every_frame_shows() -> None:
    matrices = [STILL, motion(x=3.4), motion(scale=0.98, degrees=1, y=-2)]
    crop = common_crop(matrices, ["a", "b", "c"], SIZE)
    centres = np.array(
        [
            [x, y, 1]
            for x in (crop.left + 0.5, crop.left + crop.width - 0.5)
            for y in (crop.top + 0.5, crop.top + crop.height - 0.5)
        ]
    )
    for matrix in matrices:
        seen = centres @ matrix.T
        assert seen.min() >= 0.5
        assert np.all(seen <= np.array([SIZE[1], SIZE[0]]) - 0.5)
    # A shift alone costs its whole pixels, and no more.
    assert common_crop(matrices[:2], ["a", "b"], SIZE).width == SIZE[1] - 4
    with pytest.raises(InputError, match=r"less than 25% of their area in common.* b is farthest"):
        common_crop([STILL, motion(x=350)], ["a", "b"], SIZE)


def test_moved_frame_is_read_at_the_right_place() -> None:
    # A ramp says where each pixel was read: the centre of pixel i has the value i + 1/2.
    ramp = np.broadcast_to((np.arange(SIZE[1]) + 0.5)[:, None] / SIZE[1], (*SIZE, 3))
    expected = motion(1.01, 0, 2.3, 1)
    image = warp(ramp.astype(np.float32), expected, SIZE, interpolation=cv2.INTER_LANCZOS4)
    x = np.arange(20, 380) + 0.5
    wanted = expected[0, 0] * x + expected[0, 2]
    # OpenCV interpolates at multiples of 1/32 px.
    np.testing.assert_allclose(image[150, 20:380, 0] * SIZE[1], wanted, atol=1 / 32)


@given(gain=st.floats(0.8, 1.25), value=st.floats(0, 1))
def test_gain_acts_on_light(gain: float, value: float) -> None:
    srgb = torch.tensor([[[value] * 3]])
    exact = linear_to_srgb((srgb_to_linear(srgb) / gain).clamp(0, 1)).numpy()
    np.testing.assert_allclose(divide_light(srgb.numpy(), gain), exact, atol=1e-3)


@given(
    scale=st.floats(0.9, 1.1),
    angle=st.floats(-0.2, 0.2),
    x=st.floats(-0.2, 0.2),
    y=st.floats(-0.2, 0.2),
)
def test_motion_holds_at_every_resolution(scale: float, angle: float, x: float, y: float) -> None:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[c, -s, x], [s, c, y], [0, 0, 1]])
    point = np.array([100.0, 40.0, 1])
    small = to_pixels(matrix, SIZE) @ point
    large = to_pixels(matrix, (2 * SIZE[0], 2 * SIZE[1])) @ (point * [2, 2, 1])
    np.testing.assert_allclose(large, 2 * small, atol=1e-9)


def test_poses_share_a_contradiction_by_its_uncertainty() -> None:
    def shift(x: float, variance: float) -> Motion:
        matrix = np.eye(3)
        matrix[0, 2] = x
        return Motion(matrix, variance * np.eye(4), 1.0, 0.0, 0.0, "intensity")

    # Around a loop 0 -> 1 -> 2 and 0 -> 2 the shifts miss by 0.004; variances are 1, 1 and 2 parts.
    links = [
        Link(0, 1, shift(0.010, 1e-4)),
        Link(1, 2, shift(0.010, 1e-4)),
        Link(0, 2, shift(0.024, 2e-4)),
    ]
    poses = adjust_poses({i: np.eye(3) for i in range(3)}, links, 0, "similarity")
    assert poses[1][0, 2] == pytest.approx(0.011, abs=1e-5)
    assert poses[2][0, 2] == pytest.approx(0.022, abs=1e-5)
    np.testing.assert_array_equal(poses[0], np.eye(3))
