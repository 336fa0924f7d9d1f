"""Joins a prior with physics: one more surface, which has to prove itself.

The prior, fitted to sure physics and corrected by it (`prior_fit`), is a proposal. It is refused as
a whole in four cases: its depth steps do not lie on edges of the image; re-rendering speaks against
it; or, unless re-rendering clearly speaks for it, it has nothing in common with sure physics beyond
what any smooth surface has, or predicts sure physics hardly better than the median of the rest
does. Pixel by pixel, sure physics then outweighs it, and so does physics on which all directions
agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import block_mean
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.psf import PSF
from focaldiffusion.solve.complete import follow_blocks, smooth
from focaldiffusion.solve.consistency import Rerendering
from focaldiffusion.solve.prior_fit import (
    Fit,
    Regions,
    bent,
    beyond_quadric,
    corrected,
    edges_at_steps,
    likely_fits,
    nearer_side,
    predicts,
    steps_on_edges,
)
from focaldiffusion.solve.segments import find_segments
from focaldiffusion.stack import FocalStack

Array = NDArray[Any]

_LONG_SIDE_PX = 512  # about; larger images are solved at a whole fraction of their size
_RENDERED_PX = 160  # long side at which fits and proposals are rendered
_NOISE = 0.8  # share of the median squared residual that is subtracted
_COARSER = 2  # of fits that are only tried
_BY_RENDERING = 2.0  # power of the residual, next to the votes for a fit
# A prior is believed up to an error of predictions, relative to none, and a residual of the frames
# rendered with it, relative to that of physics: the better it predicts, the more residual.
_PREDICTS, _CLEARLY_BETTER = 0.8, 0.92
_BELIEVED = ((0.5, 1.3), (_PREDICTS, 1.1), (1.0, _CLEARLY_BETTER))
_ON_EDGES = 0.02  # least rank of the image's edges at its depth steps, see `edges_at_steps`
_BEYOND_QUADRIC = 0.6  # least correlation, see there, unless the frames are clearly better ...
_FAR_BEYOND = 0.75  # ... and that from which it counts as an error of predictions of `_PREDICTS`
_COVERS_NOTHING = "it covers none of the image"
_MISSES_EDGES = "its depth steps miss the edges of the image"
_TOO_SMOOTH = "it follows sure depth no better than a smooth surface does"
_CONTRADICTED = "the frames contradict it"
_HELPS_ALONE = 0.5  # the same error where nothing can be rendered
_SURE = 0.3  # sureness of a pixel that bounds the range of depth ...
_SURE_PIXELS = 50  # ... if there is this number of them
_FARTHEST_SHARE = 0.02  # quantile of the sure ones; the prior ends at twice that
_LEAST = 0.01  # of the near end: the least that any surface may be
_GAP_SHARE = 1 / 32  # of the long side: half the widest gap to fill between values, as of a lidar
_HAS_VALUES = 1e-6  # share of a pixel that known values cover, up to which there are none
_UNANIMOUS = 16  # power of the agreement of directions: with one of eight against it, 0.1 is left
_SUPPORTED = 0.5  # confidence at which agreement counts half
_FAINT = 0.02  # sureness at which physics and prior decide alike
_OFFSET = 0.5  # of the span, between zero and the far end of an axis that does not start at zero
_AFFINE_OFFSETS = (0.1, 0.3, 1.0, 3.0)  # of affine depth, relative to its spread


@dataclass(frozen=True, eq=False)
class Joined:
    """A surface to which a prior contributed.

    Attributes:
        coordinate: (H, W), in the unit of the evidence's axis.
        share: (H, W) in [0, 1], how far the prior decided; 0 where physics did.
        accepted: whether the prior was believed at all.
        prior: its name and kind; `on_edges`, see `edges_at_steps`; `beyond_quadric`, see there;
            `predicts`, its error of predicting sure physics, relative to none; `rendered`, the
            residual of re-rendering with it, relative to that of physics, None without blur or
            metric depth; `refused`, the reason, None if it was believed. All but the first two are
            None where it covers nothing.
        fitted: (h, w) the prior on that axis by scale and shift alone, whatever was decided about
            it, at the size at which surfaces are joined; NaN where unknown.
    """

    coordinate: Tensor
    share: Tensor
    accepted: bool
    prior: dict[str, Any]
    fitted: Tensor

    def summary(self) -> dict[str, Any]:
        """For the provenance; JSON-serialisable."""
        return {**self.prior, "accepted": self.accepted, "share": float(self.share.mean())}

    def maps(self) -> Tensor:
        """(2, H, W): the fitted prior, the surface where that is unknown, and its share."""
        size = self.coordinate.shape
        fitted = functional.interpolate(self.fitted[None, None], size, mode="bilinear")[0, 0]
        return torch.stack([torch.where(fitted.isnan(), self.coordinate, fitted), self.share])


@dataclass(frozen=True, eq=False)
class _Physics:
    """Physics at the size at which surfaces are joined.

    Attributes:
        side: of the blocks of pixels that are averaged.
        whole_guide: (3, H, W) sRGB.
        guide: (3, h, w) sRGB.
        level: (h, w) coordinate.
        sure: (h, w) in [0, 1].
        agreed: (h, w) in [0, 1], 0 unless all directions of completion found this level.
        segments: (h, w).
    """

    side: int
    whole_guide: Tensor
    guide: Tensor
    level: Array
    sure: Array
    agreed: Array
    segments: Array

    @classmethod
    def of(
        cls,
        stack: FocalStack,
        evidence: Evidence,
        coordinate: Tensor,
        agreement: Tensor,
        confidence: Tensor,
    ) -> _Physics:
        side = max(1, round(max(stack.size) / _LONG_SIDE_PX))
        whole = linear_to_srgb(evidence.all_in_focus.clamp(0, 1))
        guide = block_mean(whole, side)
        likelihood = evidence.posterior_at(coordinate) / evidence.posterior.amax(0)
        # Where confidence is low, physics errs by whole surfaces: it counts twice.
        sure = confidence.square() * evidence.certainty * likelihood
        # Where there is no evidence at all, the directions agree as well.
        agreed = agreement**_UNANIMOUS * confidence / (confidence + _SUPPORTED)
        fields = torch.stack([coordinate, sure, agreed])
        level, sure, agreed = block_mean(fields, side).cpu().double().numpy()
        image = np.ascontiguousarray(guide.permute(1, 2, 0).cpu().numpy())
        segments = find_segments(image, stack.noise_std / side)
        return cls(side, whole, guide, level, sure, agreed, segments)

    def enlarged(
        self, surface: Tensor, share: Tensor, keep: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Fields (h, w) at the size of the stack, following its image."""
        if self.side == 1:
            return surface, share, keep
        fields = torch.stack([surface, share])
        surface, share = follow_blocks(fields, self.guide, self.whole_guide, self.side)
        height, width = surface.shape
        keep = keep.repeat_interleave(self.side, 0).repeat_interleave(self.side, 1)
        return surface, share, keep[:height, :width]


