"""A check of every file: each sample of a split is read once, and the bad ones are listed."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from focaldiffusion.config.data import Split
from focaldiffusion.config.sources import FILELESS
from focaldiffusion.data.dataset import Dataset
from focaldiffusion.data.loading import read_by_workers
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import write_whole
from focaldiffusion.progress import Meter


class BadSample(NamedTuple):
    """A sample that cannot be read.

    Attributes:
        split: of its source.
        source: name of its source.
        sample: its name in the data set; empty for a listed one whose files are missing.
        reason: a sentence that names the file.
    """

    split: str
    source: str
    sample: str
    reason: str


def bad_samples(
    mixture: Mixture, *, num_workers: int = 0, meter: Meter | None = None
) -> list[BadSample]:
    """Read each sample that a mixture uses, and list those that fail, missing ones included.

    Args:
        mixture: opened with `allow_missing`, to list all that is missing.
        num_workers: see `prepared`.
        meter: counts the samples.
    """
    bad = [
        BadSample(source.split, source.name, "", sentence)
        for source, dataset in zip(mixture.sources, mixture.datasets, strict=True)
        for sentence in dataset.skipped
    ]
    items = list(_listed(mixture))
    meter = meter or Meter()
    meter.expect(len(items))
    reasons = read_by_workers(_Trial(mixture.datasets), items, num_workers)
    for (place, index), reason in zip(items, reasons, strict=True):
        if reason is not None:
            source, name = mixture.sources[place], mixture.datasets[place].name(index)
            bad.append(BadSample(source.split, source.name, name, reason))
        meter.advance()
    return bad


def count_of(mixture: Mixture) -> int:
    """Number of samples that `bad_samples` reads or misses."""
    return sum(1 for _ in _listed(mixture)) + len(mixture.skipped)


def _listed(mixture: Mixture) -> Iterator[tuple[int, int]]:
    """Source and index of each sample that has files."""
    for place, (source, used) in enumerate(zip(mixture.sources, mixture.used, strict=True)):
        if source.dataset_type not in FILELESS:
            yield from ((place, index) for index in used.tolist())


def names_of(bad: Iterable[BadSample], split: Split) -> dict[str, set[str]]:
    """Names of the bad samples of a split, by source."""
    names: dict[str, set[str]] = {}
    for one in bad:
        if one.split == split:
            names.setdefault(one.source, set()).add(one.sample)
    return names


def write_bad(path: Path, bad: Sequence[BadSample]) -> None:
    """Write bad samples to a CSV file, complete or not at all.

    Raises:
        OSError: the file system refuses.
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(BadSample._fields)
    writer.writerows(bad)
    write_whole(path, text.getvalue().encode(errors="surrogateescape"))


def read_bad(path: Path) -> list[BadSample]:
    """Read a file of `write_bad`.

    Raises:
        InputError: it is damaged.
    """
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            header, *rows = csv.reader(file)
        if tuple(header) != BadSample._fields:
            raise ValueError(f"its columns are {', '.join(header)}")
        return [BadSample(*row) for row in rows]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise InputError(f"{path}: is damaged ({error}). Remove it.") from error


@dataclass(frozen=True)
class _Trial:
    """Reads a sample, by its source and index; returns the reason if that fails."""

    datasets: Sequence[Dataset]

    def __getitem__(self, item: tuple[int, int]) -> str | None:
        place, index = item
        try:
            self.datasets[place][index]
        except InputError as error:
            return str(error)
        return None
