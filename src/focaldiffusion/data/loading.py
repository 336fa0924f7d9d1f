"""Batches of a split: workers read and vary samples, stacks are simulated where they are needed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from focaldiffusion.config.data import DataConfig, Split
from focaldiffusion.config.sources import resolve_sources
from focaldiffusion.data.batch import StackBatch, collate
from focaldiffusion.data.dataset import Sample
from focaldiffusion.data.mixture import Draw, Mixture
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.simulation import simulate
from focaldiffusion.errors import InputError
from focaldiffusion.psf import PSF
from focaldiffusion.recovery import estimate_depth
from focaldiffusion.scene import Scene

T = TypeVar("T")


def open_split(data: DataConfig, split: Split, seed: int) -> Mixture:
    """The sources of a split; shuffled and weighted for training, in order otherwise.

    Raises:
        InputError: a source that is not complete, or whose files are missing.
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
        _batch_alone,
        num_workers=num_workers,
        device=device,
        with_estimates=with_estimates,
    )


def prepared(
    mixture: Mixture,
    positions: Sequence[int],
    batch_size: int,
    prepare: Callable[[Any, Sequence[Draw]], T],
    *,
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    with_estimates: bool = False,
    known: Callable[[Sequence[Draw]], Any] | None = None,
) -> Iterator[T]:
    """Read, vary, photograph and collate the samples at these positions, in their order.

    The workers photograph where the device is the CPU. Otherwise they deliver scenes, which this
    process photographs on the device. So it is with physical estimates that no cache has. What a
    batch holds does not depend on `num_workers`.

    Args:
        mixture: of one split.
        positions: counted from the start of the run: `range(start, stop)`, where an epoch has
            `len(mixture)`; any other sequence, for a share of several processes.
        batch_size: samples a batch; the last one may have fewer.
        prepare: what is made of each batch and its draws, by the workers where they photograph.
        num_workers: processes, of one thread each; 0 reads in this one.
        device: where the result is.
        with_estimates: make the physical estimate of each stack that has none.
        known: asked first for what `prepare` may take in place of the batch of some draws, with a
            method `to`; None where that has to be read.

    Raises:
        InputError: a sample that cannot be read or photographed, or sizes that differ.
    """
    device = torch.device(device)
    groups = [positions[i : i + batch_size] for i in range(0, len(positions), batch_size)]
    loader: DataLoader[Any] = DataLoader(
        _Reader(mixture, device.type == "cpu", with_estimates, prepare, known),  # type: ignore[arg-type]
        sampler=groups,  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_as_it_is,
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
                moved = [_moved(sample, device) for sample in part]
                batch: Any = _photographed(moved, mixture, group, with_estimates)
            else:
                batch = part.to(device)
            yield prepare(batch, [mixture.draw(position) for position in group])


class _Reader:
    """What a worker does for one batch: a map-style data set of groups of positions."""

    def __init__(
        self,
        mixture: Mixture,
        simulates: bool,
        with_estimates: bool,
        prepare: Callable[[Any, Sequence[Draw]], Any],
        known: Callable[[Sequence[Draw]], Any] | None,
    ) -> None:
        self.mixture, self.simulates = mixture, simulates
        self.with_estimates, self.prepare, self.known = with_estimates, prepare, known

    def __getitem__(self, positions: Sequence[int]) -> Any:
        try:
            draws = [self.mixture.draw(position) for position in positions]
            batch = None if self.known is None else self.known(draws)
            if batch is None:
                batch = [self.mixture[position] for position in positions]
                if self.simulates:
                    batch = _photographed(batch, self.mixture, positions, self.with_estimates)
            return self.prepare(batch, draws) if self.simulates else batch
        except InputError as error:
            return error  # raised by a worker it would reach the user inside a traceback


def _photographed(
    samples: Sequence[Sample], mixture: Mixture, positions: Sequence[int], with_estimates: bool
) -> StackBatch:
    """The samples of some positions as a batch of stacks."""
    stacks = []
    for sample, position in zip(samples, positions, strict=True):
        if isinstance(sample, Scene):
            draw = mixture.draw(position)
            source = mixture.sources[draw.source]
            sample = simulate(sample, source, draw.generator("simulation"))
        if with_estimates and sample.estimate is None:
            made = estimate_depth(sample.stack, PSF())
            # Made for inference alone, its tensors could not be saved for a backward pass.
            sample = replace(sample, estimate=made.mapped(Tensor.clone))
        stacks.append(sample)
    return collate(stacks)


def _moved(sample: Sample, device: torch.device) -> Sample:
    """The sample with its tensors on a device."""

    def on_device(holder: Any) -> Any:
        tensors = {
            field.name: value.to(device)
            for field in fields(holder)
            if isinstance(value := getattr(holder, field.name), torch.Tensor)
        }
        return replace(holder, **tensors)

    if isinstance(sample, Scene):
        return on_device(sample)
    estimate = sample.estimate
    return on_device(
        replace(
            sample,
            stack=on_device(sample.stack),
            estimate=None if estimate is None else estimate.to(device),
        )
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _batch_alone(batch: StackBatch, _: Sequence[Draw]) -> StackBatch:
    return batch


def _started(loader: DataLoader[Any]) -> Iterator[Any]:
    """The batches of a loader, whose workers have been forked while OpenCV had no threads.

    A copy of a process has the locks of its threads but not the threads: a worker that finds a
    pool of OpenCV's, which anything in this process may have started, waits for it for ever.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return iter(loader)
    finally:
        cv2.setNumThreads(threads)


def _one_thread(_: int) -> None:
    # Torch limits itself to one thread in a worker; OpenCV would take every core, in each.
    cv2.setNumThreads(1)
    # Schedulers terminate a process and its workers together: it ends them itself, once it has
    # saved what they read for. They also end when it does.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
