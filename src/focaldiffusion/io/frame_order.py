"""The order of a stack's files: by name, by the numbers of a camera, or by time of capture."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.io.facts import Focus
from focaldiffusion.io.images import natural_key

FrameOrder = Literal["auto", "given", "name", "time", "focus"]

_UNITS = r"(?:nm|um|µm|μm|mm|cm|dm|m|in|inch|ft|feet|dpt)"
_QUANTITY = re.compile(rf"(.*?)([-−+]?)(\d+(?:[.,]\d+)?)\s?({_UNITS})(?![^\W\d_])", re.IGNORECASE)
"""Text before, sign, number and unit of a length in a file name."""
_FIRST_NUMBER = re.compile(r"(\D*?)([-−+]?)(\d+(?:\.\d+(?=\D))?)()")
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)")
_TAKEN = re.compile(r"(\d{4}):\d\d:\d\d \d\d:\d\d:\d\d(?:\.\d+)?")


def check_order(order: str) -> None:
    """Check the name of an order.

    Raises:
        InputError: it is unknown.
    """
    if order not in get_args(FrameOrder):
        raise InputError(f"order: {order!r} {unknown_name(str(order), get_args(FrameOrder))}")


def by_name(names: Sequence[str]) -> list[int]:
    """Indices of files in natural order: img2 before img10, z-2mm before z1.5mm.

    Lengths with a unit, and numbers whose minus some names have and others lack, are compared as
    decimals. A hyphen that all names share separates words.
    """
    keys = [(natural_key(name), name) for name in names]  # img1 and img01 are equal natural keys
    values = _quantities(names, _QUANTITY)
    if values is None:
        found = [_FIRST_NUMBER.match(name) for name in names]
        signs = {match[2].replace("+", "") for match in found if match}
        values = _quantities(names, _FIRST_NUMBER) if len(signs) > 1 else None
    if values is None:
        return sorted(range(len(names)), key=keys.__getitem__)
    return sorted(range(len(names)), key=lambda index: (values[index], keys[index]))


def _quantities(names: Sequence[str], pattern: re.Pattern[str]) -> list[float] | None:
    """The number of each name; None unless all have one in the same place, with the same unit."""
    found = [pattern.match(name) for name in names]
    matches = [match for match in found if match is not None]
    if len(matches) < len(names):
        return None
    if len({(match[1].casefold(), match[4].casefold()) for match in matches}) != 1:
        return None
    # A sign says something only where another name has none.
    is_signed = len({match[2].replace("+", "") for match in matches}) > 1
    numbers = [float(match[3].replace(",", ".")) for match in matches]
    return [
        -number if is_signed and match[2] in ("-", "−") else number
        for number, match in zip(numbers, matches, strict=True)
    ]


def by_counter(names: Sequence[str]) -> list[int] | None:
    """Indices of files whose numbers pass from 9999 to 0001, in the order of the camera.

    Returns:
        None if the numbers do not wrap: they have no fixed width, or no gap of more than half
        their range between a first run at its start and a last run at its end.
    """
    found = [_LAST_NUMBER.fullmatch(name.rpartition(".")[0] or name) for name in names]
    matches = [match for match in found if match is not None]
    if len(matches) < len(names) or len({match[1].casefold() for match in matches}) != 1:
        return None
    digits = [match[2] for match in matches]
    if len({len(one) for one in digits}) != 1:
        return None
    while len(digits[0]) > 4 and len({one[0] for one in digits}) == 1:
        digits = [one[1:] for one in digits]  # the 0 of DSC09999 and DSC00001
    numbers, end = [int(one) for one in digits], 10 ** len(digits[0])
    ordered = sorted(numbers)
    gap, last = max(((b - a, a) for a, b in pairwise(ordered)), default=(0, 0))
    room = len(names)  # numbers that may be missing at either end
    is_wrapped = gap > end / 2 and ordered[0] <= room and ordered[-1] >= end - 1 - room
    if len(digits[0]) < 3 or not is_wrapped:
        return None
    return sorted(range(len(names)), key=lambda i: (numbers[i] <= last, numbers[i], names[i]))


def by_time(taken: Sequence[str | None], rank: Sequence[int]) -> list[int] | None:
    """Indices of files by EXIF time of capture; None unless every file has one, and two differ.

    Args:
        taken: `YYYY:MM:DD hh:mm:ss` of each file, with a fraction of a second where it is known.
        rank: place of each file in another order, which decides where times are equal.
    """
    times = [text for text in taken if text is not None and _TAKEN.fullmatch(text)]
    if len(times) < len(taken) or len(set(times)) < 2:
        return None
    if any(text.startswith("0000") for text in times):  # a clock that was never set
        return None
    return sorted(range(len(times)), key=lambda index: (times[index], rank[index]))


def check_needed(order: FrameOrder, name: str, focus: Focus, *, has_files: bool) -> None:
    """Check that a stack has what an order sorts by.

    Raises:
        InputError: it has no files to sort, or the focus of its frames is known.
    """
    if order in ("name", "time") and not has_files:
        raise InputError(f"order: {order}, but {name} has no files that it could sort.")
    if order == "focus" and focus.origin.is_known:
        raise InputError(
            f"order: focus, but the {focus.name} of {name} are known ({focus.origin}), so the "
            "frames need no order. Leave it out."
        )


def may_sort(order: FrameOrder, focus: Focus, *, is_listed: bool) -> bool:
    """Whether the files of a stack are to be put in order when it is opened.

    Focus settings that belong to frames, by a list of files or in their EXIF, stay with them: their
    order then means nothing. Those written for a folder follow the order of its frames.
    """
    if order in ("given", "focus"):
        return False
    if order == "auto":
        return not is_listed and not focus.origin.is_known
    return not focus.origin.is_known or (not is_listed and focus.origin.source != "EXIF")


def in_order(
    files: Sequence[Path], taken: Sequence[str | None], order: FrameOrder
) -> tuple[list[int], tuple[str, ...]]:
    """The order of files, and a sentence where `auto` departs from that of the names.

    Args:
        files: of the frames.
        taken: see `by_time`; empty if it is not wanted.
        order: auto, name or time.

    Raises:
        InputError: order by time, and a file has none, or all have the same.
    """
    # 100CANON before 101CANON
    together = len({path.parent for path in files}) == 1
    names = [path.name if together else str(path) for path in files]
    named = by_name(names)
    if order == "name":
        return named, ()
    counted = by_counter(names)
    rank = [0] * len(names)
    for place, index in enumerate(counted or named):
        rank[index] = place
    timed = by_time(taken, rank)
    if order == "time":
        if timed is None:
            without = next((i for i, t in enumerate(taken) if t is None), None)
            lack = (
                "all files have the same time of capture"
                if without is None
                else f"{names[without]} has no time of capture (EXIF DateTimeOriginal)"
            )
            raise InputError(f"order: time, but {lack}. Choose another order.")
        return timed, ()
    # The same sweep backwards is the same sweep.
    if timed is not None and timed not in (named, named[::-1]):
        reason = "time of capture (EXIF DateTimeOriginal), which contradicts the order of names"
        return timed, (_departure(names, timed, reason),)
    if timed is None and counted is not None:
        reason = "the camera's numbers, which start again after the last one"
        return counted, (_departure(names, counted, reason),)
    return named, ()


def _departure(names: Sequence[str], order: Sequence[int], reason: str) -> str:
    ends = f"{names[order[0]]} first, {names[order[-1]]} last"
    return f"the frames are ordered by {reason}: {ends}. --order name keeps the order of names."
