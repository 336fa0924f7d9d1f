"""Simulated photography: focal stacks of a scene, with the flaws of a real exposure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.errors import check_shape
from focaldiffusion.focus import check_focus
from focaldiffusion.optics import inverse_m, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.render import render
from focaldiffusion.stack import FocalStack


@dataclass(frozen=True, eq=False)
class Imperfections:
    """Flaws of the individual frames of a real stack; each attribute is None if ideal.

    Attributes:
        focus_errors_dpt: (N,), the lens focuses at 1/s + error while the stack reports s; not
            beyond infinity.
        magnifications: (N,), focus breathing left by alignment: scale of the image about the
            principal point.
        shifts_px: (N, 2), hand shake left by alignment: shift of the image by (x, y) [px].
        gains: (N,), exposure: factor of the light, before highlights clip.
    """

    focus_errors_dpt: Tensor | None = None
    magnifications: Tensor | None = None
    shifts_px: Tensor | None = None
    gains: Tensor | None = None

    def check(self, frame_count: int) -> None:
        """Raise ValueError unless every attribute has one entry per frame."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                shape = (frame_count, 2) if field.name == "shifts_px" else (frame_count,)
                check_shape(f"Imperfections.{field.name}", value, shape)


_IDEAL = Imperfections()


def capture(
    scene: Scene,
    focus_distances_m: Sequence[float] | Tensor,
    *,
    psf: PSF | None = None,
    blur_of: Literal["light", "srgb"] = "light",
    imperfections: Imperfections = _IDEAL,
    noise_std_lsb: float = 0.0,
    bit_depth: Literal[8, 16] | None = 8,
    jpeg_quality: int | None = None,
    generator: torch.Generator | None = None,
) -> FocalStack:
    """Photograph a scene at several focus distances.

    Renders, moves and exposes the frames in linear light, encodes them to sRGB, adds Gaussian
    noise, clips and quantises or compresses like a file, and returns to linear light.

    Args:
        scene: the scene to photograph. Invalid depth is replaced by that of the nearest valid
            pixel.
        focus_distances_m: (N,), N >= 2, lens to plane of sharp focus [m], infinity allowed.
        psf: shape of the blur; an ideal disc by default.
        blur_of: the quantity that defocus averages: light, or its sRGB code, as in many
            published simulators but in no lens.
        imperfections: differences between the frames and the reported focus and exposure.
        noise_std_lsb: standard deviation of the noise in sRGB, always in steps of an 8-bit file
            (1/255).
        bit_depth: bits of the simulated files; None does not quantise.
        jpeg_quality: 1 to 100, for JPEG files instead of `bit_depth`; None does not compress.
        generator: makes the noise repeatable; it may be on another device than the scene.

    Raises:
        InputError: focus distances that are equal, not positive, or fewer than two.
    """
    distances = torch.as_tensor(focus_distances_m, dtype=scene.depth_m.dtype)
    check_focus("focus_distances_m", distances.tolist(), len(distances))
    imperfections.check(len(distances))
    image = scene.all_in_focus
    if blur_of == "srgb":
        image = linear_to_srgb(image)
    focus_dpt = inverse_m(distances)
    if imperfections.focus_errors_dpt is not None:
        focus_dpt = (focus_dpt + imperfections.focus_errors_dpt.to(focus_dpt)).clamp_min(0)
    frames = render(
        image,
        filled_inverse_depth(scene),
        focus_dpt,
        scene.blur_scale_px_m,
        psf if psf is not None else PSF(),
    )
    if blur_of == "srgb":
        frames = srgb_to_linear(frames.clamp(0, 1))
    frames = moved(frames, scene.camera.principal_point_px, imperfections)
    if imperfections.gains is not None:
        frames = frames * imperfections.gains.to(frames)[:, None, None, None]
    encoded = linear_to_srgb(frames.clamp(0, 1))
    if noise_std_lsb > 0:
        device = generator.device if generator is not None else image.device
        noise = torch.randn(encoded.shape, generator=generator, dtype=image.dtype, device=device)
        encoded = (encoded + noise.to(image.device) * (noise_std_lsb / 255)).clamp(0, 1)
    if jpeg_quality is not None:
        encoded = compressed(encoded, jpeg_quality)
    elif bit_depth is not None:
        steps = 2**bit_depth - 1
        encoded = torch.round(encoded * steps) / steps
    return FocalStack(
        srgb_to_linear(encoded), camera=scene.camera, focus_distances_m=distances.to(image)
    )


def compressed(frames: Tensor, quality: int) -> Tensor:
    """Each frame after JPEG compression, with colours at half the resolution.

    Args:
        frames: (N, 3, H, W) sRGB in [0, 1].
        quality: 1 to 100.

    Returns:
        (N, 3, H, W) sRGB in [0, 1].
    """
    levels = (frames * 255).round().clamp(0, 255).byte().cpu().numpy()
    decoded = []
    for level in levels[:, ::-1].transpose(0, 2, 3, 1):
        _, file = cv2.imencode(".jpg", level, [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded.append(np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR)))
    restored = np.ascontiguousarray(np.stack(decoded).transpose(0, 3, 1, 2)[:, ::-1])
    return torch.from_numpy(restored).to(frames) / 255


def moved(frames: Tensor, centre_px: tuple[float, float], imperfections: Imperfections) -> Tensor:
    """The frames magnified about a centre and shifted, mirrored at the borders.

    Args:
        frames: (N, 3, H, W), linear light.
        centre_px: (x, y) of the principal point, pixel centres at halves.
        imperfections: magnifications and shifts to apply.

    Returns:
        (N, 3, H, W); `frames` itself if nothing moves.
    """
    scale, shift = imperfections.magnifications, imperfections.shifts_px
    if scale is None and shift is None:
        return frames
    count, _, height, width = frames.shape
    size, centre = frames.new_tensor([width, height]), frames.new_tensor(centre_px)
    scale = frames.new_ones(count) if scale is None else scale.to(frames)
    shift = frames.new_zeros(count, 2) if shift is None else shift.to(frames)
    # Pixel x samples c + (x - c - shift) / m; the grid runs from -1 to 1 over the size.
    m = scale[:, None]
    matrix = frames.new_zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / scale
    matrix[:, :, 2] = 1 / m - 1 + 2 * (centre - (centre + shift) / m) / size
    grid = functional.affine_grid(matrix, list(frames.shape), align_corners=False)
    # Bilinear sampling would blur moved frames by up to half a pixel.
    return functional.grid_sample(
        frames, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )


def filled_inverse_depth(scene: Scene) -> Tensor:
    """Inverse depth without gaps: an invalid pixel takes the value of the nearest valid one.

    Interpolation would invent a surface between a near and a far one, and its blur would show.

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
