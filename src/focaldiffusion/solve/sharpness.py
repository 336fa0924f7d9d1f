"""Evidence from sharpness alone, for a stack whose blur is neither known nor measurable."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import box_mean, refine_minimum, srgb_luma
from focaldiffusion.solve.posterior import SHARPEST_AGGREGATION_PX, evidence_from_doubt
from focaldiffusion.solve.windows import in_windows, wide_evidence
from focaldiffusion.stack import FocalStack

# Weight of the strongest gradient nearby. Larger than in the sweep: beside an edge, sharpness peaks
# where its halo ends in the most blurred frame, and here no blur model corrects this.
_HALO_LEAK = 2.4


def sweep_sharpness(stack: FocalStack) -> Evidence:
    """Evidence on the axis of the stack, from the sharpness of each frame.

    Sharpness is the local energy of a frame's Laplacian, interpolated for hypotheses between two
    frames. A flat wall is equally sharp in all frames, up to noise, so its posterior stays flat.
    """
    focus, member = stack.focus_coordinates.unique(return_inverse=True)
    frame_energy = _sharpness(srgb_luma(stack.images))
    # Rounded EXIF distances can give several frames the same focus: take the sharpest.
    energy = torch.stack([frame_energy[member == k].amax(0) for k in range(len(focus))])
    steps = 4 if len(focus) <= 24 else 2
    position = torch.linspace(0, len(focus) - 1, steps * (len(focus) - 1) + 1).to(energy)
    left = position.long().clamp_max(len(focus) - 2)
    share = position - left
    hypotheses = torch.lerp(focus[left], focus[left + 1], share)
    noise = stack.noise_std**2

    def doubt_of(energy: Tensor) -> Tensor:
        doubt_of_frame = 1 - (energy + noise) / (energy.amax(0) + noise)
        return torch.lerp(doubt_of_frame[left], doubt_of_frame[left + 1], share[:, None, None])

    doubt = doubt_of(energy)
    with torch.no_grad():
        doubts_of_windows = [doubt_of(one) for one in in_windows(energy)]
        wide = wide_evidence(doubts_of_windows, hypotheses, stack.size)
        sharpest = refine_minimum(box_mean(doubt, SHARPEST_AGGREGATION_PX), hypotheses)
    never_sharp = torch.zeros_like(sharpest, dtype=torch.bool)
    # The reach of the blur is unknown here; defocus rarely exceeds a fortieth of the image.
    reach_px = max(stack.size) / 40
    return evidence_from_doubt(
        stack,
        hypotheses,
        doubt,
        sharpest,
        never_sharp,
        wide,
        reach_px=reach_px,
        leak=_HALO_LEAK,
    )


def _sharpness(luma: Tensor) -> Tensor:
    """(N, H, W) local energy of the Laplacian, summed over two scales."""
    laplacian = luma.new_tensor([[0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None] / 4
    energy = torch.zeros_like(luma)
    for scale in (1, 2):
        smooth = box_mean(luma, scale - 1) if scale > 1 else luma
        padded = functional.pad(smooth[:, None], (1, 1, 1, 1), mode="replicate")
        response = functional.conv2d(padded, laplacian)[:, 0]
        energy = energy + box_mean(response**2, 2 * scale)
    return energy
