"""The views of a result on the page: tiles of its layers, single values, and distances.

Every function takes the place of a result and answers what JSON or a picture can hold, so that it
runs in a process of its own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.app.views import Place, View, view_of
from focaldiffusion.errors import InputError
from focaldiffusion.fusion.fuse import generated_mark
from focaldiffusion.io.colour_scales import ColourScale, DepthRange
from focaldiffusion.io.pyramid import encoded_jpeg, encoded_png, level_count
from focaldiffusion.solve.uncertainty import distance_interval

COLOURS = ("viridis", "cividis", "inferno", "turbo", "gray")
"""Colour maps of the page; all but turbo and gray are safe for the colour-blind."""

_UNITS = {"depth_m": "m", "height_m": "m", "depth_relative": ""}
_STOPS = 33  # of a colour bar
_FAR_RATIO = 3.0  # far over near from which colours are even in dioptres, as in `ColourScale`


def colour_maps() -> list[dict[str, Any]]:
    """The colour maps, each as a name and colours from near to far."""
    return [
        {"name": name, "stops": ["#" + bytes(colour).hex() for colour in _near_to_far(name)]}
        for name in COLOURS
    ]


def describe(place: Place) -> dict[str, Any]:
    """Size, frames, range of depth and knowledge of the camera of a result."""
    view = view_of(place)
    saved, depth = view.saved, view.depth_range
    height, width = view.size
    names = [frame.name for frame in saved.alignment.frames]
    distances_m = saved.focus_distances_m
    camera, f_number = saved.camera, f_number_of(view)
    return {
        "name": saved.name,
        "width": width,
        "height": height,
        "levels": level_count(view.size),
        "revision": view.revision,
        "frames": [
            {
                "index": number,
                "name": name,
                "focus_distance_m": None
                if distances_m is None
                else jsonable(math.inf if distances_m[number] is None else distances_m[number]),
            }
            for number, name in zip(view.frame_numbers, names, strict=True)
        ],
        "kind": saved.depth_field,
        "unit": None if saved.depth_field is None else _UNITS[saved.depth_field],
        "range": None if depth is None else [depth.low, depth.high],
        "scale": "dioptres" if depth is not None and _is_inverse(depth) else "metres",
        "focal": None
        if camera is None
        else {
            "focal_length_px": camera.focal_length_px,
            "principal_point_px": list(camera.principal_point_px),
            "focal_length_m": saved.lens.focal_length_m,
            "aperture_diameter_m": camera.aperture_diameter_m,
        },
        "camera_known": camera is not None and saved.depth_field == "depth_m",
        "lens_known": f_number is not None and saved.depth_field == "depth_m",
        "f_number": f_number,
        "grade": saved.metadata["grade"],
        "warnings": list(saved.metadata["findings"]),
    }


def tile(
    place: Place,
    layer: str,
    at: tuple[int, int, int],
    ends: tuple[float, float] | None = None,
    colours: str = "viridis",
) -> tuple[str, bytes]:
    """A tile of a layer.

    Args:
        place: of the result.
        layer: image, frame-NUMBER, depth, confidence or source.
        at: level, x and y of the tile.
        ends: nearest and farthest depth of the colours; None for the range of the depth.
        colours: one of `COLOURS`.

    Returns:
        Media type and content. Native pixels of images are PNG, smaller ones JPEG.

    Raises:
        InputError: there is no such tile, layer or colour map.
    """
    view = view_of(place)
    if colours not in COLOURS:
        raise InputError(f"colours {colours!r}: expected one of {', '.join(COLOURS)}.")
    values = view.layer(layer).tile(*at)
    if layer == "image" or layer.startswith("frame-"):
        profile = view.saved.image_metadata.icc_profile
        pixels = view.screen_values[values]
        if at[0] == level_count(view.size) - 1:
            return "image/png", encoded_png(pixels, profile)
        return "image/jpeg", encoded_jpeg(pixels, profile)
    return "image/png", encoded_png(_coloured(view, layer, values, ends, colours))


def _coloured(
    view: View,
    layer: str,
    values: NDArray[Any],
    ends: tuple[float, float] | None,
    colours: str,
) -> NDArray[np.uint8]:
    """Values of a map (h, w) in colours (h, w, 4); transparent where unknown."""
    table = _near_to_far(colours)
    if layer == "depth":
        depth = view.depth_range
        if depth is None:
            return np.zeros((*values.shape, 4), np.uint8)
        low, high = sorted(ends or (depth.low, depth.high))
        if _is_inverse(depth) and low <= 0:
            low = depth.low
        if not (math.isfinite(low) and high > low):
            raise InputError(f"range {low:g},{high:g}: expected two different depths.")
        shares = ColourScale("", low, high, colours, _is_inverse(depth)).places(values)
        known = np.isfinite(values)
    elif layer == "confidence":
        shares, known = 1 - values / 255, np.ones(values.shape, bool)  # sure is bright
    else:
        last = max(max(view.frame_numbers), 1)
        shares, known = values / last, values != generated_mark(values.dtype)
    levels = np.nan_to_num(shares * len(table)).clip(0, len(table) - 1).astype(np.uint8)
    return np.dstack([table[levels], np.where(known, 255, 0).astype(np.uint8)])


def probe(place: Place, x: float, y: float) -> dict[str, Any]:
    """Depth with its uncertainty, confidence, source frame and position of a native pixel."""
    view = view_of(place)
    column, row = _pixel(view, x, y)
    source = view.layer("source").native[row, column]
    frame = None if source == generated_mark(source.dtype) else int(source)
    answer: dict[str, Any] = {"x": column, "y": row, "source_frame": frame}
    if view.saved.depth_field is None:
        return {**answer, "value": None, "low": None, "high": None, "unit": None}
    value, low, high, confidence = _depth_at(view, column, row)
    return {
        **answer,
        "value": jsonable(value),
        "low": jsonable(low),
        "high": jsonable(high),
        "unit": _UNITS[view.saved.depth_field],
        "confidence": round(confidence, 3),
        "xyz_m": None if (xyz := _xyz_m(view, column, row, value)) is None else xyz.tolist(),
    }


def measure(place: Place, start: tuple[float, float], end: tuple[float, float]) -> dict[str, Any]:
    """Distance between the points that two native pixels show, see `distance_interval`.

    Raises:
        InputError: the depth is not metric, a depth is unknown, or the focal length is.
    """
    view = view_of(place)
    saved = view.saved
    if saved.depth_field != "depth_m":
        raise InputError(
            "a distance in metres needs depth in metres, and this result has "
            f"{'no depth' if saved.depth_field is None else 'none'}. Give the focus distances "
            "of the frames and run it again."
        )
    if saved.camera is None:
        raise InputError(
            "a distance in metres needs the focal length. Give the lens and run it again."
        )
    points, rays, intervals = [], [], []
    for x, y in (start, end):
        column, row = _pixel(view, x, y)
        value, low, high, _ = _depth_at(view, column, row)
        if not math.isfinite(value):
            raise InputError(f"the depth at {column}, {row} is unknown. Choose another point.")
        points.append(_xyz_m(view, column, row, value))
        rays.append(_xyz_m(view, column, row, 1.0))
        if low is not None and high is not None:
            intervals.append((low, value, high))
    is_known = len(intervals) == len(points)
    low_m, high_m = distance_interval(np.array(rays), intervals) if is_known else (None, None)
    return {
        "distance_m": float(np.linalg.norm(np.subtract(*points))),  # type: ignore[arg-type]
        "low_m": low_m,
        "high_m": jsonable(high_m),
        "unit": "m",
    }


def strokes(place: Place) -> dict[str, Any]:
    """The strokes of the retouching, and the number of its changes."""
    view = view_of(place)
    return {"strokes": [one.summary() for one in view.strokes], "revision": view.revision}


def retouch(place: Place, wanted: object, revision: object) -> dict[str, Any]:
    """Replace the strokes of a revision.

    Raises:
        InputError: a stroke is none, or this is not the latest revision.
    """
    changed, latest = view_of(place).retouch(wanted, revision)
    return {"rectangle": None if changed is None else list(changed), "revision": latest}


def f_number_of(view: View) -> float | None:
    """f-number of the stack's aperture; None if unknown, or without a focal length in metres."""
    lens, camera = view.saved.lens, view.saved.camera
    if lens.f_number is not None:
        return lens.f_number
    if camera is None or camera.aperture_diameter_m is None or lens.focal_length_m is None:
        return None
    return lens.focal_length_m / camera.aperture_diameter_m


