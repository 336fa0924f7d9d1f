"""Photographs as textures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.io.images import read_image
from focaldiffusion.optics import srgb_to_linear

_LONG_SIDE_PX = 384
_KEPT = 128
"""Number of photographs that each process caches: 75 MB."""

_SUFFIXES = {".jpg", ".jpeg", ".png"}


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


@lru_cache(maxsize=_KEPT)
def _read(path: Path) -> Tensor:
    """A photograph, reduced to `_LONG_SIDE_PX`: (3, h, w) linear light, half precision."""
    srgb = read_image(path)
    height, width = srgb.shape[:2]
    scale = min(1.0, _LONG_SIDE_PX / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    # Reduced as sRGB, which does not average light correctly, but takes half the time.
    small = torch.from_numpy(cv2.resize(srgb, size, interpolation=cv2.INTER_AREA))
    return srgb_to_linear(small).permute(2, 0, 1).contiguous().half()
