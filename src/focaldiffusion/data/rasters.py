"""Images and depth maps read from the files of a data set, turned and scaled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.config.data import DatasetOptions
from focaldiffusion.depth import depth_from_ray_distance
from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import looks_like_millimetres, read_values
from focaldiffusion.io.images import read_image
from focaldiffusion.optics import Camera, srgb_to_linear

Turn = Literal[
    "transpose", "flip_horizontal", "flip_vertical", "rotate_90", "rotate_180", "rotate_270"
]
"""Rows for columns; left for right; top for bottom; degrees clockwise."""


def turned(raster: Tensor, turns: Sequence[Turn]) -> Tensor:
    """An image (3, H, W) or a map (H, W) after a sequence of turns."""
    for turn in turns:
        if turn == "transpose":
            raster = raster.transpose(-1, -2)
        elif turn.startswith("flip"):
            raster = raster.flip(-1 if turn == "flip_horizontal" else -2)
        else:
            raster = raster.rot90(-int(turn.removeprefix("rotate_")) // 90, (-2, -1))
    return raster.contiguous()


def as_light(srgb: NDArray[np.float32], turns: Sequence[Turn] = ()) -> Tensor:
    """An image (H, W, 3), encoded as sRGB, as linear light (3, H, W)."""
    return turned(srgb_to_linear(torch.from_numpy(srgb).permute(2, 0, 1)), turns)


def read_light(path: Path, turns: Sequence[Turn] = ()) -> Tensor:
    """An image file as linear light.

    Returns:
        (3, H, W) float32, [0, 1], linear RGB.

    Raises:
        InputError: missing or unreadable; the message names the file.
    """
    return as_light(read_image(path), turns)


def check_size(path: Path, raster: Tensor, size: tuple[int, int], other: Path) -> None:
    """Check that an image or a map has the (height, width) of another file.

    Raises:
        InputError: names both files and both sizes.
    """
    height, width = raster.shape[-2:]
    if (height, width) != size:
        raise InputError(
            f"{path}: {width}x{height}, but {other} is {size[1]}x{size[0]}. "
            "They must show the same view: correct the pair or its orientation, or resize one; "
            "take the nearest pixel for depth."
        )


@dataclass(frozen=True)
class DepthFormat:
    """Units and kind of the numbers in depth files.

    Attributes:
        scale_m: metres per unit; None for files of metres, which a PNG of whole numbers cannot be.
        shift_m: metres added to the scaled numbers.
        largest_m: larger values mark unknown pixels, such as sky or saturation.
        kind: along the optical axis, or along each pixel's ray.
        bounds_m: nearest and farthest trusted depth; None trusts all.
    """

    scale_m: float | None = None
    shift_m: float = 0.0
    largest_m: float = math.inf
    kind: Literal["planar", "ray"] = "planar"
    bounds_m: tuple[float, float] | None = None

    @classmethod
    def of(cls, options: DatasetOptions) -> DepthFormat:
        """The format that a configuration describes."""
        return cls(
            scale_m=options.depth_scale,
            shift_m=options.depth_shift,
            kind=options.depth_kind or "planar",
            bounds_m=options.depth_bounds,
        )

    def check(self, path: Path, place: str) -> None:
        """Check from its name alone that the unit of a file is known.

        Raises:
            InputError: a file of whole numbers without a scale.
        """
        if self.scale_m is None and path.suffix.lower() == ".png":
            raise InputError(
                f"{place}: {path.name} holds whole numbers of unknown unit. "
                "Give depth_scale: 0.001 for millimetres, 0.01 for centimetres."
            )

    def read(self, path: Path, *, dataset: str | None = None, turns: Sequence[Turn] = ()) -> Tensor:
        """The depth of a file, still of its `kind`.

        Unknown are NaN, infinity and 0 in the file, and depth that is not positive after scale and
        shift.

        Args:
            path: the file.
            dataset: name of the array in an HDF5 file.
            turns: how the map is turned.

        Returns:
            (H, W) float32 metres, NaN where unknown.

        Raises:
            InputError: missing, unreadable, or in an unknown unit; names the file.
        """
        values = read_values(path, dataset)
        if self.scale_m is None and looks_like_millimetres(values):
            raise InputError(
                f"{path}: half of the depth is above 100, which looks like another unit. Give "
                "depth_scale: 0.001 for millimetres, 0.01 for centimetres; or 1, if it is metres."
            )
        depth_m = values * (1.0 if self.scale_m is None else self.scale_m) + self.shift_m
        known = (values != 0) & (depth_m > 0) & (depth_m <= self.largest_m) & depth_m.isfinite()
        return turned(depth_m.masked_fill(~known, torch.nan), turns)

    def planar(self, depth_m: Tensor, camera: Camera | None, source: str) -> Tensor:
        """Depth along the optical axis, within the bounds, from the result of `read`.

        Args:
            depth_m: (H, W) metres, NaN where unknown.
            camera: camera of the turned map; None where unknown.
            source: name of the sample in messages.

        Returns:
            (H, W) metres, NaN where unknown or out of bounds.

        Raises:
            InputError: distances along rays of an unknown camera.
        """
        if self.kind == "ray":
            if camera is None:
                raise InputError(
                    f"{source}: depth_kind is ray, which needs a camera to convert to planar "
                    "depth, but the camera is unknown. Give it with the sample, in stack.json or "
                    "in data.dataset_kwargs.camera_defaults."
                )
            depth_m = depth_from_ray_distance(depth_m, camera)
        if self.bounds_m is None:
            return depth_m
        near_m, far_m = self.bounds_m
        return depth_m.masked_fill((depth_m < near_m) | (depth_m > far_m), torch.nan)
