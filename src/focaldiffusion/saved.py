"""SavedResult: the results in a folder, read back to be looked at, refocused and retouched."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focaldiffusion.align.alignment import Alignment
from focaldiffusion.errors import InputError
from focaldiffusion.frames import FrameSource
from focaldiffusion.io.images import ImageMetadata, read_metadata
from focaldiffusion.io.levels import Levels
from focaldiffusion.io.npy import read_npy_file
from focaldiffusion.io.png import read_png
from focaldiffusion.io.reading import reading
from focaldiffusion.io.results import DEPTH_STEMS, METADATA_FILE, has_results
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera
from focaldiffusion.result import Plane

Integers = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class SavedResult:
    """Results in a folder.

    Attributes:
        folder: the folder that `infer` or `Result.save` wrote.
        metadata: content of its `metadata.json`.
    """

    folder: Path
    metadata: dict[str, Any]

    @classmethod
    def open(cls, folder: Path) -> SavedResult:
        """Open a folder of results.

        Raises:
            InputError: it holds no complete results, or those of an older version.
        """
        if not has_results(folder):
            raise InputError(
                f"{folder}: no complete results, {METADATA_FILE} is missing. Make them with "
                "`focaldiffusion infer`."
            )
        try:
            metadata = json.loads((folder / METADATA_FILE).read_text("utf-8"))
            saved = cls(folder, metadata)
            saved.name, saved.levels, saved.camera, saved.lens  # noqa: B018  # all that must be there
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{folder / METADATA_FILE}: not that of this version. Make the results again with "
                "`focaldiffusion infer --overwrite`."
            ) from None
        return saved

    @property
    def name(self) -> str:
        """Name of the stack."""
        return str(self.metadata["name"])

    @property
    def levels(self) -> Levels:
        """Black and white of the stack."""
        return Levels(**self.metadata["levels"])

    @cached_property
    def camera(self) -> Camera | None:
        """Optics at native size; None if the focal length is unknown."""
        return _camera(self.metadata["camera"])

    @cached_property
    def lens(self) -> LensFacts:
        """Facts of the lens."""
        return LensFacts(**self.metadata["lens"])

    @cached_property
    def depth_field(self) -> str | None:
        """Field of `Result` that the depth belongs to; None for results without depth."""
        stems = {field: self.folder / f"{stem}.npy" for field, stem in DEPTH_STEMS.items()}
        return next((field for field, path in stems.items() if path.exists()), None)

    @cached_property
    def depth(self) -> Plane:
        """Depth (H, W) float32, NaN where unknown.

        Raises:
            InputError: there is none.
        """
        if self.depth_field is None:
            raise InputError(
                f"{self.folder}: has no depth as .npy. Make the results without --image-only, and "
                "with npy among --depth-format."
            )
        path = self.folder / f"{DEPTH_STEMS[self.depth_field]}.npy"
        return np.asarray(read_npy_file(path), np.float32)

    @cached_property
    def depth_near(self) -> Plane | None:
        """Low end of the interval of the depth (H, W), mapped from disk; None if unknown."""
        return self._mapped("depth_near.npy")

    @cached_property
    def depth_far(self) -> Plane | None:
        """High end of the interval of the depth (H, W), mapped from disk; None if unknown."""
        return self._mapped("depth_far.npy")

    def _mapped(self, name: str) -> Plane | None:
        path = self.folder / name
        if not path.exists():
            return None
        with reading(path, "cannot be read as a .npy file"):
            mapped: Plane = np.load(path, mmap_mode="r")
        return mapped

    @cached_property
    def confidence(self) -> Plane:
        """Confidence (H, W) float32 in steps of 1/255."""
        return (read_png(self.folder / "confidence.png") / np.float32(255)).astype(np.float32)

    @cached_property
    def source_index(self) -> Integers:
        """Number of the main source frame of each pixel (H, W)."""
        return read_png(self.folder / "source_index.png")

    @cached_property
    def pixels(self) -> Integers:
        """Values of `all_in_focus.png`, (H, W, 3), uint8 or uint16."""
        stored = self._stored
        return np.repeat(stored[..., :1], 3, axis=2) if self.is_grey else stored[..., :3]

    @property
    def is_grey(self) -> bool:
        """Whether the image has one channel."""
        return self._stored.shape[2] < 3

    @property
    def alpha(self) -> Plane | None:
        """Alpha (H, W) of the image in [0, 1]; None if it is opaque."""
        if self._stored.shape[2] % 2:
            return None
        white = np.float32(np.iinfo(self._stored.dtype).max)
        return (self._stored[..., -1] / white).astype(np.float32)

    @cached_property
    def _stored(self) -> Integers:
        """The image as stored, (H, W, C)."""
        stored = read_png(self.folder / "all_in_focus.png")
        return stored if stored.ndim == 3 else stored[..., None]

    @cached_property
    def all_in_focus(self) -> Plane:
        """The image (H, W, 3), sRGB-encoded in [0, 1], normalised as `Result.all_in_focus`."""
        white = np.float32(np.iinfo(self.pixels.dtype).max)
        return self.levels.normalised(self.pixels / white)

    @cached_property
    def image_metadata(self) -> ImageMetadata:
        """ICC profile and EXIF of the image."""
        return read_metadata(self.folder / "all_in_focus.png")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the results [px]."""
        crop = self.metadata["alignment"]["crop"]
        return crop["height"], crop["width"]

    @property
    def blur_scale(self) -> float | None:
        """Blur diameter [px] per unit of the depth's axis at native size; None if unknown."""
        scale = self.metadata["blur_scale"]
        if scale is None:
            return None
        return float(scale * max(self.size) / max(self.metadata["working_size"]))

    @property
    def blur_scale_px_m(self) -> float | None:
        """See `Result.blur_scale_px_m`."""
        return self.blur_scale if self.depth_field == "depth_m" else None

    @property
    def focus_distances_m(self) -> list[float | None] | None:
        """Focus distance of each file of the stack; an infinite one is None in the list."""
        distances: list[float | None] | None = self.metadata["focus_distances_m"]
        return distances

    @cached_property
    def alignment(self) -> Alignment:
        """Alignment of the frames; `kept` has the numbers of `source_index`."""
        return Alignment.of_summary(self.metadata["alignment"], self._opened.frames.size)

    @cached_property
    def frames(self) -> FrameSource:
        """The native frames in the view of the results, those of `alignment.kept`.

        Raises:
            InputError: a file is missing or has changed its size.
        """
        frames = self.alignment.apply(self._opened.frames)
        if frames.size != self.size:
            raise InputError(
                f"{self.name}: its frames are no longer those of the results in {self.folder}. "
                "Make the results again."
            )
        return frames

    @cached_property
    def _opened(self) -> Any:
        files = [Path(file) for file in self.metadata["frames"]]
        if not files:
            raise InputError(f"{self.name}: made from arrays, so its frames cannot be read again.")
        # A multi-page TIFF holds all frames.
        source = files[0] if len(set(files)) == 1 else files
        return open_stack(source, order="given")  # type: ignore[arg-type]

    def frame_pixels(self, index: int) -> Integers:
        """A frame of `frames` in the values of `all_in_focus.png`, (H, W, 3).

        Raises:
            InputError: it cannot be read.
        """
        return self.levels.file_pixels(self.frames.read(index), self.frames.bit_depth)


def _camera(values: dict[str, Any] | None) -> Camera | None:
    if values is None:
        return None
    pairs = {name: tuple(values[name]) for name in ("image_size", "principal_point_px")}
    return Camera(**{**values, **pairs})
