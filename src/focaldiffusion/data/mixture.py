"""Mixture: the source, sample and seed at each position of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.config.data import Source
from focaldiffusion.data.dataset import Dataset, Sample
from focaldiffusion.data.priors import with_own_prior
from focaldiffusion.data.transforms import transform
from focaldiffusion.errors import InputError

_Indices = NDArray[np.int64]
_Purpose = Literal["transforms", "simulation", "flow", "prior"]
_PURPOSES: tuple[_Purpose, ...] = get_args(_Purpose)


@dataclass(frozen=True)
class Draw:
    """The sample at one position of a run.

    Attributes:
        source: index among the sources of the mixture.
        sample: index in the data set of that source.
        seed: seeds everything random about the sample.
        round: earlier draws of this sample in a shuffled mixture.
    """

    source: int
    sample: int
    seed: tuple[int, ...]
    round: int = 0

    def generator(self, purpose: _Purpose) -> torch.Generator:
        """A CPU generator for one purpose, independent of the draws for other purposes."""
        sequence = np.random.SeedSequence((*self.seed, _PURPOSES.index(purpose)))
        state = sequence.generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(state[0]))


class Mixture:
    """Several sources as one map-style data set of positions, counted from the start of a run.

    Position p, in epoch p // len(self), depends on the seed and p alone: a run resumes from its
    position, and workers need no state.

    Shuffled (train), sources are drawn by weight. An epoch has as many positions as the sources
    have samples. Each source gets its share of them, exact to one sample and spread evenly. It
    passes through a permutation of its samples before any sample repeats, then through another
    one, across epochs if its share is small. In order (val, test), weights have no effect: an
    epoch is every sample once, and every epoch has the same seeds.

    A source with more than `max_samples` samples is thinned evenly to that number.

    Attributes:
        used: indices of the samples that are drawn from each source.
    """

    def __init__(
        self,
        members: Sequence[tuple[Source, Dataset]],
        seed: int,
        *,
        shuffle: bool,
        bad: Mapping[str, Collection[str]] | None = None,
    ) -> None:
        """Mix data sets, each with the source that it was opened from.

        Without `max_samples`, leaving samples out by `bad`, their names by source, is the same as
        data sets that never had them.

        Raises:
            InputError: no source, a source without samples, or one whose weight gives it none.
        """
        if not members:
            raise InputError("a mixture needs at least one source, got none.")
        self.sources = tuple(source for source, _ in members)
        self.datasets = tuple(dataset for _, dataset in members)
        self.seed = seed
        self._shuffle = shuffle
        self.used = [
            _used(source, dataset, (bad or {}).get(source.name, ())) for source, dataset in members
        ]
        counts = np.array([len(used) for used in self.used])
        if shuffle:
            weights = np.array([source.weight for source in self.sources])
            counts = _shares(weights, int(counts.sum()))
            for source, count in zip(self.sources, counts, strict=True):
                if count == 0:
                    raise InputError(
                        f"{source.name}: weight {source.weight} gives it none of the "
                        f"{counts.sum()} samples of an epoch. Raise it, or leave the source out."
                    )
        self._counts = counts
        self._schedule = _interleaved(counts) if shuffle else _in_turn(counts)
        self._permutations: dict[int, tuple[int, _Indices]] = {}

    def __len__(self) -> int:
        """Positions in an epoch."""
        return len(self._schedule)

    @property
    def skipped(self) -> list[str]:
        """A sentence for each listed sample that is left out because of missing files."""
        return [
            f"{source.name}: {sentence}"
            for source, dataset in zip(self.sources, self.datasets, strict=True)
            for sentence in dataset.skipped
        ]

    def scenes(self, source: int) -> frozenset[str]:
        """Names of the physical scenes in all used samples of a source."""
        return frozenset(map(self.datasets[source].scene_name, self.used[source].tolist()))

    def image_size(self, position: int) -> tuple[int, int] | None:
        """`image_size` of the source at a position."""
        return self.sources[int(self._schedule[position % len(self), 0])].image_size

    def draw(self, position: int) -> Draw:
        """The sample at a position, counted from the start of the run."""
        epoch, place = divmod(position, len(self))
        source, turn = (int(number) for number in self._schedule[place])
        used = self.used[source]
        if not self._shuffle:
            return Draw(source, int(used[turn]), (self.seed, source, turn))
        turn += epoch * int(self._counts[source])
        rounds, index = divmod(turn, len(used))
        permutation = self._permutation(source, rounds)
        return Draw(source, int(used[permutation[index]]), (self.seed, source, turn), rounds)

    def __getitem__(self, position: int) -> Sample:
        """Read the sample of a position and vary it; a `Scene` is still to be photographed.

        Raises:
            InputError: invalid files.
        """
        draw = self.draw(position)
        source = self.sources[draw.source]
        dataset = self.datasets[draw.source]
        sample = with_own_prior(
            dataset[draw.sample],
            source.options,
            dataset.name(draw.sample),
            draw.generator("prior"),
        )
        options, size = source.options.transforms, source.image_size
        return transform(sample, options, size, draw.generator("transforms"))

    def _permutation(self, source: int, rounds: int) -> _Indices:
        """Order of one pass through a source; the latest one is cached."""
        kept = self._permutations.get(source)
        if kept is None or kept[0] != rounds:
            generator = np.random.default_rng((self.seed, source, rounds))
            kept = (rounds, generator.permutation(len(self.used[source])))
            self._permutations[source] = kept
        return kept[1]


def _used(source: Source, dataset: Dataset, bad: Collection[str]) -> _Indices:
    """Indices of the samples used of a data set: at most `max_samples`, evenly spread, not bad."""
    count = len(dataset)
    if count == 0:
        skipped = dataset.skipped
        reason = f" {len(skipped)} were skipped; the first: {skipped[0]}" if skipped else ""
        raise InputError(
            f"{source.name}: has no {source.split} samples.{reason} Check its data_root and "
            "filelist, or leave the source out."
        )
    used = spread(count, source.max_samples)
    if bad:
        used = np.array([index for index in used if dataset.name(int(index)) not in bad], np.int64)
    if not len(used):
        raise InputError(f"{source.name}: all of its {source.split} samples are bad.")
    return used


def spread(count: int, most: int | None) -> _Indices:
    """Indices of at most `most` of `count` samples, evenly spread; None takes all."""
    wanted = min(count, most or count)
    return np.arange(wanted) * count // wanted


def _shares(weights: NDArray[np.float64], total: int) -> _Indices:
    """Whole numbers with the sum `total`, each within 1 of its share (largest remainder)."""
    exact = weights / weights.sum() * total
    shares = np.floor(exact).astype(np.int64)
    most_left_over = np.argsort(shares - exact, kind="stable")[: total - shares.sum()]
    shares[most_left_over] += 1
    return shares


def _interleaved(counts: _Indices) -> _Indices:
    """(L, 2): source and turn at each place, with every source at even intervals."""
    turns = _in_turn(counts)
    moments = (turns[:, 1] + 0.5) / counts[turns[:, 0]]
    return turns[np.argsort(moments, kind="stable")]


def _in_turn(counts: _Indices) -> _Indices:
    """(L, 2): source and turn at each place, one source after the other."""
    turns = [np.arange(count) for count in counts]
    return np.stack([np.repeat(np.arange(len(counts)), counts), np.concatenate(turns)], axis=1)
