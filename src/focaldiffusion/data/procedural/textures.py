"""Materials of surfaces: pictures with mip levels, photographs among them, and gloss."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.errors import InputError
from focaldiffusion.io.images import read_image
from focaldiffusion.optics import srgb_to_linear

_ONE_LEVEL = 0.5
"""Points whose levels differ by less share one level, as on surfaces that face the camera."""
_LONG_SIDE_PX = 384
_CACHED_PHOTOGRAPHS = 128
"""Number of photographs that each process caches: 75 MB."""
_SUFFIXES = {".jpg", ".jpeg", ".png"}


class Texture:
    """A picture that covers surfaces, mirrored endlessly at its borders.

    Attributes:
        levels: (3, h, w) linear light, each half the size of the one before.
    """

    def __init__(self, picture: Tensor) -> None:
        self.levels = [picture]
        while min(self.levels[-1].shape[-2:]) > 4:
            self.levels.append(functional.avg_pool2d(self.levels[-1], 2))

    def sample(self, u_px: Tensor, v_px: Tensor, footprint_px: Tensor) -> Tensor:
        """Colours (3, P) of points given in pixels of the finest level, shape (P,).

        Args:
            u_px: to the right.
            v_px: downwards.
            footprint_px: size of a sample, over which light is averaged.
        """
        height, width = self.levels[0].shape[-2:]
        if height == width == 1:
            return self.levels[0][:, 0].expand(-1, len(u_px))
        grid = torch.stack([u_px * (2 / width) - 1, v_px * (2 / height) - 1], -1)[None, None]
        level = footprint_px.log2().clamp(0, len(self.levels) - 1)
        first, last = (float(end) for end in torch.aminmax(level))
        if last - first < _ONE_LEVEL:
            return self._sample_level(round((first + last) / 2), grid)
        colours = u_px.new_zeros(3, len(u_px))
        for number in range(math.floor(first), math.ceil(last) + 1):
            weight = (1 - (level - number).abs()).clamp_min(0)
            colours += self._sample_level(number, grid) * weight
        return colours

    def _sample_level(self, number: int, grid: Tensor) -> Tensor:
        return functional.grid_sample(
            self.levels[number][None], grid, padding_mode="reflection", align_corners=False
        )[0, :, 0]


@dataclass(frozen=True, eq=False)
class Material:
    """Reflection and emission of a surface.

    Attributes:
        texture: share of the light that it scatters, by colour.
        gloss: strength of the highlight, 0 for none.
        sharpness: Blinn-Phong exponent of the highlight.
        glow: emitted light, in units of its texture.
    """

    texture: Texture
    gloss: float = 0.0
    sharpness: float = 1.0
    glow: float = 0.0


@dataclass(frozen=True)
class Photographs:
    """Files from which parts of pictures are drawn.

    Attributes:
        paths: JPEG or PNG files, in an order that does not depend on the file system.
    """

    paths: tuple[Path, ...]

    @classmethod
    def of(cls, folders: Sequence[Path]) -> Photographs | None:
        """The photographs in folders and their subfolders; None without folders.

        Raises:
            InputError: a folder without photographs; names it.
        """
        paths: list[Path] = []
        for folder in folders:
            found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
            if not found:
                raise InputError(
                    f"{folder}: no photographs to take textures from; expected a folder with .jpg "
                    "or .png files in it or its subfolders. Name another one as data_root, or [] "
                    "for drawn textures alone."
                )
            paths += found
        return cls(tuple(paths)) if paths else None

    def __call__(self, rng: np.random.Generator) -> Tensor:
        """A part of a random photograph, (3, h, w) linear light."""
        picture = _read(self.paths[rng.integers(len(self.paths))]).float()
        height, width = picture.shape[-2:]
        rows, columns = (max(8, int(size * rng.uniform(0.5, 1))) for size in (height, width))
        top = int(rng.integers(0, max(height - rows, 0) + 1))
        left = int(rng.integers(0, max(width - columns, 0) + 1))
        return picture[:, top : top + rows, left : left + columns]


@lru_cache(maxsize=_CACHED_PHOTOGRAPHS)
def _read(path: Path) -> Tensor:
    """A photograph, reduced to `_LONG_SIDE_PX`: (3, h, w) linear light, half precision."""
    srgb = read_image(path)
    height, width = srgb.shape[:2]
    scale = min(1.0, _LONG_SIDE_PX / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    # Reduced as sRGB, which does not average light correctly, but takes half the time.
    small = torch.from_numpy(cv2.resize(srgb, size, interpolation=cv2.INTER_AREA))
    return srgb_to_linear(small).permute(2, 0, 1).contiguous().half()
