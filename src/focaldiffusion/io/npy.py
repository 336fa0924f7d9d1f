"""Arrays in NumPy's format, from files and from members of a zip, checked before they are read."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.budget import check_values
from focaldiffusion.io.reading import reading

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
"""Version 3 differs in the names of structured arrays, which hold no map."""


def read_npy_file(path: Path) -> NDArray[Any]:
    """The array of real numbers in a .npy file; pickles are never read.

    Raises:
        InputError: missing, broken, without real numbers, or beyond the budget.
    """
    with reading(path, "cannot be read as a .npy file"):
        size, file = path.stat().st_size, path.open("rb")
    with file:
        return read_array(path, file, size)


def read_npz_file(path: Path, preferred: Sequence[str]) -> NDArray[Any]:
    """The only array of a .npz file, or the first preferred one of several.

    Raises:
        InputError: see `read_npy_file`; or several arrays without a preferred one.
    """
    with reading(path, "cannot be read as a .npz file"), zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        found = [f"{name}.npy" for name in preferred if f"{name}.npy" in names]
        if not found and len(names) != 1:
            known = ", ".join(name.removesuffix(".npy") for name in names) or "nothing"
            raise InputError(
                f"{path}: holds {known}; expected one array, or one named {' or '.join(preferred)}."
            )
        return read_member(path, archive, found[0] if found else names[0])


def read_member(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """The array of real numbers in one member of a zip.

    Args:
        path: of the zip, for messages.
        archive: the open zip.
        name: of the member.

    Raises:
        InputError: see `read_npy_file`.
    """
    with reading(path, "cannot be read as a zip of .npy files"):
        size, file = archive.getinfo(name).file_size, archive.open(name)
    with file:
        return read_array(path, file, size, name)


def read_array(path: Path, file: IO[bytes], size: int, what: str = "") -> NDArray[Any]:
    """The array of real numbers in an open file in NumPy's format.

    Args:
        path: for messages.
        file: open and seekable.
        size: bytes that it holds.
        what: its name inside `path`, for messages.

    Raises:
        InputError: see `read_npy_file`.
    """
    fault = f"cannot be read as a {'zip of .npy files' if what else '.npy file'}"
    with reading(path, fault):
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version}")
        shape, _, dtype = _HEADERS[version](file)
        if dtype.hasobject:
            raise ValueError(f"{what or 'it'} holds Python objects, which are never read")
    if dtype.kind not in "fiu":
        place = f"{path}: {what}{': ' if what else ''}"
        raise InputError(f"{place}{dtype} of shape {shape}; expected real numbers.")
    check_values(path, shape, what)
    with reading(path, fault):
        if np.prod(shape, dtype=object) * dtype.itemsize > size:
            raise ValueError(f"{dtype} of shape {shape} in {size} bytes: it is cut off")
        file.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError("more bytes than its header declares")
    return array
