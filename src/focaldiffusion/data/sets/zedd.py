"""ZEDD: real focal stacks with LiDAR depth (Zuo et al., Zero-Shot Depth from Defocus, 2026).

100 scenes, each at 9 focus distances (0.82 to 8.10 m) and 6 apertures of a 50 mm F1.4 lens, warped
to one scale. CC BY 4.0, https://huggingface.co/datasets/venkatsubra/ZEDD.

    metadata.txt                                  run, motor position, focus distance [m]
    val/val_0001/focus_stack/img_run_1_motor_6D3E_aperture_F1.4.jpg
    val/val_0001/gt/depth.npy                     metres, 1824x1216
    val/val_0001/gt/K.txt                         3x3, pixels of the depth map
    test/test_0001/...                            the same without depth.npy

From the loader and the README of https://github.com/princeton-vl/FOSSA: all names, metadata.txt
separated by tabs, K at the size of the depth, holes (not finite, below 0.01 m, above 1000 m), and
the frame that stands for all-in-focus (F16, run 5). From a copy of the data,
https://huggingface.co/datasets/AKCITPixel3/DFD-Z: float32 depth, the motor positions, one K.

Never run on real files. Not confirmed: the size of the JPEGs (that loader resizes them; larger
ones are averaged to the size of the depth), their encoding (taken as sRGB), that depth is planar
and that focus distances and depth have the same origin (both as in that loader).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.config.data import CameraDefaults, Source
from focaldiffusion.data.assembly import sample_camera
from focaldiffusion.data.dataset import Sample, StackSample
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import (
    check_published,
    first_missing,
    light_on_grid,
    read_numbers,
    samples_with_files,
)
from focaldiffusion.errors import InputError
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack

SIZE = (1216, 1824)
"""(height, width) of the depth [px]."""
STOPS = ("F1.4", "F2.0", "F2.8", "F4.0", "F5.6", "F16.0")
_PUBLISHED_STOP = "F2.8"
_SHARP_STOP, _SHARP_RUN = "F16.0", 5
_RUNS = 9
_FOCAL_LENGTH_M = 0.05
_BOUNDS_M = (0.01, 1000.0)
_REMEDY = (
    "Unpack ZEDD.zip of https://huggingface.co/datasets/venkatsubra/ZEDD and make data_root the "
    "folder that holds metadata.txt and val."
)


@dataclass(frozen=True)
class _Run:
    """One focus setting: number and motor position in file names, and focus distance."""

    number: int
    motor: str
    focus_distance_m: float


class ZEDD:
    """The scenes of val; the authors' server keeps the depth of test, see `ZEDDTest`.

    `layout` is the aperture of the stacks as in file names, one of `STOPS`; F2.8 by default, as in
    published figures. Stacks have all nine frames in the order of the runs, near to far; published
    figures use every second one. With `generate_focal_stack` the F16 image and the depth
    are a `Scene`, to be photographed with the aperture of `camera_defaults`.
    """

    def __init__(self, source: Source) -> None:
        check_published(
            source, split_from="its files", splits=("val",), has_stacks=True, layouts=STOPS
        )
        self._options = source.options
        self._stop = source.options.layout or _PUBLISHED_STOP
        roots = Roots.of(source.data_root)
        self._runs = _read_runs(roots.need("metadata.txt", remedy=_REMEDY))
        self._folder = roots.need("val", remedy=_REMEDY)
        scenes = sorted(path.name for path in self._folder.glob("val_*"))
        self._scenes, self.skipped = samples_with_files(
            source, scenes, self._paths, self._folder, _REMEDY
        )

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> Sample:
        """Read one scene."""
        *frames, sharp, depth_path, matrix_path = self._paths(self._scenes[index])
        source = f"ZEDD {self.name(index)}"
        depths = DepthFormat(1.0, bounds_m=self._options.depth_bounds or _BOUNDS_M)
        depth_m = depths.planar(depths.read(depth_path), None, source)
        size = (depth_m.shape[0], depth_m.shape[1])
        simulated = bool(self._options.generate_focal_stack)
        camera = _camera(
            matrix_path,
            size,
            None if simulated else self._stop,
            self._options.camera_defaults,
            source,
        )
        all_in_focus = light_on_grid(sharp, size)
        valid = ~depth_m.isnan()
        if simulated:
            return Scene(all_in_focus, depth_m, valid, camera, source)
        images = torch.stack([light_on_grid(path, size) for path in frames])
        stack = FocalStack(images, camera, _distances_m(self._runs))
        return StackSample(stack, depth_m, valid, all_in_focus, source)

    def name(self, index: int) -> str:
        """Split and scene."""
        return f"val/{self._scenes[index]}"

    def scene_name(self, index: int) -> str:
        """The scene; each was captured once."""
        return self._scenes[index]

    def _paths(self, scene: str) -> list[Path]:
        """The frames, the sharp image, the depth and the camera matrix."""
        folder = self._folder / scene
        sharp = next(run for run in self._runs if run.number == _SHARP_RUN)
        return [
            *(_frame(folder, run, self._stop) for run in self._runs),
            _frame(folder, sharp, _SHARP_STOP),
            folder / "gt" / "depth.npy",
            folder / "gt" / "K.txt",
        ]


class ZEDDTest:
    """The stacks of test at F2.8, for predictions that the authors' server scores.

    Nine frames each, near to far, at the size of the depth that the server expects.
    """

    def __init__(self, data_root: str | Path) -> None:
        """Find the scenes.

        Raises:
            InputError: a missing folder or file.
        """
        roots = Roots.of(str(data_root))
        self._runs = _read_runs(roots.need("metadata.txt", remedy=_REMEDY))
        folder = roots.need("test", remedy=_REMEDY)
        self._scenes = sorted(folder.glob("test_*"))
        fault = first_missing(
            path for scene in self._scenes for path in (*self._frames(scene), scene / "gt/K.txt")
        )
        if fault is not None or not self._scenes:
            raise InputError(f"{fault or f'{folder}: no scene in this folder.'} {_REMEDY}")

    def __len__(self) -> int:
        return len(self._scenes)

    def __getitem__(self, index: int) -> FocalStack:
        """Read one stack.

        Raises:
            InputError: an invalid file.
        """
        scene = self._scenes[index]
        camera = _camera(
            scene / "gt" / "K.txt", SIZE, _PUBLISHED_STOP, CameraDefaults(), f"ZEDD {scene.name}"
        )
        frames = torch.stack([light_on_grid(path, SIZE) for path in self._frames(scene)])
        return FocalStack(frames, camera, _distances_m(self._runs))

    def name(self, index: int) -> str:
        """The scene, such as test_0001."""
        return self._scenes[index].name

    def _frames(self, scene: Path) -> list[Path]:
        return [_frame(scene, run, _PUBLISHED_STOP) for run in self._runs]


def _frame(scene: Path, run: _Run, stop: str) -> Path:
    name = f"img_run_{run.number}_motor_{run.motor}_aperture_{stop}.jpg"
    return scene / "focus_stack" / name


def _distances_m(runs: Sequence[_Run]) -> Tensor:
    return torch.tensor([run.focus_distance_m for run in runs])


def _camera(
    matrix_path: Path,
    size: tuple[int, int],
    stop: str | None,
    defaults: CameraDefaults,
    source: str,
) -> Camera:
    """The lens at an aperture; None for `stop` takes the aperture of the defaults."""
    matrix = read_numbers(matrix_path, (3, 3))
    known = LensFacts(
        # Pixels are square to 0.2 %.
        focal_length_px=float(np.sqrt(matrix[0, 0] * matrix[1, 1])),
        focal_length_m=_FOCAL_LENGTH_M,
        f_number=None if stop is None else float(stop[1:]),
    )
    principal_point_px = float(matrix[0, 2]), float(matrix[1, 2])
    return sample_camera(
        size, known, defaults, source=source, principal_point_px=principal_point_px
    )


def _read_runs(path: Path) -> tuple[_Run, ...]:
    """The focus settings of metadata.txt."""
    runs = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            run, motor, distance = line.strip().split("\t")
            runs.append(_Run(int(run.removeprefix("run_")), motor, float(distance)))
        except ValueError:
            raise InputError(
                f"{path}, line {number}: {line!r}; expected run_<number>, motor position and focus "
                "distance in metres, with tabs between them. Get the file again."
            ) from None
    runs.sort(key=lambda run: run.number)
    if [run.number for run in runs] != list(range(1, _RUNS + 1)):
        raise InputError(
            f"{path}: runs {[run.number for run in runs]}; expected 1 to {_RUNS}. Get it again."
        )
    return tuple(runs)
