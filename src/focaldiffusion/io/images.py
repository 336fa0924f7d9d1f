"""Single images: headers, metadata, and reading to float32 sRGB.

Primaries are not converted. An output carries the ICC profile of the reference frame instead, so
pixel values can be compared with their source. Curves unlike sRGB's are converted, see `encoding`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import IFD, Base

from focaldiffusion.errors import InputError
from focaldiffusion.frames import Pixels, rounded
from focaldiffusion.io import tiff
from focaldiffusion.io.budget import check_pixels
from focaldiffusion.io.decoding import (
    DECODER_ERRORS,
    EXIF_PREFIX,
    ImageHeader,
    check_visible,
    decoding,
    three_channels,
    unit_alpha,
    unit_rgb,
    upright,
    valid_orientation,
)
from focaldiffusion.io.encoding import (
    Curve,
    chromaticities_of,
    curves_of,
    profile_curves,
    srgb_encoded,
    with_srgb_curves,
)
from focaldiffusion.io.formats import Kind, kind_of, need_reader
from focaldiffusion.io.ifd import byte_order, first_ifd
from focaldiffusion.io.jpeg import ends_early, is_whole
from focaldiffusion.io.raw import develop_raw, open_raw

_GREY_MODES = ("1", "L", "LA", "La")
_RGB_MODES = ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA")
_ANIMATIONS = ("GIF", "PNG", "WEBP", "AVIF", "HEIF")
_ORIENTATION_TAG = 0x0112
_KEPT_TAGS = (Base.Make, Base.Model, Base.Software, Base.DateTime, Base.Artist, Base.Copyright)


@dataclass(frozen=True)
class ImageMetadata:
    """ICC profile and EXIF that an output takes over from a frame.

    Attributes:
        icc_profile: ICC profile of the pixel values; None means sRGB.
        exif: EXIF block from its TIFF header on, orientation upright.
        chromaticities: x and y of white, red, green and blue from a PNG or HEIC without profile;
            None means those of sRGB.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    chromaticities: tuple[float, ...] | None = None


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
    kind = kind_of(path)
    if kind == "raw":
        with open_raw(path) as raw:
            sizes = raw.sizes
            size = (sizes.iheight, sizes.iwidth)
            # Values 5 and 6 of LibRaw's flip turn the picture by 90 degrees, at decoding.
            turned = (size[1], size[0]) if sizes.flip in (5, 6) else size
            return ImageHeader(turned, bit_depth=16, is_grey=False)
    if kind == "tiff":
        header = _single(path).header
        check_pixels(path, *header.stored_size)
        return header
    with open_pillow(path) as image:
        width, height = image.size
        check_pixels(path, height, width)
        is_png16, is_grey_png = _png_depth(path) if kind == "png" else (False, False)
        if not is_png16 and image.mode not in _GREY_MODES + _RGB_MODES:
            raise InputError(
                f"{path}: {image.mode} pixels; expected 8-bit grey or RGB, or 16-bit PNG or TIFF. "
                "Export it as RGB."
            )
        count = getattr(image, "n_frames", 1)
        if count > 1 and image.format in _ANIMATIONS:
            raise InputError(
                f"{path}: {count} pictures in one file, where one is expected. Save each frame as "
                "a file of its own."
            )
        return ImageHeader(
            (height, width),
            16 if is_png16 or _bits(image, path) > 8 else 8,
            is_grey_png if is_png16 else image.mode in _GREY_MODES,
            _exif_orientation(image.info.get("exif") or b""),
            has_alpha=image.has_transparency_data,
            icc_profile=image.info.get("icc_profile") or None,
        )


