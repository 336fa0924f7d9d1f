"""Semi-global matching: assigns each pixel to a surface.

Each pixel has a cost for every label and passes it on along straight paths in eight directions.
Keeping a label along a path is free, a step to the next hypothesis is cheap, and a jump to any
other label costs a price that falls across image edges, where depth may jump (Hirschmüller, Stereo
Processing by Semiglobal Matching and Mutual Information, 2008). So textured pixels decide for the
bare ones around them, up to an edge. A label is either the constant depth of a hypothesis or a
plane of the scene, so evidence travels along a slanted plane as freely as along a level one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

import cv2
import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import between_hypotheses
from focaldiffusion.progress import Meter
from focaldiffusion.solve.posterior import POSTERIOR_STRENGTH
from focaldiffusion.strips import values_at_once
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
_ABSENT = 1e6  # cost of a label that an image lacks
_VOLUMES = 8  # volumes of path costs in work at once, in `values_at_once`


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

    def in_rows(self, rows: slice) -> Labels:
        """The labels of a strip of the image."""
        return replace(self, planes=self.planes[:, rows])

    def coordinate(self, index: Tensor) -> Tensor:
        """Depth at label indices (..., H, W) of whole images."""
        count = len(self.hypotheses)
        level = self.hypotheses[index.clamp_max(count - 1).long()]
        if not len(self.planes):
            return level
        of_plane = (index - count).clamp_min(0).long().reshape(-1, *index.shape[-2:])
        return torch.where(index < count, level, self.planes.gather(0, of_plane).view_as(level))


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
        (K + P, H, W) sum of the costs above the lowest of each direction, and (8, H, W) depth with
        the lowest path cost in each: down, down to the right, left, down to the left, up, up to the
        left, right, up to the right.
    """
    return aggregate_all([cost], [guide], [labels], meter)[0]


