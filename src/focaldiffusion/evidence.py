"""Evidence: the depth information that defocus alone provides."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from focaldiffusion.errors import check_shape
from focaldiffusion.filters import block_mean, bracket
from focaldiffusion.stack import Axis
from focaldiffusion.strips import in_strips

HALF_WINDOWS = (0, 1, 3)
"""Half sides of the windows of `Evidence.wide`, in blocks beyond the one that a pixel lies in; the
long side of an image has about 64 blocks."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """A posterior over depth hypotheses at each pixel, and the first all-in-focus image.

    It hides the number of frames, their focus settings and the lens from its consumers.

    Attributes:
        axis: quantity that the hypotheses measure.
        hypotheses: (K,) ascending, on the scale of `FocalStack.focus_coordinates`.
        posterior: (K, H, W), sums to one over K; flat where defocus shows nothing.
        all_in_focus: (3, H, W) linear RGB, first estimate by the sweep.
        sharpest: (H, W) in the unit of `axis`, focus at which the frames show a pixel best; guides
            fusion. Beside a silhouette, background pixels have the foreground's value, because its
            blur covers them in all other frames.
        never_sharp: (H, W) bool, True where no frame is in focus; all False for evidence from
            sharpness alone.
        wide: (2 V, H, W) posteriors over V windows around each pixel, see `HALF_WINDOWS`, which the
            pixel's own texture does not gate: their means, in the unit of `axis`, then their
            certainty, see `certainty`; None for evidence from a file that does not have them.
    """

    axis: Axis
    hypotheses: Tensor
    posterior: Tensor
    all_in_focus: Tensor
    sharpest: Tensor
    never_sharp: Tensor
    wide: Tensor | None = None

    def __post_init__(self) -> None:
        (count,) = self.hypotheses.shape
        check_shape("Evidence.posterior", self.posterior, (count, "H", "W"))
        height, width = self.posterior.shape[-2:]
        check_shape("Evidence.all_in_focus", self.all_in_focus, (3, height, width))
        check_shape("Evidence.sharpest", self.sharpest, (height, width))
        check_shape("Evidence.never_sharp", self.never_sharp, (height, width))
        if self.wide is not None:
            check_shape("Evidence.wide", self.wide, (2 * len(HALF_WINDOWS), height, width))

    @property
    def mean(self) -> Tensor:
        """(H, W) posterior mean, in the unit of `axis`."""
        return in_strips(
            lambda rows: self._mean(self.posterior[:, rows]),
            self.posterior.shape,
            self.posterior.device,
        )

    @property
    def std(self) -> Tensor:
        """(H, W) posterior standard deviation, in the unit of `axis`."""

        def std(rows: slice) -> Tensor:
            posterior = self.posterior[:, rows]
            offset = self.hypotheses[:, None, None] - self._mean(posterior)
            return (posterior * offset**2).sum(0).sqrt()

        return in_strips(std, self.posterior.shape, self.posterior.device)

    @property
    def entropy(self) -> Tensor:
        """(H, W) entropy of the posterior over log K: 0 is certain, 1 is flat."""
        log_posterior = self.posterior.clamp_min(1e-12).log()
        return -(self.posterior * log_posterior).sum(0) / math.log(len(self.hypotheses))

    @property
    def doubt(self) -> Tensor:
        """(K, H, W) -log of the posterior over its maximum."""
        return self.doubt_of_blocks(1)

    def doubt_of_blocks(self, side_px: int) -> Tensor:
        """(K, h, w) mean doubt over blocks of pixels, see `block_mean`."""

        def doubt(rows: slice) -> Tensor:
            posterior = self.posterior[:, rows]
            likelihood = posterior / posterior.amax(0)
            return block_mean(likelihood.clamp_min(1e-30).log_().neg_(), side_px)

        return in_strips(doubt, self.posterior.shape, self.posterior.device, multiple=side_px)

    def without_posterior(self) -> Evidence:
        """The evidence once its posterior has served: flat, and without memory of its own."""
        count, device = len(self.hypotheses), self.posterior.device
        flat = torch.full((1, 1, 1), 1 / count, device=device).expand(self.posterior.shape)
        return replace(self, posterior=flat)

    def posterior_at(self, coordinate: Tensor) -> Tensor:
        """Posterior (H, W) along a surface (H, W), linear between hypotheses."""
        return between_hypotheses(self.posterior, self.hypotheses, coordinate[None])[0]

    @property
    def certainty(self) -> Tensor:
        """(H, W) in [0, 1]: 1 - (width of the posterior / width under total ignorance)."""
        ignorance = self.hypotheses.std(correction=0)
        return (1 - self.std / ignorance).clamp(0, 1)

    def _mean(self, posterior: Tensor) -> Tensor:
        return (posterior * self.hypotheses[:, None, None]).sum(0)


def between_hypotheses(volume: Tensor, hypotheses: Tensor, surfaces: Tensor) -> Tensor:
    """Sample a volume (K, H, W) along surfaces (P, H, W), linearly between hypotheses.

    Surfaces beyond the outermost of the ascending hypotheses (K,) take its value.

    Returns:
        (P, H, W).
    """
    before, after, share = bracket(surfaces, hypotheses)
    return torch.lerp(volume.gather(0, before), volume.gather(0, after), share)
