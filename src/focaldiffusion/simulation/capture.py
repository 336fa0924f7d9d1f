"""A simulated photographer: focal stacks of a scene, with the flaws of a real exposure."""

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
from focaldiffusion.optics import inverse_m, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.render import render
from focaldiffusion.stack import FocalStack, check_focus


@dataclass(frozen=True, eq=False)
class Imperfections:
    """What the frames of a real stack suffer one by one; each attribute is None where ideal.

    Attributes:
        focus_errors_dpt: (N,), the lens focuses at 1/s + error while the stack reports s; not
            beyond infinity.
        magnifications: (N,), what alignment left of focus breathing: the image is this much
            larger, about the principal point.
        shifts_px: (N, 2), what alignment left of hand shake: the image moves by (x, y) [px].
        gains: (N,), exposure: a factor of the light, before highlights clip.
    """

    focus_errors_dpt: Tensor | None = None
    magnifications: Tensor | None = None
    shifts_px: Tensor | None = None
    gains: Tensor | None = None

    def check(self, frame_count: int) -> None:
        """Check that every attribute has one entry a frame.

        Raises:
            ValueError: another shape.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                shape = (frame_count, 2) if field.name == "shifts_px" else (frame_count,)
                check_shape(f"Imperfections.{field.name}", value, shape)


IDEAL = Imperfections()


def capture(
    scene: Scene,
    focus_distances_m: Sequence[float] | Tensor,
    *,
    psf: PSF | None = None,
    blur_of: Literal["light", "srgb"] = "light",
    imperfections: Imperfections = IDEAL,
    noise_std_lsb: float = 0.0,
    bit_depth: Literal[8, 16] | None = 8,
    jpeg_quality: int | None = None,
    generator: torch.Generator | None = None,
) -> FocalStack:
    """Photograph a scene at several focus distances.

    Renders, moves and exposes the frames in linear light, encodes to sRGB, adds Gaussian noise,
    clips and quantises or compresses as a file would, and returns to linear light.

    Args:
        scene: what to photograph. Where its depth is invalid, that of the nearest valid pixel
            is taken.
        focus_distances_m: (N,), N >= 2, lens to plane of sharp focus [m], infinity allowed.
        psf: the shape of the blur; an ideal disc when not given.
        blur_of: what a defocused lens averages: light, or its sRGB code as if that were light,
            which no lens does but many published simulators do.
        imperfections: by how much the frames differ from what the stack reports of them.
        noise_std_lsb: standard deviation of the noise in sRGB, in steps of an 8-bit file (1/255)
            whatever the bit depth.
        bit_depth: of the simulated files; None does not quantise.
        jpeg_quality: 1 to 100, of JPEG files in place of `bit_depth`; None compresses nothing.
        generator: makes the noise repeatable; its device need not be the scene's.

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
    """What a JPEG file leaves of each frame, its colours at half the resolution.

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
        imperfections: which magnifications and shifts.

    Returns:
        (N, 3, H, W); `frames` itself where nothing moves.
    """
    if imperfections.magnifications is None and imperfections.shifts_px is None:
        return frames
    count, _, height, width = frames.shape
    size, centre = frames.new_tensor([width, height]), frames.new_tensor(centre_px)
    magnification = frames.new_ones(count, 1)
    if imperfections.magnifications is not None:
        magnification = imperfections.magnifications.to(frames)[:, None]
    shift = frames.new_zeros(count, 2)
    if imperfections.shifts_px is not None:
        shift = imperfections.shifts_px.to(frames)
    # A pixel at x shows what was at c + (x - c - shift) / m; the grid counts -1 to 1 over the size.
    offset = centre - (centre + shift) / magnification
    matrix = frames.new_zeros(count, 2, 3)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / magnification[:, 0]
    matrix[:, :, 2] = 1 / magnification - 1 + 2 * offset / size
    grid = functional.affine_grid(matrix, list(frames.shape), align_corners=False)
    # Bilinear would blur a frame by up to half a pixel wherever it is moved.
    return functional.grid_sample(
        frames, grid, mode="bicubic", padding_mode="reflection", align_corners=False
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
