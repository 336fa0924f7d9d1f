"""TIFF: single images and z-stacks, of one file or of a set of OME-TIFFs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
)
from focaldiffusion.io.encoding import profile_curves, srgb_encoded
from focaldiffusion.io.ome import OmeImage, Plane, read_ome
from focaldiffusion.io.tiff_pages import (
    check_page,
    differences,
    has_alpha,
    icc_profile,
    page_header,
    page_values,
)
from focaldiffusion.io.z_axis import ZAxis, imagej_axis, ome_axis

# The error reports what is wrong with a file; keep tifffile's log off standard error.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_FRAME_AXES = "ZIQ"
"""Axes that may count frames: z, and the unnamed ones of plain multi-page files."""


@dataclass(frozen=True)
class TiffStack:
    """Where the frames of a TIFF are.

    Attributes:
        header: header of every frame.
        files: the file of each frame; one, repeated, unless an OME set has several.
        pages: for each frame, the pages of its file that make it, from 0: one, or three when red,
            green and blue are pages of their own.
        z_axis: stage positions of the frames.
    """

    header: ImageHeader
    files: tuple[Path, ...]
    pages: tuple[tuple[int, ...], ...]
    z_axis: ZAxis

    def chosen(self, kept: Sequence[int]) -> TiffStack:
        """The stack of some of its frames."""
        positions_m = self.z_axis.positions_m
        if positions_m is not None:
            positions_m = tuple(positions_m[index] for index in kept)
        return TiffStack(
            self.header,
            tuple(self.files[index] for index in kept),
            tuple(self.pages[index] for index in kept),
            replace(self.z_axis, positions_m=positions_m),
        )


def is_ome_set(path: Path) -> bool:
    """Whether a file is one of several OME-TIFFs that together are one stack."""
    with _opened(path) as tif:
        if not tif.is_ome:
            return False
        image = read_ome(path, tif.ome_metadata or "", len(tif.pages))
        return any(plane is not None and plane.file != path for plane in image.planes)


def probe_tiff(path: Path) -> TiffStack:
    """Find the frames of a TIFF without decoding them.

    Every page is checked against the first: its size, its kind of pixels, and that its data are in
    the file.

    Raises:
        InputError: not a TIFF, pixels without a white level, axes other than z and colour, or
            pages that differ or are not there.
    """
    with _opened(path) as tif:
        _check_last_page(path, tif)
        image = read_ome(path, tif.ome_metadata or "", len(tif.pages)) if tif.is_ome else None
        if image is None:
            planes, leading, lengths = _series_planes(path, tif)
        else:
            planes, leading, lengths = image.planes, image.axes, image.lengths
        frames = _frames(path, leading, lengths, planes)
        return TiffStack(
            _checked_header(path, tif, frames, image),
            tuple(frame[0].file for frame in frames),
            tuple(tuple(plane.page for plane in frame) for frame in frames),
            _z_axis(tif, image, len(frames)),
        )


def _checked_header(
    path: Path,
    tif: tifffile.TiffFile,
    frames: Sequence[tuple[Plane, ...]],
    image: OmeImage | None,
) -> ImageHeader:
    """The header of all frames, whose pages are checked against the first."""
    first = header = None
    with ExitStack() as opened:
        current = (path, tif)
        for frame in frames:
            file = frame[0].file
            if any(plane.file != file for plane in frame):
                raise InputError(
                    f"{path}: red, green and blue are in different files. Save one file for each "
                    "plane, with its colours."
                )
            if file != current[0]:
                opened.close()  # a set may have more files than may be open
                current = (file, tif if file == path else opened.enter_context(_member(path, file)))
            for plane in frame:
                page = _page(*current, plane.page)
                check_page(file, page)
                found = page_header(file, page, channels=len(frame))
                if first is None or header is None:
                    first, header = page, found
                elif told := differences(first, page):
                    raise InputError(
                        f"{file}: pages of different sizes or kinds ({told}). All frames need one "
                        "size and kind; crop them, or leave those pages out."
                    )
                header = replace(header, white=_larger(header.white, found.white))
    assert first is not None
    assert header is not None
    return _with_significant_bits(header, image, first.bitspersample)


def read_tiff(
    path: Path, pages: tuple[int, ...], *, orientation: int | None = None
) -> NDArray[np.float32]:
    """Decode one frame of a TIFF.

    Args:
        path: the file.
        pages: the pages that make the frame, as in `TiffStack.pages`.
        orientation: the EXIF orientation to apply instead of the file's own.

    Returns:
        (H, W, 3) float32 in [0, 1], value / (2^bits - 1), or as a share of the declared range
        where the bits define none; without premultiplied alpha; curves unlike sRGB's are converted.

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
    with _opened(path) as tif:
        planes = []
        for index in pages:
            page = _page(path, tif, index)
            check_page(path, page)
            planes.append(page_values(path, page))
        if orientation is None:
            orientation = page_header(path, page, channels=len(pages)).orientation
        curves = profile_curves(icc_profile(page))
    values, full_scale = planes[0]
    if len(planes) > 1:
        values = np.stack([one[..., 0] for one, _ in planes], axis=-1)
    rgb = unit_rgb(values, full_scale)
    alpha = unit_alpha(values, full_scale) if has_alpha(page) else None
    if alpha is None:
        return upright(srgb_encoded(rgb, curves), orientation), None
    if page.extrasamples[0] == tifffile.EXTRASAMPLE.ASSOCALPHA:
        rgb = np.minimum(rgb / np.maximum(alpha, np.float32(1 / full_scale))[..., None], 1)
    return upright(srgb_encoded(rgb, curves), orientation), upright(alpha, orientation)


