"""The native frames of a stack, and the size at which they are solved."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError

WORKING_SIZE_PX = 1024
"""Default long side of the working images, at which depth is solved; see `working_size`."""

_WORKING_PIXELS = 16 * 1024 * 768
"""Pixels of all working images together. Longer stacks are solved at a smaller size, so neither
memory nor time grows with the number of frames."""

LEAST_ALPHA = 0.5
"""Alpha from which a pixel is evidence; of a more transparent one the colour is not known."""

_LONGEST_ASPECT = 2.0  # longer frames are solved with the pixels of this aspect, not its long side
_SMALLEST_PX = 8  # shortest side of a working image: room for the windows that average evidence


class FrameSource(Protocol):
    """The native frames of a stack, read one at a time so that memory never grows with N."""

    names: tuple[str, ...]
    """Name of each frame in messages: its file name, or the file name and page."""
    size: tuple[int, int]
    """(height, width) of every frame [px]."""
    bit_depth: int
    """8 or 16, also the bit depth of outputs."""
    is_grey: bool
    """True if the files have one channel; `read` still returns three equal ones."""

    def read(self, index: int) -> NDArray[np.float32]:
        """Frame `index`, sRGB-encoded, (H, W, 3) float32 in [0, 1].

        Raises:
            InputError: the frame cannot be read; the message names it.
        """
        ...


@runtime_checkable
class TransparentFrames(FrameSource, Protocol):
    """Native frames that may be transparent: cropped, masked, or moved by an aligning program."""

    def alpha(self, index: int) -> NDArray[np.float32] | None:
        """Alpha of frame `index`, (H, W) in [0, 1]; None where all of it is opaque.

        Raises:
            InputError: the frame cannot be read, or all of it is transparent.
        """
        ...


def alpha_of(frames: FrameSource, index: int) -> NDArray[np.float32] | None:
    """Alpha of a frame, (H, W) in [0, 1]; None where all of it is opaque."""
    return frames.alpha(index) if isinstance(frames, TransparentFrames) else None


def working_size(size: tuple[int, int], frame_count: int, long_side_px: int) -> tuple[int, int]:
    """The (height, width) at which depth is solved; smaller for many frames.

    Args:
        size: native (height, width) [px].
        frame_count: number of frames.
        long_side_px: long side for aspects up to 2:1. Longer frames, such as panoramas, keep the
            area of 2:1, so that their short side keeps its defocus.

    Raises:
        InputError: a side is too short for defocus.
    """
    height, width = size
    scale = long_side_px / max(size)
    if max(size) > _LONGEST_ASPECT * min(size):
        scale = long_side_px / math.sqrt(_LONGEST_ASPECT * height * width)
    scale = min(1.0, scale, math.sqrt(_WORKING_PIXELS / (frame_count * height * width)))
    solved = max(1, round(height * scale)), max(1, round(width * scale))
    if min(solved) < _SMALLEST_PX:
        raise InputError(
            f"frames of {width}x{height} are solved at {solved[1]}x{solved[0]}, too small for "
            f"defocus. Both sides need {_SMALLEST_PX} px: give larger frames, or a larger working "
            "size (--working-size)."
        )
    return solved


def reduced(image: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """An image (H, W, 3) or plane (H, W) averaged over areas down to (height, width)."""
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA), np.float32)
