"""The gate between physics and a network: by confidence in physics, or learnt.

Physics keeps its surface to the extent of its confidence. A learnt gate corrects the logit of that
share by a number that the network predicts for each pixel, its say:

    share of physics = sigmoid(logit(confidence) - say), with a say of 0 before training
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.errors import InputError
from focaldiffusion.models.surface_code import SurfaceCode

Gate = Literal["confidence", "learnt"]

_SUREST = 0.01  # share of the network where physics is certain, before its say
_AT_THE_BOUND = 1 / 16  # code units: a surface this close to a bound counts as on it


def gate_channels(gate: str, factor: int) -> int:
    """Output channels of a network for its gate: a learnt one has all pixels of a latent cell.

    Raises:
        InputError: no such gate.
    """
    if gate not in get_args(Gate):
        raise InputError(f"gate {gate!r} is unknown; expected {', '.join(get_args(Gate))}.")
    return factor**2 if gate == "learnt" else 0


def say_plane(cells: Tensor, factor: int) -> Tensor:
    """The say (B, 1, H, W) of a network's last channels (B, factor², h, w)."""
    return functional.pixel_shuffle(cells.float(), factor)


def share_of_physics(confidence: Tensor, say: Tensor | None) -> Tensor:
    """Share of the surface of physics in the result, in [0, 1].

    Args:
        confidence: in [0, 1], of physics.
        say: of the network, see above; None without a learnt gate.
    """
    return confidence if say is None else torch.sigmoid(torch.logit(confidence, _SUREST) - say)


def gated_coordinate(
    refined: Tensor,
    say: Tensor | None,
    code: SurfaceCode,
    coordinate: Tensor,
    confidence: Tensor,
) -> Tensor:
    """The surface (H, W) of a network's code, blended with physics.

    Codes saturate at their bounds. If physics lies beyond a bound and the network stays on it, keep
    physics.

    Args:
        refined: (H, W) code of the network.
        say: (H, W), predicted with it; None for the gate by confidence.
        code: of the surface.
        coordinate: (H, W) surface of physics.
        confidence: (H, W) in it.
    """
    physical = code.encode(coordinate)
    blended = torch.lerp(refined, physical, share_of_physics(confidence, say))
    beyond = physical.abs() == 1
    stays = (refined - physical).abs() < _AT_THE_BOUND
    trust = torch.where(stays, 1.0, confidence)
    kept = torch.lerp(code.decode(refined), coordinate, trust)
    return torch.where(beyond, kept, code.decode(blended))
