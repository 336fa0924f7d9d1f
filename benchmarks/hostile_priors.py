"""Hostile priors, which know nothing of an image, or the contrary of it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.simulation.priors import true_dpt


def hostile(depth_m: Tensor, valid: Tensor, other_m: Tensor, seed: int) -> dict[str, Prior]:
    """Priors that know nothing of an image, or the contrary of it.

    Args:
        depth_m: (H, W) truth.
        valid: (H, W) bool.
        other_m: depth of another image, of any size.
        seed: of the noise.
    """
    inverse = true_dpt(depth_m, valid)
    height, width = inverse.shape
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    other = cv2.resize(true_dpt(other_m, other_m > 0), (width, height))
    cloudy = sum(
        cv2.resize(draw.normal(size=(knots, knots)), (width, height), interpolation=cv2.INTER_CUBIC)
        for knots in (4, 8, 16, 32)
    )
    values = {
        "constant": np.ones(inverse.shape),
        "slanted plane": 0.5 * x / width - 0.8 * y / height,
        "inverted": -inverse,
        "another image": other,
        "white noise": draw.normal(size=inverse.shape),
        "cloudy noise": cloudy,
    }
    return {
        name: Prior(torch.from_numpy(np.float32(field)), PriorKind.AFFINE_INVERSE_DEPTH, name)
        for name, field in values.items()
    }
