"""Small simulated stacks that the tests of the physical estimate share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture
from focaldiffusion.stack import FocalStack

SIZE = (72, 96)
FOCUS_M = (0.5, 0.67, 1.0, 2.0)
"""2 to 0.5 dpt in equal steps of half a dioptre."""
BLUR_SCALE_PX_M = 8.0
"""Blur diameter a dioptre: 12 px between the outermost frames."""


def texture(size: tuple[int, int] = SIZE, seed: int = 0, contrast: float = 0.5) -> Tensor:
    """(3, H, W) linear: grey noise of four octaves, sRGB within 0.5 ± contrast / 2."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(1, 1, *size)
    for octave in range(4):
        side = [max(2, -(-length // 2**octave)) for length in size]
        noise = torch.rand(1, 1, *side, generator=generator) - 0.5
        total += functional.interpolate(noise, size=size, mode="bilinear", align_corners=False)
    total = 0.5 + 0.5 * contrast * total / total.abs().amax()
    return srgb_to_linear(total[0].expand(3, *size))


def photograph(
    image: Tensor | float,
    depth_m: Tensor | float,
    focus_m: Sequence[float] = FOCUS_M,
    *,
    size: tuple[int, int] = SIZE,
    blur_scale_px_m: float = BLUR_SCALE_PX_M,
    noise_std_lsb: float = 0.5,
) -> FocalStack:
    """An 8-bit stack of an image (3, H, W) or grey value at a depth (H, W) or of one value."""
    depth = torch.as_tensor(depth_m, dtype=torch.float32).expand(size)
    scene = Scene(
        all_in_focus=torch.as_tensor(image, dtype=torch.float32).expand(3, *size),
        depth_m=depth,
        valid=torch.ones(size, dtype=torch.bool),
        camera=Camera(1000.0, blur_scale_px_m / 1000, size),
        source="simulated",
    )
    return capture(
        scene,
        focus_m,
        noise_std_lsb=noise_std_lsb,
        generator=torch.Generator().manual_seed(1),
    )


@dataclass
class Frames:
    """A FrameSource of arrays (H, W, 3) in memory."""

    images: list[NDArray[np.float32]]
    bit_depth: int = 8
    is_grey: bool = False

    def __post_init__(self) -> None:
        self.names = tuple(f"frame {index}" for index in range(len(self.images)))
        self.size = self.images[0].shape[:2]

    def read(self, index: int) -> NDArray[np.float32]:
        return self.images[index].copy()


def native(stack: FocalStack, bit_depth: int = 8) -> Frames:
    """The frames of a stack as files of that bit depth would hold them."""
    steps = 2**bit_depth - 1
    encoded = linear_to_srgb(stack.images).permute(0, 2, 3, 1).numpy()
    return Frames(
        [np.round(frame * steps).astype(np.float32) / np.float32(steps) for frame in encoded],
        bit_depth,
    )
