"""Drive and bracketing in maker notes: whether a camera took a photograph alone or in a series.

Tags as ExifTool documents them (exiftool.org/TagNames). Nikon's and Sony's newer cameras encrypt
theirs; Nikon's ShootingMode tells exposure brackets and bursts apart, not focus shift.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from focaldiffusion.io.ifd import Buffer, Entry, byte_order, read_ifd

DriveKind = Literal["single", "burst", "focus", "exposure", "other bracket", "some bracket"]
"""Some bracket: the camera does not write of what."""


@dataclass(frozen=True)
class Drive:
    """How a camera released a photograph.

    Attributes:
        kind: of its series.
        shot: number in the series, from 1; None if the camera does not count.
        tag: the tag that it comes from.
    """

    kind: DriveKind
    shot: int | None
    tag: str


def read_drive(tiff: Buffer, note: Entry, make: str) -> Drive | None:
    """The drive in a maker note.

    Args:
        tiff: the EXIF block from its TIFF header on, or a RAW file built like TIFF.
        note: the entry of the maker note, tag 0x927C, in it.
        make: camera maker, tag 0x010F.

    Returns:
        None if the note has none in a known layout.

    Raises:
        ValueError, struct.error, LookupError: the note is broken.
    """
    head = note.data[:12]
    if head.startswith(b"OLYMPUS\0"):
        return _olympus(note.data, header_bytes=12)
    if head.startswith(b"OM SYSTEM\0"):
        return _olympus(note.data, header_bytes=16)
    if head.startswith(b"FUJIFILM"):
        (start,) = struct.unpack_from("<I", note.data, 8)
        return _fujifilm(read_ifd(note.data, start, "<"))
    if head.startswith(b"Nikon\0"):
        inner = note.data[10:]  # a TIFF of its own
        (start,) = struct.unpack_from(f"{byte_order(inner[:2])}I", inner, 4)
        return _nikon(read_ifd(inner, start, byte_order(inner[:2])))
    order = byte_order(tiff[:2])
    if head == b"Panasonic\0\0\0":
        return _panasonic(read_ifd(tiff, note.position + 12, order))
    if head in (b"SONY DSC \0\0\0", b"SONY CAM \0\0\0"):
        return _sony(read_ifd(tiff, note.position + 12, order))
    if make.startswith("Canon"):
        return _canon(read_ifd(tiff, note.position, order))
    return None


def _first(note: dict[int, Entry], tag: int) -> int | None:
    """The first number of an entry."""
    numbers = note[tag].numbers() if tag in note else ()
    return int(numbers[0]) if numbers else None


def _words(entry: Entry | None, code: str) -> tuple[int, ...]:
    """The 16-bit words of an entry, whatever type it claims."""
    if entry is None:
        return ()
    count = len(entry.data) // 2
    return struct.unpack(f"{entry.order}{count}{code}", entry.data[: 2 * count])


def _canon(note: dict[int, Entry]) -> Drive | None:
    """CameraSettings, 0x0001, words 5 and 50; FileInfo, 0x0093, words 3 and 5."""
    settings, info = _words(note.get(0x0001), "h"), _words(note.get(0x0093), "h")
    mode, shot = (info[index] if len(info) > index else 0 for index in (3, 5))
    brackets: dict[int, DriveKind] = {1: "exposure", 2: "focus", 3: "other bracket"}
    if kind := brackets.get(mode, "other bracket" if mode == 4 else None):
        return Drive(kind, shot if shot > 0 else None, "Canon BracketMode")
    if len(settings) > 50 and settings[50] == 1:
        return Drive("focus", None, "Canon FocusBracketing")
    if len(settings) > 5:
        kind = "single" if settings[5] in (0, 2, 11) else "burst"  # 2 and 11 wait first
        return Drive(kind, None, "Canon ContinuousDrive")
    return None


def _nikon(note: dict[int, Entry]) -> Drive | None:
    """ShootingMode, 0x0089: bits 0 burst, 4 bracketing, 6 of white balance, 8 of D-Lighting."""
    mode = _first(note, 0x0089)
    if mode is None:
        return None
    kind: DriveKind = "burst" if mode & 1 else "single"
    if mode & 1 << 4:
        kind = "other bracket" if mode & (1 << 6 | 1 << 8) else "exposure"
    return Drive(kind, None, "Nikon ShootingMode")


def _olympus(note: bytes, header_bytes: int) -> Drive | None:
    """CameraSettings, 0x2020, DriveMode, 0x0600: mode, shot, bits of what mode 5 brackets."""
    order = byte_order(note[header_bytes - 4 : header_bytes - 2])
    settings = read_ifd(note, header_bytes, order).get(0x2020)
    if settings is None or settings.type not in (4, 13):
        return None
    entry = read_ifd(note, settings.numbers()[0], order).get(0x0600)
    mode, shot, bits = (*_words(entry, "H"), 0, 0, 0)[:3]
    if entry is None:
        return None
    kinds: dict[int, DriveKind] = {0: "single", 1: "burst", 2: "exposure", 4: "exposure"}
    kind = kinds.get(mode, "other bracket")
    if mode == 5 and bits & (1 << 6 | 1 << 3):  # focus; MF is its older name
        kind = "focus"
    elif mode == 5 and bits & (1 << 0 | 1 << 5 | 1 << 4):
        kind = "exposure"
    return Drive(kind, shot if mode and shot else None, "Olympus DriveMode")


def _panasonic(note: dict[int, Entry]) -> Drive | None:
    """BurstMode, 0x002a, and SequenceNumber, 0x002b."""
    mode, shot = _first(note, 0x002A), _first(note, 0x002B)
    if mode is None:
        return None
    kinds: dict[int, DriveKind] = {
        0: "single",
        2: "exposure",
        3: "focus",
        8: "other bracket",
        18: "other bracket",
    }
    return Drive(kinds.get(mode, "burst"), shot or None, "Panasonic BurstMode")


def _sony(note: dict[int, Entry]) -> Drive | None:
    """ReleaseMode, 0xb049, and SequenceNumber, 0xb04a; 65535 where they are elsewhere."""
    mode, shot = _first(note, 0xB049), _first(note, 0xB04A)
    if mode is None or mode == 0xFFFF:
        return None
    kinds: dict[int, DriveKind] = {0: "single", 2: "burst", 5: "exposure"}
    number = shot if shot and shot != 0xFFFF else None
    return Drive(kinds.get(mode, "other bracket"), number, "Sony ReleaseMode")


def _fujifilm(note: dict[int, Entry]) -> Drive | None:
    """AutoBracketing, 0x1100, SequenceNumber, 0x1101, and the low byte of DriveMode, 0x1103."""
    bracketing, shot = _first(note, 0x1100), _first(note, 0x1101)
    if bracketing is None:
        return None
    kinds: dict[int, DriveKind] = {0: "single", 1: "some bracket"}
    kind = kinds.get(bracketing, "other bracket")
    if kind == "single" and (_first(note, 0x1103) or 0) & 0xFF:
        kind = "burst"
    return Drive(kind, shot or None, "Fujifilm AutoBracketing")
