"""Native frames from arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.frames import Pixels, rounded
from focaldiffusion.io.decoding import three_channels, unit_rgb

Array = NDArray[Any] | torch.Tensor
"""One frame, or N frames in one array."""


def holds_arrays(source: object) -> bool:
    """Whether a stack is given as arrays rather than files."""
    if isinstance(source, (np.ndarray, torch.Tensor)):
        return True
    return (
        isinstance(source, Sequence)
        and not isinstance(source, str)
        and any(isinstance(one, (np.ndarray, torch.Tensor)) for one in source)
    )


class ArrayFrames:
    """A FrameSource of arrays, encoded like picture files (sRGB)."""

    def __init__(self, arrays: Array | Sequence[Array]) -> None:
        """Check the arrays, without copying them.

        Args:
            arrays: N arrays of (H, W, 3) or (H, W); uint8, uint16, or float in [0, 1].

        Raises:
            InputError: fewer than two arrays, unequal sizes, an unsupported shape or type, or
                floats that are not finite or not in [0, 1].
        """
        shape = arrays.shape if isinstance(arrays, (np.ndarray, torch.Tensor)) else None
        if shape is not None and (len(shape) < 3 or (len(shape) == 3 and shape[2] in (3, 4))):
            raise InputError(
                f"arrays: shape {tuple(shape)}, one image; a focal stack needs at least 2, "
                "focused at different distances. Give (N, H, W, 3), or (N, H, W) if grey."
            )
        self._frames = [checked_array(f"frame {i}", array) for i, array in enumerate(arrays, 1)]
        self.names = tuple(f"frame {index}" for index in range(1, len(self._frames) + 1))
        if len(self._frames) < 2:
            raise InputError(
                f"arrays: {len(self._frames)} frame; a focal stack needs at least 2, focused at "
                "different distances. Give N arrays of (H, W, 3), or one of (N, H, W, 3)."
            )
        first = self._frames[0]
        for name, frame in zip(self.names, self._frames, strict=True):
            if frame.shape != first.shape or frame.dtype != first.dtype:
                raise InputError(
                    f"{name}: {frame.dtype} of shape {frame.shape}, but {self.names[0]} is "
                    f"{first.dtype} of {first.shape}. All frames need one size and type."
                )
        self.size: tuple[int, int] = (first.shape[0], first.shape[1])
        self.bit_depth = 8 if first.dtype == np.uint8 else 16
        self.is_grey = first.ndim == 2

    def read(self, index: int) -> NDArray[np.float32]:
        """Frame `index`, sRGB-encoded, (H, W, 3) float32 in [0, 1]."""
        return srgb_of(self._frames[index])

    def pixels(self, index: int) -> Pixels:
        """See `IntegerFrames.pixels`; floats are rounded to 16 bits."""
        frame = self._frames[index]
        return rounded(srgb_of(frame)) if frame.dtype.kind == "f" else three_channels(frame)


def checked_array(name: str, array: Array) -> NDArray[Any]:
    """The array as NumPy, after a check.

    Args:
        name: of the array in messages.
        array: (H, W, 3) or (H, W); uint8, uint16, or float in [0, 1].

    Raises:
        InputError: another shape or type, or floats that are not finite or leave [0, 1].
    """
    if isinstance(array, torch.Tensor):
        tensor = array.detach().cpu()
        frame = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    elif isinstance(array, np.ndarray):
        frame = array
    else:
        raise InputError(
            f"{name}: a {type(array).__name__}; expected an array. Give either arrays or files."
        )
    shape = f"{name}: array of shape {frame.shape}; expected (H, W, 3) or (H, W)."
    if frame.ndim == 3 and frame.shape[0] == 3 != frame.shape[2]:
        raise InputError(f"{shape} Channels go last: use permute(1, 2, 0) or moveaxis.")
    if frame.ndim == 3 and frame.shape[2] == 4:
        raise InputError(f"{shape} Leave the alpha channel out: array[..., :3].")
    if not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 3)) or 0 in frame.shape:
        raise InputError(f"{shape} Give colour images, or grey ones.")
    if frame.dtype.kind == "f":
        # NaN fails both comparisons.
        if not (frame.min() >= 0 and frame.max() <= 1):
            raise InputError(
                f"{name}: floats from {frame.min():g} to {frame.max():g}; expected [0, 1], "
                "encoded like a picture file (sRGB). Divide by the white level."
            )
    elif frame.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{name}: array of {frame.dtype}; expected uint8, uint16, or float in [0, 1]."
        )
    return frame


def srgb_of(frame: NDArray[Any]) -> NDArray[np.float32]:
    """(H, W, 3) float32 in [0, 1] of a checked array."""
    return unit_rgb(frame, 1 if frame.dtype.kind == "f" else np.iinfo(frame.dtype).max)
