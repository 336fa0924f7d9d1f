"""The re-render check: blurring the result with the same lens must reproduce the frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import box_mean
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.psf import PSF
from focaldiffusion.simulation.render import render
from focaldiffusion.solve.complete import Completion
from focaldiffusion.stack import FocalStack

_CHECK_SIZE = 384  # long side [px]; the check looks for wrong depth, not for wrong detail
_TOLERATED_RMS = 6 / 255  # sRGB; residual of correct depth at silhouettes and in path-traced grain
_SUPPORT_PX = 8  # half window over which evidence supports a pixel
_ENOUGH_CERTAINTY = 0.01  # sufficient mean certainty in that window: one edge in 100 pixels
_AGREEMENT_PX = 4  # half window over which agreement counts


def rerender_residual(
    stack: FocalStack,
    evidence: Evidence,
    inverse_depth_dpt: Tensor,
    blur_scale_px_m: float,
    psf: PSF,
) -> Tensor:
    """Root mean square difference between the frames and their re-rendering.

    Args:
        stack: the frames, with focus distances.
        evidence: source of the all-in-focus image to blur.
        inverse_depth_dpt: (H, W), the completed depth.
        blur_scale_px_m: A F at the size of the stack.
        psf: the shape of the blur.

    Returns:
        (H, W) in sRGB units, over frames and channels.
    """
    height, width = stack.size
    scale = min(1.0, _CHECK_SIZE / max(height, width))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))

    def shrink(planes: Tensor) -> Tensor:
        return functional.interpolate(planes, size=size, mode="area")

    rendered = render(
        shrink(evidence.all_in_focus[None])[0],
        # Depth is not averaged: nothing lies between a near and a far surface.
        functional.interpolate(inverse_depth_dpt[None, None], size=size, mode="nearest-exact")[
            0, 0
        ],
        stack.focus_coordinates,
        blur_scale_px_m * scale,
        psf,
    )
    difference = linear_to_srgb(rendered.clamp(0, 1)) - linear_to_srgb(
        shrink(stack.images).clamp(0, 1)
    )
    # Evening out exposures leaves clipped pixels too dark.
    seen = stack.shown if stack.gains is None else stack.usable
    if seen is None:
        squared = difference.square().mean(dim=(0, 1))
    else:
        share = shrink(seen[:, None].to(difference))
        squared = (difference.square() * share).mean(1).sum(0) / share[:, 0].sum(0).clamp_min(1)
    residual = box_mean(squared, 1).sqrt()
    return functional.interpolate(
        residual[None, None], size=(height, width), mode="bilinear", align_corners=False
    )[0, 0]


def confidence(evidence: Evidence, completion: Completion, residual: Tensor | None) -> Tensor:
    """Trust in the completed depth, (H, W) in [0, 1].

    A product of three factors, so that none makes up for another: the posterior around a pixel is
    narrower than total ignorance, the directions of completion agree on the surface, and
    re-rendering reproduces the frames. A bare wall has no residual at any depth, so a low residual
    never raises confidence. The outermost hypotheses stand for everything beyond them, so their
    confidence is 0, unless they are at infinity.

    Args:
        evidence: the posterior.
        completion: the surface through it.
        residual: result of `rerender_residual`; None without a lens or metric depth.
    """
    support = -torch.expm1(-box_mean(evidence.certainty, _SUPPORT_PX) / _ENOUGH_CERTAINTY)
    trust = support * box_mean(completion.agreement, _AGREEMENT_PX)
    if residual is None:
        return trust
    trust = trust * (completion.coordinate < evidence.hypotheses[-2])
    if evidence.hypotheses[0] > 0:
        trust = trust * (completion.coordinate > evidence.hypotheses[1])
    return trust * torch.exp(-((residual / _TOLERATED_RMS) ** 2) / 2)
