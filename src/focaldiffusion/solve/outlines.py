"""Depth that ends where objects end: the owners of outlines, checked by re-rendering."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.psf import PSF
from focaldiffusion.solve.complete import Completion, follow_blocks
from focaldiffusion.solve.decide import second_fits_better
from focaldiffusion.solve.owners import owned_surface
from focaldiffusion.stack import FocalStack

_LONG_SIDE_PX = 512  # about; larger images are solved at a whole fraction of their size
_APART_PX = 2.0  # of blur diameter, from which two proposals contradict each other
_CONTRADICTED = 0.3  # share of its agreement that a contradicted surface keeps


def with_outlines(
    stack: FocalStack, evidence: Evidence, completion: Completion, blur_scale: float, psf: PSF
) -> Completion:
    """A completion whose outlines belong to the nearer of their two sides.

    The completion and `owned_surface` propose whole surfaces. The latter is taken, unless the
    completion reproduces the frames better, region by region.

    Args:
        stack: the frames.
        evidence: on an axis that is larger where it is nearer.
        completion: a surface through the evidence.
        blur_scale: see `rerender_residual`.
        psf: the shape of the blur.
    """
    side = max(1, round(max(stack.size) / _LONG_SIDE_PX))

    def shrunk(fields: Tensor) -> Tensor:
        return functional.avg_pool2d(fields[None], side, ceil_mode=True, count_include_pad=False)[0]

    guide = linear_to_srgb(evidence.all_in_focus.clamp(0, 1))
    small_guide, given = shrunk(guide), shrunk(completion.coordinate[None])[0]
    owned, segments = owned_surface(
        evidence.hypotheses,
        shrunk(evidence.doubt),
        small_guide,
        given,
        completion.planes,
        stack.noise_std / side,
    )
    keep = second_fits_better(stack, evidence, owned, given, segments, blur_scale, psf)
    (owned,) = follow_blocks(owned[None], small_guide, guide, side) if side > 1 else owned[None]
    keep = keep.repeat_interleave(side, 0).repeat_interleave(side, 1)[
        : stack.size[0], : stack.size[1]
    ]
    coordinate = torch.where(keep, completion.coordinate, owned)
    contradicted = (owned - completion.coordinate).abs() * blur_scale > _APART_PX
    agreement = torch.where(contradicted, _CONTRADICTED, 1.0) * completion.agreement
    return Completion(coordinate, agreement, completion.planes)
