"""HyperSim: path-traced rooms in HDR, with the distance along every ray and a camera per scene.

Roberts et al., ICCV 2021, https://github.com/apple/ml-hypersim. A root holds the published scenes
and, beside them, two tables of that repository: `metadata_images_split_scene_v1.csv`
(the official split and exclusions) and `metadata_camera_parameters.csv` (the cameras).
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.config.data import RootKind, Source
from focaldiffusion.data.assembly import sample_camera
from focaldiffusion.data.rasters import DepthFormat, check_size
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sets.published import check_published, without_frame
from focaldiffusion.errors import InputError
from focaldiffusion.io.hdf5 import open_hdf5
from focaldiffusion.io.images import read_image
from focaldiffusion.io.reading import reading
from focaldiffusion.lens import LensFacts
from focaldiffusion.scene import Scene

_SPLIT_CSV = "metadata_images_split_scene_v1.csv"
_CAMERA_CSV = "metadata_camera_parameters.csv"
_REPOSITORY = "https://github.com/apple/ml-hypersim"
_SOURCES = {
    _SPLIT_CSV: f"{_REPOSITORY}/blob/main/evermotion_dataset/analysis/{_SPLIT_CSV}",
    _CAMERA_CSV: f"{_REPOSITORY}/blob/main/contrib/mikeroberts3000/{_CAMERA_CSV}",
}
_NAME, _FRAME = re.compile(r"[A-Za-z0-9_]{1,100}"), re.compile(r"[0-9]{1,9}")
_LARGEST_CONDITION = 1e4  # of the 482 published cameras: 7
_DISPLAY_GAMMA = 2.2
_BRIGHT = 0.8**_DISPLAY_GAMMA
_DARK = 1e-4
_LARGEST_HALF = 65504.0
_LUMA = np.array([0.3, 0.59, 0.11], np.float32)  # CCIR 601, as in the published tone map


class HyperSim:
    """The frames of one official split that the public release includes.

    Light is read from `frame.IIII.color.hdf5` at the exposure of the published tone map, see
    `exposed`. With `layout: preview` it is read from `frame.IIII.tonemap.jpg`, the same picture
    in 8 bits; neither replaces a missing file of the other.

    Depth and intrinsics follow each scene's own image plane, see `ImagePlane`: 277 of the 482
    published cameras are tilted, by up to 41 degrees. Unknown depth is NaN, marked as empty by the
    render entity -1, or outside `depth_bounds`. In 31 scenes rows and columns of the image are up
    to 1.1 degrees off a right angle: their depth is exact, but the camera's rays are displaced by
    up to 1 % of the depth.

    Attributes:
        skipped: a sentence for each frame that is left out because a file is missing.
        excluded: number of frames in this split's scenes that the authors do not release.
    """

    def __init__(self, source: Source) -> None:
        layouts = ("hdf5", "preview")
        check_published(source, split_from=_SPLIT_CSV, depth_kind="ray", layouts=layouts)
        self.skipped: list[str] = []
        self._options = source.options
        self._preview = source.options.layout == "preview"
        roots = Roots.of(source.data_root)
        listed, self.excluded = _published_frames(_table(roots, _SPLIT_CSV), source.split)
        if not listed and not self.excluded:
            raise InputError(
                f"{source.data_root}: {_SPLIT_CSV} lists no frame of the split {source.split}. Get "
                f"it again from {_REPOSITORY}."
            )
        self._cameras = _cameras(_table(roots, _CAMERA_CSV), {scene for scene, _, _ in listed})
        self._folders: dict[tuple[str, str], tuple[Path, Path]] = {}
        self._frames: list[tuple[str, str, int]] = []
        for (scene, camera), frames in groupby(sorted(listed), key=lambda frame: frame[:2]):
            self._folders[scene, camera] = self._find(roots, scene, camera)
            # One listing per folder: a look at each of the 200,000 files takes minutes on a
            # network drive.
            present = {folder: _names(folder) for folder in self._folders[scene, camera]}
            for frame in frames:
                paths = self._paths(*frame)
                missing = next((p for p in paths if p.name not in present[p.parent]), None)
                if missing is None:
                    self._frames.append(frame)
                else:
                    remedy = (
                        f"{_SPLIT_CSV} lists it: get {scene} with the download script of "
                        f"{_REPOSITORY}, or allow missing samples."
                    )
                    self.skipped.append(without_frame(source, missing, remedy))

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int) -> Scene:
        """Read one frame."""
        scene, camera_name, frame = self._frames[index]
        light_path, distance_path, entity_path = self._paths(scene, camera_name, frame)
        ray_distance_m = _read(distance_path, 2)
        not_empty = _read(entity_path, 2) != -1
        pixels = read_image(light_path) if self._preview else _read(light_path, 3)
        size = (pixels.shape[0], pixels.shape[1])
        check_size(distance_path, torch.from_numpy(ray_distance_m), size, light_path)
        check_size(entity_path, torch.from_numpy(not_empty), size, light_path)
        if self._preview:
            light = torch.from_numpy(pixels).permute(2, 0, 1).contiguous().pow_(_DISPLAY_GAMMA)
        else:
            light, lit = exposed(pixels, not_empty)
            not_empty &= lit
        plane = ImagePlane.of(self._cameras[scene], size)
        depth_m = torch.from_numpy(plane.depth(ray_distance_m))
        known = torch.from_numpy(not_empty) & (depth_m > 0) & depth_m.isfinite()
        within = DepthFormat(bounds_m=self._options.depth_bounds)
        depth_m = within.planar(depth_m.masked_fill(~known, torch.nan), None, distance_path.name)
        focal_length_px, principal_point_px = plane.pinhole()
        source = f"HyperSim {self.name(index)}"
        camera = sample_camera(
            size,
            LensFacts(focal_length_px=focal_length_px),
            self._options.camera_defaults,
            source=source,
            principal_point_px=principal_point_px,
        )
        return Scene(light, depth_m, ~depth_m.isnan(), camera, source)

    def name(self, index: int) -> str:
        """Scene, camera trajectory and frame, as in the file names."""
        scene, camera, frame = self._frames[index]
        return f"{scene}/{camera}/frame.{frame:04d}"

    def scene_name(self, index: int) -> str:
        """The scene; the official split never divides one."""
        return self._frames[index][0]

    def _find(self, roots: Roots, scene: str, camera: str) -> tuple[Path, Path]:
        """The folders of light and geometry, existing or expected."""

        def find(kind: RootKind, content: str) -> Path:
            relative = f"{scene}/images/scene_{camera}_{content}"
            return roots.find(relative, kind) or roots.candidates(relative, kind)[0]

        light = "final_preview" if self._preview else "final_hdf5"
        return find("all_in_focus", light), find("depth", "geometry_hdf5")

    def _paths(self, scene: str, camera: str, frame: int) -> tuple[Path, Path, Path]:
        """Light, distance and render entity of a frame."""
        light, geometry = self._folders[scene, camera]
        stem = f"frame.{frame:04d}"
        return (
            light / f"{stem}.{'tonemap.jpg' if self._preview else 'color.hdf5'}",
            geometry / f"{stem}.depth_meters.hdf5",
            geometry / f"{stem}.render_entity_id.hdf5",
        )


@dataclass(frozen=True, eq=False)
class ImagePlane:
    """Positions of the pixels of an image relative to the optical centre.

    A picture depends only on the optical centre and on this plane. A tilted camera is therefore an
    upright one in a frame turned with the plane: the optical axis is the plane's normal, depth is
    measured along it, and the principal point is where it meets the plane, perhaps outside the
    image. Depth along another axis of the tilted frame would fit neither the intrinsics nor a lens
    parallel to its sensor.

    Attributes:
        from_pixels: (3, 3), maps (x, y, 1), pixel centres at halves, to a point of the plane, in
            camera axes of any unit.
    """

    from_pixels: NDArray[np.float64]

    @classmethod
    def of(cls, cam_from_uv: NDArray[np.float64], image_size: tuple[int, int]) -> ImagePlane:
        """The plane of a matrix that maps (u, v, 1) to rays.

        Args:
            cam_from_uv: (3, 3); u to the right and v upwards, -1 and 1 at the image's borders.
            image_size: (height, width).
        """
        height, width = image_size
        uv_from_pixels = np.array([[2 / width, 0, -1], [0, -2 / height, 1], [0, 0, 1]])
        return cls(cam_from_uv @ uv_from_pixels)

    def pinhole(self) -> tuple[float, tuple[float, float]]:
        """The equivalent upright camera.

        If rows and columns are not at a right angle, which a `Camera` cannot express, the focal
        length is that of a square pixel of the same area.

        Returns:
            Focal length [px]; principal point (x, y), pixel centres at halves.
        """
        right, down, origin = self.from_pixels.T
        pixel = np.cross(right, down)
        pixel_area = float(np.linalg.norm(pixel))
        normal = pixel / pixel_area
        # origin + x right + y down = distance normal
        x, y, distance = np.linalg.solve(np.stack([right, down, -normal], axis=1), -origin)
        return abs(float(distance)) / math.sqrt(pixel_area), (float(x), float(y))

    def depth(self, ray_distance_m: NDArray[np.floating]) -> NDArray[np.float32]:
        """Depth along the plane's normal, from the distance along each pixel's ray.

        z = d D / |q|, where D is the distance of the plane and |q| the length of the ray to it.
        Exact for any tilt, shift and skew.

        Args:
            ray_distance_m: d, (H, W), metres from the optical centre.

        Returns:
            (H, W) metres; NaN where d is.
        """
        height, width = ray_distance_m.shape
        right, down, origin = self.from_pixels.T
        normal = np.cross(right, down)
        plane_distance = abs(normal @ origin) / np.linalg.norm(normal)
        # |q|² / D² is a quadratic form of the pixel: rows plus columns, and a product where the
        # two are not at a right angle. No (H, W, 3) array of rays is made.
        form = self.from_pixels.T @ self.from_pixels / plane_distance**2
        x, y = np.arange(width) + 0.5, np.arange(height) + 0.5
        of_x = (form[0, 0] * x + 2 * form[0, 2]) * x + form[2, 2]
        of_y = (form[1, 1] * y + 2 * form[1, 2]) * y
        squared = np.add.outer(of_y.astype(np.float32), of_x.astype(np.float32))
        if form[0, 1] != 0:
            both = np.multiply.outer((2 * form[0, 1] * y).astype(np.float32), x.astype(np.float32))
            squared += both
        return ray_distance_m.astype(np.float32) / np.sqrt(squared, out=squared)


def exposed(colour: NDArray[np.floating], not_empty: NDArray[np.bool_]) -> tuple[Tensor, NDArray]:
    """Linear light of an HDR frame at the exposure of the published tone map.

    That map (`code/python/tools/scene_generate_images_tonemap.py`) shows (k c)^(1/2.2), with k
    such that the 90th percentile of brightness is shown as 0.8. Light is k c, cut off at 1 as
    there: its sRGB encoding differs from the published picture only by the curves of gamma 2.2 and
    sRGB. A frame too dark to expose is black, as published.

    Args:
        colour: (H, W, 3) radiance.
        not_empty: (H, W), True where there is geometry, which alone sets the exposure.

    Returns:
        (3, H, W) float32 in [0, 1]; (H, W) False where the colour is NaN, and the light black.
    """
    light = colour.transpose(2, 0, 1).astype(np.float32, order="C")
    np.minimum(light, _LARGEST_HALF, out=light)  # half floats overflow at lamps
    brightness = (_LUMA @ light.reshape(3, -1)).reshape(not_empty.shape)
    known = ~np.isnan(brightness)
    seen = brightness[not_empty & known]
    bright = float(np.percentile(seen, 90)) if seen.size else _BRIGHT
    light *= np.float32(_BRIGHT / bright if bright >= _DARK else 0.0)
    np.clip(light, 0, 1, out=light)
    if not known.all():
        light[:, ~known] = 0
    return torch.from_numpy(light), known


def _table(roots: Roots, name: str) -> Path:
    """One of the two tables, found under any root."""
    *others, last = roots.folders
    found = next((path for kind in others if (path := roots.find(name, kind))), None)
    return found or roots.need(
        name, last, remedy=f"Download {_SOURCES[name]} into the folder of the scenes."
    )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a table, each with the number of its line."""
    remedy = f"Download it again: {_SOURCES[path.name]}"
    with (
        reading(path, "cannot be read as a table", remedy),
        path.open(encoding="utf-8", newline="") as file,
    ):
        reader = csv.DictReader(file)
        absent = [name for name in columns if name not in (reader.fieldnames or ())]
        if absent:
            raise InputError(f"{path}: has no column {absent[0]}. {remedy}")
        rows = [(reader.line_num, row) for row in reader]
    for line, row in rows:
        if any(row[name] is None for name in columns):
            raise InputError(f"{path}, line {line}: cut short. {remedy}")
        yield line, row


