"""Semi-global matching: assigns each pixel to a surface.

Each pixel has a cost for every label and passes it on along straight paths in eight directions.
Keeping a label along a path is free, a step to the next hypothesis is cheap, and a jump to any
other label costs a price that falls across image edges, where depth may jump (Hirschmüller, Stereo
Processing by Semiglobal Matching and Mutual Information, 2008). So textured pixels decide for the
bare ones around them, up to an edge. A label is either the constant depth of a hypothesis or a
plane of the scene, so evidence travels along a slanted plane as freely as along a level one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import between_hypotheses
from focaldiffusion.progress import Meter
from focaldiffusion.solve.posterior import POSTERIOR_STRENGTH

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

    def row(self, y: int) -> Tensor:
        """(K + P, W) depths of all labels along a row."""
        level = self.hypotheses[:, None].expand(-1, self.planes.shape[-1])
        return torch.cat([level, self.planes[:, y]])

    def transposed(self) -> Labels:
        """Labels of the transposed image."""
        return replace(self, planes=self.planes.transpose(1, 2).contiguous())


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
        (K + P, H, W) sum, and (8, H, W) index of the lowest path cost in each direction.
    """
    total = torch.zeros_like(cost)
    choices = torch.empty((DIRECTIONS, *cost.shape[1:]), dtype=torch.int16, device=cost.device)
    farther = (_JUMP_PRICE * torch.exp(-_outlines(guide) / _OUTLINE_STD)).clamp_min(_STEP_PRICE)
    done = 0
    for transposed in (False, True):
        # Row by row: one step down advances all pixels of a row at once, straight or diagonally.
        if transposed:
            cost, guide = cost.transpose(1, 2).contiguous(), guide.transpose(1, 2).contiguous()
            total = total.transpose(1, 2).contiguous()
            labels, farther = labels.transposed(), farther.T
        for down in (1, -1):
            for aside in (0,) if transposed else (0, 1, -1):
                choice = choices[done].T if transposed else choices[done]
                _add_paths(total, choice, cost, guide, labels, farther, down, aside)
                done += 1
                meter.advance()
    return total.transpose(1, 2).contiguous(), choices


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


def _add_paths(
    total: Tensor,
    choice: Tensor,
    cost: Tensor,
    guide: Tensor,
    labels: Labels,
    farther: Tensor,
    down: int,
    aside: int,
) -> None:
    """Add the path costs of direction (aside, down) to `total`, row by row.

    The index of the lowest path cost goes to `choice` (H, W).
    """
    height, width = cost.shape[1:]
    count = len(labels.hypotheses)
    background = labels.background
    rows = range(height) if down == 1 else range(height - 1, -1, -1)
    # Pixels of a row that have a predecessor in the previous row, and those predecessors.
    here = slice(max(aside, 0), width + min(aside, 0))
    there = slice(max(-aside, 0), width + min(-aside, 0))
    previous = lowest_path = previous_depth = None
    for y in rows:
        path = cost[:, y].clone()
        depth = None if background is None else labels.row(y)
        if previous is not None and lowest_path is not None:
            before, lowest = previous[:, there], lowest_path[there]
            difference = (guide[:, y, here] - guide[:, y - down, there]).square().sum(0).sqrt()
            jump = (_JUMP_PRICE * torch.exp(-difference / EDGE_STD)).clamp_min(_STEP_PRICE)
            if background is not None and depth is not None and previous_depth is not None:
                behind = depth[:, here] <= previous_depth[there]
                jump = torch.where(behind, torch.minimum(jump, farther[y, here]), jump)
                jump = jump.masked_fill(depth[:, here] < background, _JUMP_PRICE)
            best = torch.minimum(before, lowest + jump)
            level, stepping = best[:count], before[:count] + _STEP_PRICE
            torch.minimum(level[1:], stepping[:-1], out=level[1:])
            torch.minimum(level[:-1], stepping[1:], out=level[:-1])
            path[:, here] += best - lowest
        total[:, y] += path
        # One pass gives both, and is faster than `argmin` alone.
        lowest_path, index = path.min(0)
        choice[y] = index
        if depth is not None:
            previous_depth = depth.gather(0, index[None])[0]
        previous = path
