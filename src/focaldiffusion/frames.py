"""The native frames of a stack, and the size at which they are solved."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache, partial
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from numpy.typing import DTypeLike, NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.threads import in_parallel

WORKING_SIZE_PX = 1024
"""Default long side of the working images, at which depth is solved; see `working_size`."""

_WORKING_PIXELS = 16 * 1024 * 768
"""Pixels of all working images together. Longer stacks are solved at a smaller size, so neither
memory nor time grows with the number of frames."""

LEAST_ALPHA = 0.5
"""Alpha from which a pixel is evidence; of a more transparent one the colour is not known."""

Pixels = NDArray[Any]
"""A frame of integers (H, W, 3), uint8 or uint16, sRGB-encoded; white is the largest value."""

Window = tuple[slice, slice]
"""Rows and columns of a frame."""

_LONGEST_ASPECT = 2.0  # longer frames are solved with the pixels of this aspect, not its long side
_AHEAD_BYTES = 1 << 26  # of a frame decoded before its turn: 21 megapixels of 8 bits
_STRIP_PIXELS = 1 << 19  # 6 MiB of float32 colours: memory that is reused and stays in the cache
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


@runtime_checkable
class IntegerFrames(FrameSource, Protocol):
    """Native frames of integers, which need a quarter of the memory of floats."""

    def pixels(self, index: int) -> Pixels:
        """Frame `index` as integers; `read` gives the same, as shares of white.

        Raises:
            InputError: the frame cannot be read; the message names it.
        """
        ...


class Frame(Protocol):
    """One decoded frame, whose parts become light or encoded floats when they are needed."""

    def encoded(
        self, window: Window, sharp: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """A part, sRGB-encoded, (h, w, 3) in [0, 1].

        Args:
            window: rows and columns of the part.
            sharp: (h, w), pixels that are resampled sharply where the frame moved; linear
                interpolation takes a tenth of the time. None for all.
        """
        ...

    def light(self, window: Window, *, draft: bool = False) -> NDArray[np.float32]:
        """The same in linear light.

        Args:
            window: rows and columns of the part.
            draft: resample linearly; enough if the size is then at least halved.
        """
        ...


@runtime_checkable
class MovedFrames(FrameSource, Protocol):
    """Native frames that are resampled, part by part."""

    def frame(self, index: int) -> Frame:
        """Frame `index`, decoded.

        Raises:
            InputError: the frame cannot be read; the message names it.
        """
        ...


class StillFrame:
    """A `Frame` whose pixels stay in place."""

    def __init__(self, pixels: Pixels) -> None:
        """Serve parts of the pixels."""
        self.pixels = pixels

    def encoded(
        self, window: Window, sharp: NDArray[np.bool_] | None = None
    ) -> NDArray[np.float32]:
        """See `Frame.encoded`."""
        return looked_up(self.pixels[window], shares_of_white(self.pixels.dtype))

    def light(self, window: Window, *, draft: bool = False) -> NDArray[np.float32]:
        """See `Frame.light`."""
        return looked_up(self.pixels[window], light_of(self.pixels.dtype))


def pixels_of(frames: FrameSource, index: int) -> Pixels:
    """A frame as integers; floats are rounded to 16 bits."""
    if isinstance(frames, IntegerFrames):
        return frames.pixels(index)
    return rounded(frames.read(index))


def frame_of(frames: FrameSource, index: int) -> Frame:
    """A frame, decoded."""
    if isinstance(frames, MovedFrames):
        return frames.frame(index)
    return StillFrame(pixels_of(frames, index))


def decoded(frames: FrameSource, indices: Iterable[int]) -> Iterator[Frame]:
    """Frames, one after the other; small ones are decoded while the one before is in use."""
    height, width = frames.size
    frame_bytes = height * width * 3 * frames.bit_depth // 8
    if frame_bytes > _AHEAD_BYTES:
        return map(partial(frame_of, frames), indices)
    return in_parallel(partial(frame_of, frames), indices, most=1)


def rounded(image: NDArray[np.float32], dtype: DTypeLike = np.uint16) -> Pixels:
    """Shares of white in [0, 1] as integers."""
    white = np.iinfo(dtype).max  # type: ignore[type-var]
    if dtype == np.uint8:
        # Rounds, in a tenth of NumPy's time.
        return np.asarray(cv2.convertScaleAbs(image, alpha=white))
    scaled = image * np.float32(white)
    return np.rint(scaled, out=scaled).astype(dtype)


def looked_up(pixels: Pixels, table: NDArray[np.float32]) -> NDArray[np.float32]:
    """The entry of a table for each integer, in the shape of the pixels.

    Args:
        pixels: (h, w, 3).
        table: one entry for each value of the type, or a row of one for each channel.
    """
    if pixels.dtype == np.uint8:
        return np.asarray(cv2.LUT(pixels, table[None]), np.float32)
    if table.ndim == 1:
        return table.take(pixels)
    return np.stack([table[:, c].take(pixels[..., c]) for c in range(3)], axis=-1)


@lru_cache
def shares_of_white(dtype: DTypeLike) -> NDArray[np.float32]:
    """Share of white of each integer of a type."""
    white = np.iinfo(dtype).max  # type: ignore[type-var]
    return np.arange(white + 1, dtype=np.float32) / np.float32(white)


@lru_cache
def light_of(dtype: DTypeLike) -> NDArray[np.float32]:
    """Linear light that each sRGB-encoded integer of a type means."""
    white = np.iinfo(dtype).max  # type: ignore[type-var]
    values = torch.linspace(0, 1, white + 1, dtype=torch.float64)
    return srgb_to_linear(values).float().numpy()


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


def strips(size: tuple[int, int]) -> list[Window]:
    """Windows of the full width that cover an image of (height, width), from top to bottom."""
    height, width = size
    rows = max(1, _STRIP_PIXELS // width)
    return [
        (slice(top, min(top + rows, height)), slice(0, width)) for top in range(0, height, rows)
    ]


def reduced_in_strips(
    part: Callable[[Window], NDArray[np.float32]], full: tuple[int, int], size: tuple[int, int]
) -> NDArray[np.float32]:
    """The same as `reduced` of an image (H, W, ...) that is made strip by strip.

    Args:
        part: makes the window of an image.
        full: (height, width) of the image.
        size: (height, width) of the result.
    """

    def narrowed(strip: Window) -> NDArray[np.float32]:
        image = part(strip)
        return reduced(image, (len(image), size[1]))

    return reduced(np.concatenate(list(in_parallel(narrowed, strips(full)))), size)
