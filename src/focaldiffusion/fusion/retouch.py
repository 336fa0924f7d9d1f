"""Retouching by hand: strokes of a brush that choose source frames, or set depth.

A stroke takes pixels from a captured frame, so no pixel is ever invented. Strokes work on the
integers that `all_in_focus.png` holds, so that replaying them gives the same file, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError

Integers = NDArray[np.integer[Any]]
Plane = NDArray[np.float32]
Rectangle = tuple[int, int, int, int]
"""Left, top, right and bottom edge [px], right and bottom excluded."""

Tool = Literal["source", "depth", "flatten"]

_KEYS = ("tool", "frame", "depth", "size_px", "softness", "points")
_LARGEST_BRUSH_PX = 8192
_MOST_POINTS = 10_000
_MOST_STROKES = 10_000


@dataclass(frozen=True)
class Stroke:
    """One stroke of the brush.

    Attributes:
        tool: "source" takes the pixels of a frame; "depth" sets a depth; "flatten" sets the median
            of the depth below the stroke.
        points: (x, y) of its path [px].
        size_px: diameter of the brush.
        softness: share of the radius over which the brush fades, 0 to 1. Depth does not fade, for
            nothing lies between two surfaces.
        frame: number of the frame, as in the source index; for "source" only.
        depth: depth in the unit of the result; for "depth" only.
    """

    tool: Tool
    points: tuple[tuple[float, float], ...]
    size_px: float
    softness: float = 0.0
    frame: int | None = None
    depth: float | None = None

    @classmethod
    def of(cls, values: object, place: str) -> Stroke:
        """Check the stroke that a file or a page describes.

        Raises:
            InputError: it is not one; the message begins with `place`.
        """
        if not isinstance(values, Mapping) or not set(values) <= set(_KEYS):
            raise InputError(f"{place}: expected an object of {', '.join(_KEYS)}.")
        tool, frame = values.get("tool"), values.get("frame")
        if tool is None or tool not in get_args(Tool):
            raise InputError(
                f"{place}: tool {tool!r}; expected one of {', '.join(get_args(Tool))}."
            )
        if tool == "source" and (isinstance(frame, bool) or not isinstance(frame, int)):
            raise InputError(f"{place}: frame {frame!r}; expected the number of a frame.")
        size_px = _number(values.get("size_px"), f"{place}: size_px", 1, _LARGEST_BRUSH_PX)
        softness = _number(values.get("softness", 0), f"{place}: softness", 0, 1)
        depth = None
        if tool == "depth":
            depth = _number(values.get("depth"), f"{place}: depth", -1e6, 1e6)
        points = values.get("points")
        if not isinstance(points, (list, tuple)) or not 0 < len(points) <= _MOST_POINTS:
            raise InputError(f"{place}: points; expected 1 to {_MOST_POINTS} pairs of x and y.")
        path = []
        for point in points:
            if not isinstance(point, (list, tuple)) or len(point) != 2:
                raise InputError(f"{place}: point {point!r}; expected x and y.")
            x, y = (_number(one, f"{place}: point", -1e6, 1e6) for one in point)
            path.append((x, y))
        return cls(tool, tuple(path), size_px, softness, frame if tool == "source" else None, depth)

    def summary(self) -> dict[str, Any]:
        """The stroke as `of` takes it, JSON-serialisable."""
        values = {name: getattr(self, name) for name in _KEYS}
        return {**values, "points": [list(point) for point in self.points]}

    def mask(self, size: tuple[int, int]) -> tuple[Rectangle, Plane] | None:
        """Opacity of the brush in [0, 1], (h, w), in a rectangle of an image (height, width).

        None if the stroke misses the image.
        """
        path = np.floor(np.array(self.points)).astype(np.int32)
        radius = max(self.size_px / 2, 0.5)
        reach = math.ceil(radius)
        (left, top), (right, bottom) = path.min(0) - reach, path.max(0) + reach + 1
        # The brush is drawn whole, so that the border of the image does not change its shape.
        if max(right - left, bottom - top) > 4 * _LARGEST_BRUSH_PX + max(size):
            raise InputError("a stroke goes far beyond the image.")
        line = np.ones((bottom - top, right - left), np.uint8)
        # The last point twice, because OpenCV draws no path of a single one.
        cv2.polylines(line, [np.vstack([path, path[-1:]]) - (left, top)], False, 0)
        distance = cv2.distanceTransform(line, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        fade = max(radius * self.softness, 1e-3)
        share = np.clip((radius - distance) / fade, 0, 1)
        share = share * share * (3 - 2 * share)  # smooth at both ends
        height, width = size
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(right, width), min(bottom, height)
        if x0 >= x1 or y0 >= y1:
            return None
        inside = share[y0 - top : y1 - top, x0 - left : x1 - left]
        return (int(x0), int(y0), int(x1), int(y1)), np.ascontiguousarray(inside, np.float32)


@dataclass(frozen=True, eq=False)
class Canvas:
    """The arrays of a result that strokes change in place.

    Attributes:
        pixels: (H, W, 3), the values of `all_in_focus.png`.
        source_index: (H, W).
        depth: (H, W); None without depth.
        confidence: (H, W), float32 or uint8; None without depth.
    """

    pixels: Integers
    source_index: Integers
    depth: Plane | None = None
    confidence: NDArray[Any] | None = None

    def apply(self, stroke: Stroke, frame_pixels: Callable[[int], Integers]) -> Rectangle | None:
        """Draw a stroke.

        Depth that is set by hand has confidence 0: no frame supports it.

        Args:
            stroke: the stroke.
            frame_pixels: the pixels (H, W, 3) of the frame of a number, in the view of the result.

        Returns:
            The rectangle that may have changed; None if the stroke misses the image.
        """
        size = self.pixels.shape[0], self.pixels.shape[1]
        if (found := stroke.mask(size)) is None:
            return None
        rectangle, share = found
        left, top, right, bottom = rectangle
        window = slice(top, bottom), slice(left, right)
        if stroke.tool == "source":
            assert stroke.frame is not None
            frame = frame_pixels(stroke.frame)[window]
            here = self.pixels[window]
            blended = here + (frame.astype(np.float64) - here) * share[..., None]
            self.pixels[window] = np.rint(blended).astype(here.dtype)
            self.source_index[window][share >= 0.5] = stroke.frame
            return rectangle
        assert self.depth is not None  # `Retouch.check` sees to it
        assert self.confidence is not None
        chosen, depth = share >= 0.5, self.depth[window]
        value = stroke.depth
        if stroke.tool == "flatten":
            known = depth[chosen & np.isfinite(depth)]
            if known.size == 0:
                return rectangle
            value = float(np.median(known))
        depth[chosen] = value
        self.confidence[window][chosen] = 0
        return rectangle


@dataclass(frozen=True)
class Retouch:
    """The strokes of a result, as `retouch.json` holds them.

    Attributes:
        size: (height, width) of the result [px].
        strokes: in the order in which they were drawn.
    """

    size: tuple[int, int]
    strokes: tuple[Stroke, ...] = ()

    @classmethod
    def of(cls, values: object, place: str) -> Retouch:
        """Check what a file or a page holds.

        Raises:
            InputError: it is not a retouching; the message begins with `place`.
        """
        if not isinstance(values, Mapping) or not {"size", "strokes"} <= set(values):
            raise InputError(
                f"{place}: not a retouch.json; expected an object of size and strokes."
            )
        size, strokes = values["size"], values["strokes"]
        if not isinstance(size, list) or len(size) != 2:
            raise InputError(f"{place}: size {size!r}; expected height and width.")
        height, width = (int(_number(side, f"{place}: size", 1, 1e6)) for side in size)
        if not isinstance(strokes, list) or len(strokes) > _MOST_STROKES:
            raise InputError(f"{place}: strokes; expected a list of at most {_MOST_STROKES}.")
        return cls(
            (height, width),
            tuple(
                Stroke.of(stroke, f"{place}: stroke {number}")
                for number, stroke in enumerate(strokes, start=1)
            ),
        )

    def check(
        self, size: tuple[int, ...], frames: Sequence[int], name: str, *, has_depth: bool
    ) -> None:
        """Check that the strokes belong to a result.

        Args:
            size: (height, width) of the result.
            frames: numbers of its frames.
            name: of its stack.
            has_depth: whether it has depth.

        Raises:
            InputError: another size, a frame that is not there, or depth of a result without.
        """
        if self.size != tuple(size):
            raise InputError(
                f"{name}: the strokes are those of a result of {self.size[1]}x{self.size[0]}, but "
                f"this one is {size[1]}x{size[0]}. Take the file of this stack and its alignment."
            )
        for number, stroke in enumerate(self.strokes, start=1):
            if stroke.tool == "source" and stroke.frame not in frames:
                raise InputError(
                    f"{name}: stroke {number} takes from frame {stroke.frame}; this result has the "
                    f"frames {', '.join(map(str, frames))}."
                )
            if stroke.tool != "source" and not has_depth:
                raise InputError(
                    f"{name}: stroke {number} sets depth, and this result has none. Make it "
                    "without --image-only, or leave the stroke out."
                )

    def summary(self) -> dict[str, Any]:
        """The content of `retouch.json`."""
        strokes = [stroke.summary() for stroke in self.strokes]
        return {"size": list(self.size), "strokes": strokes}


def union(rectangles: Sequence[Rectangle | None]) -> Rectangle | None:
    """Smallest rectangle that holds all of them; None if there are none."""
    known = np.array([one for one in rectangles if one is not None])
    if len(known) == 0:
        return None
    (left, top), (right, bottom) = known[:, :2].min(0), known[:, 2:].max(0)
    return int(left), int(top), int(right), int(bottom)


def _number(value: object, name: str, least: float, most: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= float(value) <= most:  # type: ignore[arg-type]
        raise InputError(f"{name} {value!r}; expected a number from {least:g} to {most:g}.")
    return float(value)  # type: ignore[arg-type]
