"""A check of a configuration's data: one batch of every source, read and simulated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from focaldiffusion.config.data import DataConfig, Source, Split
from focaldiffusion.config.sources import resolve_sources
from focaldiffusion.data.batch import StackBatch, collate
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.loading import batches
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.filelist import FileList
from focaldiffusion.errors import InputError
from focaldiffusion.optics import blur_radius_px, inverse_m


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
        batch: the other samples; None if all were bad.
    """

    source: Source
    samples: int
    scenes: frozenset[str]
    skipped: Sequence[str]
    notices: Sequence[str]
    bad: Sequence[str]
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
        good, bad = _probe(mixture, min(batch_size, len(mixture)), device)
        scenes = mixture.scenes(0)
        batch = (
            collate([one for one in good if one.stack.size == good[0].stack.size]) if good else None
        )
        notices = dataset.notices if isinstance(dataset, FileList) else ()
        checks.append(
            SourceCheck(source, len(mixture), scenes, dataset.skipped, notices, bad, batch)
        )
    return checks


def _probe(
    mixture: Mixture, count: int, device: str = "cpu"
) -> tuple[list[StackSample], list[str]]:
    """The first samples of a mixture, and a sentence for each that fails."""
    good: list[StackSample] = []
    bad: list[str] = []
    for position in range(count):
        try:
            good += [batch.sample(0) for batch in batches(mixture, [position], 1, device=device)]
        except InputError as error:
            bad.append(str(error))
    return good, bad


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
    diameters = _blur_diameters_px(batch)
    if diameters.numel():
        rows.append(("blur diameter", "", "px", _range(diameters)))
    sharp = batch.all_in_focus[batch.has_all_in_focus]
    if sharp.numel():
        rows.append(("all in focus", _shape(sharp), "linear light", _range(sharp)))
    else:
        rows.append(("all in focus", "none", "", ""))
    return rows


def _blur_diameters_px(batch: StackBatch) -> Tensor:
    """Blur diameters at the valid pixels of all stacks whose lens and focus are known."""
    found = [batch.images.new_empty(0)]
    for index in range(len(batch)):
        stack = batch.stack(index)
        scale = stack.blur_scale_px_m
        if scale is not None:
            inverse_depth = inverse_m(batch.depth_m[index][batch.valid[index]])
            radii = blur_radius_px(inverse_depth, stack.focus_coordinates[:, None], scale)
            found.append(2 * radii.abs().flatten())
    return torch.cat(found)


def _shape(tensor: Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _range(values: Tensor) -> str:
    # Thousandths of a pixel or of the light are noise here.
    low, high = (round(float(end), 3) for end in values.aminmax())
    return f"{low:.4g} to {high:.4g}"
