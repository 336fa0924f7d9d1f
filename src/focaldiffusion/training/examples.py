"""Examples: what the network is shown of a batch of stacks, and what it should make of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from focaldiffusion.data.batch import StackBatch
from focaldiffusion.errors import InputError
from focaldiffusion.models.conditioning import Proposal, SurfaceCode, proposal_of
from focaldiffusion.optics import inverse_m, linear_to_srgb
from focaldiffusion.stack import FocalStack


@dataclass(frozen=True, eq=False)
class Truth:
    """What B results of one size are compared with, in the network's units.

    Attributes:
        image: (B, 3, H, W) true all-in-focus image, sRGB in [-1, 1]; the proposal's where unknown.
        has_image: (B,) bool.
        depth_code: (B, 1, H, W) true depth in the code of its stack; the proposal's where invalid.
        valid: (B, 1, H, W) bool, where the depth is true.
        codes: of the surfaces of each stack.
        stacks: the frames of each stack, for the re-render loss; empty where it is not asked for.
        blur_scales_px_m: of each stack, as its estimate knows it.
        sources: where each comes from, for messages.
    """

    image: Tensor
    has_image: Tensor
    depth_code: Tensor
    valid: Tensor
    codes: tuple[SurfaceCode, ...]
    stacks: tuple[FocalStack, ...]
    blur_scales_px_m: tuple[float | None, ...]
    sources: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, eq=False)
class Examples:
    """B proposals of one size and the truth beside them.

    Attributes:
        proposal: the physical estimates, on the CPU or a GPU.
        truth: of them.
    """

    proposal: Proposal
    truth: Truth


def examples_of(
    batch: StackBatch, depth_code: Literal["log", "inverse"], *, with_stacks: bool
) -> Examples:
    """The examples of a batch whose physical estimates are made.

    Args:
        batch: with an estimate for each of its stacks.
        depth_code: `model.depth_code`.
        with_stacks: keep the frames, which only the re-render loss reads.

    Raises:
        InputError: a stack without focus distances, whose depth in metres has no code.
    """
    proposals, images, truths, codes, stacks, scales = [], [], [], [], [], []
    for index in range(len(batch)):
        stack, estimate = batch.stack(index), batch.estimates[index]
        if estimate is None:
            raise ValueError("the batch has no physical estimates: read it with_estimates")
        if stack.axis != "inverse_depth_dpt":
            raise InputError(
                f"{batch.sources[index]}: has no focus distances, so its depth in metres has no "
                "code that the stack alone gives. Add them to the file list or to a stack.json, or "
                "leave the sample out."
            )
        code = SurfaceCode.from_stack(stack, estimate.evidence, estimate.blur_scale, depth_code)
        proposal = proposal_of(
            estimate.evidence, estimate.coordinate, estimate.agreement, estimate.confidence, code
        )
        known = bool(batch.has_all_in_focus[index])
        true_image = 2 * linear_to_srgb(batch.all_in_focus[index].clamp(0, 1)) - 1
        true_code = code.encode(inverse_m(batch.depth_m[index]))
        proposals.append(proposal)
        images.append(true_image if known else proposal.all_in_focus[0])
        truths.append(torch.where(batch.valid[index], true_code, proposal.depth_code[0, 0]))
        codes.append(code)
        stacks.append(stack)
        scales.append(estimate.blur_scale)
    truth = Truth(
        image=torch.stack(images),
        has_image=batch.has_all_in_focus,
        depth_code=torch.stack(truths)[:, None],
        valid=batch.valid[:, None],
        codes=tuple(codes),
        stacks=tuple(stacks) if with_stacks else (),
        blur_scales_px_m=tuple(scales),
        sources=batch.sources,
    )
    return Examples(Proposal.batched(proposals), truth)
