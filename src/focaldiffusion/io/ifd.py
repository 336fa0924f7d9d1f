"""Image file directories of TIFF 6.0, which EXIF and most maker notes consist of."""

from __future__ import annotations

import struct
from mmap import mmap
from typing import Any, Literal, NamedTuple

_ByteOrder = Literal["<", ">"]
Buffer = bytes | mmap
"""A block of EXIF in memory, or a file mapped into it."""

_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_NUMBER_CODES = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}


class Entry(NamedTuple):
    """One entry of a directory.

    Attributes:
        type: TIFF type number, such as 3 for uint16.
        length: number of values.
        position: byte offset of `data` in the buffer.
        data: the values, undecoded.
        order: byte order of `data`.
    """

    type: int
    length: int
    position: int
    data: bytes
    order: _ByteOrder

    def numbers(self) -> tuple[Any, ...]:
        """The values of an integer or float type; empty for other types."""
        code = _NUMBER_CODES.get(self.type)
        return struct.unpack(f"{self.order}{self.length}{code}", self.data) if code else ()

    def rationals(self) -> tuple[tuple[int, int], ...]:
        """Numerators and denominators of a rational type; empty for other types."""
        code = {5: "I", 10: "i"}.get(self.type)
        if code is None:
            return ()
        flat = struct.unpack(f"{self.order}{2 * self.length}{code}", self.data)
        return tuple(zip(flat[::2], flat[1::2], strict=True))

    def text(self) -> str:
        """The text of an ASCII type, without what pads it; empty for other types."""
        return self.data.decode("utf-8", "replace").strip("\0 ") if self.type == 2 else ""


def byte_order(mark: bytes) -> _ByteOrder:
    """The byte order that `II` or `MM` announces.

    Raises:
        ValueError: any other mark.
    """
    if mark not in (b"II", b"MM"):
        raise ValueError(f"byte order {mark!r}; expected II or MM")
    return "<" if mark == b"II" else ">"


def read_ifd(buffer: Buffer, offset: int, order: _ByteOrder, base: int = 0) -> dict[int, Entry]:
    """The entries of the directory at `offset`, by tag; broken entries are left out.

    Args:
        buffer: the bytes that hold the directory.
        offset: of its first byte, in `buffer`.
        order: its byte order.
        base: where in `buffer` the offsets inside the directory count from.

    Raises:
        ValueError: the directory lies outside the buffer.
    """
    if not 0 <= offset <= len(buffer) - 2:
        raise ValueError(f"directory at byte {offset} of {len(buffer)}")
    (entry_count,) = struct.unpack_from(f"{order}H", buffer, offset)
    if offset + 2 + 12 * entry_count > len(buffer):
        raise ValueError(f"directory of {entry_count} entries at byte {offset} of {len(buffer)}")
    entries = {}
    for index in range(entry_count):
        start = offset + 2 + 12 * index
        tag, kind, count = struct.unpack_from(f"{order}HHI", buffer, start)
        size = _TYPE_BYTES.get(kind, 0) * count
        position = start + 8
        if size > 4:
            position = base + struct.unpack_from(f"{order}I", buffer, position)[0]
        data = buffer[position : position + size]
        if size and len(data) == size:
            entries[tag] = Entry(kind, count, position, data, order)
    return entries


def first_ifd(tiff: Buffer) -> dict[int, Entry]:
    """The first directory of a TIFF structure, such as an EXIF block without its prefix.

    Raises:
        ValueError: not a TIFF structure.
    """
    order = byte_order(tiff[:2])
    if len(tiff) < 8:
        raise ValueError("shorter than a TIFF header")
    return read_ifd(tiff, struct.unpack_from(f"{order}I", tiff, 4)[0], order)
