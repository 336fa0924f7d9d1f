"""`focaldiffusion simulate`: an image and its depth in, a focal stack and its truth out."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import Commands, add_focus_distances, add_lens, add_psf, known, psf
from focaldiffusion.cli.memory import is_out_of_memory
from focaldiffusion.cli.progress import progress_bars

if TYPE_CHECKING:
    from torch import Tensor

    from focaldiffusion.io.known import Known
    from focaldiffusion.optics import Camera
    from focaldiffusion.physics.psf import PSF
    from focaldiffusion.scene import Scene
    from focaldiffusion.stack import FocalStack

_STACK, _TRUTH = "stack", "truth"
_TRUTH_IMAGE, _TRUTH_DEPTH = "all_in_focus.png", "depth.npz"


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "simulate",
        help="a focal stack from an image and its depth",
        description="Photograph an image with known depth at several focus distances. Writes "
        "DIR/stack (the frames and stack.json) and DIR/truth (all_in_focus.png and depth.npz).",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--image", required=True, type=Path, metavar="FILE", help="sharp everywhere, sRGB"
    )
    parser.add_argument(
        "--depth",
        required=True,
        type=Path,
        metavar="FILE",
        help="depth along the optical axis, as .npy, .npz or 16-bit PNG; unknown is NaN, or 0 in "
        "PNG, and takes the depth of the nearest known pixel",
    )
    parser.add_argument(
        "--depth-scale",
        type=float,
        metavar="METRES",
        help="metres in one unit of the depth file (default: 1, and 0.001 for PNG)",
    )
    add_focus_distances(parser, required=True)
    parser.add_argument(
        "--output", required=True, type=Path, metavar="DIR", help="folder for the stack and truth"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier simulation")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_lens(
        parser,
        "Either --focal-length-px and --aperture-diameter-m; or --focal-length-mm, --f-number "
        "and one of --pixel-pitch-um and --sensor-width-mm.",
    )
    add_psf(parser)
    sensor = parser.add_argument_group("sensor")
    sensor.add_argument(
        "--noise-lsb",
        type=float,
        default=0.0,
        metavar="STD",
        help="noise in steps of an 8-bit file, whatever the bit depth (default: 0)",
    )
    sensor.add_argument(
        "--bit-depth", type=int, choices=(8, 16), default=8, help="of the frames (default: 8)"
    )
    sensor.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Simulate the stack and return the exit code.

    Raises:
        InputError: a mistake in the flags or the files, or an output that is taken.
    """
    import torch

    from focaldiffusion.errors import InputError
    from focaldiffusion.io.staging import file_errors_named, staging
    from focaldiffusion.physics.capture import capture
    from focaldiffusion.stack import check_focus

    if not (math.isfinite(options.noise_lsb) and options.noise_lsb >= 0):
        raise InputError(f"--noise-lsb is {options.noise_lsb}; expected a number from 0 on.")
    shape = psf(options)
    facts = known(options)
    if len(options.focus_distances) < 2:
        raise InputError("--focus-distances: a stack needs at least 2 frames; list 2 or more.")
    check_focus("focus_distances_m", options.focus_distances, len(options.focus_distances))
    _check_output(options)
    scene = _read_scene(options, facts)
    try:
        with progress_bars("simulating", quiet=options.quiet) as progress:
            progress("rendering", 0, 0)
            stack = capture(
                scene,
                options.focus_distances,
                psf=shape,
                noise_std_lsb=options.noise_lsb,
                bit_depth=options.bit_depth,
                generator=torch.Generator().manual_seed(options.seed),
            )
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"{options.image}: not enough memory for {len(options.focus_distances)} frames of "
            f"{scene.size[1]}x{scene.size[0]}. Make the image and its depth smaller."
        ) from error
    with (
        file_errors_named(options.output),
        staging(options.output, (_TRUTH, _STACK)) as partial,
    ):
        _write_stack(partial / _STACK, stack, options, _note(options, shape))
        _write_truth(partial / _TRUTH, scene, options)
    if not options.quiet:
        print(
            f"{len(stack)} frames of {stack.size[1]}x{stack.size[0]} in {options.output / _STACK}, "
            f"the truth in {options.output / _TRUTH}"
        )
    return 0


def _check_output(options: argparse.Namespace) -> None:
    """Refuse an output that is taken; with --overwrite, by anything but a simulation.

    Raises:
        InputError: names what is there.
    """
    from focaldiffusion.errors import InputError

    output: Path = options.output
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; expected a folder. Choose another output.")
    for folder in (output / _STACK, output / _TRUTH):
        if not folder.exists():
            continue
        if not options.overwrite:
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


