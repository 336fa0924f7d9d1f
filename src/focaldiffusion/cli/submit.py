"""`focaldiffusion submit`: depth of the test stacks of ZEDD, in the format of its server."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import Commands, add_device, given_path
from focaldiffusion.cli.model_flags import PHYSICS, add_base_model
from focaldiffusion.cli.progress import progress_bars
from focaldiffusion.devices import resolve_device
from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def add_parser(commands: Commands) -> None:
    """Add the command `submit`."""
    parser = commands.add_parser(
        "submit",
        help="write or check a zip for the test server of ZEDD",
        description="Predict depth for the 50 test stacks of ZEDD, whose truth only its server "
        "has, and write the zip to upload; or check an existing zip.",
    )
    parser.set_defaults(run=run)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--output", type=given_path, metavar="ZIP", help="the zip to write")
    kind.add_argument("--check", type=Path, metavar="ZIP", help="a zip to check as the server does")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="folder of ZEDD")
    parser.add_argument("--model", default=PHYSICS, metavar="NAME", help="(default: %(default)s)")
    add_base_model(parser)
    parser.add_argument(
        "--fill-m",
        type=float,
        metavar="METRES",
        help="depth to write where the model has none; without it, gaps are an error",
    )
    add_device(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(options: argparse.Namespace) -> int:
    """Write or check the zip and return the exit code.

    Raises:
        InputError: the server would reject the zip, or files are missing.
    """
    from focaldiffusion.evaluation.baselines import check_base_model, open_model
    from focaldiffusion.evaluation.zedd_submission import (
        NAMES,
        check_submission,
        predicted_depths,
        write_submission,
    )

    if options.check is not None:
        check_submission(options.check)
    else:
        if options.data_root is None:
            raise InputError("--output needs --data-root, the folder of ZEDD.")
        model = open_model(
            options.model,
            device=resolve_device(options.device),
            base_model=options.base_model,
        )
        check_base_model(options.base_model, [model])
        with progress_bars("predicting", quiet=options.quiet) as progress:

            def counted() -> Iterator[tuple[str, Tensor]]:
                predictions = predicted_depths(model, options.data_root)
                for done, prediction in enumerate(predictions, start=1):
                    yield prediction
                    progress("stacks", done, len(NAMES))

            write_submission(options.output, counted(), fill_m=options.fill_m)
    if not options.quiet:
        path = options.check or options.output
        print(f"{path}: {len(NAMES)} depth maps, ready for the server")
    return 0
