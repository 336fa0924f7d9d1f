"""iBims-1: a hundred indoor photographs with the depth of a laser scanner, for testing only.

Koch, Liebel, Fraundorfer and Körner, 2018, https://www.asg.ed.tum.de/lmf/ibims1/. The files of
ibims1_core_raw.zip:

    rgb/corridor_01.png             8-bit RGB, 640 x 480
    depth/corridor_01.png           16 bit, metres * 65535 / 50
    mask_invalid/corridor_01.png    1 bit
    mask_transp/corridor_01.png     1 bit
    calib/corridor_01.txt           fx,fy,cx,cy

From readers that ran on the data (see tests/fixtures/ibims1.py): the unit, contrary to the readme
of the data set, and that both masks are set where the depth is *good*, contrary to their names. Not
confirmed, never run on real files: that depth is planar, and that cx and cy count pixel centres at
integers (nothing here depends on it).
"""

from __future__ import annotations

import math
from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import SampleFiles
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published, read_numbers, samples_with_files
from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

_GET = (
    "Unpack ibims1_core_raw.zip of https://www.asg.ed.tum.de/lmf/ibims1/ and let data_root be the "
    "folder that holds rgb and depth."
)
_METRES = 50 / 65535
_SATURATED_M = 50.0


class IBims1:
    """All images, as val and as test, without a training set.

    Transparent objects are invalid: the scanner measures through them.
    """

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its being a test set", depth_scale=_METRES)
        if source.split == "train":
            raise InputError(
                f"{source.name}: iBims-1 is a test set. Name it as a source of val or test."
            )
        self._defaults = source.options.camera_defaults
        self._depths = DepthFormat(
            _METRES, largest_m=_SATURATED_M - _METRES / 2, bounds_m=source.options.depth_bounds
        )
        images = Roots.of(source.data_root).need("rgb", remedy=_GET)
        self._folder = images.parent
        names = sorted(path.stem for path in images.glob("*.png"))
        self._names, self.skipped = samples_with_files(source, names, self._files, images, _GET)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        """Read one scene."""
        image, depth, *masks, calib = self._files(self._names[index])
        fx, fy, cx, cy = read_numbers(calib, (4,))
        return SampleFiles(str(image), depth, self._depths, image, masks=tuple(masks)).scene(
            LensFacts(focal_length_px=math.sqrt(fx * fy)),
            self._defaults,
            principal_point_px=(cx + 0.5, cy + 0.5),
        )

    def name(self, index: int) -> str:
        """Kind of room and number, such as corridor_01."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The image: which images show the same room is not published."""
        return self._names[index]

    def _files(self, name: str) -> list[Path]:
        """Image, depth, two masks and intrinsics."""
        images = [
            self._folder / kind / f"{name}.png"
            for kind in ("rgb", "depth", "mask_invalid", "mask_transp")
        ]
        return [*images, self._folder / "calib" / f"{name}.txt"]
