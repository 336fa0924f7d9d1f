"""What is laid over what: the more specific value wins, block by block."""

from __future__ import annotations

from typing import Any

from focaldiffusion.lens import replaced


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """One block laid over another: blocks within merge likewise, other values are replaced.

    A value of a camera also removes the same value in another form from below: an aperture
    diameter the f-number, a pixel pitch the sensor's width.
    """
    obsolete = replaced(
        [key for key, value in base.items() if value is not None],
        [key for key, value in over.items() if value is not None],
    )
    result = {key: value for key, value in base.items() if key not in obsolete}
    for key, value in over.items():
        below = result.pop(key, None)  # before it is set, so that the key is the upper one, too
        both = isinstance(below, dict) and isinstance(value, dict)
        result[key] = merged(below, value) if both else value
    return result
