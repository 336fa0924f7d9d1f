"""`python -m script.evaluate`: the original's flags, on `focaldiffusion evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from focaldiffusion.cli.flags import Parser, add_device, given_path, positive_integer
from focaldiffusion.cli.main import main as focaldiffusion
from focaldiffusion.cli.model_flags import PHYSICS

_REFUSED = {
    "--config": "the protocol of a data set fixes everything that a figure depends on",
    "--split": "the protocol of a data set fixes its split",
    "--batch_size": "samples are scored one by one; --workers of focaldiffusion evaluate is faster",
    "--num_inference_steps": "every model takes its own number of steps",
    "--fp16": "precision follows the device: bfloat16 on CUDA, float32 elsewhere",
    "--num_viz": "every sample gets its picture",
}
"""Flags of the original that are refused here → the reason."""


def main(argv: Sequence[str] | None = None) -> int:
    """Translate the flags, run `focaldiffusion evaluate` and return its exit code.

    Args:
        argv: the arguments, those of the process when not given.
    """
    parser = Parser(
        prog="python -m script.evaluate",
        description="The original's command; focaldiffusion evaluate does the same and more.",
    )
    parser.add_argument("--dataset", required=True, metavar="NAME", help="a protocol")
    parser.add_argument("--data_root", required=True, type=Path, metavar="DIR")
    parser.add_argument(
        "--output_dir", type=given_path, default=Path("outputs/evaluation"), metavar="DIR"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="MODEL",
        help=f"folder, hub id, compact or physics (default: {PHYSICS})",
    )
    parser.add_argument("--max_samples", type=positive_integer, metavar="N")
    add_device(parser)
    parser.add_argument("--save_viz", action="store_true", help="always on")
    refused = parser.add_argument_group("flags of the original, refused")
    for flag, reason in _REFUSED.items():
        refused.add_argument(flag, nargs="?", const=True, metavar="...", help=f"refused: {reason}")
    options = parser.parse_args(argv)
    for flag, reason in _REFUSED.items():
        if getattr(options, flag[2:]) is not None:
            parser.error(f"{flag}: {reason}; leave it out")
    if options.save_viz:
        print("note: --save_viz is always on and need not be given", file=sys.stderr)
    translated = {
        "--dataset": options.dataset,
        "--data-root": options.data_root,
        "--output-dir": options.output_dir,
        "--model": options.checkpoint,
        "--max-samples": options.max_samples,
        "--device": options.device,
    }
    return focaldiffusion(
        [
            "evaluate",
            *(f"{flag}={value}" for flag, value in translated.items() if value is not None),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
