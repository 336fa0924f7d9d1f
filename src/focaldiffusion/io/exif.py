"""Lens data and focus distances from EXIF, XMP and maker notes.

This is where millimetres become metres, and where tags are judged: a value that cannot be trusted
is left out, with a reason.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

from focaldiffusion.io.decoding import DECODER_ERRORS, EXIF_PREFIX
from focaldiffusion.io.formats import is_raw
from focaldiffusion.io.ifd import Buffer, byte_order, first_ifd, read_ifd
from focaldiffusion.io.images import is_tiff, open_pillow
from focaldiffusion.io.makernotes import FocusReading, interval, read_maker_focus
from focaldiffusion.lens import LensFacts, implausible

_FULL_FRAME_DIAGONAL_MM = 43.2666
"""Diagonal of 36 mm x 24 mm, which 35 mm-equivalent focal lengths refer to (CIPA DCG-001)."""

_SENSOR_PLANE_MAKERS = ("canon", "nikon")
_DECODABLE_MAKERS = ("nikon", "canon", "apple", "olympus", "om digital")
_UNTRUSTED_MAKERS = ("sony", "panasonic", "fujifilm")
_DISAGREEMENT = 0.15
"""FocalLengthIn35mmFilm is a whole number and rounds by up to 10 % on short lenses."""

_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""FocalPlaneResolutionUnit: inch, cm (EXIF 2.3), mm, µm (seen in TIFF/EP)."""

_BOUNDS = {
    "ExposureTime": (1e-7, 1e5),
    "ISOSpeedRatings": (1.0, 1e7),
    "FocalLength": (1e-3, 1e5),
    "FNumber": (0.1, 1e3),
    "FocalLengthIn35mmFilm": (1.0, 1e5),
    "PixelXDimension": (1.0, 1e6),
    "PixelYDimension": (1.0, 1e6),
    "FocalPlaneXResolution": (1e-2, 1e7),
}
"""Least and largest number of each tag, in its own unit, that any camera could write."""

_MAKE_LENGTH = 40

_Tags = dict[str, Any]


@dataclass(frozen=True)
class FrameRecord:
    """EXIF of one file, without the values that cannot be trusted.

    Attributes:
        lens: focal length, f-number, and the pixel pitch at the current size of the image.
        focus: the focus distance.
        tags: for each value that is known, the tags it comes from.
        reasons: for each value that is not, why.
        taken: DateTimeOriginal, with SubSecTimeOriginal as its fraction; None if it is absent.
    """

    lens: LensFacts = field(default_factory=LensFacts)
    focus: FocusReading | None = None
    tags: dict[str, str] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    taken: str | None = None


def read_exif(paths: Sequence[Path], image_size: tuple[int, int]) -> list[FrameRecord]:
    """Read lens and focus of the frames of a stack.

    ExifTool is run, once for all frames, only if this module finds no focus distance, and only if
    PyExifTool and the program are installed.

    Args:
        paths: image files.
        image_size: current (height, width) of every frame [px]; the pixel pitch of a resized
            image is not the recorded one.

    Returns:
        One record a file, empty if EXIF is absent or broken.
    """
    own = [_own_tags(path) for path in paths]
    focus = [_own_focus(tags) for tags in own]
    # This module cannot read the EXIF of RAW files that are not built like TIFF.
    wanting = [
        index
        for index, path in enumerate(paths)
        if focus[index] is None and (_has_decodable_note(own[index]) or is_raw(path))
    ]
    if wanting and _exiftool_installed():
        answers = _exiftool_tags([paths[index] for index in wanting])
        for index, answer in zip(wanting, answers, strict=True):
            own[index] = {**answer, **own[index]}
            focus[index] = _exiftool_focus(own[index]) or _own_focus(own[index])
    return [_record(tags, reading, image_size) for tags, reading in zip(own, focus, strict=True)]


def read_exposure(path: Path) -> str | None:
    """Exposure time, f-number and ISO speed of a file, such as "1/60 s, f/2.8, ISO 100".

    Returns:
        None where the file has none of them.
    """
    tags = _own_tags(path)
    seconds, f_number, iso = (
        _number(tags, name) for name in ("ExposureTime", "FNumber", "ISOSpeedRatings")
    )
    parts = []
    if seconds is not None:
        parts.append(f"1/{1 / seconds:.0f} s" if seconds <= 0.3 else f"{seconds:.3g} s")
    if f_number is not None:
        parts.append(f"f/{f_number:.2g}" if f_number < 10 else f"f/{f_number:.0f}")
    if iso is not None:
        parts.append(f"ISO {iso:.0f}")
    return ", ".join(parts) or None