def read_image(path: Path, *, orientation: int | None = None) -> NDArray[np.float32]:
    """Decode one image, upright.

    8-bit values are divided by 255, 16-bit ones by 65535; for alpha see `read_alpha`. Camera RAW is
    developed to 16-bit sRGB with the camera's white balance and without exposure correction.

    Args:
        path: JPEG, PNG, TIFF, BMP, WebP, HEIC, camera RAW and whatever else Pillow reads,
            recognised by content (RAW by suffix).
        orientation: the EXIF orientation to apply instead of the file's own.

    Returns:
        (H, W, 3) float32 in [0, 1], in the primaries of the file's profile (sRGB without one).

    Raises:
        InputError: missing, truncated or unreadable; the message names the file.
    """
    kind = kind_of(path)
    if kind == "raw":
        return unit_rgb(develop_raw(path), 65535)
    if kind == "tiff":
        return tiff.read_tiff(path, _single(path).pages[0], orientation=orientation)
    if orientation is None:
        orientation = probe_image(path).orientation
    pixels, full_scale, curves = _decoded(path, kind)
    return upright(srgb_encoded(unit_rgb(pixels, full_scale), curves), orientation)


def read_pixels(path: Path, *, orientation: int | None = None) -> Pixels:
    """The same as integers, upright: uint8 where the file has 8 bits and needs no conversion.

    Args:
        path: see `read_image`.
        orientation: the EXIF orientation to apply instead of the file's own.
    """
    kind = kind_of(path)
    if kind == "raw":
        return develop_raw(path)
    if kind == "tiff":
        return rounded(read_image(path, orientation=orientation))
    if orientation is None:
        orientation = probe_image(path).orientation
    pixels, full_scale, curves = _decoded(path, kind)
    if curves or full_scale != np.iinfo(pixels.dtype).max:
        return rounded(upright(srgb_encoded(unit_rgb(pixels, full_scale), curves), orientation))
    return upright(three_channels(pixels), orientation)


def read_alpha(path: Path, *, orientation: int | None = None) -> NDArray[np.float32] | None:
    """Alpha of an image, upright: 1 where it shows the scene, 0 where it was cropped or masked.

    Args:
        path: see `read_image`.
        orientation: the EXIF orientation to apply instead of the file's own.

    Returns:
        (H, W) float32 in [0, 1]; None where every pixel is opaque.

    Raises:
        InputError: unreadable, or transparent everywhere.
    """
    kind = kind_of(path)
    if kind == "raw":
        return None
    if kind == "tiff":
        stack = _single(path)
        if not stack.header.has_alpha:
            return None
        return tiff.read_tiff_alpha(path, stack.pages[0], orientation=orientation)
    header = probe_image(path)
    if not header.has_alpha:
        return None
    pixels, full_scale, _ = _decoded(path, kind)
    alpha = unit_alpha(pixels, full_scale)
    if alpha is None:
        return None
    check_visible(str(path), alpha)
    return upright(alpha, header.orientation if orientation is None else orientation)


def _decoded(path: Path, kind: Kind) -> tuple[NDArray[Any], int, tuple[Curve, ...]]:
    """Pixels as `unit_rgb` takes them, the integer of white, and curves unlike sRGB's."""
    with open_pillow(path) as image:
        curves, size, bits = curves_of(image.info), image.size[::-1], _bits(image, path)
        if kind == "png" or bits > 8:
            pixels = _deep_pixels(path, kind)
            full_scale = np.iinfo(pixels.dtype).max if kind == "png" else 2**bits - 1
        else:
            pixels, full_scale = _eight_bits(image, path), 255
        if pixels.shape[:2] != size or (bits > 8 and pixels.max() > full_scale):
            raise ValueError("its header contradicts its data")
        return pixels, full_scale, curves


