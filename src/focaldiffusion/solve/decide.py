"""Re-rendering decides between surfaces, region by region.

Where texture is, all are equal. Where they differ, the frames may still tell them apart: what hides
what, and how blur spreads at outlines. A whole object has to move together, so the parts in which
two surfaces differ are decided first, then single segments. Last, segments around which the frames
are still reproduced badly try the levels that their outlines show.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from focaldiffusion.solve.consistency import Rerendering, Search, Trial, Window

Array = NDArray[Any]

_NOISE = 0.8  # share of the median squared residual that is subtracted, for noise must not decide
_BETTER = 0.9  # of a surface's excess, below which another is taken
_BAND_PX = 7  # around a region, whose blur shows there too
_SMALLEST_PX = 20  # pixels
# Levels of single segments, at the size of the rendering.
_SMALLEST_LEVELLED_PX = 40  # pixels
_MOST_TRIED = 24  # segments
_POOR = 1.5  # mean excess over the root of the median, from which a segment tries other levels
_ROUNDS = 2


@dataclass(frozen=True, eq=False)
class _Region:
    """A region and the band around it.

    Attributes:
        index: value of its pixels.
        window: rows and columns of the region and its band.
        around: bool, the region and its band within the window.
        inside: bool, the region within the window.
    """

    index: int
    window: tuple[slice, slice]
    around: Array
    inside: Array


def second_fits_better(
    rerendering: Rerendering, first: Tensor, second: Tensor, segments: Tensor, apart_dpt: float
) -> Search[Tensor]:
    """Search where the second of two surfaces reproduces the frames clearly better.

    Args:
        rerendering: the frames.
        first: (h, w) surface, on an axis that is larger where it is nearer.
        second: (h, w).
        segments: (h, w) integers.
        apart_dpt: least difference by which the surfaces count as different.

    Returns:
        (h, w) bool.
    """
    own, other, parts = (field.cpu().numpy() for field in (first, second, segments))
    height, width = own.shape

    def trial(surface: Array) -> Trial:
        return Trial(rerendering, rerendering.shrunk(torch.from_numpy(surface).to(first)))

    def enlarged(squared: Tensor) -> Array:
        return cv2.resize(squared.cpu().numpy(), (width, height), interpolation=cv2.INTER_LINEAR)

    apart = np.abs(other - own) > apart_dpt
    of_own, of_other = map(enlarged, (yield [trial(own), trial(other)]))
    typical = float(np.median(np.minimum(of_own, of_other)))

    taken = _better(
        _parts(other - own, apart), _excess(of_own, typical), _excess(of_other, typical)
    )
    if taken.any():
        (squared,) = yield [trial(np.where(taken, other, own))]
        of_own = enlarged(squared)
    regions = np.where(apart & ~taken, parts + 1, 0)
    taken |= _better(regions, _excess(of_own, typical), _excess(of_other, typical))
    return torch.from_numpy(taken).to(first.device)


def better_levels(
    rerendering: Rerendering,
    surface: Tensor,
    segments: Tensor,
    levels: Sequence[Array],
    apart_dpt: float,
) -> Search[Tensor]:
    """Search levels at which single segments reproduce the frames clearly better than a surface.

    The segments around which the residual sums up to most try their levels, each alone.

    Args:
        rerendering: the frames.
        surface: (h, w), on an axis that is larger where it is nearer.
        segments: (h, w) integers, S in number.
        levels: those to try for each of the S segments.
        apart_dpt: least difference from the surface by which a level is worth a try.

    Returns:
        (h, w), NaN where the surface stays.
    """
    rows, columns = rerendering.size
    small = cv2.resize(
        segments.cpu().numpy().astype(np.int32), (columns, rows), interpolation=cv2.INTER_NEAREST
    )
    now = rerendering.shrunk(surface).cpu().numpy()
    (whole,) = yield [Trial(rerendering, torch.from_numpy(now).to(surface))]
    squared = whole.cpu().numpy()
    typical = float(np.median(squared))
    regions = list(_regions(small + 1, _SMALLEST_LEVELLED_PX))
    found = np.full(len(levels), np.nan, np.float32)
    every = np.concatenate([now.ravel(), *levels])
    margin = rerendering.margin_px(torch.tensor([every.min(), every.max()]).to(surface))

    def excess(residual: Array, around: Array) -> float:
        return float(_excess(residual, typical)[around].mean())

    for _ in range(_ROUNDS):
        changed = False
        worst_first = []
        for region in regions:
            poor = excess(squared[region.window], region.around)
            if poor >= _POOR * typical**0.5:
                worst_first.append((-poor * region.around.sum(), region))
        left = [region for _, region in sorted(worst_first, key=itemgetter(0))[:_MOST_TRIED]]
        while left:
            # As if one after another: those that no earlier one can change are tried together.
            together = _independent(left, margin)
            left = [region for region in left if region not in together]
            tried = []
            for region in together:
                here = np.median(now[region.window][region.inside])
                tried += [
                    (region, level, _with_level(now, region, level))
                    for level in levels[region.index - 1]
                    if abs(level - here) > apart_dpt
                ]
            residuals = yield [
                Trial(rerendering, torch.from_numpy(one).to(surface), _wide(region.window, margin))
                for region, _, one in tried
            ]
            best: dict[int, tuple[float, _Region, float, Array]] = {}
            for (region, level, _), wide in zip(tried, residuals, strict=True):
                narrow = _without_margin(wide, region.window, margin)
                fit = float(excess(narrow, region.around))
                least = _BETTER * excess(squared[region.window], region.around)
                if fit < min(least, best.get(region.index, (np.inf,))[0]):
                    best[region.index] = fit, region, level, narrow
            for _, region, level, narrow in best.values():
                found[region.index - 1] = level
                now = _with_level(now, region, level)
                squared[region.window] = narrow
                changed = True
        if not changed:
            break
    return torch.from_numpy(found).to(surface)[segments]


def _excess(squared: Array, typical: float) -> Array:
    """Residual beyond noise. Its root, because lamps and hard outlines would outvote the rest."""
    return np.sqrt((squared - _NOISE * typical).clip(0))


def _with_level(surface: Array, region: _Region, level: float) -> Array:
    changed = surface.copy()
    changed[region.window][region.inside] = level
    return changed


def _independent(regions: Sequence[_Region], margin: int) -> list[_Region]:
    """Regions whose wide windows meet the window of no earlier region."""

    def meet(one: Window, other: Window) -> bool:
        return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))

    return [
        region
        for index, region in enumerate(regions)
        if not any(meet(_wide(region.window, margin), one.window) for one in regions[:index])
    ]


def _wide(window: Window, margin: int) -> Window:
    """A window and the blur that reaches into it."""
    rows, columns = (slice(max(0, one.start - margin), one.stop + margin) for one in window)
    return rows, columns


def _without_margin(squared: Tensor, window: Window, margin: int) -> Array:
    rows, columns = (
        slice(min(margin, one.start), min(margin, one.start) + one.stop - one.start)
        for one in window
    )
    return squared[rows, columns].cpu().numpy()


def _parts(difference: Array, apart: Array) -> Array:
    """(h, w) connected parts in which one surface lies before the other, from 1; 0 elsewhere."""
    _, before = cv2.connectedComponents((apart & (difference > 0)).astype(np.uint8), connectivity=4)
    _, behind = cv2.connectedComponents((apart & (difference < 0)).astype(np.uint8), connectivity=4)
    return np.where(behind > 0, behind + before.max(), before)


def _better(regions: Array, of_own: Array, of_other: Array) -> Array:
    """(h, w) bool: the regions, from 1, around which the other residual is lower."""
    result = np.zeros(regions.shape, bool)
    for region in _regions(regions, _SMALLEST_PX):
        own, other = (field[region.window][region.around].mean() for field in (of_own, of_other))
        if other < _BETTER * own:
            result[region.window] |= region.inside
    return result


def _regions(indices: Array, smallest_px: int) -> Iterator[_Region]:
    """The regions of an image of indices, from 1, that have this number of pixels."""
    kernel = np.ones((2 * _BAND_PX + 1,) * 2, np.uint8)
    pixels = indices.ravel().argsort(kind="stable")
    counts = np.bincount(indices.ravel())
    for index, ours in enumerate(np.split(pixels, counts.cumsum()[:-1])):
        if index == 0 or len(ours) < smallest_px:
            continue
        y, x = np.divmod(ours, indices.shape[1])
        window = (_span(y, indices.shape[0]), _span(x, indices.shape[1]))
        inside = indices[window] == index
        yield _Region(index, window, cv2.dilate(inside.astype(np.uint8), kernel) > 0, inside)


def _span(pixels: Array, length: int) -> slice:
    """Rows or columns of some pixels and the band around them."""
    return slice(max(0, pixels.min() - _BAND_PX), min(length, pixels.max() + _BAND_PX + 1))
