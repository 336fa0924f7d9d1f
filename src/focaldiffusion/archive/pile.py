"""A pile of files: its photographs, the series they make, and their rows of a manifest."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from focaldiffusion.archive.cutting import Series, Shot, cut
from focaldiffusion.archive.looks import LOOK_PX, Look
from focaldiffusion.archive.manifest import Entry, as_key
from focaldiffusion.errors import InputError
from focaldiffusion.files import is_folder
from focaldiffusion.io.capture import read_capture
from focaldiffusion.io.file_names import IMAGE_SUFFIXES
from focaldiffusion.io.formats import is_raw
from focaldiffusion.io.panels import Panel, Strip, page
from focaldiffusion.io.png import write_png
from focaldiffusion.io.results import has_results
from focaldiffusion.io.staging import file_errors_named
from focaldiffusion.io.thumbnails import thumbnail
from focaldiffusion.progress import Report
from focaldiffusion.threads import in_parallel

_SHEET_PX = 280  # long side of the pictures of a sheet
_SHEET_COLUMNS = 6
_SHEET_MOST = 60  # pictures


def photographs(folder: Path) -> list[Path]:
    """All files below a folder that are photographs by their name, sorted.

    Hidden files and folders, links to folders, and results of a reconstruction are passed over.

    Raises:
        InputError: it is no folder, cannot be listed, or holds no photograph.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder. Give the folder that holds the photographs.")
    found: list[Path] = []
    pending = [folder]
    while pending:
        one = pending.pop()
        if has_results(one):
            continue
        try:
            children = sorted(one.iterdir())
        except OSError as error:
            raise InputError(f"{one}: cannot be listed ({error.strerror}).") from None
        for path in children:
            if path.name.startswith("."):
                continue
            if path.is_dir():
                if not path.is_symlink():
                    pending.append(path)
            elif path.suffix.lower() in IMAGE_SUFFIXES:
                found.append(path)
    if not found:
        raise InputError(f"{folder}: holds no photographs, in no folder below it either.")
    return sorted(found)


def find_series(paths: Sequence[Path], progress: Report) -> list[Series]:
    """Read the metadata of photographs, and cut them into series.

    Args:
        paths: of the photographs.
        progress: called as photographs are read.

    Raises:
        InputError: a photograph vanishes meanwhile.
    """
    shots = []
    for done, shot in enumerate(in_parallel(_shot, paths), start=1):
        shots.append(shot)
        progress("reading metadata", done, len(paths))
    looked = 0

    def look_at(path: Path) -> Look | None:
        nonlocal looked
        looked += 1
        progress("looking at pictures", looked, 0)
        try:
            return Look.of(thumbnail(path, LOOK_PX))
        except InputError:
            _check_there(path)
            return None

    return cut(shots, look_at)


def _shot(path: Path) -> Shot:
    capture = read_capture(path)
    if capture.size is None:
        _check_there(path)
    return Shot(path, capture)


def _check_there(path: Path) -> None:
    """Tell an unreadable photograph from a card that was pulled.

    Raises:
        InputError: the file has vanished since it was listed.
    """
    if not os.path.lexists(path):
        raise InputError(
            f"{path}: has vanished while photographs were read, perhaps with its card. Put it "
            "back, and find again."
        )


def entries_of(series: Iterable[Series], folder: Path) -> list[Entry]:
    """The focus stacks as rows of a manifest, in the order of their first files.

    A stack of RAW files whose pictures the camera wrote as well is a note on their row.

    Args:
        series: of a pile.
        folder: of the pile; keys are made of the paths below it.
    """
    stacks = [one for one in series if one.kind == "focus stack"]
    stacks.sort(key=lambda one: one.shots[0].path)
    raw = [one for one in stacks if is_raw(one.shots[0].path)]
    entries: list[Entry] = []
    used: Counter[str] = Counter()
    beside: set[int] = set()
    for one in stacks:
        if any(one is other for other in raw):
            continue
        stems = _stems(one)
        twins = [other for other in raw if _stems(other) & stems]
        beside |= {id(other) for other in twins}
        entry = _entry(one, folder, used)
        if twins:
            suffixes = {shot.path.suffix.upper() for other in twins for shot in other.shots}
            notes = ", ".join(filter(None, [entry.notes, f"also as {' '.join(sorted(suffixes))}"]))
            entry = replace(entry, notes=notes)
        entries.append(entry)
    entries += [_entry(one, folder, used) for one in raw if id(one) not in beside]
    return sorted(entries, key=lambda entry: entry.frames[0])


def _stems(series: Series) -> set[tuple[Path, str]]:
    return {(shot.path.parent, shot.path.stem.casefold()) for shot in series.shots}


def _entry(series: Series, folder: Path, used: Counter[str]) -> Entry:
    first, last = series.shots[0].path, series.shots[-1].path
    parts = [*first.relative_to(folder).parts[:-1], f"{first.stem}-{last.stem}"]
    key = as_key("_".join(parts))
    used[key.casefold()] += 1
    if used[key.casefold()] > 1:
        key = as_key(f"{key} ({used[key.casefold()]})")
    capture = series.shots[0].capture
    facts = {
        "{:g} mm": capture.focal_length_mm,
        "f/{:g}": capture.f_number,
        "{:g} s": capture.exposure_s,
        "ISO {:g}": capture.iso,
    }
    return Entry(
        key,
        tuple(str(shot.path.absolute()) for shot in series.shots),
        camera=capture.camera,
        notes=", ".join(text.format(value) for text, value in facts.items() if value),
        reason=series.reason,
    )


def write_sheet(entry: Entry, path: Path) -> None:
    """Write a contact sheet of a stack as PNG: all frames, or some across a long one.

    Raises:
        InputError: a frame cannot be read, or the file cannot be written.
    """
    count = min(len(entry.frames), _SHEET_MOST)
    chosen = np.linspace(0, len(entry.frames) - 1, count).round().astype(int).tolist()
    files = [Path(entry.frames[index]) for index in chosen]
    pictures = in_parallel(lambda file: thumbnail(file, _SHEET_PX), files)
    panels: list[Panel | None] = [
        Panel("", pixels, caption=file.name) for file, pixels in zip(files, pictures, strict=True)
    ]
    columns = min(_SHEET_COLUMNS, count)
    panels += [None] * (-count % columns)
    rows = math.ceil(count / columns)
    strips = [
        Strip("", panels[row * columns : (row + 1) * columns], _SHEET_PX) for row in range(rows)
    ]
    sheet = page(strips, title=f"{entry.key}: {len(entry.frames)} frames, {entry.reason}")
    with file_errors_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, np.divide(sheet, 255, dtype=np.float32), bit_depth=8)
