"""A stack at a small size: for its thumbnails, its check before the run, and the draft result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.frames import (
    FrameSource,
    Pixels,
    alpha_of,
    looked_up,
    reduced,
    rounded,
    shares_of_white,
    working_size,
)
from focaldiffusion.io.stacks import OpenedStack
from focaldiffusion.lens import LensFacts


class ReducedFrames:
    """A FrameSource of frames reduced to a small size; each is read once and kept."""

    def __init__(
        self,
        frames: FrameSource,
        long_side_px: int,
        seen: Callable[[int, Pixels], None] | None = None,
    ) -> None:
        """Reduce frames, when they are read.

        Args:
            frames: native frames.
            long_side_px: long side, at most; less for stacks of many frames.
            seen: called with the number of a frame and its pixels when it is first read.
        """
        self.names, self.is_grey = frames.names, frames.is_grey
        self.bit_depth = 8
        self.size = working_size(frames.size, len(frames.names), long_side_px)
        self._native, self._seen = frames, seen
        self._kept: dict[int, tuple[Pixels, NDArray[np.float32] | None]] = {}

    def read(self, index: int) -> NDArray[np.float32]:
        """See `FrameSource.read`."""
        pixels = self.pixels(index)
        return looked_up(pixels, shares_of_white(pixels.dtype))

    def pixels(self, index: int) -> Pixels:
        """See `IntegerFrames.pixels`."""
        return self._frame(index)[0]

    def alpha(self, index: int) -> NDArray[np.float32] | None:
        """See `TransparentFrames.alpha`."""
        return self._frame(index)[1]

    def _frame(self, index: int) -> tuple[Pixels, NDArray[np.float32] | None]:
        if index not in self._kept:
            pixels = rounded(reduced(self._native.read(index), self.size), np.uint8)
            alpha = alpha_of(self._native, index)
            self._kept[index] = pixels, None if alpha is None else reduced(alpha, self.size)
            if self._seen is not None:
                self._seen(index, pixels)
        return self._kept[index]


def reduced_stack(
    opened: OpenedStack, long_side_px: int, seen: Callable[[int, Pixels], None] | None = None
) -> OpenedStack:
    """The same stack at a small size, its lens in pixels of that size.

    Args:
        opened: the stack.
        long_side_px: see `ReducedFrames`.
        seen: see `ReducedFrames`.
    """
    frames = ReducedFrames(opened.frames, long_side_px, seen)
    scale = max(frames.size) / max(opened.frames.size)
    values = opened.lens.values()
    if "pixel_pitch_m" in values:
        values["pixel_pitch_m"] /= scale
    if "focal_length_px" in values:
        values["focal_length_px"] *= scale
    return replace(opened, frames=frames, lens=LensFacts(**values))
