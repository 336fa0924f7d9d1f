"""How photographs were taken, from their metadata alone: camera, time, exposure, focus, drive."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from focaldiffusion.errors import InputError
from focaldiffusion.io.decoding import DECODER_ERRORS
from focaldiffusion.io.drive import Drive, read_drive
from focaldiffusion.io.exif import blocks
from focaldiffusion.io.ifd import Buffer, Entry, byte_order, first_ifd, read_ifd
from focaldiffusion.io.images import probe_image
from focaldiffusion.io.makernotes import FocusReading, read_maker_focus

_MAKE, _MODEL, _EXIF_IFD, _SERIAL, _MAKER_NOTE = 0x010F, 0x0110, 0x8769, 0xA431, 0x927C
_TAKEN, _FRACTION, _EXPOSURE_MODE = 0x9003, 0x9291, 0xA402
_AUTO_BRACKET = 2  # of ExposureMode
_NUMBERS = {
    0x829A: "exposure_s",
    0x829D: "f_number",
    0x8827: "iso",
    0x920A: "focal_length_mm",
}


@dataclass(frozen=True)
class Capture:
    """How a photograph was taken, by its metadata.

    Attributes:
        size: (height, width) [px]; None if the file cannot be read as a picture.
        camera: maker, model and serial number; empty if unknown.
        taken_s: time of capture by the camera's clock [s since 1970]; None if unknown.
        exposure_s: exposure time [s].
        f_number: of the lens.
        iso: sensitivity.
        focal_length_mm: of the lens.
        focus: focus distance.
        drive: how the camera released.
    """

    size: tuple[int, int] | None = None
    camera: str = ""
    taken_s: float | None = None
    exposure_s: float | None = None
    f_number: float | None = None
    iso: float | None = None
    focal_length_mm: float | None = None
    focus: FocusReading | None = None
    drive: Drive | None = None

    @property
    def exposure_stops(self) -> float | None:
        """Exposure relative to 1 s at f/1 and ISO 100, in stops; None if a part is unknown."""
        if not (self.exposure_s and self.f_number and self.iso):
            return None
        return math.log2(self.exposure_s * self.iso / 100 / self.f_number**2)


def read_capture(path: Path) -> Capture:
    """Read the header and the metadata of a picture; broken parts are left out."""
    try:
        size = probe_image(path).size(1)
    except InputError:
        return Capture()
    found: dict[str, Any] = {}
    with suppress(*DECODER_ERRORS), blocks(path) as (exif, _):
        if exif:
            _collect(exif, found)
    return Capture(size, **found)


def _collect(tiff: Buffer, found: dict[str, Any]) -> None:
    """Add what the tags of an EXIF block say, until one is broken."""
    main = first_ifd(tiff)
    make = _text(main, _MAKE)
    names = [make, _text(main, _MODEL)]
    found["camera"] = " ".join(filter(None, names))
    pointers = main[_EXIF_IFD].numbers() if _EXIF_IFD in main else ()
    if not pointers:
        return
    photo = read_ifd(tiff, int(pointers[0]), byte_order(tiff[:2]))
    found["camera"] = " ".join(filter(None, [*names, _text(photo, _SERIAL)]))
    found["taken_s"] = _seconds(_text(photo, _TAKEN), _text(photo, _FRACTION))
    for tag, name in _NUMBERS.items():
        if (number := _number(photo.get(tag))) is not None:
            found[name] = number
    if _number(photo.get(_EXPOSURE_MODE)) == _AUTO_BRACKET:
        found["drive"] = Drive("exposure", None, "EXIF ExposureMode")
    if _MAKER_NOTE in photo:
        note = photo[_MAKER_NOTE]
        with suppress(*DECODER_ERRORS):
            found["focus"] = read_maker_focus(tiff, note, make)
        with suppress(*DECODER_ERRORS):
            found["drive"] = read_drive(tiff, note, make) or found.get("drive")


def _text(entries: dict[int, Entry], tag: int) -> str:
    text = entries[tag].text() if tag in entries else ""
    return "".join(filter(str.isprintable, text)).strip()


def _number(entry: Entry | None) -> float | None:
    """The first number of an entry; None if it is not positive and finite."""
    if entry is None:
        return None
    values = [*entry.numbers()[:1]]
    values += [one / other for one, other in entry.rationals()[:1] if other]
    return float(values[0]) if values and 0 < values[0] < math.inf else None


def _seconds(text: str, fraction: str) -> float | None:
    """Seconds since 1970 of EXIF's time, which has no zone; None for a clock that was never set."""
    try:
        time = datetime.strptime(text, "%Y:%m:%d %H:%M:%S").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    seconds = time.timestamp()
    return (
        seconds + float(f"0.{fraction}") if fraction.isascii() and fraction.isdecimal() else seconds
    )
