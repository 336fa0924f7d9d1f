"""Simulated photographs: focal stacks of known scenes, and refocused results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.focus import focus_numbers
from focaldiffusion.io.arrays import Array, checked_array, srgb_of
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.result import Result
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture
from focaldiffusion.simulation.render import render
from focaldiffusion.stack import FocalStack, MemoryFrames


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
    distance_m: float,
    f_number: float | None = None,
    *,
    aperture_diameter_m: float | None = None,
    psf: PSF | None = None,
) -> NDArray[np.float32]:
    """Photograph a result again, focused at another distance, with another aperture.

    Args:
        result: result with metric depth.
        distance_m: lens to plane of sharp focus [m], infinity allowed.
        f_number: f-number of the aperture; needs the focal length in metres.
        aperture_diameter_m: diameter of the aperture, instead of the f-number. Without either, the
            blur matches the stack.
        psf: shape of the lens blur; None for a disc.

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
    if not distance_m > 0:
        raise InputError(f"distance_m: {distance_m}; expected metres > 0, infinity allowed.")
    # NaN is treated as infinity: the two are indistinguishable.
    inverse_depth_dpt = np.nan_to_num(1 / result.depth, nan=0.0)
    frame = render(
        srgb_to_linear(torch.from_numpy(result.all_in_focus)).permute(2, 0, 1),
        torch.from_numpy(inverse_depth_dpt),
        torch.tensor([1 / distance_m]),
        _blur_scale_px_m(result, f_number, aperture_diameter_m),
        psf or PSF(),
    )[0]
    picture: NDArray[np.float32] = linear_to_srgb(frame.clamp(0, 1)).permute(1, 2, 0).numpy()
    return picture


def _blur_scale_px_m(
    result: Result, f_number: float | None, aperture_diameter_m: float | None
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
