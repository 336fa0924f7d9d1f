"""Depth files: float32 .npy with NaN for unknown, 16-bit millimetre PNG with 0, and other kinds."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from focaldiffusion.errors import InputError, check_shape
from focaldiffusion.files import check_file
from focaldiffusion.io.budget import check_pixels, check_values
from focaldiffusion.io.hdf5 import open_hdf5
from focaldiffusion.io.npy import read_npy_file, read_npz_file
from focaldiffusion.io.png import PNG_SIGNATURE, save_png
from focaldiffusion.io.reading import reading
from focaldiffusion.io.tiff_pages import check_page

_MAX_DEPTH_MM = 65535
_MIN_SPAN_M = 0.05
_MIN_DEPTH_M = 1.0
_PFM_HEADER = re.compile(rb"P([fF])\s+(\d{1,9})\s+(\d{1,9})\s+\S+\s")


def write_npy(path: Path, values: NDArray[np.float32]) -> None:
    """Write depth, height or relative depth as float32.

    Args:
        path: the file to make.
        values: (H, W), NaN where unknown.

    Raises:
        OSError: the file cannot be written.
    """
    check_shape("values", values, ("H", "W"))
    with path.open("wb") as file:
        np.save(file, np.asarray(values, np.float32), allow_pickle=False)


def write_exr(path: Path, values: NDArray[np.float32]) -> None:
    """Write depth, height or relative depth as the channel Z of an OpenEXR file, float32.

    Args:
        path: the file to make.
        values: (H, W), NaN where unknown.

    Raises:
        InputError: OpenEXR is not installed.
        OSError: the file cannot be written.
    """
    header = {"compression": _openexr(path).ZIP_COMPRESSION, "type": _openexr(path).scanlineimage}
    channels = {"Z": np.ascontiguousarray(values, np.float32)}
    with _openexr(path).File(header, channels) as file:
        try:
            str(path).encode()
        except UnicodeEncodeError:  # OpenEXR opens UTF-8 names alone
            memory = io.BytesIO()
            file.write(memory)
            path.write_bytes(memory.getvalue())
        else:
            try:
                file.write(str(path))
            except RuntimeError as error:  # such as a full disk
                raise OSError(str(error)) from error


def read_npy(path: Path) -> Tensor:
    """Read a file of `write_npy`.

    Returns:
        (H, W) float32, NaN where unknown.

    Raises:
        InputError: no such file, or not a two-dimensional array of real numbers.
    """
    values = None if zipfile.is_zipfile(path) else read_npy_file(path)
    if values is None or values.ndim != 2:
        got = "npz" if values is None else f"{values.dtype} of shape {values.shape}"
        raise InputError(f"{path}: {got}; expected one float array of shape (height, width).")
    return _float32(values)


def looks_like_millimetres(depth_m: Tensor) -> bool:
    """Whether a depth in metres must be in millimetres: half of it is beyond 100."""
    return float(depth_m[depth_m.isfinite()].median().nan_to_num()) > 100


def why_not_millimetres(depth_m: NDArray[np.float32]) -> str | None:
    """The reason why a depth map does not suit 16-bit millimetres, or None when it does.

    They hold 1 mm to 65.535 m in steps of 1 mm. A scene that is both nearer than 1 m (median) and
    shallower than 50 steps (1 % to 99 % quantile), such as macro, would come out as terraces.

    Args:
        depth_m: (H, W) metres, NaN where unknown.
    """
    nearest = float(np.fmin.reduce(depth_m, axis=None))
    farthest = float(np.fmax.reduce(depth_m, axis=None))
    if math.isnan(nearest):
        return None
    # Halves round to even: to 65536 here, to 0 below.
    if farthest * 1000 >= _MAX_DEPTH_MM + 0.5:
        return (
            f"the depth reaches {farthest:.4g} m, and 16-bit millimetres end at "
            f"{_MAX_DEPTH_MM / 1000} m"
        )
    if nearest * 1000 <= 0.5:
        return f"the depth comes as near as {nearest * 1000:.2g} mm, which rounds to 0, unknown"
    sample = depth_m.ravel()[:: max(1, depth_m.size // 1_000_000)].astype(np.float64)
    low, middle, high = np.nanquantile(sample, [0.01, 0.5, 0.99])
    if middle < _MIN_DEPTH_M and high - low < _MIN_SPAN_M:
        return (
            f"the depth spans {(high - low) * 1000:.3g} mm (1 % to 99 %), too little for steps "
            "of 1 mm"
        )
    return None


def write_depth_mm(path: Path, depth_m: NDArray[np.float32]) -> None:
    """Write metric depth as a 16-bit grey PNG in millimetres, 0 where unknown.

    Args:
        path: the file to make.
        depth_m: (H, W) metres, > 0, NaN where unknown.

    Raises:
        InputError: the range does not fit, see `why_not_millimetres`; nothing is written.
        OSError: the file cannot be written.
    """
    check_shape("depth_m", depth_m, ("H", "W"))
    if reason := why_not_millimetres(depth_m):
        raise InputError(f"{path}: not written: {reason}. Use the float32 .npy file.")
    millimetres = np.empty(depth_m.shape, np.uint16)
    for row, metres in zip(millimetres, depth_m, strict=True):
        row[:] = np.nan_to_num(np.round(metres * np.float64(1000)))
    save_png(path, millimetres)


def read_depth_mm(path: Path) -> Tensor:
    """Read a 16-bit millimetre PNG.

    Returns:
        (H, W) float32 metres, NaN where the file has 0.

    Raises:
        InputError: no such file, or not a 16-bit single-channel image.
    """
    check_file(path)
    with reading(path, "cannot be read as an image"), Image.open(path) as image:
        mode = image.mode
    if not mode.startswith("I;16"):
        raise InputError(
            f"{path}: a Pillow {mode} image; expected 16-bit grey millimetres. "
            "An 8-bit or coloured depth picture holds no metres."
        )
    millimetres = _from_png(path)
    depth_m = torch.from_numpy(millimetres.astype(np.float32) / 1000)
    return depth_m.masked_fill(depth_m == 0, torch.nan)


def read_values(path: Path, dataset: str | None = None) -> Tensor:
    """Read a map of numbers without assuming a unit or an invalid value.

    Reads .npy, .npz (its only array, or one called depth), 8- and 16-bit grey .png, .pfm, .tif,
    .exr (its first channel) and .hdf5 or .h5.

    Args:
        path: the file.
        dataset: name of the array in an HDF5 file; the only one when not given.

    Returns:
        (H, W) float32.

    Raises:
        InputError: no such file, another kind of file, or more than one channel of real numbers.
    """
    readers: dict[str, Callable[[], NDArray[Any]]] = {
        ".npy": lambda: read_npy_file(path),
        ".npz": lambda: read_npz_file(path, preferred=["depth"]),
        ".png": lambda: _from_png(path),
        ".pfm": lambda: _from_pfm(path),
        ".tif": lambda: _from_tiff(path),
        ".tiff": lambda: _from_tiff(path),
        ".exr": lambda: _from_exr(path),
        ".hdf5": lambda: _from_hdf5(path, dataset),
        ".h5": lambda: _from_hdf5(path, dataset),
    }
    suffix = path.suffix.lower()
    if suffix not in readers:
        raise InputError(
            f"{path}: {suffix or 'no suffix'}; expected depth as one of {', '.join(readers)}."
        )
    check_file(path)
    values = readers[suffix]()
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {values.dtype} of shape {values.shape}; expected one channel of numbers, "
            "(height, width)."
        )
    return _float32(values)


def _float32(values: NDArray[Any]) -> Tensor:
    """Numbers as float32; those beyond its range become infinite."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(values.astype(np.float32))


