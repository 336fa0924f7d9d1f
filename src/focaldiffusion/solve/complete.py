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

from collections.abc import Callable
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
from focaldiffusion.solve.matching import DIRECTIONS, EDGE_STD, Labels, aggregate, edges
from focaldiffusion.solve.planes import (
    LEAST_CERTAINTY,
    plane_basis,
    planes_beneath,
    propose_planes,
)
from focaldiffusion.threads import in_parallel

_SMOOTHNESS = 1.0  # λ: a certain pixel is smoothed over about √λ pixels
_MATCHED_WEIGHT = 1e-3  # least weight: without agreement, smoothing spans √(λ / weight) = 32 pixels
_NEIGHBOURHOOD = 8  # half window, in blocks, over which agreement counts
_BLOCK_PX = 3  # side of the blocks that are matched
_NEAR_BLOCKS = 2  # half window of the blocks that a pixel may follow
_STRIP_BLOCKS = 4  # rows of blocks whose pixels are in work at once: more would not fit the cache
_FARTHEST_SHARE = 0.02  # share of the sure blocks taken as the farthest seen ...
_FARTHER = 0.5  # ... and least inverse depth of a bare wall behind them, relative to theirs
_ITERATIONS = 30  # of conjugate gradients at each resolution
_COARSEST_PX = 16  # short side of the coarsest solution


@dataclass(frozen=True, eq=False)
class Completion:
    """A surface through the evidence.

    Attributes:
        coordinate: (H, W) in the unit of the evidence's axis, no gaps.
        agreement: (H, W) in [0, 1], share of the eight directions that find this surface, or a
            neighbouring hypothesis, on their own. It is high where texture on all sides supports
            the surface and low for a guess, but also high where the image has no evidence at all.
        planes: (P, 3) planes of the scene, coefficients of `plane_basis`.
    """

    coordinate: Tensor
    agreement: Tensor
    planes: Tensor


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
    meter = meter or Meter()
    meter.expect(3 * DIRECTIONS)
    with torch.no_grad():
        guide = linear_to_srgb(evidence.all_in_focus.clamp(0, 1))
        of_blocks, guide_of_blocks, planes = _match(evidence, guide, background, meter)
        coordinate, agreement, certainty = follow_blocks(
            of_blocks, guide_of_blocks, guide, _BLOCK_PX
        )
        # Block weights sum to 1 up to rounding.
        return Completion(smooth(coordinate, certainty, guide), agreement.clamp_max(1), planes)


def _match(
    evidence: Evidence, guide: Tensor, background: float | None, meter: Meter
) -> tuple[Tensor, Tensor, Tensor]:
    """Surface, agreement and certainty (3, h, w) of blocks of pixels; their guide; and planes."""
    blocks = block_mean(guide, _BLOCK_PX)
    cost = evidence.doubt_of_blocks(_BLOCK_PX).mul_(_BLOCK_PX**2)
    labels = Labels(evidence.hypotheses, blocks.new_zeros(0, *blocks.shape[1:]))
    total, choices = aggregate(cost, blocks, labels, meter)
    own_certainty = block_mean(evidence.certainty[None], _BLOCK_PX)[0]
    certainty = own_certainty * _certainty(_agreement(labels, total, choices))
    surface = _surface(labels, total)
    planes = propose_planes(surface, certainty, labels.hypotheses)
    sure, beneath = surface[certainty > LEAST_CERTAINTY], planes[:0]
    if background is not None and len(sure):
        background = max(background, _FARTHER * float(sure.quantile(_FARTHEST_SHARE)))
        # Supporting planes need an axis that distinguishes near from far.
        beneath = planes_beneath(surface, certainty, labels.hypotheses)
    planes = torch.cat([planes, beneath])
    on_blocks = torch.einsum("pc,chw->phw", planes, plane_basis(planes, *blocks.shape[1:]))
    labels = Labels(labels.hypotheses, on_blocks, background, len(beneath))
    cost = labels.cost(cost)
    total, witnesses = aggregate(cost, blocks, labels, meter)
    heard = total.sub_(total.amin(0)).div_(DIRECTIONS)
    total, choices = aggregate(cost + heard, blocks, labels, meter)
    fields = (
        _surface(labels, total),
        # In the second round the directions share evidence, so they are not independent witnesses.
        _agreement(labels, total, witnesses),
        _certainty(_agreement(labels, total, choices)),
    )
    return torch.stack(fields), blocks, planes


