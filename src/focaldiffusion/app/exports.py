"""Files of a result to take away, with its retouching."""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.app.views import Place, View, view_of
from focaldiffusion.errors import InputError
from focaldiffusion.fusion.retouch import Retouch
from focaldiffusion.io.glb import Grid, points_glb, surface_glb, with_sharp_outlines
from focaldiffusion.io.panels import depth_picture
from focaldiffusion.io.png import save_png, write_png
from focaldiffusion.io.pointcloud import write_point_cloud
from focaldiffusion.io.results import (
    LIVING_FILE,
    RETOUCH_FILE,
    check_formats,
    write_depth,
    write_points,
    write_retouch,
)
from focaldiffusion.io.tiff_writing import write_tiff
from focaldiffusion.living_picture.picture import living_picture
from focaldiffusion.saved import SavedResult
from focaldiffusion.virtual_camera import nearness

_MESH_PIXELS = 1_000_000  # of an exported surface
_GAP_PX = 0.6  # of blur diameter at working size, across an outline: twice the error of depth
_HOLE_PX = 9  # a smaller hole in the confidence is not left open
_MEDIAN_PX = 5  # takes the noise of depth off a surface, and keeps its outlines
_LEFT_OF_GAP = 0.6  # least step that is cut: a longer ramp becomes a stair
_GAP_SHARE = 0.03  # of the range of depth, where the blur is unknown
_RAMP_PX = 3.5  # at working size: how far enlarging smears an outline
_LONGEST_STACK_NAME = 200  # bytes
_FLAT_DEPTH = 0.5  # depth of a surface without metres, whose width is 1


def mesh(place: Place, detail: int, least_confidence: float, points: bool) -> bytes:
    """The surface of a result, or its points, as GLB.

    Args:
        place: of the result.
        detail: most pixels, each a corner of the surface.
        least_confidence: pixels below it are left out.
        points: whether points are wanted.

    Raises:
        InputError: the result has no depth, or nothing is left.
    """
    view = view_of(place)
    grid = _grid(view, max(16, min(detail, 4_000_000)), least_confidence)
    if points:
        return points_glb(grid)
    level = next(one for one in view.layer("image").levels[::-1] if max(one.shape) <= 4096)
    return surface_glb(grid, view.screen_values[np.asarray(level)])


def _grid(view: View, detail: int, least_confidence: float) -> Grid:
    """The points of a result at a reduced size."""
    saved, ends = view.saved, view.depth_range
    if ends is None:
        raise InputError(f"{saved.name}: no depth is known, so it has no surface.")
    (height, width), field = view.size, ends.field
    stride = max(1, math.ceil(math.sqrt(height * width / detail)))
    layers = (view.layer(name).native for name in ("depth", "image", "confidence"))
    depth, pixels, sure = (np.asarray(one[::stride, ::stride]) for one in layers)
    enlarged = max(height, width) / max(saved.metadata["working_size"])
    reach_px = max(1, round(_RAMP_PX * enlarged / stride))
    extent = abs(float(nearness(ends.high, field) - nearness(ends.low, field)))
    scale = saved.metadata["blur_scale"]
    gap = _GAP_SHARE * extent if scale is None else _GAP_PX / scale
    smooth = cv2.medianBlur(nearness(depth, field), _MEDIAN_PX)
    near = with_sharp_outlines(smooth, reach_px, gap)
    trusted = (sure >= 255 * least_confidence).astype(np.uint8)
    window = np.ones((_HOLE_PX, _HOLE_PX), np.uint8)
    known = np.isfinite(depth) & (cv2.morphologyEx(trusted, cv2.MORPH_CLOSE, window) > 0)
    y = np.arange(0, height, stride)[:, None] + 0.5
    x = np.arange(0, width, stride) + 0.5
    camera = saved.camera
    if field == "depth_m" and camera is not None:
        centre_x, centre_y = camera.principal_point_px
        known &= near > 0
        z: NDArray[np.floating[Any]] = 1 / np.where(known, near, np.float32(1))
        focal = camera.focal_length_px
        pitch = z * np.float32(stride / focal)
        places = ((x - centre_x) / focal * z, (y - centre_y) / focal * z, z)
    else:
        z = 1 + _FLAT_DEPTH * (float(near.max()) - near) / max(extent, 1e-12)
        pitch = np.full_like(z, stride / width)
        places = (x - width / 2) / width, (y - height / 2) / width, z
    points = np.stack(np.broadcast_arrays(*places), axis=-1)
    colours = view.screen_values[pixels]
    return Grid(points.astype(np.float32), colours, known, pitch, _LEFT_OF_GAP * gap, near, sure)


