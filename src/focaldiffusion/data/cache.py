"""Stacks and their evidence, made once and trained from: a folder of sample files and an index."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from focaldiffusion import __version__
from focaldiffusion.config.data import Source
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.loading import batches, read_by_workers
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.data.priors import asks_network, is_file
from focaldiffusion.data.roots import Roots
from focaldiffusion.data.sample_file import read_sample, write_sample
from focaldiffusion.data.shard import claimed_by, sweep, write_on
from focaldiffusion.engines.engine import MakeEngine
from focaldiffusion.errors import InputError
from focaldiffusion.io.reading import read_json, reading
from focaldiffusion.io.staging import claimed, file_errors_named, write_whole
from focaldiffusion.progress import Meter
from focaldiffusion.shards import Shard

_INDEX, _SAMPLES = "cache.json", "samples"
_FORMAT = 2


def write_cache(
    mixture: Mixture,
    directory: Path,
    *,
    count: int | None = None,
    shard: Shard = Shard(),  # noqa: B008 - frozen
    num_workers: int = 0,
    device: torch.device | str = "cpu",
    with_evidence: bool = False,
    engine: MakeEngine | None = None,
    meter: Meter | None = None,
) -> None:
    """Write the stacks of a mixture to a folder, or continue or extend a cache there.

    A sample of 5 frames of 512x512 and 8 bits takes 7 MB, and 28 MB with its evidence. On the CPU
    the workers write. Shards that write to folders of their own are joined by `merge_caches`.

    Args:
        mixture: the sources of one split; the files hold all that it draws, transforms included.
        directory: created if missing.
        count: samples to write, from the first position on; an epoch by default. Samples beyond an
            epoch photograph the same scenes again, with other draws.
        shard: the share of the samples that this process writes.
        num_workers: see `batches`.
        device: where to simulate.
        with_evidence: also write the physical estimate of each stack, which takes longer to make
            than a training step.
        engine: makes the engine of a cluster, whose workers write on their CPUs.
        meter: counts the samples, those of an interrupted run included.

    Raises:
        InputError: a bad sample, or a folder that holds another cache or whose shard another
            process writes.
    """
    count = len(mixture) if count is None else count
    blind = [one.name for one in mixture.sources if asks_network(one.options)]
    if blind and not with_evidence:
        raise InputError(
            f"source {blind[0]}: its prior is a network, which looks at the image of the evidence. "
            "Write the cache with --evidence."
        )
    with file_errors_named(directory):
        _begin(directory, _index(mixture, count, with_evidence))
    with claimed_by(shard, directory):
        with file_errors_named(directory):
            sweep(directory / _SAMPLES)
        wanted = shard.of(range(count))
        missing = _missing(directory, wanted)
        meter = meter or Meter()
        meter.expect(len(wanted), done=len(wanted) - len(missing))
        writer = _Writer(mixture, directory, with_evidence)
        if engine is not None:
            write_on(engine, writer, missing, meter)
            return
        for _ in writer.written(missing, num_workers, torch.device(device)):
            meter.advance()


@dataclass(frozen=True)
class _Writer:
    """Makes and writes the sample at a position, as a worker's map-style data set."""

    mixture: Mixture
    directory: Path
    with_evidence: bool

    def written(
        self, positions: Sequence[int], num_workers: int, device: torch.device
    ) -> Iterator[None]:
        """Write the samples at these positions; yields after each."""
        if device.type == "cpu":
            for error in read_by_workers(self, positions, num_workers):
                if error is not None:
                    raise error
                yield
            return
        for position, batch in zip(
            positions,
            batches(
                self.mixture,
                positions,
                1,
                num_workers=num_workers,
                device=device,
                with_estimates=self.with_evidence,
            ),
            strict=True,
        ):
            write_sample(_sample_path(self.directory, position), batch.to("cpu").sample(0))
            yield

    def __getitem__(self, position: int) -> InputError | None:
        try:
            (batch,) = batches(self.mixture, [position], 1, with_estimates=self.with_evidence)
            write_sample(_sample_path(self.directory, position), batch.sample(0))
        except InputError as error:
            return error
        return None


def merge_caches(parts: Sequence[Path], directory: Path) -> int:
    """Join caches of the same samples, written by several machines, in one folder.

    Files are linked where the file system can, else copied. What the folder has already stays.

    Args:
        parts: folders of caches; each has some of the samples.
        directory: created if missing; may be one of the parts.

    Returns:
        The number of samples that no part has.

    Raises:
        InputError: a folder without a cache, or with another one.
    """
    indices = [_read_index(part / _INDEX) for part in parts]
    longest = max(indices, key=lambda index: len(index["samples"]))
    for part, index in zip(parts, indices, strict=True):
        _check_same(part, index, longest)
    with file_errors_named(directory):
        _begin(directory, longest)
        with claimed(directory):
            for part in parts:
                join_files(part / _SAMPLES, directory / _SAMPLES)
    return len(_missing(directory, range(len(longest["samples"]))))


def join_files(part: Path, directory: Path) -> None:
    """Link or copy the safetensors files of a folder that another one lacks.

    Raises:
        OSError: the file system refuses.
    """
    for path in part.glob("[!.]*.safetensors"):
        target = directory / path.name
        if target.exists():
            continue
        try:
            os.link(path, target)
        except OSError:  # another disk, or one without links
            write_whole(target, path.read_bytes())


def bytes_of_sample(directory: Path) -> float:
    """Mean size of the sample files in the folder of a cache."""
    sizes = [path.stat().st_size for path in (directory / _SAMPLES).glob("[!.]*.safetensors")]
    return sum(sizes) / len(sizes)


