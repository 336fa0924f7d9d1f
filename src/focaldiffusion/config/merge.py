"""What is laid over what: the more specific value wins, block by block."""

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
"""What a value of a camera makes obsolete below it.

Two of focal length, pitch and focal length in pixels make the third: with a new one, the pair
that contradicts it must go. A new focal length in pixels keeps the sensor, not the lens.
"""


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """One block laid over another: blocks within merge likewise, other values are replaced.

    A value of a camera also removes the same value in another form from below: an aperture
    diameter the f-number, a pixel pitch the sensor's width.
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
