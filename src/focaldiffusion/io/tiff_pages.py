"""Single pages of a TIFF: their kind of pixels, their values, and whether all data are there."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.decoding import ImageHeader, valid_orientation

_KINDS = {"f": "float", "i": "signed", "u": "unsigned", "c": "complex", "b": "bilevel"}
"""Names of numpy's kinds of pixels, for messages."""

_PHOTOMETRIC = tifffile.PHOTOMETRIC
_GREY = (_PHOTOMETRIC.MINISBLACK, _PHOTOMETRIC.MINISWHITE)
_JPEG = (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)

_ORIENTATION_TAG, _COLOUR_MAP_TAG, _ICC_TAG = 274, 320, 34675
_MIN_SAMPLE_TAGS = (340, 280)  # SMinSampleValue, MinSampleValue
_MAX_SAMPLE_TAGS = (341, 281, 50717)  # SMaxSampleValue, MaxSampleValue, WhiteLevel of DNG

_MOST_BYTES = 1 << 31  # of a decoded page
_MOST_SMALL_BYTES = 1 << 26  # of a page that may be packed to any size
_MOST_PACKING = 2000  # bytes from one byte; deflate reaches 1032


_CUT_OFF = (
    "cannot be read as an image (its data end early, or some are missing). Copy or export it again."
)


def page_header(path: Path, page: tifffile.TiffPage, channels: int) -> ImageHeader:
    """The header of a page; refuses pixels whose white level is not defined.

    Args:
        path: the file.
        page: the page.
        channels: number of pages that make a frame.
    """
    _full_scale(path, page)
    colour = page.photometric in (_PHOTOMETRIC.RGB, _PHOTOMETRIC.PALETTE) or (
        # tifffile converts YCbCr to RGB for JPEG compression only.
        page.photometric == _PHOTOMETRIC.YCBCR and page.compression in _JPEG
    )
    is_palette = page.photometric == _PHOTOMETRIC.PALETTE
    if (
        not (page.photometric in _GREY or colour)
        or (channels == 3 and (page.samplesperpixel > 2 or is_palette))
        or (is_palette and (page.samplesperpixel > 1 or getattr(page.dtype, "kind", "") != "u"))
    ):
        raise InputError(
            f"{path}: {getattr(page.photometric, 'name', page.photometric)} colours with "
            f"{page.samplesperpixel * channels} channels; expected grey or RGB. Export it as RGB."
        )
    return ImageHeader(
        stored_size=(page.imagelength, page.imagewidth),
        bit_depth=8 if page.bitspersample <= 8 else 16,
        is_grey=channels == 1 and page.samplesperpixel < 3 and not is_palette,
        orientation=_orientation(page),
        white=_declared_white(page),
        has_alpha=has_alpha(page),
        icc_profile=icc_profile(page),
    )


def page_values(path: Path, page: tifffile.TiffPage) -> tuple[NDArray[Any], float]:
    """Values (H, W, C) of a page, 0 for black, and the value of full scale."""
    if page.compression == tifffile.COMPRESSION.JPEG:
        _check_jpeg_ends(path, page)
    array, full_scale = page.asarray(), _full_scale(path, page)
    axes = page.axes
    array = np.moveaxis(array, axes.index("S"), -1) if "S" in axes else array[..., None]
    if array.shape[:2] != (page.imagelength, page.imagewidth):
        raise InputError(f"{path}: lacks pixels. Export it again.")
    kind = array.dtype.kind
    if page.photometric == _PHOTOMETRIC.PALETTE:
        return _through_palette(path, page, array[..., 0])
    if kind == "i" and not (array.min() >= 0 and array.max() > 0):
        raise InputError(
            f"{path}: {page.bitspersample}-bit signed pixels from {array.min()} to {array.max()}, "
            "whose white level is not defined; expected counts from 0 on. Save it as 16-bit (Fiji: "
            "Image > Type > 16-bit)."
        )
    declared = _declared_range(page)
    if declared is not None and page.bitspersample > 16:
        low, high = declared
        # NaN fails both comparisons.
        if not (array.min() >= low and array.max() <= high):
            raise InputError(
                f"{path}: values from {array.min():g} to {array.max():g}, but the file declares "
                f"{low:g} to {high:g}. Save it as 16-bit (Fiji: Image > Type > 16-bit)."
            )
        array = (array.astype(np.float64) - low) / (high - low)
    if page.photometric == _PHOTOMETRIC.MINISWHITE:
        grey = np.subtract(full_scale, array[..., :1], dtype=np.float32)
        array = np.concatenate([grey, array[..., 1:]], axis=-1)
    return array, full_scale


def has_alpha(page: tifffile.TiffPage) -> bool:
    """Whether the only sample of a page beyond its colours is alpha."""
    return tuple(page.extrasamples) in ((1,), (2,))


def icc_profile(page: tifffile.TiffPage) -> bytes | None:
    """The ICC profile of a page; None without one."""
    tag = page.tags.get(_ICC_TAG)
    return None if tag is None else bytes(tag.value)