def _simulated_names(folder: Path) -> set[str]:
    """The names that a simulation writes into a folder; none where it is not of a simulation."""
    if folder.name == _TRUTH:
        return {_TRUTH_IMAGE, _TRUTH_DEPTH}
    try:
        settings = json.loads((folder / "stack.json").read_text(encoding="utf-8"))
        return {"stack.json", *settings["files"]} if "simulated" in settings["note"] else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _read_scene(options: argparse.Namespace, facts: Known) -> Scene:
    """The image, its depth and the camera of the flags.

    Raises:
        InputError: a file that cannot be read, sizes that differ, or a camera that is not known.
    """
    import torch

    from focaldiffusion.errors import InputError
    from focaldiffusion.io.images import read_image
    from focaldiffusion.optics import srgb_to_linear
    from focaldiffusion.scene import Scene

    image = srgb_to_linear(torch.tensor(read_image(options.image)).permute(2, 0, 1))
    height, width = image.shape[-2:]
    depth_m = _read_depth(options.depth, options.depth_scale)
    if tuple(depth_m.shape) != (height, width):
        raise InputError(
            f"{options.depth}: {depth_m.shape[1]}x{depth_m.shape[0]}, but {options.image} is "
            f"{width}x{height}. Resize one to the other; take the nearest pixel for depth."
        )
    camera = _camera(facts, (height, width), min(options.focus_distances))
    return Scene(image, depth_m, ~depth_m.isnan(), camera, str(options.depth))


def _read_depth(path: Path, scale_m: float | None) -> Tensor:
    """Depth [m], (H, W), NaN where unknown.

    Raises:
        InputError: unreadable, a scale that is not positive, or millimetres by mistake.
    """
    import numpy as np
    import torch

    from focaldiffusion.errors import InputError
    from focaldiffusion.io.depth_files import read_depth_mm, read_npy

    if scale_m is not None and not (math.isfinite(scale_m) and scale_m > 0):
        raise InputError(f"--depth-scale is {scale_m}; expected a positive number.")
    suffix = path.suffix.lower()
    if suffix == ".png":
        return read_depth_mm(path) * (1 if scale_m is None else 1000 * scale_m)
    if suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as arrays:
                name = "depth" if "depth" in arrays else ", ".join(arrays)
                values = torch.from_numpy(arrays[name].astype(np.float32))
        except (OSError, ValueError, EOFError, KeyError) as error:
            raise InputError(
                f"{path}: cannot be read as a .npz file with one array, or one named depth "
                f"({error})."
            ) from error
        if values.ndim != 2:
            raise InputError(f"{path}: shape {tuple(values.shape)}; expected (height, width).")
    elif suffix == ".npy":
        values = read_npy(path)
    else:
        raise InputError(f"{path}: {suffix or 'no suffix'}; expected .npy, .npz or 16-bit .png.")
    if scale_m is None and float(values.nanmedian()) > 100:
        raise InputError(
            f"{path}: half of the depth is above 100, which looks like millimetres. Give "
            "--depth-scale 0.001; or 1, if it is metres."
        )
    return values * (scale_m or 1)


def _camera(facts: Known, image_size: tuple[int, int], nearest_m: float) -> Camera:
    """The camera of the flags, the same for all frames, as after alignment.

    Raises:
        InputError: it is not known, or cannot focus as near as `nearest_m`.
    """
    from focaldiffusion.errors import InputError
    from focaldiffusion.io.known import resolve_lens

    lens, origins = resolve_lens(facts, None, (), (), image_size)
    # Focused at infinity: the image distance is then the focal length that the flags give.
    camera = lens.camera(image_size, math.inf)
    if camera is None:
        raise InputError(
            f"camera {origins['camera']}. Give --focal-length-px and --aperture-diameter-m; or "
            "--focal-length-mm, --f-number, and --pixel-pitch-um or --sensor-width-mm."
        )
    lens.in_pixels(image_size, nearest_m)
    return camera


def _note(options: argparse.Namespace, shape: PSF) -> dict[str, object]:
    """How the stack was made, for its `stack.json`."""
    from focaldiffusion import __version__

    return {
        "simulated": f"focaldiffusion {__version__}",
        "image": str(options.image),
        "depth": str(options.depth),
        "psf": shape.family,
        **({"psf_exponent": shape.exponent} if shape.family == "power_exponential" else {}),
        "noise_lsb": options.noise_lsb,
        "bit_depth": options.bit_depth,
        "seed": options.seed,
    }


def _write_stack(
    folder: Path, stack: FocalStack, options: argparse.Namespace, note: dict[str, object]
) -> None:
    from focaldiffusion.io.images import write_png
    from focaldiffusion.io.sidecar import SIDECAR_NAME
    from focaldiffusion.optics import linear_to_srgb

    assert stack.camera is not None
    folder.mkdir()
    files = [f"frame_{index:02d}.png" for index in range(len(stack))]
    for name, frame in zip(files, linear_to_srgb(stack.images), strict=True):
        write_png(folder / name, frame.permute(1, 2, 0).numpy(), bit_depth=options.bit_depth)
    settings = {
        "files": files,
        "focus_distances_m": [
            distance if math.isfinite(distance) else None for distance in options.focus_distances
        ],
        "camera": {
            "focal_length_px": stack.camera.focal_length_px,
            "aperture_diameter_m": stack.camera.aperture_diameter_m,
        },
        "note": note,
    }
    (folder / SIDECAR_NAME).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _write_truth(folder: Path, scene: Scene, options: argparse.Namespace) -> None:
    import numpy as np

    from focaldiffusion.io.images import write_png
    from focaldiffusion.optics import linear_to_srgb

    folder.mkdir()
    image = linear_to_srgb(scene.all_in_focus).permute(1, 2, 0).numpy()
    write_png(folder / _TRUTH_IMAGE, image, bit_depth=options.bit_depth)
    np.savez_compressed(folder / _TRUTH_DEPTH, depth=scene.depth_m.numpy())
