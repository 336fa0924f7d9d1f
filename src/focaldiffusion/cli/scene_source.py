"""The scene that `focaldiffusion simulate` photographs: two files, or a sample of a data set."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts

if TYPE_CHECKING:
    from torch import Tensor

    from focaldiffusion.data.dataset import Dataset
    from focaldiffusion.optics import Camera
    from focaldiffusion.scene import Scene


def add_dataset(group: argparse._ArgumentGroup) -> None:
    """Add the flags of a data set, which `chosen_scene` reads."""
    group.add_argument(
        "--dataset", metavar="NAME", help="a data set by name, such as hypersim; see docs/data.md"
    )
    group.add_argument("--data-root", metavar="DIR", help="folder of the data set")
    group.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="test",
        help="part of the data set (default: test)",
    )
    group.add_argument(
        "--filelist", metavar="FILE", help="file list of the data set called filelist"
    )
    group.add_argument(
        "--layout", metavar="NAME", help="arrangement of the data set's files, if it has several"
    )


def chosen_scene(options: argparse.Namespace, lens: LensFacts) -> Scene:
    """The scene that the flags choose.

    Raises:
        InputError: neither or both kinds of scene, or one that cannot be read.
    """
    pair = [flag for flag in ("image", "depth") if getattr(options, flag) is not None]
    if (options.dataset is not None) == bool(pair):
        raise InputError(
            "give --image with --depth, or --dataset with --data-root: one scene to photograph."
        )
    if options.dataset is None:
        of_dataset = ("sample", "data_root", "filelist", "layout")
        stray = [name for name in of_dataset if getattr(options, name) is not None]
        if stray:
            flag = stray[0].replace("_", "-")
            raise InputError(f"--{flag} does not apply to --{pair[0]}; use it with --dataset.")
        if len(pair) < 2:
            raise InputError(f"--{pair[0]} alone is not a scene; give --image and --depth.")
        return _read_pair(options, lens)
    return _read_sample(options, lens)


def _read_sample(options: argparse.Namespace, lens: LensFacts) -> Scene:
    """A sample of a data set, given by number or name, with an all-in-focus image."""
    from focaldiffusion.config.data import CameraDefaults, DatasetOptions, Source
    from focaldiffusion.config.sources import FILELESS
    from focaldiffusion.data.registry import open_dataset
    from focaldiffusion.scene import Scene

    if options.data_root is None and options.dataset not in FILELESS:
        raise InputError(
            f"--dataset {options.dataset} needs --data-root, the folder that holds its files."
        )
    source = Source(
        name=options.dataset,
        split=options.split,
        dataset_type=options.dataset,
        data_root=[] if options.data_root is None else options.data_root,
        filelist=options.filelist,
        options=DatasetOptions(
            camera_defaults=CameraDefaults(**lens.values()),
            depth_scale=options.depth_scale,
            generate_focal_stack=True,
            layout=options.layout,
        ),
    )
    dataset = open_dataset(source)
    index = _index(dataset, options.sample or "0", f"{options.dataset}, split {options.split}")
    sample = dataset[index]
    if not isinstance(sample, Scene):
        raise InputError(
            f"{sample.source}: a photographed stack without an all-in-focus image and its depth; "
            "there is nothing to simulate from."
        )
    _check_lens(lens, sample)
    return sample


def _check_lens(lens: LensFacts, scene: Scene) -> None:
    """Refuse flags that contradict the lens of a scene; flags for a part of a lens complete it."""
    given = lens.camera(scene.size)
    if given is None or given.aperture_diameter_m is None:
        return
    for name in ("focal_length_px", "aperture_diameter_m"):
        wanted, own = getattr(given, name), getattr(scene.camera, name)
        if not math.isclose(wanted, own, rel_tol=1e-3):
            raise InputError(
                f"{scene.source}: has a lens of its own with {name} {own:.4g}, but the flags give "
                f"{wanted:.4g}. Drop them, or give the image and depth as files."
            )


def _index(dataset: Dataset, sample: str, place: str) -> int:
    """The index of a sample, given by number (from 0) or name."""
    if sample.isdecimal():
        if int(sample) < len(dataset):
            return int(sample)
        raise InputError(f"--sample {sample}: {place} has {len(dataset)} samples, numbered from 0.")
    for index in range(len(dataset)):
        if dataset.name(index) == sample:
            return index
    raise InputError(
        f"--sample {sample}: {place} has no sample of that name; the first one is "
        f"{dataset.name(0)}."
    )


def _read_pair(options: argparse.Namespace, lens: LensFacts) -> Scene:
    """A scene from the image, the depth and the camera of the flags."""
    import torch

    from focaldiffusion.io.images import read_image
    from focaldiffusion.optics import srgb_to_linear
    from focaldiffusion.scene import Scene

    image = srgb_to_linear(torch.tensor(read_image(options.image)).permute(2, 0, 1))
    height, width = image.shape[-2:]
    depth_m = _read_depth(options.depth, options.depth_scale)
    if tuple(depth_m.shape) != (height, width):
        raise InputError(
            f"{options.depth}: {depth_m.shape[1]}x{depth_m.shape[0]}, but {options.image} is "
            f"{width}x{height}. Resize one to the other; take the nearest pixel for depth."
        )
    camera = _camera(lens, (height, width), min(options.focus_distances))
    return Scene(image, depth_m, ~depth_m.isnan(), camera, str(options.depth))


def _read_depth(path: Path, scale_m: float | None) -> Tensor:
    """Depth [m], (H, W), NaN where unknown."""
    from focaldiffusion.io.depth_files import looks_like_millimetres, read_depth_mm, read_values

    if scale_m is not None and not (math.isfinite(scale_m) and scale_m > 0):
        raise InputError(f"--depth-scale is {scale_m}; expected a positive number.")
    if path.suffix.lower() == ".png":
        return read_depth_mm(path) * (1 if scale_m is None else 1000 * scale_m)
    values = read_values(path)
    if scale_m is None and looks_like_millimetres(values):
        raise InputError(
            f"{path}: half of the depth is above 100, which looks like another unit. Give "
            "--depth-scale 0.001 for millimetres, 0.01 for centimetres; or 1, if it is metres."
        )
    return values * (scale_m or 1)


def _camera(lens: LensFacts, image_size: tuple[int, int], nearest_m: float) -> Camera:
    """The camera of the flags, the same for all frames, as after alignment."""
    # Focused at infinity: the image distance is then the focal length that the flags give.
    camera = lens.camera(image_size)
    if camera is None or camera.aperture_diameter_m is None:
        raise InputError(
            f"camera unknown: no {', '.join(lens.missing().values())}. Give "
            "--focal-length-px and --aperture-diameter-m; or "
            "--focal-length-mm, --f-number, and --pixel-pitch-um or --sensor-width-mm."
        )
    lens.camera(image_size, nearest_m)  # which refuses a focus within the focal length
    return camera
