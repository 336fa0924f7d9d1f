"""iBims-1: a hundred indoor photographs with the depth of a laser scanner, for testing only.

Koch, Liebel, Fraundorfer and Körner, 2018, https://www.asg.ed.tum.de/lmf/ibims1/. The files of
ibims1_core_raw.zip:

    rgb/corridor_01.png             8-bit RGB, 640 x 480
    depth/corridor_01.png           16 bit, metres * 65535 / 50
    mask_invalid/corridor_01.png    1 bit
    mask_transp/corridor_01.png     1 bit
    calib/corridor_01.txt           fx,fy,cx,cy

From readers that ran on the data (see tests/fixtures/ibims1.py): the unit, against the readme that
ships with it, and that both masks are set where the depth is *good*, against their names. Not
confirmed, never run on real files: that depth is planar, and that cx and cy count pixel centres at
integers (nothing here depends on it).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import torch

from focaldiffusion.config.data import Source
from focaldiffusion.data.cameras import sample_camera
from focaldiffusion.data.rasters import DepthFormat, check_size, read_light
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.files import complete_samples, first_missing
from focaldiffusion.data.sets.numbers import read_numbers
from focaldiffusion.data.sets.options import check_published
from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import read_values
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

_GET = (
    "Unpack ibims1_core_raw.zip of https://www.asg.ed.tum.de/lmf/ibims1/ and let data_root be the "
    "folder that holds rgb and depth."
)
_METRES = 50 / 65535
_SATURATED_M = 50.0


class _Files(NamedTuple):
    image: Path
    depth: Path
    mask_invalid: Path
    mask_transp: Path
    calib: Path


class IBims1:
    """All images, as val and as test; there is no training set.

    Transparent objects are invalid: the scanner measures what is behind them.

    Attributes:
        skipped: a sentence for each image that is left out because a file is missing.
    """

    def __init__(self, source: Source) -> None:
        check_published(
            source, split_from="its being a test set", depth_kind="planar", depth_scale=_METRES
        )
        if source.split == "train":
            raise InputError(
                f"{source.name}: iBims-1 is a test set. Name it as a source of val or test."
            )
        self._options = source.options
        images = Roots.of(source.data_root).need("rgb", remedy=_GET)
        self._folder = images.parent
        names = sorted(path.stem for path in images.glob("*.png"))
        faults = {name: first_missing(self._files(name)) for name in names}
        self._names, self.skipped = complete_samples(source, faults, images, _GET)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        """Read one scene.

        Raises:
            InputError: a file that is not what it should be.
        """
        files = self._files(self._names[index])
        light = read_light(files.image)
        size = (light.shape[1], light.shape[2])
        depths = DepthFormat(scale_m=_METRES, bounds_m=self._options.depth_bounds)
        depth_m = depths.read(files.depth)
        check_size(files.depth, depth_m, size, files.image)
        unknown = depth_m > _SATURATED_M - _METRES / 2
        for path in (files.mask_invalid, files.mask_transp):
            mask = read_values(path)
            check_size(path, mask, size, files.image)
            unknown |= mask == 0
        depth_m = depths.planar(depth_m.masked_fill(unknown, torch.nan), None, str(files.depth))
        fx, fy, cx, cy = read_numbers(files.calib, (4,))
        camera = sample_camera(
            size,
            LensFacts(focal_length_px=math.sqrt(fx * fy)),
            self._options.camera_defaults,
            source=str(files.image),
            principal_point_px=(cx + 0.5, cy + 0.5),
        )
        return Scene(light, depth_m, ~depth_m.isnan(), camera, str(files.image))

    def name(self, index: int) -> str:
        """Kind of room and number, such as corridor_01."""
        return self._names[index]

    def scene(self, index: int) -> str:
        """The image: it is not said which ones show the same room."""
        return self._names[index]

    def _files(self, name: str) -> _Files:
        png = f"{name}.png"
        return _Files(
            self._folder / "rgb" / png,
            self._folder / "depth" / png,
            self._folder / "mask_invalid" / png,
            self._folder / "mask_transp" / png,
            self._folder / "calib" / f"{name}.txt",
        )
