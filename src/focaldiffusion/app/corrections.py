"""Corrections of a stack before it runs, as the page sends them.

Frames are named by their number in the folder as it was found, as text. Infinite distances are the
text "inf", since JSON has no number for them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

from focaldiffusion.app.errors import AppError
from focaldiffusion.errors import unknown_name
from focaldiffusion.lens import LensFacts

LENS_UNITS = {
    "focal_length_mm": ("focal_length_m", 1e3),
    "f_number": ("f_number", 1.0),
    "pixel_pitch_um": ("pixel_pitch_m", 1e6),
    "sensor_width_mm": ("sensor_width_m", 1e3),
    "focal_length_px": ("focal_length_px", 1.0),
    "aperture_diameter_mm": ("aperture_diameter_m", 1e3),
}
"""For each value on the page: its field of `LensFacts`, and how many of its units make one."""

_FOCUS = {"focus_distances_m": "focus_positions_m", "focus_positions_m": "focus_distances_m"}
"""The lists of focus settings, and for each the other one, which it replaces."""

POSITIONS_PER_M = 1e3
"""Stage positions are millimetres on the page, as `positions_mm`."""


@dataclass(frozen=True)
class Corrections:
    """Corrections of a stack.

    Attributes:
        order: all frames in order; None as found.
        left_out: frames that are left out.
        focus_distances_m: of each frame that has one given, or "inf"; None as the files say.
        focus_positions_m: the same for a stage.
        lens: values by their name on the page; None as the files say.
    """

    order: list[str] | None = None
    left_out: list[str] = field(default_factory=list)
    focus_distances_m: dict[str, float | str] | None = None
    focus_positions_m: dict[str, float | str] | None = None
    lens: dict[str, float] | None = None

    def changed(self, patch: dict[str, Any], frames: list[str]) -> Corrections:
        """These corrections with those of a request.

        Args:
            patch: body of the request.
            frames: all frames, in the order that the page shows; focus settings follow the
                `order` of the same request, if it has one.

        Raises:
            AppError: a mistake in the request.
        """
        known = ["order", "left_out", "focus_distances_m", "positions_mm", "lens"]
        for name in patch:
            if name not in known:
                raise AppError(400, f"key {name!r} {unknown_name(name, known)}")
        changes: dict[str, Any] = dict(patch)
        if patch.get("order") is not None:
            _check_frames("order", patch["order"], frames)
            if len(patch["order"]) != len(frames):
                raise AppError(400, f"order: expected all {len(frames)} frames.")
            frames = patch["order"]
        if "left_out" in patch:
            changes["left_out"] = patch["left_out"] or []
            _check_frames("left_out", changes["left_out"], frames)
        if patch.get("lens") is not None:
            changes["lens"] = _lens_values(patch["lens"])
        if "positions_mm" in patch:
            given = changes.pop("positions_mm")
            changes["focus_positions_m"] = given and _per_frame(
                "positions_mm", given, frames, POSITIONS_PER_M
            )
        if patch.get("focus_distances_m") is not None:
            changes["focus_distances_m"] = _per_frame(
                "focus_distances_m", patch["focus_distances_m"], frames
            )
        for name, other in _FOCUS.items():
            if changes.get(name) is not None:
                changes[other] = None
        return replace(self, **changes)

    def facts(self) -> LensFacts:
        """The lens as it was given.

        Raises:
            InputError: a value that no lens has.
        """
        given = (self.lens or {}).items()
        return LensFacts(**{LENS_UNITS[name][0]: v / LENS_UNITS[name][1] for name, v in given})

    @property
    def chooses_frames(self) -> bool:
        """Whether frames are reordered, left out, or given focus settings one by one."""
        focus = self.focus_distances_m is not None or self.focus_positions_m is not None
        return self.order is not None or bool(self.left_out) or focus


def shown_lens(facts: LensFacts) -> dict[str, float]:
    """The known values of a lens, in the units of the page."""
    known = facts.values()
    return {name: known[key] * units for name, (key, units) in LENS_UNITS.items() if key in known}


def shown_number(value: float | None) -> float | str | None:
    """A distance for JSON."""
    return "inf" if value is not None and math.isinf(value) else value


def _check_frames(name: str, given: Any, frames: list[str]) -> None:
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise AppError(400, f"{name}: expected a list of frames.")
    if strays := [one for one in given if one not in frames]:
        raise AppError(400, f"{name}: there is no frame {strays[0]!r}.")
    if len(set(given)) < len(given):
        raise AppError(400, f"{name}: holds a frame twice.")


def _per_frame(
    name: str, given: Any, frames: list[str], per_m: float = 1.0
) -> dict[str, float | str]:
    """One value a frame in metres, those without left out."""
    if not isinstance(given, list) or len(given) != len(frames):
        raise AppError(400, f"{name}: expected a list of {len(frames)} values, one a frame.")
    return {
        frame: "inf" if value == "inf" else _number(f"{name} of frame {frame}", value) / per_m
        for frame, value in zip(frames, given, strict=True)
        if value is not None
    }


def _lens_values(given: Any) -> dict[str, float]:
    if not isinstance(given, dict):
        raise AppError(400, "lens: expected an object.")
    for name in given:
        if name not in LENS_UNITS:
            raise AppError(400, f"lens: {name!r} {unknown_name(name, LENS_UNITS)}")
    return {name: _number(name, value) for name, value in given.items() if value is not None}


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not abs(value) < 1e300:
        raise AppError(400, f"{name} is {str(value)[:80]!r}; expected a number.")
    return float(value)
