"""Depth files: float32 .npy with NaN for unknown, 16-bit millimetre PNG with 0, and other kinds."""

from __future__ import annotations

import io
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
from focaldiffusion.io.decoding import DECODER_ERRORS
from focaldiffusion.io.images import save_png

_MAX_DEPTH_MM = 65535
_MIN_SPAN_M = 0.05
_MIN_DEPTH_M = 1.0


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
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a .npy file ({error}).") from error
    if not (isinstance(values, np.ndarray) and values.ndim == 2 and values.dtype.kind in "fiu"):
        got = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else "npz"
        raise InputError(f"{path}: {got}; expected one float array of shape (height, width).")
    return torch.from_numpy(values.astype(np.float32))


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
    known = depth_m[~np.isnan(depth_m)].astype(np.float64)
    if known.size == 0:
        return None
    nearest, farthest = float(known.min()), float(known.max())
    # Halves round to even: to 65536 here, to 0 below.
    if farthest * 1000 >= _MAX_DEPTH_MM + 0.5:
        return (
            f"the depth reaches {farthest:.4g} m, and 16-bit millimetres end at "
            f"{_MAX_DEPTH_MM / 1000} m"
        )
    if nearest * 1000 <= 0.5:
        return f"the depth comes as near as {nearest * 1000:.2g} mm, which rounds to 0, unknown"
    sample = known[:: max(1, known.size // 1_000_000)]
    low, middle, high = np.quantile(sample, [0.01, 0.5, 0.99])
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
    millimetres = np.nan_to_num(np.round(depth_m.astype(np.float64) * 1000), nan=0.0)
    save_png(path, millimetres.astype(np.uint16))


def read_depth_mm(path: Path) -> Tensor:
    """Read a 16-bit millimetre PNG.

    Returns:
        (H, W) float32 metres, NaN where the file has 0.

    Raises:
        InputError: no such file, or not a 16-bit single-channel image.
    """
    check_file(path)
    try:
        with Image.open(path) as image:
            mode, millimetres = image.mode, np.asarray(image)
    except OSError as error:
        raise InputError(f"{path}: cannot be read as an image ({error}).") from error
    if not mode.startswith("I;16"):
        raise InputError(
            f"{path}: a Pillow {mode} image; expected 16-bit grey millimetres. "
            "An 8-bit or coloured depth picture holds no metres."
        )
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
    readers: dict[str, Callable[[], Any]] = {
        ".npy": lambda: _from_npy(path),
        ".npz": lambda: _from_npz(path),
        ".png": lambda: _from_opencv(path),
        ".pfm": lambda: _from_opencv(path),
        ".tif": lambda: tifffile.imread(path),
        ".tiff": lambda: tifffile.imread(path),
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
    try:
        values = np.asarray(readers[suffix]())
    except (*DECODER_ERRORS, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path}: cannot be read as {suffix} ({error}). Copy or export it again."
        ) from error
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {values.dtype} of shape {values.shape}; expected one channel of numbers, "
            "(height, width)."
        )
    return torch.from_numpy(values.astype(np.float32))


def _from_npy(path: Path) -> Any:
    # `np.load` takes other files for pickles, and its message advises trusting them.
    with path.open("rb") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def _from_npz(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise ValueError("not a zip of arrays, or cut off")
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays) != 1 and "depth" not in arrays:
            raise ValueError(f"holds {', '.join(arrays)}; expected one array, or one named depth")
        return arrays["depth"] if "depth" in arrays else arrays[next(iter(arrays))]


def _from_opencv(path: Path) -> Any:
    import cv2

    # Decoded from memory: OpenCV opens no paths beyond the system's code page on Windows.
    values = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None:
        raise ValueError("not an image")
    return values


def _openexr(path: Path) -> Any:
    try:
        import OpenEXR
    except ImportError as error:
        raise InputError(
            f"{path}: OpenEXR is not installed; pip install 'focaldiffusion[exr]'."
        ) from error
    return OpenEXR


def _from_exr(path: Path) -> Any:
    with _openexr(path).File(str(path), separate_channels=True) as file:
        channels = file.channels()
        first = next(name for name in ("Z", "Y", "R", *channels) if name in channels)
        return channels[first].pixels


def _from_hdf5(path: Path, dataset: str | None) -> Any:
    import h5py

    with h5py.File(path, "r") as file:
        names = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
        if dataset is None and len(names) != 1:
            raise ValueError(f"holds {', '.join(names) or 'no array'}; name one of them")
        return file[dataset or names[0]][()]
