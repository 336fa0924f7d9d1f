"""Depth along the optical axis, distance along the ray, and the code that a network works in."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera, far_bound_dpt
from focaldiffusion.stack import FocalStack

_NEAR_MARGIN = 1.25
_NEAR_BLUR_PX = 16.0


def ray_distance_from_depth(depth_m: Tensor, camera: Camera) -> Tensor:
    """Distance from the optical centre along each pixel's ray.

    d = z sqrt(1 + ((x - cx) / F)² + ((y - cy) / F)²), with pixel centres at halves.

    Args:
        depth_m: z, (..., H, W), metres along the optical axis.
        camera: of that image size.

    Returns:
        (..., H, W), metres.
    """
    return depth_m * _ray_length(depth_m, camera)


def depth_from_ray_distance(ray_distance_m: Tensor, camera: Camera) -> Tensor:
    """Depth along the optical axis, from the distance along each pixel's ray.

    The inverse of `ray_distance_from_depth`; Hypersim's `depth_meters` needs it.

    Args:
        ray_distance_m: (..., H, W), metres.
        camera: of that image size.

    Returns:
        (..., H, W), metres.
    """
    return ray_distance_m / _ray_length(ray_distance_m, camera)


def _ray_length(like: Tensor, camera: Camera) -> Tensor:
    """Length of the ray from the optical centre to depth 1 through each pixel, (H, W)."""
    height, width = camera.image_size
    if tuple(like.shape[-2:]) != camera.image_size:
        raise ValueError(f"camera of {camera.image_size}, map of {tuple(like.shape[-2:])}")
    centre_x, centre_y = camera.principal_point_px
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) - centre_x
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) - centre_y
    slope_squared = (x**2 + y[:, None] ** 2) / camera.focal_length_px**2
    return torch.sqrt(1 + slope_squared)


def inverse_depth_bounds_dpt(focus_dpt: Tensor, blur_scale_px_m: float) -> tuple[float, float]:
    """The inverse depths (far, near) between which a stack's scene is looked for.

    Far: beyond it the blur differs by less than a quarter pixel from infinity's; or the farthest
    focus, should that lie beyond. Near: the nearest focus and a margin of a quarter of its
    inverse distance, or of 16 px of blur diameter, which can still be measured. What is focused
    on never bounds the scene by itself.

    Args:
        focus_dpt: (N,) where the frames are focused, dioptres; 0 is infinity.
        blur_scale_px_m: `Camera.blur_scale_px_m`.

    Raises:
        InputError: every frame is focused beyond the far bound.
    """
    far = far_bound_dpt(blur_scale_px_m)
    nearest_focus = float(focus_dpt.max())
    near = max(_NEAR_MARGIN * nearest_focus, nearest_focus + _NEAR_BLUR_PX / blur_scale_px_m)
    if _NEAR_MARGIN * nearest_focus <= far:
        raise InputError(
            f"every frame is focused beyond {_NEAR_MARGIN / far:.3g} m, where this camera's blur "
            "(blur diameter "
            f"{blur_scale_px_m:.3g} px per dioptre) no longer tells depths apart. Focus nearer, "
            "or check the camera."
        )
    positive = focus_dpt[focus_dpt > 0]
    return min(far, float(positive.min())), near


@dataclass(frozen=True)
class DepthCodec:
    """Metric depth to a code in [-1, 1], near to far, and back.

    log: linear in log z. inverse: linear in 1/z. The bounds come from the stack or from
    constants, never from ground truth, so that inference knows them.

    Attributes:
        kind: which of the two.
        near_m: depth of code -1 [m], > 0.
        far_m: depth of code 1 [m], > `near_m`; may be infinite for `inverse`.
    """

    kind: Literal["log", "inverse"]
    near_m: float
    far_m: float

    def __post_init__(self) -> None:
        if self.kind not in ("log", "inverse"):
            raise InputError(f"depth code {self.kind!r} is unknown; expected log or inverse.")
        if not 0 < self.near_m < self.far_m:
            raise InputError(
                f"depth code: near {self.near_m} m, far {self.far_m} m; expected 0 < near < far."
            )
        if self.kind == "log" and math.isinf(self.far_m):
            raise InputError("depth code: log needs a finite far depth; give one, or use inverse.")

    @classmethod
    def from_stack(
        cls, stack: FocalStack, blur_scale_px_m: float, kind: Literal["log", "inverse"] = "log"
    ) -> DepthCodec:
        """The codec between the bounds of a stack, see `inverse_depth_bounds_dpt`.

        Raises:
            InputError: the stack has no focus distances.
        """
        if stack.axis != "inverse_depth_dpt":
            raise InputError(
                "a metric depth code needs focus distances, and this stack has none. Give them "
                "as an argument or in stack.json."
            )
        far_dpt, near_dpt = inverse_depth_bounds_dpt(stack.focus_coordinates, blur_scale_px_m)
        return cls(kind, 1 / near_dpt, 1 / far_dpt)

    def encode(self, depth_m: Tensor) -> Tensor:
        """Code of a depth [m]; depths beyond the bounds take the code of the bound."""
        near, far = self._scaled_bounds
        return (2 * (self._scale(depth_m) - near) / (far - near) - 1).clamp(-1, 1)

    def decode(self, code: Tensor) -> Tensor:
        """Depth [m] of a code; codes beyond [-1, 1] take the depth of the bound."""
        near, far = self._scaled_bounds
        scaled = near + (code.clamp(-1, 1) + 1) / 2 * (far - near)
        return torch.exp(scaled) if self.kind == "log" else 1 / scaled

    def _scale(self, depth_m: Tensor) -> Tensor:
        return torch.log(depth_m) if self.kind == "log" else 1 / depth_m

    @property
    def _scaled_bounds(self) -> tuple[float, float]:
        if self.kind == "log":
            return math.log(self.near_m), math.log(self.far_m)
        return 1 / self.near_m, 1 / self.far_m