def check_page(path: Path, page: tifffile.TiffPage) -> None:
    """Check the size and the places of a page's data, before it is decoded.

    Raises:
        InputError: too large, in blocks of several planes, or data that are not in the file.
    """
    if page.dtype is None or not set(page.axes) <= set("YXS") or min(page.shape, default=0) < 1:
        raise InputError(
            f"{path}: a page of axes {page.axes or 'unknown'} and shape {page.shape}; expected an "
            "image. Export it again."
        )
    size, file_bytes = page.nbytes, page.parent.filehandle.size
    if size > min(_MOST_BYTES, max(_MOST_SMALL_BYTES, _MOST_PACKING * file_bytes)):
        raise InputError(
            f"{path}: declares {page.imagewidth}x{page.imagelength} pixels, {size / 1e9:.1f} GB, "
            f"in a file of {file_bytes / 1e6:.3g} MB. Export the frame again, or leave it out."
        )
    segments = math.prod(page.chunked)
    places = list(zip(page.dataoffsets, page.databytecounts, strict=False))[:segments]
    ends = [offset + count for offset, count in places if offset > 0 and count > 0]
    # Rounding down suits packed bits and unfinished last strips of every kind.
    least = page.imagelength * page.imagewidth * page.samplesperpixel * page.bitspersample // 8
    unpacked = page.compression == tifffile.COMPRESSION.NONE
    if (
        len(ends) < min(segments, len(page.dataoffsets) if page.is_contiguous else segments)
        or max(ends, default=0) > file_bytes
        or (unpacked and sum(count for _, count in places) < least)
    ):
        raise InputError(f"{path}: {_CUT_OFF}")


def _check_jpeg_ends(path: Path, page: tifffile.TiffPage) -> None:
    """Refuse JPEG data that are cut off, for which the decoder makes up grey pixels."""
    file = page.parent.filehandle
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset + max(count - 16, 0))
        if not file.read(min(count, 16)).rstrip(b"\0").endswith(b"\xff\xd9"):
            raise InputError(f"{path}: {_CUT_OFF}")


def differences(first: tifffile.TiffPage, page: tifffile.TiffPage) -> str:
    """How the kind of a page differs from that of the first; empty if it does not."""

    def kind(one: tifffile.TiffPage) -> tuple[str, ...]:
        return (
            f"{one.shape} {one.dtype}",
            f"{one.bitspersample} bits",
            str(getattr(one.photometric, "name", one.photometric)),
            f"axes {one.axes}",
            f"range {_declared_range(one)}" if one.bitspersample > 16 else "",
        )

    pairs = zip(kind(first), kind(page), strict=True)
    return next((f"{one} and {other}" for one, other in pairs if one != other), "")


def _full_scale(path: Path, page: tifffile.TiffPage) -> float:
    """The value that becomes 1, of values that start at 0."""
    kind, bits = getattr(page.dtype, "kind", ""), page.bitspersample
    if kind == "b" or (kind == "u" and bits <= 16):
        return float(2**bits - 1)
    if kind == "i" and bits in (8, 16):
        return float(2**bits - 1)  # counts keep their values in an unsigned file
    if kind in "fui" and kind and _declared_range(page) is not None:
        return 1.0
    raise InputError(
        f"{path}: {bits}-bit {_KINDS.get(kind, '')} pixels, whose white level is not defined; "
        "expected unsigned 8 or 16-bit. Save it as 16-bit (Fiji: Image > Type > 16-bit)."
    )


def _declared_range(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """Black and white that the tags of a page declare; None without a white above black."""
    low, high = _tag_value(page, _MIN_SAMPLE_TAGS, min), _tag_value(page, _MAX_SAMPLE_TAGS, max)
    low = 0.0 if low is None else low
    return None if high is None or not low < high else (low, high)


def _declared_white(page: tifffile.TiffPage) -> float | None:
    """Declared white as a share of the container; None if it is the whole, or not declared."""
    declared, container = _declared_range(page), 2**page.bitspersample - 1
    if declared is None or page.bitspersample > 16 or declared[1] >= container:
        return None
    return declared[1] / container


def _tag_value(page: tifffile.TiffPage, codes: tuple[int, ...], choose: Any) -> float | None:
    """The value of the first tag that is present and finite; one for all channels.

    Some writers describe a stack on its first page alone.
    """
    for tags, code in itertools.product((page.tags, page.parent.pages.first.tags), codes):
        tag = tags.get(code)
        values = np.ravel(tag.value) if tag is not None else np.empty(0)
        if values.size and values.dtype.kind in "uif" and np.isfinite(values).all():
            return float(choose(values.tolist()))
    return None


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(_ORIENTATION_TAG)
    return valid_orientation(tag.value) if tag is not None else 1


def _through_palette(
    path: Path, page: tifffile.TiffPage, indices: NDArray[Any]
) -> tuple[NDArray[Any], float]:
    """Colours (H, W, 3) of indices (H, W), and the value of full scale."""
    colours: NDArray[Any] | None = page.colormap
    if colours is None or colours.ndim != 2 or colours.shape[0] != 3 or colours.min() < 0:
        raise InputError(f"{path}: palette colours without a palette. Export it as RGB.")
    if int(indices.max()) >= colours.shape[1]:
        raise InputError(
            f"{path}: colour {int(indices.max())} of a palette of {colours.shape[1]}. Export it "
            "as RGB."
        )
    # The standard has 16 bits. Writers fill them with 256 or 257 times 8 bits, or store just 8.
    if colours.max() > 255:
        colours = colours >> 8
    return np.moveaxis(colours[:, indices], 0, -1), 255.0
