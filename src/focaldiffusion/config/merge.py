"""Merging of configuration blocks: the more specific value wins."""

from __future__ import annotations

from typing import Any

_REPLACES = {
    "f_number": ("aperture_diameter_m",),
    "aperture_diameter_m": ("f_number",),
    "focal_length_px": ("focal_length_m",),
    "focal_length_m": ("focal_length_px",),
    "pixel_pitch_m": ("sensor_width_m",),
    "sensor_width_m": ("pixel_pitch_m",),
}
"""Camera values that a value above makes obsolete.

Two of focal length, pitch and focal length in pixels make the third: with a new one, the pair
that contradicts it must go. A new focal length in pixels keeps the sensor, not the lens.
"""


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The merged block: inner blocks merge as well, other values are replaced.

    Setting a camera value in one form removes the other form from `base`: an aperture diameter
    the f-number, a pixel pitch the sensor's width.
    """
    obsolete = {
        name for key, value in over.items() if value is not None for name in _REPLACES.get(key, ())
    }
    result = {key: value for key, value in base.items() if key not in obsolete}
    for key, value in over.items():
        below = result.pop(key, None)  # before it is set, so that the key is the upper one, too
        both = isinstance(below, dict) and isinstance(value, dict)
        result[key] = merged(below, value) if both else value
    return result
