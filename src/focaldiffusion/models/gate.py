"""The gate between physics and a network: by confidence in physics, or learnt.

A network with a learnt gate predicts, beside its surface, how far off it may be. Both surfaces are
weighted by precision, 1 / b², with the scale b of a Laplace distribution around each:

    log b of physics   = a - k confidence, fitted to the errors of physics on training stacks
    log b of a network = a + the doubt that it predicts, 0 before training

The untrained network repeats physics, so that no weight changes its result.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.errors import InputError
from focaldiffusion.models.surface_code import SurfaceCode

Gate = Literal["confidence", "learnt"]

_UNSURE_LOG_SCALE = -1.45  # a, of errors in code units
_SURE_STEP = 1.7  # k
_LEAST_SCALE = 1e-3  # half a step of 10 bits
_AT_THE_BOUND = 1 / 16  # code units: a surface this close to a bound counts as on it


def gate_channels(gate: str, factor: int) -> int:
    """Output channels of a network for its gate: a learnt one has all pixels of a latent cell.

    Raises:
        InputError: no such gate.
    """
    if gate not in get_args(Gate):
        raise InputError(f"gate {gate!r} is unknown; expected {', '.join(get_args(Gate))}.")
    return factor**2 if gate == "learnt" else 0


def doubt_plane(cells: Tensor, factor: int) -> Tensor:
    """The doubt (B, 1, H, W) of a network's last channels (B, factor², h, w)."""
    return functional.pixel_shuffle(cells.float(), factor)


def fused(
    physical: Tensor, completed: Tensor, doubt: Tensor, confidence: Tensor
) -> tuple[Tensor, Tensor]:
    """Two surfaces in code units, weighted by precision, and the scale of the result.

    Args:
        physical: (..., H, W) surface of physics.
        completed: that of the network.
        doubt: predicted with it.
        confidence: in [0, 1], of physics.

    Returns:
        The surface, and the scale b > 0 of its errors.
    """
    of_physics = _UNSURE_LOG_SCALE - _SURE_STEP * confidence
    of_network = _UNSURE_LOG_SCALE + doubt
    weight = torch.sigmoid(2 * (of_physics - of_network))
    precision = torch.logaddexp(-2 * of_physics, -2 * of_network)
    scale = torch.exp(-precision / 2).clamp_min(_LEAST_SCALE)
    return torch.lerp(physical, completed, weight), scale


def surprise(error: Tensor, scale: Tensor) -> Tensor:
    """Negative log likelihood of errors, from 0 for none at the least scale."""
    return error.abs() / scale + torch.log(scale / _LEAST_SCALE)


def gated_coordinate(
    refined: Tensor,
    doubt: Tensor | None,
    code: SurfaceCode,
    coordinate: Tensor,
    confidence: Tensor,
) -> Tensor:
    """The surface (H, W) of a network's code, blended with physics.

    Codes saturate at their bounds. If physics lies beyond a bound and the network stays on it, keep
    physics.

    Args:
        refined: (H, W) code of the network.
        doubt: (H, W), predicted with it; None weights the network by 1 - confidence.
        code: of the surface.
        coordinate: (H, W) surface of physics.
        confidence: (H, W) in it.
    """
    physical = code.encode(coordinate)
    if doubt is None:
        blended = torch.lerp(refined, physical, confidence)
    else:
        blended, _ = fused(physical, refined, doubt, confidence)
    beyond = physical.abs() == 1
    stays = (refined - physical).abs() < _AT_THE_BOUND
    trust = torch.where(stays, 1.0, confidence)
    kept = torch.lerp(code.decode(refined), coordinate, trust)
    return torch.where(beyond, kept, code.decode(blended))
