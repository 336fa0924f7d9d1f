"""Whether a blur that was measured is possible for a lens, or distances had another unit."""

from __future__ import annotations

from focaldiffusion.lens import LensFacts, mistaken_unit
from focaldiffusion.solve.calibrate import Calibration
from focaldiffusion.stack import FocalStack

_LARGEST_APERTURE_M = 0.3  # 1200 mm f/5.6 has 0.21
_LARGEST_OF_UNKNOWN_M = 0.5  # times focal length over image width: 135 mm f/1.8 has 0.28
_LEAST_F_NUMBER = 0.5  # the limit in air
_USUAL_APERTURE_M = (1e-3, 0.06)


def absurd_aperture(
    stack: FocalStack, calibration: Calibration, lens: LensFacts
) -> tuple[str, ...]:
    """A sentence where the measured blur takes an aperture that no lens has; none otherwise.

    The blur diameter per dioptre is A F. Distances that are c times too large make it c times too
    large as well. Where F [px] is unknown, it is taken as the long side of the image, the angle of
    view of a normal lens.
    """
    scale = calibration.blur_scale
    if scale is None or not calibration.is_measured or stack.axis != "inverse_depth_dpt":
        return ()
    camera, focal_m = stack.camera, lens.focal_length_m
    width_px = float(max(stack.size))
    aperture_m = scale / (width_px if camera is None else camera.focal_length_px)
    largest_m = _LARGEST_OF_UNKNOWN_M if camera is None else _LARGEST_APERTURE_M
    if camera is not None and focal_m is not None:
        largest_m = min(largest_m, focal_m / _LEAST_F_NUMBER)
    if aperture_m <= largest_m:
        return ()
    least, most = (aperture_m / usual for usual in reversed(_USUAL_APERTURE_M))
    words = "(for a lens of normal angle of view) " if camera is None else ""
    return (
        f"with these focus distances in metres, the blur of the frames takes {words}an aperture "
        f"of {aperture_m:.2g} m; {mistaken_unit(least, most)}.",
    )
