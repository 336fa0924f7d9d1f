"""The frames of a stack seen together: strangers among them, and the order of the sweep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.align.order import (
    LEAST_RANGE,
    FoundOrder,
    Profiles,
    check_listed,
    encoded_luma,
    find_order,
    sharpness_profiles,
)
from focaldiffusion.errors import InputError
from focaldiffusion.stack import FocalStack

# Chosen on 15 photographed and path-traced stacks, their frames saved again as JPEG at quality 80
# and 95, photographed again with noise of 1.5 levels, or fused.
_LEAST_TILES = 20
_COPY_RMS = 0.0026  # difference of a copy from its original, square roots of light, 4 px averaged
_COPY_SHARE = 0.02  # and relative to the RMS contrast of the frames
_COPY_GAP = 3.0  # least difference of other frames, relative to that of the copies
_COPY_REDUCTION = 4
_LEAST_CONTRAST = 0.01  # of frames that can be told apart
_STACKED_LOSS = 0.15  # logarithm of sharpness that the result of a stacking may lack
_STACKED_SHARE = 0.15  # of tiles whose sharpest frame is none of the two most frequent ones


@dataclass(frozen=True)
class Review:
    """Strangers among the frames of a stack, and the order of the others.

    Attributes:
        left_out: index of each image that does not belong to the sweep, and why.
        order: indices of the others, from one end of the sweep to the other.
        is_reordered: whether this differs from the order of the stack.
        findings: sentences about the order.
    """

    left_out: Mapping[int, str] = field(default_factory=dict)
    order: tuple[int, ...] = ()
    is_reordered: bool = False
    findings: tuple[str, ...] = ()


def review(stack: FocalStack, names: Sequence[str], *, wanted: str = "auto") -> Review:
    """Look for copies, the result of an earlier stacking, and the order of the sweep.

    Frames are left out or reordered beyond doubt only. Where their focus is known, a copy stays and
    no order changes, but a finding tells of a contradiction.

    Args:
        stack: the frames at working size, aligned.
        names: of the frames.
        wanted: see `open_stack`: auto may depart from the order of the stack, focus must, others
            must not.

    Raises:
        InputError: no frame is sharper than another anywhere.
    """
    profiles = sharpness_profiles(stack.images)
    is_order = stack.axis == "order"
    listed: list[int] = stack.focus_coordinates.argsort(stable=True).tolist()
    copies = _copies(stack.images)
    left_out: dict[int, str] = {}
    findings: list[str] = []
    if is_order:
        left_out = {copy: f"shows the same as {names[first]}" for copy, first in copies.items()}
    else:
        coordinates = stack.focus_coordinates
        for first in dict.fromkeys(copies.values()):
            same = [copy for copy, one in copies.items() if one == first]
            if any(coordinates[copy] != coordinates[first] for copy in same):
                findings.append(
                    f"{_named([first, *same], names)} show the same picture, although their focus "
                    "differs. Check that each focus setting belongs to its frame."
                )
    rest = [index for index in listed if index not in left_out]
    distinct = [index for index in rest if index not in copies]
    if (stacked := _stacked_result(profiles, distinct)) is not None:
        left_out[stacked] = (
            "is as sharp as the sharpest of the other frames everywhere, like the result of a "
            "focus stacking"
        )
        rest.remove(stacked)
    order, words = _ordered(profiles, rest, names, wanted if is_order else None)
    if len(order) < 2:
        raise InputError(_no_change())
    return Review(left_out, order, list(order) != rest, (*findings, *words))


def _ordered(
    profiles: Profiles, listed: list[int], names: Sequence[str], wanted: str | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The order of the sweep, and what to say of it; `wanted` is None where focus is known."""
    found: FoundOrder | None
    if wanted == "focus":
        found = find_order(profiles, listed)
        doubt = (
            "the frames do not show one order of focus beyond doubt, so relative depth may be "
            f"wrong. {_named(found.order, names)} was taken; give the order if you know it."
        )
        return found.order, () if found.is_unique else (doubt,)
    found = check_listed(profiles, listed)
    if found is None:
        return tuple(listed), ()
    whole = len(found.order) == len(listed) and found.is_unique
    suggested = f" The frames suggest {_named(found.order, names)}" if whole else ""
    along = "the sharpness of the frames does not rise and fall once along"
    if wanted is None:
        focus = f"{along} their focus settings, so some may belong to other frames."
        return tuple(listed), (f"{focus}{suggested and suggested + '.'} Check the list.",)
    if wanted == "auto" and whole:
        used = f"{along} the list, so they were put in order: {_named(found.order, names)}."
        return found.order, (f"{used} --order given (order='given') keeps the list.",)
    remedy = f"{suggested}; --order focus uses it." if whole else " Give them in order of focus."
    return tuple(listed), (f"{along} the list, so relative depth may be wrong.{remedy}",)


