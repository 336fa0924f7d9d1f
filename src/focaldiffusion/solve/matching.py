"""Semi-global matching: assigns each pixel to a surface.

Each pixel has a cost for every label and passes it on along straight paths in eight directions.
Keeping a label along a path is free, a step to the next hypothesis is cheap, and a jump to any
other label costs a price that falls across image edges, where depth may jump (Hirschmüller, Stereo
Processing by Semiglobal Matching and Mutual Information, 2008). So textured pixels decide for the
bare ones around them, up to an edge. A label is either the constant depth of a hypothesis or a
plane of the scene, so evidence travels along a slanted plane as freely as along a level one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import between_hypotheses
from focaldiffusion.progress import Meter
from focaldiffusion.solve.posterior import POSTERIOR_STRENGTH
from focaldiffusion.threads import in_parallel

DIRECTIONS = 8
EDGE_STD = 0.03
"""sRGB difference of neighbours at which a jump costs e times less."""

_STEP_PRICE = 0.1 * POSTERIOR_STRENGTH  # to the next hypothesis: slanted surfaces
_JUMP_PRICE = 3.0 * POSTERIOR_STRENGTH  # to any other, between pixels of one colour
_FLOATING_PRICE = 0.05  # for any label but a supporting plane, where a block has no evidence
# Within this distance of an outline of the guide, a jump to a farther surface costs e times less
# for each such sRGB difference.
_OUTLINE_PX = 2
_OUTLINE_STD = 0.06
# Arithmetic is several times faster than comparing and selecting. Powers of two do not round.
_APART = 2.0**60  # makes any difference of depth larger than any price
_WORSE = 2.0**100  # makes any difference of cost larger than any depth times `_APART`


@dataclass(frozen=True, eq=False)
class Labels:
    """Surfaces that a pixel may belong to: the depth of a hypothesis, or a plane of the scene.

    Attributes:
        hypotheses: (K,) ascending; the first K labels.
        planes: (P, H, W) depth of the planes at each pixel, in the unit of the hypotheses; the
            remaining P labels.
        background: farthest depth that cheap jumps lead to, see `aggregate`; None on an axis that
            does not distinguish near from far.
        beneath: number of the last planes that support the scene (floors, walls): blocks without
            evidence prefer them.
    """

    hypotheses: Tensor
    planes: Tensor
    background: float | None = None
    beneath: int = 0

    def cost(self, cost: Tensor) -> Tensor:
        """Costs of all labels (K + P, H, W), interpolated from those of the hypotheses (K, H, W).

        Outside the range of the hypotheses, a plane costs a jump.
        """
        planes = between_hypotheses(cost, self.hypotheses, self.planes)
        outside = (self.planes < self.hypotheses[0]) | (self.planes > self.hypotheses[-1])
        costs = torch.cat([cost, planes.masked_fill(outside, _JUMP_PRICE)])
        if self.beneath:
            # Smallest over largest probability of a hypothesis: 1 where a block has no evidence.
            silence = torch.exp(cost.amin(0) - cost.amax(0))
            costs[: -self.beneath] += _FLOATING_PRICE * silence
        return costs

    def coordinate(self, index: Tensor) -> Tensor:
        """Depth at label indices (..., H, W) of whole images."""
        count = len(self.hypotheses)
        level = self.hypotheses[index.clamp_max(count - 1).long()]
        if not len(self.planes):
            return level
        of_plane = (index - count).clamp_min(0).long().reshape(-1, *index.shape[-2:])
        return torch.where(index < count, level, self.planes.gather(0, of_plane).view_as(level))


@dataclass(frozen=True)
class _Way:
    """Directions that pass the rows of an image in the same order, and so advance together.

    Attributes:
        transposed: the rows are the columns of the image.
        upwards: from the last row to the first.
        asides: columns by which the paths of each direction move with each row: 1, 0, -1, or 0.
    """

    transposed: bool
    upwards: bool
    asides: tuple[int, ...]


_WAYS = (
    _Way(transposed=False, upwards=False, asides=(1, 0, -1)),
    _Way(transposed=False, upwards=True, asides=(1, 0, -1)),
    _Way(transposed=True, upwards=False, asides=(0,)),
    _Way(transposed=True, upwards=True, asides=(0,)),
)


def aggregate(
    cost: Tensor,
    guide: Tensor,
    labels: Labels,
    meter: Meter,
) -> tuple[Tensor, Tensor]:
    """Sum the path costs over eight directions, and note the choice of each direction alone.

    Along a path, L_k(x) = C_k(x) + min(L_k, L_{k±1} + step, min_j L_j + jump_k) - min_j L_j, where
    the terms after C_k(x) are those of the previous pixel. Only hypotheses have neighbours k±1 to
    step to. `jump` falls with the difference of the guide between the two pixels.

    `labels.background` adds two rules. An outline belongs to the nearer surface, whose blur lies on
    both sides of it, so near an outline a jump to a farther surface is cheap. A jump beyond the
    background costs the full price everywhere; otherwise paths with faint evidence would run to
    the farthest hypothesis.

    Args:
        cost: C, (K + P, H, W).
        guide: (3, H, W) sRGB.
        labels: the labels that the costs belong to.
        meter: counts the directions.

    Returns:
        (K + P, H, W) sum, and (8, H, W) depth with the lowest path cost in each direction.
    """
    total, of_columns, choices = torch.zeros_like(cost), None, []
    results = in_parallel(
        lambda work: _paths(*work),
        (
            (way, image)
            for image in _both_images(cost, guide, labels)
            for way in _WAYS
            if way.transposed == image.transposed
        ),
    )
    for way, (sums, chosen) in zip(_WAYS, results, strict=True):
        if not way.transposed:
            total.transpose(0, 1).add_(sums)
        else:  # is turned back only once, for that is slow
            of_columns = sums if of_columns is None else of_columns.add_(sums)
            chosen = chosen.mT
        choices.append(chosen)
        for _ in way.asides:
            meter.advance()
    assert of_columns is not None
    total.permute(2, 0, 1).add_(of_columns)
    return total, torch.cat(choices)


def edges(guide: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of the guide (3, H, W) between each pixel and the next below and to the right.

    Returns:
        (H - 1, W) and (H, W - 1).
    """
    return guide.diff(dim=1).square().sum(0).sqrt(), guide.diff(dim=2).square().sum(0).sqrt()


