"""What the test server of ZEDD takes: a zip of 50 depth maps, see https://zedd.cs.princeton.edu.

From the README of https://github.com/princeton-vl/FOSSA: zedd_output_0001.npy to
zedd_output_0050.npy at the root of the zip, one for each scene of test in the order of their names,
each a float array of 1216x1824 with finite values only. Metres, along the optical axis.
"""

from __future__ import annotations

import math
import zipfile
import zlib
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
from focaldiffusion.io.staging import file_errors_named, staging

NAMES = tuple(f"zedd_output_{number:04d}.npy" for number in range(1, 51))
"""The files of the zip."""


def predicted_depths(model: Model, data_root: str | Path) -> Iterator[tuple[str, Tensor]]:
    """What a model says of the test stacks, with the frames of the published protocol.

    Args:
        model: whose depth is submitted.
        data_root: folder of ZEDD, with metadata.txt and test.

    Yields:
        Scene, such as test_0001, and its depth (1216, 1824) [m].

    Raises:
        InputError: files that are missing or not what they should be, or a model without depth.
    """
    stacks = ZEDDTest(data_root)
    frames = PROTOCOLS["zedd"].frames
    assert frames is not None
    for index in range(len(stacks)):
        scene = stacks.name(index)
        depth_m = model.predict(chosen_frames(stacks[index], frames), f"test/{scene}").depth_m
        if depth_m is None:
            raise InputError(
                f"{model.name} says nothing of the depth of {scene}. Submit another model."
            )
        yield scene, depth_m


def write_submission(
    path: Path, depths_m: Iterable[tuple[str, Tensor]], *, fill_m: float | None = None
) -> None:
    """Write the zip; it appears complete or not at all.

    Args:
        path: the zip.
        depths_m: scene and depth (1216, 1824) [m] of test_0001 to test_0050, in this order; read
            one at a time.
        fill_m: what to write where there is no positive finite depth [m]. The server takes no
            gaps, and nothing here invents depth unasked: None refuses them.

    Raises:
        InputError: scenes that are missing or out of order, another size, or gaps; the file system
            refuses.
    """
    if fill_m is not None and not 0 < fill_m < math.inf:
        raise InputError(f"{path}: fill_m is {fill_m}; expected metres, more than 0.")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; expected the name of a zip, such as depth.zip.")
    remaining = iter(NAMES)
    with file_errors_named(path.parent), staging(path.parent, [path.name]) as partial:
        # Deflating noise harder takes a minute and saves nothing.
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
        missing = next(remaining, None)
        if missing is not None:
            raise InputError(
                f"{path}: nothing for test_{missing[12:16]}. Give test_0001 to test_0050."
            )
        check_submission(partial / path.name)


def check_submission(path: Path) -> None:
    """Check a zip as the server does.

    Raises:
        InputError: the first thing that the server would refuse.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_names(path, archive.namelist())
            for name in NAMES:
                with archive.open(name) as file:
                    _check_array(f"{path}: {name}", np.lib.format.read_array(file))
    except InputError:
        raise
    except (
        OSError,
        EOFError,
        ValueError,
        RuntimeError,  # encrypted, or of a compression that zipfile has not
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(f"{path}: cannot be read as a zip of .npy files ({error}).") from error


def _complete(scene: str, depth_m: Tensor, fill_m: float | None) -> Tensor:
    """The depth as float32 without gaps, on the CPU."""
    if tuple(depth_m.shape) != SIZE:
        raise InputError(
            f"{scene}: depth of {tuple(depth_m.shape)}; the server takes {SIZE}, (height, width)."
        )
    depth_m = depth_m.detach().to("cpu", torch.float32)
    gaps = ~(depth_m.isfinite() & (depth_m > 0))
    if fill_m is None and bool(gaps.any()):
        raise InputError(
            f"{scene}: {int(gaps.sum())} of {gaps.numel()} pixels have no depth, and the server "
            "takes finite numbers only. Say what to write there, in metres (fill_m)."
        )
    return depth_m if fill_m is None else depth_m.masked_fill(gaps, fill_m)


def _check_names(path: Path, names: list[str]) -> None:
    strange = sorted(set(names) - set(NAMES))
    if strange:
        raise InputError(
            f"{path}: holds {strange[0]}; the server takes {NAMES[0]} to {NAMES[-1]} only, in no "
            "folder. Remove it."
        )
    missing = [name for name in NAMES if name not in names]
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing, one of {len(missing)}. Add it.")
    if len(names) > len(NAMES):
        raise InputError(f"{path}: {len(names)} files of {len(NAMES)} names. Write the zip anew.")


def _check_array(place: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f":
        raise InputError(f"{place} is of {array.dtype}; the server takes floats.")
    if array.shape != SIZE:
        raise InputError(f"{place} is {array.shape}; the server takes {SIZE}, (height, width).")
    if not np.isfinite(array).all():
        raise InputError(f"{place} holds NaN or infinity; the server takes finite numbers only.")
