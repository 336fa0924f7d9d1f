"""Depth that ends where objects end: the owners of outlines, checked by re-rendering."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import block_mean
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.solve.complete import Completion, complete_all, follow_blocks
from focaldiffusion.solve.consistency import Rerendering, Search, in_step
from focaldiffusion.solve.decide import better_levels, second_fits_better
from focaldiffusion.solve.nearness import Nearness, clear_way
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
    step_growths: Sequence[float],
    psf: PSF,
    meter: Meter | None = None,
) -> tuple[list[Completion], list[Completion]]:
    """Completions of stacks of one size, and the same with outlines where near and far are known.

    Without focus distances, re-rendering may show which end of the sweep is nearer; the completion
    on an axis that grows towards the camera is then the one that gets outlines.
    """
    matched = complete_all(evidence, meter, backgrounds=_backgrounds(stacks))
    scenes, given = list(zip(stacks, evidence, strict=True)), list(matched)
    scales = list(blur_scales)
    turned: dict[int, Nearness] = {}
    for index, (scale, growth) in enumerate(zip(blur_scales, step_growths, strict=True)):
        if scale is not None and stacks[index].axis != "inverse_depth_dpt":
            surface = matched[index].coordinate
            clear = _turned(*scenes[index], surface, scale, psf, growth)
            if clear is not None:
                turned[index], given[index] = clear
                scenes[index] = turned[index].stack, turned[index].evidence
                scales[index] = turned[index].blur_scale
    searches = {
        index: search_outlines(*scenes[index], given[index], scale, psf)
        for index, scale in enumerate(scales)
        if scale is not None and scenes[index][0].axis == "inverse_depth_dpt"
    }
    outlined = list(matched)
    for index, found in zip(searches, in_step(list(searches.values())), strict=True):
        outlined[index] = turned[index].back(found) if index in turned else found
    return matched, outlined


def _turned(
    stack: FocalStack,
    evidence: Evidence,
    surface: Tensor,
    blur_scale: float,
    psf: PSF,
    step_growth: float,
) -> tuple[Nearness, Completion] | None:
    """A stack and its completion on the axis whose near end re-rendering shows; None if unclear."""
    rising, falling = (
        Nearness.of(stack, evidence, blur_scale, step_growth, is_rising=is_rising)
        for is_rising in (True, False)
    )
    ways = rising, falling
    one, other = complete_all(
        [way.evidence for way in ways], backgrounds=_backgrounds([way.stack for way in ways])
    )
    index = clear_way(ways, surface, (one.coordinate, other.coordinate), psf)
    return None if index is None else (ways[index], (one, other)[index])


def _backgrounds(stacks: Sequence[FocalStack]) -> list[float | None]:
    """The farthest focus of each stack, where the axis falls with distance."""
    return [
        float(stack.focus_coordinates.min()) if stack.axis == "inverse_depth_dpt" else None
        for stack in stacks
    ]


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
