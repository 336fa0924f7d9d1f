"""A simulated photographer: focal stacks of a scene, with the sensor's noise and bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from focaldiffusion.optics import inverse_m, linear_to_srgb, srgb_to_linear
from focaldiffusion.physics.psf import PSF
from focaldiffusion.physics.render import render
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack, check_focus


def capture(
    scene: Scene,
    focus_distances_m: Sequence[float] | Tensor,
    *,
    psf: PSF | None = None,
    noise_std_lsb: float = 0.0,
    bit_depth: Literal[8, 16] | None = 8,
    generator: torch.Generator | None = None,
) -> FocalStack:
    """Photograph a scene at several focus distances.

    Renders in linear light, encodes to sRGB, adds Gaussian noise, clips and quantises as a file
    would, and returns to linear light.

    Args:
        scene: what to photograph. Where its depth is invalid, that of the nearest valid pixel
            is taken.
        focus_distances_m: (N,), N >= 2, lens to plane of sharp focus [m], infinity allowed.
        psf: the shape of the blur; an ideal disc when not given.
        noise_std_lsb: standard deviation of the noise in sRGB, in steps of an 8-bit file (1/255)
            whatever the bit depth.
        bit_depth: of the simulated files; None does not quantise.
        generator: makes the noise repeatable; its device need not be the scene's.

    Raises:
        InputError: focus distances that are equal, not positive, or fewer than two.
    """
    distances = torch.as_tensor(focus_distances_m, dtype=scene.depth_m.dtype)
    check_focus("focus_distances_m", distances.tolist(), len(distances))
    image = scene.all_in_focus
    frames = render(
        image,
        filled_inverse_depth(scene),
        inverse_m(distances),
        scene.camera.blur_scale_px_m,
        psf if psf is not None else PSF(),
    )
    encoded = linear_to_srgb(frames.clamp(0, 1))
    if noise_std_lsb > 0:
        device = generator.device if generator is not None else image.device
        noise = torch.randn(encoded.shape, generator=generator, dtype=image.dtype, device=device)
        encoded = (encoded + noise.to(image.device) * (noise_std_lsb / 255)).clamp(0, 1)
    if bit_depth is not None:
        steps = 2**bit_depth - 1
        encoded = torch.round(encoded * steps) / steps
    return FocalStack(
        srgb_to_linear(encoded), camera=scene.camera, focus_distances_m=distances.to(image)
    )


def filled_inverse_depth(scene: Scene) -> Tensor:
    """Inverse depth without gaps: an invalid pixel takes that of the nearest valid one.

    Not an interpolation: between a near and a far surface there is no third, and a hole blurred
    at a depth of its own would leave a mark.

    Returns:
        (H, W), dioptres.
    """
    inverse_depth_dpt = inverse_m(scene.depth_m)
    if bool(scene.valid.all()):
        return inverse_depth_dpt
    holes = (~scene.valid).cpu().numpy().astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(
        holes, cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # The labels number the valid pixels; find the pixel behind each number.
    pixel_of_label = np.zeros(labels.max() + 1, dtype=np.int64)
    valid = holes == 0
    pixel_of_label[labels[valid]] = np.flatnonzero(valid)
    nearest = torch.from_numpy(pixel_of_label[labels]).to(scene.depth_m.device)
    return inverse_depth_dpt.flatten()[nearest]
