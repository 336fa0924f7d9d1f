from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from focaldiffusion.app.reduced import Kept, ReducedFrames, reduced_stack
from focaldiffusion.io.stacks import OpenedStack, open_stack


@pytest.fixture
def opened(stack: Path) -> OpenedStack:
    return open_stack(stack)


def kept_in(folder: Path, opened: OpenedStack) -> Kept:
    return Kept(folder, opened.files, ["a", "b", "c"])


def test_the_camera_follows_the_reduction(opened: OpenedStack) -> None:
    small = reduced_stack(opened, 48)
    assert small.frames.size == (32, 48)
    native, reduced = opened.camera_for(0), small.camera_for(0)
    assert native is not None
    assert reduced is not None
    assert reduced.focal_length_px == pytest.approx(native.resized((32, 48)).focal_length_px)
    assert reduced.aperture_diameter_m == native.aperture_diameter_m


def test_each_frame_is_decoded_once_even_by_another_process(
    opened: OpenedStack, tmp_path: Path
) -> None:
    kept, seen = kept_in(tmp_path / "small", opened), []
    first = ReducedFrames(opened.frames, 48, kept, lambda index, pixels: seen.append(index))
    pixels = [first.pixels(index) for index in (0, 1, 2, 1, 0)]
    assert seen == [0, 1, 2]
    for path in opened.files:  # another content, but not newer
        time = path.stat().st_mtime
        path.write_bytes(b"")
        os.utime(path, (time, time))
    again = ReducedFrames(opened.frames, 48, kept)
    assert np.array_equal(again.pixels(1), pixels[1])
    assert np.array_equal(again.read(2), pixels[2] / np.float32(255))


@pytest.mark.parametrize("fault", ["newer", "cut short", "another size"])
def test_what_is_kept_is_not_taken_on_trust(
    opened: OpenedStack, tmp_path: Path, fault: str
) -> None:
    kept = kept_in(tmp_path, opened)
    kept.save(0, np.zeros((32, 48, 3), np.uint8))
    assert not ReducedFrames(opened.frames, 48, kept).pixels(0).any()
    if fault == "newer":
        os.utime(opened.files[0])
        os.utime(tmp_path / "a.npy", (0, 0))
    elif fault == "cut short":
        (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:200])
    size = 24 if fault == "another size" else 48
    expected = ReducedFrames(opened.frames, size).pixels(0)
    assert np.array_equal(ReducedFrames(opened.frames, size, kept).pixels(0), expected)
