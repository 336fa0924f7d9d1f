"""The plane sweep: how well the defocus of each candidate depth explains the frames.

For a plane at hypothesis k, the lens turns one sharp image J into N frames: J blurred by radii
r(s, k). The J that fits the frames best has a closed form in the Fourier domain (a Wiener estimate
from all frames at once), so the sharp image need not be known beforehand:

    J_k = Σ_s H_sk I_s / (Σ_s H_sk² + ε),   cost_k(x) = Σ_s (I_s - H_sk J_k)²(x) / noise²

where H_sk is the transfer function of frame s at hypothesis k.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from focaldiffusion.depth import inverse_depth_bounds_dpt
from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import (
    LUMA_WEIGHTS,
    box_mean,
    interpolated,
    noise_std,
    refine_minimum,
    srgb_luma,
)
from focaldiffusion.optics import blur_radius_px
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF, MirrorGrid
from focaldiffusion.solve.posterior import SHARPEST_AGGREGATION_PX, evidence_from_doubt
from focaldiffusion.stack import FocalStack

_MISFIT_VARIANCE = 10.0  # squared misfit, in noise variances, at which a hypothesis is doubted
_NEIGHBOUR_LEAK = 1.2  # weight of the strongest gradient nearby, whose blur may cover a pixel
_AGGREGATION_PX = 2  # half window over which misfit is averaged
# ε at frequency 0: the inverse signal-to-noise ratio of natural images. A larger value favours
# planes that are sharp in several frames: at 4e-3, depth was off by a tenth of a pixel of blur.
_PRIOR_STRENGTH = 5e-4
_PRIOR_KNEE = 0.02  # frequency [cycles/px] from which the signal falls as 1/f²
_TILE_PX = 1536  # side of a tile; a working image of 1024 is one tile


@dataclass(frozen=True)
class _Luma:
    """Linear luma of a stack, its noise, and a mask of usable pixels, (N, H, W) each.

    The last field, (N,), is the weight of each frame in the sharp image; None if all are equal.
    """

    linear: Tensor
    noise_std: Tensor
    trusted: Tensor
    weight: Tensor | None

    def cropped(self, rows: slice, columns: slice) -> _Luma:
        linear, noise_std, trusted = (
            field[:, rows, columns] for field in (self.linear, self.noise_std, self.trusted)
        )
        return _Luma(linear, noise_std, trusted, self.weight)


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
    # Each (K, H, W) volume is freed as soon as the next exists: they dominate memory.
    with torch.no_grad():
        sharpest = refine_minimum(box_mean(misfit, SHARPEST_AGGREGATION_PX), hypotheses)
    misfit = box_mean(misfit, _AGGREGATION_PX)
    lowest = misfit.amin(0)
    # One sharp image fits N frames up to N - 1 variances of their noise. No plane explains the
    # rest: motion, the true shape of the blur, JPEG coding. Where it is large, small differences
    # between planes are meaningless too (Birge, 1932).
    unexplained = box_mean(lowest / (len(focus) - 1), _AGGREGATION_PX).clamp_min(1)
    misfit = (lowest - misfit) / (_MISFIT_VARIANCE * unexplained)
    doubt = -torch.expm1(misfit)
    del misfit
    reach_px = 0.25 * blur_scale * float(focus.max() - focus.min())
    nearest_px = 0.5 * blur_scale * (sharpest - focus[:, None, None]).abs().amin(0)
    never_sharp = nearest_px > 2
    if stack.axis == "order":  # depth on this axis is reported in units of frames
        even = torch.linspace(0, 1, stack.sweep_length).to(ends)
        hypotheses, sharpest = (interpolated(one, ends, even) for one in (hypotheses, sharpest))
    return evidence_from_doubt(
        stack, hypotheses, doubt, sharpest, never_sharp, reach_px=reach_px, leak=_NEIGHBOUR_LEAK
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
        meter: counts the planes, over all tiles.

    Returns:
        (K, H, W), summed over the frames, not averaged over pixels.
    """
    luma = _luma(stack)
    radii_px = blur_radius_px(hypotheses[:, None], focus, blur_scale).abs()  # (K, N)
    # Blur that reaches farther is flat over a tile, so its exact border does not matter.
    reach_px = math.ceil(min(float(radii_px.max()) * psf.support, 48))
    spans = [_spans(side, _TILE_PX) for side in stack.size]
    meter = meter or Meter()
    meter.expect(len(hypotheses) * len(spans[0]) * len(spans[1]))
    misfit = luma.linear.new_empty((len(hypotheses), *stack.size))
    for top, bottom in spans[0]:
        for left, right in spans[1]:
            # The tile and a margin for the blur around it, clipped to the image.
            y, x = max(top - reach_px, 0), max(left - reach_px, 0)
            part = luma.cropped(slice(y, bottom + reach_px), slice(x, right + reach_px))
            window = (slice(top - y, bottom - y), slice(left - x, right - x))
            for k, plane in enumerate(_tile_misfit(part, radii_px, reach_px, psf)):
                misfit[k, top:bottom, left:right] = plane.sum(0)[window]
                meter.advance()
    return misfit


