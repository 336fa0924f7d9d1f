"""Each variant does what its name says, by the amount it says, and leaves the truth alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldiffusion.data.dataset import Sample, StackSample
from focaldiffusion.evaluation.baselines import open_model
from focaldiffusion.evaluation.prediction import reference_frame
from focaldiffusion.evaluation.protocol import OraclePlanes, Photography, Protocol
from focaldiffusion.evaluation.robustness import CURVES, SUITES, VARIANTS
from focaldiffusion.optics import Camera, linear_to_srgb
from focaldiffusion.psf import PSF
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack
from tests.conftest import TOLERANCE
from tests.sample_stacks import SIZE, photograph, texture

PLANES_M = (0.5, 0.8, 1.25, 2.0, 4.0)
DEPTH_M = (1 / torch.linspace(2.0, 0.4, SIZE[1])).expand(SIZE)
SCENE = Scene(
    texture(SIZE),
    DEPTH_M,
    torch.ones(SIZE, dtype=torch.bool),
    Camera(1000.0, 0.008, SIZE),
    "slant",
)
SIMULATED = Protocol("slants", "rgbd", "test", "about", Photography(PLANES_M, noise_std_lsb=1.0))
RECORDED = Protocol("recorded", "stacks", "test", "about")
SHUFFLED = (3, 0, 4, 2, 1)
"""The listed order of the frames of STACK, which is not that of the sweep."""
STACK = photograph(
    texture(SIZE), DEPTH_M, [PLANES_M[i] for i in SHUFFLED], size=SIZE, noise_std_lsb=1.0
)
MIDDLE = SHUFFLED.index(2)


@dataclass(frozen=True)
class Single:
    """A data set of one sample in memory."""

    sample: Sample
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return self.sample

    def name(self, index: int) -> str:
        return "slant"

    def scene_name(self, index: int) -> str:
        return "slant"


def recorded(stack: FocalStack = STACK) -> Single:
    return Single(StackSample(stack, SCENE.depth_m, SCENE.valid, SCENE.all_in_focus, "recorded"))


PHOTOGRAPHED = ("frames", "noise_lsb", "psf_exponent")


def names(*curves: str) -> set[str]:
    """The variants on these curves."""
    return {name for name, one in VARIANTS.items() if one.curve in curves}


def changed(name: str, stack: FocalStack = STACK) -> FocalStack:
    """The stack of a recorded sample, made worse."""
    found = VARIANTS[name].sample(RECORDED, recorded(stack), 0)
    assert found is not None
    return found.stack


def simulated(name: str, protocol: Protocol = SIMULATED) -> FocalStack:
    """The stack of a simulated sample, made worse."""
    found = VARIANTS[name].sample(protocol, Single(SCENE), 0)
    assert found is not None
    return found.stack


def focus_m(stack: FocalStack) -> Tensor:
    assert stack.focus_distances_m is not None
    return stack.focus_distances_m


_ROW, _COLUMN = torch.meshgrid(*(torch.arange(side) / 200 + 0.2 for side in SIZE), indexing="ij")
RAMPS = replace(STACK, images=torch.stack([_COLUMN, _ROW, torch.zeros(SIZE)]).expand(5, 3, *SIZE))
"""Frames in which red encodes the column [px / 200] and green the row."""
RAMP_ERROR_PX = 0.05
"""The cubic of torch's resampling, a = -0.75, bends a ramp by up to 0.04 px between the pixels."""


def motions(name: str) -> list[tuple[float, float, float]]:
    """How much larger a variant shows each frame, and how far moved in x and y [px]; near first."""
    found = []
    for place in range(5):
        index = SHUFFLED.index(place)
        now, was = (
            stack.images[index, :2, 16:-16, 16:-16] * 200 for stack in (changed(name, RAMPS), RAMPS)
        )
        magnification = 1 / float(now[0, 0].diff().mean())
        # Content moves right, so a pixel shows a smaller column.
        moved_x, moved_y = (was - now).mean(dim=(1, 2)).tolist()
        found.append((magnification, moved_x, moved_y))
    return found


def test_suites_name_variants() -> None:
    assert SUITES["full"] == tuple(VARIANTS)
    assert set(SUITES["quick"]) <= set(VARIANTS)
    assert VARIANTS["focus_scale=1.05"].value == 1.05
    assert VARIANTS["missing_frame=middle"].curve == "missing_frame"


@pytest.mark.parametrize(
    ("protocol", "dataset", "name"),
    [(RECORDED, recorded(), name) for name in VARIANTS]
    + [(SIMULATED, Single(SCENE), name) for curve in PHOTOGRAPHED for name in sorted(names(curve))],
)
def test_the_truth_stays_and_every_draw_is_repeatable(
    protocol: Protocol, dataset: Single, name: str
) -> None:
    found, again = (VARIANTS[name].sample(protocol, dataset, 0) for _ in range(2))

    if found is None:
        assert protocol is RECORDED
        assert again is None
        return
    assert again is not None
    assert torch.equal(found.stack.images, again.stack.images)
    assert torch.equal(focus_m(found.stack), focus_m(again.stack))
    for field in ("depth_m", "valid", "all_in_focus"):
        assert torch.equal(getattr(found, field), getattr(SCENE, field))
    assert found.stack.images.dtype == torch.float32
    assert 0 <= float(found.stack.images.min()) <= float(found.stack.images.max()) <= 1


