"""Stage 10: the maps of a result at the native size of its frames."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from torch import Tensor

from focaldiffusion.fusion.fuse import Fusion
from focaldiffusion.fusion.upsample import upsample
from focaldiffusion.optics import far_bound_dpt
from focaldiffusion.result import FIELD_OF_AXIS, Plane
from focaldiffusion.solve.uncertainty import coordinate_interval
from focaldiffusion.stack import FocalStack


def enlarged(
    stack: FocalStack,
    coordinate: Tensor,
    shares: Mapping[str, Tensor],
    competing: Tensor | None,
    blur_scale: float | None,
    fusion: Fusion,
) -> dict[str, Plane]:
    """Maps (H', W') of a result by their fields; unknown where all frames are transparent.

    Args:
        stack: the frames at working size.
        coordinate: (H, W) surface on the axis of the stack.
        shares: maps (H, W) in [0, 1] by their fields, confidence among them.
        competing: see `coordinate_interval`.
        blur_scale: see `coordinate_interval`; None if unknown, which leaves out the interval.
        fusion: the fused image, whose edges the surface follows.
    """

    def resized(plane: Tensor) -> Plane:
        size = fusion.all_in_focus.shape[1::-1]
        return np.asarray(cv2.resize(plane.cpu().numpy(), size), np.float32)

    surface = upsample(coordinate, fusion.all_in_focus)
    confidence, depths = shares["confidence"], {}
    if blur_scale is not None and confidence.any():  # if nothing is trusted, nothing is excluded
        low, high = map(
            resized, coordinate_interval(coordinate, confidence, competing, blur_scale) - coordinate
        )
        low += surface
        high += surface
        depths = _interval(stack, low, high, blur_scale)
    depths[FIELD_OF_AXIS[stack.axis]] = _on_axis(stack, surface, blur_scale)
    maps = {name: resized(share) for name, share in shares.items()}
    if fusion.alpha is not None:
        for planes, empty in ((depths, np.nan), (maps, 0)):
            for plane in planes.values():
                plane[fusion.alpha == 0] = empty
    return {**depths, **maps}


def _on_axis(stack: FocalStack, coordinate: Plane, blur_scale: float | None) -> Plane:
    """Depth, height or relative depth (H', W') in place of coordinates on the axis of the stack."""
    if stack.axis == "order":
        return np.clip(coordinate, 0, 1, out=coordinate)
    if stack.axis == "position_m":
        coordinate *= np.float32(_height_sign(stack))
        return coordinate
    # NaN where depth is indistinguishable from infinity.
    np.copyto(coordinate, np.nan, where=~(coordinate > _least_dpt(blur_scale)))
    return np.reciprocal(coordinate, out=coordinate)


def _height_sign(stack: FocalStack) -> float:
    """1 if height grows with the coordinate, -1 if it falls."""
    if stack.height_sign is not None:
        return stack.height_sign
    return float((stack.focus_coordinates[-1] - stack.focus_coordinates[0]).sign())


def _interval(stack: FocalStack, low: Plane, high: Plane, blur_scale: float) -> dict[str, Plane]:
    """`depth_near` and `depth_far` in place of both ends of an interval on the stack's axis."""
    if stack.axis == "inverse_depth_dpt":
        for end in (low, high):
            np.copyto(end, 0, where=end <= _least_dpt(blur_scale))
            with np.errstate(divide="ignore"):
                np.reciprocal(end, out=end)
        return {"depth_near": high, "depth_far": low}
    near, far = (_on_axis(stack, end, blur_scale) for end in (low, high))
    if stack.axis == "position_m" and _height_sign(stack) < 0:
        near, far = far, near
    return {"depth_near": near, "depth_far": far}


def _least_dpt(blur_scale: float | None) -> float:
    """An eighth of a pixel of blur, or a kilometre if the blur is unknown."""
    return 1e-3 if blur_scale is None else far_bound_dpt(blur_scale, tolerance_px=0.125)
