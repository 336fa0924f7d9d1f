"""Units of length, and stage positions from OME-XML and ImageJ's description."""

from __future__ import annotations

from typing import Any

import pytest

from focaldiffusion.io.lengths import metres, metres_per
from focaldiffusion.io.z_axis import imagej_axis, ome_axis

UM = 1e-6


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        ("Å", 1e-10), ("pm", 1e-12), ("nm", 1e-9), ("µm", UM), ("mm", 1e-3), ("cm", 1e-2),
        ("dm", 0.1), ("m", 1.0), ("km", 1e3), ("Mm", 1e6), ("in", 0.0254), ("ft", 0.3048),
        ("yd", 0.9144), ("pt", 0.0254 / 72), ("thou", 2.54e-5), ("micron", UM), ("Microns", UM),
        ("\u03bcm", UM), ("um", UM), ("\\u00B5m", UM), ("µ", UM), ("inch", 0.0254),
        ("Millimetre", 1e-3), ("nanometer", 1e-9), ("angstrom", 1e-10), ("MM", 1e-3),
        ("pixel", None), ("reference frame", None), ("", None), ("furlong", None), ("sec", None),
    ],
)  # fmt: skip
def test_units(unit: str, expected: float | None) -> None:
    assert metres_per(unit) == (None if expected is None else pytest.approx(expected))


def test_lengths_that_are_none() -> None:
    assert metres("-2", "mm") == -0.002
    for value in ("x", "nan", "inf", 0, None):
        assert metres(value, "mm") is None


@pytest.mark.parametrize(
    ("metadata", "step_m"),
    [
        ({"spacing": 2, "unit": "mm", "zunit": "micron"}, 2 * UM),
        ({"spacing": 2, "unit": "micron", "yunit": "mm"}, 2 * UM),
        ({"spacing": -0.5, "unit": "um"}, -0.5 * UM),
    ],
)
def test_imagej(metadata: dict[str, Any], step_m: float) -> None:
    assert imagej_axis(metadata, 3).positions_m == pytest.approx((0, step_m, 2 * step_m))


def test_an_unknown_unit_is_named() -> None:
    axis = imagej_axis({"spacing": 2, "unit": "mm", "zunit": "steps"}, 3)
    assert axis.positions_m is None
    assert "ImageJ spacing is in 'steps', which is not a known unit" in axis.source
    axis = ome_axis({"PhysicalSizeZ": "2", "PhysicalSizeZUnit": "pixel"}, [], 3)
    assert "PhysicalSizeZ is in 'pixel'" in axis.source
    assert "ImageJ spacing has no unit" in imagej_axis({"spacing": 2}, 3).source
    assert "PhysicalSizeZ is nan, which is not a step" in (
        ome_axis({"PhysicalSizeZ": "nan"}, [], 3).source
    )


def planes(values: list[float], unit: str | None = "µm") -> list[dict[str, str]]:
    units = {} if unit is None else {"PositionZUnit": unit}
    return [{"TheZ": str(z), "PositionZ": str(value), **units} for z, value in enumerate(values)]


@pytest.mark.parametrize(("size", "size_unit"), [("5", "µm"), ("1", "mm"), ("1000", "nm")])
def test_positions_win_over_a_step(size: str, size_unit: str) -> None:
    pixels = {"PhysicalSizeZ": size, "PhysicalSizeZUnit": size_unit}
    axis = ome_axis(pixels, planes([7, 8, 9, 10]), 4)
    assert axis.positions_m == pytest.approx((0, UM, 2 * UM, 3 * UM))
    assert axis.source == "OME PositionZ"
    assert bool(axis.findings) == (size_unit != "nm")
    assert all("1 µm apart by OME PositionZ" in one for one in axis.findings)


def test_uneven_and_falling_positions_in_their_own_unit() -> None:
    assert ome_axis({}, planes([3, 2, 0], "mm"), 3).positions_m == pytest.approx((0, -1e-3, -3e-3))


def test_positions_without_a_unit() -> None:
    pixels = {"PhysicalSizeZ": "2"}
    agreed = ome_axis(pixels, planes([0, 1, 4], None), 3)
    assert agreed.positions_m == pytest.approx((0, UM, 4 * UM))
    differing = ome_axis(pixels, planes([0, 1, 2], None), 3)
    assert differing.positions_m == pytest.approx((0, 2 * UM, 4 * UM))
    assert "PositionZ has no unit of length; the z step" in differing.findings[0]
    assert ome_axis({}, planes([0, 1, 2], "reference frame"), 3).positions_m is None


@pytest.mark.parametrize(
    ("values", "count", "finding"),
    [([4, 4, 4], 3, False), ([0, 1, 1], 3, True), ([0, 1], 3, False), ([0, float("nan"), 2], 3, 0)],
)
def test_positions_that_do_not_serve(values: list[float], count: int, finding: bool) -> None:
    axis = ome_axis({"PhysicalSizeZ": "2"}, planes(values), count)
    assert axis.source == "OME PhysicalSizeZ"
    assert axis.positions_m == pytest.approx((0, 2 * UM, 4 * UM))
    assert bool(axis.findings) == finding
