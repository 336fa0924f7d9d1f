"""Clipped pixels: their masks through a gain, and lamps that some frames clip and others do not."""

from __future__ import annotations

import numpy as np
import torch

from focaldiffusion.fusion.fuse import frame_weights
from focaldiffusion.fusion.highlights import spare_highlights
from focaldiffusion.stack import FocalStack

SIZE = (60, 80)


def lamp(radius_px: float) -> torch.Tensor:
    """(3, H, W) linear light: grey, and a clipped disc."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = torch.from_numpy(np.hypot(y - 30, x - 40) <= radius_px)
    return torch.where(disc, 1.0, 0.2).expand(3, *SIZE).float()


def weights_at(place: float, count: int) -> torch.Tensor:
    return frame_weights(torch.full(SIZE, place), torch.linspace(0, 1, count))


def test_pixel_clipped_before_its_gain_was_divided_out_stays_clipped() -> None:
    images = torch.full((3, 3, *SIZE), 0.1)
    images[1, :, :30] = 1 / 8
    gains = torch.tensor([1.0, 8.0, 1.0])[:, None].expand(3, 3)
    stack = FocalStack(images, gains=gains)
    assert stack.unclipped[0].all()
    assert not stack.unclipped[1, :30].any()
    assert stack.unclipped[1, 30:].all()
    spared = spare_highlights(stack, weights_at(0.5, 3))
    assert (spared[1, :30] == 0).all()
    assert (spared[1, 30:] == 1).all()
    torch.testing.assert_close(spared.sum(0), torch.ones(SIZE))


def test_disc_of_a_defocused_lamp_gives_way_to_the_sharp_lamp() -> None:
    images = torch.stack([lamp(radius) for radius in (9, 6, 2, 6, 9)])
    stack = FocalStack(images)
    # Depth beside the lamp chooses a frame whose disc covers it.
    spared = spare_highlights(stack, weights_at(0.25, 5))
    fused = torch.einsum("nhw,nchw->chw", spared, images)
    torch.testing.assert_close(fused, images[2])


def test_lamp_that_far_frames_spread_below_white_is_still_a_lamp() -> None:
    images = torch.stack([lamp(radius) for radius in (0, 8, 2, 8, 0)])
    images[1, :, :28] = 0.2  # about to fade out
    images[0], images[4] = 0.3, 0.3
    spared = spare_highlights(FocalStack(images), weights_at(0.75, 5))
    fused = torch.einsum("nhw,nchw->chw", spared, images)
    torch.testing.assert_close(fused, images[2])


def test_bright_window_keeps_its_sharp_edge() -> None:
    edges = [np.clip((np.arange(SIZE[1]) - 40) / width + 0.5, 0, 1) for width in (1, 6, 12)]
    images = torch.stack([torch.tensor(edge).float().expand(3, *SIZE) for edge in edges])
    weights = weights_at(0.0, 3)
    torch.testing.assert_close(spare_highlights(FocalStack(images), weights), weights)


def test_frames_without_highlights_keep_their_weights() -> None:
    weights = weights_at(0.3, 4)
    assert spare_highlights(FocalStack(torch.full((4, 3, *SIZE), 0.5)), weights) is weights
