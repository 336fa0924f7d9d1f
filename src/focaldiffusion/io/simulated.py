"""A simulated stack on disk: DIR/stack (frames and stack.json) and DIR/truth."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.io.file_names import SIDECAR_NAME
from focaldiffusion.io.png import write_png
from focaldiffusion.io.staging import file_errors_named, staging
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.stack import FocalStack

STACK, TRUTH = "stack", "truth"
TRUTH_IMAGE, _TRUTH_DEPTH = "all_in_focus.png", "depth.npz"


def check_simulation_output(output: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists; with `overwrite`, only one that no simulation wrote.

    Raises:
        InputError: names what is there.
    """
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; expected a folder. Choose another output.")
    for folder in (output / STACK, output / TRUTH):
        if not folder.exists():
            continue
        if not overwrite:
            raise InputError(
                f"{output}: already holds {folder.name}. Choose another output, or replace an "
                "earlier simulation with --overwrite."
            )
        # Photographs may lie in a folder called stack; they cannot be simulated again.
        own = _simulated_names(folder)
        foreign = sorted(path.name for path in folder.iterdir() if path.name not in own)
        if foreign:
            raise InputError(
                f"{folder}: holds {foreign[0]}, which no simulation wrote, and --overwrite would "
                "remove it. Choose another output."
            )


def write_simulation(
    output: Path,
    stack: FocalStack,
    all_in_focus: Tensor,
    depth_m: Tensor,
    *,
    bit_depth: Literal[8, 16],
    note: dict[str, Any],
) -> None:
    """Write the frames with their `stack.json`, and the truth: everything or nothing.

    Args:
        output: folder that gets `stack` and `truth`.
        stack: frames with camera and focus distances.
        all_in_focus: (3, H, W) linear RGB.
        depth_m: (H, W) metres, NaN where unknown.
        bit_depth: bit depth of the PNG files.
        note: how the stack was made, for `stack.json`; needs the key `simulated`.

    Raises:
        InputError: the file system refuses.
    """
    with file_errors_named(output), staging(output, (TRUTH, STACK)) as partial:
        write_stack(partial / STACK, stack, bit_depth=bit_depth, note=note)
        (partial / TRUTH).mkdir()
        _write_linear(partial / TRUTH / TRUTH_IMAGE, all_in_focus, bit_depth)
        np.savez_compressed(partial / TRUTH / _TRUTH_DEPTH, depth=depth_m.cpu().numpy())


def write_stack(
    folder: Path, stack: FocalStack, *, bit_depth: Literal[8, 16], note: dict[str, Any]
) -> None:
    """Write the frames as PNG, and `stack.json` with the known optics.

    Args:
        folder: the folder to make.
        stack: the frames.
        bit_depth: bit depth of the files.
        note: for people, in `stack.json`.

    Raises:
        OSError: the file system refuses.
    """
    folder.mkdir()
    settings: dict[str, Any] = {"files": [f"frame_{index:02d}.png" for index in range(len(stack))]}
    for name, frame in zip(settings["files"], stack.images, strict=True):
        _write_linear(folder / name, frame, bit_depth)
    if stack.focus_distances_m is not None:
        settings["focus_distances_m"] = [
            distance if math.isfinite(distance) else None
            for distance in stack.focus_distances_m.tolist()
        ]
    if stack.focus_positions_m is not None:
        settings["focus_positions_m"] = stack.focus_positions_m.tolist()
    if stack.camera is not None:
        lens = LensFacts(
            focal_length_px=stack.camera.focal_length_px,
            aperture_diameter_m=stack.camera.aperture_diameter_m,
        )
        settings["camera"] = lens.values()
    settings["note"] = note
    (folder / SIDECAR_NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_linear(path: Path, linear: Tensor, bit_depth: Literal[8, 16]) -> None:
    write_png(path, linear_to_srgb(linear.cpu()).permute(1, 2, 0).numpy(), bit_depth=bit_depth)


def _simulated_names(folder: Path) -> set[str]:
    """Names that a simulation writes into a folder; empty for other folders."""
    if folder.name == TRUTH:
        return {TRUTH_IMAGE, _TRUTH_DEPTH}
    try:
        settings = json.loads((folder / SIDECAR_NAME).read_text(encoding="utf-8"))
        return {SIDECAR_NAME, *settings["files"]} if "simulated" in settings["note"] else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()
