"""Single images: headers, reading to float32 sRGB, and PNG files that keep ICC and EXIF.

Colours are not converted. The output carries the ICC profile of the reference frame instead, so
pixel values can be compared with their source.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import IFD, Base

from focaldiffusion.errors import InputError
from focaldiffusion.io import tiff
from focaldiffusion.io.decoding import (
    DECODER_ERRORS,
    EXIF_PREFIX,
    ImageHeader,
    decoding,
    unit_rgb,
    upright,
    valid_orientation,
)
from focaldiffusion.io.ifd import first_ifd

# fmt: off
_RAW_SUFFIXES = frozenset({
    ".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mos",
    ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".rwl", ".sr2", ".srf", ".srw", ".x3f",
})
IMAGE_SUFFIXES = _RAW_SUFFIXES | {
    ".bmp", ".heic", ".heif", ".hif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp",
}
# fmt: on

_Kind = Literal["raw", "tiff", "png16", "heif", "pil"]

_GREY_MODES = ("1", "L", "LA", "La")
_RGB_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA")
_ORIENTATION_TAG = 0x0112
_KEPT_TAGS = (Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.Copyright)
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_IHDR_END = 33  # signature 8, length 4, name 4, IHDR 13, checksum 4
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"mif1", b"msf1")
_RAW_EXTRA = "install what reads it with: pip install 'focaldiffusion[raw]'"


@dataclass(frozen=True)
class ImageMetadata:
    """ICC profile and EXIF that an output takes over from a frame.

    Attributes:
        icc_profile: ICC profile of the pixel values; None means sRGB.
        exif: EXIF block from its TIFF header on, orientation upright.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None


def natural_key(name: str) -> tuple[tuple[int, int | str], ...]:
    """A sort key that counts digits as numbers, so that img2 comes before img10.

    >>> sorted(["img10", "img2"], key=natural_key)
    ['img2', 'img10']
    """
    parts = re.split(r"(\d+)", name.casefold())
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts if part)


def probe_image(path: Path) -> ImageHeader:
    """Size, bit depth, colour and orientation, without decoding the pixels.

    Raises:
        InputError: missing, unreadable, several images, or a format whose reader is not installed.
    """
    kind = _kind(path)
    if kind == "raw":
        with _open_raw(path) as raw:
            sizes = raw.sizes
            size = (sizes.iheight, sizes.iwidth)
            # Values 5 and 6 of LibRaw's flip turn the picture by 90 degrees, at decoding.
            turned = (size[1], size[0]) if sizes.flip in (5, 6) else size
            return ImageHeader(turned, bit_depth=16, is_grey=False)
    if kind == "tiff":
        return _single(path).header
    with open_pillow(path) as image:
        width, height = image.size
        orientation = _exif_orientation(image.info.get("exif") or b"")
        grey = _is_grey_png16(path) if kind == "png16" else image.mode in _GREY_MODES
        if kind != "png16" and image.mode not in _GREY_MODES + _RGB_MODES:
            raise InputError(
                f"{path}: {image.mode} pixels; expected 8-bit grey or RGB, or 16-bit PNG or TIFF. "
                "Export it as RGB."
            )
        return ImageHeader((height, width), 16 if kind == "png16" else 8, grey, orientation)


def read_image(path: Path, *, orientation: int | None = None) -> NDArray[np.float32]:
    """Decode one image, upright.

    8-bit values are divided by 255, 16-bit ones by 65535, alpha is dropped. Camera RAW is
    developed to 16-bit sRGB with the camera's white balance and without exposure correction.

    Args:
        path: JPEG, PNG, TIFF, BMP, WebP, HEIC or camera RAW, recognised by content (RAW by
            suffix).
        orientation: the EXIF orientation to apply instead of the file's own.

    Returns:
        (H, W, 3) float32 in [0, 1], encoded by the file's profile (sRGB without one).

    Raises:
        InputError: missing, truncated or unreadable; the message names the file.
    """
    kind = _kind(path)
    if kind == "raw":
        return unit_rgb(_develop_raw(path), 65535)
    if kind == "tiff":
        return tiff.read_tiff(path, _single(path).pages[0], orientation=orientation)
    if orientation is None:
        orientation = probe_image(path).orientation
    if kind == "png16":
        import imagecodecs

        # Pillow reduces 16-bit colour to 8 bits.
        with decoding(path):
            return upright(unit_rgb(imagecodecs.png_decode(path.read_bytes()), 65535), orientation)
    with open_pillow(path) as image:
        array = np.asarray(image.convert("L" if image.mode in _GREY_MODES else "RGB"))
    return upright(unit_rgb(array, 255), orientation)


