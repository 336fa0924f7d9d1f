"""Camera RAW through LibRaw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.formats import EXTRA


@contextmanager
def open_raw(path: Path) -> Iterator[Any]:
    """The file open in LibRaw."""
    try:
        import rawpy
    except ImportError:
        raise InputError(
            f"{path}: camera RAW is optional; install what reads it with: {EXTRA}"
        ) from None
    try:
        with rawpy.imread(str(path)) as raw:
            yield raw
    except rawpy.LibRawError as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise InputError(
            f"{path}: cannot be read as camera RAW ({reason}). Develop the frames to 16-bit TIFF "
            "with one setting for all, or leave this one out."
        ) from error


def develop_raw(path: Path) -> NDArray[np.uint16]:
    """Camera RAW to 16-bit sRGB, (H, W, 3), upright."""
    with open_raw(path) as raw:
        import rawpy

        return raw.postprocess(
            use_camera_wb=True,
            # Brightness set for each frame would look like exposure drift.
            no_auto_bright=True,
            output_bps=16,
            output_color=rawpy.ColorSpace.sRGB,
            gamma=(2.4, 12.92),  # the sRGB curve; LibRaw defaults to BT.709
        )
