"""`focaldiffusion compare`: decides which of two evaluations is better."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from focaldiffusion.cli.flags import Commands, given_path
from focaldiffusion.errors import InputError


def add_parser(commands: Commands) -> None:
    """Add the command `compare`."""
    parser = commands.add_parser(
        "compare",
        help="decide which of two evaluations is better",
        description="Compare two evaluations of one data set sample by sample: the difference of "
        "each metric, its 95 % interval (paired bootstrap over scenes), and a verdict.",
    )
    parser.set_defaults(run=run)
    parser.add_argument("a", type=Path, metavar="A", help="--output-dir of an evaluation")
    parser.add_argument(
        "b",
        type=Path,
        metavar="B",
        help="--output-dir of another, or the same one to compare its models",
    )
    for run_name in ("a", "b"):
        parser.add_argument(
            f"--model-{run_name}",
            metavar="NAME",
            help=f"model of {run_name.upper()} (default: its only one, or each that both have)",
        )
    parser.add_argument(
        "--json", type=given_path, metavar="FILE", help="also write everything to a JSON file"
    )


def run(options: argparse.Namespace) -> int:
    """Compare the runs and return the exit code.

    Raises:
        InputError: a folder without a run, runs that do not compare, or a failed write.
    """
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