def _named(order: Sequence[int], names: Sequence[str]) -> str:
    called = [names[index] for index in order]
    return ", ".join(called if len(called) <= 12 else [*called[:3], "...", *called[-3:]])


def _no_change() -> str:
    return (
        "the frames show no change of focus: none is sharper than another anywhere, so defocus "
        "cannot show depth. Photograph at different focus settings."
    )


def _copies(images: Tensor) -> dict[int, int]:
    """For each image that shows the same as an earlier one at the same focus: that one.

    Averages over a few pixels hardly show noise and compression. A copy differs from its original
    several times less than any two frames of the sweep differ.
    """
    small = np.stack([_reduced(encoded_luma(image)) for image in images])
    small -= small.mean((1, 2), keepdims=True)
    contrast = float(np.sqrt(np.square(small).mean((1, 2)).min()))
    if contrast < _LEAST_CONTRAST:
        return {}
    largest = min(_COPY_RMS, _COPY_SHARE * contrast)
    pairs: list[tuple[float, int, int]] = []
    for first in range(len(small)):
        rms = np.sqrt(np.square(small[first + 1 :] - small[first]).mean((1, 2)))
        pairs += [(float(value), first, first + 1 + at) for at, value in enumerate(rms)]
    pairs.sort()
    differences = [pair[0] for pair in pairs]
    count = 0
    for at, value in enumerate(differences):
        following = differences[at + 1] if at + 1 < len(differences) else np.inf
        if value <= largest and following >= _COPY_GAP * max(value, 1e-5):
            count = at + 1
    copy_of: dict[int, int] = {}
    for _, first, second in sorted(pairs[:count], key=lambda pair: pair[1:]):
        copy_of.setdefault(second, copy_of.get(first, first))
    return copy_of


def _reduced(plane: NDArray[np.float32]) -> NDArray[np.float32]:
    height, width = (max(1, length // _COPY_REDUCTION) for length in plane.shape)
    return np.asarray(cv2.resize(plane, (width, height), interpolation=cv2.INTER_AREA), np.float32)


def _stacked_result(profiles: Profiles, frames: Sequence[int]) -> int | None:
    """The frame that is as sharp as the sharpest of the others everywhere; None without one.

    In a flat scene one frame may be the sharpest. The result of a stacking is also where a third
    and a fourth of the other frames are clearly sharper than the two that are so most often.
    """
    chosen = profiles[list(frames)]
    chosen = chosen[:, np.ptp(chosen, axis=0) > LEAST_RANGE]
    if len(frames) < 4:
        return None
    for place, index in enumerate(frames):
        others = np.delete(chosen, place, axis=0)
        highest = others.max(0)
        often = np.bincount(others.argmax(0), minlength=len(others)).argsort()[-2:]
        elsewhere = highest - others[often].max(0) > 0.5
        if elsewhere.sum() < max(_LEAST_TILES, _STACKED_SHARE * len(elsewhere)):
            continue
        if np.quantile((highest - chosen[place])[elsewhere], 0.7) < _STACKED_LOSS:
            return index
    return None