def _record(tags: _Tags, focus: FocusReading | None, image_size: tuple[int, int]) -> FrameRecord:
    """Interpret the tags of one file."""
    focal_length_mm = _number(tags, "FocalLength")
    pitch_m, pitch_text = _pixel_pitch_m(tags, image_size)
    found = {
        "focal_length_m": (focal_length_mm and focal_length_mm / 1000, "FocalLength"),
        "f_number": (_number(tags, "FNumber"), "FNumber"),
        "pixel_pitch_m": (pitch_m, pitch_text),
    }
    values: dict[str, float] = {}
    origins, reasons = {}, {}
    for name, (value, tag) in found.items():
        if value is None:
            reasons[name] = pitch_text if name == "pixel_pitch_m" else _why_no_number(tags, tag)
        elif problem := implausible(name, value):
            reasons[name] = f"EXIF {tag}: {problem}"
        else:
            values[name], origins[name] = value, tag
    if focus is None:
        reasons["focus"] = _why_no_focus(tags)
    else:
        origins["focus"] = focus.tag
    if not tags.get("Make") and not origins:
        reasons = dict.fromkeys(reasons, "no EXIF of a camera")
    return FrameRecord(LensFacts(**values), focus, origins, reasons, _taken(tags))


def _taken(tags: _Tags) -> str | None:
    """The time of capture, so that texts sort like times."""
    time, fraction = (str(tags.get(name, "")) for name in _TIME_TAGS.values())
    return (f"{time}.{fraction}" if fraction.isdecimal() else time) or None


def _pixel_pitch_m(tags: _Tags, image_size: tuple[int, int]) -> tuple[float | None, str]:
    """The pixel pitch at the current size [m] and its tags, or None and the reason.

    It follows from the focal plane resolution, or from the 35 mm-equivalent focal length f35 by
    the diagonal: pitch = 43.2666 mm (f / f35) / diagonal_px.
    """
    width_px = _number(tags, "PixelXDimension")
    height_px = _number(tags, "PixelYDimension")
    long_px, short_px = max(image_size), min(image_size)
    recorded_long_px: float = long_px
    if width_px and height_px:
        recorded_long_px = max(width_px, height_px)
        aspect = recorded_long_px / min(width_px, height_px)
        if abs(aspect / (long_px / short_px) - 1) > 0.01:
            return None, (
                f"the image was cropped: EXIF gives {width_px:.0f} x {height_px:.0f} pixels, "
                f"the frames have {image_size[1]} x {image_size[0]}"
            )
    focal_mm = _number(tags, "FocalLength")
    focal_35_mm = _number(tags, "FocalLengthIn35mmFilm")
    unit_mm = _UNIT_MM.get(tags.get("FocalPlaneResolutionUnit", 2))
    per_unit = _number(tags, "FocalPlaneXResolution")
    from_diagonal_mm = None
    if focal_mm and focal_35_mm:
        crop_factor = focal_35_mm / focal_mm
        from_diagonal_mm = _FULL_FRAME_DIAGONAL_MM / crop_factor / math.hypot(*image_size)
    from_plane_mm = None
    if per_unit and unit_mm:
        from_plane_mm = unit_mm / per_unit * recorded_long_px / long_px

    if from_plane_mm:
        if from_diagonal_mm and abs(math.log(from_plane_mm / from_diagonal_mm)) > _DISAGREEMENT:
            return None, (
                f"EXIF contradicts itself: FocalPlaneXResolution gives {from_plane_mm * 1000:.3g} "
                f"µm, FocalLengthIn35mmFilm {from_diagonal_mm * 1000:.3g} µm"
            )
        return from_plane_mm / 1000, "FocalPlaneXResolution"
    if from_diagonal_mm:
        return from_diagonal_mm / 1000, "FocalLength and FocalLengthIn35mmFilm"
    return None, "EXIF has neither FocalPlaneXResolution nor FocalLengthIn35mmFilm"


@contextmanager
def blocks(path: Path) -> Iterator[tuple[Buffer, bytes]]:
    """The EXIF of a file, from its TIFF header on, and its XMP; empty where there is none.

    The EXIF of RAW and TIFF is the whole file, which holds the XMP as well.

    Raises:
        OSError, ValueError, ...: `DECODER_ERRORS`, if the file is broken.
    """
    if is_raw(path) or is_tiff(path):
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
            yield mapped, b""
        return
    with open_pillow(path) as image:
        exif = image.info.get("exif") or b""
        xmp = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = xmp.encode("utf-8", "replace") if isinstance(xmp, str) else xmp
    yield exif.removeprefix(EXIF_PREFIX), text


