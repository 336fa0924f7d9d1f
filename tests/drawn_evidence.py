"""Evidence drawn by hand: sure where a depth is known, given elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from focaldiffusion.evidence import Evidence
from focaldiffusion.optics import srgb_to_linear


def known(
    depth: Tensor, where: Tensor, elsewhere: Tensor, image: Tensor, *, std: float = 0.16
) -> Evidence:
    """Evidence of `depth` (H, W) `where` it is true, (H, W).

    Hypotheses are 0, 1, 2, ...; the log posterior is `elsewhere` (K, H, W) otherwise.

    Args:
        depth: (H, W).
        where: (H, W) bool.
        elsewhere: (K, H, W).
        image: (3, H, W) sRGB.
        std: of the posterior, in hypotheses; by default it names one hypothesis.
    """
    hypotheses = torch.arange(float(len(elsewhere)))
    sure = -((hypotheses[:, None, None] - depth) / std).square() / 2
    return Evidence(
        "inverse_depth_dpt",
        hypotheses,
        torch.where(where, sure, elsewhere).softmax(0),
        srgb_to_linear(image),
        torch.zeros(where.shape),
        torch.zeros_like(where),
    )
