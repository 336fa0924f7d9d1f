"""Black and white of a stack: the range of values that its frames use of their container.

Cameras of 10, 12 or 14 bits store their values in 16, and dim scenes use a small part of 8. All
stages expect frames whose white is 1. A stack that clearly leaves its container unfilled is
therefore stretched, all frames alike, and `all_in_focus.png` gets the values of the files back. A
stack that fills its container stays unchanged, to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.frames import (
    FrameSource,
    Pixels,
    alpha_of,
    looked_up,
    pixels_of,
    rounded,
    shares_of_white,
)

_FILLED = 0.3
"""Share of the container from which it counts as filled; 14 bits in 16 use a quarter. A photograph
with a single lamp fills it."""
_PEDESTAL = 0.5  # share of white from which black is subtracted; less is haze, or costs little
_ISOLATED = 2.0  # single pixels this many times brighter than any pair are hot, not light
_LEAST_STEPS = 4  # values in use; fewer show rounding, not a scene
_EVERY_ROWS = 8  # rows of the first look, which suffices for nearly all photographs


@dataclass(frozen=True)
class Levels:
    """Black and white of a stack, as shares of the container of its values.

    Attributes:
        black: value that becomes 0.
        white: value that becomes 1.
        container: largest value of the container, such as 255 or 65535.
        clipped: largest value of single hot pixels, which are clipped to white; None without any.
    """

    black: float = 0.0
    white: float = 1.0
    container: int = 255
    clipped: float | None = None

    @property
    def are_full(self) -> bool:
        """Whether the container is filled, so that no value changes."""
        return self.black == 0 and self.white == 1

    @property
    def step(self) -> float:
        """Difference of neighbouring values after normalisation."""
        return 1 / (self.container * (self.white - self.black))

    def normalised(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Shares of the container as shares of the range from black to white, in [0, 1]."""
        if self.are_full:
            return image
        stretched = (image - np.float32(self.black)) / np.float32(self.white - self.black)
        return np.clip(stretched, 0, 1, out=stretched)

    def file_values(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Inverse of `normalised`."""
        if self.are_full:
            return image
        return image * np.float32(self.white - self.black) + np.float32(self.black)

    def file_pixels(self, image: NDArray[np.float32], bit_depth: int) -> Pixels:
        """A normalised image in [0, 1] as the integers of a file of 8 or 16 bits."""
        dtype = np.dtype(np.uint16 if bit_depth == 16 else np.uint8)
        values = np.clip(self.file_values(image), 0, 1) * np.iinfo(dtype).max
        return np.rint(values).astype(dtype)

    @property
    def findings(self) -> tuple[str, ...]:
        """A sentence about a stretched stack; none without."""
        if self.are_full:
            return ()
        black, white = round(self.black * self.container), round(self.white * self.container)
        text = (
            f"the frames use a small part of the values up to {self.container}: {white} is taken "
            f"as white{f' and {black} as black' * bool(black)}, and all_in_focus.png keeps the "
            "values of the files"
        )
        if self.clipped is not None:
            text += (
                f". Single brighter pixels, up to {round(self.clipped * self.container)}, are "
                "taken as faults of the sensor and clipped"
            )
        return (text + ".",)


class LevelledFrames:
    """A FrameSource of normalised frames, whose levels are decided when they are first needed.

    The first frame read decides alone if it fills its container. If not, the others are read until
    one does; after all, their largest and smallest values are white and black.
    """

    def __init__(self, source: FrameSource, declared_white: float | None = None) -> None:
        """Serve the frames of `source`.

        Args:
            source: the frames, as shares of their container.
            declared_white: white that the files declare, as a share of the container.
        """
        self.source = source
        # A declared white above half is the largest value of the file, which by the TIFF standard
        # does not change its appearance, rather than the depth of a camera.
        is_depth = declared_white is not None and declared_white <= 0.5
        self.declared_white = declared_white if is_depth else None
        self.names: tuple[str, ...] = source.names
        self.size: tuple[int, int] = source.size
        self.bit_depth: int = source.bit_depth
        self.is_grey: bool = source.is_grey
        self._levels: Levels | None = None

    @property
    def levels(self) -> Levels:
        """Black and white of the stack."""
        if self._levels is None:
            self.read(0)
        assert self._levels is not None
        return self._levels

    def alpha(self, index: int) -> NDArray[np.float32] | None:
        """See `TransparentFrames.alpha`."""
        return alpha_of(self.source, index)

    def read(self, index: int) -> NDArray[np.float32]:
        """Frame `index`, normalised, see `FrameSource.read`."""
        image = self.source.read(index)
        return self._decided(index, image).normalised(image)

    def pixels(self, index: int) -> Pixels:
        """See `IntegerFrames.pixels`; stretched values are rounded to 16 bits."""
        pixels = pixels_of(self.source, index)
        levels = self._decided(index, pixels)
        return pixels if levels.are_full else rounded(levels.normalised(_shares(pixels)))

    def _decided(self, index: int, image: NDArray[Any]) -> Levels:
        """Levels from the frames; one is read already."""
        if self._levels is None:
            self._levels = self._found(index, image)
        return self._levels

    def _found(self, index: int, image: NDArray[Any]) -> Levels:
        container = 2**self.bit_depth - 1
        uses: list[_Use] = []
        for other in (index, *(one for one in range(len(self.names)) if one != index)):
            frame = image if other == index else self.source.read(other)
            # A few rows show it, as a rule. A declared white must hold for all frames.
            fills = _Use.of(_shares(frame[::_EVERY_ROWS])).extent >= _FILLED
            if self.declared_white is None and fills:
                return Levels(container=container)
            uses.append(_Use.of(_shares(frame)))
        return _levels(uses, container, self.declared_white)


def _shares(image: NDArray[Any]) -> NDArray[np.float32]:
    """Integers as shares of white; floats are such already."""
    return image if image.dtype.kind == "f" else looked_up(image, shares_of_white(image.dtype))


@dataclass(frozen=True)
class _Use:
    """Values that a frame uses, as shares of its container.

    Attributes:
        least, most: smallest and largest value.
        low, high: smallest and largest value without single dead and hot pixels: two neighbours
            share them, or one pixel in a thousand lies beyond.
    """

    least: float
    most: float
    low: float
    high: float

    @classmethod
    def of(cls, image: NDArray[np.float32]) -> _Use:
        rare = image.size // 1000
        ordered = np.partition(image, (rare, image.size - 1 - rare), axis=None)
        left, right = image[:, :-1], image[:, 1:]
        if left.size == 0:
            left = right = image
        return cls(
            float(image.min()),
            float(image.max()),
            float(min(ordered[rare], np.maximum(left, right).min())),
            float(max(ordered[-1 - rare], np.minimum(left, right).max())),
        )

    @property
    def extent(self) -> float:
        """Range in use, less a pedestal."""
        return self.high - _pedestal(self.low, self.high)


def _pedestal(low: float, high: float) -> float:
    """Black that is worth subtracting; 0 for less."""
    return low if low > _PEDESTAL * high else 0.0


def _levels(uses: Sequence[_Use], container: int, declared_white: float | None) -> Levels:
    """Levels of a stack from the values that each of its frames uses."""
    most, high = max(use.most for use in uses), max(use.high for use in uses)
    least, low = min(use.least for use in uses), min(use.low for use in uses)
    full = 1.0 if declared_white is None or most > declared_white else declared_white
    contrast = max(use.high - use.low for use in uses)
    if high - _pedestal(low, high) >= _FILLED * full or contrast * container < _LEAST_STEPS:
        return Levels(white=full, container=container)
    black = _pedestal(low, high)
    clipped = most if most > _ISOLATED * high else None
    white = most if clipped is None else high
    if container > 255 and black == 0:
        # Cameras of 10, 12 or 14 bits: white is the largest value of the bits in use.
        white = (2 ** round(white * container).bit_length() - 1) / container
    return Levels(
        black=min(black, least) if 2 * least > black else black,  # nothing but dead pixels is cut
        white=white,
        container=container,
        clipped=clipped,
    )