def test_variants_that_do_not_suit_a_recorded_stack_give_none() -> None:
    def missing(stack: FocalStack) -> set[str]:
        data = recorded(stack)
        return {name for name, one in VARIANTS.items() if one.sample(RECORDED, data, 0) is None}

    more_frames = {f"frames={count}" for count in range(6, 11)}
    reported = names("focus_scale", "focus_offset_dpt", "focus_jitter_dpt", "aperture_scale")
    unknown = replace(STACK, focus_distances_m=None, camera=None)
    pair = replace(STACK, images=STACK.images[:2], focus_distances_m=focus_m(STACK)[:2])

    assert missing(STACK) == names("psf_exponent") | more_frames
    assert missing(unknown) == names("psf_exponent") | more_frames | reported | {
        "order=two_swapped",
        "order=reversed",
    }
    assert missing(pair) == names("psf_exponent", "missing_frame", "frames") - {"frames=2"}


def test_focus_and_lens_are_reported_wrongly_and_the_frames_stay() -> None:
    true_dpt = 1 / focus_m(STACK)
    scaled, nearer, farther, wide = (
        changed(name)
        for name in (
            "focus_scale=1.05",
            "focus_offset_dpt=0.05",
            "focus_offset_dpt=-0.05",
            "aperture_scale=1.1",
        )
    )

    close = {"rtol": 1e-6, "atol": 1e-7}
    torch.testing.assert_close(focus_m(scaled), 1.05 * focus_m(STACK), **close)
    torch.testing.assert_close(1 / focus_m(nearer), true_dpt + 0.05, **close)
    torch.testing.assert_close(1 / focus_m(farther), true_dpt - 0.05, **close)
    assert STACK.camera is not None
    assert wide.camera == replace(STACK.camera, aperture_diameter_m=0.008 * 1.1)
    assert wide.focus_distances_m is STACK.focus_distances_m
    for stack in (scaled, nearer, farther, wide):
        assert stack.images is STACK.images


def test_what_is_reported_of_simulated_frames_is_changed_too() -> None:
    own, reported = SIMULATED.sample(Single(SCENE), 0).stack, simulated("focus_scale=1.05")

    assert torch.equal(reported.images, own.images)
    torch.testing.assert_close(focus_m(reported), 1.05 * torch.tensor(PLANES_M))


def test_infinity_is_reported_as_infinity_at_most() -> None:
    distant = replace(STACK, focus_distances_m=torch.tensor([0.5, 1.0, 2.0, 30.0, math.inf]))

    reported_m = focus_m(changed("focus_offset_dpt=-0.05", distant))

    assert reported_m[3:].tolist() == [math.inf, math.inf]
    torch.testing.assert_close(1 / reported_m[:3], torch.tensor([1.95, 0.95, 0.45]))


def test_jitter_is_drawn_for_each_frame_and_grows_with_its_value() -> None:
    errors = {
        value: 1 / focus_m(changed(f"focus_jitter_dpt={value}")) - 1 / focus_m(STACK)
        for value in (0.05, 0.1)
    }

    assert float(errors[0.05].abs().max()) <= 0.05
    assert float(errors[0.05].std()) > 0.01
    torch.testing.assert_close(errors[0.1], 2 * errors[0.05], rtol=1e-4, atol=1e-6)


def test_a_shuffled_stack_is_the_same_stack() -> None:
    shuffled = changed("order=shuffled")

    assert focus_m(shuffled).tolist() != focus_m(STACK).tolist()
    for distance_m, frame in zip(focus_m(shuffled), shuffled.images, strict=True):
        assert torch.equal(frame, STACK.images[focus_m(STACK) == distance_m][0])
    plain, other = (open_model("physics").predict(one, "") for one in (STACK, shuffled))
    assert plain.depth_m is not None
    torch.testing.assert_close(other.depth_m, plain.depth_m, **TOLERANCE[torch.float32])


def test_a_wrong_order_gives_frames_the_distances_of_others() -> None:
    def by_true_focus(stack: FocalStack) -> list[float]:
        assert stack.images is STACK.images
        return [round(float(focus_m(stack)[SHUFFLED.index(place)]), 4) for place in range(5)]

    assert by_true_focus(changed("order=reversed")) == [4.0, 2.0, 1.25, 0.8, 0.5]
    assert by_true_focus(changed("order=two_swapped")) == [0.5, 1.25, 0.8, 2.0, 4.0]


@pytest.mark.parametrize(("which", "lost"), [("nearest", 0), ("middle", 2), ("farthest", 4)])
def test_a_missing_frame_takes_its_distance_along(which: str, lost: int) -> None:
    stack = changed(f"missing_frame={which}")

    kept = [index for index in range(5) if SHUFFLED[index] != lost]
    assert torch.equal(stack.images, STACK.images[kept])
    assert torch.equal(focus_m(stack), focus_m(STACK)[kept])


