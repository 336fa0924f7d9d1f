"""Files of published data sets: which samples are complete, and text files of numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.config.data import Source
from focaldiffusion.errors import InputError


def first_missing(paths: Iterable[Path]) -> str | None:
    """A sentence on the first file that does not exist; None if all exist."""
    return next((f"{path}: no such file." for path in paths if not path.is_file()), None)


def samples_with_files(
    source: Source,
    names: Iterable[str],
    files_of: Callable[[str], Iterable[Path]],
    folder: Path,
    remedy: str,
) -> tuple[list[str], list[str]]:
    """`complete_samples` where a sample is complete if each of its files exists."""
    faults = {name: first_missing(files_of(name)) for name in names}
    return complete_samples(source, faults, folder, remedy)


def complete_samples(
    source: Source, faults: Mapping[str, str | None], folder: Path, remedy: str
) -> tuple[list[str], list[str]]:
    """The complete samples, and a sentence for each sample that is left out.

    Args:
        source: decides with `allow_missing` whether a sample may be left out.
        faults: a sentence for each sample on what it lacks, or None.
        folder: where the samples were looked for.
        remedy: a sentence on where to get the data, which ends messages.

    Raises:
        InputError: no sample at all, or a fault.
    """
    if not faults:
        raise InputError(f"{folder}: no sample of {source.dataset_type} in this folder. {remedy}")
    skipped = [f"{fault} {name} is left out." for name, fault in faults.items() if fault]
    if skipped and not source.allow_missing:
        raise InputError(f"{next(filter(None, faults.values()))} {remedy}")
    return [name for name, fault in faults.items() if fault is None], skipped


def without_frame(source: Source, missing: Path, remedy: str) -> str:
    """A sentence on a frame that is left out because a file is missing.

    Raises:
        InputError: the source does not allow missing samples; the remedy ends the message.
    """
    if not source.allow_missing:
        raise InputError(f"{missing}: no such file. {remedy}")
    return f"{missing}: no such file; its frame is left out."


def read_numbers(path: Path, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The numbers of a text file, separated by spaces, commas or line ends.

    Raises:
        InputError: unreadable, or another count of numbers than the shape has.
    """
    try:
        numbers = np.array(path.read_text(encoding="utf-8").replace(",", " ").split(), np.float64)
        return numbers.reshape(shape)
    except (OSError, ValueError) as error:
        wanted = " x ".join(map(str, shape))
        raise InputError(f"{path}: cannot be read as {wanted} numbers ({error}).") from error
