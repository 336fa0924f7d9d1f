"""`python -m script.evaluate`: the original's flags, on `focaldiffusion evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from focaldiffusion.cli.flags import Parser, add_device, given_path, positive_integer
from focaldiffusion.cli.main import main as focaldiffusion
from focaldiffusion.cli.model_flags import PHYSICS

_REFUSED = {
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
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a configuration, whose sources are scored"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="a protocol; with --config, a source of its split"
    )
    parser.add_argument("--data_root", type=Path, metavar="DIR", help="folder of the data")
    parser.add_argument("--split", choices=("test", "val"), help="with --config (default: test)")
    parser.add_argument(
        "--output_dir", type=given_path, default=Path("outputs/evaluation"), metavar="DIR"
    )
    parser.add_argument(
        "--checkpoint",
        metavar="MODEL",
        help=f"folder, hub id, compact or physics (default: {PHYSICS})",
    )
    parser.add_argument(
        "--base_model", metavar="NAME", help="base model of an adapter: folder or hub id"
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
    if options.config is None and options.dataset is None:
        parser.error("--config or --dataset is missing: the data to score")
    translated = {
        "--config": options.config,
        "--source" if options.config else "--dataset": options.dataset,
        "--split": options.split,
        "--data-root": options.data_root,
        "--output-dir": options.output_dir,
        "--model": options.checkpoint,
        "--base-model": options.base_model,
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
