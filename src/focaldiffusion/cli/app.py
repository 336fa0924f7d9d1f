"""`focaldiffusion app`: the page in the browser, served from this machine to this machine."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path
from tempfile import TemporaryFile

from focaldiffusion.cli.flags import Commands, given_path
from focaldiffusion.errors import InputError
from focaldiffusion.packages import check_installed

_PORT = 8537
"""Port without --port, if it is free."""

_PACKAGES = ("starlette", "uvicorn", "python-multipart")


def add_parser(commands: Commands) -> None:
    """Add the command to those of `focaldiffusion`."""
    parser = commands.add_parser(
        "app",
        help="open stacks, watch, look, refocus, measure and retouch in the browser",
        description="Serve a page to this machine alone: open stacks, reconstruct them, and look "
        "at the results. The address that it prints holds a secret; without it nobody gets in.",
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "folders",
        nargs="*",
        type=given_path,
        metavar="FOLDER",
        help="folder whose stacks the page may open where they are (default: uploads only)",
    )
    parser.add_argument(
        "--port",
        type=_port,
        metavar="N",
        help=f"port of the server (default: {_PORT}, or any that is free)",
    )
    parser.add_argument(
        "--no-browser", action="store_true", help="print the address without opening it"
    )
    parser.add_argument(
        "--work",
        type=given_path,
        metavar="DIR",
        help="folder for uploads, jobs and their results (default: focaldiffusion/app in the "
        "user's cache folder)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C, and return the exit code.

    Raises:
        InputError: a package is missing, a folder cannot be used, or the port is taken.
    """
    check_installed(dict.fromkeys(_PACKAGES, "focaldiffusion app"))
    from focaldiffusion.app.roots import Roots
    from focaldiffusion.app.server import build
    from focaldiffusion.app.serving import serve
    from focaldiffusion.io.staging import claimed, file_errors_named

    roots = Roots(options.folders)
    work: Path = (options.work or _cache_folder()).absolute()
    with file_errors_named(work):
        work.mkdir(parents=True, exist_ok=True, mode=0o700)
        with TemporaryFile(dir=work):  # said now, not when the first stack is opened
            pass
        with claimed(work), _listening(options.port) as listening:
            port = listening.getsockname()[1]
            token = secrets.token_urlsafe(24)
            address = f"http://127.0.0.1:{port}/?token={token}"
            print(address, flush=True)
            print("Ctrl-C ends the server; queued jobs go on at the next start.", file=sys.stderr)
            app = build(work, roots, token=token, port=port)
            serve(app, listening, None if options.no_browser else address)
    return 0


def _port(text: str) -> int:
    """An argparse type for ports."""
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number from 1 to 65535")
    return int(text)


def _cache_folder() -> Path:
    """The folder of this program's files that may be deleted."""
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "focaldiffusion" / "app"


def _listening(port: int | None) -> socket.socket:
    """A socket that listens on this machine alone.

    Raises:
        InputError: the given port is taken, or needs rights.
    """
    for candidate in (_PORT, 0) if port is None else (port,):
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(("127.0.0.1", candidate))
            listening.listen(128)
        except OSError as error:
            listening.close()
            reason = error.strerror
        else:
            return listening
    raise InputError(f"--port {port}: cannot be used ({reason}). Choose another, or none.")
