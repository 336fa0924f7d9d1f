"""A check of a configuration's data: one batch of every source, read and simulated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from focaldiffusion.config.data import DataConfig, Source, Split
from focaldiffusion.config.sources import resolve_sources
from focaldiffusion.data.batch import StackBatch, collate
from focaldiffusion.data.dataset import StackSample, check_metric
from focaldiffusion.data.loading import batches
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.data.plausibility import blur_diameters_px, doubts
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.filelist import FileList
from focaldiffusion.errors import InputError


@dataclass(frozen=True, eq=False)
class SourceCheck:
    """A source of a split after its first batch was read and simulated.

    Attributes:
        source: the source, with inherited values.
        samples: number of samples in an epoch, after `max_samples`.
        scenes: names of their physical scenes.
        skipped: a sentence for each listed sample without its files.
        notices: a sentence for each name of the published original in a file list.
        bad: a sentence for each sample of the batch that could not be read or simulated.
        doubts: a sentence for each kind of doubt about the other samples, see `plausibility`.
        batch: the other samples; None if all were bad.
    """

    source: Source
    samples: int
    scenes: frozenset[str]
    skipped: Sequence[str]
    notices: Sequence[str]
    bad: Sequence[str]
    doubts: Sequence[str]
    batch: StackBatch | None


def check_split(
    data: DataConfig, split: Split, *, batch_size: int, seed: int, device: str = "cpu"
) -> list[SourceCheck]:
    """Open every source of a split and make its first batch, as training would.

    Raises:
        InputError: a source that is not complete, or whose files are missing.
    """
    checks = []
    for source in resolve_sources(data, split):
        dataset = open_dataset(source)
        mixture = Mixture([(source, dataset)], seed, shuffle=split == "train")
        good, bad = _probe(mixture, min(batch_size, len(mixture)), data.skip_bad_samples, device)
        if not good and len(bad) == len(mixture) <= data.skip_bad_samples:
            raise InputError(
                f"{source.name}: all of its {split} samples are bad; the first: {bad[0]}"
            )
        scenes = mixture.scenes(0)
        batch = (
            collate([one for one in good if one.stack.size == good[0].stack.size]) if good else None
        )
        notices = dataset.notices if isinstance(dataset, FileList) else ()
        checks.append(
            SourceCheck(
                source,
                len(mixture),
                scenes,
                dataset.skipped,
                notices,
                bad,
                _doubts(source, good),
                batch,
            )
        )
    return checks


def _probe(
    mixture: Mixture, count: int, most_bad: int, device: str = "cpu"
) -> tuple[list[StackSample], list[str]]:
    """The first samples of a mixture, and a sentence for each that fails.

    Up to `most_bad` of them are replaced by later ones.
    """
    good: list[StackSample] = []
    bad: list[str] = []
    for position in range(len(mixture)):
        if position >= count and (len(good) == count or len(bad) > most_bad):
            break
        try:
            (batch,) = batches(mixture, [position], 1, device=device)
            sample = batch.sample(0)
            if mixture.sources[0].split != "test":  # where an image can be scored by itself
                check_metric(sample.stack, sample.source)
            good.append(sample)
        except InputError as error:
            bad.append(str(error))
    return good, bad


def _doubts(source: Source, samples: Sequence[StackSample]) -> list[str]:
    """A sentence for each kind of doubt, about the first sample that has it."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for sample in samples:
        for kind, sentence in doubts(sample).items():
            kinds[kind].append(sentence)
    return [
        f"{source.name} ({source.split}): {first}"
        + (f" The same holds for {len(more)} more of {len(samples)} samples." if more else "")
        for first, *more in kinds.values()
    ]


def describe(batch: StackBatch) -> list[tuple[str, str, str, str]]:
    """Rows of name, shape, unit and range for each part of a batch."""
    focus = batch.focus_distances_m[batch.slice_valid]
    focus = focus[~focus.isnan()]
    frames = batch.images[batch.slice_valid]
    rows = [("frames", _shape(batch.images), "linear light", _range(frames))]
    if focus.numel():
        rows.append(("focus distances", _shape(batch.focus_distances_m), "m", _range(focus)))
    else:
        rows.append(("focus distances", "none", "", "order only, or stage positions"))
    share = float(batch.valid.double().mean())
    if share > 0:
        depth = f"{_range(batch.depth_m[batch.valid])}; {share:.1%} valid"
        rows.append(("depth", _shape(batch.depth_m), "m", depth))
    else:
        rows.append(("depth", "none", "", ""))
    diameters = torch.cat(
        [blur_diameters_px(batch.sample(index)).flatten() for index in range(len(batch))]
    )
    if diameters.numel():
        rows.append(("blur diameter", "", "px", _range(diameters)))
    sharp = batch.all_in_focus[batch.has_all_in_focus]
    if sharp.numel():
        rows.append(("all in focus", _shape(sharp), "linear light", _range(sharp)))
    else:
        rows.append(("all in focus", "none", "", ""))
    return rows


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _range(values: Tensor) -> str:
    # Thousandths of a pixel or of the light are noise here.
    low, high = (round(float(end), 3) for end in values.aminmax())
    return f"{low:.4g} to {high:.4g}"
