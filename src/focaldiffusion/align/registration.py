"""Alignment of a stack: which frames match, their poses, and whether they moved at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np

from focaldiffusion.align.alignment import Alignment, Crop, FrameAlignment, common_crop
from focaldiffusion.align.exposure import (
    Exposures,
    describe_exposures,
    find_exposures,
    is_bracket,
)
from focaldiffusion.align.motion import (
    LEAST_CORRELATION,
    Matrix,
    Motion,
    MotionModel,
    corner_displacement,
    half_diagonal_px,
    refine_motion,
    to_pixels,
    warp,
)
from focaldiffusion.align.poses import Chains, Link, adjust_poses, chain_poses, link_frames
from focaldiffusion.align.pyramid import Plane
from focaldiffusion.align.view import MOSTLY, View, showing_nothing, shrunk_frame
from focaldiffusion.errors import InputError
from focaldiffusion.frames import FrameSource, alpha_of, pixels_of
from focaldiffusion.progress import Meter
from focaldiffusion.threads import in_parallel

AlignMode = Literal["auto", "on", "off"]

_LEAST_MOTION_PX = 0.25  # at the resolution of registration
_LEAST_IMPROVEMENT = 0.12
"""Share of the difference between two frames that a real motion explains. On motionless
path-traced, rendered and light-field stacks, a change of focus fakes up to 0.09; the smallest
known motion by hand explains 0.16."""
_AFFINE_IMPROVEMENT = 0.04
"""Share of the residual of similarities. Tripods and rails reach 0.02, hands 0.05 to 0.5."""
_MODEL_LINKS = 8
_FAR_LINKS = 40  # frames compared with the reference


def find_alignment(
    frames: FrameSource,
    *,
    focus_order: Sequence[int] | None = None,
    reference: int | None = None,
    mode: AlignMode = "auto",
    drop_unaligned: bool = False,
    meter: Meter | None = None,
) -> Alignment:
    """Find the poses and exposures of the frames of a stack.

    Neighbours in focus, whose blur is similar, are compared first. Then all frames, or some
    across a long sweep, are compared with the reference, which removes the drift of the chain.
    Motions are similarities, or affine if that explains clearly more (a rolling shutter, a tilted
    table).

    Args:
        frames: N >= 2 frames; each is read once.
        focus_order: indices of all frames from one end of the sweep to the other; the given
            order by default.
        reference: the frame that defines the view. By default the one with the narrowest field
            of view, so that all others reach its borders, or the middle of the sweep if all
            fields of view are equal.
        mode: "auto" leaves a stack without motion or change of exposure untouched, to the last
            bit; "off" compares nothing.
        drop_unaligned: leave out frames that match no other or show nothing, instead of raising.
            Frames too clipped to compare are left out in any case.
        meter: counts the steps.

    Raises:
        InputError: a frame matches no other, or the frames share too little area.
    """
    count = len(frames.names)
    order = tuple(range(count)) if focus_order is None else tuple(focus_order)
    if sorted(order) != list(range(count)):
        raise ValueError(f"focus_order {order} is not a permutation of {count} frames")
    if reference is not None and not 0 <= reference < count:
        raise ValueError(f"reference {reference} of {count} frames")
    if mode == "off":
        still = tuple(FrameAlignment.of(name, np.eye(2, 3), frames.size) for name in frames.names)
        middle = order[(count - 1) // 2] if reference is None else reference
        whole = Crop(0, 0, *frames.size)
        return Alignment(middle, still, tuple(range(count)), {}, whole, frames.size)

    meter = meter or Meter()
    meter.expect(3 * count)
    views = _views(frames, meter)
    dropped = _blank(views, frames.names, drop_unaligned)
    shown = [index for index in order if index not in dropped]
    chains = link_frames([view.pyramid for view in views], shown, meter.advance)
    dropped |= _unmatched(views, chains, frames.names, drop_unaligned)
    kept = tuple(index for index in order if index not in dropped)
    _check_reference(reference, dropped, frames.names)
    layout = _locate(views, chains, kept, reference, frames.size, meter.advance)
    if mode == "auto" and not _have_motion(layout.links, views[0].size):
        middle = kept[(len(kept) - 1) // 2] if reference is None else reference
        layout = replace(layout, reference=middle, poses={index: np.eye(3) for index in kept})
    exposures = find_exposures(views, layout.poses, layout.reference, is_sure=mode == "on")
    bracketed = is_bracket(views, exposures.gains)
    findings = describe_exposures(exposures, frames.names, bracketed=bracketed)
    if exposures.lost:
        dropped |= exposures.lost
        kept = _measured(kept, exposures, frames.names)
        _check_reference(reference, dropped, frames.names)
        if reference is None:
            reference = _choose_reference(layout.poses, kept, frames.size)
        layout = layout.seen_from(reference, kept)
    if not drop_unaligned:  # what was left out all the same must be said
        findings += tuple(f"{frames.names[i]} is left out: {why}." for i, why in dropped.items())
    found = tuple(_describe(index, exposures, frames, views, layout) for index in sorted(kept))
    crop = common_crop([one.matrix for one in found], [one.name for one in found], frames.size)
    return Alignment(
        layout.reference,
        found,
        tuple(sorted(kept)),
        dropped,
        crop,
        frames.size,
        findings,
        is_bracket=bracketed,
    )


def _views(frames: FrameSource, meter: Meter) -> list[View]:
    def seen() -> Iterator[tuple[Plane, Plane | None]]:
        for index in range(len(frames.names)):
            yield shrunk_frame(pixels_of(frames, index), alpha_of(frames, index))

    views = []
    for view in in_parallel(lambda frame: View.of(*frame), seen()):
        views.append(view)
        meter.advance()
    return views


def _blank(views: Sequence[View], names: Sequence[str], drop_unaligned: bool) -> dict[int, str]:
    """Frames that show nothing, and the reason to leave them out.

    Raises:
        InputError: there are some, and they are not to be left out, or too few others remain.
    """
    blank = showing_nothing(views)
    if blank and (not drop_unaligned or len(views) - len(blank) < 2):
        index, kind = next(iter(blank.items()))
        more = f" ({len(blank) - 1} more show nothing either)" if len(blank) > 1 else ""
        remedy = (
            "Leave it out with --drop-unaligned, or turn alignment off with --align off."
            if len(views) - len(blank) > 1
            else "Give at least 2 frames of the scene."
        )
        raise InputError(f"{names[index]}: shows nothing, it is {kind}{more}. {remedy}")
    return {index: f"shows nothing: it is {kind}" for index, kind in blank.items()}


def _unmatched(
    views: Sequence[View], chains: Chains, names: Sequence[str], drop_unaligned: bool
) -> dict[int, str]:
    """Frames outside the largest group of matching ones, and the reason to leave them out.

    Raises:
        InputError: a well exposed frame shows another scene, and is not to be left out.
    """
    kept = max(chains.groups, key=len)
    lost = [index for group in chains.groups if group is not kept for index in group]
    clipped = {
        index: f"matches no other frame, {views[index].clipped:.0%} of it is clipped"
        for index in lost
        if views[index].clipped > MOSTLY > float(np.median([views[i].clipped for i in kept]))
    }
    if len(lost) > len(clipped) or len(kept) < 2:
        _check_matched(chains, kept, lost, names, drop_unaligned)
    return {index: clipped.get(index, "matches no other frame") for index in lost}


def _measured(kept: Sequence[int], exposures: Exposures, names: Sequence[str]) -> tuple[int, ...]:
    """The kept frames whose exposure is known.

    Raises:
        InputError: fewer than two.
    """
    left = tuple(index for index in kept if index not in exposures.lost)
    if len(left) < 2:
        raise InputError(
            f"{_listed(list(exposures.lost), names)}: {next(iter(exposures.lost.values()))}, so "
            "fewer than 2 frames remain. Expose all frames alike."
        )
    return left


def _check_reference(
    reference: int | None, dropped: Mapping[int, str], names: Sequence[str]
) -> None:
    if reference is not None and reference in dropped:
        raise InputError(
            f"{names[reference]}: chosen as the reference, but it {dropped[reference]}. "
            "Choose another reference."
        )


def _listed(indices: Sequence[int], names: Sequence[str]) -> str:
    more = f" and {len(indices) - 1} more" if len(indices) > 1 else ""
    return f"{names[indices[0]]}{more}"


def _check_matched(
    chains: Chains,
    kept: Sequence[int],
    lost: Sequence[int],
    names: Sequence[str],
    drop_unaligned: bool,
) -> None:
    """Refuse frames that match none of those kept, unless they may be left out."""
    if not lost or (drop_unaligned and len(kept) > 1):
        return
    # The first frame is matched against nothing, so look for the failure in the next one.
    culprit = lost[0] if lost[0] in chains.failures else kept[0]
    failure = chains.failures[culprit]
    culprit, other = (culprit, failure.first) if culprit in lost else (failure.first, culprit)
    remedy = (
        "Leave it out with --drop-unaligned, or turn alignment off with --align off."
        if len(kept) > 1
        else "Give frames of one scene, or turn alignment off with --align off."
    )
    others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
    raise InputError(
        f"{names[culprit]}{others}: shows a different scene from the other frames. Its best match "
        f"is {names[other]}, with a correlation of {failure.motion.correlation:.2f}; "
        f"expected at least {LEAST_CORRELATION}. {remedy}"
    )


@dataclass(frozen=True, eq=False)
class _Layout:
    """Poses of the kept frames: (3, 3) from the reference to each, centred coordinates."""

    reference: int
    poses: dict[int, Matrix]
    links: tuple[Link, ...]

    def seen_from(self, reference: int, kept: Sequence[int]) -> _Layout:
        """The layout of some of the frames, with another reference."""
        back = np.linalg.inv(self.poses[reference])
        poses = {index: self.poses[index] @ back for index in kept if index != reference}
        return replace(self, reference=reference, poses={reference: np.eye(3)} | poses)


def _have_motion(links: Sequence[Link], size: tuple[int, int]) -> bool:
    """Whether any linked frames moved; a change of focus alone can fake a pixel or two."""
    least = _LEAST_MOTION_PX / half_diagonal_px(size)
    return any(
        corner_displacement(motion.matrix) > least and motion.improvement > _LEAST_IMPROVEMENT
        for motion in (link.motion for link in links)
    )


def _locate(
    views: Sequence[View],
    chains: Chains,
    kept: tuple[int, ...],
    reference: int | None,
    size: tuple[int, int],
    advance: Callable[[], None],
) -> _Layout:
    """Poses of the kept frames, from a chain of neighbours and from the reference to each."""
    links, model = _choose_model(views, [link for link in chains.links if link.first in kept])
    if reference is None:
        reference = _choose_reference(chain_poses(links, kept[0]), kept, size)
    poses = chain_poses(links, reference)
    linked = {
        index
        for link in links
        for index in (link.first, link.second)
        if reference in (link.first, link.second)
    }
    others = [index for index in kept if index not in linked]
    # A chain of few links hardly drifts, so not every frame of a long one is compared again.
    far = others[:: -(-len(others) // _FAR_LINKS) or 1]

    def far_motion(index: int) -> Motion:
        pair = views[reference].pyramid, views[index].pyramid
        return refine_motion(*pair, model=model, start=poses[index])

    for index, motion in zip(far, in_parallel(far_motion, far), strict=True):
        if motion.is_reliable and motion.method != "identity":
            links.append(Link(reference, index, motion, is_far=True))
        advance()
    for _ in range(len(kept) - len(far)):
        advance()
    return _Layout(reference, adjust_poses(poses, links, reference, model), tuple(links))


def _choose_model(views: Sequence[View], links: list[Link]) -> tuple[list[Link], MotionModel]:
    """Affine motions if they explain clearly more than similarities, in most of a few links."""
    if not _have_motion(links, views[0].size):
        return links, "similarity"

    def improve(link: Link) -> Link:
        pair = views[link.first].pyramid, views[link.second].pyramid
        motion = refine_motion(*pair, model="affine", start=link.motion.matrix)
        return replace(link, motion=replace(motion, method=link.motion.method))

    some = range(0, len(links), len(links) // _MODEL_LINKS + 1)
    tried = dict(zip(some, in_parallel(improve, [links[at] for at in some]), strict=True))
    gained = [
        1 - link.motion.residual / links[at].motion.residual
        for at, link in tried.items()
        if links[at].motion.residual > 0
    ]
    if not gained or np.median(gained) <= _AFFINE_IMPROVEMENT:
        return links, "similarity"
    rest = in_parallel(improve, [link for at, link in enumerate(links) if at not in tried])
    affine = [tried[at] if at in tried else next(rest) for at in range(len(links))]
    reliable = all(link.motion.is_reliable for link in affine)
    return (affine, "affine") if reliable else (links, "similarity")


def _choose_reference(
    poses: dict[int, Matrix], kept: tuple[int, ...], size: tuple[int, int]
) -> int:
    """The frame with the narrowest field of view; the middle of the sweep if all are equal."""
    scale = {index: np.sqrt(np.linalg.det(pose[:2, :2])) for index, pose in poses.items()}
    spread = max(scale.values()) / min(scale.values()) - 1
    if spread * half_diagonal_px(size) < 1:
        return kept[(len(kept) - 1) // 2]
    return max(kept, key=lambda index: scale[index])


def _describe(
    index: int, exposures: Exposures, frames: FrameSource, views: Sequence[View], layout: _Layout
) -> FrameAlignment:
    """The alignment of one frame, in native pixels."""
    first, second, pose = views[layout.reference], views[index], layout.poses[index]
    best = max(
        (link.motion for link in layout.links if index in (link.first, link.second)),
        key=lambda motion: motion.correlation,
    )
    still = np.array_equal(pose, np.eye(3))
    return replace(
        FrameAlignment.of(frames.names[index], to_pixels(pose, frames.size), frames.size),
        gain=exposures.gains[index],
        cast=tuple(exposures.casts[index].tolist()),
        method="identity" if still else best.method,
        correlation=best.correlation if best.method != "identity" else None,
        residual_before=_residual(first, second, np.eye(3)),
        residual=_residual(first, second, pose),
    )


def _residual(first: View, second: View, pose: Matrix) -> float:
    """RMS difference at the middle level, relative to the mean brightness, where both overlap."""
    k = first.pyramid.middle
    middle, other = first.pyramid.structure(k), second.pyramid.structure(k)
    pixels = to_pixels(pose, middle.shape)
    moved = warp(other, pixels, middle.shape)
    shown = warp(second.pyramid.shown(k), pixels, middle.shape, border=cv2.BORDER_CONSTANT)
    inside = (shown > 0.99) & (first.pyramid.shown(k) > 0)
    return float(np.sqrt(np.square(moved - middle)[inside].mean()))
