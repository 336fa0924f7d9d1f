"""Opening a focal stack: a folder, a list of files, one multi-page TIFF, or arrays.

All mistakes in the input are found here, before anything is computed, except pixels that do not
decode: those are found when the frame is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from focaldiffusion.errors import InputError
from focaldiffusion.frames import FrameSource
from focaldiffusion.io.arrays import Array, ArrayFrames, holds_arrays
from focaldiffusion.io.exif import FrameRecord, read_exif
from focaldiffusion.io.facts import (
    GIVEN,
    Focus,
    Origin,
    check_distances,
    doubtful_positions,
    recorded_focus,
    resolve_lens,
    written_focus,
)
from focaldiffusion.io.frame_files import FileFrames, Found, find_frames, open_frames
from focaldiffusion.io.frame_order import (
    FrameOrder,
    check_needed,
    check_order,
    in_order,
    may_sort,
)
from focaldiffusion.io.images import (
    ImageMetadata,
    read_metadata,
)
from focaldiffusion.io.levels import LevelledFrames, Levels
from focaldiffusion.io.tiff import TiffStack
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera


@dataclass(frozen=True, eq=False)
class OpenedStack:
    """A checked focal stack, with its lens and focus settings as far as they are known.

    Attributes:
        name: for output folders and messages.
        frames: the native frames, normalised by `levels`, read one at a time.
        files: the file of each frame; one multi-page TIFF repeats; none for arrays.
        lens: the lens as far as it is known; `camera_for` makes the camera.
        focus_distances_m: lens to plane of sharp focus of each frame [m], None when unknown.
        focus_positions_m: stage position of each frame [m], None when unknown.
        focus_uncertainty_dpt: half-width of each focus distance's interval [dpt]; None where the
            distances were written by a person, or are unknown.
        origins: the origin of each lens value, of `camera`, and of `focus_distances_m` or
            `focus_positions_m`.
        findings: sentences about what was found doubtful when the stack was opened.
        order: what decides on the order of the frames, see `open_stack`. Where the frames decide,
            they still are in the order of their names here.
    """

    name: str
    frames: FrameSource
    files: tuple[Path, ...]
    lens: LensFacts = field(default_factory=LensFacts)
    focus_distances_m: tuple[float, ...] | None = None
    focus_positions_m: tuple[float, ...] | None = None
    focus_uncertainty_dpt: tuple[float, ...] | None = None
    origins: dict[str, Origin] = field(default_factory=dict)
    findings: tuple[str, ...] = ()
    order: FrameOrder = "auto"

    def __len__(self) -> int:
        return len(self.frames.names)

    @property
    def levels(self) -> Levels:
        """Black and white of the stack; reads at least one frame the first time."""
        return self.frames.levels if isinstance(self.frames, LevelledFrames) else Levels()

    @property
    def is_order_only(self) -> bool:
        """Whether neither focus distances nor positions are known."""
        return self.focus_distances_m is None and self.focus_positions_m is None

    @property
    def lacks(self) -> tuple[str, ...]:
        """The unknowns of lens and focus, and why, one clause each."""
        unknown = {name: origin for name, origin in self.origins.items() if not origin.is_known}
        return tuple(f"{name} {origin}" for name, origin in unknown.items())

    def camera_for(self, reference_index: int = 0) -> Camera | None:
        """The camera at native size, at the focus of the frame whose scale the stack takes.

        None unless the focal length in pixels is known. Without an aperture where that is
        unknown; focused at infinity where the focus distance is.
        """
        distances_m = self.focus_distances_m
        focus_m = math.inf if distances_m is None else distances_m[reference_index]
        return self.lens.camera(self.frames.size, focus_m)

    def metadata_for(self, reference_index: int = 0) -> ImageMetadata:
        """ICC profile and EXIF of the reference frame, for the output."""
        return read_metadata(self.files[reference_index]) if self.files else ImageMetadata()


def open_stack(
    source: str | Path | Sequence[str | Path] | Array | Sequence[Array],
    *,
    focus_distances_m: Sequence[float] | None = None,
    focus_positions_m: Sequence[float] | None = None,
    lens: LensFacts | None = None,
    order: FrameOrder = "auto",
) -> OpenedStack:
    """Open a focal stack and check it.

    The given values override those of `stack.json`, which override EXIF.

    One orientation, that of the first frame's EXIF, is applied to all frames: a camera that
    looks straight down writes it at random, and frames turned differently would not align.

    Args:
        source: a folder of frames (in natural order, or as its `stack.json` lists them), one
            multi-page TIFF, the files of the frames in order, or the frames as arrays, see
            `ArrayFrames`.
        focus_distances_m: lens to plane of sharp focus of each frame [m], infinity allowed.
        focus_positions_m: stage or rail position of each frame [m]; excludes distances.
        lens: the lens as far as it is known.
        order: what decides on the order of the frames, which matters where their focus is
            unknown. "given" keeps them as listed, or in natural order of names; "name" is natural
            order; "time" that of EXIF DateTimeOriginal; "focus" that in which the frames are found
            to rise and fall in sharpness. "auto" takes a list as it is and a folder by name,
            unless times of capture or a camera's numbers that start again contradict the names,
            or the frames themselves do beyond doubt; a finding says so.

    Raises:
        InputError: one sentence with the mistake, its place and the remedy.
    """
    check_order(order)
    given = lens or LensFacts()
    findings: tuple[str, ...] = ()
    if holds_arrays(source):
        frames: FrameSource = ArrayFrames(source)  # type: ignore[arg-type]
        found, tiff = Found("stack", ()), None
        white = None
    else:
        found = find_frames(source)  # type: ignore[arg-type]
        frames, tiff = open_frames(found)
        white = frames.declared_white
        findings = found.findings + frames.findings
    count = len(frames.names)
    focus = written_focus(focus_distances_m, focus_positions_m, count, GIVEN, "given")
    focus = focus or found.focus(count) or _tiff_focus(tiff)
    lens, origins = resolve_lens(given, found.sidecar, (), ())
    records: list[FrameRecord] = []
    if not isinstance(frames, FileFrames):
        focus = focus or Focus(Origin(None, "arrays have none; give them as an argument"))
    elif focus is None or lens.missing():
        records = read_exif(found.files, frames.size)
        names = [path.name for path in found.files]
        lens, origins = resolve_lens(given, found.sidecar, records, names)
        focus = focus or recorded_focus(records, names, lens.focal_length_m)
    assert focus is not None
    findings += doubtful_positions(focus, frames.names)
    if tiff and focus.origin.source == "TIFF":
        findings += tiff.z_axis.findings
    files = frames.files if isinstance(frames, FileFrames) else ()
    check_needed(order, found.name, focus, has_files=bool(files) and tiff is None)
    if isinstance(frames, FileFrames) and may_sort(order, focus, is_listed=found.is_listed):
        frames, departures = _sorted(frames, records, order)
        files, findings = frames.files, findings + departures
    opened = OpenedStack(
        name=found.name,
        frames=LevelledFrames(frames, white),
        files=files,
        lens=lens,
        focus_distances_m=focus.distances_m,
        focus_positions_m=focus.positions_m,
        focus_uncertainty_dpt=focus.uncertainty_dpt,
        origins={**origins, focus.name: focus.origin},
        findings=findings,
        order=order,
    )
    _check_lens(opened, focus)
    return opened


def _sorted(
    frames: FileFrames, records: Sequence[FrameRecord], order: FrameOrder
) -> tuple[FileFrames, tuple[str, ...]]:
    """The frames in another order if it differs, and what to say of it."""
    if order == "time" and not records:
        records = read_exif(frames.files, frames.size)
    indices, findings = in_order(frames.files, [record.taken for record in records], order)
    files = tuple(frames.files[index] for index in indices)
    names = tuple(frames.names[index] for index in indices)
    return replace(frames, files=files, names=names), findings


def _check_lens(opened: OpenedStack, focus: Focus) -> None:
    """Check that the lens can focus where it is said to, and blurs what it does not focus on."""
    nearest, place = 0, opened.name
    if focus.distances_m is not None:
        nearest = focus.distances_m.index(min(focus.distances_m))
        place = f"{focus.name} ({focus.origin})"
    try:
        check_distances(focus, opened.lens, opened.camera_for(nearest))
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _tiff_focus(tiff: TiffStack | None) -> Focus | None:
    """The stage positions of a z-stack; None for photographs."""
    if tiff is None:
        return None
    axis = tiff.z_axis
    if axis.positions_m is None:
        return Focus(Origin(None, axis.source))
    return Focus(Origin("TIFF", axis.source), positions_m=axis.positions_m)
