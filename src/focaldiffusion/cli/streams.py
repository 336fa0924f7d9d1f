"""Standard output and error of a command: they show any text, and may break without harm."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO, cast

from focaldiffusion.errors import printable

_NOWHERE = Path(os.devnull)
_OWN_CONTROLS = "\n\t\r"
"""Control characters that our text and the bars of libraries are made of."""


class _Lasting:
    """A text stream that notes the first failure and drops all later text.

    Attributes:
        failure: the error; None while the stream works.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.failure: OSError | ValueError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        if self.failure is None:
            try:
                self._stream.write(text)
            except (OSError, ValueError) as error:
                self._give_up(error)
        return len(text)

    def writelines(self, texts: Iterable[str]) -> None:
        """Write several texts."""
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Hand the text on to the system."""
        if self.failure is None:
            try:
                self._stream.flush()
            except (OSError, ValueError) as error:
                self._give_up(error)

    def _give_up(self, error: OSError | ValueError) -> None:
        self.failure = error
        # Else the interpreter, which flushes the rest at its end, would fail again.
        with suppress(OSError, ValueError), _NOWHERE.open("wb") as nowhere:
            os.dup2(nowhere.fileno(), self._stream.fileno())


class _Shown(_Lasting):
    """The same for text that may hold anything: its control characters are escaped.

    Attributes:
        rich_proxied_file: the stream that rich takes instead, since its styles and bars are made
            of control characters; a text for rich must be `printable`.
    """

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = _Lasting(stream)
        super().__init__(cast(TextIO, self.rich_proxied_file))

    def write(self, text: str) -> int:
        """Write a text."""
        return super().write(printable(text, keep=_OWN_CONTROLS))

    @property
    def loss(self) -> str | None:
        """Why text was lost; None if none was, or if the reader wanted no more."""
        failure = self.rich_proxied_file.failure
        if failure is None or isinstance(failure, BrokenPipeError):
            return None
        return getattr(failure, "strerror", None) or str(failure)


@contextmanager
def lasting_streams() -> Iterator[_Shown]:
    """Replace `sys.stdout` and `sys.stderr` inside the block.

    A stream that is closed, full or without a reader costs its text, not the work. Where the
    process was started without one, the text goes nowhere.

    Yields:
        The new standard output.
    """
    _occupy_descriptors()
    before = sys.stdout, sys.stderr
    with _NOWHERE.open("w", encoding="utf-8") as nowhere:
        out, err = (_Shown(nowhere if one is None else one) for one in before)
        for stream in filter(None, before):
            if isinstance(stream, io.TextIOWrapper):
                # A character that the terminal cannot show must not fail the work.
                stream.reconfigure(errors="backslashreplace")
        sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
        try:
            yield out
        finally:
            out.flush()
            err.flush()
            sys.stdout, sys.stderr = before


def _occupy_descriptors() -> None:
    """Open the null device where a standard descriptor is closed.

    Else the next file would get its number, and what a library prints would land in that file.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
