"""Files of network weights: safetensors, whose headers say what they hold."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from focaldiffusion.io.reading import reading


def count_weights(files: Iterable[Path]) -> int:
    """Number of weights in safetensors files, from their headers alone.

    Raises:
        InputError: one of them is damaged.
    """
    from safetensors import safe_open

    count = 0
    for path in files:
        with (
            reading(path, "cannot be read as safetensors", "Get the file again."),
            safe_open(path, framework="numpy") as file,
        ):
            names = file.keys()
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    return count
