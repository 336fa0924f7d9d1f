"""Drive modes in the maker notes of each brand, laid out as the cameras write them."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from find import Entries, directory
from PIL import Image

from focaldiffusion.io.capture import read_capture
from focaldiffusion.io.drive import Drive

NOTE_AT = 200
"""Offset of the note in the EXIF block."""


def short(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}H", *values)


def panasonic(mode: int, shot: int) -> bytes:
    entries: Entries = [(0x002A, 3, short(mode)), (0x002B, 4, struct.pack("<I", shot))]
    return b"Panasonic\0\0\0" + directory(entries, NOTE_AT + 12)


def nikon(mode: int) -> bytes:
    return b"Nikon\0\2\x11\0\0II*\0\x08\0\0\0" + directory([(0x0089, 3, short(mode))], 8)


def sony(mode: int, shot: int) -> bytes:
    entries: Entries = [(0xB049, 3, short(mode)), (0xB04A, 3, short(shot))]
    return b"SONY DSC \0\0\0" + directory(entries, NOTE_AT + 12)


def fujifilm(bracketing: int, shot: int, drive: int) -> bytes:
    entries: Entries = [
        (0x1100, 3, short(bracketing)),
        (0x1101, 3, short(shot)),
        (0x1103, 4, struct.pack("<I", drive)),
    ]
    return b"FUJIFILM\x0c\0\0\0" + directory(entries, 12)


def olympus(*drive: int) -> bytes:
    settings_at = 12 + 2 + 12 + 4
    note = directory([(0x2020, 4, struct.pack("<I", settings_at))], 12)
    return b"OLYMPUS\0II\3\0" + note + directory([(0x0600, 3, short(*drive))], settings_at)


def canon(settings: dict[int, int], info: dict[int, int]) -> bytes:
    first, second = ([table.get(n, 0) for n in range(51)] for table in (settings, info))
    entries: Entries = [(0x0001, 3, short(*first)), (0x0093, 3, short(*second))]
    return directory(entries, NOTE_AT)


def saved(folder: Path, make: str, note: bytes) -> Path:
    """A JPEG whose EXIF has the note at its place."""
    head = [(0x010F, 2, make.encode() + b"\0"), (0x8769, 4, b"\0" * 4)]
    photo_at = 8 + len(directory(head, 8))
    head[-1] = (0x8769, 4, struct.pack("<I", photo_at))
    photo = struct.pack("<HHHII", 1, 0x927C, 7, len(note), NOTE_AT) + b"\0\0\0\0"
    block = b"II*\0\x08\0\0\0" + directory(head, 8) + photo
    path = folder / "frame.jpg"
    whole = b"Exif\0\0" + block.ljust(NOTE_AT, b"\0") + note
    Image.new("RGB", (32, 32)).save(path, exif=whole)
    return path


FUJI = "Fujifilm AutoBracketing"
NOTES = {
    "Panasonic: focus": ("Panasonic", panasonic(3, 7), Drive("focus", 7, "Panasonic BurstMode")),
    "Panasonic: burst": ("Panasonic", panasonic(1, 2), Drive("burst", 2, "Panasonic BurstMode")),
    "Panasonic: off": ("Panasonic", panasonic(0, 0), Drive("single", None, "Panasonic BurstMode")),
    "Nikon: burst": ("NIKON", nikon(1), Drive("burst", None, "Nikon ShootingMode")),
    "Nikon: exposure": ("NIKON", nikon(1 | 16), Drive("exposure", None, "Nikon ShootingMode")),
    "Nikon: white balance": (
        "NIKON",
        nikon(16 | 64),
        Drive("other bracket", None, "Nikon ShootingMode"),
    ),
    "Sony: exposure": ("SONY", sony(5, 2), Drive("exposure", 2, "Sony ReleaseMode")),
    "Sony: elsewhere": ("SONY", sony(65535, 65535), None),
    "Fujifilm: some": (
        "FUJIFILM",
        fujifilm(1, 3, 0),
        Drive("some bracket", 3, FUJI),
    ),
    "Fujifilm: burst": (
        "FUJIFILM",
        fujifilm(0, 4, 2),
        Drive("burst", 4, FUJI),
    ),
    "Olympus: focus": ("OLYMPUS", olympus(5, 9, 64), Drive("focus", 9, "Olympus DriveMode")),
    "Olympus: exposure": ("OLYMPUS", olympus(5, 2, 1), Drive("exposure", 2, "Olympus DriveMode")),
    "Olympus: two numbers": ("OLYMPUS", olympus(1, 6), Drive("burst", 6, "Olympus DriveMode")),
    "Canon: focus": ("Canon", canon({50: 1}, {}), Drive("focus", None, "Canon FocusBracketing")),
    "Canon: exposure": (
        "Canon",
        canon({}, {3: 1, 5: 3}),
        Drive("exposure", 3, "Canon BracketMode"),
    ),
    "Canon: burst": ("Canon", canon({5: 1}, {}), Drive("burst", None, "Canon ContinuousDrive")),
    "unknown": ("Kodak", b"KDK INFO" + bytes(40), None),
}


@pytest.mark.parametrize("name", NOTES)
def test_each_brand_is_read(tmp_path: Path, name: str) -> None:
    make, note, expected = NOTES[name]
    capture = read_capture(saved(tmp_path, make, note))
    assert capture.camera == make
    assert capture.drive == expected


@pytest.mark.parametrize("name", NOTES)
def test_a_broken_note_leaves_the_rest(tmp_path: Path, name: str) -> None:
    make, note, _ = NOTES[name]
    for length in range(0, len(note), 5):
        assert read_capture(saved(tmp_path, make, note[:length])).camera == make


def test_exif_alone_names_an_exposure_bracket(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA402] = 2
    Image.new("RGB", (32, 32)).save(tmp_path / "frame.jpg", exif=exif)
    drive = read_capture(tmp_path / "frame.jpg").drive
    assert drive == Drive("exposure", None, "EXIF ExposureMode")