def tiff_icc_profile(path: Path) -> bytes | None:
    """The ICC profile of the first page, None without one."""
    with _opened(path) as tif:
        return icc_profile(_page(path, tif, 0))


@contextmanager
def _opened(path: Path) -> Iterator[tifffile.TiffFile]:
    """The open file."""
    with decoding(path), tifffile.TiffFile(path) as tif:
        yield tif


@contextmanager
def _member(path: Path, file: Path) -> Iterator[tifffile.TiffFile]:
    """Another file of the set that a file belongs to."""
    if not file.is_file():
        raise InputError(
            f"{path}: belongs to a set of OME-TIFF files, and {file.name} is absent. Put all "
            "files of the set into one folder, under their own names."
        )
    with _opened(file) as tif:
        yield tif


def _page(path: Path, tif: tifffile.TiffFile, index: int) -> tifffile.TiffPage:
    """A page with tags of its own."""
    with decoding(path):
        try:
            page = tif.pages[index]
        except IndexError:
            raise InputError(
                f"{path}: page {index + 1} is missing. Export the stack again."
            ) from None
        return page if isinstance(page, tifffile.TiffPage) else page.aspage()


def _series_planes(
    path: Path, tif: tifffile.TiffFile
) -> tuple[Sequence[Plane | None], str, tuple[int, ...]]:
    """Pages of a file without OME-XML, with the names and lengths of the axes that count them.

    Thumbnails and pyramid levels are passed over.
    """
    series, *others = tif.series
    extra = [one for one in others if not one.keyframe.is_reduced]
    page_axes = series.keyframe.axes
    leading, lengths = series.axes[: len(series.axes) - len(page_axes)], series.shape
    if not series.axes.endswith(page_axes) or not set(page_axes) <= set("YXS"):
        raise InputError(
            f"{path}: axes {series.axes} are stored in blocks; save one page for each plane."
        )
    if series.is_truncated:
        raise InputError(
            f"{path}: lists only its first page of {series.shape[0]}, as ImageJ writes above "
            "4 GB, or is cut off. Save it as an image sequence (Fiji: File > Save As > Image "
            "Sequence)."
        )
    lengths = series.shape[: len(leading)]
    if not extra:
        count = math.prod(lengths)
        if count > len(tif.pages):
            raise InputError(
                f"{path}: declares {count} planes, but has {len(tif.pages)} pages. Export the "
                "stack again."
            )
        pages = [series.pages[index] for index in range(count)]
    else:
        pages = _joined(path, series, extra)
        leading, lengths = "I", (len(pages),)
    return (
        [None if page is None else Plane(path, int(page.index)) for page in pages],
        leading,
        lengths,
    )


