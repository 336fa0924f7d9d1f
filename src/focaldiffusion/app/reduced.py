"""A stack at a small size: for its thumbnails, its check before the run, and the draft result."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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
from focaldiffusion.io.staging import write_whole
from focaldiffusion.lens import LensFacts


@dataclass(frozen=True)
class Kept:
    """Reduced frames on disk, so that large files are decoded once for the check and the draft.

    Attributes:
        folder: of the kept frames.
        files: file of each frame.
        ids: name of each frame there.
    """

    folder: Path
    files: Sequence[Path]
    ids: Sequence[str]

    def load(self, index: int, size: tuple[int, int]) -> Pixels | None:
        """A frame of (height, width); None if it is not kept, or its file is newer."""
        path = self._path(index)
        try:
            if path.stat().st_mtime < self.files[index].stat().st_mtime:
                return None
            pixels: Pixels = np.load(path)
        except (OSError, ValueError):  # cut short by a kill
            return None
        return pixels if pixels.shape == (*size, 3) and pixels.dtype == np.uint8 else None

    def save(self, index: int, pixels: Pixels) -> None:
        """Keep a frame."""
        buffer = io.BytesIO()
        np.save(buffer, pixels)
        self.folder.mkdir(exist_ok=True)
        write_whole(self._path(index), buffer.getvalue())

    def _path(self, index: int) -> Path:
        return self.folder / f"{self.ids[index]}.npy"


class ReducedFrames:
    """A FrameSource of frames reduced to a small size; each is read once and kept."""

    def __init__(
        self,
        frames: FrameSource,
        long_side_px: int,
        kept: Kept | None = None,
        seen: Callable[[int, Pixels], None] | None = None,
    ) -> None:
        """Reduce frames, when they are read.

        Args:
            frames: native frames.
            long_side_px: long side, at most; less for stacks of many frames.
            kept: where to keep opaque frames, and to find them; None for nowhere.
            seen: called with the number of a frame and its pixels when it is first read.
        """
        self.names, self.is_grey = frames.names, frames.is_grey
        self.bit_depth = 8
        self.size = working_size(frames.size, len(frames.names), long_side_px)
        self._native, self._seen, self._on_disk = frames, seen, kept
        self._read: dict[int, tuple[Pixels, NDArray[np.float32] | None]] = {}

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
        if index not in self._read:
            pixels = self._on_disk.load(index, self.size) if self._on_disk else None
            alpha = None
            if pixels is None:
                pixels = rounded(reduced(self._native.read(index), self.size), np.uint8)
                alpha = alpha_of(self._native, index)
                if self._on_disk is not None and alpha is None:
                    self._on_disk.save(index, pixels)
            self._read[index] = pixels, None if alpha is None else reduced(alpha, self.size)
            if self._seen is not None:
                self._seen(index, pixels)
        return self._read[index]


def reduced_stack(
    opened: OpenedStack,
    long_side_px: int,
    kept: Kept | None = None,
    seen: Callable[[int, Pixels], None] | None = None,
) -> OpenedStack:
    """The same stack at a small size, its lens in pixels of that size.

    Args:
        opened: the stack.
        long_side_px: see `ReducedFrames`.
        kept: see `ReducedFrames`.
        seen: see `ReducedFrames`.
    """
    frames = ReducedFrames(opened.frames, long_side_px, kept, seen)
    scale = max(frames.size) / max(opened.frames.size)
    values = opened.lens.values()
    if "pixel_pitch_m" in values:
        values["pixel_pitch_m"] /= scale
    if "focal_length_px" in values:
        values["focal_length_px"] *= scale
    return replace(opened, frames=frames, lens=LensFacts(**values))
