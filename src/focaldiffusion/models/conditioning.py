"""Conditioning: the physical estimate as maps for the network.

Every map is bounded and independent of the lens, the number and focus of the frames, the number of
hypotheses and the resolution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.evidence import HALF_WINDOWS, Evidence
from focaldiffusion.models.surface_code import SurfaceCode
from focaldiffusion.models.surroundings import SURROUNDINGS, surroundings
from focaldiffusion.optics import linear_to_srgb

FEATURES = (
    "posterior_mean",
    "posterior_std",
    "posterior_entropy",
    "agreement",
    "confidence",
    "never_sharp",
)
"""The channels of `Proposal.features`."""

PRIOR_MAPS = ("fitted prior", "share of the prior")
"""The channels of `Proposal.prior`, where a network sees a prior."""

WIDE_MAPS = 2 * len(HALF_WINDOWS)
"""Number of channels of `Proposal.wide`, where a network sees wide windows."""

HISTOGRAM_BINS = 16

# In code units, a 512th of the range. Hypotheses beyond the bounds of the code, such as infinity,
# share the code of the bound; without this minimum they would have no width and no weight.
_NARROWEST_CELL = 1 / 256


@dataclass(frozen=True, eq=False)
class Proposal:
    """The physical estimate as the network sees it, at working resolution.

    Attributes:
        all_in_focus: (B, 3, H, W) sRGB in [-1, 1].
        depth_code: (B, 1, H, W) in [-1, 1], the completed surface.
        features: (B, F, H, W), the maps named in `FEATURES`: the mean in [-1, 1], others in
            [0, 1]. Moments are in units of the code.
        histogram: (B, M, H, W) posterior over M even bins of the code, near first, summing to 1.
        surroundings: (B, S, H, W) in [-1, 1], means of the trusted surface around each pixel, see
            `focaldiffusion.models.surroundings`.
        prior: (B, P, H, W), the maps named in `PRIOR_MAPS`: the code of a prior, fitted to trusted
            physics by scale and shift, or the surface itself where the prior is unknown; and how
            far the prior decided the surface, in [0, 1]. P is 0 for a network that sees none.
        wide: (B, V, H, W), `Evidence.wide`: the codes of its means, and their certainties in
            [0, 1]. V is 0 for a network that sees none.
    """

    all_in_focus: Tensor
    depth_code: Tensor
    features: Tensor
    histogram: Tensor
    surroundings: Tensor
    prior: Tensor
    wide: Tensor

    def map(self, change: Callable[[Tensor], Tensor]) -> Proposal:
        """The proposal with one change to each of its (B, C, H, W): padded, cropped, moved."""
        return Proposal(*map(change, vars(self).values()))

    @classmethod
    def batched(cls, proposals: Sequence[Proposal]) -> Proposal:
        """One proposal of several of the same size."""
        every = [vars(proposal).values() for proposal in proposals]
        return cls(*map(torch.cat, zip(*every, strict=True)))


def proposal_of(
    evidence: Evidence,
    coordinate: Tensor,
    agreement: Tensor,
    confidence: Tensor,
    code: SurfaceCode,
    prior: Tensor | None = None,
    with_wide: bool = False,
) -> Proposal:
    """The proposal of one physical estimate, B = 1.

    Args:
        evidence: of the stack.
        coordinate: (H, W) completed surface, in the unit of the evidence's axis.
        agreement: (H, W) in [0, 1], of the completion's directions.
        confidence: (H, W) in [0, 1], of the physical estimate.
        code: of surfaces on that axis.
        prior: (2, H, W) a fitted prior, in the same unit, and its share of the surface; None for a
            network that sees none.
        with_wide: whether the network sees the evidence of wide windows.

    Raises:
        ValueError: the evidence has no wide windows, which the network sees.
    """
    histogram, mean, std = _posterior_in_code(evidence, code)
    entropy = -(histogram * histogram.clamp_min(1e-12).log()).sum(0) / math.log(HISTOGRAM_BINS)
    maps = (mean, std, entropy.clamp(0, 1), agreement, confidence, evidence.never_sharp.to(mean))
    image = 2 * linear_to_srgb(evidence.all_in_focus.clamp(0, 1)) - 1
    depth_code = code.encode(coordinate)
    around = surroundings(coordinate, depth_code, confidence, image, code.encode)
    nothing = depth_code.new_zeros((0, *depth_code.shape))
    shown = nothing if prior is None else torch.stack([code.encode(prior[0]), prior[1]])
    return Proposal(
        all_in_focus=image[None],
        depth_code=depth_code[None, None],
        features=torch.stack(maps)[None],
        histogram=histogram[None],
        surroundings=around[None],
        prior=shown[None],
        wide=(_wide_in_code(evidence, code) if with_wide else nothing)[None],
    )


def latent_condition(proposal: Proposal, factor: int, keep_pixels: bool) -> Tensor:
    """The maps of a proposal on the latent grid. Its image goes through the codec instead.

    A cell has all pixels of each map, as in the patch codec; or, for an autoencoder, their mean,
    minimum and maximum, so that a depth edge within it stays two depths. The histogram, whose mean
    keeps the peaks of two surfaces, the surroundings and the wide windows are always averaged.

    Args:
        proposal: with sides that divide by `factor`.
        factor: of the codec.
        keep_pixels: whether the codec is a `PatchCodec`.

    Returns:
        (B, `condition_channels`, h, w) in [-1, 1].
    """
    maps = torch.cat([proposal.depth_code, proposal.features], dim=1)
    smooth = torch.cat([proposal.histogram, proposal.surroundings], dim=1)
    pooled = [_of_cells(maps, factor, keep_pixels), functional.avg_pool2d(smooth, factor)]
    # Last, so that a network without them has the same other inputs.
    if proposal.prior.shape[1]:
        pooled.append(_of_cells(proposal.prior, factor, keep_pixels))
    if proposal.wide.shape[1]:
        pooled.append(functional.avg_pool2d(proposal.wide, factor))
    return torch.cat(pooled, dim=1)


def _of_cells(maps: Tensor, factor: int, keep_pixels: bool) -> Tensor:
    """Maps (B, C, H, W) on the latent grid: all pixels, or mean, minimum and maximum of each."""
    if keep_pixels:
        return functional.pixel_unshuffle(maps, factor)
    mean = functional.avg_pool2d(maps, factor)
    lowest, highest = (sign * functional.max_pool2d(sign * maps, factor) for sign in (-1, 1))
    return torch.cat([mean, lowest, highest], dim=1)


def condition_channels(
    factor: int, keep_pixels: bool, *, with_prior: bool = False, with_wide: bool = False
) -> int:
    """Number of channels of `latent_condition`.

    Args:
        factor: of the codec.
        keep_pixels: whether the codec is a `PatchCodec`.
        with_prior: whether the network sees a prior.
        with_wide: whether it sees the evidence of wide windows.
    """
    maps = 1 + len(FEATURES) + with_prior * len(PRIOR_MAPS)
    averaged = HISTOGRAM_BINS + SURROUNDINGS + with_wide * WIDE_MAPS
    return maps * (factor**2 if keep_pixels else 3) + averaged


def _wide_in_code(evidence: Evidence, code: SurfaceCode) -> Tensor:
    """The maps of wide windows (V, H, W): codes, then certainties."""
    if evidence.wide is None:
        raise ValueError("the evidence has no wide windows")
    means, certainties = evidence.wide.chunk(2)
    return torch.cat([code.encode(means), certainties])


def _posterior_in_code(evidence: Evidence, code: SurfaceCode) -> tuple[Tensor, Tensor, Tensor]:
    """Histogram (M, H, W), mean and standard deviation (H, W) of the posterior over the code.

    The sweep gives every hypothesis the same prior, so its masses follow the spacing of the
    hypotheses, which depends on frames and lens. Here they are samples of a density over the code,
    each spread over its cell. Where defocus carries no information, the histogram is flat for any
    stack.
    """
    # On the CPU, for some devices have no double precision.
    codes = code.encode(evidence.hypotheses.cpu().double())
    middles = (codes[1:] + codes[:-1]) / 2
    ends = torch.stack([torch.cat([codes[:1], middles]), torch.cat([middles, codes[-1:]])])
    half = (ends.diff(dim=0)[0].abs() / 2).clamp_min(_NARROWEST_CELL / 2)
    centre = ends.mean(0).clamp(half - 1, 1 - half)
    edges = torch.linspace(-1, 1, HISTOGRAM_BINS + 1).to(codes)[:, None]
    # (M, K): the part of each cell that lies in each bin, in code units.
    overlap = torch.minimum(centre + half, edges[1:]) - torch.maximum(centre - half, edges[:-1])
    width = 2 * half
    weights = torch.cat([overlap.clamp_min(0), torch.stack([width * codes, width * codes**2])])
    integrals = torch.einsum("mk,khw->mhw", weights.to(evidence.posterior), evidence.posterior)
    masses, moments = integrals.split([HISTOGRAM_BINS, 2])
    total = masses.sum(0)
    mean, squared = moments / total
    return masses / total, mean.clamp(-1, 1), (squared - mean**2).clamp(0, 1).sqrt()
