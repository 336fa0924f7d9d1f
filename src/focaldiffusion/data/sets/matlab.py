"""Numeric arrays of MATLAB 5 files, after "MAT-File Format" of MathWorks, R2019b.

`scipy.io.loadmat` can crash the interpreter on a broken file.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.io.budget import check_values
from focaldiffusion.io.reading import reading

_HEADER_BYTES = 128
_COMPRESSED, _MATRIX = 15, 14
_NUMBERS = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_NUMERIC_CLASSES = range(6, 16)  # double to uint64
_MOST_BYTES = 2**26
"""Longest file, and content of a compressed array."""


def read_matrix(path: Path, name: str, fault: str, remedy: str) -> NDArray[np.generic]:
    """A real numeric array of a MATLAB 5 file.

    Args:
        path: the file.
        name: of the array.
        fault: see `reading`.
        remedy: a sentence that ends error messages.

    Returns:
        The array in its shape, of the type in which the file stores it.

    Raises:
        InputError: missing, broken, or without a numeric array of this name.
    """
    with reading(path, fault, remedy):
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        if len(data) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES} bytes")
        if data[126:128] not in (b"IM", b"MI"):
            raise ValueError("another kind of file")
        order = "<" if data[126:128] == b"IM" else ">"
        for kind, content in _elements(data[_HEADER_BYTES:], order):
            if kind == _COMPRESSED:
                inside = zlib.decompressobj()
                content = inside.decompress(content, _MOST_BYTES)
                if not inside.eof:
                    raise ValueError("an array is cut off")
                kind, content = next(_elements(content, order))
            if kind == _MATRIX:
                parts = list(_elements(content, order))
                if len(parts) > 3 and parts[2][1] == name.encode("ascii"):
                    return _matrix(path, name, parts, order)
        raise ValueError(f"holds no array {name}")


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of each data element."""
    at = 0
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # a small element: four bytes at most, inside the tag
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(data):
            raise ValueError("it is cut off")
        yield kind, data[start : start + size]
        at = start + size if kind == _COMPRESSED else start + size + -(start + size) % 8


def _matrix(
    path: Path, name: str, parts: list[tuple[int, bytes]], order: str
) -> NDArray[np.generic]:
    """The array of a matrix element: flags, dimensions, name and numbers."""
    (_, flags), (_, dimensions), _, (kind, numbers), *rest = parts
    if struct.unpack(f"{order}II", flags)[0] & 0xFF not in _NUMERIC_CLASSES or rest:
        raise ValueError(f"{name} is not an array of real numbers")
    shape = [int(length) for length in np.frombuffer(dimensions, f"{order}i4")]
    if min(shape, default=0) < 0:
        raise ValueError(f"{name} has the dimensions {shape}")
    check_values(path, shape, name)
    values = np.frombuffer(numbers, f"{order}{_NUMBERS[kind]}")
    return values.reshape(shape, order="F")
