"""The largest image or map that is read: sizes that a file declares are checked before decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from focaldiffusion.errors import InputError

LARGEST_MEGAPIXELS = 400
"""Pixels of one image or map [millions]. The largest sensors have 150; 8 bytes each take 3 GB."""

_LARGE_MEGAPIXELS = 100
_MOST_PIXELS_PER_BYTE = 200  # noise keeps photographs below 20; zlib ends at 1000


def check_pixels(path: Path, height: int, width: int, what: str = "") -> None:
    """Check the declared size of an image or a map before it is decoded.

    A file of a few bytes can declare a picture that fills the memory. Refused are more than
    `LARGEST_MEGAPIXELS`, and more than 100 megapixels in a file too small for any photograph.

    Args:
        path: the file that declares the size.
        height: rows, as declared.
        width: columns, as declared.
        what: part of the file in messages, such as "page 3"; empty for the file itself.

    Raises:
        InputError: an empty picture, or one beyond the budget.
    """
    place = f"{path}: {what}{': ' if what else ''}"
    if height < 1 or width < 1:
        raise InputError(f"{place}declares {width}x{height} pixels; expected at least 1x1.")
    megapixels = height * width / 1e6
    if megapixels > LARGEST_MEGAPIXELS:
        raise InputError(
            f"{place}declares {width}x{height} pixels; expected at most {LARGEST_MEGAPIXELS} "
            "megapixels. Reduce or crop it, or get the file again if it is smaller."
        )
    size = path.stat().st_size if megapixels > _LARGE_MEGAPIXELS else math.inf
    if height * width > _MOST_PIXELS_PER_BYTE * size:
        raise InputError(
            f"{place}declares {width}x{height} pixels in {size} bytes; no photograph is as empty "
            "as that. Get the file again."
        )


def check_values(path: Path, shape: Sequence[int], what: str = "") -> None:
    """Check the declared shape of an array before it is read.

    Args:
        path: the file that declares the shape.
        shape: of one image or map, with its colours or frames if any.
        what: see `check_pixels`.

    Raises:
        InputError: an empty array, or more numbers than the largest colour image has.
    """
    count, most = math.prod(shape), LARGEST_MEGAPIXELS * 3_000_000
    if not 0 < count <= most:
        sizes = " x ".join(map(str, shape))
        raise InputError(
            f"{path}: {what}{': ' if what else ''}declares {sizes} numbers; expected 1 to "
            f"{most:,}. Get the file again."
        )
