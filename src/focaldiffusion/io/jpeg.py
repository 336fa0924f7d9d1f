"""JPEG files whose data end early, although their end marker is there.

libjpeg only warns, which Pillow does not pass on, and leaves the missing pixels grey.
"""

from __future__ import annotations

import io
import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
"""A marker within coded data; 0xff00 is a coded 0xff, and 0xffd0 to 0xffd7 restart the decoder."""

_START_OF_SCAN, _END = 0xDA, 0xD9
_FILLER = bytes((37 * index + 11) % 251 for index in range(64))  # without 0xff
_CORNER_PX = 4  # of the last block, out of reach of its neighbours' chroma


def ends_early(data: bytes, pixels: NDArray[Any]) -> bool:
    """Whether the coded data of a JPEG end before its last pixel.

    The decoder skips bytes that are inserted before the end marker, unless it still waits for data:
    then they become pixels. A sequential JPEG that ends early ends with flat blocks, so others are
    not decoded again.

    Args:
        data: the file.
        pixels: (H, W) or (H, W, C), what Pillow decodes.
    """
    end, is_progressive = _end_of_data(data)
    corner = pixels[-_CORNER_PX:, -_CORNER_PX:].reshape(-1, *pixels.shape[2:])
    if end is None or not (is_progressive or (corner == corner[0]).all()):
        return False
    try:
        with Image.open(io.BytesIO(data[:end] + _FILLER + data[end:])) as image:
            return not np.array_equal(np.asarray(image), pixels)
    except OSError:  # this file's code tables lack the filler
        return True


def is_whole(data: bytes) -> bool:
    """Whether a JPEG has its end marker where its coded data end."""
    return _end_of_data(data)[0] is not None


def _end_of_data(data: bytes) -> tuple[int | None, bool]:
    """Offset of the first end marker, and whether the file is progressive."""
    place, is_progressive = 2, False
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == _END:
            return place, is_progressive
        if marker == 0xFF:  # fill byte
            place += 1
            continue
        is_progressive |= marker == 0xC2
        place += 2 + struct.unpack_from(">H", data, place + 2)[0]
        if marker == _START_OF_SCAN:
            found = _MARKER.search(data, place)
            if found is None:
                break
            place = found.start()
    if data[place : place + 2] == b"\xff\xd9":
        return place, is_progressive
    return None, is_progressive
