"""Focus distances in maker notes whose layout is published and simple.

Layouts as ExifTool documents them (exiftool.org/TagNames: Apple, Canon FileInfo, Olympus
FocusInfo). Sony, Panasonic and Fujifilm record nothing that can be trusted and are not read.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Literal

from focaldiffusion.io.ifd import Buffer, Entry, byte_order, read_ifd
from focaldiffusion.optics import lens_distance_m

_INFINITY_M = 10_000.0
"""From here on (0.0001 dpt) a distance is a code of infinity: Nikon's 18836 m, Adobe's 2^32."""
_NEAREST_M = 1e-3
"""Nothing focuses nearer, from the lens or from the sensor; smaller numbers are broken."""


@dataclass(frozen=True)
class FocusReading:
    """A focus distance as a camera recorded it: an interval, since no camera is exact.

    Attributes:
        near_m: near end [m], > 0; equal to `far_m` when the camera gives one number.
        far_m: far end [m], infinity allowed.
        reference: where the camera counts from.
        tag: the tag, or tags, that it comes from.
    """

    near_m: float
    far_m: float
    reference: Literal["lens", "sensor"]
    tag: str

    def from_lens(self, focal_length_m: float | None) -> tuple[float, float]:
        """The distance counted from the lens, and how uncertain it is.

        The middle of the interval is taken in dioptres, where blur is linear: the mean of 1 m and
        infinity is 2 m.

        Args:
            focal_length_m: needed when the camera counts from the sensor plane.

        Returns:
            Focus distance [m] and the half-width of its interval [dpt].

        Raises:
            InputError: nearer than a lens of that focal length can focus.
            ValueError: counted from the sensor, and the focal length is None.
        """
        near_m, far_m = self.near_m, self.far_m
        if self.reference == "sensor":
            if focal_length_m is None:
                raise ValueError("a distance from the sensor plane needs the focal length")
            near_m = lens_distance_m(near_m, focal_length_m)
            far_m = lens_distance_m(far_m, focal_length_m)
        middle_dpt = (1 / near_m + 1 / far_m) / 2
        return (1 / middle_dpt if middle_dpt else math.inf), (1 / near_m - 1 / far_m) / 2


def interval(
    first_m: float, second_m: float, reference: Literal["lens", "sensor"], tag: str
) -> FocusReading | None:
    """A reading from two ends [m] in any order; None when a camera cannot have one of them."""
    if not (first_m >= _NEAREST_M and second_m >= _NEAREST_M):
        return None
    near_m, far_m = (
        end_m if end_m < _INFINITY_M else math.inf for end_m in sorted((first_m, second_m))
    )
    return FocusReading(near_m, far_m, reference, tag)


def read_maker_focus(tiff: Buffer, note: Entry, make: str) -> FocusReading | None:
    """The focus distance in a maker note.

    Args:
        tiff: the EXIF block from its TIFF header on, or a RAW file built like TIFF.
        note: the entry of the maker note, tag 0x927C, in it.
        make: camera maker, tag 0x010F.

    Returns:
        None if the note has no focus distance in a known layout.

    Raises:
        ValueError, struct.error, LookupError: the note is broken.
    """
    if note.data.startswith(b"Apple iOS\0"):
        # Header: name, version, byte order (14 bytes); offsets count from the note's start.
        return _apple(read_ifd(note.data, 14, byte_order(note.data[12:14])))
    if note.data.startswith(b"OLYMPUS\0"):
        return _olympus(note.data, header_bytes=12)
    if note.data.startswith(b"OM SYSTEM\0"):
        return _olympus(note.data, header_bytes=16)
    if make.startswith("Canon"):
        # No header; offsets count from the TIFF header of the whole block.
        return _canon(read_ifd(tiff, note.position, byte_order(tiff[:2])))
    return None


def _apple(note: dict[int, Entry]) -> FocusReading | None:
    """FocusDistanceRange, 0x000c: two signed rationals [m], in any order."""
    entry = note.get(0x000C)
    ends = entry.rationals() if entry is not None else ()
    if len(ends) != 2 or ends[0][1] == 0 or ends[1][1] == 0:
        return None
    first_m, second_m = (numerator / denominator for numerator, denominator in ends)
    return interval(first_m, second_m, "lens", "Apple FocusDistanceRange")


def _canon(note: dict[int, Entry]) -> FocusReading | None:
    """FileInfo, 0x0093: words 20 and 21 are the far and near end [cm], 0xffff is infinity.

    The EOS 400D swaps them, so their order does not count.
    """
    entry = note.get(0x0093)
    if entry is None or len(entry.data) < 44:
        return None
    ends_cm = struct.unpack_from(f"{entry.order}2H", entry.data, 40)
    first_m, second_m = (math.inf if end == 0xFFFF else end / 100 for end in ends_cm)
    return interval(first_m, second_m, "sensor", "Canon FocusDistanceUpper and FocusDistanceLower")


def _olympus(note: bytes, header_bytes: int) -> FocusReading | None:
    """FocusInfo, 0x2050, FocusDistance, 0x0305: the numerator is mm, the denominator noise."""
    order = byte_order(note[header_bytes - 4 : header_bytes - 2])
    focus_info = read_ifd(note, header_bytes, order).get(0x2050)
    if focus_info is None or focus_info.type not in (4, 13):
        return None
    entry = read_ifd(note, focus_info.numbers()[0], order).get(0x0305)
    if entry is None or len(entry.data) < 4:
        return None
    (millimetres,) = struct.unpack_from(f"{order}I", entry.data)
    distance_m = math.inf if millimetres == 0xFFFFFFFF else millimetres / 1000
    return interval(distance_m, distance_m, "lens", "Olympus FocusDistance")
