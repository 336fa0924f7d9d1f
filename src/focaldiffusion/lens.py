"""LensFacts: a lens as far as it is known, whether from flags, `stack.json`, EXIF or a data set."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING

from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from focaldiffusion.optics import Camera

_RIVALS = (
    ("f_number", "aperture_diameter_m"),
    ("pixel_pitch_m", "sensor_width_m"),
)
"""Forms of one value: a lens has one of them."""

_TRIANGLE = (
    {"pixel_pitch_m", "sensor_width_m"},
    {"focal_length_px"},
    {"focal_length_m"},
)
"""Any two of these make the third. Where a better source completes all three, the first one that
only the worse source knows goes."""

_PLAUSIBLE = {
    "focal_length_m": (1e-4, 2.0, "millimetres", 1e3),
    "pixel_pitch_m": (1e-7, 1e-3, "micrometres", 1e6),
    "sensor_width_m": (1e-4, 1.0, "millimetres", 1e3),
}
"""Least length, limit, and the unit that is mistaken for metres."""

DISTANCE_UNITS = {"centimetres": 100.0, "millimetres": 1000.0, "feet": 3.28084, "inches": 39.3701}
"""How many make a metre, the likeliest mistake first."""

_IN_WORDS = {
    "focal_length_m": "focal length",
    "f_number": "f-number",
    "pixel_pitch_m": "pixel pitch",
}


@dataclass(frozen=True)
class LensFacts:
    """A lens, each value None where it is unknown; image sizes are those of the frames on disk.

    Attributes:
        focal_length_m: focal length [m], the real one, not the 35 mm-equivalent.
        f_number: focal length / aperture diameter.
        pixel_pitch_m: metres of sensor per pixel of the frames.
        sensor_width_m: long side of the sensor area that the frames show [m]; excludes the pitch.
        focal_length_px: image distance / pixel pitch [px], as calibrations give it.
        aperture_diameter_m: diameter of the entrance pupil [m]; excludes the f-number.

    Raises:
        InputError: a value that no lens has, or two forms of one value.
    """

    focal_length_m: float | None = None
    f_number: float | None = None
    pixel_pitch_m: float | None = None
    sensor_width_m: float | None = None
    focal_length_px: float | None = None
    aperture_diameter_m: float | None = None

    def __post_init__(self) -> None:
        for name, value in self.values().items():
            if not (isinstance(value, Real) and math.isfinite(value) and value > 0):
                raise InputError(f"{name} is {value!r}; expected a positive number.")
            if problem := implausible(name, value):
                raise InputError(f"{name} {problem}.")
        check_rivals({name: name for name in self.values()})

    def values(self) -> dict[str, float]:
        """The known values, by name."""
        known = ((one.name, getattr(self, one.name)) for one in fields(self))
        return {name: value for name, value in known if value is not None}

    def over(self, worse: LensFacts) -> LensFacts:
        """These facts, completed by those of a less trusted source that they do not replace."""
        mine, others = self.values(), worse.values()
        gone = replaced(others, mine)
        kept = {name: value for name, value in others.items() if name not in gone}
        return LensFacts(**(kept | mine))

    def camera(
        self,
        image_size: tuple[int, int],
        reference_focus_m: float = math.inf,
        *,
        principal_point_px: tuple[float, float] | None = None,
    ) -> Camera | None:
        """The camera of a frame.

        F = f / (p (1 - f/s)): focusing nearer moves the lens away from the sensor. A = f / N.

        Args:
            image_size: (height, width) of the frames [px].
            reference_focus_m: s, lens to focus plane of the frame whose scale the stack has [m].
            principal_point_px: (x, y), the image centre when not given.

        Returns:
            None unless the focal length in pixels is known; without an aperture where that is
            unknown.

        Raises:
            InputError: the focus distance lies within the focal length.
        """
        from focaldiffusion.optics import Camera  # loads torch, which configurations do without

        pitch_m = self.pixel_pitch_m
        focal_length_m, focal_length_px = self.focal_length_m, self.focal_length_px
        if self.sensor_width_m is not None:
            # A sensor's width is its long side, also where the camera was turned.
            pitch_m = self.sensor_width_m / max(image_size)
        if focal_length_px is None:
            if focal_length_m is None or pitch_m is None:
                return None
            if not reference_focus_m > focal_length_m:
                raise InputError(
                    f"camera: focus distance {reference_focus_m} m lies within the focal length "
                    f"{focal_length_m} m; a lens cannot focus there. Check the units of both."
                )
            focal_length_px = focal_length_m / (pitch_m * (1 - focal_length_m / reference_focus_m))
        elif focal_length_m is None and pitch_m is not None:
            image_distance_m = focal_length_px * pitch_m
            focal_length_m = image_distance_m / (1 + image_distance_m / reference_focus_m)
        aperture_m = self.aperture_diameter_m
        if aperture_m is None and focal_length_m is not None and self.f_number is not None:
            aperture_m = focal_length_m / self.f_number
        height, width = image_size
        centre = principal_point_px or (width / 2, height / 2)
        return Camera(focal_length_px, aperture_m, image_size, centre)

    def parts(self) -> list[str]:
        """Names of the values that a camera with an aperture is made of, known or not."""
        pitch = "pixel_pitch_m" if self.sensor_width_m is None else "sensor_width_m"
        names = ["focal_length_m", pitch]
        if self.focal_length_px is not None:
            names = ["focal_length_px"]
        if self.aperture_diameter_m is not None:
            return [*names, "aperture_diameter_m"]
        from_pixels = self.focal_length_px is not None and self.focal_length_m is None
        length = pitch if from_pixels and pitch in self.values() else "focal_length_m"
        return list(dict.fromkeys([*names, length, "f_number"]))

    def missing(self) -> dict[str, str]:
        """The values that a camera with an aperture still needs: names, and in words."""
        known = self.values()
        return {name: _IN_WORDS[name] for name in self.parts() if name not in known}


def check_rivals(called: Mapping[str, str]) -> None:
    """Check that a source gives each value in one form only.

    Args:
        called: for the name of each value that is given, what messages call it.

    Raises:
        InputError: names the values that exclude each other.
    """
    for rivals in _RIVALS:
        given = [called[name] for name in rivals if name in called]
        if len(given) > 1:
            raise InputError(f"{' and '.join(given)} exclude each other; give one.")
    corners = [[called[name] for name in called if name in corner] for corner in _TRIANGLE]
    if all(corners):
        names = ", ".join(name for corner in corners for name in corner)
        raise InputError(f"{names}: any two make the third; give two.")


def replaced(worse: Iterable[str], better: Iterable[str]) -> set[str]:
    """Names of values that a better source makes obsolete in a worse one.

    Args:
        worse: names of the values that the less trusted source gives.
        better: names of the values that the more trusted source gives.
    """
    mine = set(better)
    gone = {name for rivals in _RIVALS if mine & set(rivals) for name in rivals}
    if "focal_length_m" in mine:
        gone.add("focal_length_px")  # made from another focal length
    left = (set(worse) - gone) | mine
    if all(corner & left for corner in _TRIANGLE):
        gone |= next((corner for corner in _TRIANGLE if not corner & mine), set())
    return gone - mine


def implausible(name: str, value: float) -> str | None:
    """Why a length cannot be one in metres, in words; None where it can."""
    if name not in _PLAUSIBLE:
        return None
    least, limit, unit, per_m = _PLAUSIBLE[name]
    if value >= limit:
        return f"{value:g} looks like {unit}; in metres that is {value / per_m:g}"
    if value < least:
        return f"{value:g} metres is smaller than any; check the unit"
    return None


def mistaken_unit(least: float, most: float) -> str:
    """Advice on distances in a wrong unit; `least` to `most` of it make a metre."""
    for unit, per_m in DISTANCE_UNITS.items():
        if least <= per_m <= most:
            return f"they look like {unit}: divide by {per_m:.4g}"
    return "check their unit"