def _from_png(path: Path) -> NDArray[Any]:
    import imagecodecs

    with reading(path, "cannot be read as an image"):
        content = path.read_bytes()
        if content[:8] != PNG_SIGNATURE or content[12:16] != b"IHDR":
            raise ValueError("another kind of file")
        width, height = struct.unpack(">II", content[16:24])
    check_pixels(path, height, width)
    with reading(path, "cannot be read as an image"):
        # Unlike Pillow and OpenCV it refuses data that end early.
        values: NDArray[Any] = imagecodecs.png_decode(content)
    return values


def _from_pfm(path: Path) -> NDArray[Any]:
    import cv2

    with reading(path, "cannot be read as a PFM image"):
        content = path.read_bytes()
        header = _PFM_HEADER.match(content)
        if header is None:
            raise ValueError("another kind of file")
        width, height = int(header[2]), int(header[3])
        channels = 3 if header[1] == b"F" else 1
    check_pixels(path, height, width)
    with reading(path, "cannot be read as a PFM image"):
        if len(content) - header.end() < 4 * height * width * channels:
            raise ValueError("it is cut off")
        # Decoded from memory: OpenCV opens no paths beyond the system's code page on Windows.
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None:
            raise ValueError("another kind of file")
    return np.asarray(values)


def _from_tiff(path: Path) -> NDArray[Any]:
    with reading(path, "cannot be read as a TIFF image"), tifffile.TiffFile(path) as tif:
        series = tif.series[0]
        pages, shape = list(series.pages), tuple(int(length) for length in series.shape)
        if len(pages) != 1:
            raise InputError(f"{path}: {len(pages)} pages; expected one, (height, width).")
        page = pages[0]
        check_values(path, shape)
        # tifffile fills strips that are not there with zeros.
        if 0 in page.databytecounts or len(page.databytecounts) < math.prod(page.chunked):
            raise ValueError("some of its pixels are missing")
        check_page(path, page)
        return np.asarray(series.asarray())


def _openexr(path: Path) -> Any:
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            f"{path}: OpenEXR is not installed; pip install 'focaldiffusion[exr]'."
        ) from error
    return OpenEXR


def _from_exr(path: Path) -> NDArray[Any]:
    library = _openexr(path)
    fault = "cannot be read as an OpenEXR image"
    with reading(path, fault), library.File(str(path), header_only=True) as file:
        low, high = file.header()["dataWindow"]
        width, height = (int(b) - int(a) + 1 for a, b in zip(low, high, strict=True))
    check_pixels(path, height, width)
    with reading(path, fault), library.File(str(path), separate_channels=True) as file:
        channels = file.channels()
        first = next(name for name in ("Z", "Y", "R", *channels) if name in channels)
        return np.asarray(channels[first].pixels)


def _from_hdf5(path: Path, dataset: str | None) -> NDArray[Any]:
    with open_hdf5(path, "Copy or export it again.") as file:
        if dataset is None:
            names = file.arrays()
            if len(names) != 1:
                raise InputError(
                    f"{path}: holds {', '.join(names) or 'no array'}; name one of them."
                )
            dataset = names[0]
        return file.read(dataset)