def frame_misfit(
    stack: FocalStack,
    focus: Tensor,
    hypotheses: Tensor,
    blur_scale: float,
    psf: PSF,
    *,
    aggregation_px: int,
) -> Tensor:
    """Squared misfit of each frame to the plane that explains all frames best at each pixel.

    Args:
        stack: the frames, at most a tile in size.
        focus: see `plane_misfit`.
        hypotheses: see `plane_misfit`.
        blur_scale: see `plane_misfit`.
        psf: see `plane_misfit`.
        aggregation_px: half window over which misfit is averaged.

    Returns:
        (N, H, W), in noise variances.
    """
    radii_px = blur_radius_px(hypotheses[:, None], focus, blur_scale).abs()
    reach_px = math.ceil(min(float(radii_px.max()) * psf.support, 48))
    lowest = chosen = None
    for plane in _tile_misfit(_luma(stack), radii_px, reach_px, psf):
        averaged = box_mean(plane, aggregation_px)
        total = averaged.sum(0)
        if lowest is None or chosen is None:
            lowest, chosen = total, averaged
        else:
            chosen = torch.where(total < lowest, averaged, chosen)
            lowest = torch.minimum(total, lowest)
    assert chosen is not None
    return chosen


def _tile_misfit(
    luma: _Luma,
    radii_px: Tensor,
    reach_px: float,
    psf: PSF,
) -> Iterator[Tensor]:
    """Yield the (N, H, W) misfit of each frame to each plane of (K, N) radii."""
    grid = MirrorGrid((luma.linear.shape[-2], luma.linear.shape[-1]), reach_px)
    spectrum = grid.spectrum(luma.linear)  # (N, P, Q/2+1)
    height, width = grid.grid_size
    options: Any = {"dtype": luma.linear.dtype, "device": luma.linear.device}
    vertical = torch.fft.fftfreq(height, **options)[:, None]
    frequency_squared = vertical**2 + torch.fft.rfftfreq(width, **options) ** 2
    prior = _PRIOR_STRENGTH * (1 + frequency_squared / _PRIOR_KNEE**2)
    weight = luma.trusted / luma.noise_std
    for radii in radii_px:
        transfer = grid.transfer(psf, radii)  # (N, P, Q/2+1)
        # Weighted by 1 / noise²; without a weight, all frames are equally noisy.
        back = transfer if luma.weight is None else transfer * luma.weight[:, None, None]
        sharp = (back * spectrum).sum(0) / ((back * transfer).sum(0) + prior)
        residual = grid.image(spectrum - transfer * sharp) * weight
        yield residual**2


def _luma(stack: FocalStack) -> _Luma:
    images, photographed = stack.images, stack.photographed.detach()
    weights = images.new_tensor(LUMA_WEIGHTS)
    encoded = srgb_luma(photographed)
    # Noise is uniform in sRGB; the encoding's slope converts it to linear light (IEC 61966-2-1).
    slope = (2.4 / 1.055 * ((encoded + 0.055) / 1.055) ** 1.4).clamp_min(1 / 12.92)
    # A clipped highlight is darker than the real light, so no blur of it predicts the frames.
    trusted = stack.usable.to(images)
    linear = torch.einsum("c,nchw->nhw", weights, images)
    if stack.gains is None:
        return _Luma(linear, noise_std(photographed, stack.step) * slope, trusted, None)
    # A mostly clipped frame has no noise to measure.
    share = trusted.mean((1, 2))
    noise = noise_std(photographed[share > share.max() / 2], stack.step) * slope
    noise = noise / (weights @ stack.gains.to(images).T)[:, None, None]
    # Where exposures differ, a pixel clipped in some frames has the light of the others in the
    # sharp image: its own would darken all hypotheses.
    others = (linear * trusted).sum(0) / trusted.sum(0).clamp_min(1)
    linear = torch.where(trusted > 0, linear, torch.maximum(linear, others))
    reliability = share / noise.square().mean((1, 2))
    return _Luma(linear, noise, trusted, reliability / reliability.mean())


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
