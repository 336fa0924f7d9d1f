"""The one exception of ours, and the shape check that central types share."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


class InputError(ValueError):
    """Input that a user can mend: says what, where, got, expected and the remedy.

    The command line prints it without a traceback and exits with code 2. Programming
    errors are never wrapped in it.
    """


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
