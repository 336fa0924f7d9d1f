"""Depth along the optical axis, distance along the ray, and the depths that a stack can show."""

from __future__ import annotations

import torch
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera, far_bound_dpt

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
    """Bounds (far, near) in inverse depth of the scene that a stack can show.

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
