"""Evidence of wide windows around each pixel, whether the pixel has texture of its own or not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import HALF_WINDOWS
from focaldiffusion.filters import block_mean, box_mean
from focaldiffusion.solve.posterior import POSTERIOR_STRENGTH
from focaldiffusion.strips import in_strips

_BLOCKS = 64  # along the long side, so that windows do not depend on the resolution


def in_windows(volume: Tensor) -> list[Tensor]:
    """Means of a volume (C, H, W) over the windows around each block of pixels, each (C, h, w)."""
    side_px = _side_px(volume.shape[-2:])
    blocks = in_strips(
        lambda rows: block_mean(volume[:, rows], side_px),
        volume.shape,
        volume.device,
        multiple=side_px,
    )
    return [box_mean(blocks, half_width) for half_width in HALF_WINDOWS]


def wide_evidence(doubts: Sequence[Tensor], hypotheses: Tensor, size: tuple[int, int]) -> Tensor:
    """The maps `Evidence.wide` from the doubt of each window.

    Args:
        doubts: (K, h, w) in [0, 1] for each of V windows, on the grid of `in_windows`.
        hypotheses: (K,).
        size: (H, W) of the image.

    Returns:
        (2 V, H, W).
    """
    posterior = torch.softmax(-POSTERIOR_STRENGTH * torch.stack(list(doubts)), dim=1)
    mean = torch.einsum("k,wkyx->wyx", hypotheses, posterior)
    offset = hypotheses[:, None, None] - mean[:, None]
    std = (posterior * offset.square()).sum(1).sqrt()
    certainty = (1 - std / hypotheses.std(correction=0)).clamp(0, 1)
    maps, side_px = torch.cat([mean, certainty]), _side_px(size)
    whole_blocks = [side_px * count for count in maps.shape[-2:]]
    grown = functional.interpolate(maps[None], whole_blocks, mode="bilinear", align_corners=False)
    return grown[0, :, : size[0], : size[1]].contiguous()


def _side_px(size: Sequence[int]) -> int:
    """Side of a block of an image (height, width)."""
    return max(1, round(max(size) / _BLOCKS))
