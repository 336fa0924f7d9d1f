"""The camera of a sample: the facts of its data set, completed by those of the configuration."""

from __future__ import annotations

from focaldiffusion.config.data import CameraDefaults
from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera

_WHERE = "with the sample or in data.dataset_kwargs.camera_defaults"


def sample_camera(
    image_size: tuple[int, int],
    given: LensFacts,
    defaults: CameraDefaults,
    *,
    source: str,
    principal_point_px: tuple[float, float] | None = None,
) -> Camera:
    """The camera of one sample, with an aperture, focused at infinity as after alignment.

    A data set that knows its focal length in pixels needs the pitch, or the sensor's width, only
    to make an aperture of an f-number.

    Args:
        image_size: (height, width) on disk [px].
        given: the lens as the sample or its data set has it.
        defaults: `data.dataset_kwargs.camera_defaults`.
        source: what messages call the sample.
        principal_point_px: (x, y), the image centre when not given.

    Raises:
        InputError: the values do not make a camera; names what is missing.
    """
    lens = given.over(defaults.facts())
    camera = lens.camera(image_size, principal_point_px=principal_point_px)
    if camera is None:
        raise InputError(
            f"{source}: the focal length in pixels is unknown. Give focal_length_px, or "
            f"focal_length_m with pixel_pitch_m or sensor_width_m, {_WHERE}."
        )
    if camera.aperture_diameter_m is None:
        needs = "f_number"
        if "focal_length_m" in lens.missing():
            needs = "f_number and sensor_width_m (or the pitch)"
        raise InputError(
            f"{source}: the aperture is unknown. Give aperture_diameter_m, or {needs}, {_WHERE}."
        )
    return camera
