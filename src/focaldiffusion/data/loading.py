"""Batches of a split: workers read and vary samples, stacks are simulated on the device."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import cv2
import torch
from torch.utils.data import DataLoader

from focaldiffusion.config.data import DataConfig, Split
from focaldiffusion.config.sources import resolve_sources
from focaldiffusion.data.batch import StackBatch, collate, estimated, moved, of_one_size
from focaldiffusion.data.dataset import Sample
from focaldiffusion.data.mixture import Draw, Mixture
from focaldiffusion.data.photographer import photograph
from focaldiffusion.data.priors import with_network_priors
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.transport import Piped, Sender
from focaldiffusion.errors import InputError
from focaldiffusion.scene import Scene
from focaldiffusion.signals import ENDING

# A reader may hold the tensors of a model. Forked workers inherit them; "forkserver", the default
# of Linux from Python 3.14, passes a file descriptor of each and fails beyond some 250.
_START = "fork" if sys.platform == "linux" else None
_T = TypeVar("_T")
_Item = TypeVar("_Item", contravariant=True)
_MakeInput = Callable[[Any, Sequence[Draw]], _T]
"""Turns a `StackBatch`, or an input found in a cache, and its draws into a network input."""
_OneSize = tuple[Sequence[Draw], Any]
"""Draws of samples of one size, and their `StackBatch` or cached input."""
_FindInput = Callable[[Sequence[Draw]], list[_OneSize] | None]
"""Finds the cached inputs for some draws, with a method `to(device)`; None on a miss."""


def open_split(
    data: DataConfig, split: Split, seed: int, bad: Mapping[str, Collection[str]] | None = None
) -> Mixture:
    """The sources of a split; shuffled and weighted for training, in order otherwise.

    Args:
        data: configuration of the data.
        split: to open.
        seed: of all random draws.
        bad: names of the samples to leave out, by source.

    Raises:
        InputError: an incomplete source, or missing files.
    """
    members = [(source, open_dataset(source)) for source in resolve_sources(data, split)]
    return Mixture(members, seed, shuffle=split == "train", bad=bad)


def batches(
    mixture: Mixture,
    positions: Sequence[int],
    batch_size: int,
    *,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    with_estimates: bool = False,
) -> Iterator[StackBatch]:
    """The samples at these positions as batches of one size, in their order; see `prepared`."""
    found = prepared(
        mixture,
        positions,
        batch_size,
        _without_draws,
        num_workers=num_workers,
        device=device,
        with_estimates=with_estimates,
    )
    return (batch for of_each_size in found for batch in of_each_size)


def prepared(
    mixture: Mixture,
    positions: Sequence[int],
    batch_size: int,
    make_input: _MakeInput[_T],
    *,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    with_estimates: bool = False,
    find_input: _FindInput | None = None,
) -> Iterator[list[_T]]:
    """Read, vary, photograph and collate the samples at these positions, in their order.

    Each batch becomes one input, or one for each size of its samples.

    On the CPU the workers photograph, estimate and make the input. Otherwise they deliver scenes,
    and this process does the rest on the device. Batches do not depend on `num_workers`.

    Args:
        mixture: the sources of one split.
        positions: counted from the start of the run: `range(start, stop)`, where an epoch has
            `len(mixture)`; any other sequence, for a share of several processes.
        batch_size: samples per batch; the last one may have fewer.
        make_input: called with each batch of one size and its draws; makes what this yields.
        num_workers: processes, of one thread each; 0 reads in this one.
        device: where the result is.
        with_estimates: make the physical estimate of each stack that has none, see `estimated`.
        find_input: looks up a cached input for `make_input` before the samples are read.

    Raises:
        InputError: a sample that cannot be read or photographed.
    """
    device = torch.device(device)
    groups = [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]
    reader = _Reader(mixture, device.type == "cpu", with_estimates, make_input, find_input)
    parts = read_by_workers(reader, groups, num_workers, pinned=device.type == "cuda")
    with closing(parts):  # a traceback would keep the workers alive
        for group, part in zip(groups, parts, strict=True):
            if isinstance(part, InputError):
                raise part
            if device.type == "cpu":
                yield part
            elif isinstance(part[0], tuple):
                yield [make_input(cached.to(device), draws) for draws, cached in part]
            else:
                samples = [moved(sample, device) for sample in part]
                made = _photographed(samples, mixture, group, with_estimates)
                yield [make_input(batch, draws) for draws, batch in made]


class Reader(Protocol[_Item]):
    """A worker's work, as a map-style data set; `InputError`s are returned, not raised."""

    def __getitem__(self, item: _Item) -> Any: ...


