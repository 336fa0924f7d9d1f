"""The command `focaldiffusion`: its subcommands, exit codes and signals.

Exit codes: 0 done; 1 some stacks of a batch failed; 2 input that the user can mend, reported in
one sentence; 130 Ctrl-C; 143 terminated.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from focaldiffusion import __version__
from focaldiffusion.cli import compare, data, doctor, evaluate, infer, simulate, submit, train
from focaldiffusion.cli.flags import Parser
from focaldiffusion.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the arguments, those of the process when not given.

    Raises:
        SystemExit: after --help, --version, arguments that make no sense, or SIGTERM.
    """
    # Read by torch when it is imported: OpenMP threads that spin slow a busy machine tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    options = _parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A name that the terminal cannot show must not fail the work.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _unwinding_when_terminated():
            return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; no unfinished results are left behind.", file=sys.stderr)
        return 128 + signal.SIGINT


def _parser() -> Parser:
    parser = Parser(
        prog="focaldiffusion",
        description="An all-in-focus image and metric depth from a focal stack.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (infer, simulate, train, evaluate, compare, submit, data, doctor):
        command.add_parser(commands)
    return parser


@contextmanager
def _unwinding_when_terminated() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C, so that partial files are removed."""

    def unwind(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
