"""The structure of a frame, by which frames are compared."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]

TILE_PX = 32
"""Side of the tiles in which frames are compared; no level is smaller."""
_LOW_PASS_PX = 2.0
_HIGH_PASS_PX = 8.0
_COARSEST_PX = 64
_MIDDLE_PX = 384
_COARSE_PX = 16  # long side at which light and shade are compared
_LARGEST = float(np.finfo(np.float16).max)
_REPEATS = 0.5  # correlation of a texture with itself
_REPEATS_FROM_PX = 20  # shifts beyond the structure that the high-pass leaves


@dataclass(frozen=True, eq=False)
class Pyramid:
    """Structure of a frame, small, because those of all frames of a stack are kept.

    Attributes:
        levels: from coarse to fine: band-passed light, relative to its mean, in half precision,
            whose rounding is that of 8 bits after the low-pass.
        masks: of each level, True where the frame shows the scene; None if it does everywhere.
        coarse: light and shade, relative to the mean.
    """

    levels: tuple[NDArray[np.float16], ...]
    masks: tuple[NDArray[np.bool_], ...] | None
    coarse: Plane

    @classmethod
    def of(cls, luminance: Plane, shown: Plane | None = None) -> Pyramid:
        """The pyramid of (H, W) linear luminance, all of it shown by default."""
        height, width = luminance.shape
        image: Plane = luminance / np.float32(max(float(luminance.mean()), 1e-6))
        shrink = min(1, _COARSE_PX / max(height, width))
        coarse_size = max(1, round(width * shrink)), max(1, round(height * shrink))
        coarse: Plane = cv2.resize(image, coarse_size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        levels = []
        for halvings in range(16):
            low = cv2.GaussianBlur(image, (0, 0), _LOW_PASS_PX)
            level = low - cv2.GaussianBlur(low, (0, 0), _HIGH_PASS_PX)
            # A light in an otherwise black frame lies beyond half precision.
            levels.append(np.clip(level, -_LARGEST, _LARGEST).astype(np.float16))
            size = (round(width / 2 ** (halvings + 1)), round(height / 2 ** (halvings + 1)))
            if max(size) < _COARSEST_PX or min(size) < TILE_PX:
                break
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        levels.reverse()
        masks = None
        if shown is not None:
            masks = tuple(
                cv2.resize(shown, one.shape[::-1], interpolation=cv2.INTER_AREA) > 0.999
                for one in levels
            )
        return cls(tuple(levels), masks, coarse)

    def structure(self, level: int) -> Plane:
        """A level, to compute with."""
        return self.levels[level].astype(np.float32)

    def shown(self, level: int) -> Plane:
        """1 where a level shows the scene, and 0 where the frame is transparent."""
        if self.masks is None:
            return np.ones(self.levels[level].shape, np.float32)
        return self.masks[level].astype(np.float32)

    @property
    def middle(self) -> int:
        """Index of the level that identifies the scene: blur and noise hardly reach it."""
        return max(
            (i for i, level in enumerate(self.levels) if max(level.shape) <= _MIDDLE_PX), default=0
        )

    @property
    def contrast(self) -> float:
        """RMS of the structure at the middle level."""
        return float(np.sqrt(np.square(self.structure(self.middle)).mean()))

    @property
    def repeats(self) -> bool:
        """Whether the structure equals itself shifted, like cloth, so that many motions fit."""
        finest = self.structure(-1)
        itself = np.fft.irfft2(np.square(np.abs(np.fft.rfft2(finest))), finest.shape)
        height, width = (min(side // 4, 4 * _REPEATS_FROM_PX) + 1 for side in itself.shape)
        quadrants = itself[:height, :width], itself[:height, -1 : -width - 1 : -1]
        y, x = np.mgrid[0:height, 0:width]
        far = np.hypot(x, y) >= _REPEATS_FROM_PX
        if not far.any() or itself[0, 0] <= 0:
            return False
        return max(float(one[far].max()) for one in quadrants) > _REPEATS * float(itself[0, 0])