@dataclass(frozen=True, eq=False)
class _Scene:
    """Physics on an axis that is larger where nearer, and positive.

    Attributes:
        level: (h, w).
        sure: (h, w) in [0, 1].
        guide: (3, h, w) sRGB.
        segments: (h, w).
        near: end of the sweep.
        far: its other end.
        farthest: the least that a joined surface may be.
        sign: of the stack's axis in this one.
        shift: added to it.
    """

    level: Array
    sure: Array
    guide: Tensor
    segments: Array
    near: float
    far: float
    farthest: float
    sign: float
    shift: float

    @classmethod
    def of(
        cls, physics: _Physics, focus: Tensor, known: Array, sign: float, metric: bool
    ) -> _Scene:
        far, near = sorted(sign * float(end) for end in focus.aminmax())
        # Off the dioptre axis nothing is at zero.
        shift = 0.0 if metric else _OFFSET * (near - far) - far
        far, near, level = far + shift, near + shift, sign * physics.level + shift
        seen = level[physics.sure > _SURE]
        farthest = max(0.5 * far, _LEAST * near)
        if len(seen) > _SURE_PIXELS:
            farthest = max(farthest, 0.5 * float(np.quantile(seen, _FARTHEST_SHARE)))
        sure, guide = physics.sure * known, physics.guide
        return cls(level, sure, guide, physics.segments, near, far, farthest, sign, shift)

    def coarser(self, side: int) -> _Scene:
        """The same of blocks of pixels, for `corrected` alone."""
        level, sure = _blocks(np.stack([self.level, self.sure]), side)
        return replace(self, level=level, sure=sure)

    def corrected(self, shape: Array, fit: Fit, sure: Array) -> Array:
        """A fitted shape, moved to physics where `sure` says so; see `prior_fit`."""
        fitted, level = (np.maximum(one, self.farthest) for one in (fit.applied(shape), self.level))
        return corrected(bent(fitted, level, sure), level, sure)

    def on_axis(self, level: Array) -> Array:
        """Levels on the axis of the stack."""
        return (level - self.shift) / self.sign


