"""The plane sweep: how well the defocus of each candidate depth explains the frames.

For a plane at each hypothesis, the lens turns one sharp image into N frames, see `plane_fit`. The
misfit of the frames to it becomes the evidence of depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain, pairwise

import torch
from torch import Tensor

from focaldiffusion.depth import inverse_depth_bounds_dpt
from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import box_mean, interpolated, refine_minimum
from focaldiffusion.optics import blur_radius_px
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.solve.plane_fit import (
    Luma,
    PlaneFit,
    between_planes,
    fitted_planes,
    reach_of,
)
from focaldiffusion.solve.posterior import SHARPEST_AGGREGATION_PX, evidence_from_doubt
from focaldiffusion.solve.windows import in_windows, wide_evidence
from focaldiffusion.stack import FocalStack
from focaldiffusion.strips import in_strips, with_margin

_MISFIT_VARIANCE = 10.0  # squared misfit, in noise variances, at which a hypothesis is doubted
_NEIGHBOUR_LEAK = 1.2  # weight of the strongest gradient nearby, whose blur may cover a pixel
_AGGREGATION_PX = 2  # half window over which misfit is averaged
# Misfit is interpolated over this much blur diameter: there, that of photographs follows a cubic to
# within 1e-4.
_INTERPOLATED_PX = 0.51
_TILE_PX = 1536  # side of a tile; a working image of 1024 is one tile


def depth_hypotheses(focus_dpt: Tensor, blur_scale_px_m: float) -> Tensor:
    """Inverse depths to try: fine steps where frames are focused, coarser where all are blurred.

    Steps are 0.25-1 px of blur diameter between the nearest and farthest focus. Beyond them they
    grow with the blur, because the smallest visible change is a tenth of it.

    Args:
        focus_dpt: (N,) focus of each frame, dioptres.
        blur_scale_px_m: A F, see `Camera.blur_scale_px_m`.

    Returns:
        (K,) dioptres, ascending, between the bounds of `inverse_depth_bounds_dpt`.
    """
    far, near = inverse_depth_bounds_dpt(focus_dpt, blur_scale_px_m)
    first, last = float(focus_dpt.min()), float(focus_dpt.max())
    span_px = (last - first) * blur_scale_px_m
    step_px = _step_px(span_px)

    def outwards(room_px: float) -> Iterator[float]:
        offset = 0.0
        while offset < room_px:
            offset = min(offset + max(step_px, 0.1 * offset), room_px)
            yield offset

    inner = torch.linspace(first, last, max(2, math.ceil(span_px / step_px) + 1)).tolist()
    below = [first - px / blur_scale_px_m for px in outwards((first - far) * blur_scale_px_m)]
    above = [last + px / blur_scale_px_m for px in outwards((near - last) * blur_scale_px_m)]
    values = torch.tensor([*reversed(below), *inner, *above], dtype=torch.float64)
    return values.clamp_min(0).to(focus_dpt).unique()  # rounding may create duplicates


def sweep(
    stack: FocalStack,
    blur_scale: float,
    psf: PSF,
    *,
    step_growth: float = 0.0,
    meter: Meter | None = None,
) -> Evidence:
    """Evidence from defocus: the posterior over planes, given the blur of the lens.

    Args:
        stack: the frames.
        blur_scale: blur diameter [px] per unit of the stack's axis: A F on the inverse depth
            axis; pixels of blur per metre of defocus on the position axis; pixels over the whole
            sweep if only the frame order is known.
        psf: the shape of the blur.
        step_growth: see `ordered_focus`; used only if just the frame order is known.
        meter: counts the hypotheses.

    Returns:
        Evidence on the axis of the stack. Its posterior is differentiable in `stack.images`.
    """
    focus = stack.focus_coordinates
    if stack.axis == "order":
        ends = ordered_focus(stack.sweep_length, step_growth).to(focus)
        focus = ends[stack.places]
    if stack.axis == "inverse_depth_dpt":
        hypotheses = depth_hypotheses(focus, blur_scale)
    else:
        hypotheses = _position_hypotheses(focus, blur_scale)
    misfit = plane_misfit(stack, focus, hypotheses, blur_scale, psf, meter=meter)
    sharpest, doubt = _sharpest(misfit, hypotheses), _doubt(misfit, len(stack))
    doubts_of_windows = [_doubt_of_means(one, len(stack)) for one in in_windows(misfit.detach())]
    del misfit  # volumes dominate memory
    reach_px = 0.25 * blur_scale * float(focus.max() - focus.min())
    nearest_px = 0.5 * blur_scale * (sharpest - focus[:, None, None]).abs().amin(0)
    never_sharp = nearest_px > 2
    if stack.axis == "order":  # depth on this axis is reported in units of frames
        even = torch.linspace(0, 1, stack.sweep_length).to(ends)
        hypotheses, sharpest = (interpolated(one, ends, even) for one in (hypotheses, sharpest))
    return evidence_from_doubt(
        stack,
        hypotheses,
        doubt,
        sharpest,
        never_sharp,
        wide_evidence(doubts_of_windows, hypotheses, stack.size),
        reach_px=reach_px,
        leak=_NEIGHBOUR_LEAK,
    )


def ordered_focus(frame_count: int, step_growth: float) -> Tensor:
    """Focus positions (N,) in [0, 1] assumed when only the frame order is known.

    The steps, measured in blur, grow by a constant factor, which may be 1. This approximates a lens
    that is turned evenly or set to round distances.

    Args:
        frame_count: N.
        step_growth: logarithm of the ratio of the last step to the first.
    """
    steps = torch.linspace(0, step_growth, frame_count - 1, dtype=torch.float64).exp()
    ends = torch.cat([steps.new_zeros(1), steps.cumsum(0)])
    return ends / ends[-1]


def plane_misfit(
    stack: FocalStack,
    focus: Tensor,
    hypotheses: Tensor,
    blur_scale: float,
    psf: PSF,
    *,
    meter: Meter | None = None,
) -> Tensor:
    """Squared misfit of the frames to a plane at each hypothesis, in noise variances.

    Args:
        stack: the frames.
        focus: (N,) focus of each frame, on the axis of `hypotheses`.
        hypotheses: (K,).
        blur_scale: blur diameter [px] per unit of the axis.
        psf: the shape of the blur.
        meter: counts the planes that are fitted, over all tiles.

    Returns:
        (K, H, W), summed over the frames, not averaged over pixels.
    """
    luma = Luma.of(stack)
    radii_px = blur_radius_px(hypotheses[:, None], focus, blur_scale).abs()  # (K, N)
    reach_px = reach_of(radii_px, psf)
    spans = [_spans(side, _TILE_PX) for side in stack.size]
    meter = meter or Meter()
    fitted = fitted_planes((hypotheses * blur_scale).tolist(), _INTERPOLATED_PX)
    meter.expect(len(fitted) * len(spans[0]) * len(spans[1]))
    misfit = luma.linear.new_empty((len(hypotheses), *stack.size))
    for top, bottom in spans[0]:
        for left, right in spans[1]:
            # The tile and a margin for the blur around it, clipped to the image.
            y, x = max(top - reach_px, 0), max(left - reach_px, 0)
            part = luma.cropped(slice(y, bottom + reach_px), slice(x, right + reach_px))
            window = (slice(top - y, bottom - y), slice(left - x, right - x))
            planes = PlaneFit(part, reach_px, psf).misfits(radii_px[fitted])
            for k, plane in zip(fitted, chain.from_iterable(planes), strict=True):
                misfit[k, top:bottom, left:right] = plane[window]
                meter.advance()
    for k, around, weights in between_planes(hypotheses.tolist(), fitted):
        planes_and_weights = zip(misfit[around], weights, strict=True)
        misfit[k] = sum(weight * plane for plane, weight in planes_and_weights).clamp_min(0)
    return misfit


def _sharpest(misfit: Tensor, hypotheses: Tensor) -> Tensor:
    """Hypothesis (H, W) with the lowest misfit (K, H, W) around each pixel."""

    def of(rows: slice) -> Tensor:
        around, inside = with_margin(rows, SHARPEST_AGGREGATION_PX)
        averaged = box_mean(misfit.detach()[:, around], SHARPEST_AGGREGATION_PX)
        return refine_minimum(averaged[:, inside], hypotheses)

    return in_strips(of, misfit.shape, misfit.device, margin=SHARPEST_AGGREGATION_PX)


def _doubt(misfit: Tensor, frame_count: int) -> Tensor:
    """Doubt (K, H, W) in [0, 1] from the misfit above the lowest one."""

    def of(rows: slice) -> Tensor:
        around, inside = with_margin(rows, 2 * _AGGREGATION_PX)
        averaged = box_mean(misfit[:, around], _AGGREGATION_PX)
        return _doubt_of_means(averaged, frame_count, _AGGREGATION_PX, inside)

    return in_strips(of, misfit.shape, misfit.device, margin=2 * _AGGREGATION_PX)


def _doubt_of_means(
    averaged: Tensor, frame_count: int, half_width: int = 0, rows: slice = slice(None)
) -> Tensor:
    """Doubt (K, h, W) in rows of mean misfit (K, H, W)."""
    lowest = averaged.amin(0)
    # One sharp image fits N frames up to N - 1 variances of their noise. No plane explains the
    # rest: motion, the true shape of the blur, JPEG coding. Where it is large, small differences
    # between planes are meaningless too (Birge, 1932).
    unexplained = box_mean(lowest / (frame_count - 1), half_width).clamp_min(1)
    above = (lowest - averaged)[:, rows] / (_MISFIT_VARIANCE * unexplained[rows])
    return -torch.expm1(above)


def _position_hypotheses(focus: Tensor, blur_scale: float) -> Tensor:
    """Stage positions to try, over the focused range; at least two per frame, up to 96."""
    first, last = float(focus.min()), float(focus.max())
    span_px = (last - first) * blur_scale
    count = max(math.ceil(span_px / _step_px(span_px)), min(2 * len(focus), 96)) + 1
    return torch.linspace(first, last, count).to(focus)


def _step_px(span_px: float) -> float:
    """Step in the focused range: 0.25 to 1 px of blur diameter, at least an eightieth of it."""
    return max(min(max(span_px / 40, 0.25), 1.0), span_px / 80)


def _spans(length: int, tile: int) -> list[tuple[int, int]]:
    """Even [start, stop) spans that cover a length, none longer than a tile."""
    count = math.ceil(length / tile)
    edges = [round(length * index / count) for index in range(count + 1)]
    return list(pairwise(edges))
