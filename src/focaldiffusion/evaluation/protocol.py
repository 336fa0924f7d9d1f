"""Protocol: everything that a figure depends on, except the model."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from focaldiffusion.config.data import CameraDefaults, DatasetOptions, Source, Split, Transforms
from focaldiffusion.config.sources import FILELESS
from focaldiffusion.data.dataset import Dataset, StackSample
from focaldiffusion.data.mixture import spread
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.ddff12 import DISPARITY_PX_M
from focaldiffusion.data.transforms import transform
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.photography import Photography
from focaldiffusion.evaluation.published import PUBLISHED, PublishedRow
from focaldiffusion.evaluation.scoring import Domain
from focaldiffusion.stack import FocalStack


@dataclass(frozen=True)
class Protocol:
    """A recipe for stacks with their truth. No flag and no default changes it.

    Variants of a protocol are made with `dataclasses.replace`.

    Attributes:
        name: users pass it as --dataset.
        dataset_type: name of a data set in `data.registry`.
        split: part of the data set.
        about: what to know before believing a figure.
        photography: how its images are photographed; None for data sets of stacks.
        layout: of the data set's files, see docs/data.md; None where it has one only.
        frames: which frames of its stacks are used, counted from 0; None takes all.
        oracle_frames: its stacks were focused with knowledge of the truth.
        image_size: (height, width) [px]: samples are resized to cover it, their middle is kept.
        depth_range_m: nearest and farthest truth that counts; None leaves it to the data set.
        domain: of the published figures.
        counted_prefixes: samples whose names start with one of these enter the mean; the others
            are reported.
        samples: number of samples to draw from an endless data set; None takes all.
    """

    name: str
    dataset_type: str
    split: Split
    about: str
    photography: Photography | None = None
    layout: str | None = None
    frames: tuple[int, ...] | None = None
    oracle_frames: bool = False
    image_size: tuple[int, int] | None = None
    depth_range_m: tuple[float, float] | None = None
    domain: Domain = "depth"
    counted_prefixes: tuple[str, ...] = ("",)
    samples: int | None = None

    @property
    def needs_files(self) -> bool:
        """Whether the data set is read from a folder, not generated."""
        return self.dataset_type not in FILELESS

    @property
    def oracle(self) -> bool:
        """Whether the focus planes were taken from the truth, which every table marks."""
        return self.oracle_frames or (self.photography is not None and self.photography.oracle)

    @property
    def published(self) -> tuple[PublishedRow, ...]:
        """Figures that others measured on this data."""
        return PUBLISHED.get(self.name, ())

    def counts(self, sample: str) -> bool:
        """Whether a sample of this name enters the mean."""
        return sample.startswith(self.counted_prefixes)

    def count(self, dataset: Dataset) -> int:
        """Number of samples used of its data set."""
        return min(len(dataset), self.samples or len(dataset))

    def indices(self, dataset: Dataset, most: int | None) -> list[int]:
        """Indices of the samples, thinned evenly where there are more than `most`."""
        return spread(self.count(dataset), most).tolist()

    def open(self, data_root: str | Path | None, *, allow_missing: bool = False) -> Dataset:
        """The data set of the protocol.

        Args:
            data_root: its folder; for generated scenes one of photographs for textures, or None.
            allow_missing: leave out samples whose files are missing, see `Dataset.skipped`.

        Raises:
            InputError: no folder, or files that are missing or invalid.
        """
        if data_root is None and self.needs_files:
            raise InputError(
                f"--data-root is missing: the folder of the data set {self.dataset_type}, which "
                f"the protocol {self.name} reads."
            )
        photography = self.photography
        return open_dataset(
            Source(
                name=self.name,
                split=self.split,
                dataset_type=self.dataset_type,
                data_root=[] if data_root is None else str(data_root),
                allow_missing=allow_missing,
                options=DatasetOptions(
                    camera_defaults=photography.lens if photography else CameraDefaults(),
                    depth_bounds=self.depth_range_m,
                    layout=self.layout,
                ),
            )
        )

    def sample(self, dataset: Dataset, index: int) -> StackSample:
        """A stack and its truth, the same each time, noise included.

        Args:
            dataset: the data set that `open` returned.
            index: of the sample.

        Raises:
            InputError: invalid files, or a sample to which the protocol does not apply.
        """
        sample = dataset[index]
        if isinstance(sample, StackSample) and self.frames is not None:
            sample = replace(sample, stack=chosen_frames(sample.stack, self.frames))
        if self.image_size is not None:
            sample = transform(sample, Transforms(), self.image_size, torch.Generator())
        if isinstance(sample, StackSample):
            return sample
        if self.photography is None:
            raise ValueError(f"protocol {self.name} has no photography, but a data set of images")
        seed = zlib.crc32(dataset.name(index).encode())
        return self.photography.take(sample, torch.Generator().manual_seed(seed))

    def settings(self) -> dict[str, str]:
        """Everything that is fixed, in words: the columns of a table."""
        size = "native"
        if self.image_size is not None:
            size = "{1}x{0}, middle".format(*self.image_size)
        elif self.photography is not None and self.photography.long_side_px is not None:
            size = f"long side {self.photography.long_side_px} at most"
        truth = "all"
        if self.depth_range_m is not None:
            truth = "{:g}-{:g} m".format(*self.depth_range_m)
        errors = "depth"
        if self.domain == "disparity":
            errors = f"depth; disparity = {DISPARITY_PX_M:.5f} px / z"
        prefixes = ", ".join(f"{prefix}…" for prefix in self.counted_prefixes)
        columns = {
            "data set": ", ".join(filter(None, (self.dataset_type, self.split, self.layout))),
            **self._frame_settings(),
            "size": size,
            "truth": truth,
            "errors of": errors,
            "mean over": "all" if self.counts("") else prefixes,
        }
        if self.oracle:
            columns["focus planes"] += " (oracle)"
        return columns

    def _frame_settings(self) -> dict[str, str]:
        if self.photography is not None:
            return {"frames": "simulated", **self.photography.settings()}
        frames = "all" if self.frames is None else ", ".join(map(str, self.frames))
        from_files = dict.fromkeys(("focus planes", "lens", "blur", "noise"), "of the files")
        return {"frames": f"{frames} of the files", **from_files}


def chosen_frames(stack: FocalStack, frames: tuple[int, ...]) -> FocalStack:
    """A stack of some frames of a stack in memory, counted from 0.

    Raises:
        InputError: the stack has fewer frames.
    """
    if max(frames) >= len(stack):
        raise InputError(
            f"a stack of {len(stack)} frames has no frame {max(frames)} (they count from 0)."
        )
    chosen = torch.tensor(frames, device=stack.images.device)

    def part(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[chosen.to(values.device)]

    return replace(
        stack,
        images=stack.images[chosen],
        focus_distances_m=part(stack.focus_distances_m),
        focus_positions_m=part(stack.focus_positions_m),
        frames=None,
    )