def _published_frames(path: Path, split: str) -> tuple[list[tuple[str, str, int]], int]:
    """(scene, camera, frame) of a split, and the number of excluded frames in its scenes."""
    frames: list[tuple[str, str, int]] = []
    excluded: list[str] = []
    columns = (
        "scene_name",
        "camera_name",
        "frame_id",
        "included_in_public_release",
        "split_partition_name",
    )
    for line, row in _rows(path, columns):
        if row["included_in_public_release"] != "True":
            excluded.append(row["scene_name"])
        elif row["split_partition_name"] == split:
            scene, camera, frame = (row[name] for name in columns[:3])
            names = (scene, camera)
            if not all(map(_NAME.fullmatch, names)) or not _FRAME.fullmatch(frame):
                raise InputError(
                    f"{path}, line {line}: names the frame {scene!r}, {camera!r}, {frame!r}; "
                    f"expected such as ai_001_001, cam_00, 0. Download it again: "
                    f"{_SOURCES[path.name]}"
                )
            frames.append((scene, camera, int(frame)))
    scenes = {scene for scene, _, _ in frames}
    return frames, sum(scene in scenes for scene in excluded)


def _cameras(path: Path, scenes: set[str]) -> dict[str, NDArray[np.float64]]:
    """`M_cam_from_uv` of scenes."""
    columns = [f"M_cam_from_uv_{row}{column}" for row in range(3) for column in range(3)]
    remedy = f"Download it again: {_SOURCES[_CAMERA_CSV]}"
    cameras = {}
    for line, row in _rows(path, ("scene_name", *columns)):
        if row["scene_name"] in scenes:
            with reading(path, f"cannot be read as a table of cameras, line {line}", remedy):
                matrix = np.array([float(row[name]) for name in columns]).reshape(3, 3)
                if not np.linalg.cond(matrix) < _LARGEST_CONDITION:  # nor NaN
                    raise ValueError(f"the matrix of {row['scene_name']} maps to no image plane")
            cameras[row["scene_name"]] = matrix
    if unknown := sorted(scenes - cameras.keys()):
        raise InputError(f"{path}: has no camera for {unknown[0]}. {remedy}")
    return cameras


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _read(path: Path, dimensions: int) -> NDArray:
    """The array of a HyperSim file, opened for this access only."""
    with open_hdf5(path, "Download it again.") as file:
        shape = file.shape("dataset")
        if len(shape) != dimensions or (dimensions == 3 and shape[2] != 3):
            expected = "(height, width)" if dimensions == 2 else "(height, width, 3)"
            raise InputError(f"{path}: an array of shape {shape}; expected {expected}.")
        return file.read("dataset")