def _surface(labels: Labels, total: Tensor) -> Tensor:
    """(H, W) depth of the label with the lowest sum of path costs (K + P, H, W)."""
    hypotheses = labels.hypotheses
    index = total.min(0).indices  # faster than `argmin`
    level = refine_minimum(total[: len(hypotheses)], hypotheses)
    surface = torch.where(index < len(hypotheses), level, labels.coordinate(index))
    return _without_specks(surface)


def _agreement(labels: Labels, total: Tensor, choices: Tensor) -> Tensor:
    """(H, W) share of the chosen depths (8, H, W) within one hypothesis of the lowest sum."""

    def rank(coordinate: Tensor) -> Tensor:
        return torch.searchsorted(labels.hypotheses, coordinate.contiguous())

    apart = rank(choices) - rank(labels.coordinate(total.min(0).indices))
    return (apart.abs() <= 1).to(total).mean(0)


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

    def followed(blocks_and_pixels: tuple[Tensor, Tensor]) -> Tensor:
        blocks, pixels = blocks_and_pixels
        rows = pixels.shape[1]
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

    strips = (
        (padded[:, top : top + _STRIP_BLOCKS + 2 * _NEAR_BLOCKS], pixels)
        for top, pixels in zip(
            range(0, values.shape[1], _STRIP_BLOCKS),
            guide.split(_STRIP_BLOCKS * block_px, 1),
            strict=True,
        )
    )
    return torch.cat(list(in_parallel(followed, strips)), 1)


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
        values: (H, W).
        certainty: (H, W) in [0, 1].
        guide: (3, H, W) sRGB.

    Returns:
        (H, W).
    """
    weight = certainty + _MATCHED_WEIGHT
    height, width = values.shape
    if min(height, width) >= 2 * _COARSEST_PX:
        half = (height // 2, width // 2)
        shrunk = functional.interpolate(
            torch.cat([torch.stack([weight * values, weight]), guide])[None], size=half, mode="area"
        )[0]
        coarse = smooth(shrunk[0] / shrunk[1], shrunk[1] - _MATCHED_WEIGHT, shrunk[2:])
        start = functional.interpolate(
            coarse[None, None], size=(height, width), mode="bilinear", align_corners=False
        )[0, 0]
    else:
        start = values
    down, across = (_SMOOTHNESS * torch.exp(-edge / EDGE_STD) for edge in edges(guide))
    pairs = (
        (down, (slice(None, -1), slice(None)), (slice(1, None), slice(None))),
        (across, (slice(None), slice(None, -1)), (slice(None), slice(1, None))),
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
    """The solution from zero; `residual` is overwritten."""
    scaled = residual / diagonal
    solution, image, direction = torch.zeros_like(scaled), torch.empty_like(scaled), scaled.clone()
    energy = torch.dot(residual.flatten(), scaled.flatten())
    for _ in range(_ITERATIONS):
        system(direction, image)
        step = energy / torch.dot(direction.flatten(), image.flatten()).clamp_min(1e-30)
        solution.addcmul_(direction, step)
        residual.addcmul_(image, step, value=-1)
        torch.div(residual, diagonal, out=scaled)
        previous, energy = energy, torch.dot(residual.flatten(), scaled.flatten())
        torch.addcmul(scaled, direction, energy / previous.clamp_min(1e-30), out=direction)
    return solution
