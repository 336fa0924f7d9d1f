from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import (
    read_depth_mm,
    read_npy,
    read_values,
    why_not_millimetres,
    write_depth_mm,
    write_npy,
)

NAN = float("nan")


def test_npy_round_trip_is_exact(tmp_path: Path):
    values = np.array([[0.1, NAN, 3.3e-5], [float("inf"), -2.5, 1e4]], np.float32)
    write_npy(tmp_path / "depth.npy", values)

    assert np.array_equal(read_npy(tmp_path / "depth.npy"), values, equal_nan=True)
    stored = np.load(tmp_path / "depth.npy")
    assert stored.dtype == np.float32
    assert stored.shape == (2, 3)


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=12))
def test_whole_millimetres_survive_the_png(tmp_path_factory, millimetres):
    path = tmp_path_factory.mktemp("mm") / "depth_mm.png"
    # A far row, so that no list is refused as too shallow.
    rows = np.array([millimetres, [65535] * len(millimetres)])
    depth_m = np.where(rows == 0, np.nan, rows / 1000).astype(np.float32)
    write_depth_mm(path, depth_m)

    assert np.array_equal(np.asarray(Image.open(path)), rows)
    assert np.array_equal(read_depth_mm(path), depth_m, equal_nan=True)


def test_millimetres_round_to_the_nearest(tmp_path: Path):
    path = tmp_path / "depth_mm.png"
    write_depth_mm(path, np.array([[1.23449, 1.23451, NAN, 65.535]], np.float32))

    with Image.open(path) as image:
        assert image.mode == "I;16"
        assert np.asarray(image).tolist() == [[1234, 1235, 0, 65535]]


@pytest.mark.parametrize(
    ("depths_m", "reason"),
    [
        ([1.0, 102.4], "the depth reaches 102.4 m, and 16-bit millimetres end at 65.535 m"),
        ([1.0, 65.5356], "the depth reaches 65.54 m"),
        ([1.0, float("inf")], "the depth reaches inf m"),
        ([0.0004, 1.0], r"as near as 0.4 mm, which rounds to 0, unknown"),
        ([0.15, 0.16, NAN], r"spans 9.8 mm \(1 % to 99 %\), too little for steps of 1 mm"),
    ],
)
def test_refuses_what_millimetres_would_misstate(tmp_path: Path, depths_m, reason):
    path = tmp_path / "depth_mm.png"
    with pytest.raises(InputError, match=rf"depth_mm\.png: not written: .*{reason}.*\.npy"):
        write_depth_mm(path, np.array([depths_m], np.float32))
    assert not path.exists()


@pytest.mark.parametrize(
    "depths_m",
    [
        [NAN, NAN],
        [0.3, 0.9],  # a table top
        [2.0, 2.01],  # a flat wall: half a millimetre is nothing at 2 m
        [0.00051, 65.5354],  # round to 1 mm and to 65535 mm
    ],
)
def test_accepts_what_millimetres_hold(depths_m):
    assert why_not_millimetres(np.array([depths_m], np.float32)) is None


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.exr", "a.pfm", "a.h5"])
def test_a_text_is_no_depth(tmp_path: Path, name: str):
    if name.endswith(".exr"):
        pytest.importorskip("OpenEXR")
    (tmp_path / name).write_text("1 2 3")
    with pytest.raises(
        InputError, match=r"cannot be read as .*Copy or export it again\.$"
    ) as error:
        read_values(tmp_path / name)
    assert "pickle" not in str(error.value)


def test_reading_the_wrong_file_says_so(tmp_path: Path):
    Image.new("L", (4, 4)).save(tmp_path / "eight.png")
    np.save(tmp_path / "three.npy", np.zeros((2, 2, 3)))
    np.savez(tmp_path / "many.npz", depth=np.zeros((2, 2)))
    (tmp_path / "text.npy").write_text("no array")

    with pytest.raises(InputError, match=r"eight\.png: a Pillow L image; expected 16-bit grey"):
        read_depth_mm(tmp_path / "eight.png")
    with pytest.raises(InputError, match=r"text\.npy: cannot be read as an image"):
        read_depth_mm(tmp_path / "text.npy")
    with pytest.raises(InputError, match=r"absent\.npy: cannot be read as a \.npy file"):
        read_npy(tmp_path / "absent.npy")
    with pytest.raises(InputError, match=r"text\.npy: cannot be read as a \.npy file"):
        read_npy(tmp_path / "text.npy")
    with pytest.raises(InputError, match=r"float64 of shape \(2, 2, 3\); expected one float array"):
        read_npy(tmp_path / "three.npy")
    with pytest.raises(InputError, match=r"many\.npz: npz; expected one float array"):
        read_npy(tmp_path / "many.npz")


def test_reads_kinect_style_millimetres(shared_data: Path):
    depth_m = read_depth_mm(shared_data / "native/nyu/sync_depth_00100.png")

    known = depth_m[~depth_m.isnan()]
    # From the data's description: 0.71 to 6.45 m, 33 % unknown.
    assert known.min().item() == pytest.approx(0.71, abs=0.01)
    assert known.max().item() == pytest.approx(6.45, abs=0.01)
    assert depth_m.isnan().float().mean().item() == pytest.approx(0.33, abs=0.01)