def read_metadata(path: Path) -> ImageMetadata:
    """The ICC profile and EXIF of an image, with the orientation set upright.

    The EXIF block of JPEG, PNG, WebP and HEIC is kept, except for the orientation. TIFF and
    RAW have no such block: the descriptive tags are copied, maker notes are not.

    Raises:
        InputError: the file cannot be opened.
    """
    kind = _kind(path)
    if kind in ("raw", "tiff"):
        profile = tiff.tiff_icc_profile(path) if kind == "tiff" else None
        return ImageMetadata(profile, _descriptive_exif(path))
    with open_pillow(path) as image:
        profile, exif = image.info.get("icc_profile"), image.info.get("exif")
    return ImageMetadata(
        profile or None, _upright_exif(exif.removeprefix(EXIF_PREFIX)) if exif else None
    )


_PNG_LEVEL = 3
"""zlib level of all PNG files: half the time of the usual 6 for a few per cent more bytes."""


def pillow_image(pixels: NDArray[np.integer[Any]]) -> Image.Image:
    """The Pillow image of pixels (H, W) or (H, W, 3)."""
    return Image.fromarray(pixels)


def save_png(path: Path, pixels: NDArray[np.integer[Any]]) -> None:
    """Write the pixels (H, W) or (H, W, 3) of a map or picture as PNG, without metadata."""
    pillow_image(pixels).save(path, format="PNG", compress_level=_PNG_LEVEL)


def write_png(
    path: Path,
    image: NDArray[np.float32],
    *,
    bit_depth: Literal[8, 16] = 8,
    metadata: ImageMetadata | None = None,
) -> None:
    """Write an image as PNG, rounding to the nearest level.

    Args:
        path: the file to make.
        image: (H, W, 3), or (H, W) for grey, in [0, 1], in the encoding of the metadata's profile.
        bit_depth: 8 or 16.
        metadata: ICC profile and EXIF to carry over; a profile of another colour model (grey for
            colour pixels, or the reverse) is left out.

    Raises:
        OSError: the file cannot be written.
    """
    import imagecodecs

    full_scale = 2**bit_depth - 1
    levels = np.rint(np.clip(image, 0, 1) * full_scale)
    pixels = np.ascontiguousarray(levels.astype(np.uint8 if bit_depth == 8 else np.uint16))
    png = imagecodecs.png_encode(pixels, level=_PNG_LEVEL)
    metadata = metadata or ImageMetadata()
    chunks, profile = b"", metadata.icc_profile or b""
    # Bytes 16 to 20 of an ICC profile name the colour space of its pixels.
    if profile[16:20] == (b"GRAY" if image.ndim == 2 else b"RGB "):
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if metadata.exif is not None:
        chunks += _chunk(b"eXIf", metadata.exif)
    path.write_bytes(png[:_PNG_IHDR_END] + chunks + png[_PNG_IHDR_END:])


def is_tiff(path: Path) -> bool:
    """Whether the file is a TIFF that is not camera RAW, by its content.

    Raises:
        InputError: the file cannot be opened.
    """
    return _kind(path) == "tiff"


def is_raw(path: Path) -> bool:
    """Whether the file is camera RAW, by its suffix."""
    return path.suffix.lower() in _RAW_SUFFIXES