def test_fewer_recorded_frames_lie_evenly_in_the_sweep() -> None:
    def left(count: int) -> list[float]:
        return sorted(round(one, 4) for one in focus_m(changed(f"frames={count}")).tolist())

    assert left(2) == [0.5, 4.0]
    assert left(3) == [0.5, 1.25, 4.0]
    assert torch.equal(changed("frames=5").images, STACK.images)


def test_simulated_frames_are_photographed_anew_along_the_same_sweep() -> None:
    own = SIMULATED.sample(Single(SCENE), 0).stack
    nine = focus_m(simulated("frames=9"))

    assert torch.equal(simulated("frames=5").images, own.images)
    torch.testing.assert_close(nine[::2], torch.tensor(PLANES_M))
    torch.testing.assert_close(1 / nine[1], (1 / nine[0] + 1 / nine[2]) / 2)


def test_oracle_planes_keep_their_ends() -> None:
    oracle = replace(SIMULATED, photography=Photography(OraclePlanes(5, (0.05, 0.95))))
    own, more = (focus_m(simulated(f"frames={count}", oracle)) for count in (5, 8))

    assert len(more) == 8
    torch.testing.assert_close(more[[0, -1]], own[[0, -1]])


def test_noise_is_that_of_the_protocol_or_comes_on_top() -> None:
    clean = simulated("noise_lsb=0")
    noisy = simulated("noise_lsb=4")
    added = changed("noise_lsb=4")

    def std_lsb(one: FocalStack, other: FocalStack) -> float:
        return float(255 * (linear_to_srgb(one.images) - linear_to_srgb(other.images)).std())

    assert std_lsb(noisy, clean) == pytest.approx(4, rel=0.02)
    assert std_lsb(added, STACK) == pytest.approx(4, rel=0.02)
    torch.testing.assert_close(changed("noise_lsb=0").images, STACK.images)


def test_jpeg_loses_the_more_the_lower_its_quality() -> None:
    quality = CURVES["jpeg_quality"].values
    encoded = linear_to_srgb(STACK.images)
    rms_lsb = [
        float(255 * (linear_to_srgb(changed(f"jpeg_quality={one}").images) - encoded).std())
        for one in quality
    ]

    assert quality == (60, 75, 85, 95)
    assert rms_lsb == sorted(rms_lsb, reverse=True)
    assert rms_lsb[0] < 8  # colours and rows are where they were
    assert rms_lsb[-1] > 0.3


def test_exposure_drifts_along_the_sweep_about_the_middle_frame() -> None:
    stack = changed("exposure_drift=0.2")

    gains = (stack.images / STACK.images.clamp_min(1e-6)).flatten(1).median(dim=1).values

    assert gains[[SHUFFLED.index(place) for place in range(5)]].tolist() == pytest.approx(
        [0.9, 0.95, 1.0, 1.05, 1.1], rel=1e-4
    )


def test_the_middle_frame_of_the_sweep_never_moves() -> None:
    assert reference_frame(STACK) == MIDDLE
    for name in ("shift_px=10", "magnification=0.02", "exposure_drift=0.2"):
        # Resampled in place, it is the same but for rounding.
        torch.testing.assert_close(changed(name).images[MIDDLE], STACK.images[MIDDLE])


@pytest.mark.parametrize("distance_px", [0.5, 10])
def test_frames_are_shifted_by_this_distance(distance_px: float) -> None:
    found = np.array(motions(f"shift_px={distance_px}"))

    shifts = np.delete(found[:, 1:], 2, axis=0)  # without the middle frame
    np.testing.assert_allclose(found[:, 0], 1, atol=1e-4)
    np.testing.assert_allclose(np.hypot(*shifts.T), distance_px, atol=RAMP_ERROR_PX)
    # Each in its own direction.
    assert np.linalg.norm(np.diff(shifts, axis=0), axis=1).min() > 0.1 * distance_px


def test_frames_are_magnified_along_the_sweep_about_the_optical_axis() -> None:
    found = np.array(motions("magnification=0.02"))

    np.testing.assert_allclose(found[:, 0], [0.99, 0.995, 1, 1.005, 1.01], atol=0.002)
    np.testing.assert_allclose(found[:, 1:], 0, atol=RAMP_ERROR_PX)


def test_another_lens_blur_is_photographed_and_not_reported() -> None:
    photography = replace(SIMULATED.photography, psf=PSF("gaussian"))
    gaussian = replace(SIMULATED, photography=photography).sample(Single(SCENE), 0).stack

    stack = simulated("psf_exponent=2")

    # Eight bits, so that the smallest difference may round apart.
    torch.testing.assert_close(stack.images, gaussian.images, rtol=0, atol=0.01)
    assert stack.camera == gaussian.camera
    assert not torch.allclose(stack.images, simulated("psf_exponent=16").images, atol=0.01)
