"""Doubts about a sample: depth, focus, blur and frames that contradict each other.

A wrong unit, kind or order of depth trains without an error. These checks compare what a data set
says with what its frames show, and name the factor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.optics import blur_radius_px, inverse_m
from focaldiffusion.solve.sharpness import sweep_sharpness
from focaldiffusion.stack import FocalStack

_REACH = 1.5
"""Depth up to this factor beyond the sweep is within its reach."""
_UNITS = {
    "millimetres": 0.001,
    "centimetres": 0.01,
    "units of 1/256 m, as KITTI has them": 1 / 256,
    "units of 1/5000 m, as TUM has them": 1 / 5000,
    "metres that were taken for millimetres": 1000.0,
    "metres that were taken for centimetres": 100.0,
}
"""Units in which depth may be given by mistake, in metres."""
_FEWEST_VALID = 0.05
_DARKEST = 0.01  # linear light; a 12-bit picture in a 16-bit file reaches half of it
_LEAST_BLUR_PX = 0.25  # small pictures for a trial have half a pixel
_COMPARED_PX = 320
"""Long side at which sharpness is compared with depth."""
_FEWEST_PX = 500
_CERTAIN = 0.8  # entropy of sharpness, of 1 for ignorance
_OFF = 2.5  # times; the hardest of rooms with exact truth are within 2
_OPPOSITE, _UNRELATED = -0.3, 0.1
"""Rank correlations of true depth and sharpness below which they contradict each other."""


def doubts(sample: StackSample) -> dict[str, str]:
    """Doubts about a sample: a sentence for each kind.

    Args:
        sample: with frames, on any device.
    """
    return {kind: f"{sample.source}: {text}" for kind, text in _doubts(sample)}


def blur_diameters_px(sample: StackSample) -> Tensor:
    """(N, P) blur diameters at the P pixels with depth; empty where lens or focus are unknown."""
    stack = sample.stack
    if stack.blur_scale_px_m is None:
        return stack.images.new_empty(len(stack), 0)
    inverse_depth = inverse_m(sample.depth_m[sample.valid])
    focus = stack.focus_coordinates[:, None]
    return 2 * blur_radius_px(inverse_depth, focus, stack.blur_scale_px_m).abs()


def _doubts(sample: StackSample) -> Iterator[tuple[str, str]]:
    yield from _of_frames(sample.stack)
    if not sample.has_truth:
        return
    share = float(sample.valid.double().mean())
    if share < _FEWEST_VALID:
        yield "valid", f"only {share:.1%} of the pixels have a depth. Check masks and depth_bounds."
    depth_m = sample.depth_m[sample.valid & sample.depth_m.isfinite()].double().cpu().numpy()
    if not len(depth_m):
        return
    yield from _of_values(depth_m)
    if sample.stack.axis != "inverse_depth_dpt":
        return
    beyond = list(_of_focus(sample.stack, depth_m))
    yield from beyond
    yield from _of_blur(sample)
    if not beyond:
        yield from _of_sharpness(sample)


def _of_frames(stack: FocalStack) -> Iterator[tuple[str, str]]:
    lightest = float(stack.images.max())
    if lightest < _DARKEST:
        yield (
            "dark",
            f"no pixel is lighter than {lightest:.2g} of white: frames of 10 to 14 bits in 16-bit "
            f"files are too dark by a factor of 4 to 64 before encoding.",
        )
    if torch.equal(stack.images, stack.images[:1].expand_as(stack.images)):
        yield "equal", f"all {len(stack)} frames are the same, so defocus shows no depth."


def _of_values(depth_m: NDArray[np.float64]) -> Iterator[tuple[str, str]]:
    values = np.unique(depth_m)
    if len(values) == 1 and len(depth_m) > 1:
        yield "flat", f"every pixel has the depth {values[0]:.4g} m. Is it the right array?"
    steps = values / (values[-1] / 255)
    if 32 < len(values) <= 256 and np.abs(steps - steps.round()).max() < 1e-3:
        yield (
            "8 bits",
            f"its depths are {len(values)} multiples of 1/255 of the largest, {values[-1]:.4g} m: "
            "a picture of depth in 8 bits, scaled to its own range, is not metric.",
        )


def _of_focus(stack: FocalStack, depth_m: NDArray[np.float64]) -> Iterator[tuple[str, str]]:
    """Depth out of reach of the sweep, with the unit that would bring it back."""
    assert stack.focus_distances_m is not None
    focus_m = stack.focus_distances_m.double().cpu().numpy()
    near_m, far_m = float(focus_m.min()), float(focus_m.max())

    def reached(values_m: NDArray[np.float64]) -> float:
        return float(((values_m > near_m / _REACH) & (values_m < far_m * _REACH)).mean())

    if reached(depth_m) >= 0.01:
        return
    low, middle, high = np.quantile(depth_m, [0.05, 0.5, 0.95])
    centre_m = math.sqrt(near_m * (far_m if math.isfinite(far_m) else near_m))
    text = (
        f"depth from {low:.4g} to {high:.4g} m, focus from {near_m:.4g} to {far_m:.4g} m: the "
        f"depth is {middle / centre_m:.3g} times the focus, and no frame is near it."
    )
    guesses = {name: reached(depth_m * scale) for name, scale in _UNITS.items()}
    name = max(guesses, key=lambda one: guesses[one])
    if max(guesses.values()) > 0.5:
        text += f" It looks like {name}: multiply depth_scale by {_UNITS[name]:.4g}."
    elif reached(1 / depth_m) > 0.5:
        text += " It looks like inverse depth [1/m]. Convert it to metres."
    else:
        text += " Check the units of both."
    yield "focus", text


def _of_blur(sample: StackSample) -> Iterator[tuple[str, str]]:
    diameters = blur_diameters_px(sample)
    if not diameters.numel():
        return
    height, width = sample.stack.size
    large = float(np.quantile(diameters.double().cpu().numpy(), 0.95))
    times = large / min(height, width)
    if times > 1:
        yield (
            "blur",
            f"blur of {large:.0f} px on images of {width}x{height}, {times:.3g} times the short "
            "side. Check the aperture, the focal length and the unit of depth.",
        )
    elif large < _LEAST_BLUR_PX:
        yield (
            "sharp",
            f"blur of {large:.2g} px at most, {1 / max(large, 1e-9):.3g} times less than a pixel: "
            "nothing is defocused. Check the aperture, the sensor and the units.",
        )


def _of_sharpness(sample: StackSample) -> Iterator[tuple[str, str]]:
    """Depth that falls where the focus of the sharpest frame rises, or that is a factor off."""
    small = sample.stack.at_working_size(_COMPARED_PX)
    if len(small) < 3:
        return
    evidence = sweep_sharpness(small)
    depth_m, valid = (
        functional.interpolate(one[None, None].float(), small.size, mode="nearest-exact")[0, 0]
        for one in (sample.depth_m, sample.valid)
    )
    focus, found = small.focus_coordinates, evidence.sharpest
    inside = (found > focus.min()) & (found < focus.max())
    seen = inside & (valid > 0) & (evidence.entropy < _CERTAIN)
    if int(seen.sum()) < _FEWEST_PX:
        return
    truth_dpt, found_dpt = inverse_m(depth_m[seen]).double(), found[seen].double()
    span_dpt = float(focus.max() - focus.min())
    # A wall across the axis has no order.
    if float(found_dpt.std()) < 0.1 * span_dpt or float(truth_dpt.std() / truth_dpt.mean()) < 0.1:
        return
    alike = _rank_correlation(truth_dpt, found_dpt)
    factor = float((found_dpt / truth_dpt).median())
    if alike < _OPPOSITE:
        yield (
            "order",
            f"the depth is small where the far frames are sharp (rank correlation {alike:.2f}): "
            "disparity or inverse depth in place of depth, or focus distances in reverse order.",
        )
    elif alike < _UNRELATED:
        yield (
            "unrelated",
            f"the depth does not follow the sharpness of the frames (rank correlation "
            f"{alike:.2f}): turned (depth_orientation), or of another view.",
        )
    elif not 1 / _OFF < factor < _OFF:
        yield (
            "factor",
            f"where a frame is sharpest, the depth is {factor:.2g} times its focus distance. "
            "Check the units of both.",
        )


def _rank_correlation(one: Tensor, other: Tensor) -> float:
    """Spearman's coefficient; ties take any order."""
    ranks = torch.stack([values.argsort().argsort().double() for values in (one, other)])
    return float(torch.corrcoef(ranks)[0, 1])
