"""Small text files of numbers, such as camera matrices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.errors import InputError


def read_numbers(path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The numbers of a file, between which are spaces, commas or ends of lines.

    Raises:
        InputError: unreadable, or not as many as the shape has.
    """
    try:
        numbers = np.array(path.read_text(encoding="utf-8").replace(",", " ").split(), np.float64)
        return numbers.reshape(shape)
    except (OSError, ValueError) as error:
        wanted = " x ".join(map(str, shape))
        raise InputError(f"{path}: cannot be read as {wanted} numbers ({error}).") from error
