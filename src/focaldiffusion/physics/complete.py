"""Completion: from a posterior that is silent on bare walls to one depth at every pixel.

First semi-global matching (Hirschmüller, Stereo Processing by Semiglobal Matching and Mutual
Information, 2008): the evidence of textured pixels travels along eight directions, freely within
a surface and at a price across image edges, where depth may jump. That decides which surface a
pixel belongs to. Then weighted least squares: where evidence is weak, the directions
disagree, and the smoothest surface between the pixels where they agree replaces them.
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
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.physics.sweep import POSTERIOR_STRENGTH, box_mean, refine_minimum

_STEP_PRICE = 0.2 * POSTERIOR_STRENGTH  # to the next hypothesis: slanted surfaces
_JUMP_PRICE = 6.0 * POSTERIOR_STRENGTH  # to any other, between pixels of one colour
_SMOOTHNESS = 1.0  # λ: a certain pixel is smoothed over about √λ pixels ...
_MATCHED_WEIGHT = 1e-3  # ... and one whose directions disagree over √(λ / this), 32 pixels
_NEIGHBOURHOOD_PX = 8  # half window over which agreement is asked for
_ITERATIONS = 30  # of conjugate gradients at each resolution
_COARSEST_PX = 16  # side at which the solution starts
_EDGE_STD = 0.03  # sRGB difference of neighbours at which a jump costs e times less


@dataclass(frozen=True, eq=False)
class Completion:
    """A surface through the evidence.

    Attributes:
        coordinate: (H, W) in the unit of the evidence's axis, no gaps.
        agreement: (H, W) in [0, 1], the share of the eight directions whose evidence leads to
            the same hypothesis or the next. It tells a surface that texture on all sides
            supports from a guess; but where there is no evidence at all, all agree on nothing.
    """

    coordinate: Tensor
    agreement: Tensor


def complete(
    evidence: Evidence, *, progress: Callable[[int, int], None] | None = None
) -> Completion:
    """The most plausible surface through the evidence.

    Args:
        evidence: the posterior and the image whose edges guide the jumps.
        progress: called with the directions done, of eight.

    Returns:
        The surface. Not differentiable; `Evidence.mean` is.
    """
    with torch.no_grad():
        guide = linear_to_srgb(evidence.all_in_focus.clamp(0, 1))
        # Not held by a name here, so that `aggregate` can let it go when it turns it.
        total, choices = aggregate(_cost(evidence), guide, progress)
        matched = _without_specks(refine_minimum(total, evidence.hypotheses))
        agreement = ((choices - total.argmin(0)).abs() <= 1).to(matched).mean(0)
        certainty = (agreement * box_mean(agreement, _NEIGHBOURHOOD_PX)) ** 2
        return Completion(smooth(matched, certainty, guide), agreement)


def _cost(evidence: Evidence) -> Tensor:
    """-log of the posterior over its maximum, (K, H, W)."""
    highest = evidence.posterior.amax(0)
    return (evidence.posterior / highest).clamp_min(1e-30).log_().neg_()


def aggregate(
    cost: Tensor, guide: Tensor, progress: Callable[[int, int], None] | None = None
) -> tuple[Tensor, Tensor]:
    """Sum of the path costs over eight directions, and what each direction alone would choose.

    Along a path, L_k(x) = C_k(x) + min(L_k, L_{k±1} + step, min_j L_j + jump) - min_j L_j, taken
    at the previous pixel; `jump` falls with the difference of the guide between the two.

    Args:
        cost: C, (K, H, W).
        guide: (3, H, W) sRGB.
        progress: called with the directions done, of eight.

    Returns:
        (K, H, W) sum, and (8, H, W) the index of the lowest path cost of each direction.
    """
    total = torch.zeros_like(cost)
    choices = torch.empty((8, *cost.shape[1:]), dtype=torch.int16, device=cost.device)
    done = 0
    for transposed in (False, True):
        # Rows first: a step down moves all pixels of a row at once, straight or diagonally.
        if transposed:
            cost, guide = cost.transpose(1, 2).contiguous(), guide.transpose(1, 2).contiguous()
            total = total.transpose(1, 2).contiguous()
        for down in (1, -1):
            for aside in (0,) if transposed else (0, 1, -1):
                choice = choices[done].T if transposed else choices[done]
                _add_paths(total, choice, cost, guide, down, aside)
                done += 1
                if progress is not None:
                    progress(done, 8)
    return total.transpose(1, 2).contiguous(), choices


def _without_specks(plane: Tensor) -> Tensor:
    """Median over 5x5 pixels: a wrong pixel among right ones would spread in least squares."""
    median = cv2.medianBlur(np.ascontiguousarray(plane.cpu().numpy(), np.float32), 5)
    return torch.from_numpy(median).to(plane)


def smooth(values: Tensor, certainty: Tensor, guide: Tensor) -> Tensor:
    """Weighted least squares: min_u Σ W (u - values)² + λ Σ a |∇u|².

    W is the certainty and a small floor, a falls with the guide's gradient. Solved by conjugate
    gradients with a Jacobi preconditioner, from coarse to fine, so that far pixels meet early.

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
    down = _SMOOTHNESS * torch.exp(-guide.diff(dim=1).square().sum(0).sqrt() / _EDGE_STD)
    across = _SMOOTHNESS * torch.exp(-guide.diff(dim=2).square().sum(0).sqrt() / _EDGE_STD)

    def system(u: Tensor) -> Tensor:
        vertical, horizontal = down * u.diff(dim=0), across * u.diff(dim=1)
        result = weight * u
        result[:-1] -= vertical
        result[1:] += vertical
        result[:, :-1] -= horizontal
        result[:, 1:] += horizontal
        return result

    diagonal = weight.clone()
    diagonal[:-1] += down
    diagonal[1:] += down
    diagonal[:, :-1] += across
    diagonal[:, 1:] += across
    return _conjugate_gradients(system, weight * values, start, diagonal)


