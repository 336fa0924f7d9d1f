"""Protocol: everything that a figure depends on, except the model. Some photograph their stacks."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from focaldiffusion.config.data import CameraDefaults, DatasetOptions, Source, Split, Transforms
from focaldiffusion.config.sources import FILELESS
from focaldiffusion.data.dataset import Dataset, StackSample
from focaldiffusion.data.mixture import spread
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.ddff12 import DISPARITY_PX_M
from focaldiffusion.data.transforms import transform
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.published import PUBLISHED, PublishedRow
from focaldiffusion.evaluation.scoring import Domain
from focaldiffusion.psf import PSF
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture
from focaldiffusion.stack import FocalStack


@dataclass(frozen=True)
class OraclePlanes:
    """Focus planes taken from the truth: no photographer could choose them.

    Attributes:
        count: number of planes, at least 2.
        quantiles: of the true depth, for the nearest and the farthest plane.
        even_in: the unit in which the planes are evenly spaced.
    """

    count: int
    quantiles: tuple[float, float]
    even_in: Literal["inverse_depth_dpt", "depth_m"] = "inverse_depth_dpt"

    def distances_m(self, scene: Scene) -> tuple[float, ...]:
        """The planes of a scene, near to far [m].

        Raises:
            InputError: the depth of the scene hardly varies, so that its planes coincide.
        """
        depth_m = scene.depth_m[scene.valid].double().numpy()
        inverse = self.even_in == "inverse_depth_dpt"
        # Not torch.quantile: it refuses maps of more than 16 megapixels.
        if inverse:
            ends = np.quantile(1 / depth_m, [1 - share for share in self.quantiles])
        else:
            ends = np.quantile(depth_m, self.quantiles)
        planes = np.linspace(ends[0], ends[1], self.count)
        near_m, *_, far_m = distances_m = tuple((1 / planes if inverse else planes).tolist())
        if far_m < 1.001 * near_m:
            raise InputError(
                f"{scene.source}: the true depth hardly varies ({near_m:.4g} to {far_m:.4g} m), so "
                "focus planes taken from it coincide. Leave this sample out."
            )
        return distances_m

    def __str__(self) -> str:
        low, high = (f"{100 * share:g}" for share in self.quantiles)
        unit = "dioptres" if self.even_in == "inverse_depth_dpt" else "metres"
        return f"{self.count}, even in {unit}, {low}-{high} % of the truth"


@dataclass(frozen=True)
class WorkingRange:
    """Focus planes over the range that a scene was laid out for, before anything stood in it.

    Attributes:
        count: number of planes, at least 2, evenly spaced in dioptres.
    """

    count: int

    def distances_m(self, scene: Scene) -> tuple[float, ...]:
        """The planes of a scene, near to far [m]."""
        if scene.focal_range_m is None:
            raise ValueError(f"{scene.source} has no working range")
        near_m, far_m = scene.focal_range_m
        planes: NDArray[np.float64] = 1 / np.linspace(1 / near_m, 1 / far_m, self.count)
        return tuple(planes.tolist())

    def __str__(self) -> str:
        return f"{self.count}, even in dioptres over each scene's working range"


@dataclass(frozen=True)
class Photography:
    """Simulated photography of the images of a data set.

    Attributes:
        planes: focus distances [m] fixed in advance, or taken from the working range or the truth
            of each scene.
        lens: of the photographer, where the data set has no lens.
        psf: shape of the blur.
        blur_of: see `capture`.
        noise_std_lsb: noise of the frames [1/255 of sRGB].
        bit_depth: of the frames; None does not quantise.
        long_side_px: larger images are reduced to this before they are photographed.
    """

    planes: tuple[float, ...] | WorkingRange | OraclePlanes
    lens: CameraDefaults = field(default_factory=CameraDefaults)
    psf: PSF = field(default_factory=PSF)
    blur_of: Literal["light", "srgb"] = "light"
    noise_std_lsb: float = 0.0
    bit_depth: Literal[8, 16] | None = 8
    long_side_px: int | None = None

    @property
    def oracle(self) -> bool:
        """Whether the focus planes are taken from the truth."""
        return isinstance(self.planes, OraclePlanes)

    def take(self, scene: Scene, generator: torch.Generator) -> StackSample:
        """A stack of a scene, with its truth.

        Raises:
            InputError: no focus planes follow from the scene, or it cannot be photographed.
        """
        if self.long_side_px is not None:
            scene = scene.resized(self.long_side_px)
        stack = capture(
            scene,
            self.planes if isinstance(self.planes, tuple) else self.planes.distances_m(scene),
            psf=self.psf,
            blur_of=self.blur_of,
            noise_std_lsb=self.noise_std_lsb,
            bit_depth=self.bit_depth,
            generator=generator,
        )
        return StackSample(stack, scene.depth_m, scene.valid, scene.all_in_focus, scene.source)

    def settings(self) -> dict[str, str]:
        """Columns of a table of protocols, in words: frames, focus planes, lens, blur, noise."""
        planes = str(self.planes)
        if isinstance(self.planes, tuple):
            planes = ", ".join(f"{distance_m:g}" for distance_m in self.planes) + " m"
        bits = "not quantised" if self.bit_depth is None else f"{self.bit_depth} bit"
        return {
            "frames": "simulated",
            "focus planes": planes,
            "lens": _lens_text(self.lens),
            "blur": f"{self.psf.family}, of {self.blur_of}",
            "noise": f"{self.noise_std_lsb:g} LSB, {bits}",
        }


def _lens_text(lens: CameraDefaults) -> str:
    parts = [f"f/{lens.f_number:g}"] if lens.f_number is not None else []
    if lens.sensor_width_m is not None:
        parts.append(f"sensor {1000 * lens.sensor_width_m:g} mm wide")
    if lens.aperture_diameter_m is not None:
        parts.append(f"aperture {1000 * lens.aperture_diameter_m:.1f} mm")
    return ", ".join(parts)


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

    def indices(self, dataset: Dataset, most: int | None) -> list[int]:
        """Indices of the samples, thinned evenly where there are more than `most`."""
        return spread(min(len(dataset), self.samples or len(dataset)), most).tolist()

    def open(self, data_root: str | Path | None, *, allow_missing: bool = False) -> Dataset:
        """The data set of the protocol.

        Args:
            data_root: its folder; for generated scenes one of photographs for textures, or None.
            allow_missing: leave out samples whose files are missing, see `Dataset.skipped`.

        Raises:
            InputError: no folder, or files that are missing or invalid.
        """
        if data_root is None and self.dataset_type not in FILELESS:
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
        range_m = self.depth_range_m
        disparity = f"; disparity = {DISPARITY_PX_M:.5f} px / z"
        prefixes = ", ".join(f"{prefix}…" for prefix in self.counted_prefixes)
        columns = {
            "data set": ", ".join(filter(None, (self.dataset_type, self.split, self.layout))),
            **(self.photography.settings() if self.photography else self._frame_settings()),
            "size": size,
            "truth": "all" if range_m is None else "{:g}-{:g} m".format(*range_m),
            "errors of": "depth" + (disparity if self.domain == "disparity" else ""),
            "mean over": "all" if self.counts("") else prefixes,
        }
        if self.oracle:
            columns["focus planes"] += " (oracle)"
        return columns

    def _frame_settings(self) -> dict[str, str]:
        """Columns of a protocol that reads its stacks."""
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
    return stack.of_frames(frames)
