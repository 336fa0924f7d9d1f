"""Alignment of faulty frames: those that show nothing, other exposures, textures that repeat."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from test_align import SIZE, STILL, Frames, motion, photograph, scene

from focaldiffusion.align.registration import find_alignment
from focaldiffusion.errors import InputError
from focaldiffusion.optics import linear_to_srgb, srgb_to_linear

Image = NDArray[np.float32]


@pytest.fixture(scope="module")
def tripod() -> list[Image]:
    """Five frames that differ in focus only."""
    return [photograph(scene(2), STILL, 1.5 * i, 1.5 * (4 - i), seed=i) for i in range(5)]


def replaced(frames: list[Image], index: int, frame: NDArray[np.floating]) -> Frames:
    rounded = (np.rint(255 * np.clip(frame, 0, 1)) / 255).astype(np.float32)
    return Frames([*frames[:index], rounded, *frames[index + 1 :]])


def exposed(frame: Image, gain: float | tuple[float, float, float]) -> NDArray[np.floating]:
    light = srgb_to_linear(torch.from_numpy(frame)) * torch.tensor(gain)
    return linear_to_srgb(light.clamp(0, 1)).numpy()


def nothing(kind: str) -> NDArray[np.floating]:
    rng = np.random.default_rng(0)
    shape = (*SIZE, 3)
    return {
        "black": np.zeros(shape),
        "lens cap": 4 / 255 + rng.normal(0, 3 / 255, shape),
        "white": np.ones(shape),
        "nearly white": 1 - np.abs(rng.normal(0, 1 / 255, shape)),
        "grey": np.full(shape, 0.5),
        "noisy grey": 0.4 + rng.normal(0, 4 / 255, shape),
        "noise": rng.uniform(0, 1, shape),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("black", "black"),
        ("lens cap", "black"),
        ("white", "white"),
        ("nearly white", "white"),
        ("grey", "of one value everywhere"),
        ("noisy grey", "noise"),
        ("noise", "noise"),
    ],
)
@pytest.mark.parametrize("place", [0, 2, 4])
def test_frame_that_shows_nothing_is_refused_or_left_out(
    tripod: list[Image], kind: str, said: str, place: int
) -> None:
    source = replaced(tripod, place, nothing(kind))
    with pytest.raises(InputError, match=rf"^frame_{place}\.png: shows nothing, it is {said}\. "):
        find_alignment(source)
    found = find_alignment(source, drop_unaligned=True)
    assert found.dropped == {place: f"shows nothing: it is {said}"}
    assert found.reference != place
    assert all(frame.gain == 1 and not frame.is_moved for frame in found.frames)


def test_one_frame_with_something_is_not_a_stack(tripod: list[Image]) -> None:
    black = np.zeros_like(tripod[0])
    with pytest.raises(InputError, match=r"^frame_0\.png: shows nothing.* \(1 more .*at least 2"):
        find_alignment(Frames([black, tripod[1], black]), drop_unaligned=True)


def test_frame_far_out_of_focus_stays(tripod: list[Image]) -> None:
    light = scene(2)
    rows = np.linspace(0.5, 1.5, light.shape[0], dtype=np.float32)[:, None, None]
    frames = [photograph(light * rows, STILL, 40 - 10 * i, 40 - 10 * i, seed=i) for i in range(5)]
    found = find_alignment(Frames(frames))
    assert found.is_identity
    assert found.kept == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("gain", [1 / 8, 0.25, 2.0])
def test_exposure_is_that_of_most_frames(tripod: list[Image], gain: float, place: int) -> None:
    found = find_alignment(replaced(tripod, place, exposed(tripod[place], gain)))
    # Clipping takes some light from the brightest places that are compared.
    assert found.frames[place].gain == pytest.approx(gain, rel=0.03)
    others = [frame.gain for i, frame in enumerate(found.frames) if i != place]
    assert others == pytest.approx([1, 1, 1, 1], rel=0.01)
    told = [finding for finding in found.findings if f"frame_{place}.png has 1/8 of" in finding]
    assert len(told) == (gain == 1 / 8)


def test_colour_cast_of_a_frame_is_removed(tripod: list[Image]) -> None:
    cast = (1.25, 1.0, 0.75)
    source = replaced(tripod, 2, exposed(tripod[2], cast))
    found = find_alignment(source)
    assert found.frames[2].gains == pytest.approx(cast, rel=0.03)
    restored = found.apply(source).read(2)
    unclipped = source.read(2).max(axis=2) < 0.99
    assert np.abs(restored - tripod[2])[unclipped].mean() < 2 / 255
    assert found.gains is not None
    assert found.gains.shape == (5, 3)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_frame_too_clipped_to_compare_is_left_out(tripod: list[Image], place: int) -> None:
    brightest = srgb_to_linear(torch.from_numpy(tripod[place])).amax(2).quantile(0.1)
    found = find_alignment(replaced(tripod, place, exposed(tripod[place], 0.96 / float(brightest))))
    assert set(found.dropped) == {place}
    assert found.dropped[place].endswith("of it is clipped")
    assert found.findings == (f"frame_{place}.png is left out: {found.dropped[place]}.",)
    assert [frame.gain for frame in found.frames] == [1, 1, 1, 1]


def test_exposure_bracket_is_named(tripod: list[Image]) -> None:
    bracket = [exposed(tripod[2], gain).astype(np.float32) for gain in (0.25, 0.5, 1.0, 2.0)]
    found = find_alignment(Frames(bracket))
    assert len(found.findings) == 1
    assert "exposure bracket" in found.findings[0]
    focused = [
        exposed(frame, gain).astype(np.float32)
        for frame, gain in zip(tripod, (0.5, 1.0, 1.5, 0.8, 0.4), strict=True)
    ]
    assert find_alignment(Frames(focused)).findings == ()


def cloth(period_px: float) -> Image:
    """Linear light of a plain weave, larger than a frame on each side."""
    y, x = np.mgrid[0 : SIZE[0] + 120, 0 : SIZE[1] + 120] * (np.pi / period_px)
    over = (np.floor(x / np.pi) + np.floor(y / np.pi)) % 2 == 0
    weave = 0.15 + 0.5 * np.where(over, np.abs(np.sin(x)), np.abs(np.sin(y)))
    return np.repeat(weave[..., None], 3, axis=2).astype(np.float32)


@pytest.mark.parametrize("period_px", [5, 8, 14])
def test_repeating_texture_that_stands_still_is_left_alone(period_px: float) -> None:
    light = cloth(period_px)
    frames = [photograph(light, STILL, 1.5 * i, 1.5 * (4 - i), seed=i) for i in range(5)]
    assert find_alignment(Frames(frames)).is_identity


def test_of_equally_good_shifts_the_smallest_is_found() -> None:
    frames = [photograph(cloth(16), motion(x=3.0 * i), 0.5, 0.5, seed=i) for i in range(2)]
    found = find_alignment(Frames(frames), reference=0)
    assert found.frames[1].shift_px == pytest.approx((3, 0), abs=0.3)


def test_foreign_frame_beside_a_repeating_texture_is_refused() -> None:
    frames = [photograph(cloth(8), STILL, 0.4 * i, 0.4 * i, seed=i) for i in range(3)]
    foreign = photograph(scene(7), STILL, 1, 1)
    with pytest.raises(InputError, match="shows a different scene"):
        find_alignment(Frames([*frames, foreign]))
