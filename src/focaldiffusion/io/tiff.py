"""TIFF: single images, and multi-page z-stacks with their step (OME-XML, ImageJ)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.decoding import (
    ImageHeader,
    check_visible,
    decoding,
    unit_alpha,
    unit_rgb,
    upright,
    valid_orientation,
)
from focaldiffusion.io.encoding import profile_curves, srgb_encoded

# The error reports what is wrong with a file; keep tifffile's log off standard error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_ORIENTATION_TAG, _ICC_TAG = 0x0112, 0x8773
_FRAME_AXES = "ZIQ"
"""Axes that may count frames: z, and the unnamed ones of plain multi-page files."""

_KINDS = {"f": "float", "i": "signed", "u": "unsigned", "c": "complex", "b": "bilevel"}
"""Names of numpy's kinds of pixels, for messages."""

# The first three: with the micro sign, with the Greek mu, as ImageJ escapes it.
_MICROMETRES = ("µm", "μm", "\\u00b5m", "um", "micron", "microns", "micrometer")
_METRES = {"m": 1.0, "mm": 1e-3, "millimeter": 1e-3, "nm": 1e-9, "nanometer": 1e-9}
_METRES |= dict.fromkeys(_MICROMETRES, 1e-6)


@dataclass(frozen=True)
class TiffStack:
    """Where the frames of a TIFF are.

    Attributes:
        header: header of every frame.
        pages: for each frame, the pages of the first series that make it: one, or three when red,
            green and blue are pages of their own.
        step_m: distance between frames [m], None when the file does not say.
        step_tag: source of the step.
    """

    header: ImageHeader
    pages: tuple[tuple[int, ...], ...]
    step_m: float | None = None
    step_tag: str = ""


def probe_tiff(path: Path) -> TiffStack:
    """Find the frames of a TIFF without decoding them.

    Raises:
        InputError: not a TIFF, not 8 or 16-bit grey or RGB, axes other than z and colour, or pages
            that are not there.
    """
    with _opened(path) as (tif, series):
        _check_last_page(path, tif)
        page_axes = series.keyframe.axes
        leading = series.axes[: len(series.axes) - len(page_axes)]
        if not series.axes.endswith(page_axes) or not set(page_axes) <= set("YXS"):
            raise InputError(
                f"{path}: axes {series.axes} are stored in blocks; save one page for each plane."
            )
        pages = _frame_pages(path, leading, series.shape[: len(leading)])
        if series.is_truncated:
            raise InputError(
                f"{path}: lists only its first page of {series.shape[0]}, as ImageJ writes above "
                "4 GB, or is cut off. Save it as an image sequence (Fiji: File > Save As > Image "
                "Sequence)."
            )
        header = _page_header(path, series.keyframe, channels=len(pages[0]))
        step_m, step_tag = _z_step(tif) if len(pages) > 1 else (None, "")
        return TiffStack(header, pages, step_m, step_tag)


def read_tiff(
    path: Path, pages: tuple[int, ...], *, orientation: int | None = None
) -> NDArray[np.float32]:
    """Decode one frame of a TIFF.

    Args:
        path: the file.
        pages: the pages that make the frame, as in `TiffStack.pages`.
        orientation: the EXIF orientation to apply instead of the file's own.

    Returns:
        (H, W, 3) float32 in [0, 1], value / (2^bits - 1), without premultiplied alpha; curves
        unlike sRGB's are converted.

    Raises:
        InputError: the pages cannot be decoded.
    """
    return _read(path, pages, orientation)[0]


def read_tiff_alpha(
    path: Path, pages: tuple[int, ...], *, orientation: int | None = None
) -> NDArray[np.float32] | None:
    """Alpha (H, W) in [0, 1] of one frame of a TIFF; None where every pixel is opaque.

    Raises:
        InputError: the pages cannot be decoded, or the frame is transparent everywhere.
    """
    alpha = _read(path, pages, orientation)[1]
    if alpha is not None:
        check_visible(str(path), alpha)
    return alpha