def _outlines(guide: Tensor) -> Tensor:
    """(H, W) largest difference between neighbours within `_OUTLINE_PX`."""
    down, across = edges(guide)
    difference = guide.new_zeros(guide.shape[1:])
    for step, before, after in (
        (down, difference[:-1], difference[1:]),
        (across, difference[:, :-1], difference[:, 1:]),
    ):
        torch.maximum(before, step, out=before)
        torch.maximum(after, step, out=after)
    window = 2 * _OUTLINE_PX + 1
    return functional.max_pool2d(difference[None], window, 1, _OUTLINE_PX)[0]


@dataclass(frozen=True, eq=False)
class _Image:
    """An image to be passed row by row; H and W change places if it is transposed.

    Attributes:
        transposed: whether it is.
        cost: (H, K + P, W), see `aggregate`.
        guide: (3, H, W) sRGB.
        farther: (H, W) price of a jump to a farther surface.
        levels: (K, 1) depths of the hypotheses times `_APART`.
        planes: (H, P, W) depths of the planes times `_APART`.
        background: see `Labels`, times `_APART`.
    """

    transposed: bool
    cost: Tensor
    guide: Tensor
    farther: Tensor
    levels: Tensor
    planes: Tensor
    background: float | None


def _both_images(cost: Tensor, guide: Tensor, labels: Labels) -> Iterator[_Image]:
    farther = (_JUMP_PRICE * torch.exp(-_outlines(guide) / _OUTLINE_STD)).clamp_min(_STEP_PRICE)
    levels = labels.hypotheses[:, None] * _APART
    background = None if labels.background is None else labels.background * _APART
    planes = labels.planes
    for transposed in (False, True):
        if transposed:
            cost, guide, farther, planes = cost.mT, guide.mT, farther.mT, planes.mT
        by_row = (field.transpose(0, 1).contiguous() for field in (cost, planes * _APART))
        yield _Image(transposed, next(by_row), guide, farther, levels, next(by_row), background)


