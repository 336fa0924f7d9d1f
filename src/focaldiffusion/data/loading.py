"""Batches of a split: workers read and vary samples, stacks are simulated on the device."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from focaldiffusion.config.data import DataConfig, Split
from focaldiffusion.config.sources import resolve_sources
from focaldiffusion.data.batch import StackBatch, collate, moved
from focaldiffusion.data.dataset import Sample
from focaldiffusion.data.mixture import Draw, Mixture
from focaldiffusion.data.photographer import photograph
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.errors import InputError
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.scene import Scene
from focaldiffusion.signals import ENDING

_T = TypeVar("_T")
_MakeInput = Callable[[Any, Sequence[Draw]], _T]
"""Turns a `StackBatch`, or an input found in a cache, and its draws into a network input."""
_FindInput = Callable[[Sequence[Draw]], Any]
"""Finds the cached input for some draws, an object with a method `to(device)`; None on a miss."""


def open_split(data: DataConfig, split: Split, seed: int) -> Mixture:
    """The sources of a split; shuffled and weighted for training, in order otherwise.

    Raises:
        InputError: an incomplete source, or missing files.
    """
    members = [(source, open_dataset(source)) for source in resolve_sources(data, split)]
    return Mixture(members, seed, shuffle=split == "train")


def batches(
    mixture: Mixture,
    positions: Sequence[int],
    batch_size: int,
    *,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    with_estimates: bool = False,
) -> Iterator[StackBatch]:
    """The samples at these positions as batches, in their order; see `prepared`."""
    return prepared(
        mixture,
        positions,
        batch_size,
        _without_draws,
        num_workers=num_workers,
        device=device,
        with_estimates=with_estimates,
    )


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
) -> Iterator[_T]:
    """Read, vary, photograph and collate the samples at these positions, in their order.

    On the CPU the workers photograph, estimate and make the input. Otherwise they deliver scenes,
    and this process does the rest on the device. Batches do not depend on `num_workers`.

    Args:
        mixture: the sources of one split.
        positions: counted from the start of the run: `range(start, stop)`, where an epoch has
            `len(mixture)`; any other sequence, for a share of several processes.
        batch_size: samples per batch; the last one may have fewer.
        make_input: called with each batch and its draws; makes what this iterator yields.
        num_workers: processes, of one thread each; 0 reads in this one.
        device: where the result is.
        with_estimates: make the physical estimate of each stack that has none.
        find_input: looks up a cached input for `make_input` before the samples are read.

    Raises:
        InputError: a sample that cannot be read or photographed, or sizes that differ.
    """
    device = torch.device(device)
    groups = [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]
    reader = _Reader(mixture, device.type == "cpu", with_estimates, make_input, find_input)
    loader: DataLoader[Any] = DataLoader(
        reader,  # type: ignore[arg-type]
        sampler=groups,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_uncollated,
        num_workers=num_workers,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # else the loader would take a number from the global one
    )
    for group, part in zip(groups, _started(loader), strict=True):
        if isinstance(part, InputError):
            raise part
        if device.type == "cpu":
            yield part
        else:
            if isinstance(part, list):
                samples = [moved(sample, device) for sample in part]
                batch: Any = _photographed(samples, mixture, group, with_estimates)
            else:
                batch = part.to(device)
            yield make_input(batch, [mixture.draw(position) for position in group])


@dataclass(frozen=True)
class _Reader:
    """A worker's part of each batch, as a map-style data set of groups of positions.

    If it `finishes`, it photographs the samples and makes the input, else it returns the samples.
    """

    mixture: Mixture
    finishes: bool
    with_estimates: bool
    make_input: _MakeInput[Any]
    find_input: _FindInput | None = None

    def __getitem__(self, positions: Sequence[int]) -> Any:
        try:
            draws = [self.mixture.draw(position) for position in positions]
            batch = None if self.find_input is None else self.find_input(draws)
            if batch is None:
                batch = [self.mixture[position] for position in positions]
                if self.finishes:
                    batch = _photographed(batch, self.mixture, positions, self.with_estimates)
            return self.make_input(batch, draws) if self.finishes else batch
        except InputError as error:
            return error  # raised by a worker it would reach the user inside a traceback


def _photographed(
    samples: Sequence[Sample], mixture: Mixture, positions: Sequence[int], with_estimates: bool
) -> StackBatch:
    """The samples at these positions as one batch, scenes turned into stacks."""
    stacks = []
    for sample, position in zip(samples, positions, strict=True):
        if isinstance(sample, Scene):
            draw = mixture.draw(position)
            source = mixture.sources[draw.source]
            sample = photograph(sample, source, draw.generator("simulation"))
        if with_estimates and sample.estimate is None:
            made = estimate_depth(sample.stack, PSF())
            # Made for inference alone, its tensors could not be saved for a backward pass.
            sample = replace(sample, estimate=made.mapped(Tensor.clone))
        stacks.append(sample)
    return collate(stacks)


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
