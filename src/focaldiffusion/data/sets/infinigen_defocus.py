"""Infinigen Defocus: path-traced focal stacks of procedural rooms with exact depth.

Zuo et al., Zero-Shot Depth from Defocus, 2026: 9 focus distances and 5 apertures of each view.
BSD-3-Clause, https://huggingface.co/datasets/venkatsubra/InfinigenDefocus.

    1036e2cc_1/image_ap_1.40_fd_0.80.png          <scene>_<view>/..., f-number, focus distance [m]
    1036e2cc_1/image_all_in_focus.png
    1036e2cc_1/depth.npy                          metres, 960x720
    1036e2cc_1/cam_all_in_focus.npz               K, 3x3 [px]; others like it for each frame

From the loader, the README and dataset/splits/infinigen_defocus/val.json of
https://github.com/princeton-vl/FOSSA (the last in a copy of it): all names, f-numbers and
distances, holes (not finite, below 0.01 m, above 1000 m). From a copy of the data,
https://huggingface.co/datasets/AKCITPixel3/DFD-IF: sizes, float32 depth, K of 2000 px. From
https://github.com/princeton-vl/infinigen (infinigen/core/placement/camera.py): sensors are 18 mm
high, so those 2000 px are a lens of 50 mm. Blender does not breathe: the image distance is the
focal length in every frame.

Never run on real files. Not confirmed: the bit depth of the PNGs (8 and 16 are read), Blender's
view transform (taken as sRGB), that depth is planar (Blender's own is), whether the archive holds
views that val.json does not list.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.config.data import Source
from focaldiffusion.data.assembly import sample_camera
from focaldiffusion.data.dataset import Sample, StackSample
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import (
    check_published,
    light_on_grid,
    samples_with_files,
)
from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack

STOPS = ("F1.4", "F2.0", "F2.8", "F4.0", "F5.6")
_FOCUS_DISTANCES_M = (0.8, 1.2, 1.7, 2.3, 3.0, 3.8, 4.7, 6.0, 8.0)
_PUBLISHED_STOP = "F1.4"
_SENSOR_HEIGHT_M = 0.018
_BOUNDS_M = (0.01, 1000.0)
_REMEDY = (
    "Unpack InfinigenDefocus.zip of https://huggingface.co/datasets/venkatsubra/InfinigenDefocus "
    "and make data_root the folder that holds 1036e2cc_1 and the others."
)


class InfinigenDefocus:
    """Every view, as val or as test: the data set is for evaluation only.

    A val.json of the authors beside the views lists the views to use, in order.
    `layout` is the aperture of the stacks, one of `STOPS`; F1.4 when not given, as in published
    figures. Stacks have all nine frames, near to far; published figures use every second one. With
    `generate_focal_stack` a view is a `Scene`, to be photographed with the aperture of
    `camera_defaults`.
    """

    def __init__(self, source: Source) -> None:
        check_published(
            source, split_from="its files", splits=("val", "test"), has_stacks=True, layouts=STOPS
        )
        self._options = source.options
        self._f_number = float((source.options.layout or _PUBLISHED_STOP)[1:])
        roots = Roots.of(source.data_root)
        self._folder = roots.need(".", remedy=_REMEDY)
        listed = self._folder / "val.json"
        views = (
            _read_views(listed)
            if listed.is_file()
            else sorted(path.name for path in self._folder.glob("*_[0-9]"))
        )
        self._views, self.skipped = samples_with_files(
            source, views, self._paths, self._folder, _REMEDY
        )

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, index: int) -> Sample:
        """Read one view."""
        *frames, sharp, depth_path, camera_path = self._paths(self._views[index])
        source = f"Infinigen Defocus {self.name(index)}"
        depths = DepthFormat(1.0, bounds_m=self._options.depth_bounds or _BOUNDS_M)
        depth_m = depths.planar(depths.read(depth_path), None, source)
        size = (depth_m.shape[0], depth_m.shape[1])
        matrix = _read_matrix(camera_path)
        simulated = bool(self._options.generate_focal_stack)
        camera = sample_camera(
            size,
            LensFacts(
                focal_length_px=float(matrix[0, 0]),
                focal_length_m=float(matrix[0, 0]) * _SENSOR_HEIGHT_M / size[0],
                f_number=None if simulated else self._f_number,
            ),
            self._options.camera_defaults,
            source=source,
            principal_point_px=(float(matrix[0, 2]), float(matrix[1, 2])),
        )
        all_in_focus = light_on_grid(sharp, size)
        valid = ~depth_m.isnan()
        if simulated:
            return Scene(all_in_focus, depth_m, valid, camera, source)
        images = torch.stack([light_on_grid(path, size) for path in frames])
        stack = FocalStack(images, camera, torch.tensor(_FOCUS_DISTANCES_M))
        return StackSample(stack, depth_m, valid, all_in_focus, source)

    def name(self, index: int) -> str:
        """Scene and view, as the folder is named."""
        return self._views[index]

    def scene_name(self, index: int) -> str:
        """The scene; up to five views share one."""
        return self._views[index].rpartition("_")[0]

    def _paths(self, view: str) -> list[Path]:
        """The frames, the sharp image, the depth and the camera."""
        stop = f"image_ap_{self._f_number:.2f}"
        names = [f"{stop}_fd_{distance_m:.2f}.png" for distance_m in _FOCUS_DISTANCES_M]
        names += ["image_all_in_focus.png", "depth.npy", "cam_all_in_focus.npz"]
        return [self._folder / view / name for name in names]


def _read_views(path: Path) -> list[str]:
    """The views that the authors' val.json lists."""
    try:
        return [str(entry["id"]) for entry in json.loads(path.read_bytes())["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f'{path}: {error!r}; expected {{"files": [{{"id": "1036e2cc_1", ...}}, ...]}}, as in '
            "dataset/splits/infinigen_defocus of https://github.com/princeton-vl/FOSSA. Get it "
            "there, or remove it to use every view."
        ) from error


def _read_matrix(path: Path) -> NDArray[np.float64]:
    """The camera matrix of an .npz file, (3, 3)."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            matrix = np.asarray(arrays["K"], np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: cannot be read as .npz with an array K ({error}).") from error
    if matrix.shape != (3, 3):
        raise InputError(f"{path}: K is an array of {matrix.shape}; expected (3, 3).")
    return matrix
