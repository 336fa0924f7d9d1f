"""Plain folders of images with metric depth and their intrinsics.

ROOT/SCENE/image.png     or .jpg; sRGB, sharp everywhere
ROOT/SCENE/depth.npz     or .npy or .png; NaN, or 0 in a PNG, is unknown
ROOT/SCENE/camera.json   {"fx", "fy", "cx", "cy", "width", "height"}, pixel centres at integers
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from focaldiffusion.config.data import Source
from focaldiffusion.config.section import Section
from focaldiffusion.data.assembly import SampleFiles
from focaldiffusion.data.lists.entry import first_problem
from focaldiffusion.data.rasters import DepthFormat
from focaldiffusion.data.sets.folders import DEPTH_SUFFIXES, only_file, scene_folders
from focaldiffusion.data.sets.published import complete_samples, first_missing
from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
_ARRANGEMENT = "Expected SCENE/image.png, SCENE/depth.npz and SCENE/camera.json."
_Positive = Annotated[float, Field(gt=0)]
_LARGEST_DIFFERENCE = 0.01


class _Intrinsics(Section):
    """The content of a `camera.json`: a pinhole in pixels, whose pixel centres are integers."""

    model_config = ConfigDict(strict=True)

    fx: _Positive
    """Focal length along the rows [px]."""
    fy: _Positive
    """Focal length along the columns [px]."""
    cx: float
    """Column of the principal point."""
    cy: float
    """Row of the principal point."""
    width: Annotated[int, Field(gt=0)]
    """Columns of the image."""
    height: Annotated[int, Field(gt=0)]
    """Rows of the image."""
    note: Any = None
    """For human readers, like the fields below: origin of image and depth, and kind of depth."""
    source_repo: str | None = None
    source_path: str | None = None
    licence: str | None = None
    how_depth_was_made: str | None = None
    depth_min_m: float | None = None
    depth_p01_m: float | None = None
    depth_median_m: float | None = None
    depth_p99_m: float | None = None
    depth_max_m: float | None = None
    valid_fraction: float | None = None


class RGBD:
    """The scenes below `data_root`, all of them in every split; each folder is a scene.

    The aperture is that of `camera_defaults`.
    """

    def __init__(self, source: Source) -> None:
        if source.options.generate_focal_stack is False:
            raise InputError(
                f"{source.name}: generate_focal_stack is false, but dataset_type rgbd has no "
                "frames to read. Remove it, or use dataset_type stacks."
            )
        self._defaults = source.options.camera_defaults
        form = DepthFormat.of(source.options)
        self._scenes: dict[str, tuple[Path, SampleFiles]] = {}
        faults: dict[str, str | None] = {}
        for name, folder in scene_folders(source).items():
            image = only_file(folder, "image", _IMAGE_SUFFIXES)
            depth = only_file(folder, "depth", DEPTH_SUFFIXES)
            camera = only_file(folder, "camera", (".json",))
            found = {"image.png": image, "depth.npz": depth, "camera.json": camera}
            lacking = (folder / file for file, path in found.items() if path is None)
            faults[name] = first_missing(lacking)
            if depth is not None and camera is not None and image is not None:
                form.check(depth, source.name)
                self._scenes[name] = (camera, SampleFiles(str(folder), depth, form, image))
        self._names, self.skipped = complete_samples(
            source, faults, Path(str(source.data_root)), _ARRANGEMENT
        )

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Scene:
        """Read an image, its depth and its camera."""
        path, files = self._scenes[self._names[index]]
        intrinsics = _read_intrinsics(path)
        scene = files.scene(
            LensFacts(focal_length_px=math.sqrt(intrinsics.fx * intrinsics.fy)),
            self._defaults,
            # Ours are halves: the centre of the first pixel is (0.5, 0.5).
            principal_point_px=(intrinsics.cx + 0.5, intrinsics.cy + 0.5),
        )
        if scene.size != (intrinsics.height, intrinsics.width):
            raise InputError(
                f"{path}: for {intrinsics.width}x{intrinsics.height}, but {files.image} is "
                f"{scene.size[1]}x{scene.size[0]}. Scale the intrinsics with the image."
            )
        return scene

    def name(self, index: int) -> str:
        """The name of the folder."""
        return self._names[index]

    def scene_name(self, index: int) -> str:
        """The name of the folder."""
        return self._names[index]


def _read_intrinsics(path: Path) -> _Intrinsics:
    """Read a `camera.json`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}).") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected an object in braces.")
    for name in content:
        if name not in _Intrinsics.model_fields:
            raise InputError(
                f"{path}: field {name!r} {unknown_name(name, _Intrinsics.model_fields)}"
            )
    try:
        intrinsics = _Intrinsics.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}") from None
    if abs(intrinsics.fx / intrinsics.fy - 1) > _LARGEST_DIFFERENCE:
        raise InputError(
            f"{path}: fx {intrinsics.fx:g} and fy {intrinsics.fy:g} differ by more than 1 %; blur "
            "on pixels that are not square is not modelled. Resample the image."
        )
    return intrinsics
