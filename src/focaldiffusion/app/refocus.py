"""The image of a result, focused elsewhere, as the page asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.app.views import Place, View, view_of
from focaldiffusion.errors import InputError
from focaldiffusion.io.pyramid import encoded_jpeg
from focaldiffusion.simulation.bokeh import Shape
from focaldiffusion.threads import threads
from focaldiffusion.virtual_camera import blur_scale_px_m, nearness, photograph, tilted_plane

_DRAFTS = {"disc": (352, 6), "hexagon": (352, 6), "cats_eye": (192, 6)}
"""Long side and layers of a draft; blur that changes over the image takes four times as long."""
_FULL_PX, _FULL_LAYERS = 2048, 16  # more takes minutes
_DRAFT_QUALITY, _FULL_QUALITY = 85, 92

Plane = NDArray[np.float32]


class Flat(NamedTuple):
    """A result at the size at which it is photographed.

    Attributes:
        image: (h, w, 3), sRGB-encoded, in [0, 1].
        nearness: (h, w), dioptres, or what stands for them: grows towards the camera.
        scale: size relative to native.
        layers: most layers of the renderer.
        quality: of the JPEG.
    """

    image: Plane
    nearness: Plane
    scale: float
    layers: int
    quality: int


def refocused(place: Place, wanted: Mapping[str, Any]) -> tuple[str, bytes]:
    """The image focused elsewhere.

    Args:
        place: of the result.
        wanted: `distance_m` in the unit of the depth, or `plane`, three points; `f_number` or
            `blur_px`, the largest blur radius at native size, or neither for the stack's blur;
            `shape`; `size`, draft or full.

    Returns:
        Media type and content.

    Raises:
        InputError: the result has no depth, or the request is not as above.
    """
    view = view_of(place)
    shape, is_draft = shape_of(wanted), wanted.get("size", "draft") == "draft"
    if is_draft:
        flat = _draft(view, view.revision, *_DRAFTS[shape])
    else:
        flat = flat_at(view, _FULL_PX, _FULL_LAYERS)
    if (points := wanted.get("plane")) is not None:
        focus: float | Plane = tilted_plane(flat.nearness, _scaled(points, flat.scale))
    else:
        field = view.saved.depth_field or ""
        focus = float(nearness(number(wanted, "distance_m"), field))
    picture = photographed(flat, focus, blur_of(view, flat, focus, wanted), shape)
    content = encoded_jpeg(
        np.rint(picture * 255).astype(np.uint8),
        view.saved.image_metadata.icc_profile,
        flat.quality,
    )
    return "image/jpeg", content


def _scaled(points: object, scale: float) -> list[tuple[float, float]]:
    """Points of a request at another scale."""
    try:
        return [(float(x) * scale, float(y) * scale) for x, y in points]  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        raise InputError(f"plane: {points!r}; expected three points, [x, y] each.") from None


def photographed(flat: Flat, focus: float | Plane, blur_scale: float, shape: Shape) -> Plane:
    """The image at the size of `flat`, with a blur scale at that size."""
    # Small transforms are not worth the waiting of several threads for each other.
    with nullcontext() if flat.layers == _FULL_LAYERS else threads():
        return photograph(
            flat.image, flat.nearness, focus, blur_scale, shape, max_layers=flat.layers
        )


def flat_at(view: View, long_side_px: int, layers: int, quality: int = _FULL_QUALITY) -> Flat:
    """The result with at most this long side.

    Raises:
        InputError: it has no depth.
    """
    field = view.saved.depth_field
    if field is None:
        raise InputError(f"{view.saved.name}: only the image was wanted; this needs its depth.")
    height, width = view.size
    scale = min(1.0, long_side_px / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    # The smallest level that is large enough.
    levels = view.layer("image").levels
    level = next(i for i, one in enumerate(levels) if max(one.shape) >= max(size))
    pixels = view.screen_values[np.asarray(levels[level])]
    image = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA) / np.float32(255)
    depth = np.asarray(view.layer("depth").levels[level])
    depth = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    return Flat(image, nearness(depth, field), scale, layers, quality)


@lru_cache(maxsize=2)
def _draft(view: View, revision: int, long_side_px: int, layers: int) -> Flat:
    return flat_at(view, long_side_px, layers, _DRAFT_QUALITY)


def blur_of(view: View, flat: Flat, focus: float | Plane, wanted: Mapping[str, Any]) -> float:
    """Blur diameter [px] per unit of nearness, at the size of `flat`.

    Raises:
        InputError: too little is known of the lens.
    """
    saved = view.saved
    if wanted.get("f_number") is not None:
        if saved.depth_field != "depth_m":
            raise InputError("an f-number needs depth in metres. Choose the blur in pixels.")
        return blur_scale_px_m(saved, number(wanted, "f_number"), None) * flat.scale
    if wanted.get("blur_px") is not None:
        defocus = np.abs(flat.nearness - focus)
        farthest = max(float(np.quantile(defocus, 0.99)), 1e-12)
        return 2 * number(wanted, "blur_px") * flat.scale / farthest
    if saved.blur_scale is None:
        raise InputError(f"{saved.name}: the blur of its lens is unknown. Choose it in pixels.")
    return saved.blur_scale * flat.scale


def shape_of(wanted: Mapping[str, Any]) -> Shape:
    """Shape of the aperture.

    Raises:
        InputError: an unknown one.
    """
    shape = str(wanted.get("shape", "disc")).replace("-", "_")
    if shape not in get_args(Shape):
        raise InputError(f"shape {shape!r}: expected one of {', '.join(get_args(Shape))}.")
    return cast(Shape, shape)


def number(wanted: Mapping[str, Any], name: str) -> float:
    """A number >= 0 of a request; "inf" is infinity.

    Raises:
        InputError: it is none.
    """
    try:
        value = float(wanted[name])
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{name}: {wanted.get(name)!r}; expected a number.") from None
    if not value >= 0:
        raise InputError(f"{name}: {value}; expected a number from 0 on.")
    return value
