"""The one exception of ours, and the shape check that central types share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class InputError(ValueError):
    """Input that a user can mend: says what, where, got, expected and the remedy.

    The command line prints it without a traceback and exits with code 2. Programming
    errors are never wrapped in it.
    """


def unknown_name(name: str, known: Iterable[str], *, likely: Iterable[str] = ()) -> str:
    """Error text for an unknown name: the closest match, then all of them.

    Args:
        name: as written.
        known: the possible names.
        likely: other guesses if none of them is close, the likeliest first.
    """
    known = list(known)
    meant = [*difflib.get_close_matches(name, known, n=1), *likely]
    nearest = f"; did you mean {meant[0]}?" if meant else "."
    return f"is unknown{nearest} Expected one of {', '.join(known)}."


def check_shape(name: str, tensor: Tensor, expected: Sequence[int | str]) -> None:
    """Check a tensor's shape against integers (exact) and letters (any size, named in the message).

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
