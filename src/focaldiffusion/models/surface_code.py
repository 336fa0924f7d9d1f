"""SurfaceCode: surfaces as the network's numbers in [-1, 1], and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from focaldiffusion.depth import inverse_depth_bounds_dpt
from focaldiffusion.errors import InputError
from focaldiffusion.evidence import Evidence
from focaldiffusion.stack import FocalStack

Kind = Literal["log", "inverse", "linear"]

_REACH_STD = 2.5
_DOUBT = 0.02  # weight per pixel of a uniform prior over the range
_UNIFORM_VARIANCE = 1 / 3  # of a code anywhere in [-1, 1]
_INFINITELY_FAR_DPT = 1e-12  # stands for 0 and for what rounding puts below it


@dataclass(frozen=True)
class SurfaceCode:
    """A surface on the axis of its evidence to a code in [-1, 1], near to far, and back.

    The code is linear in log z or in the coordinate itself. Its bounds come from the stack, never
    from ground truth, so that inference knows them.

    Attributes:
        kind: log or inverse for coordinates that are inverse depths: even steps of log z or of
            1/z. linear for stage positions and for the order of the frames.
        near: coordinate of code -1, in the unit of the axis.
        far: coordinate of code 1. An inverse depth below `near`; 0, infinity, for `inverse` alone.

    Raises:
        InputError: the kind is unknown.
        ValueError: the bounds do not suit it.
    """

    kind: Kind
    near: float
    far: float

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise InputError(
                f"depth code {self.kind!r} is unknown; expected {', '.join(get_args(Kind))}."
            )
        suits = {
            "log": self.near > self.far > 0,
            "inverse": self.near > self.far >= 0,
            "linear": self.near != self.far,
        }
        if not suits[self.kind]:
            raise ValueError(f"no {self.kind} code from {self.near} (near) to {self.far} (far)")

    @classmethod
    def from_stack(
        cls,
        stack: FocalStack,
        evidence: Evidence,
        blur_scale_px_m: float | None,
        kind: Literal["log", "inverse"] = "log",
    ) -> SurfaceCode:
        """The code of the surfaces of a stack.

        Stage positions are heights, and the highest is near. A sweep in an unknown order begins
        near, as focus bracketing does.

        Args:
            stack: with focus distances, `inverse_depth_bounds_dpt` bounds its surfaces.
            evidence: of the stack. Its hypotheses are the bounds on axes without distances, and
                where the lens is unknown: then only depths between them are distinguished.
            blur_scale_px_m: A F at the size of the stack; None where unknown. Not read on axes
                without distances.
            kind: on the inverse depth axis. Other axes have the linear code.
        """
        hypotheses = evidence.hypotheses
        first, last = float(hypotheses[0]), float(hypotheses[-1])
        if stack.axis == "order":
            return cls("linear", near=first, far=last)
        if stack.axis == "position_m":
            return cls("linear", near=last, far=first)
        if blur_scale_px_m is None:
            return cls(kind, near=last, far=float(hypotheses[hypotheses > 0][0]))
        far, near = inverse_depth_bounds_dpt(stack.focus_coordinates, blur_scale_px_m)
        return cls(kind, near, far)

    def around(self, coordinate: Tensor, trust: Tensor) -> SurfaceCode:
        """The code of the part of the range that a surface takes, weighted by trust.

        The part reaches two and a half standard deviations to either side of the mean, within the
        bounds. Every scene then fills the range of the network, however closely its photographer
        bracketed it. The less is trusted, the more of the range is left.

        Args:
            coordinate: (H, W) of the surface.
            trust: (H, W) in [0, 1].
        """
        # On the CPU, for some devices have no double precision.
        codes, weight = self.encode(coordinate).cpu().double(), trust.cpu().double()
        doubt = _DOUBT * codes.numel()
        total = weight.sum() + doubt
        mean = (weight * codes).sum() / total
        variance = (weight * (codes - mean).square()).sum()
        variance += doubt * (_UNIFORM_VARIANCE + mean.square())
        reach = _REACH_STD * (variance / total).sqrt()
        near, far = self.decode(torch.stack([mean - reach, mean + reach])).tolist()
        return SurfaceCode(self.kind, near, far)

    def encode(self, coordinate: Tensor) -> Tensor:
        """Code of a coordinate; coordinates beyond the bounds take the code of the bound.

        In log z, infinity (0 dpt) takes the code of the far bound and comes back as that bound.
        """
        near, far = self._ends
        if self.kind == "log":
            coordinate = torch.log(1 / coordinate.clamp_min(_INFINITELY_FAR_DPT))
        return (2 * (coordinate - near) / (far - near) - 1).clamp(-1, 1)

    def decode(self, code: Tensor) -> Tensor:
        """Coordinate of a code; codes beyond [-1, 1] take the coordinate of the bound."""
        near, far = self._ends
        steps = near + (code.clamp(-1, 1) + 1) / 2 * (far - near)
        return 1 / torch.exp(steps) if self.kind == "log" else steps

    @property
    def _ends(self) -> tuple[float, float]:
        """Bounds of what the code is linear in: log z, or the coordinate."""
        if self.kind == "log":
            return math.log(1 / self.near), math.log(1 / self.far)
        return self.near, self.far
