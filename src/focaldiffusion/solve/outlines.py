"""Depth that ends where objects end: the owners of outlines, checked by re-rendering."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import block_mean
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.solve.complete import Completion, complete_all, follow_blocks
from focaldiffusion.solve.consistency import Rerendering, Search, in_step
from focaldiffusion.solve.decide import better_levels, second_fits_better
from focaldiffusion.solve.owners import owned_surface
from focaldiffusion.stack import FocalStack

_LONG_SIDE_PX = 512  # about; larger images are solved at a whole fraction of their size
_RENDERED_PX = 256  # long side
_DIFFERENT_PX = 1.0  # of blur diameter, from which the frames can tell two surfaces apart
_APART_PX = 2.0  # the same, from which two proposals contradict each other
_CONTRADICTED = 0.3  # share of its agreement that a contradicted surface keeps


def with_outlines(
    stack: FocalStack, evidence: Evidence, completion: Completion, blur_scale: float, psf: PSF
) -> Completion:
    """A completion whose outlines belong to the nearer of their two sides.

    The completion and `owned_surface` propose whole surfaces. The latter is taken, unless the
    completion reproduces the frames better, region by region. Then single segments try the levels
    that their outlines show.

    Args:
        stack: the frames.
        evidence: on an axis that is larger where it is nearer.
        completion: a surface through the evidence.
        blur_scale: see `rerender_residual`.
        psf: the shape of the blur.
    """
    return in_step([search_outlines(stack, evidence, completion, blur_scale, psf)])[0]


def completed(
    stacks: Sequence[FocalStack],
    evidence: Sequence[Evidence],
    blur_scales: Sequence[float | None],
    psf: PSF,
    meter: Meter | None = None,
) -> tuple[list[Completion], list[Completion]]:
    """Completions of stacks of one size, and the same with outlines where depth is metric."""
    metric = [stack.axis == "inverse_depth_dpt" for stack in stacks]
    backgrounds = [
        float(stack.focus_coordinates.min()) if falls_with_distance else None
        for stack, falls_with_distance in zip(stacks, metric, strict=True)
    ]
    matched = complete_all(evidence, meter, backgrounds=backgrounds)
    searches = {
        index: search_outlines(stacks[index], evidence[index], matched[index], scale, psf)
        for index, scale in enumerate(blur_scales)
        if metric[index] and scale is not None
    }
    outlined = dict(zip(searches, in_step(list(searches.values())), strict=True))
    return matched, [outlined.get(index, one) for index, one in enumerate(matched)]


def search_outlines(
    stack: FocalStack, evidence: Evidence, completion: Completion, blur_scale: float, psf: PSF
) -> Search[Completion]:
    """See `with_outlines`."""
    side = max(1, round(max(stack.size) / _LONG_SIDE_PX))
    guide = linear_to_srgb(evidence.all_in_focus.clamp(0, 1))
    small_guide = block_mean(guide, side)
    given = block_mean(completion.coordinate[None], side)[0]
    owned = owned_surface(
        evidence.hypotheses,
        evidence.doubt_of_blocks(side),
        small_guide,
        given,
        completion.planes,
        stack.noise_std / side,
    )
    rerendering = Rerendering(
        stack, evidence, stack.focus_coordinates, blur_scale, psf, _RENDERED_PX
    )
    different = _DIFFERENT_PX / blur_scale
    keep = yield from second_fits_better(
        rerendering, owned.surface, given, owned.segments, different
    )
    decided = torch.where(keep, given, owned.surface)
    level = yield from better_levels(rerendering, decided, owned.joined, owned.levels, different)
    keep &= level.isnan()
    small = torch.where(level.isnan(), owned.surface, level)
    (other,) = follow_blocks(small[None], small_guide, guide, side) if side > 1 else small[None]
    height, width = stack.size
    keep, competing = (
        field.repeat_interleave(side, -2).repeat_interleave(side, -1)[..., :height, :width]
        for field in (keep, owned.competing)
    )
    coordinate = torch.where(keep, completion.coordinate, other)
    contradicted = (other - completion.coordinate).abs() * blur_scale > _APART_PX
    agreement = torch.where(contradicted, _CONTRADICTED, 1.0) * completion.agreement
    return Completion(coordinate, agreement, completion.planes, competing)
