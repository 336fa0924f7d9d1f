"""Joins a prior with physics: one more surface, which has to prove itself.

The prior, fitted to sure physics and corrected by it (`prior_fit`), is a proposal. It is refused as
a whole if it predicts sure physics hardly better than the median of the rest does, and re-rendering
does not speak for it either, or speaks against it. Of a prior that is not refused, a region goes
back to physics where that reproduces the frames better.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import block_mean
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.psf import PSF
from focaldiffusion.solve.complete import follow_blocks
from focaldiffusion.solve.consistency import Rerendering
from focaldiffusion.solve.decide import second_fits_better
from focaldiffusion.solve.prior_fit import (
    Fit,
    Regions,
    corrected,
    likely_fits,
    nearer_side,
    predicts,
    steps_on_edges,
)
from focaldiffusion.solve.segments import find_segments
from focaldiffusion.stack import FocalStack

Array = NDArray[Any]

_LONG_SIDE_PX = 512  # about; larger images are solved at a whole fraction of their size
_TRIED_PX = 160  # long side at which fits and proposals are rendered
_RENDERED_PX = 256  # the same, where regions are decided
_DIFFERENT_PX = 1.0  # of blur diameter, from which the frames can tell two surfaces apart
_NOISE = 0.8  # share of the median squared residual that is subtracted
_COARSER = 2  # of fits that are only tried
_BY_RENDERING = 2.0  # power of the residual, next to the votes for a fit
_HELPS = 0.65  # error of predictions, relative to none, up to which a prior is believed ...
_RENDERED_WORSE = 1.1  # ... unless its residual, relative to that of physics, is above this
_RENDERED_BETTER = 0.95  # below, it is believed for that
_SURE = 0.3  # sureness of a pixel that bounds the range of depth ...
_SURE_PIXELS = 50  # ... if there is this number of them
_FARTHEST_SHARE = 0.02  # quantile of the sure ones; the prior is no farther than twice that
_FAINT = 0.02  # sureness at which physics and prior decide alike
_OFFSET = 0.5  # of the span, between zero and the far end of an axis that does not start at zero
_AFFINE_OFFSETS = (0.1, 0.3, 1.0, 3.0)  # of affine depth, relative to its spread


@dataclass(frozen=True, eq=False)
class Joined:
    """A surface to which a prior contributed.

    Attributes:
        coordinate: (H, W), in the unit of the evidence's axis.
        share: (H, W) in [0, 1], to what extent the prior decided; 0 where physics did.
        predicts: error of predicting sure physics by the prior, relative to none; see `predicts`.
        rendered: residual of re-rendering with the prior, relative to physics; None without blur or
            metric depth.
        accepted: whether the prior was believed.
    """

    coordinate: Tensor
    share: Tensor
    predicts: float
    rendered: float | None
    accepted: bool


@dataclass(frozen=True, eq=False)
class _Scene:
    """Physics at the size at which surfaces are joined, larger where nearer and positive.

    Attributes:
        level: (h, w).
        sure: (h, w) in [0, 1].
        guide: (3, h, w) sRGB.
        segments: (h, w).
        near: end of the sweep.
        far: its other end.
        farthest: the least that a joined surface may be.
    """

    level: Array
    sure: Array
    guide: Tensor
    segments: Array
    near: float
    far: float
    farthest: float


@dataclass(frozen=True, eq=False)
class _Proposal:
    """A fitted shape (h, w), and how well the votes and the frames like it."""

    shape: Array
    regions: Regions
    fit: Fit
    sure: Array
    merit: float


class _Rendered:
    """The residual of a surface, relative to that of physics, beyond noise."""

    def __init__(self, rerendering: Rerendering, physics: Tensor) -> None:
        self._rerendering = rerendering
        squared = rerendering.squared_residual(rerendering.shrunk(physics))
        self._noise = _NOISE * float(squared.median())
        self._physics = max(self._excess(squared), 1e-9)

    def _excess(self, squared: Tensor) -> float:
        return float((squared - self._noise).clamp_min(0).sqrt().mean())

    def __call__(self, surface: Array) -> float:
        plane = torch.from_numpy(np.float32(surface)).to(self._rerendering.focus)
        squared = self._rerendering.squared_residual(self._rerendering.shrunk(plane))
        return self._excess(squared) / self._physics


def join(
    stack: FocalStack,
    evidence: Evidence,
    coordinate: Tensor,
    confidence: Tensor,
    prior: Prior,
    blur_scale: float | None,
    psf: PSF,
) -> Joined:
    """The surface of physics, completed by a prior where that proves itself.

    Args:
        stack: the frames.
        evidence: their evidence.
        coordinate: (H, W) surface by physics.
        confidence: (H, W) trust in it.
        prior: at the size of the stack, without gaps.
        blur_scale: see `rerender_residual`; None if unknown.
        psf: the shape of the blur.
    """
    side = max(1, round(max(stack.size) / _LONG_SIDE_PX))
    guide = linear_to_srgb(evidence.all_in_focus.clamp(0, 1))
    small_guide = block_mean(guide, side)
    likelihood = evidence.posterior_at(coordinate) / evidence.posterior.amax(0)
    sure = confidence * evidence.certainty * likelihood
    values = block_mean(torch.stack([coordinate, sure, prior.values.to(guide)]), side)
    level, sure_blocks, given = values.cpu().double().numpy()
    image = np.ascontiguousarray(small_guide.permute(1, 2, 0).cpu().numpy())
    segments = find_segments(image, stack.noise_std / side)
    metric = stack.axis == "inverse_depth_dpt"
    tried = regions_of = None
    if metric and blur_scale is not None:
        frames = stack, evidence, stack.focus_coordinates, blur_scale, psf
        tried = _Rendered(Rerendering(*frames, _TRIED_PX), values[0])
        regions_of = Rerendering(*frames, _RENDERED_PX)
    focus = stack.focus_coordinates
    ends = float(focus.min()), float(focus.max())
    best, unmapped = None, (0.0, 1.0)
    for sign in (1.0,) if metric else (1.0, -1.0):
        scene, mapping = _scene(level, sure_blocks, small_guide, segments, ends, sign, metric)
        for shape in _shapes(given, prior.kind):
            proposal = _proposal(scene, shape, tried)
            if best is None or proposal.merit > best[1].merit:
                best, unmapped = (scene, proposal), mapping
    assert best is not None
    scene, proposal = best
    joined = corrected(
        np.maximum(proposal.fit.applied(proposal.shape), scene.farthest),
        np.maximum(scene.level, scene.farthest),
        proposal.sure,
        scene.guide,
    )
    error = predicts(proposal.regions, proposal.fit, scene.near, scene.far)
    rendered = None if tried is None else tried(joined)
    surface = torch.from_numpy(np.float32((joined - unmapped[0]) / unmapped[1])).to(guide)
    accepted = _believed(error, rendered)
    if not accepted:
        return Joined(coordinate, torch.zeros_like(coordinate), error, rendered, accepted)
    keep = torch.zeros_like(surface, dtype=torch.bool)
    if regions_of is not None and blur_scale is not None:
        parts = torch.from_numpy(segments).to(surface.device)
        different = _DIFFERENT_PX / blur_scale
        keep = second_fits_better(regions_of, surface, values[0], parts, different)
    share = torch.from_numpy(np.float32(_FAINT / (_FAINT + proposal.sure))).to(surface)
    fields = torch.stack([surface, torch.where(keep, 0, share)])
    if side > 1:
        fields = follow_blocks(fields, small_guide, guide, side)
        height, width = stack.size
        keep = keep.repeat_interleave(side, 0).repeat_interleave(side, 1)[:height, :width]
    return Joined(torch.where(keep, coordinate, fields[0]), fields[1], error, rendered, accepted)


def _believed(error: float, rendered: float | None) -> bool:
    if rendered is None:
        return error <= _HELPS
    return rendered <= _RENDERED_WORSE and (error <= _HELPS or rendered <= _RENDERED_BETTER)


def _scene(
    level: Array,
    sure: Array,
    guide: Tensor,
    segments: Array,
    ends: tuple[float, float],
    sign: float,
    metric: bool,
) -> tuple[_Scene, tuple[float, float]]:
    """Physics as a prior sees it, and the shift and scale that lead there."""
    shift = 0.0
    if not metric:  # nothing is at zero, and either end may be the nearer one
        first, last = sorted(sign * end for end in ends)
        shift = _OFFSET * (last - first) - first
    level = sign * level + shift
    far, near = sorted(sign * end + shift for end in ends)
    seen = level[sure > _SURE]
    farthest = 0.5 * far
    if len(seen) > _SURE_PIXELS:
        farthest = max(farthest, 0.5 * float(np.quantile(seen, _FARTHEST_SHARE)))
    farthest = max(farthest, 1e-2 * near)
    return _Scene(level, sure, guide, segments, near, far, farthest), (shift, sign)


def _shapes(values: Array, kind: PriorKind) -> Iterator[Array]:
    """The prior in inverse depth, up to scale and shift: one shape for each unknown offset."""
    if kind is PriorKind.AFFINE_INVERSE_DEPTH:
        yield values
    elif kind is PriorKind.METRIC_DEPTH:
        yield 1 / values
    else:
        low, high = np.quantile(values, (0.01, 0.99))
        spread = max(float(high - low), 1e-9)
        for offset in _AFFINE_OFFSETS:
            yield 1 / (np.maximum(values - low, 0) / spread + offset)


def _proposal(scene: _Scene, shape: Array, rendered: _Rendered | None) -> _Proposal:
    """The fit that votes and frames like best."""
    shape = steps_on_edges(shape, scene.guide)
    sure = scene.sure * nearer_side(shape)
    regions = Regions.of(scene.segments, shape, scene.level, sure)
    fits = likely_fits(regions, shape, scene.near, scene.far)
    merits = [fit.agreed for fit in fits]
    if rendered is not None and len(fits) > 1:
        fields = torch.from_numpy(np.stack([shape, scene.level, sure]))
        few = block_mean(torch.cat([scene.guide.double().cpu(), fields]), _COARSER)
        for index, fit in enumerate(fits):
            tried = corrected(
                np.maximum(fit.applied(few[3].numpy()), scene.farthest),
                np.maximum(few[4].numpy(), scene.farthest),
                few[5].numpy(),
                few[:3].float(),
            )
            merits[index] /= max(rendered(tried), 1e-3) ** _BY_RENDERING
    best = int(np.argmax(merits))
    return _Proposal(shape, regions, fits[best], sure, merits[best])
