"""Weights of the frames near clipped highlights, whose light only some of the frames hold."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.stack import FocalStack

_GROWTH = 3.0  # area of a defocused lamp's disc over that of the sharp lamp
_LARGEST_LAMP_PX = 40  # area of a sharp lamp; anything larger is a window or a bright surface
_DARK = 0.3  # linear light in the sharp frame, below which a disc covers something else
_STEEPNESS = 0.5  # steepest edge of the frame that shows a lamp sharp, over that of any frame
_REACH_PX = 2  # beside a disc, where enlarged weights and filters reach


def spare_highlights(stack: FocalStack, weights: Tensor) -> Tensor:
    """Take weight from frames that clip what others show.

    - A frame whose exposure was evened out has no light where it was clipped: the unclipped frames
      nearest to the sharpest focus replace it.
    - A lamp out of focus clips a large disc, in focus a small one. Where a frame's disc covers
      what the lamp's own frame shows dark, the lamp's frame replaces it.

    Args:
        stack: the frames.
        weights: (N, H, W), summing to one over N, in the order of the stack.

    Returns:
        The same; `weights` itself if nothing is clipped.
    """
    usable = stack.unclipped
    if bool(usable.all()):
        return weights
    if stack.gains is not None:
        weights = _without_clipped(weights, usable, stack.focus_coordinates)
    return _without_discs(stack, weights, usable)


def _without_clipped(weights: Tensor, usable: Tensor, focus: Tensor) -> Tensor:
    """Weights of usable pixels only, where there are any."""
    left = weights * usable
    lost = (weights * ~usable).sum(0)
    # The focus that the weights choose; other frames count by the cube of their distance from it.
    chosen = torch.einsum("n,nhw->hw", focus, weights)
    distance = (focus[:, None, None] - chosen).abs() / (focus.max() - focus.min())
    others = usable / (distance + 0.01) ** 3
    replaced = left + lost * others / others.sum(0).clamp_min(1e-9)
    return torch.where(usable.any(0), replaced, weights)


def _without_discs(stack: FocalStack, weights: Tensor, usable: Tensor) -> Tensor:
    """Weights where the discs of lamps out of focus are left to the frame that shows them sharp."""
    order = stack.focus_coordinates.argsort(stable=True).tolist()
    clipped = (~usable).cpu().numpy()
    anywhere = np.asarray(clipped.max(axis=0), np.uint8)
    count, label, stats, _ = cv2.connectedComponentsWithStats(anywhere, connectivity=8)
    areas = np.stack([np.bincount(label[one], minlength=count) for one in clipped])  # (N, lamps)
    luma = stack.images.detach().mean(1).cpu().numpy()
    weights = weights.clone()
    for lamp in range(1, count):
        left, top, width, height = stats[lamp, :4]
        window = np.s_[max(top - 2, 0) : top + height + 2, max(left - 2, 0) : left + width + 2]
        around_lamp = np.stack([luma[index][window] for index in order])
        sharp = _sharp_frame(areas[order, lamp], around_lamp)
        if sharp is None:
            continue
        sharp = order[sharp]
        discs = areas[:, lamp] > _GROWTH * areas[sharp, lamp]
        inside = (label[window] == lamp) & (luma[sharp][window] < _DARK)
        for index in np.flatnonzero(discs):
            disc = (inside & clipped[index][window]).astype(np.uint8)
            around = np.ones((2 * _REACH_PX + 1,) * 2, np.uint8)
            covered = torch.from_numpy(cv2.dilate(disc, around) > 0).to(weights.device)
            moved = weights[index][window] * covered
            weights[sharp][window] += moved
            weights[index][window] -= moved
    return weights


def _sharp_frame(areas: NDArray[np.int_], luma: NDArray[np.float32]) -> int | None:
    """The frame, in the order of focus, that shows a lamp sharp; None if it is not a lamp.

    Args:
        areas: (N,) clipped pixels.
        luma: (N, h, w) linear light around the lamp.
    """
    clips = np.flatnonzero(areas)
    inner = clips
    if len(clips) > 2:
        # A disc about to fade out is clipped in part, and small only for that reason.
        ends = {int(i) for i in (clips[0], clips[-1]) if 0 < i < len(areas) - 1}
        inner = np.array([index for index in clips if int(index) not in ends])
    sharp = int(inner[areas[inner].argmin()])
    if areas.max() <= _GROWTH * areas[sharp] or areas[sharp] > _LARGEST_LAMP_PX:
        return None
    steepness = [
        max(float(np.abs(np.diff(one, axis=axis)).max(initial=0)) for axis in (0, 1))
        for one in luma
    ]
    return sharp if steepness[sharp] >= _STEEPNESS * max(steepness) else None
