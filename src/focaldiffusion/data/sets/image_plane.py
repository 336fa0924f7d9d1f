"""The image plane of a pinhole camera that may be tilted and shifted, as HyperSim's are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """Positions of the pixels of an image relative to the optical centre.

    A picture depends only on the optical centre and on this plane. A tilted camera is therefore an
    upright one in a frame turned with the plane: the optical axis is the plane's normal, depth is
    measured along it, and the principal point is where it meets the plane, perhaps outside the
    image. Depth along another axis of the tilted frame would fit neither the intrinsics nor a lens
    parallel to its sensor.

    Attributes:
        from_pixels: (3, 3), maps (x, y, 1), pixel centres at halves, to a point of the plane, in
            camera axes of any unit.
    """

    from_pixels: NDArray[np.float64]

    @classmethod
    def of(cls, cam_from_uv: NDArray[np.float64], image_size: tuple[int, int]) -> ImagePlane:
        """The plane of a matrix that maps (u, v, 1) to rays.

        Args:
            cam_from_uv: (3, 3); u to the right and v upwards, -1 and 1 at the image's borders.
            image_size: (height, width).
        """
        height, width = image_size
        uv_from_pixels = np.array([[2 / width, 0, -1], [0, -2 / height, 1], [0, 0, 1]])
        return cls(cam_from_uv @ uv_from_pixels)

    def pinhole(self) -> tuple[float, tuple[float, float]]:
        """The equivalent upright camera.

        If rows and columns are not at a right angle, which a `Camera` cannot express, the focal
        length is that of a square pixel of the same area.

        Returns:
            Focal length [px]; principal point (x, y), pixel centres at halves.
        """
        right, down, origin = self.from_pixels.T
        pixel = np.cross(right, down)
        pixel_area = float(np.linalg.norm(pixel))
        normal = pixel / pixel_area
        # origin + x right + y down = distance normal
        x, y, distance = np.linalg.solve(np.stack([right, down, -normal], axis=1), -origin)
        return abs(float(distance)) / math.sqrt(pixel_area), (float(x), float(y))

    def depth(self, ray_distance_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """Depth along the plane's normal, from the distance along each pixel's ray.

        z = d D / |q|, where D is the distance of the plane and |q| the length of the ray to it.
        Exact for any tilt, shift and skew.

        Args:
            ray_distance_m: d, (H, W), metres from the optical centre.

        Returns:
            (H, W) metres; NaN where d is.
        """
        height, width = ray_distance_m.shape
        right, down, origin = self.from_pixels.T
        normal = np.cross(right, down)
        plane_distance = abs(normal @ origin) / np.linalg.norm(normal)
        # |q|² / D² is a quadratic form of the pixel: rows plus columns, and a product where the
        # two are not at a right angle. No (H, W, 3) array of rays is made.
        form = self.from_pixels.T @ self.from_pixels / plane_distance**2
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        of_x = (form[0, 0] * x + 2 * form[0, 2]) * x + form[2, 2]
        of_y = (form[1, 1] * y + 2 * form[1, 2]) * y
        squared = np.add.outer(of_y.astype(np.float32), of_x.astype(np.float32))
        if form[0, 1] != 0:
            both = np.multiply.outer((2 * form[0, 1] * y).astype(np.float32), x.astype(np.float32))
            squared += both
        return ray_distance_m.astype(np.float32) / np.sqrt(squared, out=squared)
