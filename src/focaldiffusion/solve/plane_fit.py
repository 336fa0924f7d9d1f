"""The sharp image that explains the frames best if all of the scene lies in one plane.

At hypothesis k, the lens turns one sharp image J into N frames: J blurred by radii r(s, k). The J
that fits the frames best has a closed form in the Fourier domain (a Wiener estimate from all frames
at once), so the sharp image need not be known beforehand:

    J_k = Σ_s H_sk I_s / (Σ_s H_sk² + ε),   misfit_k(x) = Σ_s (I_s - H_sk J_k)²(x) / noise²

where H_sk is the transfer function of frame s at hypothesis k.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from focaldiffusion.filters import LUMA_WEIGHTS, lagrange_weights, noise_std_of_luma, srgb_luma
from focaldiffusion.psf import PSF, MirrorGrid
from focaldiffusion.stack import FocalStack
from focaldiffusion.strips import values_at_once
from focaldiffusion.threads import in_parallel

LONGEST_REACH_PX = 48
"""Reach [px] of a blur, beyond which it is flat over a tile: its exact border does not matter."""

# ε at frequency 0: the inverse signal-to-noise ratio of natural images. A larger value favours
# planes that are sharp in several frames: at 4e-3, depth was off by a tenth of a pixel of blur.
_PRIOR_STRENGTH = 5e-4
_PRIOR_KNEE = 0.02  # frequency [cycles/px] from which the signal falls as 1/f²
_NODES_PER_PX = 4
_NODE_BYTES = 2**26  # of all nodes of a grid; larger radii are computed one by one


@dataclass(frozen=True, eq=False)
class Luma:
    """Linear luma of a stack, and how far its pixels can be relied on.

    Attributes:
        linear: (N, H, W) linear luma.
        precision: (N, H, W) the inverse of its noise variance; 0 where the light is unknown.
        share: (N,) weight of each frame in the sharp image.
    """

    linear: Tensor
    precision: Tensor
    share: tuple[float, ...]

    @classmethod
    def of(cls, stack: FocalStack) -> Luma:
        """Luma of a stack."""
        images = stack.images
        weights = images.new_tensor(LUMA_WEIGHTS)
        encoded = srgb_luma(stack.photographed.detach())
        slope = torch.stack(list(in_parallel(_slope, encoded)))
        # A clipped highlight is darker than the real light, so no blur of it predicts the frames.
        trusted = stack.usable.to(images)
        linear = torch.einsum("c,nchw->nhw", weights, images)
        if stack.gains is None:
            noise = slope.mul_(stack.noise_std)
            return cls(linear, trusted.div_(noise.square_()), (1.0,) * len(stack))
        # A mostly clipped frame has no noise to measure.
        known = trusted.mean((1, 2))
        noise = noise_std_of_luma(encoded[known > known.max() / 2], stack.step) * slope
        noise = noise / (weights @ stack.gains.to(images).T)[:, None, None]
        # Where exposures differ, a pixel clipped in some frames has the light of the others in the
        # sharp image: its own would darken all hypotheses.
        others = (linear * trusted).sum(0) / trusted.sum(0).clamp_min(1)
        linear = torch.where(trusted > 0, linear, torch.maximum(linear, others))
        reliability = known / noise.square().mean((1, 2))
        share = tuple((reliability / reliability.mean()).tolist())
        return cls(linear, trusted / noise.square_(), share)

    def cropped(self, rows: slice, columns: slice) -> Luma:
        """A part of the image."""
        return Luma(self.linear[:, rows, columns], self.precision[:, rows, columns], self.share)


class PlaneFit:
    """Misfit of frames to one sharp image that is blurred as on a plane, for any planes."""

    def __init__(self, luma: Luma, reach_px: int, psf: PSF) -> None:
        """The frames, the reach of the largest blur, and the shape of the blur."""
        self._luma = luma
        self._grid = MirrorGrid((luma.linear.shape[-2], luma.linear.shape[-1]), reach_px)
        spectra = (self._grid.spectrum(frame) for frame in luma.linear)
        # Real and imaginary parts apart, (2, Q/2+1, P): transfer functions are real.
        self._spectra = [torch.stack([one.real, one.imag]) for one in spectra]
        options: Any = {"dtype": luma.linear.dtype, "device": luma.linear.device}
        vertical, horizontal = (
            torch.fft.rfftfreq(extent, **options) for extent in self._grid.grid_size
        )
        frequency_squared = horizontal[:, None] ** 2 + vertical**2
        self._prior = _PRIOR_STRENGTH * (1 + frequency_squared / _PRIOR_KNEE**2)
        self._transfers = _Transfers(self._grid, psf, options)

    def prepare(self, radii_px: Tensor) -> None:
        """Compute what planes with radii (K, N) share, before several threads fit them."""
        self._transfers.prepare(radii_px)

    def misfits(self, radii_px: Tensor) -> Iterator[Tensor]:
        """Squared misfit in noise variances, summed over the frames, of planes with radii (K, N).

        Yields:
            (k, H, W) of the next k planes.
        """
        self._transfers.prepare(radii_px)
        at_once = max(1, values_at_once(self._prior.device) // self._spectra[0].numel())
        return in_parallel(self._misfit, radii_px.split(at_once))

    def misfits_of_frames(self, radii_px: Tensor) -> Iterator[Tensor]:
        """Squared misfit (N, H, W) of each frame, for each of the planes, see `misfits`."""
        self._transfers.prepare(radii_px)

        def misfit(radii: Tensor) -> Tensor:
            rests = zip(self._rests(radii), self._luma.precision, strict=True)
            return torch.cat([rest.square_().mul_(precision) for rest, precision in rests])

        return in_parallel(misfit, radii_px.split(1))

    def _misfit(self, radii_px: Tensor) -> Tensor:
        rests = zip(self._rests(radii_px), self._luma.precision, strict=True)
        rest, precision = next(rests)
        total = rest.square_() * precision
        for rest, precision in rests:
            total.addcmul_(rest.square_(), precision)
        return total

    def _rests(self, radii_px: Tensor) -> Iterator[Tensor]:
        """The light that k planes of radii (k, N) leave of each frame, (k, H, W)."""
        # One frame at a time: arrays of this size are reused and partly stay in the cache.
        luma, transfers = self._luma, []
        power = self._prior
        light = power.new_zeros(len(radii_px), *self._spectra[0].shape)
        quadrants = self._transfers.at(radii_px.T)
        for frame, quadrant, share in zip(self._spectra, quadrants, luma.share, strict=True):
            power = torch.addcmul(power, quadrant, quadrant, value=share)
            transfers.append(self._grid.unfolded(quadrant)[:, None])
            light.addcmul_(transfers[-1], frame, value=share)
        light.mul_(self._grid.unfolded(power.reciprocal())[:, None])
        for frame, transfer in zip(self._spectra, transfers, strict=True):
            rest = torch.addcmul(frame, transfer, light, value=-1)
            # A copy: what follows is twice as fast on an array without gaps.
            yield self._grid.image(torch.complex(rest[:, 0], rest[:, 1]))


class _Transfers:
    """Transfer functions of a grid at any radius, interpolated between multiples of 1/4 px.

    Cubic interpolation is exact to 1e-3 at the Nyquist frequency f = 1/2, and its error falls as
    f⁴, so it stays far below the noise of the frames. In double precision nothing is interpolated.
    """

    def __init__(self, grid: MirrorGrid, psf: PSF, options: Any) -> None:
        self._grid, self._psf, self._options = grid, psf, options
        height, width = grid.grid_size
        self._size = (width // 2 + 1, height // 2 + 1)
        single = options["dtype"] == torch.float32
        self._most = _NODE_BYTES // (4 * self._size[0] * self._size[1]) if single else 0
        self._nodes = torch.empty(0, self._size[0] * self._size[1], **options)
        self._row_of: dict[int, int] = {}

    def prepare(self, radii_px: Tensor) -> None:
        """Compute the nodes for radii of any shape; larger ones may stay without."""
        places = sorted({place for around in _around(radii_px)[0].tolist() for place in around})
        new = [place for place in places if place not in self._row_of]
        new = new[: self._most - len(self._row_of)]
        if new:
            self._row_of |= {place: len(self._row_of) + row for row, place in enumerate(new)}
            radii_px = torch.tensor(new, **self._options) / _NODES_PER_PX
            at_once = max(1, values_at_once(radii_px.device) // self._nodes.shape[1])
            computed = [self._computed(one).flatten(1) for one in radii_px.split(at_once)]
            self._nodes = torch.cat([self._nodes, *computed])

    def at(self, radii_px: Tensor) -> Iterator[Tensor]:
        """Factors (k, Q/2+1, P/2+1) at each row of radii (N, k), see `MirrorGrid.quadrant`."""
        count, device = radii_px.shape[1], self._options["device"]
        places, weights = _around(radii_px)
        weights = weights.to(**self._options)
        rows = [[self._row_of.get(place) for place in around] for around in places.tolist()]
        for index, radii in enumerate(radii_px):
            own = slice(index * count, (index + 1) * count)
            if None in chain.from_iterable(rows[own]):
                yield self._computed(radii.to(**self._options))
                continue
            nodes = torch.tensor(rows[own], device=device)
            mixed = functional.embedding_bag(
                nodes, self._nodes, per_sample_weights=weights[own], mode="sum"
            )
            yield mixed.view(-1, *self._size)

    def _computed(self, radii_px: Tensor) -> Tensor:
        return self._grid.quadrant(self._psf, radii_px)


def _slope(encoded: Tensor) -> Tensor:
    """Change of light per change of sRGB (IEC 61966-2-1), which turns noise into that of light."""
    power = encoded.add(0.055).div_(1.055).log_().mul_(1.4).exp_()
    return power.mul_(2.4 / 1.055).clamp_min_(1 / 12.92)


def _around(radii_px: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (k, 4) of the nodes around k radii and their weights in a cubic through them."""
    position = radii_px.flatten().double() * _NODES_PER_PX
    before = position.floor()
    t = position - before
    weights = [
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    ]
    places = before.long()[:, None] + torch.arange(-1, 3, device=radii_px.device)
    return places.abs(), torch.stack(weights, 1)  # transfer functions are even in the radius


def reach_of(radii_px: Tensor, psf: PSF) -> int:
    """Reach [px] of the largest blur, as far as it matters."""
    return math.ceil(min(float(radii_px.max()) * psf.support, LONGEST_REACH_PX))


def fitted_planes(blur_px: Sequence[float], most_px: float) -> list[int]:
    """Indices of planes to fit: all but those between others that are close.

    Args:
        blur_px: (K,) ascending places of the planes, in pixels of blur diameter.
        most_px: distance of neighbours among the fitted, unless the planes are farther apart.
    """
    last = len(blur_px) - 1
    fitted = [0]
    for k in range(1, last + 1):
        if k == last or blur_px[k + 1] - blur_px[fitted[-1]] > most_px:
            fitted.append(k)
    return fitted


def between_planes(
    places: Sequence[float], fitted: Sequence[int]
) -> Iterator[tuple[int, list[int], list[float]]]:
    """The other planes: index, four fitted planes around it, and their weights in a cubic."""
    for k in sorted({*range(len(places))}.difference(fitted)):
        first = min(max(bisect(fitted, k) - 2, 0), max(len(fitted) - 4, 0))
        around = list(fitted[first : first + 4])
        yield k, around, lagrange_weights([places[one] for one in around], places[k])
