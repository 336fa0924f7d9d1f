"""A stack made small, to try many blurs on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.filters import box_mean
from focaldiffusion.optics import blur_radius_px
from focaldiffusion.psf import PSF
from focaldiffusion.solve.plane_fit import (
    LONGEST_REACH_PX,
    Luma,
    PlaneFit,
    between_planes,
    fitted_planes,
    reach_of,
)
from focaldiffusion.solve.sweep import ordered_focus
from focaldiffusion.stack import FocalStack
from focaldiffusion.threads import in_parallel

_LONG_SIDE_PX = 256  # blur shrinks with the frames, so the range of the search is wide
_LEAST_SIDE_PX = 8  # short side of elongated frames: room for the windows that average misfit
_FRAMES = 12
_HYPOTHESES = 28
_MARGIN = 0.15  # of the focused range, tried beyond each of its ends
_AGGREGATION_PX = 3  # half window over which misfit is averaged
# Misfit is interpolated over this much blur diameter: over twice as much, scales change by 2 %.
_INTERPOLATED_PX = 0.36
_REACHES_PX = (6, 12, 24, LONGEST_REACH_PX)  # one grid serves all scales up to its reach
_LEAST_MISFIT = 1e-12  # black or clipped frames have none, at any scale


@dataclass(frozen=True, eq=False)
class SmallStack:
    """Some frames of a stack at a small size, and how well blur explains them.

    Every scale uses the same hypotheses, so that their misfits are comparable.

    Attributes:
        stack: the whole stack.
        frames: (n,) indices of the frames that are used, from one end of the sweep to the other if
            only their order is known.
        images: the frames, without focus settings.
        shrink: size of `images` relative to the stack.
    """

    stack: FocalStack
    frames: Tensor
    images: FocalStack
    shrink: float

    @classmethod
    def of(
        cls,
        stack: FocalStack,
        frames: Sequence[int] | None = None,
        *,
        long_side_px: int = _LONG_SIDE_PX,
    ) -> SmallStack:
        """Shrink a stack.

        Args:
            stack: the frames.
            frames: indices of the frames to use; None for up to 12 along the stack, which are
                enough to measure its blur.
            long_side_px: longer side of the small size, unless the stack is smaller.
        """
        height, width = stack.size
        shrink = min(
            1.0, max(long_side_px / max(height, width), _LEAST_SIDE_PX / min(height, width))
        )
        size = (round(height * shrink), round(width * shrink))
        if frames is None:
            chosen = torch.linspace(0, len(stack) - 1, min(len(stack), _FRAMES)).round().long()
            if stack.axis == "order":
                chosen = stack.places.argsort()[chosen]
        else:
            chosen = torch.tensor(frames)
        shown = None
        if stack.shown is not None:
            share = functional.interpolate(stack.shown[chosen, None].float(), size, mode="area")
            shown = share[:, 0] > 0.5
        images = FocalStack(
            functional.interpolate(stack.images[chosen], size, mode="area"),
            step=stack.step,
            shown=shown,
            gains=None if stack.gains is None else stack.gains[chosen],
        )
        return cls(stack, chosen, images, shrink)

    @property
    def span(self) -> float:
        """Range of the stack's focus, on its axis."""
        focus = self.stack.focus_coordinates
        return float(focus.max() - focus.min())

    def focus(self, step_growth: float = 0.0) -> Tensor:
        """Focus (n,) of the frames, see `focus_of`."""
        return focus_of(self.stack, step_growth)[self.frames]

    def misfit(self, blur_scale: float, psf: PSF, focus: Tensor) -> float:
        """Misfit of the best plane at each pixel, averaged over the image, in noise variances.

        Args:
            blur_scale: blur diameter [px] per unit of the axis, at the small size.
            psf: the shape of the blur.
            focus: (n,) focus of the frames.
        """
        return self.misfits([(blur_scale, focus)], psf)[0]

    def misfits(self, models: Sequence[tuple[float, Tensor]], psf: PSF) -> list[float]:
        """`misfit` of several blur scales, each with the focus of the frames."""
        keys = [(scale, psf, *focus.tolist()) for scale, focus in models]
        new = {
            key: self._prepared(scale, psf, focus)
            for key, (scale, focus) in zip(keys, models, strict=True)
            if key not in self._misfits
        }
        with torch.no_grad():
            # One alone has its planes fitted in parallel.
            several = in_parallel if len(new) > 1 else map
            self._misfits.update(zip(new, several(self._measured, new.values()), strict=True))
        return [self._misfits[key] for key in keys]

    def _prepared(
        self, blur_scale: float, psf: PSF, focus: Tensor
    ) -> tuple[PlaneFit, Tensor, list[int]]:
        """The fit that measures a misfit, radii (K, n) of all planes, and the planes to fit."""
        hypotheses = self._hypotheses()
        fit, radii_px = self._fit(blur_scale, psf, hypotheses, focus)
        places_px = [blur_scale * one for one in hypotheses.tolist()]
        fitted = fitted_planes(places_px, _INTERPOLATED_PX)
        fit.prepare(radii_px[fitted])  # before threads share it
        return fit, radii_px, fitted

    def _measured(self, prepared: tuple[PlaneFit, Tensor, list[int]]) -> float:
        fit, radii_px, fitted = prepared
        planes = torch.cat(
            [box_mean(some, _AGGREGATION_PX) for some in fit.misfits(radii_px[fitted])]
        )
        lowest, row_of = planes.amin(0), {k: row for row, k in enumerate(fitted)}
        for _, around, weights in between_planes(self._hypotheses().tolist(), fitted):
            mixed = torch.zeros_like(lowest)
            for one, weight in zip(around, weights, strict=True):
                mixed.add_(planes[row_of[one]], alpha=weight)
            torch.minimum(lowest, mixed, out=lowest)
        return max(float(lowest.mean()), _LEAST_MISFIT)

    def misfit_of_frames(self, blur_scale: float, psf: PSF, focus: Tensor) -> Tensor:
        """Misfit (n, h, w) of each frame to the best plane at each pixel; see `misfit`.

        A scale of 0 explains all frames by one unblurred image.
        """
        hypotheses = self._hypotheses() if blur_scale > 0 else focus[:1]
        lowest: Tensor | None = None
        chosen: Tensor | None = None
        with torch.no_grad():
            fit, radii_px = self._fit(blur_scale, psf, hypotheses, focus)
            for plane in fit.misfits_of_frames(radii_px):
                averaged = box_mean(plane, _AGGREGATION_PX)
                total = averaged.sum(0)
                if lowest is None or chosen is None:
                    lowest, chosen = total, averaged
                else:
                    chosen = torch.where(total < lowest, averaged, chosen)
                    lowest = torch.minimum(total, lowest)
        assert chosen is not None
        return chosen

    def without(self, position: int) -> SmallStack:
        """The rest after one of the n frames is left out."""
        rest = [index for index in range(len(self.frames)) if index != position]
        images = self.images.without((position,))
        return SmallStack(self.stack, self.frames[rest], images, self.shrink)

    def _fit(
        self, blur_scale: float, psf: PSF, hypotheses: Tensor, focus: Tensor
    ) -> tuple[PlaneFit, Tensor]:
        """Fit of the frames to planes, which similar scales share, and the radii (K, n) there."""
        radii_px = blur_radius_px(hypotheses[:, None], focus, blur_scale).abs()
        reach_px = next(one for one in _REACHES_PX if one >= reach_of(radii_px, psf))
        if (psf, reach_px) not in self._fits:
            self._fits[psf, reach_px] = PlaneFit(self._luma, reach_px, psf)
        return self._fits[psf, reach_px], radii_px

    @cached_property
    def _luma(self) -> Luma:
        return Luma.of(self.images)

    @cached_property
    def _fits(self) -> dict[tuple[PSF, int], PlaneFit]:
        return {}

    @cached_property
    def _misfits(self) -> dict[tuple[object, ...], float]:
        return {}

    def _hypotheses(self) -> Tensor:
        focus = self.stack.focus_coordinates  # all of it, whichever frames are used
        first, span = float(focus.min()), float(focus.max() - focus.min())
        first, last = first - _MARGIN * span, first + (1 + _MARGIN) * span
        return torch.linspace(first, last, _HYPOTHESES).to(focus)


def focus_of(stack: FocalStack, step_growth: float) -> Tensor:
    """Focus (N,) of the frames of a stack as the sweep models it.

    Args:
        stack: the frames.
        step_growth: see `ordered_focus`; used only if just the frame order is known.
    """
    if stack.axis != "order":
        return stack.focus_coordinates
    ends = ordered_focus(stack.sweep_length, step_growth)
    return ends.to(stack.images)[stack.places]
