"""A stack before it runs: opened with the user's corrections, and checked as `infer` would."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from focaldiffusion.app.corrections import (
    POSITIONS_PER_M,
    Corrections,
    shown_lens,
    shown_number,
)
from focaldiffusion.app.reduced import Kept, reduced_stack
from focaldiffusion.app.roots import check_inside
from focaldiffusion.errors import InputError
from focaldiffusion.frames import Pixels, reduced, rounded
from focaldiffusion.io.exif import read_exposure
from focaldiffusion.io.file_names import SIDECAR_NAME
from focaldiffusion.io.frame_files import find_frames
from focaldiffusion.io.images import pillow_image, probe_image, read_image
from focaldiffusion.io.stacks import OpenedStack, open_stack
from focaldiffusion.progress import Stages
from focaldiffusion.reconstruction import Settings, registered
from focaldiffusion.threads import threads

SMALL_PX = 640
"""Long side of the frames of a check and of a draft result."""

_THUMBNAIL_PX = 320


def found_files(source: Path, inside: Path) -> tuple[Path, ...]:
    """The files of a stack; none outside a folder.

    Raises:
        InputError: no images, or a file or the `stack.json` leads outside.
    """
    check_inside([source, source / SIDECAR_NAME], inside)
    files = find_frames(source).files
    check_inside(list(files), inside)
    return files


def open_corrected(source: Path, inside: Path, corrections: Corrections) -> OpenedStack:
    """Open a stack with the user's corrections.

    Args:
        source: folder of the frames.
        inside: folder that no file may lie outside of.
        corrections: of the user.

    Raises:
        InputError: see `open_stack`; also a file that leads outside.
    """
    files = found_files(source, inside)
    lens = corrections.facts()
    opened = open_stack(source, lens=lens) if not corrections.chooses_frames else None
    if opened is None and len(files) == 1:
        if corrections.left_out or corrections.order is not None:
            raise InputError(
                f"{files[0]}: the pages of one TIFF cannot be left out or put in order here. "
                "Export them as files to do so."
            )
        opened = open_stack(source, lens=lens, **_focus(corrections, _pages(source)))
    if opened is None:
        order = corrections.order or _natural_order(source, files, lens)
        kept = [frame for frame in order if frame not in corrections.left_out]
        if len(kept) < 2:
            raise InputError(
                f"{len(kept)} frames are left; a focal stack needs at least 2, focused at "
                "different distances. Leave out fewer."
            )
        listed = [files[int(frame)] for frame in kept]
        opened = open_stack(listed, lens=lens, **_focus(corrections, kept))
    check_inside(list(opened.files), inside)
    return opened


def _natural_order(source: Path, files: Sequence[Path], lens: Any) -> list[str]:
    """The frames in the order that opening the folder finds, where it can be opened."""
    try:
        found = open_stack(source, lens=lens).files
    except InputError:  # such as a frame of another size, which is to be left out
        found = tuple(files)
    return [str(files.index(file)) for file in found]


def _pages(source: Path) -> list[str]:
    return [str(page) for page in range(len(open_stack(source)))]


def _focus(corrections: Corrections, kept: Sequence[str]) -> dict[str, Any]:
    """The focus settings that were given, as arguments of `open_stack`."""
    for name in ("focus_distances_m", "focus_positions_m"):
        given = getattr(corrections, name)
        if given is None:
            continue
        if lacking := [frame for frame in kept if frame not in given]:
            raise InputError(
                f"{name}: {len(lacking)} of {len(kept)} frames have none. Give one for each frame, "
                "or for none."
            )
        return {name: [float(given[frame]) for frame in kept]}
    return {}


def describe(source: str, inside: str, corrections: dict[str, Any]) -> dict[str, Any]:
    """Facts about a stack and its frames, as JSON for the page.

    Args:
        source: folder of the frames.
        inside: see `open_corrected`.
        corrections: fields of `Corrections`.

    Raises:
        InputError: there are no frames at all, or one leads outside.
    """
    corrected = Corrections(**corrections)
    try:
        files = found_files(Path(source), Path(inside))
    except InputError as error:
        raise InputError(_without(str(error), source)) from None
    try:
        opened = open_corrected(Path(source), Path(inside), corrected)
    except InputError as error:
        return _unusable(files, corrected, _without(str(error), source))
    ids, is_paged = _ids(opened, files), len(files) == 1
    frames = dict(zip(ids, _frames(opened, ids), strict=True))
    if corrected.left_out and not is_paged:
        frames |= {one: _frame(files[int(one)], one, left_out=True) for one in corrected.left_out}
        with suppress(InputError):  # such as a frame of another size, which is left out for that
            whole = open_corrected(Path(source), Path(inside), replace(corrected, left_out=[]))
            all_ids = _ids(whole, files)
            shown = zip(all_ids, _frames(whole, all_ids), strict=True)
            frames = {one: {**frame, "left_out": one not in ids} for one, frame in shown}
    return {
        "frames": _in_order(list(frames.values()), corrected),
        "grade": _grade(opened),
        "warnings": [_without(text, source) for text in (*lacking(opened), *opened.findings)],
        "errors": [],
        "lens": shown_lens(opened.lens),
        "lens_source": {name: str(origin) for name, origin in opened.origins.items()},
    }


def _frames(opened: OpenedStack, ids: Sequence[str]) -> list[dict[str, Any]]:
    """The frames of an opened stack."""
    distances, positions = opened.focus_distances_m, opened.focus_positions_m
    origin = opened.origins.get("focus_distances_m") or opened.origins.get("focus_positions_m")
    height, width = opened.frames.size
    return [
        {
            "id": ids[index],
            "name": name,
            "width": width,
            "height": height,
            "focus_distance_m": shown_number(distances[index] if distances else None),
            "position_mm": positions[index] * POSITIONS_PER_M if positions else None,
            "focus_source": str(origin) if origin else None,
            "exposure": read_exposure(opened.files[index]),
            "error": None,
            "left_out": False,
        }
        for index, name in enumerate(opened.frames.names)
    ]


def _in_order(frames: list[dict[str, Any]], corrected: Corrections) -> list[dict[str, Any]]:
    """The frames in the order of their focus, where it is known of all, or as the user wants."""
    keys = [
        math.inf if frame["focus_distance_m"] == "inf" else frame["focus_distance_m"]
        for frame in frames
    ]
    keys = keys if None not in keys else [frame["position_mm"] for frame in frames]
    if None not in keys:
        return [frames[index] for index in np.argsort(keys, kind="stable")]
    if (order := corrected.order) is not None:
        return sorted(frames, key=lambda frame: order.index(frame["id"]))
    return frames


def lacking(opened: OpenedStack) -> list[str]:
    """The unknowns of lens and focus, and why, in the words of the page."""
    words = {"focus_distances_m": "focus distances", "focus_positions_m": "stage positions"}
    parts = (text.partition(" ") for text in opened.lacks)
    return [f"{words.get(name, name).capitalize()} {rest}" for name, _, rest in parts]


def _grade(opened: OpenedStack) -> str:
    if opened.focus_positions_m is not None:
        return "stage positions"
    if opened.focus_distances_m is None:
        return "order"
    camera = opened.camera_for()
    known = camera is not None and camera.aperture_diameter_m is not None
    return "calibrated" if known else "focus distances"


def _unusable(files: Sequence[Path], corrected: Corrections, sentence: str) -> dict[str, Any]:
    """The frames of a stack that cannot be opened, so that the user can leave some out."""
    order = corrected.order or [str(number) for number in range(len(files))]
    frames = [_frame(files[int(one)], one, left_out=one in corrected.left_out) for one in order]
    return {
        "frames": frames,
        "grade": "order",
        "warnings": [],
        "errors": [sentence],
        "lens": corrected.lens or {},
        "lens_source": {},
    }


def _frame(file: Path, number: str, *, left_out: bool) -> dict[str, Any]:
    """One frame that is not part of an opened stack."""
    height = width = error = None
    try:
        header = probe_image(file)
        height, width = header.size(header.orientation)
    except InputError as problem:
        error = _without(str(problem), str(file.parent))
    return {
        "id": number,
        "name": file.name,
        "width": width,
        "height": height,
        "focus_distance_m": None,
        "position_mm": None,
        "focus_source": None,
        "exposure": read_exposure(file),
        "error": error,
        "left_out": left_out,
    }


def check(
    source: str, inside: str, corrections: dict[str, Any], folders: tuple[str, str], usable: bool
) -> dict[str, Any]:
    """Read all frames once at a small size: thumbnails, motion, strangers and order.

    Args:
        source: folder of the frames.
        inside: see `open_corrected`.
        corrections: fields of `Corrections`.
        folders: for the thumbnails, `ID.jpg`, and for the reduced frames, see `Kept`.
        usable: whether the stack can be opened; else only thumbnails are made.

    Returns:
        `warnings` that a run would give after its first stages, and `errors` that would end it.
    """
    corrected, (thumbnails, small) = Corrections(**corrections), folders
    files = found_files(Path(source), Path(inside))
    if not usable:
        for number, file in enumerate(files):
            with suppress(InputError):  # which the frame says already
                pixels = rounded(read_image(file), np.uint8)
                _write_thumbnail(Path(thumbnails) / f"{number}.jpg", pixels)
        return {"warnings": [], "errors": []}
    opened = open_corrected(Path(source), Path(inside), corrected)
    kept = kept_frames(opened, files, Path(small))

    def seen(index: int, pixels: Pixels) -> None:
        _write_thumbnail(Path(thumbnails) / f"{kept.ids[index]}.jpg", pixels)

    reduced_one = reduced_stack(opened, SMALL_PX, kept, seen)
    try:
        with threads(None):
            for index in range(len(reduced_one)):
                reduced_one.frames.read(index)
            working = registered(
                reduced_one, Settings(working_size=SMALL_PX, device="cpu"), Stages()
            )
    except InputError as error:
        return {"warnings": [], "errors": [_without(str(error), source)]}
    names = opened.frames.names
    warnings = [f"{names[at]} {why}" for at, why in working["alignment"].dropped.items()]
    warnings += [text for text in working["findings"] if text not in opened.findings]
    return {"warnings": [_without(text, source) for text in warnings], "errors": []}


def kept_frames(opened: OpenedStack, files: Sequence[Path], folder: Path) -> Kept:
    """Where the reduced frames of a stack are kept.

    Args:
        opened: the stack, with the user's corrections.
        files: see `found_files`.
        folder: of the reduced frames.
    """
    return Kept(folder, opened.files, _ids(opened, files))


def _ids(opened: OpenedStack, files: Sequence[Path]) -> list[str]:
    """The number of each frame in the folder as it was found; that of the page in a TIFF."""
    if len(files) == 1:
        return [str(page) for page in range(len(opened))]
    return [str(files.index(file)) for file in opened.files]


def _write_thumbnail(path: Path, pixels: Pixels) -> None:
    height, width = pixels.shape[:2]
    scale = min(1.0, _THUMBNAIL_PX / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = cv2.convertScaleAbs(reduced(pixels.astype(np.float32), size))
    partial = path.with_suffix(".partial")
    pillow_image(np.asarray(small)).save(partial, "JPEG", quality=85)
    partial.replace(path)


def _without(sentence: str, folder: str) -> str:
    """A sentence without the path of the folder that holds the frames."""
    return sentence.replace(f"{folder}/", "").replace(folder, "the folder")


def ready() -> None:
    """Do nothing; calling it has imported what opening a stack needs."""
