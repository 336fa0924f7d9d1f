"""Where a pile of photographs is cut into stacks, bursts, exposure brackets and single shots.

Neighbours in time are compared. Metadata decide where they suffice: numbered shots of a bracket,
the kind that a camera writes, focus distances, exposures, gaps. Else thumbnails do: a stack shows
one scene, sharp in other places from frame to frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Literal

from focaldiffusion.archive.looks import Look, focus_change, likeness
from focaldiffusion.io.capture import Capture
from focaldiffusion.io.drive import Drive
from focaldiffusion.io.formats import is_raw
from focaldiffusion.io.frame_order import by_counter, by_name

Kind = Literal["focus stack", "exposure bracket", "burst", "other bracket", "single", "unreadable"]
LookAt = Callable[[Path], Look | None]
"""Gives the look of a photograph; None if its pixels cannot be read."""

_LONGEST_GAP_S = 60.0  # within a series by hand
_GAP_GROWS = 6.0  # over the median gap of a series: the next one began
_LONGER = 2.0  # gap of a bracket over the median, at which pictures are looked at
_SHORT_GAP_S = 2.0  # which no series by hand needs to begin
_EXPOSURE_STEP = 0.4  # stops between the frames of a bracket; the smallest step is a half
_SAME_SCENE = 0.6  # likeness; different scenes reach 0.47, 22 real stacks and bursts 0.75 and more
_OTHER_FOCUS = 0.1  # octaves of detail; bursts reach 0.09, 22 real stacks 0.11 and more
_FEWEST = 3  # frames of a stack that only pictures tell from a repeated shot


@dataclass(frozen=True)
class Shot:
    """A photograph of the pile."""

    path: Path
    capture: Capture


@dataclass(frozen=True)
class Series:
    """Photographs that belong together, in order, and what says so."""

    kind: Kind
    shots: tuple[Shot, ...]
    reason: str


def cut(shots: Sequence[Shot], look_at: LookAt) -> list[Series]:
    """Cut a pile, in any order, into series.

    Args:
        shots: of any number of cameras and folders.
        look_at: called for photographs that metadata leave open.

    Returns:
        Series by the names of their first frames; each shot is in exactly one.
    """
    found = [
        Series("unreadable", (shot,), "no picture that can be read")
        for shot in shots
        if shot.capture.size is None
    ]
    for stream in _streams([shot for shot in shots if shot.capture.size is not None]):
        for run in _runs(stream):
            found += _judged(run, look_at)
    return sorted(found, key=lambda one: one.shots[0].path)


def _streams(shots: Sequence[Shot]) -> list[list[Shot]]:
    """The photographs of each camera in the order they were taken; those without a time, of each
    folder and name."""
    groups: dict[tuple[object, ...], list[Shot]] = {}
    for shot in shots:
        capture, path = shot.capture, shot.path
        kind = path.suffix.casefold() if is_raw(path) else ""  # RAW beside JPEG is the same shot
        key: tuple[object, ...] = (capture.camera, kind)
        if capture.taken_s is None:
            key = (path.parent, re.sub(r"\d+", "", path.stem).casefold(), kind)
        groups.setdefault(key, []).append(shot)
    return [_sorted(group) for group in groups.values()]


def _sorted(shots: Sequence[Shot]) -> list[Shot]:
    names = [shot.path.name for shot in shots]
    ranks = by_counter(names) or by_name(names)
    ordered = [shots[index] for index in ranks]
    return sorted(ordered, key=lambda shot: shot.capture.taken_s or 0.0)  # stable


def _runs(stream: Sequence[Shot]) -> list[list[Shot]]:
    """A stream, cut where metadata show that the next frame begins something else."""
    runs: list[list[Shot]] = []
    gaps: list[float] = []
    for shot in stream:
        if runs and not _is_apart(runs[-1], gaps, shot):
            gaps.append(_gap_s(runs[-1][-1], shot) or 0.0)
            runs[-1].append(shot)
        else:
            runs.append([shot])
            gaps = []
    return runs


def _is_apart(run: Sequence[Shot], gaps: Sequence[float], shot: Shot) -> bool:
    """Whether a frame does not continue a run, by metadata alone."""
    before, after = run[-1].capture, shot.capture
    for name in ("size", "f_number", "focal_length_mm"):
        if getattr(before, name) != getattr(after, name):
            return True
    if before.drive is not None and after.drive is not None:
        if before.drive.kind != after.drive.kind:
            return True
        numbers = before.drive.shot, after.drive.shot
        if numbers[0] is not None and numbers[1] is not None:
            return numbers[1] != numbers[0] + 1
    gap_s = _gap_s(run[-1], shot)
    if gap_s is None:
        return False
    usual_s = max(median(gaps), _SHORT_GAP_S) if len(gaps) > 1 else _LONGEST_GAP_S
    return gap_s > min(_LONGEST_GAP_S, _GAP_GROWS * usual_s)


def _gap_s(first: Shot, second: Shot) -> float | None:
    """Seconds from the end of one exposure to the beginning of the next; None without clocks."""
    start, end = first.capture.taken_s, second.capture.taken_s
    if start is None or end is None:
        return None
    return max(0.0, end - start - (first.capture.exposure_s or 0.0))


def _judged(run: Sequence[Shot], look_at: LookAt) -> list[Series]:
    """The series of a run that metadata do not cut."""
    drive = run[0].capture.drive
    if len(run) == 1:
        return [Series("single", tuple(run), "alone in time")]
    if drive is not None and drive.kind == "focus":
        return _brackets(run, drive, look_at)
    if drive is not None and drive.kind == "exposure":
        return [Series("exposure bracket", tuple(run), drive.tag)]
    if drive is not None and drive.kind == "other bracket":
        return [Series("other bracket", tuple(run), drive.tag)]
    by_distance = _by_distance(run)
    if by_distance is not None:
        return by_distance
    return _by_pictures(run, look_at)


def _brackets(run: Sequence[Shot], drive: Drive, look_at: LookAt) -> list[Series]:
    """Focus brackets in a row. Where the camera does not count, pictures on both sides of a longer
    gap tell whether another one began."""
    starts = [0]
    gaps = [_gap_s(*pair) or 0.0 for pair in pairwise(run)]
    for index, gap_s in enumerate(gaps, start=1):
        if drive.shot is None and gap_s > _LONGER * median(gaps) and index - starts[-1] > 1:
            looks = [look_at(run[at].path) for at in (starts[-1], index - 1, index)]
            if None not in looks and _begins_anew(*looks):  # type: ignore[arg-type]
                starts.append(index)
    return [
        Series("focus stack", tuple(run[start:end]), drive.tag)
        for start, end in pairwise([*starts, len(run)])
    ]


def _begins_anew(first: Look, last: Look, after: Look) -> bool:
    """Whether a frame shows another scene than a sweep does, or its first focus again."""
    if likeness(last, after) < _SAME_SCENE:
        return True
    step = focus_change(last, after)
    return step > _OTHER_FOCUS and focus_change(first, after) < step / 2


def _by_distance(run: Sequence[Shot]) -> list[Series] | None:
    """Series by recorded focus distances; None unless every frame has one, and they differ."""
    readings = [shot.capture.focus for shot in run]
    known = [reading for reading in readings if reading is not None]
    if len(known) < len(run) or len(run) < _FEWEST:
        return None
    middles = [1 / one.near_m + 1 / one.far_m for one in known]  # twice the dioptres
    steps = [after - before for before, after in pairwise(middles)]
    rising, falling = (sum(sign * step > 0 for step in steps) for sign in (1, -1))
    if max(rising, falling) < _FEWEST - 1 or min(rising, falling) > 0:
        return None
    return [Series("focus stack", tuple(run), f"{known[0].tag} from frame to frame")]


def _by_pictures(run: Sequence[Shot], look_at: LookAt) -> list[Series]:
    """Series by what the pictures show."""
    found: list[Series] = []
    scene: list[tuple[Shot, Look]] = []
    for shot in run:
        look = look_at(shot.path)
        if look is None:
            found.append(Series("unreadable", (shot,), "its pixels cannot be read"))
            continue
        if scene and likeness(scene[-1][1], look) < _SAME_SCENE:
            found += _scene_judged(scene)
            scene = []
        scene.append((shot, look))
    return found + _scene_judged(scene)


def _scene_judged(scene: Sequence[tuple[Shot, Look]]) -> list[Series]:
    """Series of frames that show one scene."""
    if not scene:
        return []
    shots, looks = zip(*scene, strict=True)
    if len(scene) == 1:
        return [Series("single", shots, "shows what its neighbours do not")]
    steps = [abs(_stops(before, after)) for before, after in pairwise(scene)]
    if median(steps) > _EXPOSURE_STEP:
        return [Series("exposure bracket", shots, "exposures differ from frame to frame")]
    changes = [focus_change(looks[0], look) for look in looks]
    if len(scene) < _FEWEST or max(changes) < _OTHER_FOCUS:
        return [Series("burst", shots, "one scene at one focus")]
    cuts = _sweeps(looks)
    return [
        Series("focus stack", shots[start:end], "one scene, sharp in other places")
        if end - start >= _FEWEST
        else Series("burst", shots[start:end], "too few frames to tell from a repeated shot")
        for start, end in pairwise(cuts)
    ]


def _sweeps(looks: Sequence[Look]) -> list[int]:
    """Indices where sweeps begin, and the end: focus jumps back to where the sweep began."""
    steps = [focus_change(before, after) for before, after in pairwise(looks)]
    starts = [0]
    for index, step in enumerate(steps, start=1):
        first, last, after = looks[starts[-1]], looks[index - 1], looks[index]
        if step > 3 * median(steps) and index - starts[-1] > 1 and _begins_anew(first, last, after):
            starts.append(index)
    return [*starts, len(looks)]


def _stops(first: tuple[Shot, Look], second: tuple[Shot, Look]) -> float:
    """Change of exposure, by metadata or else by brightness."""
    settings = [shot.capture.exposure_stops for shot, _ in (first, second)]
    if settings[0] is not None and settings[1] is not None:
        return settings[1] - settings[0]
    return second[1].brightness - first[1].brightness
