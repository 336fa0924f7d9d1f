"""The folder of results: written whole, or not at all."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import why_not_millimetres, write_depth_mm, write_npy
from focaldiffusion.io.images import PNG_LEVEL, ImageMetadata, write_png
from focaldiffusion.io.panels import depth_picture
from focaldiffusion.io.pictures import overview
from focaldiffusion.io.pointcloud import write_point_cloud
from focaldiffusion.io.staging import file_errors_named, staging
from focaldiffusion.result import Reconstruction
from focaldiffusion.stack import FocalStack

METADATA_FILE = "metadata.json"
"""Written last: where it is, the results are complete."""

_DEPTH_FILES = {
    "depth_m": ("depth.npy", "float32 metres along the optical axis, NaN where unknown"),
    "height_m": ("height.npy", "float32 metres relative to the first stage position, NaN unknown"),
    "depth_relative": ("depth_relative.npy", "float32, 0 first frame to 1 last, NaN unknown"),
}
_MILLIMETRES, _POINT_CLOUD = "depth_mm.png", "point_cloud.ply"

OWN_FILES: dict[str, str] = {
    "all_in_focus.png": "sharp everywhere; bit depth, ICC profile and EXIF of the input",
    **dict(_DEPTH_FILES.values()),
    _MILLIMETRES: "16-bit millimetres along the optical axis, 0 where unknown",
    "depth_colored.png": "depth to look at, with its scale",
    "overview.png": "frames, all in focus, depth and confidence to look at",
    "confidence.png": "8 bit, confidence times 255",
    "source_index.png": "index, from 0, of the frame that each pixel mainly comes from; 255 (in "
    "16 bits 65535) where it is generated",
    _POINT_CLOUD: "coloured points, metres: x right, y down, z forward from the optical centre",
    METADATA_FILE: "this file",
}
"""Every file that results may consist of, and what it holds; the mark of completeness last."""


def has_results(directory: Path) -> bool:
    """Whether the folder holds complete results."""
    return (directory / METADATA_FILE).is_file()


def check_output(directory: Path, *, overwrite: bool = False) -> None:
    """Check that results can go to a folder, before the long work; leaves nothing behind.

    Raises:
        InputError: the path is a file, cannot be written, or holds results that may not be
            overwritten.
    """
    with file_errors_named(directory):
        ancestors = (directory, *directory.absolute().parents)
        existing = next(path for path in ancestors if path.exists())
        if not existing.is_dir():
            raise InputError(
                f"{existing}: is a file; expected a folder for the results. Choose another output."
            )
        folders = [name for name in OWN_FILES if (directory / name).is_dir()]
        if folders:
            raise InputError(
                f"{directory / folders[0]}: is a folder, where a file of the results goes. Move it "
                "away, or choose another output."
            )
        taken = [] if overwrite else [name for name in OWN_FILES if (directory / name).exists()]
        if taken:
            more = f" and {len(taken) - 3} more results" if len(taken) > 3 else ""
            raise InputError(
                f"{directory}: already holds {', '.join(taken[:3])}{more}. "
                "Choose another output, or overwrite them with --overwrite (overwrite=True)."
            )
        # Permission bits do not tell of read-only disks or of the superuser: try it.
        Path(tempfile.mkdtemp(prefix=".focaldiffusion-", dir=existing)).rmdir()


def write_results(
    reconstruction: Reconstruction,
    stack: FocalStack,
    directory: Path,
    *,
    name: str | None = None,
    grade: str | None = None,
    image_metadata: ImageMetadata | None = None,
    focal_length_px: float | None = None,
    point_cloud: bool = True,
    overwrite: bool = False,
) -> dict[str, str]:
    """Write everything a user sees of a result.

    All files appear together, see `staging`; only files of `OWN_FILES` are ever replaced or
    removed. After any error or interruption everything is as it was before.

    Args:
        reconstruction: the result, at native size.
        stack: what it was made from; its `frames` say the bit depth and whether it is grey,
            8-bit colour without them.
        directory: the folder to make or fill.
        name: what pictures call the stack; the folder's name when not given.
        grade: what was known of the camera, for the overview's title, such as "calibrated".
        image_metadata: ICC profile and EXIF of the reference frame.
        focal_length_px: F at native size [px], for the point cloud where
            `reconstruction.camera` is None.
        point_cloud: whether to write it.
        overwrite: whether results that are there may be replaced.

    Returns:
        The files that were left out although asked for, and why; also in `metadata.json`.

    Raises:
        InputError: as `check_output`, or the disk is full or not writable.
    """
    check_output(directory, overwrite=overwrite)
    with file_errors_named(directory), staging(directory, tuple(OWN_FILES)) as partial:
        _write_images(reconstruction, stack, partial, image_metadata)
        _write_pictures(reconstruction, stack, partial, name or directory.resolve().name, grade)
        left_out = _write_depth(reconstruction, partial)
        if point_cloud and reconstruction.depth_m is not None:
            left_out |= _write_points(reconstruction, partial, focal_length_px)
        _write_metadata(reconstruction.provenance, left_out, partial)
    return left_out


def _write_images(
    reconstruction: Reconstruction,
    stack: FocalStack,
    folder: Path,
    image_metadata: ImageMetadata | None,
) -> None:
    image = reconstruction.all_in_focus
    frames = stack.frames
    write_png(
        folder / "all_in_focus.png",
        image[..., 0] if frames is not None and frames.is_grey else image,
        bit_depth=16 if frames is not None and frames.bit_depth == 16 else 8,
        metadata=image_metadata,
    )
    confidence = reconstruction.confidence.detach().cpu().clamp(0, 1).numpy()
    _save_png(folder / "confidence.png", np.rint(confidence * 255).astype(np.uint8))
    _save_png(folder / "source_index.png", reconstruction.source_index)


def _write_pictures(
    reconstruction: Reconstruction, stack: FocalStack, folder: Path, name: str, grade: str | None
) -> None:
    field = reconstruction.depth_field
    depth = np.asarray(getattr(reconstruction, field))
    confidence = np.asarray(reconstruction.confidence)
    _save_png(folder / "depth_colored.png", depth_picture(depth, field))
    drawn = overview(
        stack, reconstruction.all_in_focus, depth, field, confidence, name=name, grade=grade
    )
    _save_png(folder / "overview.png", drawn)


def _write_depth(reconstruction: Reconstruction, folder: Path) -> dict[str, str]:
    field = reconstruction.depth_field
    write_npy(folder / _DEPTH_FILES[field][0], getattr(reconstruction, field))
    if reconstruction.depth_m is None:
        return {}
    if reason := why_not_millimetres(reconstruction.depth_m):
        return {_MILLIMETRES: f"{reason}; use depth.npy"}
    write_depth_mm(folder / _MILLIMETRES, reconstruction.depth_m)
    return {}


def _write_points(
    reconstruction: Reconstruction, folder: Path, focal_length_px: float | None
) -> dict[str, str]:
    depth_m, camera = reconstruction.depth_m, reconstruction.camera
    assert depth_m is not None
    height, width = depth_m.shape
    principal_point_px = (width / 2, height / 2)
    if camera is not None:
        focal_length_px = camera.focal_length_px
        principal_point_px = camera.principal_point_px or principal_point_px
    if focal_length_px is None:
        return {_POINT_CLOUD: "the focal length is unknown; give the camera to get points"}
    if not depth_m.isfinite().any():
        return {_POINT_CLOUD: "no pixel has a known depth"}
    write_point_cloud(
        folder / _POINT_CLOUD,
        depth_m,
        reconstruction.all_in_focus,
        focal_length_px,
        principal_point_px,
    )
    return {}


def _write_metadata(provenance: dict[str, Any], left_out: dict[str, str], folder: Path) -> None:
    if "results" in provenance:
        raise ValueError("provenance has a key 'results', which metadata.json needs for the files")
    written = {name: text for name, text in OWN_FILES.items() if (folder / name).exists()}
    written[METADATA_FILE] = OWN_FILES[METADATA_FILE]
    content = {**provenance, "results": {"files": written, "left_out": left_out}}
    text = json.dumps(strict_json(content), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / METADATA_FILE).write_text(text + "\n", encoding="utf-8")


def strict_json(value: Any) -> Any:
    """The value with null for every infinity and NaN, which JSON cannot hold.

    NumPy scalars become numbers, tuples lists and paths text; any other type is left for
    `json` to refuse.
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


def _save_png(path: Path, pixels: NDArray[np.integer[Any]]) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, format="PNG", compress_level=PNG_LEVEL)
