"""Small versions of pictures; a JPEG is decoded at an eighth of its size or more."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from focaldiffusion.frames import rounded
from focaldiffusion.io.budget import check_pixels
from focaldiffusion.io.decoding import decoding
from focaldiffusion.io.formats import kind_of
from focaldiffusion.io.images import open_pillow, read_image


def thumbnail(path: Path, long_side_px: int) -> NDArray[np.uint8]:
    """A picture, upright, (h, w, 3) sRGB, no larger than `long_side_px`.

    Raises:
        InputError: it cannot be read.
    """
    if kind_of(path) == "pil":
        with open_pillow(path) as image, decoding(path):
            check_pixels(path, image.height, image.width)
            image.draft("RGB", (long_side_px, long_side_px))
            small = ImageOps.exif_transpose(image).convert("RGB")
            small.thumbnail((long_side_px, long_side_px), Image.Resampling.BOX)
            return np.asarray(small)
    pixels = rounded(read_image(path), np.uint8)
    scale = min(1.0, long_side_px / max(pixels.shape))
    size = [max(1, round(side * scale)) for side in pixels.shape[1::-1]]
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
