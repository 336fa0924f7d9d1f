"""Rectangles of the image in which a blurred layer is visible."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.psf import fast_fft_size, filter_margin


@dataclass(frozen=True)
class _Span:
    """One axis of a patch.

    Attributes:
        seen: pixels of the image that the patch yields.
        source: pixels whose light reaches them.
        before: number of source pixels mirrored at the start of the image.
        after: number of source pixels mirrored at its end.
        inside: position of `seen` in the mirrored source.
    """

    seen: slice
    source: slice
    before: int
    after: int
    inside: slice

    @classmethod
    def around(cls, run: slice, spread: int, margin: int, side: int) -> _Span:
        """The span where pixels in `run` are seen, up to `spread` px away; lit from `margin` px."""
        first, last = max(run.start - spread, 0), min(run.stop + spread, side)
        # Even distances from both ends: the grid of a mirrored image is the mirrored grid.
        first, last = first - first % 2, last + (side - last) % 2
        margin = min(margin, side)  # beyond it the whole side is needed, see below
        extent = fast_fft_size(last - first + 2 * margin)
        margin = (extent - (last - first)) // 2  # so that mirrored images have mirrored grids
        start, stop = first - margin, first - margin + extent
        before, after = max(-start, 0), max(stop - side, 0)
        if max(before, after) > side or extent >= 2 * side:
            # The image, mirrored once, is periodic: any reach is possible.
            return cls(slice(first, last), slice(0, side), 0, side, slice(first, last))
        inside = slice(margin, margin + last - first)
        return cls(slice(first, last), slice(max(start, 0), min(stop, side)), before, after, inside)

    @property
    def extent(self) -> int:
        """Size of the periodic grid."""
        return self.before + self.source.stop - self.source.start + self.after

    def mirrored(self, planes: Tensor, dim: int) -> Tensor:
        """The source with its mirrored margins."""
        side = planes.shape[dim]
        left = planes.narrow(dim, 0, self.before).flip(dim)
        right = planes.narrow(dim, side - self.after, self.after).flip(dim)
        return torch.cat([left, planes, right], dim)


@dataclass(frozen=True)
class Patch:
    """A rectangle of an image in which a layer may show, and the periodic grid to blur it on."""

    rows: _Span
    columns: _Span

    def seen(self, planes: Tensor) -> Tensor:
        """View of the pixels (..., H, W) that the patch yields."""
        return planes[..., self.rows.seen, self.columns.seen]

    def source(self, planes: Tensor) -> Tensor:
        """View of the pixels (..., H, W) that light the patch."""
        return planes[..., self.rows.source, self.columns.source]

    def inside(self, grid: Tensor) -> Tensor:
        """View of the grid (..., P, Q) where the patch lies."""
        return grid[..., self.rows.inside, self.columns.inside]

    @property
    def grid_size(self) -> tuple[int, int]:
        """(P, Q) of the grid."""
        return self.rows.extent, self.columns.extent

    def unblurred(self, planes: Tensor) -> Tensor:
        """View of the source (..., h, w) where the patch lies."""
        rows, columns = (
            slice(span.seen.start - span.source.start, span.seen.stop - span.source.start)
            for span in (self.rows, self.columns)
        )
        return planes[..., rows, columns]

    def spectrum(self, planes: Tensor) -> Tensor:
        """Spectrum (..., P, Q) of the source (..., h, w), complex, mirrored at the image's ends."""
        return torch.fft.fft2(self.columns.mirrored(self.rows.mirrored(planes, -2), -1))


def find_patches(used: NDArray[np.bool_], reach_px: float, sight_px: float) -> Iterator[Patch]:
    """Disjoint patches of a layer.

    A slanted floor or wall fills a strip of each layer, an object a spot: together far less than
    one image per layer.

    Args:
        used: (H, W), the pixels of the layer.
        reach_px: largest reach of its blur.
        sight_px: how far beyond that it is visible, through the blur of nearer layers.
    """
    height, width = used.shape
    margin, spread = filter_margin(reach_px), filter_margin(reach_px + sight_px)
    for x in _runs(np.asarray(used.any(0)), 2 * spread):
        for y in _runs(np.asarray(used[:, x].any(1)), 2 * spread):
            rows = _Span.around(y, spread, margin, height)
            yield Patch(rows, _Span.around(x, spread, margin, width))


def _runs(used: NDArray[np.bool_], gap: int) -> list[slice]:
    """Intervals of the used pixels of a line, more than `gap` apart."""
    at = np.flatnonzero(used)
    parts = np.split(at, np.flatnonzero(np.diff(at) > gap) + 1) if len(at) else []
    return [slice(int(part[0]), int(part[-1]) + 1) for part in parts]