@dataclass(frozen=True, eq=False)
class _Proposal:
    """A shape (h, w), the same with steps on edges, its fit, and how sure physics is beside it."""

    given: Array
    shape: Array
    regions: Regions
    fit: Fit
    sure: Array


class _Rendered:
    """The residual of a surface, relative to that of physics, beyond noise."""

    def __init__(self, rerendering: Rerendering, physics: Array) -> None:
        self._rerendering = rerendering
        squared = self._squared(physics)
        self._noise = _NOISE * float(squared.median())
        self._physics = max(self._excess(squared), 1e-9)

    def _excess(self, squared: Tensor) -> float:
        return float((squared - self._noise).clamp_min(0).sqrt().mean())

    def _squared(self, surface: Array) -> Tensor:
        plane = torch.from_numpy(np.float32(surface)).to(self._rerendering.focus.device)
        return self._rerendering.squared_residual(self._rerendering.shrunk(plane))

    def __call__(self, surface: Array) -> float:
        return self._excess(self._squared(surface)) / self._physics


def join(
    stack: FocalStack,
    evidence: Evidence,
    coordinate: Tensor,
    agreement: Tensor,
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
        agreement: (H, W) agreement of its directions, see `Completion`.
        confidence: (H, W) trust in it.
        prior: of the same view, at any size.
        blur_scale: see `rerender_residual`; None if unknown.
        psf: the shape of the blur.
    """
    physics = _Physics.of(stack, evidence, coordinate, agreement, confidence)
    given, known, measured = _at_size_of(prior, physics.guide)
    of_prior: dict[str, Any] = {
        "name": prior.name,
        "kind": str(prior.kind),
        "on_edges": None,
        "beyond_quadric": None,
        "predicts": None,
        "rendered": None,
        "refused": None,
    }
    if not known.any():  # a crop, or a sparse prior, may leave nothing at this size
        nowhere = torch.full(known.shape, torch.nan).to(coordinate)
        return _refused(coordinate, of_prior, _COVERS_NOTHING, nowhere)
    metric = stack.axis == "inverse_depth_dpt"
    tried = None
    if metric and blur_scale is not None:
        frames = stack, evidence, stack.focus_coordinates, blur_scale, psf
        tried = _Rendered(Rerendering(*frames, _RENDERED_PX), physics.level)
    best: tuple[float, _Scene, _Proposal] | None = None
    for sign in (1.0,) if metric else (1.0, -1.0):
        scene = _Scene.of(physics, stack.focus_coordinates, known, sign, metric)
        for shape in _shapes(given, prior.kind):
            merit, proposal = _proposal(scene, shape, tried)
            if best is None or merit > best[0]:
                best = merit, scene, proposal
    assert best is not None
    _, scene, proposal = best
    level, fitted = scene.level, proposal.fit.applied(proposal.shape)
    level, fitted = (np.maximum(one, scene.farthest) for one in (level, fitted))
    joined = scene.corrected(proposal.shape, proposal.fit, proposal.sure)
    of_prior |= {
        "on_edges": edges_at_steps(proposal.given, measured, scene.guide),
        "beyond_quadric": beyond_quadric(fitted, level, proposal.sure),
        "predicts": predicts(proposal.regions, proposal.fit, scene.near, scene.far),
        "rendered": None if tried is None else tried(joined),
    }
    is_flat = proposal.fit.scale == 0  # nothing of the prior is left
    plain = np.where(known & (not is_flat), scene.on_axis(fitted), np.nan)
    shown = torch.from_numpy(np.float32(plain)).to(coordinate)
    reason = _TOO_SMOOTH if is_flat else why_refused(of_prior)
    if reason is not None:
        return _refused(coordinate, of_prior, reason, shown)
    # Beside outlines, where physics counts little, it is right if nothing contradicts it.
    joined = joined * (level / joined) ** physics.agreed
    surface = torch.from_numpy(np.float32(scene.on_axis(joined))).to(coordinate)
    keep = torch.from_numpy(~known).to(surface.device)
    decided = (1 - physics.agreed) * _FAINT / (_FAINT + proposal.sure)
    share = torch.from_numpy(np.float32(decided)).to(surface)
    surface, share, keep = physics.enlarged(surface, share, keep)
    coordinate = torch.where(keep, coordinate, surface)
    return Joined(coordinate, share.masked_fill(keep, 0), True, of_prior, shown)


def _refused(coordinate: Tensor, of_prior: dict[str, Any], reason: str, fitted: Tensor) -> Joined:
    """Physics (H, W) alone, and the reason."""
    nothing = torch.zeros_like(coordinate)
    return Joined(coordinate, nothing, False, of_prior | {"refused": reason}, fitted)


def why_refused(of_prior: Mapping[str, Any]) -> str | None:
    """The reason to refuse a prior, None to believe it; see `Joined.prior`."""
    if of_prior["on_edges"] is not None and of_prior["on_edges"] < _ON_EDGES:
        return _MISSES_EDGES
    beyond, error, rendered = (of_prior[key] for key in ("beyond_quadric", "predicts", "rendered"))
    speaks_for_it = rendered is not None and rendered <= _CLEARLY_BETTER
    if beyond < _BEYOND_QUADRIC and not speaks_for_it:
        return _TOO_SMOOTH
    if beyond >= _FAR_BEYOND:
        error = min(error, _PREDICTS)
    return None if _believed(error, rendered) else _CONTRADICTED


def _believed(error: float, rendered: float | None) -> bool:
    if rendered is None:
        return error <= _HELPS_ALONE
    return any(error <= most and rendered <= worst for most, worst in _BELIEVED)


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


def _proposal(scene: _Scene, shape: Array, rendered: _Rendered | None) -> tuple[float, _Proposal]:
    """The fit that votes and frames like best."""
    given, shape = shape, steps_on_edges(shape, scene.guide)
    sure = scene.sure * nearer_side(shape)
    regions = Regions.of(scene.segments, shape, scene.level, sure)
    fits = likely_fits(regions, shape, scene.near, scene.far)
    merits = [fit.agreed for fit in fits]
    if rendered is not None and len(fits) > 1:
        coarse, few = scene.coarser(_COARSER), _blocks(np.stack([shape, sure]), _COARSER)
        for index, fit in enumerate(fits):
            residual = rendered(coarse.corrected(few[0], fit, few[1]))
            merits[index] /= max(residual, 1e-3) ** _BY_RENDERING
    best = int(np.argmax(merits))
    return merits[best], _Proposal(given, shape, regions, fits[best], sure)


def _blocks(fields: Array, side: int) -> Array:
    """(C, h, w) means over blocks of pixels, see `block_mean`."""
    return block_mean(torch.from_numpy(fields), side).numpy()


def _at_size_of(prior: Prior, guide: Tensor) -> tuple[Array, Array, Array]:
    """The prior at the size of a guide (3, h, w) sRGB, whose edges its narrow gaps follow.

    Returns:
        (h, w) without gaps; bool (h, w), where it is known, narrow gaps included; the same without.
    """
    values = prior.values.cpu().double().numpy()
    size = guide.shape[:0:-1]
    given = np.isfinite(values)
    share = cv2.resize(np.float64(given), size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(np.where(given, values, 0), size, interpolation=cv2.INTER_AREA)
    found = share > _HAS_VALUES
    mean = total / np.where(found, share, 1)
    _, nearest = cv2.distanceTransformWithLabels(
        (~found).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    value_of = np.zeros(nearest.max() + 1)
    value_of[nearest[found]] = mean[found]
    filled = value_of[nearest]
    side = 2 * round(max(size) * _GAP_SHARE) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    known = cv2.morphologyEx(found.astype(np.uint8), cv2.MORPH_CLOSE, disc) > 0
    if (known > found).any():
        rough, certain = (torch.from_numpy(np.float32(one))[None] for one in (filled, found))
        filled = np.where(found, filled, smooth(rough, certain, guide.cpu()[None])[0].numpy())
    return filled, known, found
