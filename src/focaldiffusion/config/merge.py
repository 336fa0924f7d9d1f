"""Merging of configuration blocks: the more specific value wins."""

from __future__ import annotations

from typing import Any

from focaldiffusion.lens import replaced


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The merged block: inner blocks merge as well, other values are replaced.

    Setting a camera value in one form removes the other form from `base`: an aperture diameter
    the f-number, a pixel pitch the sensor's width.
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