def _conjugate_gradients(
    system: Callable[[Tensor], Tensor], right: Tensor, start: Tensor, diagonal: Tensor
) -> Tensor:
    solution = start.clone()
    residual = right - system(solution)
    scaled = residual / diagonal
    direction, energy = scaled, (residual * scaled).sum()
    for _ in range(_ITERATIONS):
        image = system(direction)
        step = energy / (direction * image).sum().clamp_min(1e-30)
        solution += step * direction
        residual -= step * image
        scaled = residual / diagonal
        previous, energy = energy, (residual * scaled).sum()
        direction = scaled + (energy / previous.clamp_min(1e-30)) * direction
    return solution


def _add_paths(
    total: Tensor, choice: Tensor, cost: Tensor, guide: Tensor, down: int, aside: int
) -> None:
    """Add the path costs of the direction (aside, down) to `total`, row by row.

    The index of the lowest goes to `choice` (H, W).
    """
    height, width = cost.shape[1:]
    rows = range(height) if down == 1 else range(height - 1, -1, -1)
    # Pixels of a row that have a predecessor in it, and those predecessors.
    here = slice(max(aside, 0), width + min(aside, 0))
    there = slice(max(-aside, 0), width + min(-aside, 0))
    previous = lowest_path = None
    for y in rows:
        path = cost[:, y].clone()
        if previous is not None and lowest_path is not None:
            before, lowest = previous[:, there], lowest_path[there]
            difference = (guide[:, y, here] - guide[:, y - down, there]).square().sum(0).sqrt()
            jump = (_JUMP_PRICE * torch.exp(-difference / _EDGE_STD)).clamp_min(_STEP_PRICE)
            best = torch.minimum(before, lowest + jump)
            best[1:] = torch.minimum(best[1:], before[:-1] + _STEP_PRICE)
            best[:-1] = torch.minimum(best[:-1], before[1:] + _STEP_PRICE)
            path[:, here] += best - lowest
        total[:, y] += path
        # One pass for both, and faster than `argmin` alone.
        lowest_path, choice[y] = path.min(0)
        previous = path
