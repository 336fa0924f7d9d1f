"""Coloured point clouds: metres, x right, y down, z forward, origin at the optical centre."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError, check_shape
from focaldiffusion.optics import Camera

MAX_POINTS = 2_000_000

_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
_PLY_HEADER = """\
ply
format binary_little_endian 1.0
element vertex {count}
property float x
property float y
property float z
property uchar red
property uchar green
property uchar blue
end_header
"""


def pixel_stride(size: tuple[int, int], max_points: int = MAX_POINTS) -> int:
    """Smallest step, for rows and columns, that leaves at most `max_points` pixels.

    Args:
        size: (height, width) [px].
        max_points: upper bound on the pixels kept, >= 1.
    """
    height, width = size
    stride = max(1, math.isqrt(height * width // max_points))
    while math.ceil(height / stride) * math.ceil(width / stride) > max_points:
        stride += 1
    return stride


def back_project(
    depth_m: NDArray[np.float32],
    focal_length_px: float,
    principal_point_px: tuple[float, float],
    stride: int = 1,
) -> NDArray[np.float32]:
    """The point seen by every `stride`-th pixel.

    X = (x - c_x) z / F, Y = (y - c_y) z / F, Z = z, at the pixel's own centre (halves).

    Args:
        depth_m: z, metres along the optical axis, NaN where unknown, (H, W).
        focal_length_px: F [px] of an image of this size.
        principal_point_px: (c_x, c_y) [px], pixel centres at halves.
        stride: keep rows and columns 0, stride, 2 stride, ...

    Returns:
        (ceil(H / stride), ceil(W / stride), 3) metres: x right, y down, z forward.
    """
    check_shape("depth_m", depth_m, ("H", "W"))
    height, width = depth_m.shape
    z = depth_m[::stride, ::stride].astype(np.float64)
    x = np.arange(0, width, stride) + 0.5 - principal_point_px[0]
    y = np.arange(0, height, stride)[:, None] + 0.5 - principal_point_px[1]
    points = np.stack([x * z / focal_length_px, y * z / focal_length_px, z], axis=-1)
    return points.astype(np.float32)


def write_point_cloud(
    path: Path,
    depth_m: NDArray[np.float32],
    srgb: NDArray[np.float32],
    camera: Camera,
) -> None:
    """Write a binary PLY with one coloured point for each pixel of known, finite depth.

    Above `MAX_POINTS` pixels every `pixel_stride`-th row and column is kept.

    Args:
        path: the file to make.
        depth_m: (H, W) metres along the optical axis, NaN where unknown.
        srgb: (H, W, 3) in [0, 1], sRGB-encoded.
        camera: of an image of this size; its aperture may be unknown.

    Raises:
        InputError: no pixel has a known depth; nothing is written.
        OSError: the file cannot be written.
    """
    stride = pixel_stride((depth_m.shape[0], depth_m.shape[1]))
    points = back_project(depth_m, camera.focal_length_px, camera.principal_point_px, stride)
    known = np.isfinite(points[..., 2])
    if not known.any():
        raise InputError(f"{path}: not written: no pixel has a known depth.")
    vertices = np.empty(np.count_nonzero(known), _VERTEX)
    vertices["xyz"] = points[known]
    vertices["rgb"] = np.rint(srgb[::stride, ::stride][known].clip(0, 1) * 255)
    header = _PLY_HEADER.format(count=len(vertices)).encode()
    path.write_bytes(header + vertices.tobytes())
