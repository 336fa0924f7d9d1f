"""The results folder, written completely or not at all."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.files import read_small, why_not_file
from focaldiffusion.fusion.retouch import Retouch
from focaldiffusion.io.depth_files import (
    why_not_millimetres,
    write_depth_mm,
    write_exr,
    write_npy,
)
from focaldiffusion.io.pointcloud import MAX_POINTS, write_point_cloud
from focaldiffusion.io.staging import file_errors_named, recover, staging
from focaldiffusion.optics import Camera

METADATA_FILE = "metadata.json"
"""Written last, so its presence means that the results are complete."""

LIVING_FILE = "living_picture.html"
"""A living picture."""

RETOUCH_FILE = "retouch.json"
"""Strokes of retouching by hand."""

DepthFormat = Literal["npy", "png", "exr"]
"""Formats of a depth map."""

PointCloud = Literal["auto", "on", "off"]
"""When `point_cloud.ply` is written: for small images, always, or never."""

DEPTH_STEMS = {"depth_m": "depth", "height_m": "height", "depth_relative": "depth_relative"}
_DEPTH_TEXTS = {
    "depth": "float32 metres along the optical axis, NaN where unknown",
    "height": "float32 metres relative to the first stage position",
    "depth_relative": "float32, 0 first frame to 1 last",
}
_INTERVAL = "interval of the depth, in its unit, that holds nine of ten true depths"
_MOST_BYTES = 1 << 26  # of a retouch.json
_MILLIMETRES, _POINT_CLOUD = "depth_mm.png", "point_cloud.ply"

OWN_FILES: dict[str, str] = {
    "all_in_focus.png": "sharp everywhere; range of values, bit depth, ICC profile and EXIF of the "
    "input",
    **{f"{stem}.{kind}": text for stem, text in _DEPTH_TEXTS.items() for kind in ("npy", "exr")},
    "depth_near.npy": f"float32, {_INTERVAL}; its low end",
    "depth_far.npy": f"float32, {_INTERVAL}; its high end, infinite where the depth may be",
    _MILLIMETRES: "16-bit millimetres along the optical axis, 0 where unknown",
    "depth_colored.png": "depth in colours, with its scale",
    "overview.png": "frames, all in focus, depth and confidence side by side",
    "confidence.png": "8 bit, confidence times 255",
    "prior_share.png": "8 bit, 255 where the prior decided on the depth, 0 where defocus did",
    "source_index.png": "index, from 0, of the main source frame of each pixel; 255 (65535 in 16 "
    "bits) where generated",
    _POINT_CLOUD: "coloured points, metres: x right, y down, z forward from the optical centre",
    LIVING_FILE: "one page to refocus and probe, without server or network",
    RETOUCH_FILE: "strokes of the brush that the results have; infer --retouch replays them",
    METADATA_FILE: "this file",
}
"""Content of every possible file of results; the mark of completeness comes last."""


def has_results(directory: Path) -> bool:
    """Whether the folder holds complete results."""
    return why_not_file(directory / METADATA_FILE) is None


def check_output(directory: Path, *, overwrite: bool = False) -> None:
    """Check before the long work that results can go to a folder; leaves nothing behind.

    Earlier results that a killed process had set aside come back first, see `recover`.

    Raises:
        InputError: the path is a file or a link to nothing, no folder can have its name, it cannot
            be written, or it holds results and `overwrite` is False.
    """
    with file_errors_named(directory):
        try:
            recover(directory)
            ancestors = (directory, *directory.absolute().parents)
            existing = next(path for path in ancestors if os.path.lexists(path))
        except ValueError:  # NUL, or a lone surrogate
            raise InputError(f"{directory}: no folder can have this name. Correct it.") from None
        if not existing.exists():
            raise InputError(
                f"{existing}: {why_not_file(existing)}; expected a folder for the results. Mend "
                "the link, or choose another output."
            )
        if not existing.is_dir():
            raise InputError(
                f"{existing}: is a file; expected a folder for the results. Choose another output."
            )
        folders = [name for name in OWN_FILES if (directory / name).is_dir()]
        if folders:
            raise InputError(
                f"{directory / folders[0]}: is a folder, but a file of the results needs its name. "
                "Move it away, or choose another output."
            )
        taken = [] if overwrite else [name for name in OWN_FILES if (directory / name).exists()]
        if taken:
            more = f" and {len(taken) - 3} more results" if len(taken) > 3 else ""
            raise InputError(
                f"{directory}: already holds {', '.join(taken[:3])}{more}. "
                "Choose another output, or overwrite them with --overwrite (overwrite=True)."
            )
        # Permission bits do not reveal read-only disks or the superuser, so try it.
        Path(tempfile.mkdtemp(prefix=".focaldiffusion-", dir=existing)).rmdir()


@contextmanager
def results_folder(directory: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A folder to write results into; they appear in `directory` together, or not at all.

    Only files in `OWN_FILES` are ever replaced or removed, see `staging`. Any error or interruption
    leaves everything unchanged.

    Raises:
        InputError: see `check_output`; the disk is full or not writable; or another process has
            put results there meanwhile and `overwrite` is False.
    """
    check_output(directory, overwrite=overwrite)
    with (
        file_errors_named(directory),
        staging(directory, tuple(OWN_FILES), replace=overwrite) as partial,
    ):
        yield partial


