"""The camera and the thin lens.

Conventions: metres along the optical axis, dioptres (1/m) for inverse depth, pixels of the
image that the camera describes. Distances may be infinite: everything is written in inverse
distances, where infinity is 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from numbers import Real

import torch
from torch import Tensor

from focaldiffusion.errors import InputError


@dataclass(frozen=True)
class Camera:
    """A thin-lens camera, in pixels of an image of `image_size`.

    An image is never resized or cropped without its camera: `resized` and `cropped` return the
    camera of the new image.

    Attributes:
        focal_length_px: image distance divided by the pixel pitch [px], > 0, at most 1e7.
        aperture_diameter_m: diameter of the entrance pupil [m], > 0, at most 10; None when unknown.
        image_size: (height, width) [px].
        principal_point_px: (x, y) where the optical axis meets the image, pixel centres at
            halves; the image centre when not given.
    """

    focal_length_px: float
    aperture_diameter_m: float | None
    image_size: tuple[int, int]
    principal_point_px: tuple[float, float] = None  # type: ignore[assignment]  # the centre

    def __post_init__(self) -> None:
        for name, largest in (("focal_length_px", 1e7), ("aperture_diameter_m", 10.0)):
            value = getattr(self, name)
            if value is None and name == "aperture_diameter_m":
                continue
            number = float(value) if isinstance(value, Real) else math.nan
            if not (math.isfinite(number) and number > 0):
                raise InputError(f"camera: {name} is {value!r}; expected a positive number.")
            if number > largest:
                raise InputError(
                    f"camera: {name} is {value:g}; no camera has more than {largest:g}. Check the "
                    "units."
                )
        height, width = self.image_size
        if height < 1 or width < 1:
            raise InputError(f"camera: image_size is {self.image_size}; expected (height, width).")
        if self.principal_point_px is None:
            object.__setattr__(self, "principal_point_px", (width / 2, height / 2))

    @property
    def blur_scale_px_m(self) -> float | None:
        """A F: blur diameter [px] per dioptre of defocus, all that blur depends on.

        None without an aperture.
        """
        if self.aperture_diameter_m is None:
            return None
        return self.aperture_diameter_m * self.focal_length_px

    def resized(self, image_size: tuple[int, int]) -> Camera:
        """The camera of the image resized to (height, width), aspect kept to within a pixel."""
        (height, width), (new_height, new_width) = self.image_size, image_size
        scale_y, scale_x = new_height / height, new_width / width
        # Rounding changes the aspect by up to a pixel. More would need an anisotropic blur, which
        # nothing here models.
        if abs(scale_y / scale_x - 1) > 1.5 / min(height, width, new_height, new_width):
            raise ValueError(f"resizing {self.image_size} to {image_size} changes the aspect ratio")
        x, y = self.principal_point_px
        return replace(
            self,
            focal_length_px=self.focal_length_px * math.sqrt(scale_x * scale_y),
            image_size=image_size,
            principal_point_px=(x * scale_x, y * scale_y),
        )

    def cropped(self, left: int, top: int, image_size: tuple[int, int]) -> Camera:
        """The camera of the window of (height, width) whose first pixel is (left, top)."""
        x, y = self.principal_point_px
        return replace(self, image_size=image_size, principal_point_px=(x - left, y - top))

    def mirrored(self) -> Camera:
        """The camera of the image mirrored left to right."""
        x, y = self.principal_point_px
        return replace(self, principal_point_px=(self.image_size[1] - x, y))


def inverse_m(distance_m: Tensor) -> Tensor:
    """Metres to dioptres; infinity to 0."""
    return 1.0 / distance_m


def blur_radius_px(
    inverse_depth_dpt: Tensor, inverse_focus_dpt: Tensor, blur_scale_px_m: float | Tensor
) -> Tensor:
    """Signed circle-of-confusion radius, in pixels.

    Thin lens: r = A F (1/s - 1/z) / 2.

    Args:
        inverse_depth_dpt: 1/z, dioptres, >= 0 (0 is infinity), any shape.
        inverse_focus_dpt: 1/s, dioptres, >= 0, shape that broadcasts with it.
        blur_scale_px_m: A F, `Camera.blur_scale_px_m`.

    Returns:
        The broadcast shape; zero in focus, positive behind the focus plane.
    """
    return 0.5 * blur_scale_px_m * (inverse_focus_dpt - inverse_depth_dpt)


def lens_distance_m(sensor_distance_m: float, focal_length_m: float) -> float:
    """Focus distance counted from the lens, from one counted from the sensor plane.

    A distance d from the sensor is s + v with 1/f = 1/s + 1/v, so s = (d + sqrt(d² - 4 f d)) / 2.
    Canon and Nikon write d.

    Raises:
        InputError: d < 4 f, where no real image exists.
    """
    if math.isinf(sensor_distance_m):
        return sensor_distance_m
    discriminant = sensor_distance_m**2 - 4 * focal_length_m * sensor_distance_m
    if discriminant < 0:
        raise InputError(
            f"focus distance {sensor_distance_m} m from the sensor is nearer than four focal "
            f"lengths ({4 * focal_length_m} m); no lens of {focal_length_m} m focuses there."
        )
    return (sensor_distance_m + math.sqrt(discriminant)) / 2


def far_bound_dpt(blur_scale_px_m: float, tolerance_px: float = 0.25) -> float:
    """Inverse depth below which the blur diameter is infinity's to within a tolerance."""
    return tolerance_px / blur_scale_px_m


def srgb_to_linear(srgb: Tensor) -> Tensor:
    """sRGB display encoding to linear light, both in [0, 1] (IEC 61966-2-1)."""
    return torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(linear: Tensor) -> Tensor:
    """Linear light to sRGB display encoding, both in [0, 1] (IEC 61966-2-1)."""
    # The clamp keeps the gradient finite. The line lies below the curve up to 0.0031308, and above
    # it beyond. Logarithm and exponential take a quarter of the time of a power.
    power = linear.clamp_min(0.0031308).log_().mul_(1 / 2.4).exp_()
    return torch.minimum(linear * 12.92, power.mul(1.055).sub_(0.055))
