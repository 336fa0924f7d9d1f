"""Black and white of a stack: what is stretched, what stays to the bit, and what comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from sample_stacks import photograph, texture

import focaldiffusion as fd
from focaldiffusion.io.images import read_image
from focaldiffusion.io.levels import LevelledFrames, Levels
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.reconstruction import DoubtfulInput, Settings

RNG = np.random.default_rng(5)
SCENE = RNG.integers(0, 65536, (3, 40, 50))
SCENE[:, 0, :2] = (0, 65535)  # black and white are there


@dataclass
class Counted:
    """Frames of unsigned integers that count how often each is read."""

    arrays: list[NDArray[Any]]
    is_grey: bool = False
    reads: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = tuple(f"frame {index}" for index in range(len(self.arrays)))
        self.size = self.arrays[0].shape[:2]
        self.bit_depth = self.arrays[0].dtype.itemsize * 8

    def read(self, index: int) -> NDArray[np.float32]:
        self.reads.append(index)
        shares = self.arrays[index] / np.float32(2**self.bit_depth - 1)
        return shares.astype(np.float32)[..., None].repeat(3, -1)


def levels_of(arrays: Any, dtype: Any, declared: float | None = None) -> Levels:
    return LevelledFrames(Counted([one.astype(dtype) for one in arrays]), declared).levels


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_bits_in_16_have_their_white(bits: int) -> None:
    levels = levels_of(SCENE >> (16 - bits), np.uint16)
    assert (levels.black, levels.white) == (0, (2**bits - 1) / 65535)
    assert levels.step == pytest.approx(1 / (2**bits - 1))
    assert f"{2**bits - 1} is taken as white" in levels.findings[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_full_range_is_decided_by_one_frame_and_stays_to_the_bit(dtype: Any) -> None:
    full = np.iinfo(dtype).max
    arrays = [(one * full // 65535).astype(dtype) for one in SCENE]
    source = Counted(arrays)
    frames = LevelledFrames(source)
    frame = frames.read(1)
    assert source.reads == [1]
    np.testing.assert_array_equal(frame[..., 0], arrays[1] / np.float32(full))
    assert frames.levels.are_full
    assert frames.levels.findings == ()


@pytest.mark.parametrize("first", [0, 1, 2])
def test_levels_do_not_depend_on_the_frame_read_first(first: int) -> None:
    arrays = [(SCENE[0] // 600).astype(np.uint16), (SCENE[1] // 40).astype(np.uint16)]
    arrays.append((SCENE[2] // 80).astype(np.uint16))
    frames = LevelledFrames(Counted(arrays))
    frames.read(first)
    assert frames.levels.white == 2047 / 65535  # 65535 / 40 needs 11 bits
    brighter = LevelledFrames(Counted([*arrays, SCENE[1].astype(np.uint16)]))
    brighter.read(first)
    assert brighter.levels.are_full


@pytest.mark.parametrize("factor", [4, 8, 20, 32])
def test_dark_8_bit_frames(factor: int) -> None:
    levels = levels_of(SCENE // 257 // factor, np.uint8)
    assert round(levels.white * 255) == 255 // factor
    assert levels.step == pytest.approx(1 / (255 // factor))


def test_a_large_offset_is_black_and_a_small_one_is_not() -> None:
    small = levels_of(57 + SCENE * 750 // 65535, np.uint16)
    assert (small.black, round(small.white * 65535)) == (0, 1023)
    large = levels_of(20_000 + SCENE * 750 // 65535, np.uint16)
    assert (round(large.black * 65535), round(large.white * 65535)) == (20_000, 20_750)
    assert "20750 is taken as white and 20000 as black" in large.findings[0]


def test_a_night_scene_with_a_lamp_stays() -> None:
    night = SCENE // 257 // 16
    night[:, 20:22, 20:22] = 250
    assert levels_of(night, np.uint8).are_full


def test_hot_pixels_are_no_light() -> None:
    frames = SCENE // 64
    frames[:, 7, 9] = 60000
    levels = levels_of(frames, np.uint16)
    assert round(levels.white * 65535) == 1023
    assert "up to 60000" in levels.findings[0]


def test_small_lamps_are_not_clipped() -> None:
    frames = SCENE // 257
    frames[:, 7, 9:11] = 4000
    levels = levels_of(frames, np.uint16)
    assert levels.clipped is None
    assert round(levels.white * 65535) == 4095


@pytest.mark.parametrize("level", [0, 3, 40])
def test_frames_that_show_nothing_stay(level: int) -> None:
    assert levels_of(np.full((3, 20, 30), level), np.uint8).are_full


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_noise_of_a_few_steps_stays(dtype: Any) -> None:
    assert levels_of(RNG.integers(0, 3, (3, 20, 30)), dtype).are_full


def test_declared_white_holds_for_frames_that_use_it() -> None:
    declared = 4095 / 65535
    assert levels_of(SCENE // 20, np.uint16, declared).white == declared  # up to 3276
    assert levels_of(SCENE // 256, np.uint16, declared).white == 255 / 65535
    assert levels_of(SCENE, np.uint16, declared).are_full  # the declaration is wrong
    assert levels_of(SCENE // 320, np.uint8, 204 / 255).are_full  # it is a statistic


def test_file_values_come_back() -> None:
    for arrays, dtype in ((900 + SCENE // 90, np.uint16), (SCENE // 257 // 9, np.uint8)):
        source = Counted([one.astype(dtype) for one in arrays])
        frames = LevelledFrames(source)
        back = frames.levels.file_values(frames.read(2)) * np.iinfo(dtype).max
        np.testing.assert_array_equal(np.rint(back[..., 0]).astype(dtype), source.arrays[2])


@pytest.fixture(scope="module")
def encoded() -> NDArray[np.float32]:
    """A simulated stack (N, H, W, 3), encoded."""
    stack = photograph(texture(), 0.5)
    return linear_to_srgb(stack.images).permute(0, 2, 3, 1).numpy()


def reconstructed(frames: NDArray[Any]) -> fd.Result:
    return fd.reconstruct(list(frames), settings=Settings(align="off"))


def test_12_bits_in_16_give_the_result_of_16(encoded: NDArray[np.float32], tmp_path: Path) -> None:
    full = reconstructed(np.rint(encoded * 65535).astype(np.uint16))
    assert full.findings == ()
    with pytest.warns(DoubtfulInput, match="4095 is taken as white"):
        part = reconstructed(np.rint(encoded * 4095).astype(np.uint16))
    # Rounding to 12 bits is an eighth of the least noise of the sweep.
    np.testing.assert_allclose(part.depth, full.depth, atol=0.02)
    np.testing.assert_allclose(part.all_in_focus, full.all_in_focus, atol=1 / 255)
    assert part.confidence.mean() == pytest.approx(full.confidence.mean(), abs=0.01)
    part.save(tmp_path / "part")
    written = read_image(tmp_path / "part" / "all_in_focus.png") * 65535
    np.testing.assert_allclose(written, part.all_in_focus * 4095, atol=0.51)
    difference = np.abs(part.overview().astype(int) - full.overview().astype(int))
    assert difference.mean() < 1


def test_tags_declare_white(tmp_path: Path) -> None:
    volume = (SCENE >> 5).astype(np.uint16)  # up to 2047
    grey: dict[str, Any] = {"photometric": "minisblack"}
    tifffile.imwrite(
        tmp_path / "a.ome.tif", volume, metadata={"axes": "ZYX", "SignificantBits": 12}, **grey
    )
    tifffile.imwrite(tmp_path / "b.tif", volume, extratags=[(281, 3, 1, 4095, True)], **grey)
    tifffile.imwrite(tmp_path / "c.tif", volume, **grey)
    for name, white in (("a.ome.tif", 4095), ("b.tif", 4095), ("c.tif", 2047)):
        assert open_stack(tmp_path / name).levels.white == white / 65535
