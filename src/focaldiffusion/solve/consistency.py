"""The re-render check: blurring the result with the same lens must reproduce the frames."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import box_mean, interpolated, smooth_mean
from focaldiffusion.optics import blur_radius_px, linear_to_srgb
from focaldiffusion.psf import PSF, filter_margin
from focaldiffusion.simulation.render import render_all
from focaldiffusion.solve.small_stack import focus_of
from focaldiffusion.solve.sweep import ordered_focus
from focaldiffusion.stack import FocalStack
from focaldiffusion.strips import values_at_once
from focaldiffusion.threads import in_parallel

_CHECK_SIZE = 384  # long side [px]; the check looks for wrong depth, not for wrong detail
_MOST_FRAMES = 16  # rendered again; more of a long stack, evenly spread, show nothing else
_DIRECTION_SIZE = 160  # long side [px] at which the nearer end of an axis is found
_TOLERATED_RMS = 6 / 255  # sRGB; residual of correct depth at silhouettes and in path-traced grain
_SUPPORT_PX = 8  # half window over which evidence supports a pixel, see `smooth_mean`
_ENOUGH_CERTAINTY = 0.01  # sufficient mean certainty in that window: one edge in 100 pixels
_AGREEMENT_PX = 4  # the same, over which agreement counts
# In seven examples and path-traced rooms, pixels of confidence 0.7 and more are off by 0.25 to 0.34
# frames by sharpness, and by 0.03 to 0.09 by the sweep.
_BY_SHARPNESS = 0.5
# Short side [px]. With 90, 45 and 30 px, still_life is off by 2.8, 4 and 5 times the error of 240.
_FULL_SIZE_PX = 100

Window: TypeAlias = tuple[slice, slice]
_WHOLE: Window = (slice(None), slice(None))
_MOST_REACH_PX = 40  # of blur around a window; more of it is flat
_RIM_PX = 2  # in which mixed pixels take their colours from
Found = TypeVar("Found")
Search: TypeAlias = Generator["list[Trial]", "list[Tensor]", Found]
"""A search that is given the squared residual (h, w) of each trial that it yields."""


def rerender_residual(
    stack: FocalStack,
    evidence: Evidence,
    coordinate: Tensor,
    blur_scale: float,
    psf: PSF,
    *,
    step_growth: float = 0.0,
) -> Tensor:
    """Root mean square difference between the frames and their re-rendering.

    Off the dioptre axis nothing tells which end of the axis is nearer to the camera, and so hides
    the rest: the end with which a smaller rendering is closer to the frames.

    Args:
        stack: the frames.
        evidence: source of the all-in-focus image to blur.
        coordinate: (H, W), the completed surface, on the axis of the stack.
        blur_scale: blur diameter [px] per unit of the axis, at the size of the stack.
        psf: the shape of the blur.
        step_growth: see `ordered_focus`; used only if just the frame order is known.

    Returns:
        (H, W) in sRGB units, over frames and channels.
    """
    focus = focus_of(stack, step_growth)
    if stack.axis != "inverse_depth_dpt":
        rising, falling = _modelled_ways(stack, coordinate, step_growth)
        ratio = direction(stack, evidence, rising, falling, blur_scale, psf)
        coordinate, focus = rising if ratio <= 1 else falling
    rerendering = Rerendering(stack, evidence, focus, blur_scale, psf, _CHECK_SIZE)
    residual = box_mean(rerendering.squared_residual(rerendering.shrunk(coordinate)), 1).sqrt()
    return functional.interpolate(
        residual[None, None], size=stack.size, mode="bilinear", align_corners=False
    )[0, 0]


def reversal(
    stack: FocalStack, evidence: Evidence, inverse_depth_dpt: Tensor, blur_scale: float, psf: PSF
) -> float:
    """Squared residual of re-rendering, over that with the far end of the sweep as the near one.

    Blur alone does not tell the two apart if the steps of focus are even; what hides what at
    silhouettes does. Above 1, the frames look reversed.

    Args:
        stack: the frames, with focus distances.
        evidence: see `rerender_residual`.
        inverse_depth_dpt: (H, W), the completed depth.
        blur_scale: see `rerender_residual`.
        psf: the shape of the blur.
    """
    ways = _both_ways(inverse_depth_dpt, stack.focus_coordinates)
    return direction(stack, evidence, *ways, blur_scale, psf)


Surface = tuple[Tensor, Tensor]
"""Coordinate of each pixel (H, W) and focus of each frame (N,), the larger ones nearer."""


def _both_ways(coordinate: Tensor, focus: Tensor) -> tuple[Surface, Surface]:
    """The axis from zero up with its last end as the nearer one, and with its first end."""
    first, last = torch.cat([coordinate.flatten(), focus]).aminmax()
    return (coordinate - first, focus - first), (last - coordinate, last - focus)


def _modelled_ways(
    stack: FocalStack, coordinate: Tensor, step_growth: float
) -> tuple[Surface, Surface]:
    """`_both_ways` of a stack without focus distances, even in blur."""
    if stack.axis == "order":
        ends = ordered_focus(stack.sweep_length, step_growth).to(coordinate)
        coordinate = interpolated(coordinate, torch.linspace(0, 1, len(ends)).to(ends), ends)
    return _both_ways(coordinate, focus_of(stack, step_growth))


def direction(
    stack: FocalStack,
    evidence: Evidence,
    one: Surface,
    other: Surface,
    blur_scale: float,
    psf: PSF,
) -> float:
    """Squared residual of re-rendering one surface, over that of another.

    Args:
        stack: the frames.
        evidence: see `rerender_residual`.
        one: with one end of the sweep as the nearer.
        other: with the other end.
        blur_scale: see `rerender_residual`.
        psf: the shape of the blur.
    """

    def trial(coordinate: Tensor, focus: Tensor) -> Trial:
        rerendering = Rerendering(stack, evidence, focus, blur_scale, psf, _DIRECTION_SIZE)
        return Trial(rerendering, rerendering.shrunk(coordinate))

    mine, others = squared_residuals([trial(*one), trial(*other)])
    return float(mine.mean()) / max(float(others.mean()), 1e-12)


class Rerendering:
    """The frames at a smaller size, and the residual of any surface that is to explain them."""

    def __init__(
        self,
        stack: FocalStack,
        evidence: Evidence,
        focus: Tensor,
        blur_scale: float,
        psf: PSF,
        long_side_px: int,
    ) -> None:
        """Shrink the frames and the image.

        Args:
            stack: the frames; some of a long stack stand for all.
            evidence: source of the all-in-focus image to blur.
            focus: (N,) of the frames, on an axis that is larger where it is nearer.
            blur_scale: see `rerender_residual`.
            psf: the shape of the blur.
            long_side_px: longer side of the smaller size, unless the stack is smaller.
        """
        if len(stack) > _MOST_FRAMES:
            few = torch.linspace(0, len(stack) - 1, _MOST_FRAMES).round().long().tolist()
            stack, focus = stack.of_frames(few), focus[few]
        height, width = stack.size
        scale = min(1.0, long_side_px / max(height, width))
        self.size = (max(1, round(height * scale)), max(1, round(width * scale)))
        self.focus, self.blur_scale, self.psf = focus, blur_scale * scale, psf

        def shrink(planes: Tensor) -> Tensor:
            return functional.interpolate(planes, size=self.size, mode="area")

        self._image = shrink(evidence.all_in_focus[None])[0]
        self._frames = linear_to_srgb(shrink(stack.images).clamp(0, 1))
        # Evening out exposures leaves clipped pixels too dark.
        seen = stack.shown if stack.gains is None else stack.usable
        self._share = None if seen is None else shrink(seen[:, None].to(self._image))

    def shrunk(self, surface: Tensor) -> Tensor:
        """A surface (H, W) at the smaller size."""
        # Depth is not averaged: nothing lies between a near and a far surface.
        planes = surface[None, None]
        return functional.interpolate(planes, size=self.size, mode="nearest-exact")[0, 0]

    def squared_residual(self, surface: Tensor, window: Window = _WHOLE) -> Tensor:
        """Mean square (h, w) over frames of rendered minus captured in a window, sRGB.

        Args:
            surface: (h, w) at the smaller size, on the axis of the focus.
            window: rows and columns.
        """
        return squared_residuals([Trial(self, surface, window)])[0]

    def margin_px(self, ends: Tensor) -> int:
        """Margin [px] around a window beyond which surfaces between two ends (2,) do not show."""
        radii_px = blur_radius_px(ends[:, None], self.focus.to(ends), self.blur_scale)
        reach_px = self.psf.support * float(radii_px.abs().max())
        return filter_margin(min(reach_px, _MOST_REACH_PX)) + _RIM_PX

    def scene(self, surface: Tensor, window: Window, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Image, surface and focus of a window; the last focus is repeated up to a count."""
        y, x = window
        focus = self.focus.to(self._image)
        focus = torch.cat([focus, focus[-1:].expand(count - len(focus))])
        return self._image[:, y, x], surface[y, x].to(self._image), focus

    def compared(self, rendered: Tensor, window: Window) -> Tensor:
        """See `squared_residual`, for rendered frames (N or more, 3, h, w) of a window."""
        y, x = window
        rendered = rendered[: len(self._frames)]
        difference = linear_to_srgb(rendered.clamp(0, 1)) - self._frames[..., y, x]
        if self._share is None:
            return difference.square().mean(dim=(0, 1))
        share = self._share[..., y, x]
        return (difference.square() * share).mean(1).sum(0) / share[:, 0].sum(0).clamp_min(1)