def _own_tags(path: Path) -> _Tags:
    """The needed tags of a file, with XMP; empty if they are broken."""
    tags: _Tags = {}
    with suppress(*DECODER_ERRORS), blocks(path) as (exif, xmp):
        tags["xmp"] = xmp
        tags |= _tiff_tags(exif) if exif else {}  # broken EXIF leaves XMP readable
    return tags


def _tiff_tags(tiff: Buffer) -> _Tags:
    """The needed tags of an EXIF block, or of a file built like TIFF."""
    main = first_ifd(tiff)
    tags: _Tags = {"Make": _printable(main[_MAKE].text())} if _MAKE in main else {}
    if _XMP in main:
        tags["xmp"] = main[_XMP].data
    pointers = main[_EXIF_IFD].numbers() if _EXIF_IFD in main else ()
    if not pointers or not isinstance(pointers[0], int):
        return tags
    try:
        photo = read_ifd(tiff, pointers[0], byte_order(tiff[:2]))
    except DECODER_ERRORS:
        return tags
    for tag, name in _STANDARD_TAGS.items():
        if tag in photo:
            for numerator, denominator in photo[tag].rationals()[:1]:
                unlimited = numerator == 0xFFFFFFFF
                tags[name] = math.inf if unlimited else numerator / (denominator or math.nan)
            for number in photo[tag].numbers()[:1]:
                tags[name] = number
    tags |= {name: photo[tag].text() for tag, name in _TIME_TAGS.items() if tag in photo}
    if _MAKER_NOTE in photo:
        tags["maker note"] = True
        # A broken maker note leaves the standard tags readable.
        with suppress(*DECODER_ERRORS):
            tags["maker focus"] = read_maker_focus(tiff, photo[_MAKER_NOTE], tags.get("Make", ""))
    return tags


_MAKE, _XMP, _EXIF_IFD, _MAKER_NOTE = 0x010F, 0x02BC, 0x8769, 0x927C
_STANDARD_TAGS = {
    0x829A: "ExposureTime",
    0x8827: "ISOSpeedRatings",
    0x829D: "FNumber",
    0x9206: "SubjectDistance",
    0x920A: "FocalLength",
    0xA002: "PixelXDimension",
    0xA003: "PixelYDimension",
    0xA20E: "FocalPlaneXResolution",
    0xA210: "FocalPlaneResolutionUnit",
    0xA405: "FocalLengthIn35mmFilm",
}
_TIME_TAGS = {0x9003: "DateTimeOriginal", 0x9291: "SubSecTimeOriginal"}


def _own_focus(tags: _Tags) -> FocusReading | None:
    """The focus distance from maker note, SubjectDistance or Adobe's XMP, in this order."""
    if reading := tags.get("maker focus"):
        return reading
    if reading := _point(tags.get("SubjectDistance"), tags, "EXIF SubjectDistance"):
        return reading
    # XMP rationals are those of EXIF: 32 bits, ten digits.
    pattern = rb"aux:ApproximateFocusDistance(?:\s*=\s*[\"']|>)(\d{1,10})/(\d{1,10})(?!\d)"
    adobe = re.search(pattern, tags.get("xmp", b""))
    if adobe is None or int(adobe[2]) == 0:
        return None
    return _point(int(adobe[1]) / int(adobe[2]), tags, "XMP aux:ApproximateFocusDistance")


def _exiftool_focus(tags: _Tags) -> FocusReading | None:
    """The focus distance from maker notes as ExifTool prints them."""
    nikon_m = _printed_m(tags.get("Nikon:FocusDistance"))
    if nikon_m is not None and nikon_m > 0.01:  # code 0, where nothing was recorded
        # The code is logarithmic, 40 steps a decade: half a step either side.
        half_step = 10 ** (1 / 80)
        return interval(nikon_m / half_step, nikon_m * half_step, "sensor", "Nikon FocusDistance")
    upper_m = _printed_m(tags.get("Canon:FocusDistanceUpper"))
    lower_m = _printed_m(tags.get("Canon:FocusDistanceLower"))
    if upper_m is not None and lower_m is not None:
        tag = "Canon FocusDistanceUpper and FocusDistanceLower"
        return interval(upper_m, lower_m, "sensor", tag)
    ends = str(tags.get("Apple:FocusDistanceRange", "")).split()
    first_m, second_m = map(_positive, ends) if len(ends) == 2 else (None, None)
    if first_m is not None and second_m is not None:
        return interval(first_m, second_m, "lens", "Apple FocusDistanceRange")
    olympus_m = _printed_m(tags.get("Olympus:FocusDistance"))
    if olympus_m is not None:
        return interval(olympus_m, olympus_m, "lens", "Olympus FocusDistance")
    return None


