"""Alignment: the position of each frame of a stack, and the frames resampled to one view."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.align.motion import Matrix, Method, warp
from focaldiffusion.align.pyramid import Plane
from focaldiffusion.errors import InputError
from focaldiffusion.frames import (
    Frame,
    FrameSource,
    Pixels,
    Window,
    alpha_of,
    light_of,
    looked_up,
    pixels_of,
    rounded,
    shares_of_white,
)

_LEAST_KEPT = 0.25  # of the area
_REACH_PX = 5  # of the longest filter, and rounding
_POINTS_IN_A_ROW = 1024  # of OpenCV's maps, whose sides are limited


@dataclass(frozen=True, eq=False)
class FrameAlignment:
    """Position and exposure of one frame relative to the reference.

    Attributes:
        name: of the frame.
        matrix: (2, 3) from pixels of the reference to pixels of the frame, native size, pixel
            centres at halves.
        gain: linear light of the frame divided by that of the frame of median exposure.
        cast: factors of red, green and blue beyond the gain.
        method: source of the motion.
        correlation: with the frame it was compared to, at matched blur; None without a
            comparison.
        residual_before: RMS difference from the reference over the mean brightness, both
            low-passed; None without a comparison.
        residual: the same after alignment.
        scale: magnification relative to the reference.
        rotation_deg: in the image plane, positive from x to y.
        shift_px: (x, y), of the image centre.
        corner_displacement_px: largest motion of a corner.
    """

    name: str
    matrix: Matrix
    gain: float
    method: Method
    correlation: float | None
    residual_before: float | None
    residual: float | None
    scale: float
    rotation_deg: float
    shift_px: tuple[float, float]
    corner_displacement_px: float
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @classmethod
    def of(cls, name: str, matrix: Matrix, size: tuple[int, int]) -> FrameAlignment:
        """The alignment of a motion in frames of (height, width), not compared to any other."""
        height, width = size
        points = np.array(
            [[width / 2, height / 2], [0, 0], [width, 0], [0, height], [width, height]]
        )
        (xx, xy), (yx, yy) = matrix[:, :2]
        moved = points @ matrix[:, :2].T + matrix[:, 2] - points
        return cls(
            name=name,
            matrix=matrix,
            gain=1.0,
            method="identity",
            correlation=None,
            residual_before=None,
            residual=None,
            scale=float(np.sqrt(np.linalg.det(matrix[:, :2]))),
            rotation_deg=math.degrees(math.atan2(yx - xy, xx + yy)),
            shift_px=(float(moved[0, 0]), float(moved[0, 1])),
            corner_displacement_px=float(np.linalg.norm(moved[1:], axis=1).max()),
        )

    @property
    def is_moved(self) -> bool:
        """Whether the frame needs resampling."""
        return not np.array_equal(self.matrix, np.eye(2, 3))

    @property
    def gains(self) -> tuple[float, ...]:
        """Factors of red, green and blue: gain times cast."""
        return tuple(self.gain * factor for factor in self.cast)

    def summary(self) -> dict[str, Any]:
        """All attributes, JSON-serialisable."""
        lists = {name: list(getattr(self, name)) for name in ("shift_px", "cast")}
        return {**self.__dict__, "matrix": self.matrix.tolist(), **lists}

    @classmethod
    def of_summary(cls, summary: dict[str, Any]) -> FrameAlignment:
        """Inverse of `summary`, to the last bit."""
        tuples = {name: tuple(summary[name]) for name in ("shift_px", "cast")}
        return cls(**{**summary, "matrix": np.array(summary["matrix"]), **tuples})


@dataclass(frozen=True)
class Crop:
    """Window of the reference frame that all frames share [px]."""

    left: int
    top: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True, eq=False)
class Alignment:
    """Positions of the frames of a stack, and which of them are kept.

    The caller of `apply` also adapts what belongs to the frames: the camera at the focus of the
    reference becomes `camera.cropped(crop.left, crop.top, crop.size)`, and focus settings keep
    the entries of `kept`.

    Attributes:
        reference: index of the frame that defines the view.
        frames: one per kept frame, in the stack's order.
        kept: their indices in the stack.
        dropped: index of each frame that was left out, and why, for "left out: ...".
        crop: the window that all kept frames share.
        size: (height, width) of the frames before cropping.
        findings: sentences about frames that are kept, but not as they should be.
        is_bracket: whether exposure changes from frame to frame, and focus does not.
    """

    reference: int
    frames: tuple[FrameAlignment, ...]
    kept: tuple[int, ...]
    dropped: Mapping[int, str]
    crop: Crop
    size: tuple[int, int]
    findings: tuple[str, ...] = ()
    is_bracket: bool = False

    @property
    def is_identity(self) -> bool:
        """Whether no frame changes, to the last bit."""
        return not self.dropped and not any(f.is_moved or f.gains != (1, 1, 1) for f in self.frames)

    @property
    def gains(self) -> NDArray[np.float32] | None:
        """(N, 3) light of each kept frame and channel over that of `apply`; None if all are 1."""
        gains = np.array([frame.gains for frame in self.frames], np.float32)
        return None if (gains == 1).all() else gains

    def without(self, left_out: Mapping[int, str]) -> Alignment:
        """The alignment without some frames: their indices in the stack, and why."""
        if not left_out:
            return self
        pairs = [
            (index, frame)
            for index, frame in zip(self.kept, self.frames, strict=True)
            if index not in left_out
        ]
        return replace(
            self,
            kept=tuple(index for index, _ in pairs),
            frames=tuple(frame for _, frame in pairs),
            dropped={**self.dropped, **left_out},
        )

    def apply(self, frames: FrameSource) -> FrameSource:
        """The frames in the view of the reference; the source itself if nothing changes.

        Frames are read and resampled one at a time.

        Args:
            frames: the frames that were aligned.
        """
        return frames if self.is_identity else _AlignedFrames(frames, self)

    def summary(self) -> dict[str, Any]:
        """All attributes, JSON-serialisable."""
        return {
            "reference": self.reference,
            "kept": list(self.kept),
            "dropped": {str(index): reason for index, reason in self.dropped.items()},
            "crop": self.crop.__dict__,
            "frames": [frame.summary() for frame in self.frames],
        }

    @classmethod
    def of_summary(cls, summary: dict[str, Any], size: tuple[int, int]) -> Alignment:
        """Inverse of `summary`, without findings.

        Args:
            summary: all attributes.
            size: (height, width) of the frames before cropping.
        """
        return cls(
            reference=summary["reference"],
            frames=tuple(FrameAlignment.of_summary(frame) for frame in summary["frames"]),
            kept=tuple(summary["kept"]),
            dropped={int(index): reason for index, reason in summary["dropped"].items()},
            crop=Crop(**summary["crop"]),
            size=size,
        )


class _AlignedFrames:
    """A FrameSource of aligned frames, each moved, cropped and matched in exposure when read."""

    def __init__(self, source: FrameSource, alignment: Alignment) -> None:
        self.source = source
        self.alignment = alignment
        self.names = tuple(source.names[index] for index in alignment.kept)
        self.size = alignment.crop.size
        self.bit_depth = source.bit_depth
        self.is_grey = source.is_grey

    def alpha(self, index: int) -> NDArray[np.float32] | None:
        """Alpha of frame `index` of the kept ones, see `TransparentFrames.alpha`."""
        alpha = alpha_of(self.source, self.alignment.kept[index])
        if alpha is None:
            return None
        frame = self.alignment.frames[index]
        source = _Source.of(self._whole, frame, self.alignment.crop, alpha.shape)
        if not frame.is_moved:
            return np.ascontiguousarray(alpha[source.box])
        return warp(alpha[source.box], source.matrix, source.size)

    def read(self, index: int) -> NDArray[np.float32]:
        """Frame `index` of the kept ones, see `FrameSource.read`."""
        return self.frame(index).encoded(self._whole)

    def frame(self, index: int) -> Frame:
        """Frame `index` of the kept ones, see `MovedFrames.frame`."""
        pixels = pixels_of(self.source, self.alignment.kept[index])
        encoded, light = shares_of_white(pixels.dtype), light_of(pixels.dtype)
        frame = self.alignment.frames[index]
        if frame.gains != (1, 1, 1):
            encoded = divide_light(np.repeat(encoded[:, None], 3, axis=1), frame.gains)
            light = np.clip(light[:, None] / np.array(frame.gains, np.float32), 0, 1)
        return _AlignedFrame(pixels, frame, self.alignment.crop, encoded, light)

    @property
    def _whole(self) -> Window:
        height, width = self.size
        return slice(0, height), slice(0, width)


@dataclass(frozen=True, eq=False)
class _Source:
    """Where a window of the view lies in a frame.

    Attributes:
        box: rows and columns of the frame that the window is resampled from.
        matrix: (2, 3) from pixels of the window to pixels of the box.
        size: (height, width) of the window.
    """

    box: Window
    matrix: Matrix
    size: tuple[int, int]

    @classmethod
    def of(
        cls, window: Window, frame: FrameAlignment, crop: Crop, full: tuple[int, ...]
    ) -> _Source:
        """The source of a window, in a frame of (height, width) `full`."""
        rows, columns = window
        size = height, width = rows.stop - rows.start, columns.stop - columns.start
        matrix = frame.matrix.copy()
        matrix[:, 2] += matrix[:, :2] @ [crop.left + columns.start, crop.top + rows.start]
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]])
        reached = corners @ matrix[:, :2].T + matrix[:, 2]
        reach_px = _REACH_PX if frame.is_moved else 0
        low, high = np.floor(reached.min(0)) - reach_px, np.ceil(reached.max(0)) + reach_px
        (left, right), (top, bottom) = (
            np.clip((low[axis], high[axis]), 0, full[1 - axis]).astype(int) for axis in (0, 1)
        )
        matrix[:, 2] -= left, top
        return cls((slice(top, bottom), slice(left, right)), matrix, size)

    def points(self, chosen: NDArray[np.intp]) -> Plane:
        """Rows and columns (2, n) of the window as x and y of the box; centres at integers."""
        linear = self.matrix[:, :2].astype(np.float32)
        shift = self.matrix[:, 2:] + self.matrix[:, :2] @ [[0.5], [0.5]] - 0.5
        return linear @ chosen[::-1].astype(np.float32) + shift.astype(np.float32)


@dataclass(frozen=True, eq=False)
class _AlignedFrame:
    """A decoded frame that is moved and cropped part by part.

    Attributes:
        pixels: of the whole frame.
        alignment: of the frame.
        crop: of the view.
        encoded_of, light_of: of each integer, once exposure is evened out, see `looked_up`.
    """

    pixels: Pixels
    alignment: FrameAlignment
    crop: Crop
    encoded_of: Plane
    light_of: Plane

    def encoded(self, window: Window, sharp: NDArray[np.bool_] | None = None) -> Plane:
        """See `Frame.encoded`."""
        source = self._source(window)
        part = looked_up(self.pixels[source.box], self.encoded_of)
        if not self.alignment.is_moved:
            return part
        if sharp is None:
            image = warp(part, source.matrix, source.size, interpolation=cv2.INTER_LANCZOS4)
            return np.clip(image, 0, 1, out=image)
        image = warp(part, source.matrix, source.size)
        if not sharp.any():
            return image
        chosen = np.array(np.nonzero(sharp))
        count, rows = chosen.shape[1], -(-chosen.shape[1] // _POINTS_IN_A_ROW)
        points = np.zeros((2, rows * _POINTS_IN_A_ROW), np.float32)
        points[:, :count] = source.points(chosen)
        x, y = points.reshape(2, rows, _POINTS_IN_A_ROW)
        border = cv2.BORDER_REFLECT_101
        values = cv2.remap(part, x, y, cv2.INTER_LANCZOS4, borderMode=border).reshape(-1, 3)
        image[chosen[0], chosen[1]] = np.clip(values[:count], 0, 1)
        return image

    def light(self, window: Window, *, draft: bool = False) -> Plane:
        """See `Frame.light`."""
        if self.alignment.is_moved and not draft:
            # In linear light, highlights would ring.
            return looked_up(rounded(self.encoded(window)), light_of(np.dtype(np.uint16)))
        source = self._source(window)
        part = looked_up(self.pixels[source.box], self.light_of)
        return warp(part, source.matrix, source.size) if self.alignment.is_moved else part

    def _source(self, window: Window) -> _Source:
        return _Source.of(window, self.alignment, self.crop, self.pixels.shape[:2])


def divide_light(srgb: Plane, gains: float | tuple[float, ...]) -> Plane:
    """Divide linear light by a gain, or one for each channel, in its sRGB encoding.

    This is linear in e on both branches of the encoding, the power branch
    e = 1.055 L^(1/2.4) - 0.055 and the linear one, and needs no powers per pixel. If the result
    lies on the other branch (next to e = 0.04), the error is below 1/1000 at gains within a
    quarter of 1.
    """
    gain = np.asarray(gains, np.float64)
    power = (gain ** (-1 / 2.4)).astype(np.float32)
    bright = srgb * power
    bright += np.float32(0.055) * (power - 1)
    np.multiply(srgb, (1 / gain).astype(np.float32), out=bright, where=srgb <= 0.04045)
    return np.clip(bright, 0, 1, out=bright)


def common_crop(matrices: Sequence[Matrix], names: Sequence[str], size: tuple[int, int]) -> Crop:
    """Largest window of the reference that every frame covers, for small rotations.

    Args:
        matrices: (2, 3) from the reference to each frame, pixel centres at halves.
        names: of the frames.
        size: (height, width) of the frames.

    Raises:
        InputError: the frames share less than a quarter of their area.
    """
    height, width = size
    left, top, right, bottom = 0.5, 0.5, width - 0.5, height - 0.5
    # Outermost pixel centres of each frame, in the reference: samples must lie between them.
    corners = np.array([[x, y] for y in (top, bottom) for x in (left, right)])
    firsts, lasts = [], []
    for matrix in matrices:
        seen = (corners - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        (x0, y0), (x1, y1), (x2, y2), (x3, y3) = seen
        firsts.append((max(x0, x2), max(y0, y1)))
        lasts.append((min(x1, x3), min(y2, y3)))
    left, top = np.max([(left, top), *firsts], axis=0)
    right, bottom = np.min([(right, bottom), *lasts], axis=0)
    # The tolerance keeps rounding of inverted matrices from costing a pixel.
    first_x, first_y = math.ceil(left - 0.5 - 1e-6), math.ceil(top - 0.5 - 1e-6)
    crop = Crop(
        first_x,
        first_y,
        math.floor(bottom - 0.5 + 1e-6) - first_y + 1,
        math.floor(right - 0.5 + 1e-6) - first_x + 1,
    )
    if crop.height < 1 or crop.width < 1 or crop.height * crop.width < _LEAST_KEPT * height * width:
        sides = np.minimum(lasts, (width, height)) - np.maximum(firsts, 0)
        farthest = names[int(sides.prod(axis=1).argmin())]
        raise InputError(
            f"the frames have less than {_LEAST_KEPT:.0%} of their area in common, once aligned; "
            f"{farthest} is farthest off. Leave out frames that show something else, or turn "
            "alignment off with --align off."
        )
    return crop
