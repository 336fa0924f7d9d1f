"""Submissions to the test server of ZEDD, https://zedd.cs.princeton.edu: a zip of 50 depth maps.

The README of https://github.com/princeton-vl/FOSSA defines it: zedd_output_0001.npy to
zedd_output_0050.npy at the root of the zip, one per test scene in the order of their names, each a
finite float array of 1216x1824: metres along the optical axis.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from focaldiffusion.data.sets.zedd import SIZE, ZEDDTest
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.prediction import Model
from focaldiffusion.evaluation.protocol import chosen_frames
from focaldiffusion.evaluation.protocols import PROTOCOLS
from focaldiffusion.files import why_not_file
from focaldiffusion.io.npy import read_member
from focaldiffusion.io.reading import reading
from focaldiffusion.io.staging import file_errors_named, staging

NAMES = tuple(f"zedd_output_{number:04d}.npy" for number in range(1, 51))
"""The files of the zip."""


def predicted_depths(model: Model, data_root: str | Path) -> Iterator[tuple[str, Tensor]]:
    """Depth that a model predicts for the test stacks, from the frames of the published protocol.

    Args:
        model: the model to submit.
        data_root: folder of ZEDD, with metadata.txt and test.

    Yields:
        Scene, such as test_0001, and its depth (1216, 1824) [m].

    Raises:
        InputError: missing or damaged files, or a model without depth.
    """
    stacks = ZEDDTest(data_root)
    frames = PROTOCOLS["zedd"].frames
    assert frames is not None
    for index in range(len(stacks)):
        scene = stacks.name(index)
        depth_m = model.predict(chosen_frames(stacks[index], frames), f"test/{scene}").depth_m
        if depth_m is None:
            raise InputError(f"{model.name} predicts no depth for {scene}. Submit another model.")
        yield scene, depth_m


def write_submission(
    path: Path, depths_m: Iterable[tuple[str, Tensor]], *, fill_m: float | None = None
) -> None:
    """Write the zip; it appears complete or not at all.

    Args:
        path: the zip.
        depths_m: scene and depth (1216, 1824) [m] of test_0001 to test_0050, in this order; read
            one at a time.
        fill_m: depth [m] for pixels without a positive finite one, which the server rejects; None
            raises instead of inventing depth.

    Raises:
        InputError: scenes missing or out of order, another size, gaps, or a failed write.
    """
    if fill_m is not None and not 0 < fill_m < math.inf:
        raise InputError(f"{path}: fill_m is {fill_m}; expected metres, more than 0.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a zip, such as depth.zip.")
    remaining = iter(NAMES)
    with file_errors_named(path.parent), staging(path.parent, [path.name]) as partial:
        # Low bits are noise: a higher level takes a minute longer and saves nothing.
        with zipfile.ZipFile(
            partial / path.name, "w", zipfile.ZIP_DEFLATED, compresslevel=1
        ) as archive:
            for scene, depth_m in depths_m:
                name = next(remaining, None)
                expected = name and f"test_{name[12:16]}"
                if name is None or scene != expected:
                    raise InputError(
                        f"{path}: got the depth of {scene}, expected "
                        f"{expected or 'no more than 50 scenes'}. Give test_0001 to test_0050."
                    )
                with archive.open(name, "w") as file:
                    np.lib.format.write_array(file, _complete(scene, depth_m, fill_m).numpy())
        if (missing := next(remaining, None)) is not None:
            raise InputError(
                f"{path}: test_{missing[12:16]} is missing. Give test_0001 to test_0050."
            )
        check_submission(partial / path.name)


def check_submission(path: Path) -> None:
    """Check a zip as the server does.

    Raises:
        InputError: the server would reject it; names the first reason.
    """
    fault = "cannot be read as a zip of .npy files"
    if why := why_not_file(path):
        raise InputError(f"{path}: {fault} ({why}).")
    with reading(path, fault, "Write it again."), zipfile.ZipFile(path) as archive:
        _check_names(path, archive.namelist())
        for name in NAMES:
            _check_array(f"{path}: {name}", read_member(path, archive, name))


def _complete(scene: str, depth_m: Tensor, fill_m: float | None) -> Tensor:
    """Depth as float32 without gaps, on the CPU."""
    if tuple(depth_m.shape) != SIZE:
        raise InputError(
            f"{scene}: depth of {tuple(depth_m.shape)}; the server takes {SIZE}, (height, width)."
        )
    depth_m = depth_m.detach().to("cpu", torch.float32)
    gaps = ~(depth_m.isfinite() & (depth_m > 0))
    if fill_m is None and bool(gaps.any()):
        raise InputError(
            f"{scene}: {int(gaps.sum())} of {gaps.numel()} pixels have no depth, and the server "
            "takes finite numbers only. Choose the depth to write there, in metres (fill_m)."
        )
    return depth_m if fill_m is None else depth_m.masked_fill(gaps, fill_m)


def _check_names(path: Path, names: list[str]) -> None:
    strange = sorted(set(names) - set(NAMES))
    if strange:
        raise InputError(
            f"{path}: holds {strange[0]}; the server takes only {NAMES[0]} to {NAMES[-1]}, outside "
            "any folder. Remove it."
        )
    missing = [name for name in NAMES if name not in names]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing, one of {len(missing)}. Add it.")
    if len(names) > len(NAMES):
        raise InputError(
            f"{path}: {len(names)} files, expected {len(NAMES)}: a name occurs twice. Write the "
            "zip again."
        )


def _check_array(place: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        raise InputError(f"{place} is {array.dtype}; the server takes floats.")
    if array.shape != SIZE:
        raise InputError(f"{place} is {array.shape}; the server takes {SIZE}, (height, width).")
    if not np.isfinite(array).all():
        raise InputError(f"{place} holds NaN or infinity; the server takes finite numbers only.")
