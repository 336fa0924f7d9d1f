"""Weights of the frames at each pixel, from the focus at which it is sharpest."""

from __future__ import annotations

import torch
from torch import Tensor

from focaldiffusion.filters import bracket
from focaldiffusion.stack import FocalStack


def frame_weights(coordinate: Tensor, focus: Tensor) -> Tensor:
    """Weight of each frame (N, ...), summing to 1, at pixels that are sharpest at a coordinate.

    Between two focus settings the weights are the normalised cubes of linear interpolation: 1 at a
    frame's own focus, 1/2 half-way to the next. Frames with equal focus, which rounded EXIF
    distances produce, share one weight.

    Args:
        coordinate: sharpest coordinate of each pixel, any shape, on the axis of the stack.
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
