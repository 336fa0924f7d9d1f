"""The posterior over hypotheses: doubt about each one, weighted by the texture behind it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import box_mean, greatest_nearby, srgb_luma
from focaldiffusion.fusion.fuse import blend_sharpest
from focaldiffusion.stack import FocalStack
from focaldiffusion.strips import in_strips

POSTERIOR_STRENGTH = 36.0
"""Largest log-odds against a hypothesis, from a pixel whose texture is all its own. The bound keeps
model error (occlusion, an imperfect PSF) from counting as certainty. Among equally textured
neighbours, a pixel's share of its texture is 0.4."""

SHARPEST_AGGREGATION_PX = 3
"""Half window over which the sharpest frame is chosen; fusion refines the choice."""

_TEXTURE_TO_NOISE = 1.5  # gradient, in noise deviations, from which texture counts


def evidence_from_doubt(
    stack: FocalStack,
    hypotheses: Tensor,
    doubt: Tensor,
    sharpest: Tensor,
    never_sharp: Tensor,
    wide: Tensor,
    *,
    reach_px: float,
    leak: float,
) -> Evidence:
    """Evidence of a stack from the doubt against each hypothesis.

    Args:
        stack: the frames.
        hypotheses: (K,) on the axis of the stack.
        doubt: (K, H, W) in [0, 1].
        sharpest: (H, W) see `Evidence`.
        never_sharp: (H, W) see `Evidence`.
        wide: (2 V, H, W) see `Evidence`.
        reach_px: see `own_texture_share`.
        leak: see `own_texture_share`.
    """
    all_in_focus = blend_sharpest(stack, sharpest)
    noise = stack.noise_std
    strength = -POSTERIOR_STRENGTH * own_texture_share(all_in_focus, reach_px, leak, noise)
    posterior = in_strips(
        lambda rows: torch.softmax(doubt[:, rows] * strength[rows], dim=0),
        doubt.shape,
        doubt.device,
    )
    return Evidence(stack.axis, hypotheses, posterior, all_in_focus, sharpest, never_sharp, wide)


def own_texture_share(
    all_in_focus: Tensor, reach_px: float, leak: float, noise_std_srgb: float
) -> Tensor:
    """Share (H, W) in [0, 1] of a pixel's gradient that is its own texture, and so shows its depth.

    Beside a silhouette the foreground's blur covers the background, and the foreground's depth
    explains the frames well. A gradient is therefore weighed against noise and the strongest
    gradient within reach of the blur: t / (t + (1.5 noise)² + (leak · max |∇|)²), where t is the
    excess of |∇|² over noise.

    Args:
        all_in_focus: (3, H, W) linear RGB.
        reach_px: reach of the blur.
        leak: weight of the strongest gradient within reach.
        noise_std_srgb: see `noise_std`.
    """
    smooth = box_mean(srgb_luma(all_in_focus[None]), 1)
    padded = functional.pad(smooth[None], (1, 1, 1, 1), mode="replicate")[0, 0]
    gradient_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    gradient_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    squared = gradient_x**2 + gradient_y**2
    reach = min(max(round(reach_px), 3), 32, min(squared.shape) // 2 - 1)
    strongest = greatest_nearby(greatest_nearby(squared, reach, 0), 0, reach)
    noise = noise_std_srgb**2
    # Noise alone gives a squared gradient of about a tenth of its variance, rarely half of it; this
    # much does not count as texture.
    texture = (squared - 0.5 * noise).clamp_min(0)
    return texture / (texture + _TEXTURE_TO_NOISE**2 * noise + leak**2 * strongest)
