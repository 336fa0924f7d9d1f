"""Films of a result to take away: the focus pulled through it, and the view moved a little."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.app.exports import download_name
from focaldiffusion.app.refocus import Flat, blur_of, flat_at, number, photographed, shape_of
from focaldiffusion.app.views import Place, View, view_of
from focaldiffusion.errors import InputError
from focaldiffusion.io.film import check_film, write_film
from focaldiffusion.simulation.parallax import Parallax
from focaldiffusion.virtual_camera import nearness

_SIDE_PX = {"mp4": 720, "gif": 480}  # long side
_LAYERS = 10
_FRAMES_PER_S = {"mp4": 24, "gif": 12}
_FRAMES = {"mp4": 72, "gif": 36}  # unless asked for
_MOST_FRAMES = 240
_SWING = 0.02  # of the width: how far the nearest layer moves, from one side to the other


def pull(place: Place, wanted: Mapping[str, Any]) -> str:
    """A film in which the focus goes from one depth to another.

    Args:
        place: of the result.
        wanted: `from` and `to` in the unit of the depth; `frames` and `format`, mp4 or gif;
            `f_number`, `blur_px` and `shape` as in `refocused`.

    Returns:
        Path of the film, alone in a folder.

    Raises:
        InputError: the result has no depth, or the request is not as above.
    """

    def frames(view: View, flat: Flat, count: int) -> Iterator[NDArray[np.uint8]]:
        field = view.saved.depth_field
        assert field is not None
        first, last = (float(nearness(number(wanted, end), field)) for end in ("from", "to"))
        shape = shape_of(wanted)
        scale = blur_of(view, flat, (first + last) / 2, wanted)
        for index in range(count):
            # Slow at both ends, as a hand turns the ring.
            share = (1 - math.cos(math.pi * index / max(1, count - 1))) / 2
            picture = photographed(flat, first + share * (last - first), scale, shape)
            yield np.rint(picture * 255).astype(np.uint8)

    return _film(place, wanted, "focus_pull", frames)


def parallax(place: Place, wanted: Mapping[str, Any]) -> str:
    """A film without end in which the view goes around the camera, see `pull`.

    Args:
        place: of the result.
        wanted: `frames` and `format`, mp4 or gif.
    """

    def frames(view: View, flat: Flat, count: int) -> Iterator[NDArray[np.uint8]]:
        scene = Parallax(np.rint(flat.image * 255).astype(np.uint8), flat.nearness)
        swing = _SWING * flat.image.shape[1]
        for index in range(count):
            angle = 2 * math.pi * index / count
            yield scene.view((swing * math.cos(angle), swing / 3 * math.sin(angle)))

    return _film(place, wanted, "parallax", frames)


def _film(
    place: Place,
    wanted: Mapping[str, Any],
    name: str,
    frames: Callable[[View, Flat, int], Iterator[NDArray[np.uint8]]],
) -> str:
    kind = str(wanted.get("format", "mp4"))
    check_film(kind)
    count = int(number({"frames": _FRAMES[kind], **wanted}, "frames"))
    if not 2 <= count <= _MOST_FRAMES:
        raise InputError(f"frames: {count}; expected 2 to {_MOST_FRAMES}.")
    view = view_of(place)
    flat = flat_at(view, _SIDE_PX[kind], _LAYERS)
    folder = Path(tempfile.mkdtemp(prefix="export-", dir=Path(place[1]).parent))
    path = folder / download_name(view.saved.name, f"{name}.{kind}")
    try:
        write_film(path, frames(view, flat, count), _FRAMES_PER_S[kind])
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return str(path)
