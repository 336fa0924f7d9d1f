"""Parts that all image decoders share: a header, scaling to [0, 1], orientation, named errors."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from focaldiffusion.errors import InputError
from focaldiffusion.files import check_file
from focaldiffusion.frames import LEAST_ALPHA

BROKEN_STRUCTURE = (TypeError, AttributeError, ArithmeticError, AssertionError, MemoryError)
"""Exceptions that libraries raise by mistake on values of the wrong kind, without a reason."""

# The error reports what is wrong with a file; keep the log of libpng off standard error.
logging.getLogger("imagecodecs").addHandler(logging.NullHandler())

DECODER_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    SyntaxError,
    RuntimeError,
    EOFError,
    *BROKEN_STRUCTURE,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Exceptions that image libraries raise on broken files."""

Value = TypeVar("Value", bound=np.generic)

EXIF_PREFIX = b"Exif\x00\x00"


@dataclass(frozen=True)
class ImageHeader:
    """Description of an image, read from its file without decoding pixels.

    Attributes:
        stored_size: (height, width) [px] as stored, before `orientation`.
        bit_depth: 8 or 16, the depth that outputs keep.
        is_grey: True for one channel.
        orientation: EXIF orientation, 1 to 8, still to be applied; 1 is upright.
        white: declared white as a share of the largest value; None where it is that value.
        has_alpha: whether pixels may be transparent.
        icc_profile: ICC profile of the pixel values; None means sRGB.
    """

    stored_size: tuple[int, int]
    bit_depth: int
    is_grey: bool
    orientation: int = 1
    white: float | None = None
    has_alpha: bool = False
    icc_profile: bytes | None = None

    def size(self, orientation: int | None = None) -> tuple[int, int]:
        """(height, width) [px] once the orientation, its own by default, is applied."""
        height, width = self.stored_size
        turned = (self.orientation if orientation is None else orientation) >= 5
        return (width, height) if turned else (height, width)


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn exceptions of image libraries inside the block into InputErrors that name the file."""
    try:
        check_file(path)
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file.") from None
    except DECODER_ERRORS as error:
        # Some libraries repeat the path, with which the sentence starts.
        reason = str(error).replace(str(path), "the file").strip().rstrip(".") or "broken"
        if isinstance(error, UnidentifiedImageError):
            reason = "its image format is unknown"
        elif isinstance(error, BROKEN_STRUCTURE):
            reason = "its structure is broken"
        raise InputError(
            f"{path}: cannot be read as an image ({reason}). "
            "Export the frame again, or leave it out."
        ) from error


def unit_rgb(array: NDArray[Any], full_scale: float) -> NDArray[np.float32]:
    """Values to float32 RGB in [0, 1]: value / full_scale, alpha dropped.

    Args:
        array: (H, W) or (H, W, C) with C = 1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha.
        full_scale: the value of white, such as 2^bits - 1.

    Returns:
        (H, W, 3); grey becomes three equal channels.
    """
    if array.ndim == 2:
        array = array[..., None]
    array = array[..., :3] if array.shape[2] >= 3 else array[..., :1]
    return three_channels(array.astype(np.float32) / np.float32(full_scale))


def three_channels(array: NDArray[Value]) -> NDArray[Value]:
    """Colours (H, W, 3) of an array as `unit_rgb` takes it, in its own values."""
    if array.ndim == 2:
        array = array[..., None]
    array = array[..., :3] if array.shape[2] >= 3 else array[..., :1]
    return np.ascontiguousarray(array if array.shape[2] == 3 else array.repeat(3, axis=2))


def unit_alpha(array: NDArray[Any], full_scale: float) -> NDArray[np.float32] | None:
    """Alpha (H, W) in [0, 1] of an array as `unit_rgb` takes it; None without or if all opaque."""
    if array.ndim == 2 or array.shape[2] not in (2, 4):
        return None
    alpha = array[..., -1]
    return None if (alpha == full_scale).all() else alpha / np.float32(full_scale)


def extended(rgb: NDArray[Value], alpha: NDArray[np.float32]) -> NDArray[Value]:
    """An image (H, W, 3) whose transparent pixels take the colour of the nearest opaque one.

    Their own is often black, and its edge would look like structure of the scene.
    """
    hidden = (alpha <= LEAST_ALPHA).astype(np.uint8)
    if hidden.all():
        return rgb
    labels = cv2.distanceTransformWithLabels(
        hidden, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )[1]
    opaque = np.flatnonzero(hidden == 0)
    nearest = np.zeros(labels.max() + 1, np.intp)
    nearest[labels.flat[opaque]] = opaque
    return rgb.reshape(-1, 3)[nearest[labels]]


def check_visible(place: str, alpha: NDArray[np.float32]) -> None:
    """Refuse a picture whose alpha (H, W) hides every pixel.

    Raises:
        InputError: names the place.
    """
    if not alpha.any():
        raise InputError(
            f"{place}: is transparent everywhere. Export it without alpha, or leave it out."
        )


def upright(array: NDArray[Value], orientation: int) -> NDArray[Value]:
    """Apply an EXIF orientation (tag 0x0112, 1 to 8) to an array (H, W, C) or (H, W)."""
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    return np.ascontiguousarray(array)


def valid_orientation(value: object) -> int:
    """An EXIF orientation, or 1 (upright) for an invalid value."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
