"""Stacks without metres on an axis that grows towards the camera, as inverse depth does."""

from __future__ import annotations

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
        points: (M,) ascending coordinates on the axis of the stack.
        values: (M,) the same on the other axis, ascending or falling.
    """

    stack: FocalStack
    evidence: Evidence
    points: Tensor
    values: Tensor

    @classmethod
    def of(
        cls,
        stack: FocalStack,
        evidence: Evidence,
        surface: Tensor,
        blur_scale: float,
        psf: PSF,
        step_growth: float,
    ) -> Nearness | None:
        """The stack on the other axis; None if the frames do not show clearly which end is nearer.

        Args:
            stack: the frames, without focus distances.
            evidence: theirs.
            surface: (H, W) a surface through the evidence.
            blur_scale: see `rerender_residual`.
            psf: the shape of the blur.
            step_growth: see `ordered_focus`.
        """
        ratio = direction(stack, evidence, surface, blur_scale, psf, step_growth=step_growth)
        if _CLEAR < ratio < 1 / _CLEAR:
            return None
        points, order = stack.focus_coordinates.sort()
        focus = focus_of(stack, step_growth).to(points)[order]
        values = focus if ratio < 1 else focus.max() - focus
        values = values - values.min() + _BEHIND * (values.max() - values.min())
        turned = interpolated(stack.focus_coordinates, points, values)
        hypotheses = interpolated(evidence.hypotheses, points, values)
        is_rising = bool(values[0] < values[-1])
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