_EXIFTOOL_STANDARD = {
    "IFD0:Make": "Make",
    "ExifIFD:FNumber": "FNumber",
    "ExifIFD:SubjectDistance": "SubjectDistance",
    "ExifIFD:FocalLength": "FocalLength",
    "ExifIFD:ExifImageWidth": "PixelXDimension",
    "ExifIFD:ExifImageHeight": "PixelYDimension",
    "ExifIFD:FocalPlaneXResolution": "FocalPlaneXResolution",
    "ExifIFD:FocalPlaneResolutionUnit": "FocalPlaneResolutionUnit",
    "ExifIFD:FocalLengthIn35mmFormat": "FocalLengthIn35mmFilm",
    "ExifIFD:DateTimeOriginal": "DateTimeOriginal",
    "ExifIFD:SubSecTimeOriginal": "SubSecTimeOriginal",
}


def _exiftool_tags(paths: Sequence[Path]) -> list[_Tags]:
    """The needed tags of each file, read by PyExifTool."""
    import exiftool

    # A trailing # requests the number. Distances are requested as printed: infinity is then "inf",
    # not a code of the maker's own.
    arguments = ["-G1", *(f"-{name}#" for name in _EXIFTOOL_STANDARD)]
    arguments += ["-Apple:FocusDistanceRange#", "-Nikon:FocusDistance", "-Olympus:FocusDistance"]
    arguments += ["-Canon:FocusDistanceUpper", "-Canon:FocusDistanceLower"]
    with exiftool.ExifToolHelper(common_args=[], check_execute=False) as tool:
        answers = tool.execute_json(*arguments, *(str(path.resolve()) for path in paths))
    return [
        {_EXIFTOOL_STANDARD.get(name, name): value for name, value in answer.items()}
        for answer in answers
    ]


def _exiftool_installed() -> bool:
    """Whether both PyExifTool and the ExifTool program are installed."""
    return find_spec("exiftool") is not None and shutil.which("exiftool") is not None


def _has_decodable_note(tags: _Tags) -> bool:
    """Whether ExifTool may find a focus distance in the maker note."""
    return "maker note" in tags and str(tags.get("Make")).lower().startswith(_DECODABLE_MAKERS)


def _why_no_focus(tags: _Tags) -> str:
    """Why a file has no focus distance, in words."""
    make = _printable(str(tags.get("Make") or "camera"))
    if (distance_m := _positive(tags.get("SubjectDistance"))) is not None:
        return f"EXIF SubjectDistance is {distance_m:g} m, nearer than anything focuses"
    if make.lower().startswith(_UNTRUSTED_MAKERS):
        return f"{make} records no focus distance that can be trusted"
    if _has_decodable_note(tags) and not _exiftool_installed():
        return (
            f"the maker note of this {make} may hold a focus distance, but needs ExifTool (install "
            "the program, Debian package libimage-exiftool-perl, and "
            "pip install 'focaldiffusion[raw]')"
        )
    return f"the EXIF of this {make} has no focus distance"


def _point(value: Any, tags: _Tags, tag: str) -> FocusReading | None:
    """A reading from one number [m]; None when it is absent or not positive."""
    distance_m = value if value == math.inf else _positive(value)
    if distance_m is None:
        return None
    from_sensor = str(tags.get("Make", "")).lower().startswith(_SENSOR_PLANE_MAKERS)
    return interval(distance_m, distance_m, "sensor" if from_sensor else "lens", tag)


def _printed_m(text: Any) -> float | None:
    """Metres from ExifTool's `0.54 m` or `inf`; None for anything else."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{0,9})?) m|(inf)", str(text), re.IGNORECASE)
    if match is None:
        return None
    return math.inf if match[2] else float(match[1])


def _number(tags: _Tags, name: str) -> float | None:
    """The number of a tag, if a camera could have written it."""
    number = _positive(tags.get(name))
    least, most = _BOUNDS[name]
    return number if number is not None and least <= number <= most else None


def _why_no_number(tags: _Tags, name: str) -> str:
    """Why a tag has no number that can be used, in words."""
    number = _positive(tags.get(name))
    if number is None:
        return f"EXIF has no {name}"
    return f"EXIF {name} is {number:g}, which no camera has"


def _printable(text: str) -> str:
    """Text from a file without the control characters that would reach a terminal."""
    return "".join(filter(str.isprintable, text))[:_MAKE_LENGTH]


def _positive(value: Any) -> float | None:
    """A finite positive number, or None for the codes that EXIF writes for unknown values."""
    try:
        number = float(value)
    except (TypeError, ValueError, ArithmeticError):
        return None
    return number if math.isfinite(number) and number > 0 else None
