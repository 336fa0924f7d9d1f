"""`python -m script.inference`: the original's flags, on `focaldiffusion infer`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from focaldiffusion.cli.flags import Numbers, Parser, add_device
from focaldiffusion.cli.main import main as focaldiffusion
from focaldiffusion.files import why_not_file

_REFUSED = {
    "--guidance-scale": "the model has no text prompt",
    "--camera-invariant-mode": "the camera is used as given, or calibrated",
    "--batch-size": "stacks are reconstructed one at a time",
    "--save-intermediate": "there are no intermediate results",
}
"""Flags of the original that are refused here → the reason."""

_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_LARGEST_SENSOR_M = 1.0


def main(argv: Sequence[str] | None = None) -> int:
    """Translate the flags, run `focaldiffusion infer` and return its exit code.

    Args:
        argv: the arguments, those of the process when not given.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    refused = [
        flag for flag in _REFUSED if getattr(options, flag[2:].replace("-", "_")) is not None
    ]
    if refused:
        parser.error(_refusal(refused))
    if options.sensor_size is not None and options.sensor_size > _LARGEST_SENSOR_M:
        parser.error(
            f"--sensor-size {options.sensor_size:g} looks like millimetres; give metres of sensor "
            "width, such as 0.036"
        )
    if options.save_visualization:
        print("note: --save-visualization is always on and need not be given", file=sys.stderr)
    stacks = [options.input]
    if options.input_list is not None:
        if why := why_not_file(options.input_list):
            parser.error(f"{options.input_list}: {why}")
        try:
            lines = options.input_list.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"{options.input_list}: cannot be read ({error})")
        stacks = [line.strip() for line in lines if line.strip()]
        if not stacks:
            parser.error(f"{options.input_list}: empty; expected one stack folder per line")

    translated = {
        "--focal-length-mm": options.focal_length,
        "--f-number": options.aperture,
        "--sensor-width-mm": options.sensor_size and options.sensor_size * 1000,
        "--device": options.device,
        "--model": options.model_path,
        "--config": options.config,
        "--base-model": options.base_model,
        "--dtype": options.dtype and _DTYPES[options.dtype],
        "--steps": options.num_inference_steps,
        "--ensemble": options.ensemble_size,
    }
    flags = [f"{flag}={value}" for flag, value in translated.items() if value is not None]
    if options.focus_distances is not None:
        flags.append("--focus-distances=" + ",".join(map(str, options.focus_distances)))
    return focaldiffusion(["infer", f"--output={options.output}", *flags, "--", *stacks])


def _refusal(flags: Sequence[str]) -> str:
    """The reasons why flags are refused, grouped by reason."""
    by_reason: dict[str, list[str]] = {}
    for flag in flags:
        by_reason.setdefault(_REFUSED[flag], []).append(flag)
    reasons = [f"{', '.join(names)}: {reason}" for reason, names in by_reason.items()]
    return f"{'; '.join(reasons)}; leave {'it' if len(flags) == 1 else 'them'} out"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m script.inference",
        description="The original's command; focaldiffusion infer does the same and more.",
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="STACK", help="folder of frames, or multi-page TIFF")
    source.add_argument(
        "--input-list", type=Path, metavar="FILE", help="text file with one stack per line"
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--focus-distances",
        action=Numbers,
        nargs="+",
        metavar="METRES",
        help="focus distance of each frame [m]",
    )
    parser.add_argument("--focal-length", type=float, metavar="MM", help="focal length [mm]")
    parser.add_argument("--aperture", type=float, metavar="N", help="f-number")
    parser.add_argument(
        "--sensor-size", type=float, metavar="METRES", help="width of the sensor [m]"
    )
    add_device(parser)
    parser.add_argument(
        "--model-path",
        metavar="NAME",
        help="folder or hub id of a checkpoint, or compact; pickled ones (.pt) are refused",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="refuse a checkpoint that was made with another model"
    )
    parser.add_argument(
        "--base-model", metavar="NAME", help="base model of an adapter: folder or hub id"
    )
    parser.add_argument("--dtype", choices=_DTYPES, help="number format of the network")
    parser.add_argument(
        "--num-inference-steps", type=int, metavar="N", help="only for models that start from noise"
    )
    parser.add_argument(
        "--ensemble-size", type=int, metavar="N", help="only for models that start from noise"
    )
    parser.add_argument("--save-visualization", action="store_true", help="always on")
    refused = parser.add_argument_group("flags of the original, refused")
    for flag, reason in _REFUSED.items():
        refused.add_argument(flag, nargs="?", const=True, metavar="...", help=f"refused: {reason}")
    return parser


if __name__ == "__main__":
    sys.exit(main())
