"""Segments: parts of an image within which nothing looks like the outline of an object.

Watershed of the gradient, then segments are joined across their weakest boundaries first. A
boundary counts by its mean contrast, so a gap in an outline does not open it, and shading does not
cut a round object.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32 or integers, as stated

_SMOOTHING_PX = 0.7  # before differences are taken
_LEAST_CONTRAST = 0.012  # sRGB per pixel; joined below it, and below three deviations of noise
_NOISE_DEVIATIONS = 3.0
_SMALLEST_PX = 40  # pixels
_FLAT = 0.004  # gradient below which a pixel is the seed of a segment
_LIKE = 0.05  # sRGB; most that the colours on both sides of an occluder may differ
_WIDEST_PX = 60  # occluder behind which a surface is looked for again ...
_MOST_BETWEEN = 6  # ... and most segments that it may consist of
_SHORTEST_PX = 5  # stretch of a segment along a row or column that has a colour


@dataclass(frozen=True, eq=False)
class Cracks:
    """Borders between neighbouring pixels of different segments, C in number.

    Attributes:
        first: (C, 2) row and column of the upper or left pixel.
        second: (C, 2) of the lower or right one.
    """

    first: Array
    second: Array

    @classmethod
    def of(cls, segments: Array) -> Cracks:
        """All cracks of an image of segments (H, W)."""
        down = np.argwhere(segments[:-1] != segments[1:])
        across = np.argwhere(segments[:, :-1] != segments[:, 1:])
        return cls(
            np.concatenate([down, across]),
            np.concatenate([down + np.array([1, 0]), across + np.array([0, 1])]),
        )

    def contrast(self, image: Array) -> Array:
        """(C,) difference of colour (H, W, 3) between the two sides."""
        # A gradient would count the outline of an object where the crack runs up to it, too.
        step = image[tuple(self.first.T)] - image[tuple(self.second.T)]
        return np.sqrt(np.square(step).sum(1))


def find_segments(guide: Array, noise_std: float) -> Array:
    """Segments of an image.

    Args:
        guide: (H, W, 3) sRGB.
        noise_std: standard deviation of its noise.

    Returns:
        (H, W) index of each pixel's segment, from 0 without gaps.
    """
    smooth = cv2.GaussianBlur(guide, (0, 0), _SMOOTHING_PX)
    least_contrast = max(_NOISE_DEVIATIONS * noise_std, _LEAST_CONTRAST)
    return _joined(_basins(colour_gradient(smooth)), smooth, least_contrast)


def relabelled(segments: Array, same: Array) -> Array:
    """Segments (H, W) after those of one entry in `same` (S,) are taken as one, without gaps."""
    return np.unique(same[segments], return_inverse=True)[1].reshape(segments.shape)


def facing_pairs(segments: Array, guide: Array) -> tuple[Array, Array, Array]:
    """Stretches of like colour on both sides of something narrow, along rows and columns.

    A wall behind a fence falls into many segments; these pairs tell that they may be one surface.

    Args:
        segments: (H, W).
        guide: (H, W, 3) sRGB.

    Returns:
        Pixel (P, 2) before, pixel (P, 2) behind, and likeness (P,) in [0, 1] of each pair.
    """
    rows = _pairs_along_rows(segments, guide)
    columns = _pairs_along_rows(segments.T, guide.transpose(1, 0, 2))
    swapped = (columns[0][:, ::-1], columns[1][:, ::-1], columns[2])
    before, behind, likeness = (np.concatenate(both) for both in zip(rows, swapped, strict=True))
    return before, behind, likeness


def colour_gradient(image: Array) -> Array:
    """Largest change of colour (H, W) per pixel of an image (H, W, 3), see Di Zenzo 1986."""
    down, across = np.gradient(image, axis=(0, 1))
    yy, xx, yx = (down**2).sum(2), (across**2).sum(2), (down * across).sum(2)
    return np.sqrt((xx + yy + np.sqrt((xx - yy) ** 2 + 4 * yx**2)) / 2).astype(np.float32)


def _basins(gradient: Array) -> Array:
    """(H, W) catchment basins of the gradient, from 0 without gaps.

    Each pixel follows the steepest descent, so borders lie on the crack between the two pixels of
    an outline.
    """
    smooth = cv2.GaussianBlur(gradient, (0, 0), 1.0)
    lowest = cv2.erode(smooth, np.ones((5, 5), np.uint8))
    seeds = (smooth <= lowest + 1e-4) | (smooth < _FLAT)
    _, markers = cv2.connectedComponents(seeds.astype(np.uint8), connectivity=4)
    here = np.arange(smooth.size).reshape(smooth.shape)
    below = _lowest(smooth, 1)
    below = np.where(below == here, _lowest(smooth, 2), below)  # over the rim of a small hollow
    below[seeds] = here[seeds]
    while (below != below.flat[below]).any():
        below = below.flat[below]
    return markers.flat[below] - 1


def _lowest(field: Array, reach_px: int) -> Array:
    """(H, W) flat index of the lowest pixel near each; at a reach of 1, of its four neighbours."""
    height, width = field.shape
    padded = np.pad(field, reach_px, constant_values=np.inf)
    offsets = range(-reach_px, reach_px + 1)
    steps = [(0, 0)] + [
        (down, right)
        for down in offsets
        for right in offsets
        if reach_px > 1 or abs(down) + abs(right) == 1
    ]
    values = [
        padded[reach_px + down :, reach_px + right :][:height, :width] for down, right in steps
    ]
    flat = np.array([down * width + right for down, right in steps])
    return np.arange(field.size).reshape(field.shape) + flat[np.argmin(values, axis=0)]


def _joined(segments: Array, image: Array, least_contrast: float) -> Array:
    """Segments joined across boundaries below a contrast, and small ones, weakest first."""
    cracks = Cracks.of(segments)
    count = int(segments.max()) + 1
    sides = np.sort([segments[tuple(cracks.first.T)], segments[tuple(cracks.second.T)]], axis=0)
    pairs, index = np.unique(sides[0].astype(np.int64) * count + sides[1], return_inverse=True)
    totals = np.bincount(index, cracks.contrast(image))
    # Total contrast and length of the boundary of a segment with each of its neighbours.
    borders: list[dict[int, tuple[float, int]]] = [{} for _ in range(count)]
    for pair, total, length in zip(
        pairs.tolist(), totals.tolist(), np.bincount(index).tolist(), strict=True
    ):
        one, other = divmod(pair, count)
        borders[one][other] = borders[other][one] = (total, length)
    sizes = np.bincount(segments.ravel(), minlength=count).tolist()
    same = np.arange(count)
    queue = [
        (total / length, one, other)
        for one in range(count)
        for other, (total, length) in borders[one].items()
        if one < other
    ]
    heapq.heapify(queue)
    while queue:
        contrast, one, other = heapq.heappop(queue)
        total, length = borders[one].get(other, (np.inf, 1))
        if contrast != total / length:  # joined or changed since it was queued
            continue
        if contrast >= least_contrast and min(sizes[one], sizes[other]) >= _SMALLEST_PX:
            continue
        if len(borders[one]) < len(borders[other]):
            one, other = other, one
        del borders[one][other], borders[other][one]
        for neighbour, (total, length) in borders[other].items():
            before = borders[one].get(neighbour, (0.0, 0))
            joint = (total + before[0], length + before[1])
            borders[one][neighbour] = borders[neighbour][one] = joint
            del borders[neighbour][other]
            queued = (joint[0] / joint[1], min(one, neighbour), max(one, neighbour))
            heapq.heappush(queue, queued)
        borders[other] = {}
        sizes[one] += sizes[other]
        same[other] = one
    while (same != same[same]).any():
        same = same[same]
    return relabelled(segments, same)


def _pairs_along_rows(segments: Array, guide: Array) -> tuple[Array, Array, Array]:
    height, width = segments.shape
    starts = np.ones((height, width), bool)
    starts[:, 1:] = segments[:, 1:] != segments[:, :-1]
    y, first = np.nonzero(starts)
    last = np.append(first[1:], 0) - 1
    last[np.append(y[1:] != y[:-1], True)] = width - 1
    segment, long_enough = segments[y, first], last - first + 1 >= _SHORTEST_PX
    middle = (first + last) // 2
    # Colours are taken a little inside, off the blur of the outline.
    left, right = np.minimum(first + 3, middle), np.maximum(last - 3, middle)
    colour_left, colour_right = guide[y, left], guide[y, right]
    found, taken = [], np.zeros(len(y), bool)
    for between in range(2, _MOST_BETWEEN + 1):
        one = np.arange(len(y) - between)
        other = one + between
        unlike = np.square(colour_right[one] - colour_left[other]).sum(1)
        facing = (
            (y[one] == y[other])
            & (segment[one] != segment[other])
            & (first[other] - last[one] <= _WIDEST_PX)
            & (unlike < _LIKE**2)
            & (long_enough[one] & long_enough[other])
            & ~taken[one]
        )
        one, other = one[facing], other[facing]
        taken[one] = True
        found.append(
            (
                np.stack([y[one], right[one]], 1),
                np.stack([y[other], left[other]], 1),
                1 - unlike[facing] / _LIKE**2,
            )
        )
    before, behind, likeness = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return before, behind, likeness
