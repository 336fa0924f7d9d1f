"""Where a layer shows once it is blurred: the rectangles of the image to work in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.psf import fast_fft_size, filter_margin


@dataclass(frozen=True)
class Span:
    """One axis of a patch.

    Attributes:
        seen: the pixels of the image that the patch yields.
        source: those whose light gets there.
        before: how many of the first of these are mirrored before them, where the image begins.
        after: the same where it ends.
        inside: where `seen` lies in the mirrored source.
    """

    seen: slice
    source: slice
    before: int
    after: int
    inside: slice

    @classmethod
    def around(cls, first: int, last: int, margin: int, side: int) -> Span:
        """For the pixels `first` to `last` of a `side`, lit from up to `margin` px away."""
        margin = min(margin, side)  # from where on all of the side is needed, see below
        extent = fast_fft_size(last - first + 2 * margin)
        margin = (extent - (last - first)) // 2  # so that mirrored images have mirrored grids
        start, stop = first - margin, first - margin + extent
        before, after = max(-start, 0), max(stop - side, 0)
        if max(before, after) > side or extent >= 2 * side:
            # The image, mirrored once, is periodic by itself: no reach is too large.
            return cls(slice(first, last), slice(0, side), 0, side, slice(first, last))
        inside = slice(margin, margin + last - first)
        return cls(slice(first, last), slice(max(start, 0), min(stop, side)), before, after, inside)

    @property
    def extent(self) -> int:
        """Of the periodic grid."""
        return self.before + self.source.stop - self.source.start + self.after

    def mirrored(self, planes: Tensor, dim: int) -> Tensor:
        """The source with what is mirrored on either side."""
        side = planes.shape[dim]
        left = planes.narrow(dim, 0, self.before).flip(dim)
        right = planes.narrow(dim, side - self.after, self.after).flip(dim)
        return torch.cat([left, planes, right], dim)


@dataclass(frozen=True)
class Patch:
    """A rectangle of an image in which a layer may show, and the periodic grid it is blurred on."""

    rows: Span
    columns: Span

    def seen(self, planes: Tensor) -> Tensor:
        """Of (..., H, W), a view of what the patch yields."""
        return planes[..., self.rows.seen, self.columns.seen]

    def source(self, planes: Tensor) -> Tensor:
        """Of (..., H, W), a view of what its light comes from."""
        return planes[..., self.rows.source, self.columns.source]

    def inside(self, grid: Tensor) -> Tensor:
        """Of the grid (..., P, Q), a view of what the patch yields."""
        return grid[..., self.rows.inside, self.columns.inside]

    @property
    def grid_size(self) -> tuple[int, int]:
        """(P, Q) of the grid."""
        return self.rows.extent, self.columns.extent

    def unblurred(self, planes: Tensor) -> Tensor:
        """Of the source (..., h, w) what the patch sees."""
        rows, columns = (
            slice(span.seen.start - span.source.start, span.seen.stop - span.source.start)
            for span in (self.rows, self.columns)
        )
        return planes[..., rows, columns]

    def spectrum(self, planes: Tensor) -> Tensor:
        """Spectrum (..., P, Q) of the source (..., h, w), complex, mirrored at the image's ends."""
        return torch.fft.fft2(self.columns.mirrored(self.rows.mirrored(planes, -2), -1))


def find_patches(used: NDArray[np.bool_], reach_px: float, sight_px: float) -> Iterator[Patch]:
    """The patches of a layer; none overlap.

    A floor or a wall at a slant fills a strip per layer, an object a spot: together far less than
    an image per layer.

    Args:
        used: (H, W), the pixels of the layer.
        reach_px: how far its blur reaches at most.
        sight_px: how far beyond that it may be seen, behind the blur of nearer layers.
    """
    height, width = used.shape
    margin, spread = filter_margin(reach_px), filter_margin(reach_px + sight_px)
    for x in _runs(np.asarray(used.any(0)), 2 * spread):
        for y in _runs(np.asarray(used[:, x].any(1)), 2 * spread):
            rows, columns = (
                _around(run, spread, margin, side) for run, side in ((y, height), (x, width))
            )
            yield Patch(rows, columns)


def _around(run: slice, spread: int, margin: int, side: int) -> Span:
    """Where a layer shows that has its own pixels in a run."""
    first, last = max(run.start - spread, 0), min(run.stop + spread, side)
    # Even from both ends: then the grid of a mirrored image is the mirrored grid.
    return Span.around(first - first % 2, last + (side - last) % 2, margin, side)


def _runs(used: NDArray[np.bool_], gap: int) -> list[slice]:
    """The intervals that hold what is used of a line, more than `gap` apart."""
    at = np.flatnonzero(used)
    parts = np.split(at, np.flatnonzero(np.diff(at) > gap) + 1) if len(at) else []
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
