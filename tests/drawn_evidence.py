"""Evidence drawn by hand: sure where a depth is known, given elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from focaldiffusion.evidence import Evidence
from focaldiffusion.optics import srgb_to_linear


def known(depth: Tensor, where: Tensor, elsewhere: Tensor, image: Tensor) -> Evidence:
    """Evidence sure of the hypothesis nearest `depth` `where` it is true, (H, W).

    Hypotheses are 0, 1, 2, ...; the log posterior is `elsewhere` (K, H, W) otherwise. The image is
    (3, H, W) sRGB.
    """
    hypotheses = torch.arange(float(len(elsewhere)))
    sure = -20 * (hypotheses[:, None, None] - depth).square()
    return Evidence(
        "inverse_depth_dpt",
        hypotheses,
        torch.where(where, sure, elsewhere).softmax(0),
        srgb_to_linear(image),
        torch.zeros(where.shape),
        torch.zeros_like(where),
    )
