"""A prior that is given as numbers: a file of any other tool, or a `Prior` in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.align.alignment import Crop
from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import looks_like_millimetres, read_depth_mm, read_values
from focaldiffusion.prior import Prior, PriorKind

FILE_SUFFIXES = (".npy", ".npz", ".png", ".exr", ".pfm", ".tif", ".tiff")
"""Kinds of files that hold a prior."""


@dataclass(frozen=True, eq=False)
class GivenPrior:
    """The source of a prior that is there already.

    Attributes:
        prior: at the size of the image, or of the same aspect.
    """

    prior: Prior

    @property
    def name(self) -> str:
        """See `PriorSource`."""
        return self.prior.name

    def cropped(self, frame_size: tuple[int, int], crop: Crop) -> GivenPrior:
        """The source for frames that were cropped to their common area.

        A prior of the frames' size belongs to the uncropped reference frame, and is cropped with
        it; one of the crop's size is in register already.

        Args:
            frame_size: (height, width) of the frames before the crop.
            crop: common area of the aligned frames.

        Raises:
            InputError: it has another aspect, or may be a smaller version of either.
        """
        size = self.prior.size
        if size == frame_size != crop.size:
            window = np.s_[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
            return GivenPrior(replace(self.prior, values=self.prior.values[window]))
        if crop.size not in (size, frame_size) and _same_aspect(size, frame_size):
            raise InputError(
                f"{self.name}: {_shown(size)} pixels, while the frames have {_shown(frame_size)} "
                f"and moved, which leaves {_shown(crop.size)} in common. Give the prior in one of "
                "these two sizes."
            )
        self._check_aspect(crop.size)
        return self

    def __call__(self, image: Tensor) -> Prior:
        """See `PriorSource`."""
        size = image.shape[-2], image.shape[-1]
        self._check_aspect(size)
        values = _resampled(self.prior.values.to(image.device), size)
        return replace(self.prior, values=values)

    def _check_aspect(self, size: tuple[int, int]) -> None:
        if not _same_aspect(self.prior.size, size):
            raise InputError(
                f"{self.name}: {_shown(self.prior.size)} pixels; expected the aspect of the "
                f"all-in-focus image, {_shown(size)}. Make the prior from the all_in_focus.png of "
                "a run without one, or at the size of the frames."
            )


def read_prior(path: Path, kind: PriorKind | None) -> GivenPrior:
    """Read a prior from a file of one channel, (height, width).

    Metric depth is in metres, in a PNG in millimetres (16 bits, 0 where unknown). NaN is unknown,
    and so is what is not finite.

    Args:
        path: .npy, .npz, .png, .exr, .pfm or .tif.
        kind: scale of its values, which no file states.

    Raises:
        InputError: no kind, no such file, another kind of file, or values that cannot be metres.
    """
    if kind is None:
        raise InputError(
            f"{path}: a file does not say whether it holds depth or inverse depth. Give its kind "
            f"with --prior-kind (kind= in Python): one of {', '.join(PriorKind)}."
        )
    is_png = path.suffix.lower() == ".png"
    if kind is not PriorKind.METRIC_DEPTH:
        values = read_values(path)
    elif is_png:
        values = read_depth_mm(path)
    else:
        values = read_values(path)
        if looks_like_millimetres(values):
            raise InputError(
                f"{path}: half of its depth is beyond 100; expected metres. Divide millimetres by "
                "1000, or give --prior-kind affine-depth."
            )
    return GivenPrior(Prior(values, kind, str(path)).checked())


def _shown(size: tuple[int, int]) -> str:
    """A size (height, width) as people write it."""
    return f"{size[1]}x{size[0]}"


def _same_aspect(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes are one rectangle, each side rounded to whole pixels."""
    (height, width), (rows, columns) = one, other
    # Sides h = a·s, w = b·s with errors of half a pixel each.
    return abs(height * columns - width * rows) <= (height + width + rows + columns) / 2


def _resampled(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Values (H, W) at another size: nearest when it shrinks, as averages of two surfaces lie on
    neither; linear between known values when it grows, as steps of single pixels have no slope."""
    if tuple(values.shape) == size:
        return values
    if values.shape[0] > size[0]:
        return functional.interpolate(values[None, None], size=size, mode="nearest-exact")[0, 0]
    known = values.isfinite()
    both = torch.stack([values.masked_fill(~known, 0), known.to(values)])[None]
    total, share = functional.interpolate(both, size=size, mode="bilinear")[0]
    return torch.where(share >= 0.5, total / share, torch.nan)
