"""Rectified flow between clean latents and a start.

x_σ = (1 - σ) clean + σ start, so that dx/dσ = start - clean, the velocity that the network
learns. The start is the latents of the physical estimate (one step, deterministic) or noise.
Liu et al., Flow Straight and Fast (2022); Esser et al., Scaling Rectified Flow Transformers (2024).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

Start = Literal["estimate", "noise"]


def noised(clean: Tensor, start: Tensor, sigma: Tensor) -> Tensor:
    """The state at noise level σ: x_σ = (1 - σ) clean + σ start.

    Args:
        clean: (B, C, h, w).
        start: (B, C, h, w).
        sigma: (B,) in [0, 1].

    Returns:
        (B, C, h, w); exactly `clean` at σ = 0 and `start` at σ = 1.
    """
    share = _per_sample(sigma, clean)
    return (1 - share) * clean + share * start


def velocity(clean: Tensor, start: Tensor) -> Tensor:
    """Target of the network at every σ: dx/dσ = start - clean."""
    return start - clean


def clean_from_velocity(x: Tensor, velocity: Tensor, sigma: Tensor) -> Tensor:
    """Clean latents at the end of one step from x_σ along a velocity: x - σ v.

    Args:
        x: (B, C, h, w) state at σ.
        velocity: (B, C, h, w).
        sigma: (B,) in [0, 1].
    """
    return x - _per_sample(sigma, x) * velocity


def draw_sigma(mode: Start, count: int, generator: torch.Generator) -> Tensor:
    """Noise levels to train at.

    estimate: always 1. The start is also in the conditioning, so at any other level the network
    could solve for the clean latents and would learn nothing. noise: logit-normal(0, 1), Esser et
    al. (2024).

    Returns:
        (count,) float32 on the device of the generator.
    """
    if mode == "estimate":
        return torch.ones(count, device=generator.device)
    return torch.randn(count, generator=generator, device=generator.device).sigmoid()


def sample(
    predict_velocity: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,
    steps: int,
    scheduler: FlowMatchEulerDiscreteScheduler,
) -> Tensor:
    """Follow the flow from its start, σ = 1, to clean latents, σ = 0, by Euler steps.

    Args:
        predict_velocity: called with the state (B, C, h, w) and σ (B,) float32, gives (B, C, h, w).
        start: (B, C, h, w).
        steps: number n of Euler steps. They begin at the levels 1, ..., 1/n, which the scheduler
            shifts by its own `shift`.
        scheduler: of the model.

    Returns:
        (B, C, h, w) in the dtype of `start`.
    """
    # The scheduler's own levels end at σ = 0.009, which wastes the last of few steps.
    sigmas = [1 - index / steps for index in range(steps)]
    scheduler.set_timesteps(sigmas=sigmas, device=start.device)
    x = start
    for sigma, time in zip(scheduler.sigmas[:-1], scheduler.timesteps, strict=True):
        # The scheduler returns the dtype of the velocity; low precision would round x.
        predicted = predict_velocity(x, sigma.expand(len(x))).to(x.dtype)
        x = scheduler.step(predicted, time, x, return_dict=False)[0]  # type: ignore[arg-type]
    return x


def _per_sample(sigma: Tensor, like: Tensor) -> Tensor:
    return sigma.to(like).reshape(-1, 1, 1, 1)
