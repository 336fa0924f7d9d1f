"""Shared parts of published data sets: checks of options, complete samples, text files, frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.config.data import SPLITS, Source, Split
from focaldiffusion.data.rasters import read_light
from focaldiffusion.errors import InputError


def check_published(
    source: Source,
    *,
    split_from: str,
    splits: Sequence[Split] = SPLITS,
    depth_kind: Literal["planar", "ray"] = "planar",
    depth_scale: float = 1.0,
    layouts: Sequence[str] = (),
    has_stacks: bool = False,
    has_all_in_focus: bool = True,
) -> None:
    """Refuse options that contradict a data set of fixed layout, instead of ignoring them.

    Args:
        source: source of that data set.
        split_from: origin of its split, named if the source has a file list.
        splits: splits with public depth.
        depth_kind: kind of depth in its files.
        depth_scale: metres per unit of depth in its files.
        layouts: valid values of `layout`.
        has_stacks: whether it has photographed or rendered stacks to read.
        has_all_in_focus: whether it has images that the simulator can photograph.

    Raises:
        InputError: names the first option that does not apply.
    """
    options, kind = source.options, source.dataset_type
    if source.filelist is not None:
        raise InputError(
            f"{source.name}: a file list ({source.filelist}) with dataset_type {kind}, whose split "
            f"comes from {split_from}. Leave it out, or use dataset_type: filelist."
        )
    if options.generate_focal_stack is False and not has_stacks:
        raise InputError(
            f"{source.name}: generate_focal_stack is false, but {kind} has no photographed stacks. "
            "Leave it out."
        )
    if options.layout is not None and options.layout not in layouts:
        raise InputError(
            f"{source.name}: layout {options.layout!r} is unknown; {kind} "
            + (f"has {' and '.join(layouts)}." if layouts else "has one only. Leave it out.")
        )
    for name, given, published in (
        ("depth_kind", options.depth_kind, depth_kind),
        ("depth_scale", options.depth_scale, depth_scale),
        ("depth_shift", options.depth_shift or None, 0),
    ):
        if given is not None and given != published:
            raise InputError(
                f"{source.name}: {name} is {given}, but that of {kind} is {published}. "
                "Leave it out."
            )
    if has_stacks and not options.generate_focal_stack and options.focus_distances_m is not None:
        raise InputError(
            f"{source.name}: focus_distances_m are given, but the stacks of {kind} come with their "
            "own. Leave them out."
        )
    if source.split not in splits:
        raise InputError(
            f"{source.name}: {kind} has public depth for {' and '.join(splits)}, not for "
            f"{source.split}. Make it a source of {' or '.join(splits)}."
        )
    if options.generate_focal_stack and not has_all_in_focus:
        raise InputError(
            f"{source.name}: generate_focal_stack is true, but {kind} has no all-in-focus images "
            "to photograph. Leave it out."
        )


def first_missing(paths: Iterable[Path]) -> str | None:
    """A sentence on the first file that does not exist; None if all exist."""
    return next((f"{path}: no such file." for path in paths if not path.is_file()), None)


def samples_with_files(
    source: Source,
    names: Iterable[str],
    files_of: Callable[[str], Iterable[Path]],
    folder: Path,
    remedy: str,
) -> tuple[list[str], list[str]]:
    """`complete_samples` where a sample is complete if each of its files exists."""
    faults = {name: first_missing(files_of(name)) for name in names}
    return complete_samples(source, faults, folder, remedy)


def complete_samples(
    source: Source, faults: Mapping[str, str | None], folder: Path, remedy: str
) -> tuple[list[str], list[str]]:
    """The complete samples, and a sentence for each sample that is left out.

    Args:
        source: decides with `allow_missing` whether a sample may be left out.
        faults: a sentence for each sample on what it lacks, or None.
        folder: where the samples were looked for.
        remedy: a sentence on where to get the data, which ends messages.

    Raises:
        InputError: no sample at all, or a fault.
    """
    if not faults:
        raise InputError(f"{folder}: no sample of {source.dataset_type} in this folder. {remedy}")
    skipped = [f"{fault} {name} is left out." for name, fault in faults.items() if fault]
    if skipped and not source.allow_missing:
        raise InputError(f"{next(filter(None, faults.values()))} {remedy}")
    return [name for name, fault in faults.items() if fault is None], skipped


def without_frame(source: Source, missing: Path, remedy: str) -> str:
    """A sentence on a frame that is left out because a file is missing.

    Raises:
        InputError: the source does not allow missing samples; the remedy ends the message.
    """
    if not source.allow_missing:
        raise InputError(f"{missing}: no such file. {remedy}")
    return f"{missing}: no such file; its frame is left out."


def read_numbers(path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The numbers of a text file, separated by spaces, commas or line ends.

    Raises:
        InputError: unreadable, or another count of numbers than the shape has.
    """
    try:
        numbers = np.array(path.read_text(encoding="utf-8").replace(",", " ").split(), np.float64)
        return numbers.reshape(shape)
    except (OSError, ValueError) as error:
        wanted = " x ".join(map(str, shape))
        raise InputError(f"{path}: cannot be read as {wanted} numbers ({error}).") from error


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
