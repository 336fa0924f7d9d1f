"""`focaldiffusion compare`: which of two evaluations is better, and tables of several."""

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
        help="decide which of two evaluations is better, or print a table of several",
        description="Compare two evaluations of one data set sample by sample: the difference of "
        "each metric, its 95 % interval (paired bootstrap over scenes), and a verdict. With "
        "--latex or --markdown, print a table of the models of any number of evaluations instead.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="--output-dir of evaluations: A and B, or the same one twice to compare its models",
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

    table = parser.add_argument_group("table of any number of evaluations")
    kind = table.add_mutually_exclusive_group()
    kind.add_argument("--latex", action="store_true", help="print it in LaTeX (booktabs)")
    kind.add_argument("--markdown", action="store_true", help="print it in Markdown")
    table.add_argument(
        "--metrics",
        metavar="NAMES",
        help="columns, such as abs_rel,delta_1.05,psnr, as metrics.json names them",
    )


def run(options: argparse.Namespace) -> int:
    """Compare the runs, or print their table, and return the exit code.

    Raises:
        InputError: a folder without a run, runs that do not compare, flags that do not go together,
            or a failed write.
    """
    if options.latex or options.markdown:
        return _table(options)
    if options.metrics is not None:
        raise InputError("--metrics does not apply to a verdict; use it with --latex, --markdown.")
    if len(options.runs) != 2:
        raise InputError(
            f"{len(options.runs)} evaluations; expected two to compare. For a table of several, "
            "add --latex or --markdown."
        )
    from focaldiffusion.evaluation.compare import compare, print_comparison
    from focaldiffusion.evaluation.tables import wide_console

    a, b = options.runs
    comparisons = compare(a, b, options.model_a, options.model_b)
    console = wide_console()
    for comparison in comparisons:
        print_comparison(comparison, console)
    if options.json is not None:
        content = {
            "a": str(a),
            "b": str(b),
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


def _table(options: argparse.Namespace) -> int:
    """Print the table of the runs and return the exit code."""
    from focaldiffusion.evaluation.paper import METRICS_OF_A_PAPER, paper_table

    stray = [name for name in ("model_a", "model_b", "json") if getattr(options, name) is not None]
    if stray:
        raise InputError(f"--{stray[0].replace('_', '-')} does not apply to a table; leave it out.")
    metrics = METRICS_OF_A_PAPER if options.metrics is None else options.metrics.split(",")
    found = paper_table(options.runs, metrics)
    print(found.latex() if options.latex else found.markdown(), end="")
    return 0