def _eight_bits(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """Pixels of an image of 8 bits."""
    mode = "L" if image.mode in _GREY_MODES else "RGB"
    if image.has_transparency_data:
        mode += "A"
    if image.format not in ("JPEG", "MPO"):
        return np.asarray(image.convert(mode))
    data = path.read_bytes()
    if image.mode == mode and is_whole(data):
        import imagecodecs

        pixels = imagecodecs.jpeg8_decode(data)  # the same values in a third of Pillow's time
    else:
        pixels = np.asarray(image.convert(mode))
    if ends_early(data, pixels):
        raise ValueError("its data end early")
    return pixels


def _deep_pixels(path: Path, kind: Kind) -> NDArray[Any]:
    """Pixels of PNG, and of HEIC and AVIF beyond 8 bits, which Pillow reduces to 8.

    Where the data of a PNG end early, Pillow leaves the missing pixels black; libpng refuses it.
    """
    if kind == "heif":
        import pillow_heif

        options = {"convert_hdr_to_8bit": False, "hdr_to_16bit": False}
        return np.asarray(pillow_heif.open_heif(path, **options))
    import imagecodecs

    decode = imagecodecs.png_decode if kind == "png" else imagecodecs.avif_decode
    pixels: NDArray[Any] = decode(path.read_bytes())
    return pixels


def read_metadata(path: Path) -> ImageMetadata:
    """The ICC profile and EXIF of an image as `read_image` returns it, orientation upright.

    The EXIF block of JPEG, PNG, WebP and HEIC is kept, except for the orientation. TIFF and
    RAW have no such block: the descriptive tags are copied, maker notes are not.

    Raises:
        InputError: the file cannot be opened.
    """
    kind = kind_of(path)
    chromaticities = None
    if kind in ("raw", "tiff"):
        profile = tiff.tiff_icc_profile(path) if kind == "tiff" else None
        exif = _descriptive_exif(path)
    else:
        with open_pillow(path) as image:
            profile, exif = image.info.get("icc_profile"), image.info.get("exif")
            chromaticities = chromaticities_of(image.info)
        exif = _upright_exif(exif.removeprefix(EXIF_PREFIX)) if isinstance(exif, bytes) else None
    if profile and profile_curves(profile):
        profile = with_srgb_curves(profile)
    return ImageMetadata(profile or None, exif, chromaticities)


def pillow_image(pixels: NDArray[np.integer[Any]]) -> Image.Image:
    """The Pillow image of pixels (H, W) or (H, W, 3)."""
    return Image.fromarray(pixels)


def is_tiff(path: Path) -> bool:
    """Whether the file is a TIFF that is not camera RAW, by its content.

    Raises:
        InputError: the file cannot be opened.
    """
    return kind_of(path) == "tiff"


def _png_depth(path: Path) -> tuple[bool, bool]:
    """Whether a PNG has 16 bits, and whether it is grey."""
    with path.open("rb") as file:
        depth, colour_type = file.read(26)[24:26]
    return depth == 16, colour_type in (0, 4)


def _bits(image: Image.Image, path: Path) -> int:
    """Bits per channel of HEIC and AVIF, which Pillow reduces to 8; 8 for other formats."""
    if image.format == "AVIF":
        # The third byte of the codec's configuration: bit 6 more than 8 bits, bit 5 then 12.
        _, found, settings = path.read_bytes().partition(b"av1C")
        flags = settings[2] if found and len(settings) > 2 else 0
        return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
    return int(image.info.get("bit_depth", 8)) if image.format == "HEIF" else 8


@contextmanager
def open_pillow(path: Path) -> Iterator[Image.Image]:
    """The image open in Pillow, with the plugin for its format; see `check_pixels` for its size."""
    need_reader(path, kind_of(path))
    with decoding(path):
        # Pillow's own limit is half of ours, and warns before.
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            opened = Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
        with opened as image:
            yield image


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
        first_ifd(exif)
        order = byte_order(exif[:2])
    except DECODER_ERRORS:
        return None
    (directory,) = struct.unpack_from(f"{order}I", exif, 4)
    (count,) = struct.unpack_from(f"{order}H", exif, directory)
    changed = bytearray(exif)
    for place in range(directory + 2, directory + 2 + 12 * count, 12):
        if struct.unpack_from(f"{order}H", exif, place) == (_ORIENTATION_TAG,):
            # The whole entry, because some writers give it another type than SHORT.
            struct.pack_into(f"{order}HHIHH", changed, place, _ORIENTATION_TAG, 3, 1, 1, 0)
    return bytes(changed)


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
