"""The command `focaldiffusion`: its subcommands, exit codes and signals.

Exit codes: 0 done; 1 some stacks of a batch failed, or standard output could not be written (a
full disk; a reader may leave early); 2 input that the user can mend, reported in one
sentence; 70 an error of this program, with its traceback; 129 hang-up; 130 Ctrl-C; 143 terminated.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from focaldiffusion import __version__
from focaldiffusion.allocation import keep_freed_memory
from focaldiffusion.cli import (
    app,
    batch,
    compare,
    data,
    doctor,
    evaluate,
    find,
    infer,
    simulate,
    submit,
    train,
)
from focaldiffusion.cli.flags import Parser
from focaldiffusion.cli.outcome import INTERNAL_ERROR
from focaldiffusion.cli.streams import lasting_streams
from focaldiffusion.errors import InputError
from focaldiffusion.signals import ENDING, on_ending


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the arguments, those of the process when not given.

    Raises:
        SystemExit: after --help, --version, arguments that make no sense, SIGTERM or SIGHUP.
    """
    # Read by torch when it is imported: OpenMP threads that spin slow a busy machine tenfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_freed_memory()
    with lasting_streams() as out:
        code = _run(argv)
        out.flush()
        if out.loss is not None:
            print(f"error: standard output cannot be written ({out.loss}).", file=sys.stderr)
            code = code or 1
    return code


def _run(argv: Sequence[str] | None) -> int:
    options = _parser().parse_args(argv)
    try:
        _check_current_folder()
        with on_ending(_unwind):
            return options.run(options)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; no unfinished results are left behind.", file=sys.stderr)
        return 128 + signal.SIGINT
    except Exception:
        # Printed here, because the interpreter would print file names unescaped.
        traceback.print_exc()
        return INTERNAL_ERROR


def _parser() -> Parser:
    parser = Parser(
        prog="focaldiffusion",
        description="An all-in-focus image and metric depth from a focal stack.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (
        *(infer, app, find, batch, simulate),
        *(train, evaluate, compare, submit, data, doctor),
    ):
        command.add_parser(commands)
    return parser


def _check_current_folder() -> None:
    """Refuse a current folder that was deleted: relative paths mean nothing, and torch aborts.

    Raises:
        InputError: it was.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(
            f"the current folder cannot be used ({error.strerror}), perhaps because it was "
            "deleted. Change into another one."
        ) from None


def _unwind(number: int) -> None:
    """End like Ctrl-C, so that partial files are removed."""
    # Once is enough: a second one, such as a closing terminal sends, would stop the removal.
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
