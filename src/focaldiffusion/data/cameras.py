"""The camera of a sample: what its data set knows, completed by what the configuration says."""

from __future__ import annotations

from focaldiffusion.config.data import CameraDefaults
from focaldiffusion.config.merge import merged
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera


def sample_camera(
    image_size: tuple[int, int],
    given: CameraDefaults,
    defaults: CameraDefaults,
    *,
    source: str,
    principal_point_px: tuple[float, float] | None = None,
) -> Camera:
    """The thin-lens camera of one sample.

    A value of `given` replaces the same value of `defaults`, whatever form either has: an
    aperture diameter there overrules an f-number here, a focal length in pixels the focal length
    and pitch that would give another one. A data set that knows its focal length in pixels needs
    the pitch (or the sensor's width) only to make an aperture of an f-number: f = F p, A = f / N.

    Args:
        image_size: (height, width) on disk [px].
        given: what the sample or its data set says.
        defaults: `data.dataset_kwargs.camera_defaults`.
        source: what messages call the sample.
        principal_point_px: (x, y), the image centre when not given.

    Raises:
        InputError: the values do not make a camera; names what is missing.
    """
    values = completed(given, defaults).model_dump(exclude_none=True)
    pitch_m = values.get("pixel_pitch_m")
    if "sensor_width_m" in values:
        pitch_m = values["sensor_width_m"] / max(image_size)
    focal_length_m, focal_length_px = values.get("focal_length_m"), values.get("focal_length_px")
    # Focused at infinity: a frame's image distance is the focal length, as after alignment.
    if focal_length_px is None and focal_length_m is not None and pitch_m is not None:
        focal_length_px = focal_length_m / pitch_m
    if focal_length_m is None and focal_length_px is not None and pitch_m is not None:
        focal_length_m = focal_length_px * pitch_m
    aperture_m = values.get("aperture_diameter_m")
    if aperture_m is None and focal_length_m is not None and "f_number" in values:
        aperture_m = focal_length_m / values["f_number"]
    if focal_length_px is None:
        raise InputError(
            f"{source}: the focal length in pixels is unknown. Give focal_length_px, or "
            "focal_length_m with pixel_pitch_m or sensor_width_m, with the sample or in "
            "data.dataset_kwargs.camera_defaults."
        )
    if aperture_m is None:
        needs = (
            "f_number"
            if focal_length_m is not None
            else "f_number and sensor_width_m (or the pitch)"
        )
        raise InputError(
            f"{source}: the aperture is unknown. Give aperture_diameter_m, or {needs}, with the "
            "sample or in data.dataset_kwargs.camera_defaults."
        )
    return Camera(focal_length_px, aperture_m, image_size, principal_point_px)


def completed(given: CameraDefaults, defaults: CameraDefaults) -> CameraDefaults:
    """The values of both, where a given one drops what the other says in another form."""
    values = merged(defaults.model_dump(exclude_none=True), given.model_dump(exclude_none=True))
    return CameraDefaults(**values)