@dataclass(frozen=True, eq=False)
class Trial:
    """A surface (h, w) that is to explain the frames in a window, see `squared_residual`."""

    rerendering: Rerendering
    surface: Tensor
    window: Window = _WHOLE


def squared_residuals(trials: Sequence[Trial]) -> list[Tensor]:
    """`Rerendering.squared_residual` of several trials, rendered together where they are small."""
    if not trials:
        return []
    groups = list(_alike([_size(one) for one in trials], values_at_once(trials[0].surface.device)))
    rendered = in_parallel(
        lambda group: _rendered_together([trials[index] for index in group]), groups
    )
    found = {
        index: one
        for group, residuals in zip(groups, rendered, strict=True)
        for index, one in zip(group, residuals, strict=True)
    }
    return [found[index] for index in range(len(trials))]


def _size(trial: Trial) -> tuple[int, int]:
    """(height, width) of the window of a trial."""
    height, width = (
        len(range(*span.indices(side)))
        for span, side in zip(trial.window, trial.rerendering.size, strict=True)
    )
    return height, width


def _alike(sizes: Sequence[tuple[int, int]], most_px: int) -> Iterator[list[int]]:
    """Groups of windows, by index, that have about one size and not too many pixels."""
    groups = [sorted(range(len(sizes)), key=lambda index: math.prod(sizes[index]))]
    while groups:
        group = groups.pop()
        height, width = (max(sizes[index][axis] for index in group) for axis in (0, 1))
        all_px, own_px = len(group) * height * width, sum(math.prod(sizes[i]) for i in group)
        if len(group) > 1 and (all_px > most_px // 4 or all_px - own_px > most_px // 16):
            half = len(group) // 2  # smaller windows apart from larger ones
            groups += [group[half:], group[:half]]
        else:
            yield group


def _rendered_together(trials: Sequence[Trial]) -> list[Tensor]:
    """`squared_residuals` in one rendering of windows that are enlarged to one size."""
    height, width = (max(_size(one)[axis] for one in trials) for axis in (0, 1))
    windows = [_widened(one.window, (height, width), one.rerendering.size) for one in trials]
    count = max(len(one.rerendering.focus) for one in trials)
    scenes = [
        one.rerendering.scene(one.surface, window, count)
        for one, window in zip(trials, windows, strict=True)
    ]
    images, surfaces, focus = (torch.stack(fields) for fields in zip(*scenes, strict=True))
    scales = [one.rerendering.blur_scale for one in trials]
    rendered = render_all(images, surfaces, focus, scales, trials[0].rerendering.psf)
    result = []
    for frames, trial, wide in zip(rendered, trials, windows, strict=True):
        y, x = (
            slice(own.start - first.start, own.stop - first.start) if own.stop else own
            for own, first in zip(trial.window, wide, strict=True)
        )
        result.append(trial.rerendering.compared(frames[..., y, x], trial.window))
    return result


def _widened(window: Window, wanted: tuple[int, int], size: tuple[int, int]) -> Window:
    """A window of the wanted (height, width) around another one, within an image of a size."""

    def widened(span: slice, length: int, side: int) -> slice:
        start, stop, _ = span.indices(side)
        start = max(0, min(start - (length - (stop - start)) // 2, side - length))
        return slice(start, start + length)

    rows, columns = (widened(*one) for one in zip(window, wanted, size, strict=True))
    return rows, columns


def in_step(works: Sequence[Search[Found]]) -> list[Found]:
    """Results of searches, whose trials are rendered together."""
    found: dict[int, Found] = {}
    answers: dict[int, list[Tensor] | None] = dict.fromkeys(range(len(works)))
    while answers:
        asked: dict[int, list[Trial]] = {}
        for index, answer in answers.items():
            try:
                asked[index] = works[index].send(answer)  # type: ignore[arg-type]
            except StopIteration as end:
                found[index] = end.value
        residuals = iter(
            squared_residuals([one for trials in asked.values() for one in trials]) if asked else ()
        )
        answers = {index: [next(residuals) for _ in trials] for index, trials in asked.items()}
    return [found[index] for index in range(len(works))]


def confidence(
    evidence: Evidence, coordinate: Tensor, agreement: Tensor, residual: Tensor | None
) -> Tensor:
    """Trust in the completed depth, (H, W) in [0, 1].

    A product of three factors, so that none makes up for another: the posterior around a pixel is
    narrower than total ignorance, the directions of completion agree on the surface, and
    re-rendering reproduces the frames. A bare wall has no residual at any depth, so a low residual
    never raises confidence. The outermost hypotheses stand for everything beyond them, so their
    confidence is 0, unless they are at infinity. Sharpness alone, without a blur to re-render, is
    worth half, and a small image its share of 100 px.

    Args:
        evidence: the posterior.
        coordinate: (H, W), the surface through it.
        agreement: (H, W), see `Completion`.
        residual: result of `rerender_residual`; None without a blur scale.
    """
    support = -torch.expm1(-smooth_mean(evidence.certainty, _SUPPORT_PX) / _ENOUGH_CERTAINTY)
    trust = support * smooth_mean(agreement, _AGREEMENT_PX)
    trust = trust * min(1.0, min(coordinate.shape) / _FULL_SIZE_PX)
    if residual is None:
        return _BY_SHARPNESS * trust
    if evidence.axis == "inverse_depth_dpt":
        trust = trust * (coordinate < evidence.hypotheses[-2])
        if evidence.hypotheses[0] > 0:
            trust = trust * (coordinate > evidence.hypotheses[1])
    return trust * torch.exp(-((residual / _TOLERATED_RMS) ** 2) / 2)
