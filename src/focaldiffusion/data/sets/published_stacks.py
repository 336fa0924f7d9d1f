"""Shared parts of data sets of published focal stacks: checks of options, frames."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import torch
from torch import Tensor

from focaldiffusion.config.data import Source, Split
from focaldiffusion.data.rasters import read_light
from focaldiffusion.data.sets.options import check_published
from focaldiffusion.errors import InputError


def check_published_stacks(
    source: Source,
    splits: Sequence[Split],
    *,
    layouts: Sequence[str] = (),
    has_all_in_focus: bool = True,
) -> None:
    """Refuse options that contradict a data set of published stacks, instead of ignoring them.

    Args:
        source: source of that data set.
        splits: splits with public depth.
        layouts: valid values of `layout`.
        has_all_in_focus: whether it has images that the simulator can photograph.

    Raises:
        InputError: another split, or the first option that does not apply.
    """
    kind = source.dataset_type
    check_published(
        source,
        split_from="its files",
        depth_kind="planar",
        depth_scale=1.0,
        layouts=layouts,
        has_stacks=True,
    )
    if source.split not in splits:
        raise InputError(
            f"{source.name}: {kind} has public depth for {' and '.join(splits)}, not for "
            f"{source.split}. Make it a source of {' or '.join(splits)}."
        )
    if source.options.generate_focal_stack and not has_all_in_focus:
        raise InputError(
            f"{source.name}: generate_focal_stack is true, but {kind} has no all-in-focus images "
            "to photograph. Leave it out."
        )


def light_on_grid(path: Path, size: tuple[int, int]) -> Tensor:
    """An image as linear light on the grid of its depth map.

    Larger images are averaged down, so that a measured depth is never interpolated.

    Args:
        path: the image.
        size: (height, width) of the depth map.

    Returns:
        (3, height, width) float32, [0, 1], linear RGB.

    Raises:
        InputError: unreadable, smaller than the depth map, or another aspect.
    """
    light = read_light(path)
    height, width = light.shape[1:]
    if (height, width) == size:
        return light
    if height < size[0] or height * size[1] != width * size[0]:
        raise InputError(
            f"{path}: {width}x{height}, but its depth map is {size[1]}x{size[0]}; expected the "
            "same size, or a larger one of the same aspect. Get the files again."
        )
    pixels = light.permute(1, 2, 0).contiguous().numpy()
    averaged = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return torch.from_numpy(averaged).permute(2, 0, 1).contiguous()


def frames_on_grid(paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """The frames of a stack, see `light_on_grid`: (N, 3, height, width)."""
    return torch.stack([light_on_grid(path, size) for path in paths])
