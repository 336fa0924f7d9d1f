"""TIFF files of 16 bits that keep the ICC profile and the descriptive EXIF of a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from PIL.ExifTags import Base

from focaldiffusion.io.decoding import EXIF_PREFIX
from focaldiffusion.io.images import ImageMetadata

_TAGS = (Base.ImageDescription, Base.Make, Base.Model, Base.Artist, Base.Copyright)
_ASCII = 2  # type of a TIFF tag


def write_tiff(
    path: Path, pixels: NDArray[np.integer[Any]], metadata: ImageMetadata | None = None
) -> None:
    """Write pixels as a TIFF of 16 bits; 8-bit values keep their share of white.

    Args:
        path: the file to make.
        pixels: (H, W) grey or (H, W, 3), uint8 or uint16.
        metadata: ICC profile, and EXIF whose descriptive tags are kept.

    Raises:
        OSError: the file cannot be written.
    """
    kept = metadata or ImageMetadata()
    deep = pixels.astype(np.uint16) * 257 if pixels.dtype == np.uint8 else pixels
    exif = Image.Exif()
    if kept.exif is not None:
        exif.load(EXIF_PREFIX + kept.exif)
    tags = [
        (int(tag), _ASCII, 0, str(exif[tag]), True)
        for tag in _TAGS
        if tag in exif and str(exif[tag]).isascii()
    ]
    tifffile.imwrite(
        path,
        deep,
        photometric="minisblack" if deep.ndim == 2 else "rgb",
        compression="zlib",
        predictor=True,
        iccprofile=kept.icc_profile,
        extratags=tags,
        datetime=str(exif[Base.DateTime]) if Base.DateTime in exif else None,
        metadata=None,
        software=None if Base.Software not in exif else str(exif[Base.Software]),
    )