def read_by_workers(
    reader: Reader[_Item], items: Sequence[_Item], num_workers: int, *, pinned: bool = False
) -> Generator[Any, None, None]:
    """The reader's answer to each item, in their order; 0 workers read in this process.

    Closing it ends the workers.

    Args:
        reader: answers.
        items: to ask it for.
        num_workers: processes that answer.
        pinned: whether what has a method `pin_memory` goes to memory that a GPU copies from.
    """
    if num_workers:
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        reader = Sender(reader, num_workers * processes)
    with warnings.catch_warnings():
        # Of more workers than cores, when a loader is made and when it starts: that is the
        # configuration's business.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Any] = DataLoader(
            reader,  # type: ignore[arg-type]
            sampler=items,  # type: ignore[arg-type]
            batch_size=None,
            collate_fn=_uncollated,
            pin_memory=pinned,
            num_workers=num_workers,
            worker_init_fn=_one_thread,
            multiprocessing_context=_START if num_workers else None,
            generator=torch.Generator(),  # else the loader would take a number from the global one
        )
        answers = _started(loader)
    return (one.opened() if isinstance(one, Piped) else one for one in answers)


@dataclass(frozen=True)
class _Reader:
    """A worker's part of each batch, as a map-style data set of groups of positions.

    If it `finishes`, it photographs the samples and makes the inputs, else it returns the samples,
    or the cached inputs with their draws.
    """

    mixture: Mixture
    finishes: bool
    with_estimates: bool
    make_input: _MakeInput[Any]
    find_input: _FindInput | None = None

    def __getitem__(self, positions: Sequence[int]) -> Any:
        try:
            draws = [self.mixture.draw(position) for position in positions]
            found = None if self.find_input is None else self.find_input(draws)
            if found is None:
                samples = [self.mixture[position] for position in positions]
                if not self.finishes:
                    return samples
                found = _photographed(samples, self.mixture, positions, self.with_estimates)
            return [self.make_input(batch, of) for of, batch in found] if self.finishes else found
        except InputError as error:
            return error  # raised by a worker it would reach the user inside a traceback


def _photographed(
    samples: Sequence[Sample], mixture: Mixture, positions: Sequence[int], with_estimates: bool
) -> list[_OneSize]:
    """The samples at these positions as a batch of each size, scenes turned into stacks."""
    stacks, draws = [], [mixture.draw(position) for position in positions]
    for sample, draw in zip(samples, draws, strict=True):
        if isinstance(sample, Scene):
            source = mixture.sources[draw.source]
            sample = photograph(sample, source, draw.generator("simulation"))
        stacks.append(sample)
    if with_estimates:
        sources = [mixture.sources[draw.source] for draw in draws]
        stacks = with_network_priors(estimated(stacks), sources)
    return [
        ([draws[index] for index in group], collate([stacks[index] for index in group]))
        for group in of_one_size([one.stack.size for one in stacks])
    ]


def _uncollated(part: Any) -> Any:
    """The part of a worker, which is a batch already: a default loader would collate again."""
    return part


def _without_draws(batch: StackBatch, _: Sequence[Draw]) -> StackBatch:
    return batch


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader whose workers are forked while OpenCV has no threads.

    A forked process inherits the locks of its parent's threads, but not the threads. A worker that
    inherits a thread pool of OpenCV, which any code in this process may have started, would wait
    for it forever.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


def _one_thread(_: int) -> None:
    # Torch limits itself to one thread in a worker; OpenCV would use every core in each of them.
    cv2.setNumThreads(1)
    # Schedulers terminate a process and its workers together. The process stops its workers
    # itself, after it has saved its state; they also end when it does.
    for ending in ENDING:
        signal.signal(ending, signal.SIG_IGN)