def _kind(path: Path) -> _Kind:
    """How to read a file. Suffixes of RAW count, because most RAW is TIFF by content."""
    with decoding(path), path.open("rb") as file:
        head = file.read(32)
    if is_raw(path):
        return "raw"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head[:8] == _PNG_SIGNATURE and head[24:25] == b"\x10":
        return "png16"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "heif"
    return "pil"


def _is_grey_png16(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(26)[25] in (0, 4)  # colour type of IHDR: grey, grey and alpha


@contextmanager
def open_pillow(path: Path) -> Iterator[Image.Image]:
    """The image open in Pillow, with HEIC registered when the file is one."""
    if _kind(path) == "heif":
        try:
            import pillow_heif
        except ImportError:
            raise InputError(f"{path}: HEIC is optional; {_RAW_EXTRA}") from None
        pillow_heif.register_heif_opener()
    with decoding(path), Image.open(path) as image:
        yield image


@contextmanager
def _open_raw(path: Path) -> Iterator[Any]:
    """The file open in LibRaw."""
    try:
        import rawpy
    except ImportError:
        raise InputError(f"{path}: camera RAW is optional; {_RAW_EXTRA}") from None
    try:
        with rawpy.imread(str(path)) as raw:
            yield raw
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise InputError(
            f"{path}: cannot be read as camera RAW ({reason}). Develop the frames to 16-bit TIFF "
            "with one setting for all, or leave this one out."
        ) from error


def _develop_raw(path: Path) -> NDArray[np.uint16]:
    """Camera RAW to 16-bit sRGB, (H, W, 3), upright."""
    with _open_raw(path) as raw:
        import rawpy

        return raw.postprocess(
            use_camera_wb=True,
            # Brightness set for each frame would look like exposure drift.
            no_auto_bright=True,
            output_bps=16,
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(2.4, 12.92),  # the sRGB curve; LibRaw defaults to BT.709
        )


def _single(path: Path) -> tiff.TiffStack:
    """The frames of a TIFF; refuses several where one image is expected."""
    stack = tiff.probe_tiff(path)
    if len(stack.pages) > 1:
        raise InputError(
            f"{path}: {len(stack.pages)} pages, where one frame is expected. A stack is one "
            "multi-page TIFF, or files of one frame each."
        )
    return stack


def _exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block; 1 without one, or where it is broken."""
    try:
        entry = first_ifd(exif.removeprefix(EXIF_PREFIX)).get(_ORIENTATION_TAG)
    except DECODER_ERRORS:
        return 1  # the pixels may still be sound
    return valid_orientation(entry.numbers()[0]) if entry and entry.numbers() else 1


def _upright_exif(exif: bytes) -> bytes | None:
    """The EXIF block with orientation 1, all other bytes untouched; None when it is broken."""
    try:
        entry = first_ifd(exif).get(_ORIENTATION_TAG)
    except DECODER_ERRORS:
        return None
    if entry is None or entry.type != 3:
        return exif
    upright_value = struct.pack(f"{entry.order}H", 1)
    return exif[: entry.position] + upright_value + exif[entry.position + 2 :]


def _descriptive_exif(path: Path) -> bytes | None:
    """The tags of a TIFF-like file that describe the photograph, as an EXIF block."""
    source, kept = Image.Exif(), Image.Exif()
    try:
        with path.open("rb") as file:
            source.load_from_fp(file)
            # Not ImageDescription, where microscopes keep the structure of the TIFF.
            kept.update({tag: source[tag] for tag in _KEPT_TAGS if tag in source})
            photo = dict(source.get_ifd(IFD.Exif))
            for tag in (Base.MakerNote, IFD.Interop):
                photo.pop(tag, None)  # the offsets inside would point nowhere in another file
            if photo:
                kept[IFD.Exif] = photo
            if gps := source.get_ifd(IFD.GPSInfo):
                kept[IFD.GPSInfo] = gps
        return kept.tobytes().removeprefix(EXIF_PREFIX) if len(kept) else None
    except DECODER_ERRORS:
        return None


def _chunk(name: bytes, data: bytes) -> bytes:
    """A PNG chunk: length, name, data, checksum."""
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
