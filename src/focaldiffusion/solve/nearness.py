"""Stacks without metres on an axis that grows towards the camera, as inverse depth does."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import interpolated
from focaldiffusion.psf import PSF
from focaldiffusion.solve.complete import Completion
from focaldiffusion.solve.consistency import direction
from focaldiffusion.solve.small_stack import focus_of
from focaldiffusion.stack import FocalStack

_CLEAR = 0.95  # squared residual over that with the ends swapped, below which an end is the nearer
_BEHIND = 0.3  # of the sweep: distance of infinity from its far end


@dataclass(frozen=True, eq=False)
class Nearness:
    """A stack and its evidence on the other axis, and the way back.

    Attributes:
        stack: with inverse focus distances on the other axis.
        evidence: its hypotheses ascend.
        blur_scale: blur diameter [px] per unit of the other axis, on which the sweep has length 1.
        points: (M,) ascending coordinates on the axis of the stack.
        values: (M,) the same on the other axis, ascending or falling.
    """

    stack: FocalStack
    evidence: Evidence
    blur_scale: float
    points: Tensor
    values: Tensor

    @classmethod
    def of(
        cls,
        stack: FocalStack,
        evidence: Evidence,
        blur_scale: float,
        step_growth: float,
        *,
        is_rising: bool,
    ) -> Nearness:
        """The stack on the other axis.

        Args:
            stack: the frames, without focus distances.
            evidence: theirs.
            blur_scale: see `rerender_residual`.
            step_growth: see `ordered_focus`.
            is_rising: whether larger coordinates are nearer, otherwise smaller ones.
        """
        points, order = stack.focus_coordinates.sort()
        focus = focus_of(stack, step_growth).to(points)[order]
        values = focus if is_rising else focus.max() - focus
        span = values.max() - values.min()
        values = (values - values.min()) / span + _BEHIND
        turned = interpolated(stack.focus_coordinates, points, values)
        hypotheses = interpolated(evidence.hypotheses, points, values)
        return cls(
            replace(
                stack,
                focus_distances_m=1 / turned,
                focus_positions_m=None,
                height_origin_m=None,
                height_sign=None,
                focus_order=None,
            ),
            replace(
                evidence,
                axis="inverse_depth_dpt",
                hypotheses=hypotheses if is_rising else hypotheses.flip(0),
                posterior=evidence.posterior if is_rising else evidence.posterior.flip(0),
                sharpest=interpolated(evidence.sharpest, points, values),
            ),
            blur_scale * float(span),
            points,
            values,
        )

    def back(self, completion: Completion) -> Completion:
        """A completion on the axis of the stack again."""
        values, points = self.values, self.points
        if values[0] > values[-1]:
            values, points = values.flip(0), points.flip(0)
        competing = completion.competing
        if competing is not None:
            competing = interpolated(competing, values, points).sort(0).values
        coordinate = interpolated(completion.coordinate, values, points)
        return replace(completion, coordinate=coordinate, competing=competing)


def clear_way(
    ways: tuple[Nearness, Nearness],
    surface: Tensor,
    completions: tuple[Tensor, Tensor],
    psf: PSF,
) -> int | None:
    """Index of the way that explains the frames clearly better; None if neither does.

    A surface that is the same for both ways may have a bare background where it hides things in one
    of them. So each way is also tried with a surface of its own.

    Args:
        ways: the stack on the two axes.
        surface: (H, W) a surface through the evidence, on the axis of the stack.
        completions: (H, W) the surface completed on each of the other axes.
        psf: the shape of the blur.
    """
    first, second = ways

    def ratio(one: Tensor, other: Tensor) -> float:
        return direction(
            first.stack,
            first.evidence,
            (one, first.stack.focus_coordinates),
            (other, second.stack.focus_coordinates),
            first.blur_scale,
            psf,
        )

    shared = (interpolated(surface, way.points, way.values) for way in ways)
    found = math.sqrt(ratio(*shared) * ratio(*completions))
    if _CLEAR < found < 1 / _CLEAR:
        return None
    return 0 if found < 1 else 1
