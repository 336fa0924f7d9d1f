"""Images and maps as pyramids on disk, from which a page takes small tiles."""

from __future__ import annotations

import io
import math
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from focaldiffusion.errors import InputError

TILE_PX = 512
"""Side of a tile."""

Rectangle = tuple[int, int, int, int]
"""Left, top, right and bottom edge of a rectangle of native pixels, right and bottom excluded."""

_JPEG_QUALITY = 92
_PNG_LEVEL = 1  # more takes several times as long


def level_count(size: tuple[int, int]) -> int:
    """Number of levels, from one tile that holds everything to native pixels.

    Args:
        size: (height, width) of the image.
    """
    return 1 + max(0, math.ceil(math.log2(max(size) / TILE_PX)))


@dataclass(frozen=True, eq=False)
class Pyramid:
    """An array (H, W, ...) at halved sizes, rounded up, mapped from files.

    Attributes:
        levels: from the smallest, which fits a tile, to native size.
        is_image: whether pixels are averaged; maps keep every second value, for nothing lies
            between two surfaces.
    """

    levels: tuple[NDArray[Any], ...]
    is_image: bool

    @classmethod
    def opened(
        cls, folder: Path, make: Callable[[], NDArray[Any]], *, is_image: bool, writable: bool
    ) -> Pyramid:
        """The pyramid in a folder; made if it is not there.

        Args:
            folder: a folder of its own.
            make: returns the array at native size.
            is_image: see the class.
            writable: whether `update` will be called.
        """
        if not folder.exists():
            array = make()
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
            try:
                for level in reversed(range(level_count(array.shape[:2]))):
                    np.save(partial / f"{level}.npy", array)
                    array = _halved(array, is_image)
                partial.rename(folder)
            except OSError:  # a full disk
                shutil.rmtree(partial, ignore_errors=True)
                if not folder.exists():  # otherwise another process was faster
                    raise
        paths = sorted(folder.glob("*.npy"), key=lambda path: int(path.stem))
        mode: Literal["r+", "r"] = "r+" if writable else "r"
        return cls(tuple(np.load(path, mmap_mode=mode) for path in paths), is_image)

    @property
    def native(self) -> NDArray[Any]:
        """The array at native size."""
        return self.levels[-1]

    def tile(self, level: int, x: int, y: int) -> NDArray[Any]:
        """A tile of at most `TILE_PX` by `TILE_PX` values.

        Raises:
            InputError: there is none.
        """
        if not 0 <= level < len(self.levels):
            raise InputError(f"level {level}: expected 0 to {len(self.levels) - 1}.")
        array = self.levels[level]
        rows, columns = (-(-length // TILE_PX) for length in array.shape[:2])
        if not (0 <= x < columns and 0 <= y < rows):
            raise InputError(f"tile {x}, {y}: level {level} has {columns} by {rows} tiles.")
        top, left = y * TILE_PX, x * TILE_PX
        return np.asarray(array[top : top + TILE_PX, left : left + TILE_PX])

    def update(self, rectangle: Rectangle, values: NDArray[Any]) -> None:
        """Replace a rectangle of native values on all levels."""
        left, top, right, bottom = rectangle
        self.native[top:bottom, left:right] = values
        for fine, coarse in zip(self.levels[:0:-1], self.levels[-2::-1], strict=True):
            left, top, right, bottom = left // 2, top // 2, -(-right // 2), -(-bottom // 2)
            part = fine[2 * top : 2 * bottom, 2 * left : 2 * right]
            coarse[top:bottom, left:right] = _halved(part, self.is_image)


def _halved(array: NDArray[Any], is_image: bool) -> NDArray[Any]:
    """The array at half its size, rounded up."""
    if not is_image:
        return np.ascontiguousarray(array[::2, ::2])
    height, width = array.shape[:2]
    even = np.ascontiguousarray(array)
    if height % 2 or width % 2:
        even = cv2.copyMakeBorder(even, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    size = even.shape[1] // 2, even.shape[0] // 2
    return np.asarray(cv2.resize(even, size, interpolation=cv2.INTER_AREA), array.dtype)


def encoded_jpeg(
    pixels: NDArray[np.uint8], icc_profile: bytes | None = None, quality: int = _JPEG_QUALITY
) -> bytes:
    """Pixels (H, W, 3) as JPEG without subsampled colours."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(buffer, "JPEG", quality=quality, subsampling=0, icc_profile=icc_profile)
    return buffer.getvalue()


def encoded_png(pixels: NDArray[np.uint8], icc_profile: bytes | None = None) -> bytes:
    """Pixels (H, W, 3) or, with alpha, (H, W, 4) as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=_PNG_LEVEL, icc_profile=icc_profile)
    return buffer.getvalue()
