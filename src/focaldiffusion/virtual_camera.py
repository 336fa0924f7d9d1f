"""Simulated photographs: focal stacks of known scenes, and refocused results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.focus import focus_numbers
from focaldiffusion.io.arrays import Array, checked_array, srgb_of
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.result import Result
from focaldiffusion.saved import SavedResult
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.bokeh import Bokeh, Shape
from focaldiffusion.simulation.capture import capture
from focaldiffusion.simulation.render import MAX_LAYERS, render
from focaldiffusion.stack import FocalStack, MemoryFrames

_LEAST_AREA = 1e-4  # of the image, of the parallelogram of three points that are not on a line
_CATS_EYE_SHIFT = 0.9  # of the two discs in a corner, in radii


def simulate(
    all_in_focus: Array,
    depth_m: Array,
    *,
    camera: Camera,
    focus_distances_m: Sequence[float],
    psf: PSF | None = None,
    noise_std_lsb: float = 0.0,
    bit_depth: Literal[8, 16] | None = 8,
    seed: int = 0,
) -> FocalStack:
    """Photograph a known scene at several focus distances, with occlusion and sensor noise.

    Args:
        all_in_focus: (H, W, 3) or (H, W), sharp everywhere; uint8, uint16, or float in [0, 1],
            sRGB-encoded.
        depth_m: (H, W) metres along the optical axis; NaN pixels take the depth of the nearest
            known one.
        camera: optics at the size of the image, with an aperture.
        focus_distances_m: (N,) lens to plane of sharp focus [m], infinity allowed.
        psf: shape of the lens blur; None for a disc.
        noise_std_lsb: standard deviation of the noise, in steps of an 8-bit file.
        bit_depth: bit depth of the simulated files; None does not quantise.
        seed: seed of the noise.

    Raises:
        InputError: arrays that do not match, or impossible settings for a lens.
    """
    if not isinstance(camera, Camera):
        raise InputError(
            f"camera: got {type(camera).__name__}; expected a Camera with an aperture."
        )
    if not noise_std_lsb >= 0 or bit_depth not in (8, 16, None):
        raise InputError(
            f"noise_std_lsb {noise_std_lsb}, bit_depth {bit_depth}; expected noise from 0 on, and "
            "8, 16 or None bits."
        )
    image = torch.from_numpy(srgb_of(checked_array("all_in_focus", all_in_focus)))
    depth = torch.as_tensor(depth_m).detach().cpu().float()
    if depth.shape != image.shape[:2]:
        raise InputError(
            f"depth_m: shape {tuple(depth.shape)}, but the image is {tuple(image.shape[:2])}. "
            "Resize one to match the other; take the nearest pixel for depth."
        )
    if camera.image_size != tuple(depth.shape):
        raise InputError(
            f"camera: image size {camera.image_size}, but this image is {tuple(depth.shape)}. "
            "Use camera.resized()."
        )
    scene = Scene(srgb_to_linear(image).permute(2, 0, 1), depth, ~depth.isnan(), camera, "arrays")
    distances_m = focus_numbers("focus_distances_m", focus_distances_m)
    if len(distances_m) < 2:
        raise InputError("focus_distances_m: a stack needs at least 2 frames; list 2 or more.")
    stack = capture(
        scene,
        distances_m,
        psf=psf,
        noise_std_lsb=noise_std_lsb,
        bit_depth=bit_depth,
        generator=torch.Generator().manual_seed(seed),
    )
    return replace(stack, frames=MemoryFrames(stack, 8 if bit_depth == 8 else 16))


def refocus(
    result: Result,
    distance_m: float | None = None,
    f_number: float | None = None,
    *,
    plane: Sequence[tuple[float, float]] | None = None,
    aperture_diameter_m: float | None = None,
    psf: PSF | None = None,
    shape: Shape = "disc",
) -> NDArray[np.float32]:
    """Photograph a result again, focused at another distance, with another aperture.

    Args:
        result: result with metric depth.
        distance_m: lens to plane of sharp focus [m], infinity allowed.
        f_number: f-number of the aperture; needs the focal length in metres.
        plane: instead of the distance, three points (x, y) [px] of a tilted plane of focus, as a
            view camera has it; each lies on the surface that its pixel shows.
        aperture_diameter_m: diameter of the aperture, instead of the f-number. Without either, the
            blur matches the stack.
        psf: shape of the lens blur; None for a disc.
        shape: shape of the aperture, instead of a PSF: disc, hexagon, or cats_eye, which narrows
            towards the corners.

    Returns:
        (H, W, 3) float32, sRGB-encoded, in [0, 1].

    Raises:
        InputError: the depth is not metric, or too little is known about the lens.
    """
    if result.depth_field != "depth_m":
        raise InputError(
            f"{result.name}: refocusing needs depth in metres, but this is {result.depth_field}. "
            "Give focus distances."
        )
    if (distance_m is None) == (plane is None):
        raise InputError("refocus: give either distance_m, or three points of a plane.")
    inverse_depth_dpt = nearness(result.depth, "depth_m")
    if plane is not None:
        focus_dpt: float | NDArray[np.float32] = tilted_plane(inverse_depth_dpt, plane)
    elif distance_m is not None and distance_m > 0:
        focus_dpt = 1 / distance_m
    else:
        raise InputError(f"distance_m: {distance_m}; expected metres > 0, infinity allowed.")
    return photograph(
        result.all_in_focus,
        inverse_depth_dpt,
        focus_dpt,
        blur_scale_px_m(result, f_number, aperture_diameter_m),
        psf or shape,
    )


def photograph(
    all_in_focus: NDArray[np.float32],
    inverse_depth_dpt: NDArray[np.float32],
    focus_dpt: float | NDArray[np.float32],
    blur_scale_px_m: float,
    shape: PSF | Shape,
    *,
    max_layers: int = MAX_LAYERS,
) -> NDArray[np.float32]:
    """Photograph an image with its depth, see `refocus`.

    Focus that varies over the image, v(x), blurs by A F |v(x) - u(x)|, as constant focus v0 blurs
    a surface of u(x) - v(x) + v0. That moves neighbours alike, so what hides what stays.

    Args:
        all_in_focus: (H, W, 3), sRGB-encoded, in [0, 1].
        inverse_depth_dpt: (H, W), dioptres or any quantity that grows towards the camera.
        focus_dpt: focus on that scale, one number or (H, W).
        blur_scale_px_m: blur diameter [px] per unit of that scale.
        shape: shape of the blur.
        max_layers: see `render`.

    Returns:
        (H, W, 3) float32, sRGB-encoded, in [0, 1].
    """
    surface = np.asarray(inverse_depth_dpt - focus_dpt, np.float32)
    lowest = min(float(surface.min()), 0.0)
    light = srgb_to_linear(torch.from_numpy(all_in_focus)).permute(2, 0, 1)
    scene = light, torch.from_numpy(surface - np.float32(lowest)), torch.tensor([-lowest])
    if shape == "cats_eye":
        frame = _with_cats_eyes(*scene, blur_scale_px_m, max_layers)
    else:
        blur = shape if isinstance(shape, PSF) else PSF() if shape == "disc" else Bokeh(shape)
        frame = render(*scene, blur_scale_px_m, blur, max_layers=max_layers)[0]
    picture: NDArray[np.float32] = linear_to_srgb(frame.clamp(0, 1)).permute(1, 2, 0).numpy()
    return picture


def nearness(depth: Any, field: str) -> Any:
    """Dioptres of a depth in metres; of other depth, what grows towards the camera.

    The first frame of a stack without distances counts as the nearest, and the highest position.
    """
    values = np.asarray(depth, np.float32)
    if field == "depth_m":
        # NaN is treated as infinity: the two are indistinguishable.
        with np.errstate(divide="ignore"):
            return np.nan_to_num(1 / values, nan=0.0).astype(np.float32)
    known = np.nan_to_num(values)
    return known if field == "height_m" else 1 - known


def tilted_plane(
    inverse_depth_dpt: NDArray[np.float32], points: Sequence[tuple[float, float]]
) -> NDArray[np.float32]:
    """Inverse depth (H, W) of the plane through the surface at three points (x, y) [px].

    On a plane in space, inverse depth is linear in the image.

    Raises:
        InputError: not three points in the image, or points on a line.
    """
    height, width = inverse_depth_dpt.shape
    if len(points) != 3 or not all(0 <= x < width and 0 <= y < height for x, y in points):
        raise InputError(f"plane: {list(points)}; expected three points in the image, (x, y).")
    rows = np.array([[1, x, y] for x, y in points], np.float64)
    if abs(np.linalg.det(rows)) < _LEAST_AREA * height * width:
        raise InputError("plane: the three points lie on a line. Choose one off that line.")
    values = [inverse_depth_dpt[int(y), int(x)] for x, y in points]
    offset, slope_x, slope_y = np.linalg.solve(rows, values)
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
    return (offset + slope_x * x + slope_y * y).astype(np.float32)


def _with_cats_eyes(
    light: Tensor, surface: Tensor, focus: Tensor, blur_scale: float, max_layers: int
) -> Tensor:
    """A frame (3, H, W) whose blur is a disc in the middle and a cat's eye in the corners.

    It is rendered around nine places, each with its own shape, and blended between them.
    """
    height, width = surface.shape
    frame = torch.zeros_like(light)
    reach = math.ceil(blur_scale * float((surface - focus).abs().max()) / 2) + 2
    diagonal = math.hypot(height, width)
    across, down = (torch.linspace(-1, 1, side) for side in (width, height))
    for place_y in (-1.0, 0.0, 1.0):
        for place_x in (-1.0, 0.0, 1.0):
            near_x, near_y = 1 - (across - place_x).abs(), 1 - (down - place_y).abs()
            rows, columns = (_reached(near, reach) for near in (near_y, near_x))
            shift = (
                _CATS_EYE_SHIFT * place_x * width / diagonal,
                _CATS_EYE_SHIFT * place_y * height / diagonal,
            )
            part = render(
                light[:, rows, columns],
                surface[rows, columns],
                focus,
                blur_scale,
                Bokeh("cats_eye", shift),
                max_layers=max_layers,
            )[0]
            weight = near_y.clamp_min(0)[rows, None] * near_x.clamp_min(0)[columns]
            frame[:, rows, columns] += part * weight
    return frame


def _reached(near: Tensor, reach_px: int) -> slice:
    """The pixels of a line with a weight, and those whose blur reaches them."""
    used = (near > 0).nonzero().flatten()
    first, last = int(used[0]), int(used[-1])
    return slice(max(0, first - reach_px), min(len(near), last + 1 + reach_px))


def blur_scale_px_m(
    result: Result | SavedResult, f_number: float | None, aperture_diameter_m: float | None
) -> float:
    """Blur diameter [px] per dioptre, at native size.

    Raises:
        InputError: the blur is unknown.
    """
    if f_number is None and aperture_diameter_m is None:
        if result.blur_scale_px_m is None:
            raise InputError(
                f"{result.name}: the blur of its lens is unknown. Give aperture_diameter_m, and "
                "the lens where the stack is opened."
            )
        return result.blur_scale_px_m
    wanted = LensFacts(f_number=f_number, aperture_diameter_m=aperture_diameter_m)
    camera, lens, aperture_m = result.camera, result.lens, wanted.aperture_diameter_m
    focal_length_m = lens.focal_length_m
    if focal_length_m is None and camera is not None and lens.f_number is not None:
        opening_m = camera.aperture_diameter_m
        focal_length_m = None if opening_m is None else lens.f_number * opening_m
    if wanted.f_number is not None and focal_length_m is not None:
        aperture_m = focal_length_m / wanted.f_number
    if camera is None or aperture_m is None:
        needs = "focal length in pixels" if camera is None else "focal length in metres"
        raise InputError(
            f"{result.name}: its {needs} is unknown, so an aperture has no known blur. Give the "
            "lens where the stack is opened, or leave the aperture out."
        )
    return aperture_m * camera.focal_length_px
