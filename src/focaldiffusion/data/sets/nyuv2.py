"""NYU Depth v2: Kinect images of rooms, as the labelled set or as synchronised frames.

Silberman, Hoiem, Kohli and Fergus, 2012, https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html.

    nyu_depth_v2_labeled.mat    HDF5: images (1449, 3, 640, 480), depths, rawDepths, scenes
    splits.mat                  MATLAB 5: trainNdxs, testNdxs, counted from 1

or, synchronised by https://github.com/cleinc/bts, with a list whose lines are image, depth and
focal length:

    kitchen_0028b/rgb_00045.jpg
                  sync_depth_00045.png      16-bit millimetres, 0 unknown

From the toolbox of the data set: the intrinsics of the RGB camera, counted from 1, and the
projection mask. Frames are white or without depth outside the mask; samples are cropped to it. Only
the synchronised layout has run on real files.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import sample_camera
from focaldiffusion.data.rasters import DepthFormat, check_size, read_light
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.matlab import read_matrix
from focaldiffusion.data.sets.published import check_published, samples_with_files
from focaldiffusion.errors import InputError
from focaldiffusion.io.hdf5 import open_hdf5
from focaldiffusion.io.reading import reading
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.scene import Scene

_ARRAYS = {"labeled": "rawDepths", "labeled_filled": "depths"}
_SYNC = "sync"
_GET = (
    "Get nyu_depth_v2_labeled.mat from https://cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html and "
    "splits.mat from http://horatio.cs.nyu.edu/mit/silberman/indoor_seg_sup/splits.mat, and let "
    "data_root be their folder."
)
_FAULT = "not the labelled set of NYUv2"
_GET_SYNC = "See https://github.com/cleinc/bts for the synchronised frames and their lists."
_SIZE = (480, 640)
_FOCAL_LENGTH_PX = math.sqrt(518.85790117450188 * 519.46961112127485)
# Pixel centres are whole numbers from 1 in the toolbox, and halves from 0.5 here.
_PRINCIPAL_POINT_PX = (325.58244941119034 - 0.5, 253.73616633400465 - 0.5)
_TOP, _LEFT, _CROPPED = 44, 40, (427, 561)
_METRES = 0.001


class _Image(NamedTuple):
    """A row of the labelled set, counted from 0, and its room."""

    row: int
    room: str


class NYUv2:
    """One of three layouts, cropped from 640 x 480 to 561 x 427.

    - labeled, the default: 1449 images, train the official 795, val and test both the official
      654. Depth is rawDepths, whose holes are 0 and invalid here.
    - labeled_filled: the same with depths, whose holes the authors filled in from the colours.
    - sync: the frames of `filelist`, a list of BTS, which is the split.
    """

    def __init__(self, source: Source) -> None:
        layout = source.options.layout or "labeled"
        sync = layout == _SYNC
        check_published(
            # In this layout the list is the split; everything else is checked.
            source.model_copy(update={"filelist": None}) if sync else source,
            split_from="splits.mat",
            depth_scale=_METRES if sync else 1.0,
            layouts=(*_ARRAYS, _SYNC),
        )
        self._options = source.options
        self._depths = DepthFormat(scale_m=_METRES, bounds_m=source.options.depth_bounds)
        self._array = _ARRAYS.get(layout)
        self._images: list[_Image] = []
        self._pairs: dict[str, tuple[Path, Path]] = {}
        self._names: list[str]
        self.skipped: list[str] = []
        roots = Roots.of(source.data_root)
        if sync:
            self._pairs, folder = _listed_pairs(source, roots)
            self._names, self.skipped = samples_with_files(
                source, self._pairs, self._pairs.__getitem__, folder, _GET_SYNC
            )
        else:
            self._mat = roots.need("nyu_depth_v2_labeled.mat", remedy=_GET)
            numbers = _official(roots.need("splits.mat", remedy=_GET), source)
            self._images = _rooms(self._mat, numbers)
            self._names = [f"{number:04d}" for number in numbers]

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        """Read one scene."""
        if self._array is None:
            image_path, depth_path = self._pairs[self._names[index]]
            source = str(image_path)
            light, depth_m = read_light(image_path), self._depths.read(depth_path)
            check_size(depth_path, depth_m, (light.shape[1], light.shape[2]), image_path)
        else:
            source = f"{self._mat}: image {self._names[index]}"
            light, depth_m = self._read_labelled(self._images[index].row, self._array)
        if tuple(light.shape[1:]) != _SIZE:
            raise InputError(
                f"{source}: {light.shape[2]}x{light.shape[1]}; expected 640x480 as published, with "
                "the white border. image_size resizes samples."
            )
        camera = sample_camera(
            _SIZE,
            LensFacts(focal_length_px=_FOCAL_LENGTH_PX),
            self._options.camera_defaults,
            source=source,
            principal_point_px=_PRINCIPAL_POINT_PX,
        )
        depth_m = self._depths.planar(_cropped(depth_m), None, source)
        return Scene(
            _cropped(light),
            depth_m,
            ~depth_m.isnan(),
            camera.cropped(_LEFT, _TOP, _CROPPED),
            source,
        )

    def name(self, index: int) -> str:
        """The number of a labelled image, counted from 1, or the path of a frame."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The room, such as kitchen_0004."""
        if self._array is None:
            return Path(self._names[index]).parent.as_posix()
        return self._images[index].room

    def _read_labelled(self, row: int, array: str) -> tuple[Tensor, Tensor]:
        """Light (3, H, W) and depth [m] (H, W) of one image, NaN where unknown."""
        with open_hdf5(self._mat, _GET, _FAULT) as file:
            image, depth = file.read("images", row), file.read(array, row)
        # MATLAB's axes are in reverse order.
        columns_and_rows = _SIZE[::-1]
        if image.dtype != np.uint8 or image.shape != (3, *columns_and_rows):
            raise InputError(
                f"{self._mat}: images are {image.dtype} of shape {image.shape} each; expected "
                f"uint8 of {(3, *columns_and_rows)}. {_GET}"
            )
        if depth.shape != columns_and_rows:
            raise InputError(
                f"{self._mat}: {array} are {depth.shape} each; expected {columns_and_rows}. {_GET}"
            )
        image = np.ascontiguousarray(image.transpose(0, 2, 1))
        depth_m = torch.from_numpy(depth.T.astype(np.float32))
        light = srgb_to_linear(torch.from_numpy(image).float() / 255)
        return light, depth_m.masked_fill(~((depth_m > 0) & depth_m.isfinite()), torch.nan)


