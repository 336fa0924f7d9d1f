"""Checks of the focus settings of a stack: distances from the lens, or positions of a stage."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from focaldiffusion.errors import InputError

_LEAST_DISTANCE_M = 1e-6
_LEAST_STEP_M = 1e-9  # between stage positions
_FARTHEST_POSITION_M = 1e4  # on a rail
_LONGEST_RAIL_M = 3.0
_NEAREST_FOCUS_M = 1e-3  # of the farthest focus of a stack


def focus_numbers(name: str, values: Any) -> list[float]:
    """One number per frame, from a list, a tuple, an array or a tensor.

    Raises:
        InputError: no numbers, or a set or another collection without an order.
    """
    try:
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__getitem__"):
            raise TypeError
        return [float(value) for value in values]
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{name}: got {values!r}; expected a list of one number per frame, in metres."
        ) from None


def check_focus(
    name: str, values: list[float], frame_count: int, *, allow_equal: bool = False
) -> None:
    """Check the focus settings of a stack; `name` is `focus_distances_m` or `focus_positions_m`.

    Raises:
        InputError: not one value per frame, NaN, a duplicate, a number that no lens or stage has,
            (distances) not positive, or in another unit by mistake.
    """
    if len(values) != frame_count:
        raise InputError(
            f"{name}: {len(values)} values for {frame_count} frames. Give one value per frame, in "
            "the order of the frames."
        )
    if any(value != value for value in values):
        raise InputError(f"{name}: contains NaN: {values}. Give a number for each frame.")
    if name == "focus_distances_m":
        if any(value <= 0 for value in values):
            hint = " In dioptres, 0 is infinity: give 1 / value." if min(values) == 0 else ""
            raise InputError(
                f"{name}: {values} are not all positive. Distances are metres > 0.{hint}"
            )
        if any(value < _LEAST_DISTANCE_M for value in values):
            raise InputError(
                f"{name}: {min(values)} is less than a micrometre. Distances are metres from the "
                "lens."
            )
        if max(values) < _NEAREST_FOCUS_M:
            raise InputError(
                f"{name}: all below a millimetre ({values}): these look like positions of a stage. "
                "Give them as focus_positions_m (--focus-positions)."
            )
        if all(value > 100 for value in values) and min(values) < math.inf:
            raise InputError(
                f"{name}: all above 100 ({values}): these look like millimetres. "
                "Give metres: divide by 1000."
            )
    elif any(abs(value) == math.inf for value in values):
        raise InputError(f"{name}: {values} are not all finite.")
    elif any(abs(value) > _FARTHEST_POSITION_M for value in values):
        raise InputError(
            f"{name}: {max(values, key=abs)} is not a position of a rail or stage. Give metres."
        )
    elif max(values) - min(values) > _LONGEST_RAIL_M:
        raise InputError(
            f"{name}: from {min(values):g} to {max(values):g}, longer than any rail: these look "
            "like millimetres or micrometres. Give metres: divide by 1000, or by 1000000."
        )
    elif any(0 < after - before < _LEAST_STEP_M for before, after in pairwise(sorted(values))):
        raise InputError(f"{name}: {values} are less than a nanometre apart. Give metres.")
    if not allow_equal and len(set(values)) < len(values):
        duplicate = next(value for value in values if values.count(value) > 1)
        raise InputError(
            f"{name}: {duplicate} appears more than once. Frames with equal focus add nothing: "
            "leave one out, or correct the list."
        )