def check_formats(depth_formats: Sequence[str], point_cloud: str = "auto") -> None:
    """Check the formats of a depth map and of its points, before the long work.

    Raises:
        InputError: none is given, one is unknown, or its package is not installed.
    """
    if point_cloud not in get_args(PointCloud):
        problem = unknown_name(str(point_cloud), get_args(PointCloud))
        raise InputError(f"point_cloud {point_cloud!r} {problem}")
    for name in depth_formats:
        if name not in get_args(DepthFormat):
            raise InputError(f"depth format {name!r} {unknown_name(name, get_args(DepthFormat))}")
    if not depth_formats:
        raise InputError(f"depth format: none; expected any of {', '.join(get_args(DepthFormat))}.")
    if "exr" in depth_formats and find_spec("OpenEXR") is None:
        raise InputError(
            "depth format 'exr': the package OpenEXR is missing. Install it with: "
            "pip install 'focaldiffusion[exr]'"
        )


def write_depth(
    folder: Path, field: str, depth: NDArray[np.float32], formats: Sequence[DepthFormat]
) -> dict[str, str]:
    """Write a depth map (H, W) in the given formats.

    Args:
        folder: folder of the results.
        field: its name in `Result`, which decides the file name.
        depth: metres, or relative; NaN where unknown.
        formats: see `check_formats`; png only applies to metric depth.

    Returns:
        Files that were left out, and why.
    """
    stem = DEPTH_STEMS[field]
    if "npy" in formats:
        write_npy(folder / f"{stem}.npy", depth)
    if "exr" in formats:
        write_exr(folder / f"{stem}.exr", depth)
    if "png" not in formats or field != "depth_m":
        return {}
    if reason := why_not_millimetres(depth):
        return {_MILLIMETRES: f"{reason}; use {stem}.npy or .exr"}
    write_depth_mm(folder / _MILLIMETRES, depth)
    return {}


def write_points(
    folder: Path,
    depth_m: NDArray[np.float32],
    all_in_focus: NDArray[np.float32],
    camera: Camera | None,
    wanted: PointCloud,
) -> dict[str, str]:
    """Write the point cloud of metric depth (H, W), if the focal length is known.

    Args:
        folder: folder of the results.
        depth_m: metres, NaN where unknown.
        all_in_focus: (H, W, 3) in [0, 1], sRGB-encoded.
        camera: optics at this size; None if the focal length is unknown.
        wanted: "auto" writes it only if every pixel can have a point.

    Returns:
        The file and the reason, if it was left out.
    """
    if wanted == "off":
        return {}
    if camera is None:
        return {_POINT_CLOUD: "the focal length is unknown; give the camera to get points"}
    if not np.isfinite(depth_m).any():
        return {_POINT_CLOUD: "no pixel has a known depth"}
    if wanted == "auto" and depth_m.size > MAX_POINTS:
        return {
            _POINT_CLOUD: f"more than {MAX_POINTS / 1e6:.0f} megapixels; write it with "
            '--point-cloud on (point_cloud="on")'
        }
    write_point_cloud(folder / _POINT_CLOUD, depth_m, all_in_focus, camera)
    return {}


def write_retouch(path: Path, retouch: Retouch) -> None:
    """Write `retouch.json`."""
    text = json.dumps(retouch.summary(), allow_nan=False)
    path.write_text(f"{text}\n", "utf-8")


def read_retouch(path: Path) -> Retouch:
    """Read the strokes that `write_retouch` wrote.

    Raises:
        InputError: no such file, or another kind of file.
    """
    content = read_small(path, _MOST_BYTES)
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON; expected a retouch.json.") from None
    return Retouch.of(values, str(path))


def write_metadata(folder: Path, provenance: dict[str, Any], left_out: dict[str, str]) -> None:
    """Write `metadata.json`, last: the provenance, and the files in the folder."""
    if "results" in provenance:
        raise ValueError("provenance has a key 'results', which metadata.json needs for the files")
    written = {name: text for name, text in OWN_FILES.items() if (folder / name).exists()}
    written[METADATA_FILE] = OWN_FILES[METADATA_FILE]
    content = {**provenance, "results": {"files": written, "left_out": left_out}}
    text = json.dumps(strict_json(content), indent=2, ensure_ascii=False, allow_nan=False)
    # A byte of a path that is not UTF-8 is a lone surrogate, which JSON writes as an escape.
    (folder / METADATA_FILE).write_bytes(f"{text}\n".encode(errors="backslashreplace"))


def strict_json(value: Any) -> Any:
    """The value with None for every infinity and NaN, which JSON cannot hold.

    NumPy scalars become numbers, tuples lists, and paths text; other types are left for `json` to
    refuse.
    """
    if isinstance(value, dict):
        return {key: strict_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [strict_json(item) for item in value]
    if isinstance(value, np.generic):
        return strict_json(value.item())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
