"""Which samples of a data set have all their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from focaldiffusion.config.data import Source
from focaldiffusion.errors import InputError


def first_missing(paths: Iterable[Path]) -> str | None:
    """The first file that does not exist, in words; None where all do."""
    return next((f"{path}: no such file." for path in paths if not path.is_file()), None)


def complete_samples(
    source: Source, faults: Mapping[str, str | None], folder: Path, remedy: str
) -> tuple[list[str], list[str]]:
    """The samples that have all their files, and a sentence for each one that is left out.

    Args:
        source: says with `allow_missing` whether a sample may be left out.
        faults: for each sample what is missing, in words; None where nothing is.
        folder: where the samples were looked for.
        remedy: a sentence on where to get the data, the end of messages.

    Raises:
        InputError: no sample at all, or a fault.
    """
    if not faults:
        raise InputError(f"{folder}: no sample of {source.dataset_type} in this folder. {remedy}")
    skipped = [f"{fault} {name} is left out." for name, fault in faults.items() if fault]
    if skipped and not source.allow_missing:
        raise InputError(f"{next(filter(None, faults.values()))} {remedy}")
    return [name for name, fault in faults.items() if fault is None], skipped