def _read(
    path: Path, pages: tuple[int, ...], orientation: int | None
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Colours and alpha of one frame, see `read_tiff` and `read_tiff_alpha`."""
    with _opened(path) as (_, series):
        keyframe = series.keyframe
        planes = [_page_array(path, series, index) for index in pages]
        array = planes[0] if len(planes) == 1 else np.stack([p[..., 0] for p in planes], axis=-1)
        full_scale = 2**keyframe.bitspersample - 1
        alpha = unit_alpha(array, full_scale) if _has_alpha(keyframe) else None
        if keyframe.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            array = full_scale - array
        if orientation is None:
            orientation = _orientation(keyframe)
        rgb = unit_rgb(array, full_scale)
        if alpha is None:
            return upright(_as_srgb(rgb, keyframe), orientation), None
        if keyframe.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA:
            rgb = np.minimum(rgb / np.maximum(alpha, np.float32(1 / full_scale))[..., None], 1)
        return upright(_as_srgb(rgb, keyframe), orientation), upright(alpha, orientation)


def _has_alpha(page: tifffile.TiffPage) -> bool:
    """Whether the only sample of a page beyond its colours is alpha."""
    return tuple(page.extrasamples) in ((1,), (2,))


def _as_srgb(rgb: NDArray[np.float32], page: tifffile.TiffPage) -> NDArray[np.float32]:
    tag = page.tags.get(_ICC_TAG)
    return srgb_encoded(rgb, profile_curves(None if tag is None else bytes(tag.value)))


def tiff_icc_profile(path: Path) -> bytes | None:
    """The ICC profile of the first page, None without one."""
    with _opened(path) as (_, series):
        tag = series.keyframe.tags.get(_ICC_TAG)
        return None if tag is None else bytes(tag.value)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[tifffile.TiffFile, tifffile.TiffPageSeries]]:
    """The open file and its frames as one series; thumbnails and pyramid levels are passed over."""
    with decoding(path), tifffile.TiffFile(path) as tif:
        series, *others = tif.series
        extra = [one for one in others if not one.keyframe.is_reduced]
        if extra and tif.is_ome:
            raise InputError(
                f"{path}: {1 + len(extra)} OME images (positions or scenes); expected one. "
                "Save each as a file of its own."
            )
        yield tif, _joined(path, series, extra) if extra else series


def _joined(
    path: Path, first: tifffile.TiffPageSeries, others: Sequence[tifffile.TiffPageSeries]
) -> tifffile.TiffPageSeries:
    """One series from several alike ones of a page each, as some writers leave them."""
    key = first.keyframe
    for one in others:
        page = one.keyframe
        same = (page.shape, page.dtype) == (key.shape, key.dtype)
        if not same or page.photometric != key.photometric or len(one.pages) > 1:
            raise InputError(
                f"{path}: pages of different sizes or kinds ({key.shape} {key.dtype} and "
                f"{page.shape} {page.dtype}). All frames need one size; crop them, or leave those "
                "pages out."
            )
    pages = [one.pages[0] for one in (first, *others)]
    if len(first.pages) > 1:
        raise InputError(
            f"{path}: a stack of {len(first.pages)} pages and {len(others)} other pages. Leave "
            "those out, or save the stack as a file of its own."
        )
    return tifffile.TiffPageSeries(
        pages, shape=(len(pages), *key.shape), dtype=key.dtype, axes=f"I{key.axes}"
    )


def _check_last_page(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a file that is cut off: its last page points to another, which is not there."""
    place = tif.pages.next_page_offset
    if place is None:
        return
    tif.filehandle.seek(place)
    if any(tif.filehandle.read(tif.tiff.offsetsize)):
        raise InputError(
            f"{path}: is cut off: page {len(tif.pages) + 1} should follow, but is not in the file. "
            "Copy or export the stack again."
        )


def _frame_pages(path: Path, leading: str, lengths: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """Split the pages, counted along the `leading` axes, into frames."""
    long_axes = {axis: n for axis, n in zip(leading, lengths, strict=True) if n > 1}
    if len(long_axes) < sum(n > 1 for n in lengths):
        raise InputError(
            f"{path}: several unnamed axes of lengths {lengths}; expected one. "
            "Save one page for each frame."
        )
    other = {axis: n for axis, n in long_axes.items() if axis not in (*_FRAME_AXES, "C")}
    if other:
        names = ", ".join(f"{axis} = {n}" for axis, n in other.items())
        raise InputError(
            f"{path}: axes other than z and colour ({names}). Save one z-stack; if z was "
            "stored as time, re-order it (Fiji: Image > Properties, slices and frames)."
        )
    if len(set(long_axes) & set(_FRAME_AXES)) > 1:
        raise InputError(f"{path}: axes {leading} of lengths {lengths}; expected one focus axis.")
    channels = long_axes.get("C", 1)
    if channels not in (1, 3):
        raise InputError(
            f"{path}: {channels} channels; expected 1 (grey) or 3 (red, green, blue). "
            "Keep the channel that shows the structure."
        )
    indices = np.arange(math.prod(lengths)).reshape(lengths)
    if "C" in leading:
        indices = np.moveaxis(indices, leading.index("C"), -1)
    return tuple(tuple(frame) for frame in indices.reshape(-1, channels).tolist())


def _page_header(path: Path, page: tifffile.TiffPage, channels: int) -> ImageHeader:
    """The header of a page; refuses pixels whose white level is not defined."""
    if page.dtype is None or page.dtype.kind != "u" or page.bitspersample > 16:
        raise InputError(
            f"{path}: {page.bitspersample}-bit {_KINDS.get(getattr(page.dtype, 'kind', ''), '')} "
            "pixels, whose white level is not defined; expected unsigned 8 or 16-bit. "
            "Save it as 16-bit (Fiji: Image > Type > 16-bit)."
        )
    kinds = tifffile.PHOTOMETRIC
    grey = page.photometric in (kinds.MINISBLACK, kinds.MINISWHITE)
    colour = page.photometric == kinds.RGB or (
        # tifffile converts YCbCr to RGB for JPEG compression only.
        page.photometric == kinds.YCBCR
        and page.compression in (tifffile.COMPRESSION.JPEG, tifffile.COMPRESSION.OJPEG)
    )
    if not (grey or colour) or (channels == 3 and page.samplesperpixel > 2):
        raise InputError(
            f"{path}: {getattr(page.photometric, 'name', page.photometric)} colours with "
            f"{page.samplesperpixel * channels} channels; expected grey or RGB. Export it as RGB."
        )
    return ImageHeader(
        stored_size=(page.imagelength, page.imagewidth),
        bit_depth=8 if page.bitspersample <= 8 else 16,
        is_grey=channels == 1 and page.samplesperpixel < 3,
        orientation=_orientation(page),
        has_alpha=_has_alpha(page),
        icc_profile=None if _ICC_TAG not in page.tags else bytes(page.tags[_ICC_TAG].value),
    )


def _orientation(page: tifffile.TiffPage) -> int:
    tag = page.tags.get(_ORIENTATION_TAG)
    return valid_orientation(int(tag.value)) if tag is not None else 1


def _page_array(path: Path, series: tifffile.TiffPageSeries, index: int) -> NDArray[Any]:
    """Page `index` of the series as (H, W, C)."""
    page = series.pages[index]
    if page is None:
        raise InputError(f"{path}: page {index + 1} is missing. Export the stack again.")
    array = page.asarray()
    axes = series.keyframe.axes
    if "S" in axes:
        return np.moveaxis(array, axes.index("S"), -1)
    return array[..., None]


def _z_step(tif: tifffile.TiffFile) -> tuple[float | None, str]:
    """The distance between z planes [m], and its tag."""
    if tif.is_ome:
        # The OME schema's default unit of PhysicalSizeZ is the micrometre.
        root = ElementTree.fromstring(tif.ome_metadata or "<OME/>")
        for element in root.iter():
            if element.tag.endswith("}Pixels") and "PhysicalSizeZ" in element.attrib:
                unit = element.get("PhysicalSizeZUnit", "µm")
                return _in_metres(element.attrib["PhysicalSizeZ"], unit), "OME PhysicalSizeZ"
    elif tif.is_imagej:
        metadata = tif.imagej_metadata or {}
        if "spacing" in metadata:
            return _in_metres(metadata["spacing"], metadata.get("unit", "")), "ImageJ spacing"
    return None, ""


def _in_metres(value: Any, unit: str) -> float | None:
    """A length in metres; None for zero, nonsense and units such as pixels."""
    try:
        length_m = float(value) * _METRES[unit.strip().lower()]
    except (KeyError, ValueError):
        return None
    # ImageJ writes negative spacings for stacks taken downwards; the sign carries the direction.
    return length_m if math.isfinite(length_m) and length_m != 0 else None
