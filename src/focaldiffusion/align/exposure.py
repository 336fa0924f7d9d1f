"""The exposure of each frame of a stack relative to the others: gain, colour cast, what is lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.align.motion import Matrix, to_pixels, warp
from focaldiffusion.align.pyramid import TILE_PX, Plane
from focaldiffusion.align.view import View

_LEAST_GAIN = 0.02
"""A change of focus fakes a gain of up to 1.2 % in still stacks."""
_LEAST_CAST = 0.12
"""Between channels. A phone whose white balance drifts over the sweep stays below it."""
_LARGEST_GAIN = 64.0
_NOTED_GAIN = 4.0
_STEP = 1.3  # least change of exposure within a bracket
_SAME_FOCUS = 0.03
"""Change of sharpness between tiles. Not measured on a set of stacks: it separates the few brackets
and focal stacks of the tests."""
_LEAST_TILES = 6
_NEAR_MEDIAN = 0.25  # difference in light, up to which a frame may set the exposure
_LOW_PASSES_PX = (8, 2)  # at the resolution of exposures; the second if clipping leaves no room
_LEAST_AREA = 0.02
_FLAT = 0.02  # relative bend below which a place counts fully


@dataclass(frozen=True, eq=False)
class Exposures:
    """Exposures of the frames whose poses are known.

    Attributes:
        gains: linear light of each frame over that of the frame of median exposure.
        casts: (3,) factor of each channel beyond the gain; ones without a colour cast.
        lost: frames whose light cannot be compared, and why.
    """

    gains: Mapping[int, float]
    casts: Mapping[int, NDArray[np.float64]]
    lost: Mapping[int, str]


def find_exposures(
    views: Sequence[View], poses: Mapping[int, Matrix], reference: int, *, is_sure: bool = False
) -> Exposures:
    """Compare the light of all frames, apart from the choice of the geometric reference.

    The frame next to the reference whose brightness is that of most frames serves as the measure;
    then the median gain becomes 1, so that no single frame sets the exposure.

    Args:
        views: of all frames.
        poses: (3, 3) from the reference to each kept frame, in the order of the sweep.
        reference: the geometric reference.
        is_sure: measure gains that are not significant too; otherwise they are all 1 then.
    """
    measure = _usual_frame(views, list(poses), reference)
    back = np.linalg.inv(poses[measure])
    logs: dict[int, Plane] = {}
    errors, lost = {}, {}
    for index, pose in poses.items():
        fit = _fit_gain(views[measure], views[index], pose @ back)
        if fit is None:
            lost[index] = (
                f"its exposure cannot be measured, {views[index].clipped:.0%} of it is clipped"
            )
            continue
        logs[index], errors[index] = fit
        if abs(logs[index][0]) > np.log(_LARGEST_GAIN):
            del logs[index]
            lost[index] = f"it has {_times(fit[0][0])} the light of the other frames"
    casts = {index: log[1:] - log[0] for index, log in logs.items()}
    has_cast = any(np.ptp(cast) > max(_LEAST_CAST, 3 * errors[i]) for i, cast in casts.items())
    is_even = all(abs(log[0]) < max(_LEAST_GAIN, 3 * errors[i]) for i, log in logs.items())
    if is_even and not is_sure and not has_cast:
        return Exposures(dict.fromkeys(logs, 1.0), dict.fromkeys(logs, np.ones(3)), lost)
    # An actual frame, the darker one of two, keeps its light.
    middle = sorted(logs, key=lambda index: logs[index][0])[(len(logs) - 1) // 2]
    gains = {index: float(np.exp(log[0] - logs[middle][0])) for index, log in logs.items()}
    neutral = np.median(list(casts.values()), axis=0)
    return Exposures(
        gains,
        {i: np.exp(cast - neutral) if has_cast else np.ones(3) for i, cast in casts.items()},
        lost,
    )


def describe_exposures(
    exposures: Exposures, names: Sequence[str], *, bracketed: bool
) -> tuple[str, ...]:
    """Sentences about frames of very different exposure; `bracketed` as in `is_bracket`."""
    gains = exposures.gains
    span = max(gains.values()) / min(gains.values())
    if bracketed:
        return (
            f"the frames look like an exposure bracket: their light differs by a factor of "
            f"{span:.1f}, but their focus does not change, so they show no depth. Give frames "
            "that are focused at different distances.",
        )
    odd = {i: gain for i, gain in gains.items() if abs(np.log(gain)) > np.log(_NOTED_GAIN)}
    return tuple(
        f"{names[index]} has {_times(np.log(gain))} the light of the other frames; it is evened "
        f"out, but {'its noise grows' if gain < 1 else 'its highlights are lost'}. Expose all "
        "frames equally, or leave it out."
        for index, gain in odd.items()
    )


def _times(log_gain: float) -> str:
    """A factor in words: "1/7.3 of" or "8 times"."""
    gain = float(np.exp(log_gain))
    return f"1/{1 / gain:.2g} of" if gain < 1 else f"{gain:.2g} times"


def _usual_frame(views: Sequence[View], kept: Sequence[int], reference: int) -> int:
    """The frame nearest to the reference in the sweep whose brightness is close to the median."""
    brightness = {index: max(views[index].brightness, 1e-9) for index in kept}
    median = sorted(brightness.values())[(len(kept) - 1) // 2]
    usual = [index for index in kept if abs(brightness[index] / median - 1) < _NEAR_MEDIAN]
    place = kept.index(reference)
    return min(usual, key=lambda index: abs(kept.index(index) - place))


def _fit_gain(first: View, second: View, motion: Matrix) -> tuple[Plane, float] | None:
    """Logarithms of the gain of a second frame over a first, and the standard error of the gain.

    A weighted median over their common area. Both are low-passed, and a place is weighted by its
    light and by the flatness of its surroundings, 1 / (s^2 |laplacian| / light)^2: to first order,
    blur moves light in proportion to the Laplacian. Surroundings of clipped pixels are left out,
    because the light lost there depends on focus.

    Returns:
        (4,) of luminance, red, green and blue; None if too little can be compared.
    """
    size = first.saturated.shape
    pixels = to_pixels(motion, size)
    clipped = np.maximum(first.saturated, warp(second.saturated, pixels, size))
    inside = warp(np.ones_like(clipped), pixels, size, border=cv2.BORDER_CONSTANT) > 0.99
    for radius in _LOW_PASSES_PX:
        around = np.ones((2 * radius + 1,) * 2, np.uint8)
        use = inside & (cv2.dilate(clipped, around) < 0.01)
        if use.mean() >= _LEAST_AREA:
            break
    else:
        return None

    def low_pass(image: Plane) -> Plane:
        return cv2.GaussianBlur(image, (0, 0), radius)  # type: ignore[return-value]

    share = np.maximum(low_pass(use.astype(np.float32)), 1e-3)

    def lights(one: Plane, other: Plane) -> tuple[Plane, Plane]:
        low = (low_pass(image * use) / share for image in (one, warp(other, pixels, size)))
        before, after = (np.maximum(image, 1e-6) for image in low)
        return before, after

    low_first, low_second = lights(first.luminance, second.luminance)
    light = (low_first + low_second) / 2
    laplacian: Plane = cv2.Laplacian(light, cv2.CV_32F, ksize=3)  # type: ignore[assignment]
    bend: Plane = np.abs(laplacian) * np.float32(radius**2) / light
    weights: Plane = (light / np.square(_FLAT + low_pass(bend)))[use].astype(np.float32)
    log_ratio: Plane = np.log(low_second / low_first)[use].astype(np.float32)
    value = _weighted_median(log_ratio, weights)
    spread = 1.4826 * _weighted_median(np.abs(log_ratio - value), weights)
    independent = weights.sum() ** 2 / np.square(weights).sum() / (4 * np.pi * radius**2)
    channels = [
        _weighted_median(np.log(after / before)[use], weights)
        for before, after in (lights(first.light[..., k], second.light[..., k]) for k in range(3))
    ]
    return np.array([value, *channels]), float(spread / np.sqrt(max(1.0, independent)))


def _weighted_median(values: Plane, weights: Plane) -> float:
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order], dtype=np.float64)
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2)])


def is_bracket(views: Sequence[View], gains: Mapping[int, float]) -> bool:
    """Whether exposure changes from frame to frame, and sharpness does not."""
    measure = min(gains, key=lambda index: abs(np.log(gains[index])))
    others = [index for index in gains if index != measure]
    exposed = [abs(np.log(gains[index] / gains[measure])) > np.log(_STEP) for index in others]
    changes = [_focus_change(views[measure], views[index]) for index in others]
    measured = [change for change in changes if change is not None]
    return bool(np.mean(exposed) > 0.5 and measured and np.median(measured) < _SAME_FOCUS)


def _focus_change(first: View, second: View) -> float | None:
    """How differently the sharpness of two frames differs from tile to tile.

    Returns:
        Median deviation of the logarithm of the ratio of their structure; None if hardly any tile
        is free of clipped pixels.
    """
    levels = (view.pyramid.structure(-1) for view in (first, second))
    height, width = first.pyramid.levels[-1].shape
    size = max(1, width // TILE_PX), max(1, height // TILE_PX)
    one, other, *clipped = (
        cv2.resize(plane, size, interpolation=cv2.INTER_AREA)
        for plane in (*(level**2 for level in levels), first.saturated, second.saturated)
    )
    clear = (np.maximum(*clipped) < 1e-3) & (one >= np.median(one)) & (one > 0)
    if clear.sum() < _LEAST_TILES:
        return None
    ratio = np.log((other[clear] + 1e-12) / one[clear]) / 2
    return float(np.median(np.abs(ratio - np.median(ratio))))
