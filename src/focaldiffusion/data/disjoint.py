"""A check that no scene is both trained on and scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from focaldiffusion.config.data import Source
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.errors import InputError


class HasScenes(Protocol):
    """A source of a split, and the names of its physical scenes."""

    @property
    def source(self) -> Source:
        """The source, with its split."""
        ...

    @property
    def scenes(self) -> frozenset[str]:
        """Names of its physical scenes."""
        ...


class SourceScenes(NamedTuple):
    """See `HasScenes`."""

    source: Source
    scenes: frozenset[str]


def scenes_of(mixture: Mixture) -> Iterator[SourceScenes]:
    """The scenes of each source of a split."""
    for index, source in enumerate(mixture.sources):
        yield SourceScenes(source, mixture.scenes(index))


def check_disjoint(sources: Sequence[HasScenes]) -> None:
    """Refuse splits that share a scene with train.

    Raises:
        InputError: a shared scene; names it and the two splits.
    """
    for trained in (one for one in sources if one.source.split == "train"):
        for held_out in (one for one in sources if one.source.split != "train"):
            # Names of scenes mean the same within one data set only.
            if _family(trained.source) != _family(held_out.source):
                continue
            shared = sorted(trained.scenes & held_out.scenes)
            if shared:
                raise InputError(
                    f"scene {shared[0]} is in train (source {trained.source.name}) and in "
                    f"{held_out.source.split} (source {held_out.source.name})"
                    + (f", and so are {len(shared) - 1} more" if len(shared) > 1 else "")
                    + ". Leave it out of one: a score on training scenes is meaningless."
                )


def _family(source: Source) -> str:
    """Data sets with the same names of scenes: stacks with and without truth are both folders."""
    return "stacks" if source.dataset_type == "unlabelled" else source.dataset_type
