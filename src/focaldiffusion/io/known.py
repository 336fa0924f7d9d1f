"""What is known of lens and focus, and from where: given values over stack.json over EXIF.

Nothing is invented. What stays unknown gets its reason in words, under its name in `origins`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from focaldiffusion.errors import InputError
from focaldiffusion.io.exif import LensRecord
from focaldiffusion.io.sidecar import SIDECAR_NAME, Sidecar
from focaldiffusion.optics import Camera
from focaldiffusion.stack import check_focus

EXIF_UNCERTAINTY_DPT = 0.05
"""The least uncertainty of a recorded focus distance: RealBokeh_3MP publishes 0.026-0.052 dpt."""

GIVEN = "given"
"""The origin of what the caller gave."""

_IN_WORDS = {
    "focal_length_m": "focal length",
    "f_number": "f-number",
    "pixel_pitch_m": "pixel pitch",
}


@dataclass(frozen=True)
class Known:
    """What the caller knows of a stack; overrides `stack.json`, which overrides EXIF.

    Attributes:
        focus_distances_m: lens to plane of sharp focus of each frame [m], infinity allowed.
        focus_positions_m: stage or rail position of each frame [m]; excludes distances.
        focal_length_mm: focal length [mm], the real one, not the 35 mm-equivalent.
        f_number: focal length / aperture diameter.
        pixel_pitch_um: micrometres of sensor per pixel of the frames.
        sensor_width_mm: long side of the sensor area that the frames show [mm], another way to
            give the pitch.
        focal_length_px: image distance / pixel pitch [px], as calibrations give it.
        aperture_diameter_m: diameter of the entrance pupil [m], in place of the f-number.
    """

    focus_distances_m: Sequence[float] | None = None
    focus_positions_m: Sequence[float] | None = None
    focal_length_mm: float | None = None
    f_number: float | None = None
    pixel_pitch_um: float | None = None
    sensor_width_mm: float | None = None
    focal_length_px: float | None = None
    aperture_diameter_m: float | None = None

    def __post_init__(self) -> None:
        for one in fields(self)[2:]:
            value = getattr(self, one.name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"given {one.name} is {value}; expected a positive number.")
        for rivals in (
            ("focus_distances_m", "focus_positions_m"),
            ("pixel_pitch_um", "sensor_width_mm", "focal_length_px"),
            ("f_number", "aperture_diameter_m"),
        ):
            given = [name for name in rivals if getattr(self, name) is not None]
            if len(given) > 1:
                raise InputError(f"given {' and '.join(given)} exclude each other; give one.")

    def lens_values(self, image_size: tuple[int, int]) -> dict[str, float]:
        """The values that are set, by the names of `Lens`."""
        pitch_um = self.pixel_pitch_um
        if self.sensor_width_mm is not None:
            # A sensor's width is its long side, also where the camera was turned.
            pitch_um = self.sensor_width_mm * 1000 / max(image_size)
        values = {
            "focal_length_m": self.focal_length_mm and self.focal_length_mm / 1000,
            "f_number": self.f_number,
            "pixel_pitch_m": pitch_um and pitch_um / 1e6,
            "focal_length_px": self.focal_length_px,
            "aperture_diameter_m": self.aperture_diameter_m,
        }
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True)
class Lens:
    """What is known of the lens, at the native size of the frames; None where unknown."""

    focal_length_m: float | None = None
    f_number: float | None = None
    pixel_pitch_m: float | None = None
    focal_length_px: float | None = None
    aperture_diameter_m: float | None = None

    def in_pixels(self, image_size: tuple[int, int], reference_focus_m: float) -> float | None:
        """Focal length in pixels at a focus distance; None when unknown.

        Raises:
            InputError: the focus distance lies within the focal length.
        """
        if self.focal_length_px is not None:
            return self.focal_length_px
        if self.focal_length_m is None or self.pixel_pitch_m is None:
            return None
        # The f-number plays no part in the focal length in pixels; any will do.
        return Camera.from_lens(
            self.focal_length_m, 1.0, self.pixel_pitch_m, image_size, reference_focus_m
        ).focal_length_px

    def camera(self, image_size: tuple[int, int], reference_focus_m: float) -> Camera | None:
        """The camera of a frame at a focus distance; None unless all its values are known.

        Raises:
            InputError: the focus distance lies within the focal length.
        """
        focal_length_px = self.in_pixels(image_size, reference_focus_m)
        aperture_m = self._aperture_m()
        if focal_length_px is None or aperture_m is None:
            return None
        return Camera(focal_length_px, aperture_m, image_size)

    def _aperture_m(self) -> float | None:
        if self.aperture_diameter_m is not None:
            return self.aperture_diameter_m
        if self.focal_length_m is None or self.f_number is None:
            return None
        return self.focal_length_m / self.f_number

    def parts(self) -> list[str]:
        """Names of the values that the camera is made of, known or not."""
        names = ["focal_length_px"]
        if self.focal_length_px is None:
            names = ["focal_length_m", "pixel_pitch_m"]
        if self.aperture_diameter_m is None:
            names += ["focal_length_m", "f_number"]
        else:
            names += ["aperture_diameter_m"]
        return list(dict.fromkeys(names))

    def missing(self) -> list[str]:
        """Names of the values without which there is no camera."""
        return [name for name in self.parts() if getattr(self, name) is None]


# A value from a better source drops what a worse one said in another form.
_REPLACES = {
    "focal_length_m": ("focal_length_px",),
    "pixel_pitch_m": ("focal_length_px",),
    "focal_length_px": ("pixel_pitch_m",),
    "f_number": ("aperture_diameter_m",),
    "aperture_diameter_m": ("f_number",),
}


def resolve_lens(
    known: Known,
    sidecar: Sidecar | None,
    records: Sequence[LensRecord],
    names: Sequence[str],
    image_size: tuple[int, int],
) -> tuple[Lens, dict[str, str]]:
    """Merge what is known of the lens.

    EXIF values that differ between frames, or that some frames lack, are not used: the reason
    is reported.

    Args:
        known: given values.
        sidecar: content of `stack.json`, None without one.
        records: EXIF of each frame, empty when nothing of it is needed.
        names: of the frames, for the reasons.
        image_size: (height, width) of the frames [px].

    Returns:
        The lens, and for each value where it is from; `camera` names what it lacks, or from which
        values it is made.
    """
    values: dict[str, float] = {}
    origins: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for name in _IN_WORDS:
        value, text = _agreed(records, names, name)
        if value is None:
            reasons[name] = text
        else:
            values[name], origins[name] = value, text
    better: list[tuple[dict[str, float], str]] = []
    if sidecar is not None and sidecar.camera is not None:
        better.append((sidecar.camera.values(), SIDECAR_NAME))
    better.append((known.lens_values(image_size), GIVEN))
    for source, origin in better:
        for rival in [rival for name in source for rival in _REPLACES[name] if rival not in source]:
            values.pop(rival, None)
            origins.pop(rival, None)
        values.update(source)
        origins.update(dict.fromkeys(source, origin))
    lens = Lens(**values)
    missing = lens.missing()
    if missing:
        needs = ", ".join(_IN_WORDS[name] for name in missing)
        why = "; ".join(dict.fromkeys(reasons[name] for name in missing if reasons.get(name)))
        origins["camera"] = f"unknown: no {needs}" + (f" ({why})" if why else "")
    else:
        origins["camera"] = ", ".join(dict.fromkeys(origins[name] for name in lens.parts()))
    return lens, origins


def _agreed(
    records: Sequence[LensRecord], names: Sequence[str], name: str
) -> tuple[float | None, str]:
    """The value that all frames have alike and its origin, or None and the reason."""
    if not records:
        return None, ""
    values = [getattr(record, name) for record in records]
    for record, frame, value in zip(records, names, values, strict=True):
        if value is None:
            return None, f"{frame}: {record.reasons[name]}"
    for frame, value in zip(names, values, strict=True):
        if not math.isclose(value, values[0], rel_tol=1e-6):
            return None, (
                f"EXIF {records[0].tags[name]} differs between frames: {names[0]} gives "
                f"{values[0]:g}, {frame} {value:g}"
            )
    return values[0], f"EXIF {records[0].tags[name]}"


@dataclass(frozen=True)
class Focus:
    """How the frames of a stack were focused.

    Attributes:
        distances_m: lens to plane of sharp focus of each frame [m], None when unknown.
        positions_m: stage position of each frame [m], None when unknown.
        uncertainty_dpt: half-width of each distance's interval [dpt]; None where a person wrote
            the distances and no interval is known.
        name: the key of its origin, `focus_distances_m` or `focus_positions_m`.
        origin: where the values are from, or why there are none.
    """

    distances_m: tuple[float, ...] | None = None
    positions_m: tuple[float, ...] | None = None
    uncertainty_dpt: tuple[float, ...] | None = None
    name: str = "focus_distances_m"
    origin: str = ""


def given_focus(
    known: Known, sidecar: Sidecar | None, sidecar_path: Path | None, frame_count: int
) -> Focus | None:
    """The focus settings that a person wrote: given values, else those of `stack.json`.

    Raises:
        InputError: they contradict the number of frames or themselves; names the source.
    """
    for name in ("focus_distances_m", "focus_positions_m"):
        values = getattr(known, name)
        if values is not None:
            return _checked(name, list(values), frame_count, GIVEN, GIVEN)
    if sidecar is not None and sidecar.focus is not None:
        name, values = sidecar.focus
        return _checked(name, values, frame_count, SIDECAR_NAME, str(sidecar_path))
    return None


def _checked(name: str, values: list[float], frame_count: int, origin: str, place: str) -> Focus:
    """Focus settings after `check_focus`, whose message is given the place."""
    try:
        check_focus(name, values, frame_count)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    if name == "focus_distances_m":
        return Focus(distances_m=tuple(values), name=name, origin=origin)
    return Focus(positions_m=tuple(values), name=name, origin=origin)


def recorded_focus(
    records: Sequence[LensRecord], names: Sequence[str], focal_length_m: float | None
) -> Focus:
    """The focus distances that the camera recorded, if every frame has one.

    Cameras quantise: each distance is uncertain by at least EXIF_UNCERTAINTY_DPT, and frames with
    equal distances by as much as the next recorded distance is away.

    Returns:
        A Focus; where the recorded distances cannot be used, `origin` says why.
    """
    for record, frame in zip(records, names, strict=True):
        if record.focus is None:
            return _unused(f"{frame}: {record.reasons['focus']}")
    readings = [record.focus for record in records if record.focus is not None]
    tags = sorted({reading.tag for reading in readings})
    if len(tags) != 1:
        return _unused(f"the frames record it in different tags ({', '.join(tags) or 'none'})")
    origin = tags[0]
    if readings[0].reference == "sensor":
        if focal_length_m is None:
            return _unused(
                f"{origin} counts from the sensor plane, and the focal length, which leads from "
                "there to the lens, is unknown"
            )
        origin += ", counted from the sensor plane and converted to the lens"
    try:
        pairs = [reading.from_lens(focal_length_m) for reading in readings]
        distances_m = [distance_m for distance_m, _ in pairs]
        check_focus("focus_distances_m", distances_m, len(names), allow_equal=True)
    except InputError as error:
        return _unused(f"{origin}: {str(error).rstrip('.')}")
    nearest_m = min(distances_m)
    if focal_length_m is not None and nearest_m <= focal_length_m:
        return _unused(
            f"{origin}: {nearest_m:g} m lies within the focal length {focal_length_m:g} m"
        )
    if len(set(distances_m)) == 1:
        return _unused(f"{origin} is {distances_m[0]:g} m in every frame")
    uncertainty_dpt = tuple(
        max(half_width_dpt, EXIF_UNCERTAINTY_DPT, _gap_if_repeated(distance_m, distances_m))
        for distance_m, half_width_dpt in pairs
    )
    return Focus(tuple(distances_m), uncertainty_dpt=uncertainty_dpt, origin=origin)


def _gap_if_repeated(distance_m: float, distances_m: list[float]) -> float:
    """Dioptres to the nearest other distance, where several frames share this one; else 0."""
    if distances_m.count(distance_m) == 1:
        return 0.0
    return min(abs(1 / distance_m - 1 / other) for other in distances_m if other != distance_m)


def _unused(reason: str) -> Focus:
    return Focus(origin=f"unknown: {reason}")
