"""The re-render check: blurring the result with the same lens must reproduce the frames."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import box_mean, interpolated
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.psf import PSF
from focaldiffusion.simulation.render import render
from focaldiffusion.solve.small_stack import focus_of
from focaldiffusion.solve.sweep import ordered_focus
from focaldiffusion.stack import FocalStack

_CHECK_SIZE = 384  # long side [px]; the check looks for wrong depth, not for wrong detail
_MOST_FRAMES = 16  # rendered again; more of a long stack, evenly spread, show nothing else
_DIRECTION_SIZE = 160  # long side [px] at which the nearer end of an axis is found
_TOLERATED_RMS = 6 / 255  # sRGB; residual of correct depth at silhouettes and in path-traced grain
_SUPPORT_PX = 8  # half window over which evidence supports a pixel
_ENOUGH_CERTAINTY = 0.01  # sufficient mean certainty in that window: one edge in 100 pixels
_AGREEMENT_PX = 4  # half window over which agreement counts
# In seven examples and path-traced rooms, pixels of confidence 0.7 and more are off by 0.25 to 0.34
# frames by sharpness, and by 0.03 to 0.09 by the sweep.
_BY_SHARPNESS = 0.5
# Short side [px]. With 90, 45 and 30 px, still_life is off by 2.8, 4 and 5 times the error of 240.
_FULL_SIZE_PX = 100
_WHOLE = (slice(None), slice(None))


def rerender_residual(
    stack: FocalStack,
    evidence: Evidence,
    coordinate: Tensor,
    blur_scale: float,
    psf: PSF,
    *,
    step_growth: float = 0.0,
) -> Tensor:
    """Root mean square difference between the frames and their re-rendering.

    Off the dioptre axis nothing tells which end of the axis is nearer to the camera, and so hides
    the rest: the end with which a smaller rendering is closer to the frames.

    Args:
        stack: the frames.
        evidence: source of the all-in-focus image to blur.
        coordinate: (H, W), the completed surface, on the axis of the stack.
        blur_scale: blur diameter [px] per unit of the axis, at the size of the stack.
        psf: the shape of the blur.
        step_growth: see `ordered_focus`; used only if just the frame order is known.

    Returns:
        (H, W) in sRGB units, over frames and channels.
    """
    focus = focus_of(stack, step_growth)
    if stack.axis == "order":
        ends = ordered_focus(stack.sweep_length, step_growth).to(coordinate)
        coordinate = interpolated(coordinate, torch.linspace(0, 1, len(ends)).to(ends), ends)
    if stack.axis != "inverse_depth_dpt":
        rising, falling = _both_ways(coordinate, focus)
        ratio = _reversal(stack, evidence, rising, falling, blur_scale, psf)
        coordinate, focus = rising if ratio <= 1 else falling
    rerendering = Rerendering(stack, evidence, focus, blur_scale, psf, _CHECK_SIZE)
    residual = box_mean(rerendering.squared_residual(rerendering.shrunk(coordinate)), 1).sqrt()
    return functional.interpolate(
        residual[None, None], size=stack.size, mode="bilinear", align_corners=False
    )[0, 0]


def reversal(
    stack: FocalStack, evidence: Evidence, inverse_depth_dpt: Tensor, blur_scale: float, psf: PSF
) -> float:
    """Squared residual of re-rendering, over that with the far end of the sweep as the near one.

    Blur alone does not tell the two apart if the steps of focus are even; what hides what at
    silhouettes does. Above 1, the frames look reversed.

    Args:
        stack: the frames, with focus distances.
        evidence: see `rerender_residual`.
        inverse_depth_dpt: (H, W), the completed depth.
        blur_scale: see `rerender_residual`.
        psf: the shape of the blur.
    """
    ways = _both_ways(inverse_depth_dpt, stack.focus_coordinates)
    return _reversal(stack, evidence, *ways, blur_scale, psf)


Surface = tuple[Tensor, Tensor]
"""Coordinate of each pixel (H, W) and focus of each frame (N,), the larger ones nearer."""


def _both_ways(coordinate: Tensor, focus: Tensor) -> tuple[Surface, Surface]:
    """The axis from zero up with its last end as the nearer one, and with its first end."""
    first, last = torch.cat([coordinate.flatten(), focus]).aminmax()
    return (coordinate - first, focus - first), (last - coordinate, last - focus)


def _reversal(
    stack: FocalStack,
    evidence: Evidence,
    rising: Surface,
    falling: Surface,
    blur_scale: float,
    psf: PSF,
) -> float:
    def residual(surface: Surface) -> float:
        coordinate, focus = surface
        rerendering = Rerendering(stack, evidence, focus, blur_scale, psf, _DIRECTION_SIZE)
        return float(rerendering.squared_residual(rerendering.shrunk(coordinate)).mean())

    return residual(rising) / max(residual(falling), 1e-12)


class Rerendering:
    """The frames at a smaller size, and the residual of any surface that is to explain them."""

    def __init__(
        self,
        stack: FocalStack,
        evidence: Evidence,
        focus: Tensor,
        blur_scale: float,
        psf: PSF,
        long_side_px: int,
    ) -> None:
        """Shrink the frames and the image.

        Args:
            stack: the frames; some of a long stack stand for all.
            evidence: source of the all-in-focus image to blur.
            focus: (N,) of the frames, on an axis that is larger where it is nearer.
            blur_scale: see `rerender_residual`.
            psf: the shape of the blur.
            long_side_px: longer side of the smaller size, unless the stack is smaller.
        """
        if len(stack) > _MOST_FRAMES:
            few = torch.linspace(0, len(stack) - 1, _MOST_FRAMES).round().long().tolist()
            stack, focus = stack.of_frames(few), focus[few]
        height, width = stack.size
        scale = min(1.0, long_side_px / max(height, width))
        self.size = (max(1, round(height * scale)), max(1, round(width * scale)))
        self.focus, self.blur_scale, self.psf = focus, blur_scale * scale, psf

        def shrink(planes: Tensor) -> Tensor:
            return functional.interpolate(planes, size=self.size, mode="area")

        self._image = shrink(evidence.all_in_focus[None])[0]
        self._frames = linear_to_srgb(shrink(stack.images).clamp(0, 1))
        # Evening out exposures leaves clipped pixels too dark.
        seen = stack.shown if stack.gains is None else stack.usable
        self._share = None if seen is None else shrink(seen[:, None].to(self._image))

    def shrunk(self, surface: Tensor) -> Tensor:
        """A surface (H, W) at the smaller size."""
        # Depth is not averaged: nothing lies between a near and a far surface.
        planes = surface[None, None]
        return functional.interpolate(planes, size=self.size, mode="nearest-exact")[0, 0]

    def squared_residual(self, surface: Tensor, window: tuple[slice, slice] = _WHOLE) -> Tensor:
        """Mean square (h, w) over frames of rendered minus captured in a window, sRGB.

        Args:
            surface: (h, w) at the smaller size, on the axis of the focus.
            window: rows and columns.
        """
        y, x = window
        rendered = render(
            self._image[:, y, x], surface[y, x], self.focus, self.blur_scale, self.psf
        )
        difference = linear_to_srgb(rendered.clamp(0, 1)) - self._frames[..., y, x]
        if self._share is None:
            return difference.square().mean(dim=(0, 1))
        share = self._share[..., y, x]
        return (difference.square() * share).mean(1).sum(0) / share[:, 0].sum(0).clamp_min(1)


def confidence(
    evidence: Evidence, coordinate: Tensor, agreement: Tensor, residual: Tensor | None
) -> Tensor:
    """Trust in the completed depth, (H, W) in [0, 1].

    A product of three factors, so that none makes up for another: the posterior around a pixel is
    narrower than total ignorance, the directions of completion agree on the surface, and
    re-rendering reproduces the frames. A bare wall has no residual at any depth, so a low residual
    never raises confidence. The outermost hypotheses stand for everything beyond them, so their
    confidence is 0, unless they are at infinity. Sharpness alone, without a blur to re-render, is
    worth half, and a small image its share of 100 px.

    Args:
        evidence: the posterior.
        coordinate: (H, W), the surface through it.
        agreement: (H, W), see `Completion`.
        residual: result of `rerender_residual`; None without a blur scale.
    """
    support = -torch.expm1(-box_mean(evidence.certainty, _SUPPORT_PX) / _ENOUGH_CERTAINTY)
    trust = support * box_mean(agreement, _AGREEMENT_PX)
    trust = trust * min(1.0, min(coordinate.shape) / _FULL_SIZE_PX)
    if residual is None:
        return _BY_SHARPNESS * trust
    if evidence.axis == "inverse_depth_dpt":
        trust = trust * (coordinate < evidence.hypotheses[-2])
        if evidence.hypotheses[0] > 0:
            trust = trust * (coordinate > evidence.hypotheses[1])
    return trust * torch.exp(-((residual / _TOLERATED_RMS) ** 2) / 2)
