"""HCI 4D light field benchmark: the centre views of rendered light fields, with exact depth.

Honauer, Johannsen, Kondermann and Goldluecke, 2016, https://lightfield-analysis.uni-konstanz.de.

    training/boxes/input_Cam000.png ... input_Cam080.png    9 x 9 views, 512 x 512
                   parameters.cfg                           lens and positions
                   gt_depth_lowres.pfm                      metres, of the centre view

From the official tools, https://github.com/lightfield-analysis: python-tools (names, parameters),
blender-addon (depth is the renderer's Z, in metres and planar: the disparity maps are computed
from it). Never run on real files.

Depth-from-focus papers since AiFDepthNet read HCI_FS_trainval.h5 instead: stacks refocused by
shifting the views, with disparity as truth. That file is not read here: without focus distances and
sensor size it has no metric depth.
"""

from __future__ import annotations

import configparser
from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import SampleFiles
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published, samples_with_files
from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

_GET = (
    "Get the light fields with their depth maps from https://lightfield-analysis.uni-konstanz.de "
    "and let data_root be the folder that holds additional, stratified and training."
)
_GRID = 9
_CENTRE_VIEW = f"input_Cam{_GRID**2 // 2:03d}.png"


class HCI:
    """The centre view of each light field, its depth and its lens: scenes to photograph.

    train reads the categories additional and stratified (20 scenes); val and test both read
    training (boxes, cotton, dino, sideboard), as those papers do. The category test has no public
    truth. The views were rendered at f/100, all in focus; the simulator uses the aperture of
    `camera_defaults`.
    """

    def __init__(self, source: Source) -> None:
        check_published(source, split_from="its folders")
        self._defaults = source.options.camera_defaults
        self._depths = DepthFormat(1.0, bounds_m=source.options.depth_bounds)
        categories = ("additional", "stratified") if source.split == "train" else ("training",)
        self._folder = Roots.of(source.data_root).need(categories[0], remedy=_GET).parent
        names = []
        for category in categories:
            folder = self._folder / category
            if not folder.is_dir():
                raise InputError(f"{folder}: no such folder. {_GET}")
            names += sorted(f"{category}/{p.name}" for p in folder.iterdir() if p.is_dir())
        self._names, self.skipped = samples_with_files(
            source, names, self._files, self._folder, _GET
        )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        """Read one scene."""
        image, depth, parameters = self._files(self._names[index])
        return SampleFiles(str(image), depth, self._depths, image).scene(
            _lens(parameters), self._defaults
        )

    def name(self, index: int) -> str:
        """Category and scene, such as training/boxes."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The light field, such as boxes."""
        return self._names[index].partition("/")[2]

    def _files(self, name: str) -> tuple[Path, Path, Path]:
        """Centre view, depth and parameters."""
        folder = self._folder / name
        return folder / _CENTRE_VIEW, folder / "gt_depth_lowres.pfm", folder / "parameters.cfg"


def _lens(path: Path) -> LensFacts:
    """Focal length and sensor of a parameters.cfg."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        columns, rows = (parser.getint("extrinsics", f"num_cams_{axis}") for axis in "xy")
        focal_length_mm = parser.getfloat("intrinsics", "focal_length_mm")
        sensor_mm = parser.getfloat("intrinsics", "sensor_size_mm")
    except (OSError, ValueError, configparser.Error) as error:
        raise InputError(f"{path}: not the parameters of a light field ({error}).") from error
    if (columns, rows) != (_GRID, _GRID):
        raise InputError(
            f"{path}: a grid of {columns} x {rows} views; expected {_GRID} x {_GRID}, whose centre "
            f"is {_CENTRE_VIEW}."
        )
    return LensFacts(focal_length_m=focal_length_mm / 1000, sensor_width_m=sensor_mm / 1000)
