"""HAMMER: videos of tables, with depth rendered from scanned meshes, glass and metal included.

Jung et al., CVPR 2023, https://github.com/Junggy/HAMMER-dataset, _dataset_processed.zip:

    scene12_traj1_1/polarization/intrinsics.txt     3 x 3
                                 rgb/000000.png     8-bit RGB, 1088 x 832
                                 _gt/000000.png     16-bit millimetres, 0 unknown

There is no devkit; from readers that ran on the data (see tests/fixtures/hammer.py): names, units
and the split, which they attribute to its authors. Not confirmed, never run on real files: that
depth is planar, and that the principal point counts pixel centres at integers, both as readers
have it (nothing here depends on the second).
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.data.cameras import sample_camera
from focaldiffusion.data.rasters import DepthFormat, check_size, read_light
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.files import complete_samples, first_missing
from focaldiffusion.data.sets.numbers import read_numbers
from focaldiffusion.data.sets.options import check_published
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

    Attributes:
        skipped: a sentence for each frame that is left out because a file is missing.
    """

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its scenes", depth_kind="planar", depth_scale=_METRES)
        self._options = source.options
        self._folder = Roots.of(source.data_root).need(".", remedy=_GET)
        names = [
            f"{sequence.name}/{frame.stem}"
            for sequence in sorted(self._folder.iterdir())
            if _is_of(sequence.name, train=source.split == "train")
            for frame in sorted(sequence.glob("polarization/rgb/*.png"))
        ]
        faults = {name: first_missing(self._files(name)) for name in names}
        self._names, self.skipped = complete_samples(source, faults, self._folder, _GET)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        """Read one scene.

        Raises:
            InputError: a file that is not what it should be.
        """
        image_path, depth_path, matrix_path = self._files(self._names[index])
        light = read_light(image_path)
        size = (light.shape[1], light.shape[2])
        depths = DepthFormat(scale_m=_METRES, bounds_m=self._options.depth_bounds)
        depth_m = depths.read(depth_path)
        check_size(depth_path, depth_m, size, image_path)
        depth_m = depths.planar(depth_m, None, str(depth_path))
        matrix = read_numbers(matrix_path, (3, 3))
        camera = sample_camera(
            size,
            LensFacts(focal_length_px=math.sqrt(matrix[0, 0] * matrix[1, 1])),
            self._options.camera_defaults,
            source=str(image_path),
            principal_point_px=(matrix[0, 2] + 0.5, matrix[1, 2] + 0.5),
        )
        return Scene(light, depth_m, ~depth_m.isnan(), camera, str(image_path))

    def name(self, index: int) -> str:
        """Sequence and frame, such as scene12_traj1_1/000000."""
        return self._names[index]

    def scene(self, index: int) -> str:
        """The table, such as scene12, whatever the trajectory, with its objects or without."""
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