def _cropped(raster: Tensor) -> Tensor:
    """The part of an image (3, H, W) or a map (H, W) inside the projection mask."""
    height, width = _CROPPED
    return raster[..., _TOP : _TOP + height, _LEFT : _LEFT + width].contiguous()


def _official(path: Path, source: Source) -> list[int]:
    """The numbers of the images of a split, counted from 1."""
    name = "trainNdxs" if source.split == "train" else "testNdxs"
    matrix = read_matrix(path, name, "not the split of NYUv2", _GET)
    numbers = matrix.ravel().astype(np.float64)
    if not (numbers >= 1).all() or not (numbers == numbers.astype(np.int64)).all():  # nor NaN
        raise InputError(f"{path}: {name} are not numbers of images, counted from 1. {_GET}")
    return [int(number) for number in numbers]


def _rooms(path: Path, numbers: list[int]) -> list[_Image]:
    """The labelled images of these numbers, counted from 1."""
    with open_hdf5(path, _GET, _FAULT) as file:
        scenes = file.shape_of_references("scenes")
        if len(scenes) != 2 or max(numbers) > scenes[1]:
            raise InputError(
                f"{path}: scenes is {scenes}, and the split names image {max(numbers)}. {_GET}"
            )
        return [_Image(number - 1, file.text("scenes", (0, number - 1))) for number in numbers]


def _listed_pairs(source: Source, roots: Roots) -> tuple[dict[str, tuple[Path, Path]], Path]:
    """Image and depth of each line of a list of BTS, by the image's name; and the list."""
    if source.filelist is None:
        raise InputError(f"{source.name}: layout sync needs a filelist, its split. {_GET_SYNC}")
    path = Path(source.filelist)
    with reading(path, "cannot be read as a list", _GET_SYNC):
        lines = path.read_text(encoding="utf-8").splitlines()
    pairs = {}
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3:
            raise InputError(
                f"{path}, line {number}: {line.strip()!r}; expected image, depth and focal length, "
                "separated by spaces."
            )
        # The focal length is 518.8579 everywhere, the published fx.
        image, depth = (
            roots.find(name) or roots.candidates(name)[0]
            for name in (word.lstrip("/") for word in words[:2])
        )
        pairs[words[0].lstrip("/")] = (image, depth)
    return pairs, path
