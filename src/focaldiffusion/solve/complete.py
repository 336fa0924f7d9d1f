"""Completion: turns a posterior that is flat on bare walls into one depth at every pixel.

1. Match the hypotheses (`matching`), on blocks of pixels: gaps are large, and blocks are faster.
2. Fit planes of the scene (`planes`) to blocks whose matching directions agree.
3. Match hypotheses and planes together, twice. Matching paths are straight, so the second round
   adds the result of the first to the cost of each block: evidence can turn corners.
4. Carry blocks over to pixels: each pixel follows nearby blocks of its own colour.
5. Smooth by weighted least squares. Where evidence is weak, the directions disagree; such pixels
   take the smoothest surface between those where the directions agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import Evidence
from focaldiffusion.filters import block_mean, box_mean, refine_minimum
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.progress import Meter
from focaldiffusion.solve.matching import DIRECTIONS, EDGE_STD, Labels, aggregate_all
from focaldiffusion.solve.planes import (
    LEAST_CERTAINTY,
    plane_basis,
    planes_beneath,
    propose_planes,
)
from focaldiffusion.strips import in_strips

_SMOOTHNESS = 1.0  # λ: a certain pixel is smoothed over about √λ pixels
_MATCHED_WEIGHT = 1e-3  # least weight: without agreement, smoothing spans √(λ / weight) = 32 pixels
_NEIGHBOURHOOD = 8  # half window, in blocks, over which agreement counts
_BLOCK_PX = 3  # side of the blocks that are matched
_NEAR_BLOCKS = 2  # half window of the blocks that a pixel may follow
_FARTHEST_SHARE = 0.02  # share of the sure blocks taken as the farthest seen ...
_FARTHER = 0.5  # ... and least inverse depth of a bare wall behind them, relative to theirs
_EQUAL = 0.01  # difference of sums of path costs that means nothing; a step costs 3.6
_ITERATIONS = 30  # of conjugate gradients at each resolution
_COARSEST_PX = 16  # short side of the coarsest solution
_NOTHING = 1e-30  # least energy to divide by: a small image is solved exactly before the last step


@dataclass(frozen=True, eq=False)
class Completion:
    """A surface through the evidence.

    Attributes:
        coordinate: (H, W) in the unit of the evidence's axis, no gaps.
        agreement: (H, W) in [0, 1], share of the eight directions that find this surface, or a
            neighbouring hypothesis, on their own. It is high where texture on all sides supports
            the surface and low for a guess, but also high where the image has no evidence at all.
        planes: (P, 3) planes of the scene, coefficients of `plane_basis`.
        competing: (2, H, W) least and greatest coordinate of the surfaces that fit nearly as well;
            None where no other was weighed.
    """

    coordinate: Tensor
    agreement: Tensor
    planes: Tensor
    competing: Tensor | None = None


def complete(
    evidence: Evidence, meter: Meter | None = None, *, background: float | None = None
) -> Completion:
    """The most plausible surface through the evidence.

    Args:
        evidence: the posterior, and the image whose edges guide depth jumps.
        meter: counts the directions.
        background: on an axis that falls with distance, the farthest depth assigned to a surface
            behind an outline that has no evidence of its own; usually the farthest focus. Such a
            surface is never placed beyond twice the distance of what is surely seen. None on an
            axis that does not distinguish near from far.

    Returns:
        The surface. Not differentiable; `Evidence.mean` is.
    """
    return complete_all([evidence], meter, backgrounds=[background])[0]


def complete_all(
    evidence: Sequence[Evidence],
    meter: Meter | None = None,
    *,
    backgrounds: Sequence[float | None],
) -> list[Completion]:
    """`complete` for several stacks of one size, which a GPU matches in step."""
    meter = meter or Meter()
    meter.expect(3 * DIRECTIONS)
    with torch.no_grad():
        guides = [linear_to_srgb(one.all_in_focus.clamp(0, 1)) for one in evidence]
        blocks = [block_mean(guide, _BLOCK_PX) for guide in guides]
        matched = _match(evidence, blocks, backgrounds, meter)
        pixels = torch.stack(
            [
                follow_blocks(fields, block, guide, _BLOCK_PX)
                for (fields, _), block, guide in zip(matched, blocks, guides, strict=True)
            ]
        )
        coordinates = smooth(pixels[:, 0], pixels[:, 2], torch.stack(guides))
        agreements = pixels[:, 1].clamp_max(1)  # block weights sum to 1 up to rounding
        return [
            Completion(coordinate, agreement, planes)
            for coordinate, agreement, (_, planes) in zip(
                coordinates, agreements, matched, strict=True
            )
        ]


def _match(
    evidence: Sequence[Evidence],
    guides: Sequence[Tensor],
    backgrounds: Sequence[float | None],
    meter: Meter,
) -> list[tuple[Tensor, Tensor]]:
    """Surface, agreement and certainty (3, h, w) of blocks of pixels, and planes, of each stack."""
    none = guides[0].new_zeros(0, *guides[0].shape[1:])
    labels = [Labels(one.hypotheses, none) for one in evidence]
    costs = [one.doubt_of_blocks(_BLOCK_PX).mul_(_BLOCK_PX**2) for one in evidence]
    first = aggregate_all(costs, guides, labels, meter)
    planes = []
    for index, (one, (total, choices)) in enumerate(zip(evidence, first, strict=True)):
        certainty = block_mean(one.certainty[None], _BLOCK_PX)[0]
        certainty = certainty * _certainty(_agreement(labels[index], total, choices))
        surface = _surface(labels[index], total)
        found, labels[index] = _with_planes(labels[index], surface, certainty, backgrounds[index])
        planes.append(found)
        costs[index] = labels[index].cost(costs[index])
    second = aggregate_all(costs, guides, labels, meter)
    for cost, (total, _) in zip(costs, second, strict=True):
        cost += total.sub_(total.amin(0)).div_(DIRECTIONS)  # what is heard
    third = aggregate_all(costs, guides, labels, meter)
    fields = [
        torch.stack(
            (
                _surface(own, total),
                # In the second round the directions share evidence, so they are not independent
                # witnesses.
                _agreement(own, total, witnesses),
                _certainty(_agreement(own, total, choices)),
            )
        )
        for own, (_, witnesses), (total, choices) in zip(labels, second, third, strict=True)
    ]
    return list(zip(fields, planes, strict=True))


def _with_planes(
    labels: Labels, surface: Tensor, certainty: Tensor, background: float | None
) -> tuple[Tensor, Labels]:
    """Planes (P, 3) through a surface of blocks (h, w), and the labels with them."""
    planes = propose_planes(surface, certainty, labels.hypotheses)
    sure, beneath = surface[certainty > LEAST_CERTAINTY], planes[:0]
    if background is not None and len(sure):
        background = max(background, _FARTHER * float(sure.quantile(_FARTHEST_SHARE)))
        # Supporting planes need an axis that distinguishes near from far.
        beneath = planes_beneath(surface, certainty, labels.hypotheses)
    planes = torch.cat([planes, beneath])
    on_blocks = torch.einsum("pc,chw->phw", planes, plane_basis(planes, *surface.shape))
    return planes, Labels(labels.hypotheses, on_blocks, background, len(beneath))


def _surface(labels: Labels, total: Tensor) -> Tensor:
    """(H, W) depth of the label with the lowest sum of path costs (K + P, H, W)."""
    hypotheses = labels.hypotheses

    def surface(rows: slice) -> Tensor:
        part = total[:, rows]
        index, levels = part.min(0).indices, part[: len(hypotheses)]  # faster than `argmin`
        level = refine_minimum(levels, hypotheses)
        # Where no evidence decides, rounding would: the mean of labels that are as good.
        equal = (levels < levels.amin(0) + _EQUAL).to(total)
        count = equal.sum(0)
        level = torch.where(count > 1, torch.einsum("k,khw->hw", hypotheses, equal) / count, level)
        chosen = labels.in_rows(rows).coordinate(index)
        return torch.where(index < len(hypotheses), level, chosen)

    return _without_specks(in_strips(surface, total.shape, total.device))


def _agreement(labels: Labels, total: Tensor, choices: Tensor) -> Tensor:
    """(H, W) share of the chosen depths (8, H, W) within one hypothesis of the lowest sum."""

    def rank(coordinate: Tensor) -> Tensor:
        return torch.searchsorted(labels.hypotheses, coordinate.contiguous())

    def share(rows: slice) -> Tensor:
        chosen = labels.in_rows(rows).coordinate(total[:, rows].min(0).indices)
        return ((rank(choices[:, rows]) - rank(chosen)).abs() <= 1).to(total).mean(0)

    return in_strips(share, total.shape, total.device)


def _certainty(agreement: Tensor) -> Tensor:
    return (agreement * box_mean(agreement, _NEIGHBOURHOOD)) ** 2


def follow_blocks(values: Tensor, guide_of_blocks: Tensor, guide: Tensor, block_px: int) -> Tensor:
    """Enlarge block values (C, h, w) to pixels (C, H, W) that follow nearby blocks of their colour.

    Joint bilateral upsampling (Kopf et al. 2007) without distance weights.

    Args:
        values: (C, h, w).
        guide_of_blocks: (3, h, w) sRGB.
        guide: (3, H, W) sRGB.
        block_px: side of the blocks.
    """
    width = guide.shape[-1]
    window = 2 * _NEAR_BLOCKS + 1
    padded = functional.pad(
        torch.cat([guide_of_blocks, values])[None], (_NEAR_BLOCKS,) * 4, mode="replicate"
    )[0].repeat_interleave(block_px, 2)

    def followed(strip: slice) -> Tensor:
        pixels = guide[:, strip]
        rows = pixels.shape[1]
        first = strip.start // block_px
        blocks = padded[:, first : first - (-rows // block_px) + 2 * _NEAR_BLOCKS]
        wide = blocks.repeat_interleave(block_px, 1)
        near = [
            wide[:, down : down + rows, right : right + width]
            for down in range(0, window * block_px, block_px)
            for right in range(0, window * block_px, block_px)
        ]
        unlike = pixels.new_empty(len(near), rows, width)
        for block, distance in zip(near, unlike, strict=True):
            torch.sum((block[:3] - pixels).square_(), 0, out=distance)
        weights = unlike.div_(-2 * EDGE_STD**2).softmax(0)
        result = pixels.new_zeros(len(values), rows, width)
        for block, weight in zip(near, weights, strict=True):
            result.addcmul_(block[3:], weight)
        return result

    # Of 25 distances, a strip of this many values holds five rows of blocks in a cache.
    return in_strips(followed, (window**2, *guide.shape[1:]), guide.device, multiple=block_px)


def _without_specks(plane: Tensor) -> Tensor:
    """Median over 5x5: least squares would spread an isolated wrong block."""
    median = cv2.medianBlur(np.ascontiguousarray(plane.cpu().numpy(), np.float32), 5)
    return torch.from_numpy(median).to(plane)


def smooth(values: Tensor, certainty: Tensor, guide: Tensor) -> Tensor:
    """Weighted least squares: min_u Σ W (u - values)² + λ Σ a |∇u|².

    W is the certainty plus a small floor; a falls with the guide's gradient. Solved by conjugate
    gradients with a Jacobi preconditioner, from coarse to fine, so that distant pixels interact
    early.

    Args:
        values: (B, H, W).
        certainty: (B, H, W) in [0, 1].
        guide: (B, 3, H, W) sRGB.

    Returns:
        (B, H, W).
    """
    weight = certainty + _MATCHED_WEIGHT
    height, width = values.shape[1:]
    if min(height, width) >= 2 * _COARSEST_PX:
        half = (height // 2, width // 2)
        planes = torch.cat([torch.stack([weight * values, weight], 1), guide], 1)
        shrunk = functional.interpolate(planes, size=half, mode="area")
        known = shrunk[:, 1]
        coarse = smooth(shrunk[:, 0] / known, known - _MATCHED_WEIGHT, shrunk[:, 2:])
        start = functional.interpolate(
            coarse[:, None], size=(height, width), mode="bilinear", align_corners=False
        )[:, 0]
    else:
        start = values
    down, across = (
        _SMOOTHNESS * torch.exp(-step.square().sum(1).sqrt() / EDGE_STD)
        for step in (guide.diff(dim=2), guide.diff(dim=3))
    )
    pairs = (
        (down, (slice(None), slice(None, -1)), (slice(None), slice(1, None))),
        (across, (..., slice(None, -1)), (..., slice(1, None))),
    )
    diagonal, residual = weight.clone(), weight * (values - start)
    for coupling, before, after in pairs:
        diagonal[before] += coupling
        diagonal[after] += coupling
        pull = coupling * (start[after] - start[before])
        residual[before] += pull
        residual[after] -= pull

    def system(u: Tensor, out: Tensor) -> None:
        torch.mul(diagonal, u, out=out)
        for coupling, before, after in pairs:
            out[before].addcmul_(coupling, u[after], value=-1)
            out[after].addcmul_(coupling, u[before], value=-1)

    return start + _conjugate_gradients(system, residual, diagonal)


def _conjugate_gradients(
    system: Callable[[Tensor, Tensor], None], residual: Tensor, diagonal: Tensor
) -> Tensor:
    """The solutions (B, H, W) from zero; `residual` is overwritten."""

    def product(one: Tensor, other: Tensor) -> Tensor:
        return torch.linalg.vecdot(one.flatten(1), other.flatten(1))[:, None, None]

    scaled = residual / diagonal
    solution, image, direction = torch.zeros_like(scaled), torch.empty_like(scaled), scaled.clone()
    energy = product(residual, scaled)
    for _ in range(_ITERATIONS):
        system(direction, image)
        step = energy / product(direction, image).clamp_min(_NOTHING)
        solution.addcmul_(direction, step)
        residual.addcmul_(image, step, value=-1)
        torch.div(residual, diagonal, out=scaled)
        previous, energy = energy, product(residual, scaled)
        torch.addcmul(scaled, direction, energy / previous.clamp_min(_NOTHING), out=direction)
    return solution
