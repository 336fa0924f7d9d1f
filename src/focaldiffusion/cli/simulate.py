"""`focaldiffusion simulate`: a scene with depth in, a focal stack and its truth out."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.allocation import is_out_of_memory
from focaldiffusion.cli.flags import (
    Commands,
    add_focus_distances,
    add_lens,
    add_psf,
    given_path,
    lens,
    psf,
    seed,
)
from focaldiffusion.cli.progress import progress_bars
from focaldiffusion.cli.scene_source import add_dataset, chosen_scene
from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from focaldiffusion.psf import PSF


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "simulate",
        help="a focal stack from an image and its depth",
        description="Photograph a scene at several focus distances: an image with its depth, or "
        "a sample of a data set. Writes DIR/stack (the frames and stack.json) and DIR/truth "
        "(all_in_focus.png and depth.npz).",
    )
    parser.set_defaults(run=run)
    pair = parser.add_argument_group("scene of two files")
    pair.add_argument("--image", type=Path, metavar="FILE", help="sharp everywhere, sRGB")
    pair.add_argument(
        "--depth",
        type=Path,
        metavar="FILE",
        help="depth along the optical axis: .npy, .npz, .pfm, .exr, .hdf5, .tif or 16-bit PNG; "
        "unknown pixels (NaN, or 0 in PNG) take the depth of the nearest known one",
    )
    pair.add_argument(
        "--depth-scale",
        type=float,
        metavar="METRES",
        help="metres per unit of the depth file (default: 1, and 0.001 for PNG)",
    )
    sample = parser.add_argument_group("scene of a data set")
    add_dataset(sample)
    sample.add_argument(
        "--sample", metavar="NAME", help="number or name of the sample (default: 0)"
    )
    add_focus_distances(parser, required=True)
    parser.add_argument(
        "--output",
        required=True,
        type=given_path,
        metavar="DIR",
        help="folder for the stack and truth",
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
        help="noise in steps of an 8-bit file, for any bit depth (default: 0)",
    )
    sensor.add_argument(
        "--bit-depth",
        type=int,
        choices=(8, 16),
        default=8,
        help="bit depth of the frames (default: 8)",
    )
    sensor.add_argument("--seed", type=seed, default=0, help="seed of the noise (default: 0)")


def run(options: argparse.Namespace) -> int:
    """Simulate the stack and return the exit code.

    Raises:
        InputError: a mistake in the flags or the files, or an output that exists.
    """
    import torch

    from focaldiffusion.focus import check_focus
    from focaldiffusion.io.simulated import (
        STACK,
        TRUTH,
        check_simulation_output,
        write_simulation,
    )
    from focaldiffusion.simulation.capture import capture

    if not (math.isfinite(options.noise_lsb) and options.noise_lsb >= 0):
        raise InputError(f"--noise-lsb is {options.noise_lsb}; expected a number from 0 on.")
    shape = psf(options)
    if len(options.focus_distances) < 2:
        raise InputError("--focus-distances: a stack needs at least 2 frames; list 2 or more.")
    check_focus("focus_distances_m", options.focus_distances, len(options.focus_distances))
    check_simulation_output(options.output, overwrite=options.overwrite)
    scene = chosen_scene(options, lens(options))
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
            f"{scene.source}: not enough memory for {len(options.focus_distances)} frames of "
            f"{scene.size[1]}x{scene.size[0]}. Make the image and its depth smaller."
        ) from error
    write_simulation(
        options.output,
        stack,
        scene.all_in_focus,
        scene.depth_m,
        bit_depth=options.bit_depth,
        note=_note(scene.source, options, shape),
    )
    if not options.quiet:
        print(
            f"{len(stack)} frames of {stack.size[1]}x{stack.size[0]} in {options.output / STACK}, "
            f"the truth in {options.output / TRUTH}"
        )
    return 0


def _note(source: str, options: argparse.Namespace, shape: PSF) -> dict[str, object]:
    """Origin of the stack, for its `stack.json`."""
    from focaldiffusion import __version__

    return {
        "simulated": f"focaldiffusion {__version__}",
        "scene": source,
        "psf": shape.family,
        **({"psf_exponent": shape.exponent} if shape.family == "power_exponential" else {}),
        "noise_lsb": options.noise_lsb,
        "bit_depth": options.bit_depth,
        "seed": options.seed,
    }
