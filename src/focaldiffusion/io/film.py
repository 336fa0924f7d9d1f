"""Short films: MP4 that browsers play, and GIF."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from focaldiffusion.errors import InputError

FilmFormat = Literal["mp4", "gif"]

_QUALITY = "18"  # constant rate factor of x264, 0 to 51: hardly seen from the original


def check_film(kind: str) -> None:
    """Check a format before the long work.

    Raises:
        InputError: it is unknown, or its package is not installed.
    """
    if kind not in ("mp4", "gif"):
        raise InputError(f"format {kind!r}: expected mp4 or gif.")
    if kind == "mp4" and find_spec("av") is None:
        raise InputError(
            "format mp4: the package av is missing. Take gif, or install it with: "
            "pip install 'focaldiffusion[app]'"
        )


def write_film(path: Path, frames: Iterable[NDArray[np.uint8]], frames_per_s: int) -> None:
    """Write frames (h, w, 3) as MP4 (H.264, 4:2:0) or GIF, by the suffix of the path.

    Odd sizes lose their last row or column in MP4, whose colours need even ones.

    Raises:
        OSError: the file cannot be written.
    """
    if path.suffix == ".gif":
        first, *rest = [Image.fromarray(frame) for frame in frames]
        first.save(path, save_all=True, append_images=rest, duration=1000 // frames_per_s, loop=0)
        return
    import av

    with av.open(str(path), "w", options={"movflags": "faststart"}) as file:
        stream = None
        for frame in frames:
            height, width = (side - side % 2 for side in frame.shape[:2])
            if stream is None:
                stream = file.add_stream("libx264", rate=Fraction(frames_per_s))
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                stream.options = {"crf": _QUALITY, "preset": "medium"}
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]))
            file.mux(stream.encode(picture))
        if stream is not None:
            file.mux(stream.encode(None))
