"""The exception for bad input, and checks that central types share."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


class InputError(ValueError):
    """Input that a user can mend; the message says what, where, got, expected and the remedy.

    The command line prints it without a traceback and exits with code 2. Programming
    errors are never wrapped in it. The message is `printable`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


_UNSHOWN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that steer a terminal or a page, reorder its text, or cannot be encoded."""

_JOINERS = "\u00ad\u200c\u200d"
"""Format characters that words and emoji are written with."""


def printable(text: str, *, keep: str = "") -> str:
    """The text with control characters escaped, such as ``\\x1b``, for terminals and pages.

    File names, EXIF and other texts from files may hold anything: sequences that clear or retitle
    a terminal, characters that reverse its text, bytes that are not UTF-8. A backslash stays, so a
    second pass changes nothing.

    Args:
        text: any text.
        keep: control characters to leave, such as line breaks of our own.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char in keep or not _is_unshown(char) else _escape(char)
        for char in text
    )


def _is_unshown(char: str) -> bool:
    return char not in _JOINERS and unicodedata.category(char) in _UNSHOWN


def _escape(char: str) -> str:
    if "\udc80" <= char <= "\udcff":  # how Python holds a byte that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    return char.encode("unicode_escape").decode("ascii")


def unknown_name(name: str, known: Iterable[str], *, likely: Iterable[str] = ()) -> str:
    """Error text for an unknown name: the closest match, then all known names.

    Args:
        name: as it was written.
        known: the names that it could have been.
        likely: other names that may have been meant, the likeliest first.
    """
    known = list(known)
    meant = [*difflib.get_close_matches(name, known, n=1), *likely]
    nearest = f"; did you mean {meant[0]}?" if meant else "."
    return f"is unknown{nearest} Expected one of {', '.join(known)}."


def check_shape(name: str, tensor: Tensor | NDArray[Any], expected: Sequence[int | str]) -> None:
    """Check the shape of a tensor or array.

    Args:
        name: for the message.
        tensor: the tensor or array.
        expected: exact sizes, and letters for any size.

    Raises:
        ValueError: the number of dimensions or an exact size differs.
    """
    matches = tensor.ndim == len(expected) and all(
        isinstance(want, str) or got == want
        for got, want in zip(tensor.shape, expected, strict=False)
    )
    if not matches:
        wanted = ", ".join(str(size) for size in expected)
        raise ValueError(f"{name}: got shape {tuple(tensor.shape)}, expected ({wanted})")
