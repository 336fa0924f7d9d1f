"""HAMMER: videos of tables, with depth rendered from scanned meshes, glass and metal included.

Jung et al., CVPR 2023, https://github.com/Junggy/HAMMER-dataset, _dataset_processed.zip:

    scene12_traj1_1/polarization/intrinsics.txt     3 x 3
                                 rgb/000000.png     8-bit RGB, 1088 x 832
                                 _gt/000000.png     16-bit millimetres, 0 unknown

There is no devkit. Names, units and the split, attributed to its authors, are from readers that ran
on the data (see tests/fixtures/hammer.py). Not confirmed, never run on real files: that depth is
planar, and that the principal point counts pixel centres at integers, both as in these readers
(nothing here depends on the second).
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import SampleFiles
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published, read_numbers, samples_with_files
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

_GET = (
    "Unpack _dataset_processed.zip, see https://github.com/Junggy/HAMMER-dataset, and let "
    "data_root be the folder that holds scene2_traj1_1 and the others."
)
_SEQUENCE = re.compile(r"scene(\d+)_traj\d+(_naked)?_\d+")
_FIRST_TEST_SCENE = 12
_METRES = 0.001


class HAMMER:
    """Every frame of the polarisation camera, which is the RGB camera.

    train reads scenes 2 to 11; val and test both read 12 to 14.
    """

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its scenes", depth_scale=_METRES)
        self._defaults = source.options.camera_defaults
        self._depths = DepthFormat(_METRES, bounds_m=source.options.depth_bounds)
        self._folder = Roots.of(source.data_root).need(".", remedy=_GET)
        names = [
            f"{sequence.name}/{frame.stem}"
            for sequence in sorted(self._folder.iterdir())
            if _is_of(sequence.name, train=source.split == "train")
            for frame in sorted(sequence.glob("polarization/rgb/*.png"))
        ]
        self._names, self.skipped = samples_with_files(
            source, names, self._files, self._folder, _GET
        )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        """Read one scene."""
        image, depth, matrix_path = self._files(self._names[index])
        matrix = read_numbers(matrix_path, (3, 3))
        return SampleFiles(str(image), depth, self._depths, image).scene(
            LensFacts(focal_length_px=math.sqrt(matrix[0, 0] * matrix[1, 1])),
            self._defaults,
            principal_point_px=(matrix[0, 2] + 0.5, matrix[1, 2] + 0.5),
        )

    def name(self, index: int) -> str:
        """Sequence and frame, such as scene12_traj1_1/000000."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The table, such as scene12, for all trajectories, with and without its objects."""
        return self._names[index].partition("_")[0]

    def _files(self, name: str) -> tuple[Path, Path, Path]:
        """Image, depth and camera matrix."""
        sequence, frame = name.split("/")
        folder = self._folder / sequence / "polarization"
        return (
            folder / "rgb" / f"{frame}.png",
            folder / "_gt" / f"{frame}.png",
            folder / "intrinsics.txt",
        )


def _is_of(name: str, *, train: bool) -> bool:
    """Whether a folder is a sequence of the training scenes, or else of the test scenes."""
    match = _SEQUENCE.fullmatch(name)
    return match is not None and (int(match[1]) < _FIRST_TEST_SCENE) == train
