"""Priors of samples: from files, from a depth network, or simulated from the truth to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from focaldiffusion.config.data import SIMULATED_PRIOR, DatasetOptions, Source
from focaldiffusion.data.dataset import Sample, StackSample
from focaldiffusion.data.draws import integer, uniform
from focaldiffusion.errors import InputError
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.prior import PriorKind, PriorSource
from focaldiffusion.priors.given import FILE_SUFFIXES, GivenPrior, read_prior
from focaldiffusion.priors.shelf import load_prior
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.priors import Distortion, simulated

_STRENGTHS = (0.25, 1.0)  # of the errors of simulated priors, relative to the usual ones


def asks_network(options: DatasetOptions) -> bool:
    """Whether the prior of a source is a network, which looks at images."""
    return not (options.prior in (None, SIMULATED_PRIOR) or is_file(options))


def check_prior(sample: StackSample) -> None:
    """Refuse a sample without a prior, where a network sees one.

    Raises:
        InputError: it has none.
    """
    if sample.prior is None:
        raise InputError(
            f"{sample.source}: has no prior, which model.with_prior needs. Give "
            "data.dataset_kwargs.prior; a cache has the prior that it was written with."
        )


def with_own_prior(
    sample: Sample, options: DatasetOptions, name: str, generator: torch.Generator
) -> Sample:
    """A sample, as read, with the prior that its source has for it, unless a network gives that.

    A stack of a cache keeps that of its file, which was varied with it.

    Args:
        sample: at its size on disk.
        options: of its source.
        name: of the sample in its data set; it stands for `{name}` in `options.prior`.
        generator: draws the errors of a simulated prior.

    Raises:
        InputError: a file that is missing, damaged or of another aspect.
    """
    if options.prior is None or asks_network(options):
        return sample
    if options.prior == SIMULATED_PRIOR:
        errors = Distortion().times(uniform(*_STRENGTHS, generator))
        prior = simulated(sample.depth_m, sample.valid, integer(0, 2**31, generator), errors)
        return replace(sample, prior=prior)
    if sample.prior is not None:
        return sample
    path = options.prior.replace("{name}", name)
    image = sample.all_in_focus if isinstance(sample, Scene) else sample.stack.images[0]
    try:
        return replace(sample, prior=_read(path, options.prior_kind)(image))
    except InputError as error:
        raise InputError(f"{sample.source}: {error}") from error


def with_network_priors(
    samples: Sequence[StackSample], sources: Sequence[Source]
) -> list[StackSample]:
    """Samples with the priors of those sources that name a network.

    The network sees the image of the evidence, never a true one. Its earlier answer, from a cache,
    stays.

    Args:
        samples: with evidence.
        sources: that of each.

    Raises:
        InputError: no such network, or it cannot be loaded.
    """
    completed = []
    for sample, source in zip(samples, sources, strict=True):
        name = source.options.prior
        answered = sample.prior is not None and sample.prior.name == name
        if name is not None and asks_network(source.options) and not answered:
            assert sample.estimate is not None
            light = sample.estimate.evidence.all_in_focus
            network = _network(name, source.options.prior_kind, str(light.device))
            sample = replace(sample, prior=network(linear_to_srgb(light.clamp(0, 1))))
        completed.append(sample)
    return completed


def is_file(options: DatasetOptions) -> bool:
    """Whether the priors of a source are files, which belong to its samples as read."""
    return options.prior is not None and Path(options.prior).suffix.lower() in FILE_SUFFIXES


def _read(path: str, kind: PriorKind | None) -> GivenPrior:
    if kind is None:
        raise InputError(
            f"{path}: a file does not say whether it holds depth or inverse depth. Give "
            f"data.dataset_kwargs.prior_kind, one of {', '.join(PriorKind)}."
        )
    return read_prior(Path(path), kind)


@lru_cache(maxsize=1)
def _network(name: str, kind: PriorKind | None, device: str) -> PriorSource:
    """The network, loaded once per process."""
    return load_prior(name, kind=kind, device=device)
