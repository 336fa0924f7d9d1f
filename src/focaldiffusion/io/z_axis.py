"""The z axis of microscope stacks: stage positions from OME-XML and ImageJ's description."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from focaldiffusion.io.lengths import metres, metres_per

_AGREEMENT = 0.01  # relative difference of two statements of one step that is rounding
_REFERENCE = "reference frame"  # unit of the OME schema for positions without a length


@dataclass(frozen=True)
class ZAxis:
    """Stage positions of a z-stack.

    Attributes:
        positions_m: of each frame [m]; None where the file does not say.
        source: the tag of the positions, or why there are none.
        findings: sentences about statements that contradict each other.
    """

    positions_m: tuple[float, ...] | None = None
    source: str = "no z step (OME PhysicalSizeZ or ImageJ spacing)"
    findings: tuple[str, ...] = ()


def imagej_axis(metadata: Mapping[str, Any], frame_count: int) -> ZAxis:
    """Positions from ImageJ's description: `spacing` in `zunit`, or in `unit` without one.

    A negative spacing, for stacks taken downwards, carries the direction.
    """
    if "spacing" not in metadata:
        return ZAxis()
    unit = str(metadata.get("zunit") or metadata.get("unit") or "")
    return _even(metadata["spacing"], unit, frame_count, "ImageJ spacing")


def ome_axis(
    pixels: Mapping[str, str], planes: Sequence[Mapping[str, str]], frame_count: int
) -> ZAxis:
    """Positions from OME-XML: `PositionZ` of each plane, else `PhysicalSizeZ`.

    Args:
        pixels: attributes of `Pixels`.
        planes: attributes of each `Plane`.
        frame_count: size of the z axis.
    """
    even = ZAxis()
    if "PhysicalSizeZ" in pixels:
        # The schema's default unit of PhysicalSizeZ is the micrometre.
        unit = pixels.get("PhysicalSizeZUnit", "µm")
        even = _even(pixels["PhysicalSizeZ"], unit, frame_count, "OME PhysicalSizeZ")
    written: dict[int, tuple[float, str]] = {}
    for plane in planes:
        try:
            z, value = int(plane["TheZ"]), float(plane["PositionZ"])
        except (KeyError, ValueError):
            continue
        written.setdefault(z, (value, plane.get("PositionZUnit", _REFERENCE)))
    values = [written[z][0] for z in range(frame_count) if z in written]
    units = {unit for _, unit in written.values()}
    if len(values) < frame_count or len(units) != 1 or not all(map(math.isfinite, values)):
        return even
    if len(set(values)) == 1:
        return even  # a stage that stood still while a piezo or the lens moved
    return _uneven(values, units.pop(), even, pixels)


def _even(value: Any, unit: str, frame_count: int, tag: str) -> ZAxis:
    """Positions with one step."""
    if metres_per(unit) is None:
        return ZAxis(source=_without_length(tag, unit))
    step_m = metres(value, unit)
    if step_m is None:
        return ZAxis(source=f"{tag} is {value}, which is not a step")
    return ZAxis(tuple(index * step_m for index in range(frame_count)), tag)


def _uneven(values: Sequence[float], unit: str, even: ZAxis, pixels: Mapping[str, str]) -> ZAxis:
    """Positions of the planes, unless their unit is unknown or some are equal."""
    if metres_per(unit) is None and even.positions_m is not None:
        # Old writers leave the unit out. Steps that equal the z step have its unit.
        size_unit = pixels.get("PhysicalSizeZUnit", "µm")
        if _agree(_step(values), float(pixels["PhysicalSizeZ"])):
            unit = size_unit
    factor = metres_per(unit)
    fallback = "" if even.positions_m is None else "; the z step PhysicalSizeZ is used instead"
    if factor is None:
        said = _without_length("OME PositionZ", unit)
        if even.positions_m is None:
            return ZAxis(source=said)
        return ZAxis(even.positions_m, even.source, (f"{said}{fallback}.",))
    if len(set(values)) < len(values):
        said = "OME PositionZ is the same for several planes"
        if even.positions_m is None:
            return ZAxis(source=said)
        return ZAxis(even.positions_m, even.source, (f"{said}{fallback}.",))
    positions_m = tuple((value - values[0]) * factor for value in values)
    findings: tuple[str, ...] = ()
    if even.positions_m is not None and not _agree(_step(positions_m), _step(even.positions_m)):
        findings = (
            f"the planes are {_micrometres(_step(positions_m))} apart by OME PositionZ, but "
            f"{_micrometres(_step(even.positions_m))} by PhysicalSizeZ. PositionZ is used; give "
            "the positions yourself if it is wrong.",
        )
    return ZAxis(positions_m, "OME PositionZ", findings)


def _without_length(tag: str, unit: str) -> str:
    if unit in ("", _REFERENCE):
        return f"{tag} has no unit of length"
    return f"{tag} is in {unit!r}, which is not a known unit of length"


def _step(positions: Sequence[float]) -> float:
    """Mean distance of neighbouring positions."""
    steps = [abs(after - before) for before, after in pairwise(positions)]
    return sum(steps) / len(steps)


def _agree(one: float, other: float) -> bool:
    return math.isclose(abs(one), abs(other), rel_tol=_AGREEMENT)


def _micrometres(length_m: float) -> str:
    return f"{length_m * 1e6:.4g} µm"
