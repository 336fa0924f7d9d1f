"""A tile of the fused image: the fine levels of its pyramids, in buffers that fit a cache.

A tile's pyramid equals the same part of the whole image's, because its windows reach as far beyond
the tile as the filters of all its levels do. Coarser levels are small, and blended whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from focaldiffusion.frames import Frame, Pixels, Window, looked_up, rounded, shares_of_white
from focaldiffusion.fusion.upsample import Enlarged

Image = NDArray[Any]  # float32; the return types of OpenCV leave the precision open

TILE_PX = 1024
_STRIP_PIXELS = 1 << 17  # of a level, blended at a time
_ENERGY_REACH_PX = 4  # of the Gaussian that averages the energy of detail
_SHARP_WEIGHT = 0.1  # below it, a difference of a hundredth between resamplings is invisible
_WEIGHT_FLOOR = 1e-6  # keeps a pixel defined where every frame's weight has faded
_HIDDEN_FLOOR = 1e-12  # the same where every frame is transparent


@dataclass(frozen=True)
class Span:
    """Pixels from `start` to before `stop`, along one axis of one level."""

    start: int
    stop: int

    def within(self, outer: Span) -> slice:
        """The same pixels, counted from the start of an outer span."""
        return slice(self.start - outer.start, self.stop - outer.start)

    def sources(self, length: int) -> Span:
        """Pixels of the next coarser level, of a length, from which `pyrUp` makes these."""
        return Span(max(0, self.start // 2 - 1), min(length, (self.stop + 1) // 2 + 1))

    def around(self, reach: int, length: int) -> Span:
        """These pixels and those within reach; starts even, as `pyrDown` needs it."""
        start = max(0, self.start - reach)
        return Span(start - start % 2, min(length, self.stop + reach))

    def parts(self, length: int) -> Iterator[Span]:
        """These pixels in parts of a length; the last one may be shorter."""
        for start in range(self.start, self.stop, length):
            yield Span(start, min(start + length, self.stop))

    def joined(self, other: Span) -> Span:
        """From the first pixel of both to the last."""
        return Span(min(self.start, other.start), max(self.stop, other.stop))


class Side:
    """Pixels that a tile needs along one axis, level by level.

    Attributes:
        lengths: of the whole image.
        blended: pixels that are blended: at level 0 the tile itself.
        details: pixels whose detail decides on the blending; of the fine levels.
        needed: pixels of the Gaussian pyramid from which all these are made.
        coarse: pixels of the coarsest level that belong to this tile alone.
    """

    def __init__(self, start: int, stop: int, length: int, levels: int) -> None:
        """The side from `start`, a multiple of 2^levels, to `stop`, of an image of a length."""
        self.lengths = [length]
        self.blended = [Span(start, stop)]
        for level in range(levels):
            self.lengths.append((self.lengths[level] + 1) // 2)
            self.blended.append(self.blended[level].sources(self.lengths[level + 1]))
        self.details = [
            span.around(_ENERGY_REACH_PX, size)
            for span, size in zip(self.blended[:-1], self.lengths, strict=False)
        ]
        end = self.lengths[levels] if stop == length else stop >> levels
        self.coarse = Span(start >> levels, end)
        needed = [self.coarse.joined(self.details[-1].sources(self.lengths[levels]))]
        for level in reversed(range(levels)):
            size = self.lengths[level]
            wide = Span(2 * needed[0].start, 2 * needed[0].stop).around(2, size)
            wide = wide.joined(self.details[level])
            if level > 0:
                wide = wide.joined(self.details[level - 1].sources(size))
            needed.insert(0, wide.around(0, size))
        self.needed = needed


@dataclass(frozen=True)
class Area:
    """Rows and columns of one level."""

    rows: Span
    columns: Span

    @property
    def window(self) -> Window:
        """The area in the whole level."""
        return slice(self.rows.start, self.rows.stop), slice(self.columns.start, self.columns.stop)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def within(self, outer: Area) -> Window:
        """The area, counted from the start of an outer one."""
        return self.rows.within(outer.rows), self.columns.within(outer.columns)


@dataclass(frozen=True, eq=False)
class Added:
    """Share of a frame in the coarse levels, and the pixels that mainly show it.

    Attributes:
        image: (h, w, 3) of the coarsest level of the tile.
        weight: (h, w) of the same.
        is_main: of the tile's pixels, where the frame has the largest weight yet; None for nowhere.
    """

    image: Image
    weight: Image
    is_main: NDArray[np.bool_] | None


class Tile:
    """A tile that frames are added to, one after the other.

    Attributes:
        area: the tile in the image.
        needed: the tile and what its pyramid needs around it, in the image.
        coarse: the tile in the coarsest level.
    """

    def __init__(self, rows: Side, columns: Side, levels: int) -> None:
        """An empty tile of a number of fine levels."""

        def areas(name: str) -> list[Area]:
            both = zip(getattr(rows, name), getattr(columns, name), strict=True)
            return [Area(*spans) for spans in both]

        self.levels = levels
        self._sizes = list(zip(rows.lengths, columns.lengths, strict=True))
        self._blended, self._details, self._needed = map(areas, ("blended", "details", "needed"))
        self.area, self.needed = self._blended[0], self._needed[0]
        self.coarse = Area(rows.coarse, columns.coarse)
        self._sums: list[tuple[Image, Image]] = []

    def open(self, bounds: tuple[Pixels, Pixels]) -> None:
        """Make room for sums.

        Args:
            bounds: lowest and highest value of the frames at each pixel of the image (H, W, 3), so
                far; the tile widens its part.
        """
        self._bounds = bounds
        self._sums = [
            (np.zeros((*area.size, 3), np.float32), np.zeros(area.size, np.float32))
            for area in self._blended[: self.levels]
        ]
        self._weight = np.full(self.area.size, -1, np.float32)

    def add(
        self,
        frame: Frame,
        weights: Enlarged,
        alpha: Image | None,
        *,
        noise_std: float,
        is_optional: bool,
    ) -> Added:
        """Add a frame.

        Args:
            frame: the frame.
            weights: of its pixels, before alpha.
            alpha: (H, W) in [0, 1]; None for an opaque frame.
            noise_std: sRGB; weaker detail does not count as sharper.
            is_optional: leave a frame without weight out of the blend.
        """
        weight = weights.part(self.needed.window)
        counts = not is_optional or bool(weight.max() > 0)
        # What lies farther off reaches the tile blurred.
        sharp, near = np.zeros(weight.shape, bool), self._details[0].within(self.needed)
        np.greater(weight[near], _SHARP_WEIGHT, out=sharp[near])
        image = frame.encoded(self.needed.window, sharp)
        alpha = None if alpha is None else alpha[self.needed.window]
        inner = self.area.within(self.needed)
        seen: Any = True if alpha is None else (alpha[inner] > 0)[..., None]
        lowest, highest = (bound[self.area.window] for bound in self._bounds)
        pixels = rounded(image[inner], lowest.dtype)
        np.minimum(lowest, pixels, out=lowest, where=seen)
        np.maximum(highest, pixels, out=highest, where=seen)
        better = None
        if counts:
            if alpha is not None:
                weight = weight * alpha
            better = weight[inner] > self._weight
            if alpha is not None:
                better &= alpha[inner] > 0
            np.copyto(self._weight, weight[inner], where=better)
            floor = _WEIGHT_FLOOR if alpha is None else _WEIGHT_FLOOR * alpha + _HIDDEN_FLOOR
            weight = weight + floor
        for level in range(self.levels):
            outer, needed = self._needed[level], self._needed[level + 1]
            smaller = _halved(image, outer, needed)
            if counts:
                self._blend(level, image, smaller, weight, noise_std * 0.5**level)
                weight = _halved(weight, outer, needed)
            image = smaller
        window = self.coarse.within(self._needed[-1])
        if not counts:
            return Added(image[window], np.zeros(self.coarse.size, np.float32), None)
        return Added(image[window], weight[window], better)

    def _blend(
        self, level: int, image: Image, smaller: Image, weight: Image, noise_std: float
    ) -> None:
        """Add the detail of one level, strip by strip: temporaries stay in the cache."""
        outer, details, blended = self._needed[level], self._details[level], self._blended[level]
        sums, total = self._sums[level]
        for rows in blended.rows.parts(max(1, _STRIP_PIXELS // details.size[1])):
            strip = Area(rows, blended.columns)
            wide = Area(rows.around(_ENERGY_REACH_PX, self._sizes[level][0]), details.columns)
            coarse = self._doubled(smaller, self._needed[level + 1], level, wide)
            detail = cv2.subtract(image[wide.within(outer)], coarse)
            inner, here = strip.within(wide), strip.within(blended)
            share = weight[strip.within(outer)] * detail_energy(detail, noise_std)[inner]
            cv2.accumulateProduct(detail[inner], cv2.merge([share, share, share]), sums[here])
            total[here] += share

    def _doubled(self, smaller: Image, area: Area, level: int, wanted: Area) -> Image:
        """The wanted part of a level, enlarged from an area of the next coarser one."""
        sources, (rows, columns) = self._sources(wanted, level), self._sizes[level]
        height, width = (
            min(2 * (span.stop - span.start), length - 2 * span.start)
            for span, length in ((sources.rows, rows), (sources.columns, columns))
        )
        enlarged = cv2.pyrUp(smaller[sources.within(area)], dstsize=(width, height))
        start = Area(
            Span(2 * sources.rows.start, 0),
            Span(2 * sources.columns.start, 0),
        )
        return enlarged[wanted.within(start)]

    def _sources(self, area: Area, level: int) -> Area:
        rows, columns = self._sizes[level + 1]
        return Area(area.rows.sources(rows), area.columns.sources(columns))

    def close(self, result: Image) -> None:
        """Write the sum of the fine levels into the result (H, W, 3), and free their memory."""
        area, image = self._blended[-1], np.zeros((*self._blended[-1].size, 3), np.float32)
        for level in reversed(range(self.levels)):
            sums, total = self._sums.pop()
            cv2.divide(sums, cv2.merge([total, total, total]), dst=sums)
            sums += self._doubled(image, area, level, self._blended[level])
            area, image = self._blended[level], sums
        result[self.area.window] = image
        del self._weight

    def finish(self, coarse: Image, result: Image) -> None:
        """Add the whole coarsest level of the result to the tile, and clamp it to the bounds."""
        area = self._blended[-1]
        image = coarse[area.window]
        for level in reversed(range(self.levels)):
            image = self._doubled(image, area, level, self._blended[level])
            area = self._blended[level]
        part = result[self.area.window]
        part += image
        bounds = [bound[self.area.window] for bound in self._bounds]
        lowest, highest = (looked_up(bound, shares_of_white(bound.dtype)) for bound in bounds)
        np.clip(part, lowest, highest, out=part)


def tiles_of(size: tuple[int, int], levels: int) -> list[Tile]:
    """The tiles of an image of (height, width), row by row, with a number of fine levels."""
    rows, columns = (
        [
            Side(start, min(start + TILE_PX, length), length, levels)
            for start in range(0, length, TILE_PX)
        ]
        for length in size
    )
    return [Tile(row, column, levels) for row in rows for column in columns]


def detail_energy(detail: Image, noise_std: float) -> Image:
    """Local energy (h, w) of detail (h, w, 3), at least that of noise."""
    squares = cv2.transform(cv2.multiply(detail, detail), np.ones((1, 3), np.float32))
    energy = cv2.GaussianBlur(squares, (0, 0), 1.0)
    energy += np.float32(3 * noise_std**2)
    return energy


def _halved(image: Image, area: Area, wanted: Area) -> Image:
    """The wanted part of the next coarser level."""
    start = Area(Span(area.rows.start // 2, 0), Span(area.columns.start // 2, 0))
    return cv2.pyrDown(image)[wanted.within(start)]
