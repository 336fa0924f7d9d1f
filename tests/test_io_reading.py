"""Shared by all readers: errors of libraries as sentences, and the budget of declared sizes."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.sets.matlab import read_matrix
from focaldiffusion.errors import InputError
from focaldiffusion.io.budget import LARGEST_MEGAPIXELS, check_pixels, check_values
from focaldiffusion.io.depth_files import read_values
from focaldiffusion.io.reading import parsed_json, reading

BOMB = (60_000, 60_000)


def test_any_exception_of_a_library_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for error in (TypeError(), AssertionError("odd"), ZeroDivisionError("by\nzero"), KeyError("x")):
        sentence = r"a\.tif: cannot be read \(.+\)\. Export it\.$"
        with (
            pytest.raises(InputError, match=sentence),
            reading(path, "cannot be read", "Export it."),
        ):
            raise error
    with pytest.raises(InputError) as caught, reading(path, "is damaged"):
        raise ValueError(f"{path}: \x1b[31mred" + 500 * "x")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    with pytest.raises(MemoryError), reading(path, "is damaged"):
        raise MemoryError


@pytest.mark.parametrize("text", ['{"a": NaN}', '["\\ud800"]', "1" * 5000, "[" * 100_000, "{"])
def test_json_that_cannot_be_written_again_is_refused(text: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parsed_json(text)


def test_the_budget_passes_real_sizes(tmp_path: Path) -> None:
    path = tmp_path / "frame.tif"
    path.write_bytes(bytes(4_000_000))
    check_pixels(path, 11_656, 17_484)  # 204 megapixels, 50 to a byte
    check_values(path, (10, 383, 552, 3))
    for height, width in ((0, 5), (5, -1), (LARGEST_MEGAPIXELS * 1000, 1001)):
        with pytest.raises(InputError, match=r"frame\.tif: page 2: declares"):
            check_pixels(path, height, width, "page 2")
    path.write_bytes(bytes(500_000))
    with pytest.raises(InputError, match="in 500000 bytes; no photograph"):
        check_pixels(path, 13_300, 13_300)
    with pytest.raises(InputError, match="declares 0 x 4 numbers"):
        check_values(path, (0, 4))


def npy(path: Path) -> None:
    np.lib.format.write_array_header_1_0(
        path.open("wb"), {"descr": "<f4", "fortran_order": False, "shape": BOMB}
    )


def npz(path: Path) -> None:
    npy(path.with_suffix(".npy"))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path.with_suffix(".npy"), "depth.npy")


def png(path: Path) -> None:
    Image.new("L", (4, 4)).save(path)
    content = path.read_bytes()
    size = BOMB[0].to_bytes(4, "big") + BOMB[1].to_bytes(4, "big")
    path.write_bytes(content[:16] + size + content[24:])


def pfm(path: Path) -> None:
    path.write_bytes(b"Pf\n60000 60000\n-1.0\n" + bytes(64))


def tif(path: Path) -> None:
    tifffile.imwrite(path, np.ones((4, 4), np.float32))
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        for tag in ("ImageLength", "ImageWidth", "RowsPerStrip"):
            tiff.pages[0].tags[tag].overwrite(BOMB[0])


def h5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("depth", BOMB, "f4", chunks=(16, 16))


@pytest.mark.parametrize("write", [npy, npz, png, pfm, tif, h5])
def test_declared_sizes_are_checked_before_decoding(write, tmp_path: Path) -> None:
    path = tmp_path / f"a.{write.__name__}"
    write(path)
    with pytest.raises(InputError, match=r"declares 60000 ?x ?60000"):
        read_values(path)


def test_missing_pixels_are_refused(tmp_path: Path) -> None:
    ramp = np.arange(1, 97, dtype=np.float32).reshape(8, 12)
    for name, options in (("plain", {}), ("packed", {"compression": "zlib"})):
        path = tmp_path / f"{name}.tif"
        tifffile.imwrite(path, ramp, rowsperstrip=4, **options)
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            counts = tiff.pages[0].databytecounts
            if len(counts) > 1:
                tiff.pages[0].tags["StripByteCounts"].overwrite((counts[0], 0))
        if len(counts) > 1:
            with pytest.raises(InputError, match="pixels are missing"):
                read_values(path)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("depth", ramp.shape, "f4", chunks=(4, 4))[:4] = ramp[:4]
    with pytest.raises(InputError, match="parts of depth are missing"):
        read_values(tmp_path / "a.h5")
    Image.fromarray((ramp * 500).astype(np.uint16)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    for length in range(33, len(whole) - 12, 7):
        (tmp_path / "a.png").write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"a\.png: cannot be read as an image"):
            read_values(tmp_path / "a.png")


def test_depth_that_overflows_its_scale_is_unknown(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1e38, 1.0, -1.0, 0.0, np.inf, np.nan]]))
    depth_m = DepthFormat(scale_m=100.0).read(tmp_path / "a.npy")
    assert depth_m.isnan().tolist() == [[True, False, True, True, True, True]]


@pytest.mark.parametrize("packed", [False, True])
def test_matlab_arrays_are_read_as_scipy_writes_them(packed: bool, tmp_path: Path) -> None:
    path = tmp_path / "splits.mat"
    arrays = {
        "trainNdxs": np.array([[3.0], [1.0]]),
        "b": np.arange(6, dtype=np.uint16).reshape(2, 3),
        "text": "no numbers",
        "z": np.array([[1j]]),
    }
    savemat(path, arrays, do_compression=packed)
    for name in ("trainNdxs", "b"):
        assert np.array_equal(read_matrix(path, name, "broken", "Get it."), arrays[name])
    for name in ("text", "z", "absent"):
        with pytest.raises(InputError, match=r"splits\.mat: broken \(.*\)\. Get it\."):
            read_matrix(path, name, "broken", "Get it.")
    content = path.read_bytes()
    for length in range(0, len(content), 5):
        path.write_bytes(content[:length])
        with pytest.raises(InputError):
            read_matrix(path, "z", "broken", "Get it.")


def test_json_of_a_thousand_brackets_in_a_list_is_one_sentence(tmp_path: Path) -> None:
    from focaldiffusion.data.lists.formats import read_list

    path = tmp_path / "a.jsonl"
    for text in ("[" * 100_000, json.dumps({"depth": "d"})[:-1] + ', "num_images": ' + "1" * 5000):
        path.write_text(text + "}")
        with pytest.raises(InputError, match=r"a\.jsonl:1: not JSON"):
            read_list(path)
