"""Alignment of a stack: which frames match, their poses, and whether they moved at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch

from focaldiffusion.align.alignment import Alignment, Crop, FrameAlignment, common_crop
from focaldiffusion.align.motion import (
    LEAST_CORRELATION,
    Matrix,
    MotionModel,
    Plane,
    Pyramid,
    corner_displacement,
    half_diagonal_px,
    refine_motion,
    to_pixels,
    warp,
)
from focaldiffusion.align.poses import Chains, Link, adjust_poses, chain_poses, link_frames
from focaldiffusion.errors import InputError
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.progress import Meter
from focaldiffusion.stack import FrameSource, alpha_of

AlignMode = Literal["auto", "on", "off"]

_LONG_SIDE_PX = 1024
_EXPOSURE_PX = 256
_LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
_LEAST_MOTION_PX = 0.25  # at the resolution of registration
_LEAST_IMPROVEMENT = 0.12
"""Share of the difference between two frames that a real motion explains. On motionless
path-traced, rendered and light-field stacks, a change of focus fakes up to 0.09; the smallest
known motion by hand explains 0.16."""
_LEAST_GAIN = 0.02
"""A change of focus fakes a gain of up to 1.2 % in still stacks."""
_SATURATED = 0.95  # relative to the light that encodes as 1
_AFFINE_IMPROVEMENT = 0.04
"""Share of the residual of similarities. Tripods and rails reach 0.02, hands 0.05 to 0.5."""
_MODEL_LINKS = 8
_LOW_PASS_PX = 8  # at the resolution of exposures
_LEAST_AREA = 0.02
_FLAT = 0.02  # relative bend below which a place counts fully


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

    Neighbours in focus, whose blur is similar, are compared first, then all frames with the
    reference, which removes the drift of the chain. Motions are similarities, or affine if that
    explains clearly more (a rolling shutter, a tilted table).

    Args:
        frames: N >= 2 frames; each is read once.
        focus_order: indices of all frames from one end of the sweep to the other; the given
            order by default.
        reference: the frame that defines the view. By default the one with the narrowest field
            of view, so that all others reach its borders, or the middle of the sweep if all
            fields of view are equal.
        mode: "auto" leaves a stack without motion or change of exposure untouched, to the last
            bit; "off" compares nothing.
        drop_unaligned: leave out frames that match no other, instead of raising.
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
    views = []
    for index in range(count):
        views.append(_View.of(frames.read(index), alpha_of(frames, index)))
        meter.advance()
    chains = link_frames([view.pyramid for view in views], order, meter.advance)
    kept = _keep(chains, frames.names, drop_unaligned)
    if reference is not None and reference not in kept:
        raise InputError(
            f"{frames.names[reference]}: chosen as the reference, but it matches no other frame. "
            "Choose another reference."
        )
    layout = _locate(views, chains, kept, reference, frames.size, meter.advance)
    if mode == "auto" and not _have_motion(layout.links, views[0].size):
        middle = kept[(len(kept) - 1) // 2] if reference is None else reference
        layout = replace(layout, reference=middle, poses={index: np.eye(3) for index in kept})
    gains = _fit_gains(views, layout, mode)
    found = tuple(_describe(index, gains[index], frames, views, layout) for index in sorted(kept))
    crop = common_crop([one.matrix for one in found], [one.name for one in found], frames.size)
    dropped = {index: "matches no other frame" for index in range(count) if index not in kept}
    return Alignment(layout.reference, found, tuple(sorted(kept)), dropped, crop, frames.size)


@dataclass(frozen=True, eq=False)
class _View:
    """Features of a frame: structure, linear light, and the share of each pixel that is clipped."""

    pyramid: Pyramid
    size: tuple[int, int]
    luminance: Plane
    saturated: Plane

    @classmethod
    def of(cls, srgb: Plane, alpha: Plane | None = None) -> _View:
        # Light must be averaged as light. Within one small pixel, its square root is close enough
        # to the sRGB encoding, and a square is far cheaper than sRGB's power.
        encoded = np.sqrt(_shrink(srgb * srgb, _LONG_SIDE_PX))
        light = srgb_to_linear(torch.from_numpy(encoded)).numpy()
        luminance = light @ _LUMINANCE
        saturated = (light.max(axis=2) > _SATURATED).astype(np.float32)
        shown = None
        if alpha is not None:
            shown = (_shrink(alpha, _LONG_SIDE_PX) > 0.999).astype(np.float32)
            np.maximum(saturated, 1 - shown, out=saturated)  # hidden light counts no more
        small = _shrink(luminance, _EXPOSURE_PX), _shrink(saturated, _EXPOSURE_PX)
        return cls(Pyramid.of(luminance, shown), luminance.shape, *small)


def _shrink(image: Plane, long_side_px: int) -> Plane:
    """Average over areas, down to a long side; smaller images are unchanged."""
    height, width = image.shape[:2]
    scale = long_side_px / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _keep(chains: Chains, names: Sequence[str], drop_unaligned: bool) -> tuple[int, ...]:
    """The largest group of matching frames, in the order of the sweep."""
    kept = max(chains.groups, key=len)
    lost = [index for group in chains.groups if group is not kept for index in group]
    if not lost or (drop_unaligned and len(kept) > 1):
        return kept
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


def _have_motion(links: Sequence[Link], size: tuple[int, int]) -> bool:
    """Whether any linked frames moved; a change of focus alone can fake a pixel or two."""
    least = _LEAST_MOTION_PX / half_diagonal_px(size)
    return any(
        corner_displacement(motion.matrix) > least and motion.improvement > _LEAST_IMPROVEMENT
        for motion in (link.motion for link in links)
    )


def _locate(
    views: Sequence[_View],
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
    for index in kept:
        if index not in linked:
            motion = refine_motion(
                views[reference].pyramid, views[index].pyramid, model=model, start=poses[index]
            )
            if motion.is_reliable and motion.method != "identity":
                links.append(Link(reference, index, motion, is_far=True))
        advance()
    return _Layout(reference, adjust_poses(poses, links, reference, model), tuple(links))


def _choose_model(views: Sequence[_View], links: list[Link]) -> tuple[list[Link], MotionModel]:
    """Affine motions if they explain clearly more than similarities, in most of a few links."""
    if not _have_motion(links, views[0].size):
        return links, "similarity"

    def improve(link: Link) -> Link:
        pair = views[link.first].pyramid, views[link.second].pyramid
        motion = refine_motion(*pair, model="affine", start=link.motion.matrix)
        return replace(link, motion=replace(motion, method=link.motion.method))

    gained = [
        1 - improve(link).motion.residual / link.motion.residual
        for link in links[:: len(links) // _MODEL_LINKS + 1]
        if link.motion.residual > 0
    ]
    if not gained or np.median(gained) <= _AFFINE_IMPROVEMENT:
        return links, "similarity"
    affine = [improve(link) for link in links]
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


def _fit_gains(views: Sequence[_View], layout: _Layout, mode: AlignMode) -> dict[int, float]:
    """The gain of each frame over the reference; all 1 in auto mode if none is significant.

    Frames with too little to compare, because most of it is clipped, have gain 1.
    """
    reference = views[layout.reference]
    fits = {index: _fit_gain(reference, views[index], pose) for index, pose in layout.poses.items()}
    if mode == "auto" and all(
        abs(np.log(gain)) < max(_LEAST_GAIN, 3 * error) for gain, error in fits.values()
    ):
        return dict.fromkeys(fits, 1.0)
    return {index: gain for index, (gain, _) in fits.items()}


def _fit_gain(first: _View, second: _View, motion: Matrix) -> tuple[float, float]:
    """The gain of a second frame over a first, and its standard error; 1 and 0 if unknown.

    A weighted median over their common area. Both are low-passed, and a place is weighted by its
    light and by the flatness of its surroundings, 1 / (s^2 |laplacian| / light)^2: to first order,
    blur moves light in proportion to the Laplacian. Surroundings of clipped pixels are left out,
    because the light lost there depends on focus.
    """
    size = first.luminance.shape
    pixels = to_pixels(motion, size)
    moved = warp(second.luminance, pixels, size)
    clipped = np.maximum(first.saturated, warp(second.saturated, pixels, size))
    inside = warp(np.ones_like(moved), pixels, size, border=cv2.BORDER_CONSTANT)
    around = np.ones((2 * _LOW_PASS_PX + 1,) * 2, np.uint8)
    use = (inside > 0.99) & (cv2.dilate(clipped, around) < 0.01)
    if use.mean() < _LEAST_AREA:
        return 1.0, 0.0
    share = np.maximum(_low_pass(use.astype(np.float32)), 1e-3)
    low_first, low_second = (
        np.maximum(_low_pass(image * use) / share, 1e-6) for image in (first.luminance, moved)
    )
    light = (low_first + low_second) / 2
    laplacian: Plane = cv2.Laplacian(light, cv2.CV_32F, ksize=3)  # type: ignore[assignment]
    bend: Plane = np.abs(laplacian) * np.float32(_LOW_PASS_PX**2) / light
    weights: Plane = (light / np.square(_FLAT + _low_pass(bend)))[use].astype(np.float32)
    log_ratio: Plane = np.log(low_second / low_first)[use].astype(np.float32)
    value = _weighted_median(log_ratio, weights)
    spread = 1.4826 * _weighted_median(np.abs(log_ratio - value), weights)
    independent = weights.sum() ** 2 / np.square(weights).sum() / (4 * np.pi * _LOW_PASS_PX**2)
    return float(np.exp(value)), float(spread / np.sqrt(max(1.0, independent)))


def _low_pass(image: Plane) -> Plane:
    return cv2.GaussianBlur(image, (0, 0), _LOW_PASS_PX)  # type: ignore[return-value]


def _weighted_median(values: Plane, weights: Plane) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2)])


def _describe(
    index: int, gain: float, frames: FrameSource, views: Sequence[_View], layout: _Layout
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
        gain=gain,
        method="identity" if still else best.method,
        correlation=best.correlation if best.method != "identity" else None,
        residual_before=_residual(first, second, np.eye(3)),
        residual=_residual(first, second, pose),
    )


def _residual(first: _View, second: _View, pose: Matrix) -> float:
    """RMS difference at the middle level, relative to the mean brightness, where both overlap."""
    k = first.pyramid.middle
    middle, other = first.pyramid.levels[k], second.pyramid.levels[k]
    pixels = to_pixels(pose, middle.shape)
    moved = warp(other, pixels, middle.shape)
    shown = warp(second.pyramid.shown[k], pixels, middle.shape, border=cv2.BORDER_CONSTANT)
    inside = (shown > 0.99) & (first.pyramid.shown[k] > 0)
    return float(np.sqrt(np.square(moved - middle)[inside].mean()))
