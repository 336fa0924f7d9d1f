"""A split of a configuration, evaluated like a protocol: its sources, with their own optics."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from focaldiffusion.config.data import DataConfig, Source, Split
from focaldiffusion.config.sources import FILELESS, resolve_sources
from focaldiffusion.data.dataset import Dataset, Sample, StackSample
from focaldiffusion.data.mixture import Draw, Mixture, spread
from focaldiffusion.data.photographer import photograph
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.transforms import transform
from focaldiffusion.errors import InputError, unknown_name
from focaldiffusion.evaluation.protocol import Protocol
from focaldiffusion.evaluation.published import PublishedRow
from focaldiffusion.evaluation.scoring import Domain
from focaldiffusion.scene import Scene

_WHEREABOUTS = {"data_root", "filelist", "allow_missing", "max_samples", "weight"}
"""Fields of a source on which none of its stacks depends."""


class SplitSamples:
    """The samples of several sources as one `Dataset`, each named SOURCE/SAMPLE."""

    def __init__(self, sources: Iterable[Source]) -> None:
        """Open the sources; each is thinned evenly to its `max_samples`.

        Raises:
            InputError: files that are missing or invalid.
        """
        members = [(source, open_dataset(source)) for source in sources]
        # In order, the seed of a mixture has no effect on which samples there are.
        self._mixture = Mixture(members, seed=0, shuffle=False)
        self.skipped: Sequence[str] = self._mixture.skipped

    def __len__(self) -> int:
        return len(self._mixture)

    def __getitem__(self, index: int) -> Sample:
        """Read a sample from its source, see `Dataset`."""
        _, dataset, inner = self._member(index)
        return dataset[inner]

    def name(self, index: int) -> str:
        """Source and sample."""
        source, dataset, inner = self._member(index)
        return f"{source.name}/{dataset.name(inner)}"

    def scene_name(self, index: int) -> str:
        """Source and scene: a name of a scene means something within its data set only."""
        source, dataset, inner = self._member(index)
        return f"{source.name}/{dataset.scene_name(inner)}"

    def source(self, index: int) -> Source:
        """Source of a sample."""
        return self._member(index)[0]

    def _member(self, index: int) -> tuple[Source, Dataset, int]:
        draw = self._mixture.draw(index)
        return self._mixture.sources[draw.source], self._mixture.datasets[draw.source], draw.sample


@dataclass(frozen=True)
class ConfiguredSplit:
    """The sources of a split, each with its own camera, simulator, size and truth.

    Every random number about a sample follows from its name. A stack depends neither on
    `training.seed`, nor on the other sources, nor on how many samples are evaluated.

    Attributes:
        sources: of one split, at least one.
    """

    sources: tuple[Source, ...]

    about: ClassVar[str] = (
        "Sources of a configuration, photographed as it says. Where frames are simulated, our own "
        "renderer makes them, with the blur model of our own sweep, which flatters our models. "
        "The mean over several sources is that over all their samples."
    )
    domain: ClassVar[Domain] = "depth"
    oracle: ClassVar[bool] = False
    published: ClassVar[tuple[PublishedRow, ...]] = ()

    @classmethod
    def of(cls, data: DataConfig, split: Split, only: Iterable[str] = ()) -> ConfiguredSplit:
        """The sources of a configuration, or some of them by name.

        Raises:
            InputError: the configuration has no data for the split, an unknown name, or a source
                without end and without `max_samples`.
        """
        sources = {source.name: source for source in resolve_sources(data, split)}
        chosen = tuple(dict.fromkeys(only)) or tuple(sources)
        for name in chosen:
            if name not in sources:
                raise InputError(f"source {name!r} of {split} {unknown_name(name, sources)}")
        for source in map(sources.__getitem__, chosen):
            if source.dataset_type in FILELESS and source.max_samples is None:
                raise InputError(
                    f"{source.name}: {source.dataset_type} is endless, so a number of samples is "
                    f"needed. Give the source max_samples, or set data.max_{split}_samples."
                )
        return cls(tuple(map(sources.__getitem__, chosen)))

    @classmethod
    def from_json(cls, sources: Iterable[Mapping[str, Any]]) -> ConfiguredSplit:
        """The split that `as_json` described."""
        return cls(tuple(map(Source.model_validate, sources)))

    def as_json(self) -> list[dict[str, Any]]:
        """The sources, without defaults."""
        return [one.model_dump(mode="json", exclude_defaults=True) for one in self.sources]

    @property
    def name(self) -> str:
        """Split and sources, with a digest of everything that their stacks depend on.

        Runs of one name compare, whatever configuration and folders they came from.
        """
        dumps = [
            one.model_dump(mode="json", exclude_defaults=True, exclude=_WHEREABOUTS)
            for one in self.sources
        ]
        digest = hashlib.sha256(json.dumps(dumps, sort_keys=True).encode()).hexdigest()
        names = ", ".join(source.name for source in self.sources)
        return f"{self.sources[0].split} of {names} ({digest[:8]})"

    def counts(self, sample: str) -> bool:
        """Whether a sample enters the mean: all of them do."""
        return True

    def source_of(self, sample: str) -> str:
        """Name of the source that a sample's name starts with."""
        owners = (one.name for one in self.sources if sample.startswith(f"{one.name}/"))
        return max(owners, key=len)

    def indices(self, dataset: Dataset, most: int | None) -> list[int]:
        """Indices of the samples, thinned evenly where there are more than `most`."""
        return spread(len(dataset), most).tolist()

    def open(self) -> SplitSamples:
        """The samples of all sources.

        Raises:
            InputError: files that are missing or invalid.
        """
        return SplitSamples(self.sources)

    def sample(self, dataset: Dataset, index: int) -> StackSample:
        """A stack and its truth, the same each time.

        Args:
            dataset: the data set that `open` returned.
            index: of the sample.

        Raises:
            InputError: invalid files, or a scene that its source cannot photograph.
        """
        assert isinstance(dataset, SplitSamples)
        source, name = dataset.source(index), dataset.name(index)
        draw = Draw(0, index, (zlib.crc32(name.encode()),))
        options = source.options.transforms
        sample = transform(dataset[index], options, source.image_size, draw.generator("transforms"))
        if isinstance(sample, Scene):
            return photograph(sample, source, draw.generator("simulation"))
        return sample

    def settings(self) -> dict[str, Any]:
        """Everything that is fixed: the configuration of each source."""
        return {f"source {block['name']}": block for block in self.as_json()}


AnyProtocol = Protocol | ConfiguredSplit
"""Everything that a figure depends on, except the model."""
