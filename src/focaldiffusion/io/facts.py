"""Lens and focus settings of a stack from all sources: given values over stack.json over EXIF.

Nothing is invented. Each value has its origin, and what stays unknown has the reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Literal

from focaldiffusion.errors import InputError
from focaldiffusion.focus import check_focus, focus_numbers
from focaldiffusion.io.exif import FrameRecord
from focaldiffusion.io.sidecar import Sidecar
from focaldiffusion.lens import LensFacts, mistaken_unit
from focaldiffusion.optics import Camera

EXIF_UNCERTAINTY_DPT = 0.05
"""The least uncertainty of a recorded focus distance: RealBokeh_3MP publishes 0.026-0.052 dpt."""

_LEAST_BLUR_PX = 0.05
"""Diameter of the blur between the outermost distances below which no frame shows any."""
_USUAL_BLUR_PX = (2.0, 100.0)
_LARGEST_MAGNIFICATION = 20.0  # macro lenses reach 5
_LEAST_STEP = 0.02  # of a stage, relative to the median


@dataclass(frozen=True)
class Origin:
    """Where a value comes from, or why it is unknown.

    Attributes:
        source: "given" by the caller, "EXIF" with XMP and maker notes; "several" for a value made
            of others; None where it is unknown.
        detail: the tags, or the reason; empty if the source alone suffices.
    """

    source: Literal["given", "stack.json", "EXIF", "TIFF", "several"] | None
    detail: str = ""

    @property
    def is_known(self) -> bool:
        """Whether there is a value."""
        return self.source is not None

    def __str__(self) -> str:
        if self.source is None:
            return f"unknown: {self.detail}"
        return self.detail or self.source


GIVEN, FROM_SIDECAR = Origin("given"), Origin("stack.json")


def resolve_lens(
    given: LensFacts,
    sidecar: Sidecar | None,
    records: Sequence[FrameRecord],
    names: Sequence[str],
) -> tuple[LensFacts, dict[str, Origin]]:
    """Merge what is known of the lens.

    EXIF values that differ between frames, or that some frames lack, are not used: the reason
    is reported.

    Args:
        given: by the caller.
        sidecar: content of `stack.json`, None without one.
        records: EXIF of each frame, empty when it is not needed.
        names: of the frames, for the reasons.

    Returns:
        The lens, and the origin of each value; that of `camera` names what it lacks, or the
        sources that it is made from.
    """
    recorded: dict[str, float] = {}
    origins: dict[str, Origin] = {}
    reasons: dict[str, str] = {}
    for name in ("focal_length_m", "f_number", "pixel_pitch_m") if records else ():
        value, text = _agreed(records, names, name)
        if value is None:
            reasons[name] = text
        else:
            recorded[name], origins[name] = value, Origin("EXIF", text)
    lens = LensFacts(**recorded)
    written = LensFacts() if sidecar is None else sidecar.camera or LensFacts()
    for facts, origin in ((written, FROM_SIDECAR), (given, GIVEN)):
        lens = facts.over(lens)
        origins |= dict.fromkeys(facts.values(), origin)
    origins = {name: origins[name] for name in lens.values()}
    return lens, {**origins, "camera": _camera_origin(lens, origins, reasons)}


def _camera_origin(lens: LensFacts, origins: dict[str, Origin], reasons: dict[str, str]) -> Origin:
    missing = lens.missing()
    if missing:
        why = "; ".join(dict.fromkeys(reasons[name] for name in missing if name in reasons))
        return Origin(None, f"no {', '.join(missing.values())}" + (f" ({why})" if why else ""))
    parts = [origins[name] for name in lens.parts()]
    same = {origin.source for origin in parts}
    text = ", ".join(dict.fromkeys(map(str, parts)))
    return Origin(same.pop() if len(same) == 1 else "several", text)


def _agreed(
    records: Sequence[FrameRecord], names: Sequence[str], name: str
) -> tuple[float | None, str]:
    """The value that all frames share and its tags, or None and the reason."""
    values = [getattr(record.lens, name) for record in records]
    if None in values:
        first = values.index(None)
        return None, f"{names[first]}: {records[first].reasons[name]}"
    tag = f"EXIF {records[0].tags[name]}"
    for frame, value in zip(names, values, strict=True):
        if not math.isclose(value, values[0], rel_tol=1e-6):
            return None, (
                f"{tag} differs between frames: {names[0]} gives {values[0]:g}, {frame} {value:g}"
            )
    return values[0], tag


@dataclass(frozen=True)
class Focus:
    """How the frames of a stack were focused.

    Attributes:
        origin: where the values come from, or why there are none.
        distances_m: lens to plane of sharp focus of each frame [m], None when unknown.
        positions_m: stage position of each frame [m], None when unknown.
        uncertainty_dpt: half-width of each distance's interval [dpt]; None where a person wrote
            the distances and no interval is known.
    """

    origin: Origin
    distances_m: tuple[float, ...] | None = None
    positions_m: tuple[float, ...] | None = None
    uncertainty_dpt: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """The key of its origin."""
        return "focus_distances_m" if self.positions_m is None else "focus_positions_m"


def written_focus(
    distances_m: Sequence[float] | None,
    positions_m: Sequence[float] | None,
    frame_count: int,
    origin: Origin,
    place: str,
) -> Focus | None:
    """The focus settings that a person wrote; None where there are none.

    Args:
        distances_m: lens to plane of sharp focus of each frame [m], infinity allowed.
        positions_m: stage or rail position of each frame [m]; excludes distances.
        frame_count: how many of them there must be.
        origin: of the values.
        place: name of their source in messages.

    Raises:
        InputError: they contradict the number of frames or each other.
    """
    given = {"focus_distances_m": distances_m, "focus_positions_m": positions_m}
    written = {
        name: focus_numbers(f"{place}: {name}", values)
        for name, values in given.items()
        if values is not None
    }
    if len(written) > 1:
        raise InputError(f"{place}: {' and '.join(written)} exclude each other; give one.")
    for name, values in written.items():
        try:
            check_focus(name, values, frame_count)
        except InputError as error:
            raise InputError(f"{place}: {error}") from None
    if not written:
        return None
    found = {name: tuple(values) for name, values in written.items()}
    return Focus(origin, found.get("focus_distances_m"), found.get("focus_positions_m"))


def check_distances(focus: Focus, lens: LensFacts, camera: Camera | None) -> None:
    """Check the focus distances that a person wrote against a known lens.

    Raises:
        InputError: the lens shows no blur between them, or comes too near to focus.
    """
    if focus.distances_m is None or focus.origin not in (GIVEN, FROM_SIDECAR):
        return
    nearest_m, farthest_m = min(focus.distances_m), max(focus.distances_m)
    focal_m = lens.focal_length_m
    if focal_m is not None and focal_m < nearest_m < focal_m * (1 + 1 / _LARGEST_MAGNIFICATION):
        raise InputError(
            f"{nearest_m:g} m is so near the focal length of {focal_m:g} m that "
            f"the magnification is {focal_m / (nearest_m - focal_m):.0f}, as of no lens. Check the "
            "units of both; distances count from the lens."
        )
    scale = None if camera is None else camera.blur_scale_px_m
    if scale is None:
        return
    blur_px = scale * (1 / nearest_m - 1 / farthest_m)
    if blur_px < _LEAST_BLUR_PX:
        least, most = (usual / max(blur_px, 1e-9) for usual in _USUAL_BLUR_PX)
        raise InputError(
            f"from {nearest_m:g} to {farthest_m:g} m this lens changes the blur "
            f"by {blur_px:.2g} px, which no frame shows; {mistaken_unit(least, most)}."
        )


def doubtful_positions(focus: Focus, names: Sequence[str]) -> tuple[str, ...]:
    """A sentence about stage positions that go back and forth, or are hardly apart."""
    if focus.positions_m is None:
        return ()
    steps_m = [after - before for before, after in pairwise(focus.positions_m)]
    forwards = sum(step > 0 for step in steps_m) >= len(steps_m) / 2
    back = [(step < 0) == forwards for step in steps_m]
    typical_m = median(map(abs, steps_m))
    close = [abs(step) < _LEAST_STEP * typical_m for step in steps_m]
    for wrong, words in ((back, "go back"), (close, "hardly move")):
        if any(wrong):
            at = wrong.index(True)
            return (
                f"the stage positions {words} from {names[at]} ({focus.positions_m[at]:g} m) to "
                f"{names[at + 1]} ({focus.positions_m[at + 1]:g} m). Check that each position "
                "belongs to its frame.",
            )
    return ()


def recorded_focus(
    records: Sequence[FrameRecord], names: Sequence[str], focal_length_m: float | None
) -> Focus:
    """The focus distances that the camera recorded, if every frame has one.

    Cameras quantise. Each distance is uncertain by at least EXIF_UNCERTAINTY_DPT, and a repeated
    distance by the gap to the next recorded one.

    Returns:
        A Focus, whose origin has the reason if the recorded distances cannot be used.
    """
    for record, frame in zip(records, names, strict=True):
        if record.focus is None:
            return _unused(f"{frame}: {record.reasons['focus']}")
    readings = [record.focus for record in records if record.focus is not None]
    tags = sorted({reading.tag for reading in readings})
    if len(tags) != 1:
        return _unused(f"the frames record it in different tags ({', '.join(tags) or 'none'})")
    tag = tags[0]
    if readings[0].reference == "sensor":
        if focal_length_m is None:
            return _unused(
                f"{tag} counts from the sensor plane, and converting it to the lens needs the "
                "focal length, which is unknown"
            )
        tag += ", counted from the sensor plane and converted to the lens"
    try:
        pairs = [reading.from_lens(focal_length_m) for reading in readings]
        distances_m = [distance_m for distance_m, _ in pairs]
        check_focus("focus_distances_m", distances_m, len(names), allow_equal=True)
    except InputError as error:
        return _unused(f"{tag}: {str(error).rstrip('.')}")
    nearest_m = min(distances_m)
    if focal_length_m is not None and nearest_m <= focal_length_m:
        return _unused(f"{tag}: {nearest_m:g} m lies within the focal length {focal_length_m:g} m")
    if len(set(distances_m)) == 1:
        return _unused(f"{tag} is {distances_m[0]:g} m in every frame")
    uncertainty_dpt = tuple(
        max(half_width_dpt, EXIF_UNCERTAINTY_DPT, _gap_if_repeated(distance_m, distances_m))
        for distance_m, half_width_dpt in pairs
    )
    return Focus(Origin("EXIF", tag), tuple(distances_m), uncertainty_dpt=uncertainty_dpt)


def _gap_if_repeated(distance_m: float, distances_m: list[float]) -> float:
    """Dioptres to the nearest other distance, where several frames share this one; else 0."""
    if distances_m.count(distance_m) == 1:
        return 0.0
    return min(abs(1 / distance_m - 1 / other) for other in distances_m if other != distance_m)


def _unused(reason: str) -> Focus:
    return Focus(Origin(None, reason))
