"""A living picture: a result as one HTML page, to refocus and probe without server or network."""

from __future__ import annotations

import base64
import math
import zlib
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion import __version__
from focaldiffusion.errors import InputError, printable
from focaldiffusion.io.colour_scales import ColourScale
from focaldiffusion.io.pyramid import encoded_jpeg
from focaldiffusion.optics import linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.result import Plane, Result
from focaldiffusion.saved import SavedResult
from focaldiffusion.simulation.render import render
from focaldiffusion.virtual_camera import nearness

_PICTURES = 10
_LONG_SIDE_PX = 1024
_DEPTH_PX = 640  # long side of the depth that the page can probe
_LAYERS = 16
_QUALITY = 82
_LEAST_BLUR = 0.02  # of the long side: diameter of the largest blur, or nobody would see it
_STEPS = 65535  # of the nearness in the page


def living_picture(result: Result | SavedResult) -> str:
    """The page of a result: ten refocused images, the sharp one, and the depth.

    Images are reduced to 1024 px. Their blur is that of the stack, or more where that would be
    less than 2 % of the image.

    Args:
        result: with depth.

    Returns:
        HTML that holds everything.

    Raises:
        InputError: the result has no depth.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    field = result.depth_field
    confidence = None if field is None else result.confidence
    if field is None or confidence is None:
        raise InputError(
            f"{result.name}: a living picture needs depth. Make the results without --image-only."
        )
    image, depth = (_reduced(one, _LONG_SIDE_PX) for one in (result.all_in_focus, result.depth))
    near = nearness(depth, field)
    far_end, near_end = (float(end) for end in np.quantile(near, (0.01, 0.99)))
    if near_end - far_end < 1e-9:
        far_end, near_end = far_end - 1e-6, near_end + 1e-6
    focus = np.linspace(far_end, near_end, _PICTURES)
    frames = _refocused(image, near, focus, _blur_scale(result, max(image.shape), near))
    environment = Environment(
        loader=PackageLoader("focaldiffusion.living_picture", "page"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    profile = result.image_metadata.icc_profile
    pictures = [_data_address(one, profile) for one in (image, *frames)]
    return environment.get_template("page.html.j2").render(
        name=printable(result.name),
        version=__version__,
        sharp=pictures[0],
        refocused=pictures[1:],
        width=image.shape[1],
        height=image.shape[0],
        facts={
            "focus": focus.tolist(),
            "field": field,
            "colours": ColourScale("", 0, 1, "viridis").gradient(256).tolist(),
            **_depth_facts(result, field, confidence, (far_end, near_end)),
        },
    )


def _depth_facts(
    result: Result | SavedResult, field: str, confidence: Plane, ends: tuple[float, float]
) -> dict[str, Any]:
    """The depth as the page reads it: nearness and confidence of each pixel, row by row."""
    depth, sure = (_reduced(one, _DEPTH_PX, True) for one in (result.depth, confidence))
    maps = [nearness(depth, field)]
    if result.depth_near is not None and result.depth_far is not None:
        for end in (result.depth_near, result.depth_far):
            maps.append(nearness(_reduced(end, _DEPTH_PX, True), field))
    low, high = (float(end) for end in np.quantile(maps, (0, 1)))
    steps = np.rint((np.stack(maps) - low) / max(high - low, 1e-12) * _STEPS).astype("<u2")
    levels = np.rint(sure * 255).astype(np.uint8)
    packed = zlib.compress(steps.tobytes() + levels.tobytes(), 9)
    return {
        "size": list(depth.shape),
        "bytes": base64.b64encode(packed).decode(),
        "low": low,
        "high": high,
        "shown": list(ends),
        "has_interval": len(maps) > 1,
        "is_known": bool(np.isfinite(depth).any()),
    }


def _refocused(
    image: Plane, near: Plane, focus: NDArray[np.float64], blur_scale: float
) -> list[Plane]:
    """The image (H, W, 3) focused at each of some nearnesses."""
    lowest = min(float(near.min()), float(focus.min()))
    frames = render(
        srgb_to_linear(torch.from_numpy(image)).permute(2, 0, 1),
        torch.from_numpy(near - np.float32(lowest)),
        torch.from_numpy((focus - lowest).astype(np.float32)),
        blur_scale,
        PSF(),
        max_layers=_LAYERS,
    )
    return list(linear_to_srgb(frames.clamp(0, 1)).permute(0, 2, 3, 1).numpy())


def _blur_scale(result: Result | SavedResult, long_side_px: int, near: Plane) -> float:
    """Blur diameter [px] per unit of nearness, at the size of the page's images."""
    least = _LEAST_BLUR * long_side_px / max(float(np.ptp(near)), 1e-9)
    scale, size = _working_blur_scale(result), _working_size(result)
    return least if scale is None else max(least, scale * long_side_px / max(size))


def _working_blur_scale(result: Result | SavedResult) -> float | None:
    if isinstance(result, Result):
        return result.calibration.blur_scale
    scale: float | None = result.metadata["blur_scale"]
    return scale


def _working_size(result: Result | SavedResult) -> tuple[int, ...]:
    return result.stack.size if isinstance(result, Result) else result.metadata["working_size"]


def _reduced(plane: Plane, long_side_px: int, is_map: bool | None = None) -> Plane:
    """An image, averaged, or a map, every so many values, with at most this long side."""
    height, width = plane.shape[:2]
    scale = min(1.0, long_side_px / max(height, width))
    size = max(1, math.floor(width * scale)), max(1, math.floor(height * scale))
    is_image = plane.ndim == 3 and not is_map
    way = cv2.INTER_AREA if is_image else cv2.INTER_NEAREST
    return np.ascontiguousarray(cv2.resize(plane, size, interpolation=way), np.float32)


def _data_address(image: Plane, profile: bytes | None) -> str:
    pixels = np.rint(image.clip(0, 1) * 255).astype(np.uint8)
    content = base64.b64encode(encoded_jpeg(pixels, profile, _QUALITY)).decode()
    return f"data:image/jpeg;base64,{content}"