class Cache:
    """The data set of a cache: `data_root` is its folder.

    The stacks are finished: only the `transforms` of the source can still vary them, and a prior
    that is a network or simulated replaces their own. Other options must be left out or equal those
    that the cache was written with.
    """

    def __init__(self, source: Source) -> None:
        remedy = "Write the cache first, or correct data_root."
        path = Roots.of(source.data_root).need(_INDEX, "focal_stack", remedy=remedy)
        index = _read_index(path)
        _check_source(source, index["sources"], path)
        self._directory = path.parent
        self._samples: list[dict[str, str]] = index["samples"]
        missing = _missing(self._directory, range(len(self._samples)))
        if missing and not source.allow_missing:
            raise InputError(
                f"{_sample_path(self._directory, missing[0])}: no such file; {len(missing)} of the "
                f"{len(self._samples)} samples of this cache are missing. Continue writing it, or "
                "use those that are there with allow_missing."
            )
        self.skipped = [f"{_sample_path(self._directory, i)}: no such file." for i in missing]
        self._positions = sorted(set(range(len(self._samples))) - set(missing))

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> StackSample:
        """Read a stack and its truth."""
        return read_sample(_sample_path(self._directory, self._positions[index]))

    def name(self, index: int) -> str:
        """The number of its file, and the name of the sample that was photographed."""
        position = self._positions[index]
        return f"{position:06d} {self._samples[position]['name']}"

    def scene_name(self, index: int) -> str:
        """The physical scene that was photographed."""
        return self._samples[self._positions[index]]["scene"]


def _check_source(source: Source, written: list[dict[str, Any]], path: Path) -> None:
    """Refuse a source that asks for other stacks than the cache, `written` from sources, holds."""
    split = written[0]["split"]
    if source.split != split:
        raise InputError(
            f"{source.name}: {path} holds stacks of {split}, not of {source.split}. Name the cache "
            f"in data.{split}_sources, and for {source.split} another source, or none."
        )
    if source.filelist is not None:
        raise InputError(
            f"{source.name}: a file list ({source.filelist}) with dataset_type cache, which holds "
            "what it was written with. Leave it out."
        )
    free = {"transforms"} if is_file(source.options) else {"transforms", "prior", "prior_kind"}
    given = source.options.model_dump(mode="json", exclude_defaults=True, exclude=free)
    whole = source.options.model_dump(mode="json")
    others = [key for key in given if all(whole[key] != one["options"].get(key) for one in written)]
    if others:
        raise InputError(
            f"{source.name}: {', '.join(others)} differ from what the finished stacks of {path} "
            "were made with. Leave them out, or write another cache."
        )


def _index(mixture: Mixture, count: int, with_evidence: bool) -> dict[str, Any]:
    """Everything that the samples depend on, and the name and scene of each."""
    samples = []
    for draw in map(mixture.draw, range(count)):
        dataset, source = mixture.datasets[draw.source], mixture.sources[draw.source]
        name = f"{source.name}/{dataset.name(draw.sample)}"
        samples.append({"name": name, "scene": dataset.scene_name(draw.sample)})
    return {
        "format": _FORMAT,
        "focaldiffusion": __version__,
        "seed": mixture.seed,
        "with_evidence": with_evidence,
        "sources": [source.model_dump(mode="json") for source in mixture.sources],
        "samples": samples,
    }


def _begin(directory: Path, index: dict[str, Any]) -> None:
    """Write the index of a new or a longer cache, or check that of an existing one."""
    path = directory / _INDEX
    text = json.dumps(index, indent=1) + "\n"
    if path.exists():
        there, wanted = _read_index(path), json.loads(text)
        _check_same(directory, there, wanted)
        if len(there["samples"]) >= len(wanted["samples"]):
            return
    (directory / _SAMPLES).mkdir(parents=True, exist_ok=True)
    write_whole(path, text.encode())


def _check_same(directory: Path, there: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Refuse a cache of other samples; either may have more of the same ones."""
    both = min(len(index["samples"]) for index in (there, wanted))
    short = [{**index, "samples": index["samples"][:both]} for index in (there, wanted)]
    different = [key for key in short[1] if short[0].get(key) != short[1][key]]
    if different:
        raise InputError(
            f"{directory}: holds a cache with other {different[0]}. Choose another folder, or "
            "remove this one."
        )


def _read_index(path: Path) -> dict[str, Any]:
    """The index of a cache."""
    fault = "is not the index of a cache"
    remedy = "Correct the path of the cache, or write it again in another folder."
    index = read_json(path, fault, remedy)
    with reading(path, fault, remedy):
        if (found := index["format"]) != _FORMAT:
            raise InputError(f"{path}: format {found}; expected {_FORMAT}. Write the cache again.")
        _Index.model_validate(index)
    checked: dict[str, Any] = index
    return checked


class _Index(BaseModel):
    """Those parts of an index that are read."""

    class Written(BaseModel):
        """A source that the cache was written with."""

        split: str
        options: dict[str, Any]

    class Sample(BaseModel):
        """Names of a sample."""

        name: str
        scene: str

    model_config = ConfigDict(strict=True)
    sources: Annotated[list[Written], Field(min_length=1)]
    samples: list[Sample]


def _sample_path(directory: Path, position: int) -> Path:
    return directory / _SAMPLES / f"{position:06d}.safetensors"


def _missing(directory: Path, positions: Iterable[int]) -> list[int]:
    """The positions without a file, from one listing of the folder."""
    there = {path.name for path in (directory / _SAMPLES).glob("*.safetensors")}
    return [i for i in positions if _sample_path(directory, i).name not in there]