def aggregate_all(
    costs: Sequence[Tensor], guides: Sequence[Tensor], labels: Sequence[Labels], meter: Meter
) -> list[tuple[Tensor, Tensor]]:
    """`aggregate` for several images of one size, which a GPU passes in step.

    An image is passed from each of its four sides. From there, one direction runs straight and one
    aslant.
    """
    most = max(cost.numel() for cost in costs)
    at_once = max(1, _VOLUMES * values_at_once(costs[0].device) // most)
    sides = [_Image.sides(*one) for one in zip(costs, guides, labels, strict=True)]
    images = (image for side in zip(*sides, strict=True) for image in side)
    groups = iter(lambda: list(islice(images, at_once)), [])
    passed = in_parallel(_paths, groups)
    found = list(chain.from_iterable(passed))
    for _ in range(DIRECTIONS):
        meter.advance()
    return [_of_all_sides(found[index :: len(costs)]) for index in range(len(costs))]


def _of_all_sides(found: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Sum and choices of an image, see `aggregate`, from those of its sides, see `_paths`."""
    (down, first), (left, second), (up, third), (right, fourth) = found
    total = _turned(left + right, 1).add_(down.transpose(0, 1)).add_(up.transpose(0, 1))
    return total, torch.cat([first, second.mT, third, fourth.mT])


def _turned(field: Tensor, count: int) -> Tensor:
    """A field (A, B, C) as (C, A, B) for a `count` of 2, and as (B, C, A) for 1: a copy."""
    sides = [math.prod(field.shape[:count]), math.prod(field.shape[count:])]
    if field.device.type == "cpu":  # in blocks that fit a cache, in a seventh of torch's time
        turned = torch.from_numpy(cv2.transpose(field.reshape(sides).numpy()))
    else:
        turned = field.reshape(sides).mT.contiguous()
    return turned.view(*field.shape[count:], *field.shape[:count])


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
    """An image to be passed row by row from one of its sides.

    Rows are columns where it is passed from the left or right, so that H and W change places. It is
    not turned further: copies of large arrays take as long as the paths.

    Attributes:
        cost: (H, K + P, W), see `aggregate`.
        price: (H, 2, 1, W) price of a jump from the previous pixel of a straight path and of a
            slanted one, within one surface.
        cheap: (H, 2, 1, W) the same, to a farther surface; None without a background.
        depth: (H or 1, K + P, W or 1) depths of the labels times `_APART`.
        beyond: in the shape of `depth`, least price of a jump to a label; None without a
            background.
        count: K.
        is_backward: whether paths begin at the last row.
        is_mirrored: whether slanted paths come from the right.
    """

    cost: Tensor
    price: Tensor
    cheap: Tensor | None
    depth: Tensor
    beyond: Tensor | None
    count: int
    is_backward: bool
    is_mirrored: bool

    @classmethod
    def sides(cls, cost: Tensor, guide: Tensor, labels: Labels) -> list[_Image]:
        """An image as `aggregate` has it, from above, the right, below and the left."""
        depth = labels.hypotheses[:, None, None] * _APART
        if len(labels.planes):
            depth = torch.cat([depth.expand(-1, *cost.shape[1:]), labels.planes * _APART])
        beyond = farther = None
        if labels.background is not None:
            beyond = (depth < labels.background * _APART) * _JUMP_PRICE
            farther = _JUMP_PRICE * torch.exp(-_outlines(guide) / _OUTLINE_STD)
            farther = farther.clamp_min_(_STEP_PRICE)[None]

        def by_row(field: Tensor) -> Tensor:
            return field.transpose(0, 1)

        def by_column(field: Tensor) -> Tensor:
            return _turned(field, 2)

        ways = [
            (
                order(cost),
                order(depth),
                None if beyond is None else order(beyond),
                None if farther is None else order(farther)[:, None],
            )
            for order in (by_row, by_column)
        ]
        count, result = len(labels.hypotheses), []
        for turns in range(4):
            costs, depths, least, most = ways[turns % 2]
            facing = turns in (1, 2), turns in (2, 3)
            price = _faced(_jump_prices(guide.rot90(turns, (1, 2))), *facing)
            cheap = None if most is None else torch.minimum(price, most)
            result.append(cls(costs, price, cheap, depths, least, count, *facing))
        return result

    def ahead(self, field: Tensor) -> Tensor:
        """A field (H, ..., W) of this side, or of its paths, as if these came from top and left."""
        return _faced(field, self.is_backward, self.is_mirrored)


def _faced(field: Tensor, is_backward: bool, is_mirrored: bool) -> Tensor:
    """A field (H, ..., W), turned where paths begin at the last row or come from the right."""
    dims = [dim for dim, turned in ((0, is_backward), (-1, is_mirrored)) if turned]
    return field.flip(dims) if dims else field


def _jump_prices(guide: Tensor) -> Tensor:
    """See `_Image.price`, for a guide (3, H, W)."""
    price = guide.new_full((guide.shape[1], 2, 1, guide.shape[2]), _JUMP_PRICE)
    straight, aside = guide.diff(dim=1), guide[:, 1:, 1:] - guide[:, :-1, :-1]
    for there, step in ((price[1:, 0, 0], straight), (price[1:, 1, 0, 1:], aside)):
        there.mul_(torch.exp(step.square().sum(0).sqrt() / -EDGE_STD))
    return price.clamp_min_(_STEP_PRICE)


def _paths(images: Sequence[_Image]) -> list[tuple[Tensor, Tensor]]:
    """Path costs of images in step, row by row.

    Returns:
        For each, (H, K + P, W) sum over the two directions, and (2, H, W) depth with the lowest
        path cost.
    """
    cost, price, cheap, depth, beyond, count = _together(images)
    alone = images[0] if len(images) == 1 else None
    backward, mirrored = (alone.is_backward, alone.is_mirrored) if alone else (False, False)
    height, members, _, labels, width = cost.shape
    sums, chosen = torch.empty_like(cost[:, :, 0]), cost.new_empty(height, members, 2, width)
    path, step = (cost.new_empty(members, 2, size, width) for size in (labels, count))
    # Of some rows: path costs above the lowest one, and the depth of that one. The column beyond
    # the border stays zero: paths begin there.
    at_once = max(1, values_at_once(cost.device) // (8 * path.numel()))
    excess = cost.new_zeros(at_once + 1, members, 2, labels, width + 1)
    lowest = cost.new_empty(members, 2, 1, width)
    nearest = cost.new_zeros(at_once + 1, members, 2, 1, width + 1)
    inside = slice(width) if mirrored else slice(1, None)
    for index in range(height):
        row = index % at_once
        y, here, last = index, row + 1, row
        if backward:
            y, here, last = height - 1 - index, at_once - row - 1, at_once - row
        before = _predecessors(excess[last], mirrored)
        if cheap is None or beyond is None:
            torch.minimum(before, price[y], out=path)
        else:
            # Nearer labels are nearer by more than any price.
            torch.sub(depth[y], _predecessors(nearest[last], mirrored), out=path)
            torch.clamp(path, cheap[y], price[y], out=path)
            torch.maximum(path, beyond[y], out=path)
            torch.minimum(before, path, out=path)
        torch.add(before[:, :, :count], _STEP_PRICE, out=step)
        above, below = path[:, :, 1:count], path[:, :, : count - 1]
        torch.minimum(above, step[:, :, :-1], out=above)
        torch.minimum(below, step[:, :, 1:], out=below)
        path += cost[y]
        torch.amin(path, 2, keepdim=True, out=lowest)
        torch.sub(path, lowest, out=excess[here][..., inside])
        if cheap is not None:
            _depth_of_lowest(depth[y], excess[here][..., inside], nearest[here][..., inside])
        if row + 1 == at_once or index + 1 == height:
            done = slice(here, at_once) if backward else slice(1, here + 1)
            rows = slice(y, y + row + 1) if backward else slice(y - row, y + 1)
            found = excess[done][..., inside]
            if cheap is None:
                _depth_of_lowest(depth[rows], found, nearest[done][..., inside])
            torch.sum(found, 2, out=sums[rows])
            chosen[rows] = nearest[done, :, :, 0, inside]
            first = at_once if backward else 0
            excess[first], nearest[first] = excess[here], nearest[here]
    chosen.div_(_APART)
    return _apart(images, sums, chosen, count)


def _apart(
    images: Sequence[_Image], sums: Tensor, chosen: Tensor, count: int
) -> list[tuple[Tensor, Tensor]]:
    """Results of `_paths` for each of the images from those of all, see `_together`."""
    if len(images) == 1:
        return [(sums[:, 0], chosen[:, 0].transpose(0, 1))]
    result = []
    for index, image in enumerate(images):
        rows, columns = slice(image.cost.shape[0]), slice(image.cost.shape[2])
        own = sums[rows, index, :, columns]
        if image.cost.shape[1] < own.shape[1]:
            planes = slice(count, count + image.cost.shape[1] - image.count)
            own = torch.cat([own[:, : image.count], own[:, planes]], 1)
        choices = image.ahead(chosen[rows, index, :, columns])
        result.append((image.ahead(own), choices.transpose(0, 1)))
    return result


def _depth_of_lowest(depth: Tensor, excess: Tensor, out: Tensor) -> None:
    """Depth (..., 1, W) of the label (..., L, W) without excess, which stays the lowest."""
    torch.amin(torch.add(depth, excess, alpha=_WORSE), -2, keepdim=True, out=out)


def _predecessors(padded: Tensor, is_mirrored: bool) -> Tensor:
    """View (..., 2, L, W) of values (..., 2, L, W + 1) where the next row finds its predecessors.

    That is the pixel of the same column for the first direction, and the one to its left, or to its
    right where mirrored, for the second.
    """
    size, stride = list(padded.shape), list(padded.stride())
    size[-1] -= 1
    stride[-3] += 1 if is_mirrored else -1
    return padded.as_strided(size, stride, padded.storage_offset() + (not is_mirrored))


def _together(
    images: Sequence[_Image],
) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor | None, int]:
    """Cost, price, cheap price, depth and least price of images by row, and their largest K.

    They are (H, G, 1 or 2, 1 or K + P, W). The paths of several images all come from top and left.
    Smaller images are enlarged at the right and lower border, where all is free. Labels that an
    image lacks cost too much.
    """
    count = max(image.count for image in images)
    planes = max(image.cost.shape[1] - image.count for image in images)
    height, width = (max(image.cost.shape[dim] for image in images) for dim in (0, 2))

    def joined(fields: Sequence[Tensor], fill: float = 0.0) -> Tensor:
        """Fields (H, 1 or 2, 1 or K + P, W) of the images; all but the second may be 1."""
        if len(fields) == 1:
            return fields[0][:, None].expand(height, -1, -1, -1, -1)
        ways, labels = fields[0].shape[1], 1 if fields[0].shape[2] == 1 else count + planes
        of_all = fields[0].new_full((height, len(fields), ways, labels, width), fill)
        for index, (field, image) in enumerate(zip(fields, images, strict=True)):
            rows, columns = image.cost.shape[0], image.cost.shape[2]
            here, field = of_all[:rows, index, ..., :columns], image.ahead(field)
            here[:, :, : image.count] = field[:, :, : image.count]
            of_planes = field[:, :, image.count :]
            here[:, :, count : count + of_planes.shape[2]] = of_planes
        return of_all

    cheap = beyond = None
    if any(image.cheap is not None for image in images):
        cheap = joined([image.price if image.cheap is None else image.cheap for image in images])
        free = images[0].depth.new_zeros(1, 1, 1)
        of_each = [free if image.beyond is None else image.beyond for image in images]
        beyond = joined(
            [
                one.expand_as(image.depth)[:, None]
                for one, image in zip(of_each, images, strict=True)
            ]
        )
    cost = joined([image.cost[:, None] for image in images], _ABSENT)
    price = joined([image.price for image in images])
    return cost, price, cheap, joined([image.depth[:, None] for image in images]), beyond, count