def _joined(
    path: Path, first: tifffile.TiffPageSeries, others: Sequence[tifffile.TiffPageSeries]
) -> list[Any]:
    """The pages of several series of a page each, as some writers leave them."""
    for one in others:
        if told := differences(first.keyframe, one.keyframe):
            raise InputError(
                f"{path}: pages of different sizes or kinds ({told}). All frames need one size "
                "and kind; crop them, or leave those pages out."
            )
        if len(one.pages) > 1:
            raise InputError(
                f"{path}: several stacks, one of {len(one.pages)} pages. Save each stack as a "
                "file of its own."
            )
    if len(first.pages) > 1:
        raise InputError(
            f"{path}: a stack of {len(first.pages)} pages and {len(others)} other pages. Leave "
            "those out, or save the stack as a file of its own."
        )
    return [one.pages[0] for one in (first, *others)]


def _check_last_page(path: Path, tif: tifffile.TiffFile) -> None:
    """Refuse a file that is cut off: its last page points to another, which is not there."""
    if len(tif.pages) == 0:
        raise InputError(f"{path}: cannot be read as an image (it has no page). Export it again.")
    place = tif.pages.next_page_offset
    if place is None:
        return
    tif.filehandle.seek(place)
    if any(tif.filehandle.read(tif.tiff.offsetsize)):
        raise InputError(
            f"{path}: is cut off: page {len(tif.pages) + 1} should follow, but is not in the file. "
            "Copy or export the stack again."
        )


def _frames(
    path: Path, leading: str, lengths: tuple[int, ...], planes: Sequence[Plane | None]
) -> list[tuple[Plane, ...]]:
    """Split planes, counted along the `leading` axes, into frames."""
    frames: list[tuple[Plane, ...]] = []
    for indices in _frame_pages(path, leading, lengths):
        frame = [planes[index] for index in indices]
        if None in frame:
            raise InputError(
                f"{path}: the page of frame {len(frames) + 1} is missing. Export the stack again."
            )
        frames.append(tuple(plane for plane in frame if plane is not None))
    return frames


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
        stored = ""
        if not set(long_axes) & set(_FRAME_AXES):
            stored = (
                "; if z was stored as channels, re-order it (Fiji: Image > Hyperstacks > "
                "Re-order Hyperstack)"
            )
        raise InputError(
            f"{path}: {channels} channels; expected 1 (grey) or 3 (red, green, blue). "
            f"Keep the channel that shows the structure{stored}."
        )
    indices = np.arange(math.prod(lengths)).reshape(lengths)
    if "C" in leading:
        indices = np.moveaxis(indices, leading.index("C"), -1)
    return tuple(tuple(frame) for frame in indices.reshape(-1, channels).tolist())


def _larger(one: float | None, other: float | None) -> float | None:
    """The larger of two declared whites; None, for the whole container, wins."""
    return None if one is None or other is None else max(one, other)


def _with_significant_bits(
    header: ImageHeader, image: OmeImage | None, stored_bits: int
) -> ImageHeader:
    """The header with the white of OME's SignificantBits, unless a page declares one."""
    bits = None if image is None else image.significant_bits
    if bits is None or header.white is not None or not 0 < bits < stored_bits <= 16:
        return header
    return replace(header, white=(2**bits - 1) / (2**stored_bits - 1))


def _z_axis(tif: tifffile.TiffFile, image: OmeImage | None, frame_count: int) -> ZAxis:
    """Stage positions of the frames."""
    if frame_count < 2:
        return ZAxis()
    if image is not None:
        return ome_axis(image.pixels, image.positions, frame_count)
    if tif.is_imagej:
        return imagej_axis(tif.imagej_metadata or {}, frame_count)
    return ZAxis()
