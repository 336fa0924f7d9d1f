"""Hostile priors, which know nothing of an image, or the contrary of it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
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

    def clouds(knots: int) -> NDArray[np.float64]:
        coarse = draw.normal(size=(knots, knots))
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)

    cloudy = sum(clouds(knots) for knots in (4, 8, 16, 32))
    right, down = x / width - 0.5, y / height - 0.5
    values = {
        "constant": np.ones(inverse.shape),
        "slanted plane": 0.5 * right - 0.8 * down,
        "floor": down,
        "bowl": right**2 + down**2,
        "dome": 1 / (1 + 3 * (right**2 + down**2)) ** 2,
        "ramp": np.tanh(8 * (right + down)),
        "inverted": -inverse,
        "another image": other,
        "another image, blurred": cv2.GaussianBlur(other, (0, 0), width / 20),
        "white noise": draw.normal(size=inverse.shape),
        "cloudy noise": cloudy,
        "smooth noise": clouds(4),
    }
    return {
        name: Prior(torch.from_numpy(np.float32(field)), PriorKind.AFFINE_INVERSE_DEPTH, name)
        for name, field in values.items()
    }
