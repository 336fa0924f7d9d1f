"""Calibration from the frames: blur per unit of defocus, and the spacing of focus steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from focaldiffusion.filters import box_mean
from focaldiffusion.progress import Meter
from focaldiffusion.psf import PSF
from focaldiffusion.solve.sweep import ordered_focus, plane_misfit
from focaldiffusion.stack import Axis, FocalStack, Grade

_SEARCH_SIZE = 256  # long side [px] of the search; blur shrinks with it, so the range is wide
_BLUR_RANGE_PX = (0.5, 64.0)  # blur diameter between the outermost frames, at the search's size
_CANDIDATES = 15
_HYPOTHESES = 28
_SEARCH_FRAMES = 12
_LEAST_SIDE_PX = 8  # short side of elongated frames: room for the windows that average misfit
_ORDER_STEPS = 50  # extra evaluations of the order-only search, for the progress total
_FINEST_GROWTH = 0.12  # smallest step of the search over the logarithm of step growth
_LARGEST_GROWTH = 4.0  # bound of that logarithm: the last step is at most 55 times the first
# Measured on 72 simulated and path-traced stacks: in 67 the frames show the blur of their lens to
# within 7 %, in the others up to 1.6 times it, where the scene is nearer than every focus. Noise,
# JPEG, exposure and focus errors change this little. Frames displaced by several pixels look at
# least twice as blurred.
_CONTRADICTION = 2.0
_GRADES: dict[Axis, Grade] = {
    "inverse_depth_dpt": Grade.FOCUS_DISTANCES,
    "position_m": Grade.STAGE_POSITIONS,
    "order": Grade.ORDER,
}
_CLEAR_RISE = 0.01  # relative rise of the misfit at 1.4 times the scale that makes a minimum clear


@dataclass(frozen=True)
class BlurScale:
    """A blur scale found from the frames themselves.

    Attributes:
        value: blur diameter [px] per unit of the stack's axis, at the size of the stack.
        rise: sharpness of the minimum: relative rise of the misfit at 1.4 times the scale or at
            1 / 1.4 of it, whichever is smaller.
        is_clear: whether the minimum is sharp enough to rely on.
        step_growth: see `ordered_focus`; 0 unless only the frame order is known.
    """

    value: float
    rise: float
    is_clear: bool
    step_growth: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """The lens as the sweep models it.

    Attributes:
        grade: knowledge of the camera.
        blur_scale: blur diameter [px] per unit of the stack's axis, or over the whole sweep if
            only the frame order is known; None if depth comes from sharpness.
        measured: blur scale measured from the frames; None if nothing was measured.
        is_measured: whether `blur_scale` was measured, not computed from a known lens.
    """

    grade: Grade
    blur_scale: float | None
    measured: BlurScale | None = None
    is_measured: bool = False

    @property
    def step_growth(self) -> float:
        """See `ordered_focus`."""
        return self.measured.step_growth if self.measured and self.is_measured else 0.0

    @property
    def contradiction(self) -> float | None:
        """Measured blur over that of the known lens; None if they agree within a factor of 2.

        A contradiction casts doubt on the camera, the focus distances or the alignment.
        """
        if self.measured is None or self.is_measured or self.blur_scale is None:
            return None
        ratio = self.measured.value / self.blur_scale
        agrees = 1 / _CONTRADICTION < ratio < _CONTRADICTION
        return ratio if self.measured.is_clear and not agrees else None

    @property
    def findings(self) -> tuple[str, ...]:
        """A sentence about the contradiction; none without one."""
        if self.contradiction is None:
            return ()
        return (
            f"the frames show {self.contradiction:.2g} times the blur predicted from the camera "
            "and the focus distances, so depth in metres may be wrong. Check focal length, "
            "f-number, pixel pitch and focus distances, and that the frames are aligned; "
            "--find-blur (find_blur=True) uses the blur of the frames instead.",
        )

    def __str__(self) -> str:
        return str(self.grade) + ("" if self.blur_scale is not None else ", depth from sharpness")


def calibrate(
    stack: FocalStack,
    psf: PSF,
    *,
    find_blur: bool = False,
    check_lens: bool = True,
    meter: Meter | None = None,
) -> Calibration:
    """Find the blur scale of a stack, or check a known lens against the frames.

    Args:
        stack: the frames.
        psf: the shape of the blur.
        find_blur: measure the blur per dioptre even if the lens is known.
        check_lens: compare a known lens with the frames, at the cost of a search.
        meter: counts the candidates.
    """
    known = None if find_blur else stack.blur_scale_px_m
    if known is not None:
        seen = find_blur_scale(stack, psf, meter=meter) if check_lens else None
        return Calibration(Grade.CALIBRATED, known, seen)
    found = find_blur_scale(stack, psf, meter=meter)
    scale = found.value if found.is_clear else None
    return Calibration(_GRADES[stack.axis], scale, found, is_measured=True)


def find_blur_scale(stack: FocalStack, psf: PSF, *, meter: Meter | None = None) -> BlurScale:
    """Find A F (or its counterpart on another axis) by minimising the misfit of the plane sweep.

    Too small a scale predicts too little blur, too large a scale too much: in between, the misfit
    of the best plane at each pixel, averaged over the image, has a minimum. It is located on a grid
    in log scale and refined by a parabola. If only the frame order is known, the growth of the
    focus steps is searched too.

    Args:
        stack: the frames.
        psf: the shape of the blur.
        meter: counts the candidates.
    """
    height, width = stack.size
    shrink = min(1.0, max(_SEARCH_SIZE / max(height, width), _LEAST_SIDE_PX / min(height, width)))
    size = (round(height * shrink), round(width * shrink))
    # A subset of a long stack is enough to measure its blur.
    chosen = torch.linspace(0, len(stack) - 1, min(len(stack), _SEARCH_FRAMES)).round().long()
    only_order = stack.axis == "order"
    if only_order:
        chosen = stack.places.argsort()[chosen]
    shown = None
    if stack.shown is not None:
        share = functional.interpolate(stack.shown[chosen, None].float(), size=size, mode="area")
        shown = share[:, 0] > 0.5
    small = FocalStack(
        functional.interpolate(stack.images[chosen], size=size, mode="area"),
        step=stack.step,
        shown=shown,
        gains=None if stack.gains is None else stack.gains[chosen],
    )
    focus = stack.focus_coordinates
    first, span = float(focus.min()), float(focus.max() - focus.min())
    low, high = (math.log(px / span) for px in _BLUR_RANGE_PX)
    step = (high - low) / (_CANDIDATES - 1)
    # Every candidate uses the same hypotheses, so that their misfits are comparable.
    hypotheses = torch.linspace(first - 0.15 * span, first + 1.15 * span, _HYPOTHESES).to(focus)
    meter = meter or Meter()
    meter.expect(_CANDIDATES + (_ORDER_STEPS if only_order else 2))
    known: dict[tuple[float, float], float] = {}

    def log_misfit(index: float, step_growth: float = 0.0) -> float:
        if (index, step_growth) not in known:
            where = focus
            if only_order:
                where = ordered_focus(stack.sweep_length, step_growth).to(focus)[stack.places]
            scale = math.exp(low + index * step)
            with torch.no_grad():
                planes = plane_misfit(small, where[chosen], hypotheses, scale, psf)
            # Black or clipped frames have zero misfit at any scale.
            misfit = max(float(box_mean(planes, 3).amin(0).mean()), 1e-12)
            known[index, step_growth] = math.log(misfit)
            meter.advance()
        return known[index, step_growth]

    curve = [log_misfit(index) for index in range(_CANDIDATES)]
    best = min(range(_CANDIDATES), key=curve.__getitem__)
    if best in (0, _CANDIDATES - 1):
        return BlurScale(math.exp(low + best * step) / shrink, 0.0, False)
    if only_order:
        index, growth = _descended(log_misfit, best)
        beside = min(log_misfit(index - 1, growth), log_misfit(index + 1, growth))
        rise = math.exp(beside - log_misfit(index, growth)) - 1
        value = math.exp(low + index * step) / shrink
        return BlurScale(value, rise, rise > _CLEAR_RISE, growth)
    rise = math.exp(min(curve[best - 1], curve[best + 1]) - curve[best]) - 1
    # Half steps around the minimum, where a parabola fits.
    points = {best + side: log_misfit(best + side) for side in (-0.5, 0.5)} | {best: curve[best]}
    centre = min(points, key=points.__getitem__)
    points |= {best + side: curve[best + side] for side in (-1, 1)}
    before, here, after = (points[centre + side] for side in (-0.5, 0, 0.5))
    bend = before - 2 * here + after
    offset = 0.25 * (before - after) / bend if bend > 0 else 0.0  # flat frames may tie
    return BlurScale(math.exp(low + (centre + offset) * step) / shrink, rise, rise > _CLEAR_RISE)


def _descended(log_misfit: Callable[[float, float], float], start: float) -> tuple[float, float]:
    """Pattern search for the misfit's minimum over (candidate, step growth), from (start, 0).

    Moves to the best of eight neighbours while it improves, else halves the step.
    """
    here, reach = (start, 0.0), 1.0
    while reach > _FINEST_GROWTH:
        around = [
            (here[0] + along * reach, here[1] + across * reach)
            for along in (-1, 0, 1)
            for across in (-1, 0, 1)
            if abs(here[1] + across * reach) <= _LARGEST_GROWTH
            and 0 <= here[0] + along * reach <= _CANDIDATES - 1
        ]
        best = min(around, key=lambda point: log_misfit(*point))
        if log_misfit(*best) < log_misfit(*here):
            here = best
        else:
            reach /= 2
    return here
