"""Filling: where no frame is sharp, generated pixels replace fused ones, on request and marked."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from focaldiffusion.fusion.fuse import Fusion, Image, generated_mark
from focaldiffusion.optics import linear_to_srgb

_FEATHER_PX = 4  # width of the generated image's fade-in, at working resolution


def fill(fusion: Fusion, generated: Tensor, never_sharp: Tensor) -> Fusion:
    """Let a generated image replace the pixels that no frame shows sharp.

    The image fades in inside the mask, so every pixel outside keeps its captured value to the bit.
    Each pixel that it contributes to is marked.

    Args:
        fusion: fused image at native size (H, W).
        generated: (3, h, w) linear RGB in [0, 1], at working resolution.
        never_sharp: (h, w) bool.

    Returns:
        The fusion with the generated image in it, `generated_mark` in its `source_index`.
    """
    size = fusion.source_index.shape[::-1]
    depth_px = cv2.distanceTransform(never_sharp.cpu().numpy().astype(np.uint8), cv2.DIST_L2, 5)
    # The outermost pixels of the mask are left out: enlarging spreads them half a pixel outwards.
    share: Image = cv2.resize(
        np.clip((depth_px - 1) / _FEATHER_PX, 0, 1), size, interpolation=cv2.INTER_LINEAR
    )
    encoded = linear_to_srgb(generated.clamp(0, 1)).permute(1, 2, 0).cpu().numpy()
    image: Image = cv2.resize(encoded, size, interpolation=cv2.INTER_LINEAR)
    # In place, because the image has native size.
    image -= fusion.all_in_focus
    image *= share[..., None]
    image += fusion.all_in_focus
    source_index = fusion.source_index.copy()
    source_index[share > 0] = generated_mark(source_index.dtype)
    return Fusion(image, source_index)
