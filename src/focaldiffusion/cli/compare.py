"""`focaldiffusion compare`: whether one evaluation is better than another."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from focaldiffusion.cli.flags import Commands, given_path


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "compare",
        help="whether one evaluation is better than another",
        description="Compare two evaluations of one data set sample by sample: the difference of "
        "each metric, its 95 % interval by a paired bootstrap over scenes, and a verdict.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("a", type=Path, metavar="A", help="--output-dir of an evaluation")
    parser.add_argument(
        "b", type=Path, metavar="B", help="that of another, or the same to compare its models"
    )
    for run_name in ("a", "b"):
        parser.add_argument(
            f"--model-{run_name}",
            metavar="NAME",
            help=f"which model of {run_name.upper()} (default: its only one, or each that both "
            "have)",
        )
    parser.add_argument(
        "--json", type=given_path, metavar="FILE", help="write everything there too"
    )


def run(options: argparse.Namespace) -> int:
    """Compare the runs and return the exit code.

    Raises:
        InputError: folders without a run, runs that do not compare, or a file that cannot be
            written.
    """
    from focaldiffusion.errors import InputError
    from focaldiffusion.evaluation.compare import compare, print_comparison
    from focaldiffusion.evaluation.tables import wide_console

    comparisons = compare(options.a, options.b, options.model_a, options.model_b)
    console = wide_console()
    for comparison in comparisons:
        print_comparison(comparison, console)
    if options.json is not None:
        content = {
            "a": str(options.a),
            "b": str(options.b),
            "comparisons": [comparison.as_json() for comparison in comparisons],
        }
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        try:
            options.json.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"{options.json}: cannot be written ({error.strerror}). Choose another file."
            ) from error
    return 0
