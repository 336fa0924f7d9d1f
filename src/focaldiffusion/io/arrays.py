"""Native frames from arrays in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.decoding import unit_rgb

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
        self._frames = [_checked(array, index) for index, array in enumerate(arrays)]
        self.names = tuple(f"frame {index}" for index in range(len(self._frames)))
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
        frame = self._frames[index]
        scale = 1 if frame.dtype.kind == "f" else np.iinfo(frame.dtype).max
        return unit_rgb(frame, scale)


def _checked(array: Array, index: int) -> NDArray[Any]:
    """The array as NumPy, if it has a supported shape and type."""
    frame = array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if not (frame.ndim == 2 or (frame.ndim == 3 and frame.shape[2] == 3)) or 0 in frame.shape:
        remedy = (
            "Channels go last: use permute(1, 2, 0)."
            if frame.ndim == 3 and frame.shape[0] == 3
            else "Give colour images, or grey ones."
        )
        raise InputError(
            f"frame {index}: array of shape {frame.shape}; expected (H, W, 3) or (H, W). {remedy}"
        )
    if frame.dtype.kind == "f":
        # NaN fails both comparisons.
        if not (frame.min() >= 0 and frame.max() <= 1):
            raise InputError(
                f"frame {index}: floats from {frame.min():g} to {frame.max():g}; expected [0, 1], "
                "encoded like a picture file (sRGB). Divide by the white level."
            )
    elif frame.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"frame {index}: array of {frame.dtype}; expected uint8, uint16, or float in [0, 1]."
        )
    return frame