def exported(place: Place, name: str) -> str:
    """Write a file of the result to a new folder beside it, and return its path.

    Raises:
        InputError: there is no such format, or this result cannot have it.
    """
    if name not in _WRITERS:
        raise InputError(f"format {name!r}: expected one of {', '.join(_WRITERS)}.")
    view = view_of(place)
    folder = Path(tempfile.mkdtemp(prefix="export-", dir=Path(place[1]).parent))
    try:
        _WRITERS[name](place, view, folder / name)
        kept = folder / download_name(view.saved.name, name)
        (folder / name).rename(kept)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return str(kept)


def download_name(stack: str, name: str) -> str:
    """Name of a file to take away, with the name of its stack; file systems take 255 bytes."""
    short = stack.replace("/", "_").encode()[:_LONGEST_STACK_NAME].decode(errors="ignore")
    return f"{short}_{name}"


def _image(place: Place, view: View, path: Path) -> None:
    saved, pixels = view.saved, view.layer("image").native
    white = np.float32(np.iinfo(pixels.dtype).max)
    image = np.asarray(pixels) / white
    write_png(
        path,
        image[..., 0] if saved.is_grey else image,
        bit_depth=16 if pixels.dtype == np.uint16 else 8,
        metadata=saved.image_metadata,
        alpha=saved.alpha,
    )


def _tiff(place: Place, view: View, path: Path) -> None:
    pixels = np.asarray(view.layer("image").native)
    grey = view.saved.is_grey
    write_tiff(path, pixels[..., 0] if grey else pixels, view.saved.image_metadata)


def _depth(place: Place, view: View, path: Path) -> None:
    kind: Any = path.suffix[1:]
    check_formats([kind])
    field = view.saved.depth_field
    if field is None or (kind == "png" and field != "depth_m"):
        needed = "depth" if field is None else "depth in metres"
        raise InputError(f"{view.saved.name}: {path.name} needs {needed}. Take another format.")
    depth = np.asarray(view.layer("depth").native)
    if left_out := write_depth(path.parent, field, depth, [kind]):
        raise InputError("; ".join(f"{name}: {why}" for name, why in left_out.items()) + ".")
    (made,) = path.parent.iterdir()
    made.rename(path)


def _points(place: Place, view: View, path: Path) -> None:
    saved = view.saved
    if saved.depth_field != "depth_m" or saved.camera is None:
        raise InputError(
            f"{saved.name}: points need depth in metres and the focal length. Give the focus "
            "distances and the lens, and run it again."
        )
    pixels = view.layer("image").native
    image = view.screen_values[np.asarray(pixels)] / np.float32(255)
    write_point_cloud(path, np.asarray(view.layer("depth").native), image, saved.camera)


def _surface(place: Place, view: View, path: Path) -> None:
    path.write_bytes(mesh(place, _MESH_PIXELS, 0.0, False))


def _living(place: Place, view: View, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _write_session(place, view, Path(folder))
        path.write_text(living_picture(SavedResult.open(Path(folder))), "utf-8")


def _retouching(place: Place, view: View, path: Path) -> None:
    write_retouch(path, Retouch(view.size, view.strokes))


def _session(place: Place, view: View, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        _write_session(place, view, Path(folder))
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:  # files are compressed
            for file in sorted(Path(folder).iterdir()):
                archive.write(file, f"{view.saved.name}/{file.name}")


def _write_session(place: Place, view: View, folder: Path) -> None:
    """The folder that `infer` wrote, with the retouching: what it writes with `--retouch`."""
    stale = {"overview.png", LIVING_FILE} if view.strokes else set()
    for file in view.saved.folder.iterdir():
        if file.is_file() and file.name not in stale:
            shutil.copyfile(file, folder / file.name)
    if not view.strokes:
        return
    saved = view.saved
    _image(place, view, folder / "all_in_focus.png")
    save_png(folder / "source_index.png", np.asarray(view.layer("source").native))
    _retouching(place, view, folder / RETOUCH_FILE)
    if saved.depth_field is None:
        return
    depth = np.asarray(view.layer("depth").native)
    save_png(folder / "confidence.png", np.asarray(view.layer("confidence").native))
    save_png(folder / "depth_colored.png", depth_picture(depth, saved.depth_field))
    stems = {file.suffix[1:] for file in folder.glob("depth*.*") if file.stem != "depth_colored"}
    formats: list[Any] = [kind for kind in ("npy", "png", "exr") if kind in stems]
    write_depth(folder, saved.depth_field, depth, formats)
    if (folder / "point_cloud.ply").exists():
        pixels = np.asarray(view.layer("image").native)
        image = view.screen_values[pixels] / np.float32(255)
        write_points(folder, depth, image, saved.camera, "on")


_WRITERS: dict[str, Callable[[Place, View, Path], None]] = {
    "image.png": _image,
    "image.tif": _tiff,
    "depth.npy": _depth,
    "depth.exr": _depth,
    "depth.png": _depth,
    "points.ply": _points,
    "surface.glb": _surface,
    "session.zip": _session,
    "living.html": _living,
    "retouch.json": _retouching,
}
