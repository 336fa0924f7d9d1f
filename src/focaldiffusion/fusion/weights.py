"""Weights of the frames at each pixel, from where it is sharpest."""

from __future__ import annotations

import torch
from torch import Tensor

from focaldiffusion.filters import bracket
from focaldiffusion.stack import FocalStack


def frame_weights(coordinate: Tensor, focus: Tensor) -> Tensor:
    """Weight of each frame (N, ...) at pixels whose sharpest coordinate is known, summing to 1.

    Between two focus settings the weights fall as the cubes of linear interpolation's: all of a
    frame at its own focus, half of each half-way. Frames of equal focus, which rounded EXIF
    distances make, share.

    Args:
        coordinate: any shape, on the axis of the stack.
        focus: (N,) coordinate at which each frame is focused.
    """
    ordered, member = focus.unique(return_inverse=True)
    before, after, share = bracket(coordinate, ordered)
    near, far = (1 - share) ** 3, share**3
    weights = coordinate.new_zeros((len(ordered), *coordinate.shape))
    weights.scatter_(0, before[None], (near / (near + far))[None])
    weights.scatter_(0, after[None], (far / (near + far))[None])
    sharing = member.bincount().to(weights)[member]
    return weights[member] / sharing.reshape(-1, *[1] * coordinate.ndim)


def blend_sharpest(stack: FocalStack, sharpest: Tensor) -> Tensor:
    """All-in-focus image (3, H, W) at working resolution, linear, from the frames in focus."""
    weights = frame_weights(sharpest, stack.focus_coordinates)
    return torch.einsum("nhw,nchw->chw", weights, stack.images)