def jsonable(value: float | None) -> float | str | None:
    """A number as JSON holds it: infinity is "inf", an unknown one null."""
    if value is None or math.isnan(value):
        return None
    return ("-inf" if value < 0 else "inf") if math.isinf(value) else float(value)


def _near_to_far(name: str) -> NDArray[np.uint8]:
    """256 colours; the nearest is the brightest."""
    return ColourScale("", 0, 1, f"{name}_r").gradient(256)


def _is_inverse(depth: DepthRange) -> bool:
    return depth.field == "depth_m" and depth.high > _FAR_RATIO * depth.low > 0


def _pixel(view: View, x: float, y: float) -> tuple[int, int]:
    """Column and row of the pixel that holds a point, pixel centres at halves."""
    height, width = view.size
    if not (0 <= x < width and 0 <= y < height):
        raise InputError(f"point {x:g}, {y:g}: outside of the image of {width}x{height}.")
    return int(x), int(y)


def _depth_at(view: View, column: int, row: int) -> tuple[float, float | None, float | None, float]:
    """Depth, ends of its interval, and confidence."""
    saved = view.saved
    assert saved.depth_field is not None
    value = float(view.layer("depth").native[row, column])
    confidence = float(view.layer("confidence").native[row, column]) / 255
    if saved.depth_near is None or saved.depth_far is None:
        return value, None, None, confidence
    low, high = float(saved.depth_near[row, column]), float(saved.depth_far[row, column])
    # A depth that was set by hand may lie outside.
    return value, float(np.fmin(low, value)), float(np.fmax(high, value)), confidence


def _xyz_m(view: View, column: int, row: int, depth_m: float) -> NDArray[np.float64] | None:
    """The point that a pixel shows, metres: x right, y down, z forward; None if unknown."""
    camera = view.saved.camera
    if camera is None or view.saved.depth_field != "depth_m" or not math.isfinite(depth_m):
        return None
    centre_x, centre_y = camera.principal_point_px
    rays = np.array([column + 0.5 - centre_x, row + 0.5 - centre_y, camera.focal_length_px])
    return rays / camera.focal_length_px * depth_m