def _paths(way: _Way, image: _Image) -> tuple[Tensor, Tensor]:
    """Path costs of one way, row by row.

    Returns:
        (H, K + P, W) sum over its A directions, and (A, H, W) depth with the lowest path cost.
    """
    cost, levels, planes = image.cost, image.levels, image.planes
    jumps = _Jumps(image, _jump_prices(image.guide, way))
    height, count, width = cost.shape
    directions, last = len(way.asides), len(levels) - 1
    sums, chosen = torch.empty_like(cost), cost.new_empty(height, directions, width)
    path, step = (cost.new_empty(directions, size, width) for size in (count, last + 1))
    # Of the previous row: path costs above the lowest one, and the depth of that one.
    excess, excess_before = _with_predecessors(cost, directions, count)
    depth, depth_before = _with_predecessors(cost, directions, 1)
    for y in reversed(range(height)) if way.upwards else range(height):
        torch.minimum(excess_before, jumps.to(y, depth_before), out=path)
        torch.add(excess_before[:, : last + 1], _STEP_PRICE, out=step)
        above, below = path[:, 1 : last + 1], path[:, :last]
        torch.minimum(above, step[:, :-1], out=above)
        torch.minimum(below, step[:, 1:], out=below)
        path += cost[y]
        sums[y] = path[0]
        for other in path[1:]:
            sums[y] += other
        torch.sub(path, path.amin(1, keepdim=True), out=excess)
        # The label without excess stays the lowest, with its depth.
        torch.add(levels, excess[:, : last + 1], alpha=_WORSE, out=path[:, : last + 1])
        torch.add(planes[y], excess[:, last + 1 :], alpha=_WORSE, out=path[:, last + 1 :])
        torch.amin(path, 1, keepdim=True, out=depth)
        chosen[y] = depth[:, 0]
    return sums, chosen.div_(_APART).transpose(0, 1)


def _with_predecessors(like: Tensor, directions: int, channels: int) -> tuple[Tensor, Tensor]:
    """Zeros (A, C, W) for the values of a row, and a view of them where the next row finds them.

    Beyond the border the view finds zeros, so that paths begin there.
    """
    margin, width = directions // 2, like.shape[-1]
    padded = like.new_zeros(directions, channels, width + 2 * margin)
    # A window for each direction, and of each window the direction that it is for.
    view = padded.unfold(2, width, 1).diagonal(dim1=0, dim2=2).movedim(2, 0)
    return padded[..., margin : margin + width], view


def _jump_prices(guide: Tensor, way: _Way) -> Tensor:
    """(H, A, 1, W) price of a jump from the previous pixel of a path, within one surface."""
    height, width = guide.shape[1:]
    price = guide.new_full((height, len(way.asides), 1, width), _JUMP_PRICE)
    here, there = slice(1, None), slice(None, -1)
    if way.upwards:
        here, there = there, here
    for index, aside in enumerate(way.asides):
        columns = slice(max(aside, 0), width + min(aside, 0))
        before = slice(max(-aside, 0), width + min(-aside, 0))
        difference = (guide[:, here, columns] - guide[:, there, before]).square().sum(0).sqrt()
        price[here, index, 0, columns] = _JUMP_PRICE * torch.exp(-difference / EDGE_STD)
    return price.clamp_min_(_STEP_PRICE)


class _Jumps:
    """Prices of jumps to each label by the rules of `aggregate`.

    Depths are multiplied by `_APART`.
    """

    def __init__(self, image: _Image, price: Tensor) -> None:
        """Prepare the prices; `price` (H, A, 1, W) is that within one surface."""
        self._price, self._background = price, image.background
        if image.background is None:
            return
        self._cheap = torch.minimum(price, image.farther[:, None, None])
        self._planes, levels = image.planes, image.levels
        self._beyond = (self._planes < image.background) * _JUMP_PRICE
        beyond, count = int((levels < image.background).sum()), len(levels)
        self._levels = levels[beyond:]
        self._all = price.new_full(
            (price.shape[1], image.cost.shape[1], price.shape[-1]), _JUMP_PRICE
        )
        self._within = self._all[:, beyond:]
        self._to_levels, self._to_planes = self._all[:, beyond:count], self._all[:, count:]

    def to(self, y: int, depth_before: Tensor) -> Tensor:
        """(A, K + P, W) or (A, 1, W) prices of row y, valid until the next call.

        Args:
            y: the row.
            depth_before: (A, 1, W) depth of the lowest path cost before.
        """
        if self._background is None:
            return self._price[y]
        # Nearer labels are nearer by more than any price.
        torch.sub(self._levels, depth_before, out=self._to_levels)
        torch.sub(self._planes[y], depth_before, out=self._to_planes)
        torch.clamp(self._within, self._cheap[y], self._price[y], out=self._within)
        torch.maximum(self._to_planes, self._beyond[y], out=self._to_planes)
        return self._all
