from __future__ import annotations

import pytest
import torch
from conftest import TOLERANCE
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from focaldiffusion.models.flow import (
    clean_from_velocity,
    draw_sigma,
    noised,
    sample,
    velocity,
)

SHIFTS = (1.0, 3.0)  # SD3.5 samples with 3


def pair(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """Clean and start, (2, 3, 4, 5)."""
    generator = torch.Generator().manual_seed(0)
    clean, start = torch.randn(2, 2, 3, 4, 5, generator=generator, dtype=dtype)
    return clean, start


def scheduler(shift: float = 3.0) -> FlowMatchEulerDiscreteScheduler:
    return FlowMatchEulerDiscreteScheduler(shift=shift)


# The formulas


def test_state_by_hand():
    clean, start = torch.tensor([2.0, 2.0]), torch.tensor([10.0, 10.0])
    x = noised(clean.reshape(2, 1, 1, 1), start.reshape(2, 1, 1, 1), torch.tensor([0.25, 0.5]))
    assert x.flatten().tolist() == [4.0, 6.0]


def test_ends_are_exact():
    clean, start = pair()
    assert torch.equal(noised(clean, start, torch.zeros(2)), clean)
    assert torch.equal(noised(clean, start, torch.ones(2)), start)


def test_velocity_is_the_derivative_of_the_state():
    clean, start = pair(torch.float64)
    before, after = (noised(clean, start, torch.full((2,), s)) for s in (0.3, 0.4))
    torch.testing.assert_close((after - before) / 0.1, velocity(clean, start))


def test_velocity_leads_back_to_clean_from_any_level():
    clean, start = pair(torch.float64)
    sigma = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x = noised(clean, start, sigma)
    torch.testing.assert_close(clean_from_velocity(x, velocity(clean, start), sigma), clean)


def test_state_keeps_the_dtype_of_the_latents():
    clean, start = pair(torch.bfloat16)
    assert noised(clean, start, torch.rand(2)).dtype == torch.bfloat16


# The levels


def test_from_an_estimate_only_its_own_level_is_trained():
    assert draw_sigma("estimate", 5, torch.Generator()).tolist() == [1.0] * 5


def test_from_noise_the_levels_are_logit_normal():
    sigma = draw_sigma("noise", 100_000, torch.Generator().manual_seed(0))
    logit = sigma.logit()
    assert float(logit.mean()) == pytest.approx(0, abs=0.02)  # six standard errors
    assert float(logit.std()) == pytest.approx(1, abs=0.02)
    assert 0 < float(sigma.min()) < float(sigma.max()) < 1


def test_drawn_levels_follow_the_generator():
    first, second = (draw_sigma("noise", 8, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, second)


# Sampling


@pytest.mark.parametrize("shift", SHIFTS)
@pytest.mark.parametrize("steps", [1, 2, 4, 28])
def test_perfect_velocity_lands_on_clean_in_any_number_of_steps(steps, shift):
    clean, start = pair()

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        return (x - clean) / sigma.reshape(-1, 1, 1, 1)  # the only x_0 there is

    found = sample(predict, start, steps, scheduler(shift))
    torch.testing.assert_close(found, clean, **TOLERANCE[torch.float32])


@pytest.mark.parametrize("shift", SHIFTS)
def test_training_and_sampling_agree_on_sigma(shift):
    """Along the true flow, each state that sampling visits is the state training makes at its σ."""
    clean, start = pair()
    seen: list[float] = []

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        assert sigma.shape == (2,)
        torch.testing.assert_close(x, noised(clean, start, sigma), **TOLERANCE[torch.float32])
        seen.append(float(sigma[0]))
        return velocity(clean, start)

    euler = scheduler(shift)
    sample(predict, start, 4, euler)
    even = (1.0, 0.75, 0.5, 0.25)
    assert seen == pytest.approx([shift * s / (1 + (shift - 1) * s) for s in even])
    assert [1000 * sigma for sigma in seen] == pytest.approx(euler.timesteps.tolist())


def test_one_step_from_the_estimate_is_the_formula_of_training():
    clean, start = pair()
    predicted = velocity(clean, start) + 0.1  # an imperfect network
    sigma = draw_sigma("estimate", 2, torch.Generator())
    expected = clean_from_velocity(noised(clean, start, sigma), predicted, sigma)
    found = sample(lambda x, s: predicted, start, 1, scheduler())
    assert torch.equal(found, expected)


def test_zero_velocity_returns_the_start_bit_for_bit():
    _, start = pair()
    # The network may run in bf16; what it leaves unchanged must not be rounded to bf16.
    found = sample(lambda x, s: torch.zeros_like(x).bfloat16(), start, 3, scheduler())
    assert torch.equal(found, start)


def test_steps_from_noise_approach_the_flow_of_a_gaussian():
    """Clean latents of N(0, s²): v = x (σ - (1 - σ) s²) / ((1 - σ)² s² + σ²), whose flow ends at
    s times the noise."""
    s = 0.5
    _, start = pair()

    def predict(x: Tensor, sigma: Tensor) -> Tensor:
        share = sigma.reshape(-1, 1, 1, 1)
        variance = (1 - share) ** 2 * s**2 + share**2
        return x * (share - (1 - share) * s**2) / variance

    errors = [
        float((sample(predict, start, n, scheduler(1.0)) - s * start).abs().max())
        for n in (1, 10, 100)
    ]
    # One step gives the mean of the clean latents, which is not a sample of them.
    assert errors[0] == pytest.approx(s * float(start.abs().max()), rel=1e-5)
    # Euler is of first order.
    assert errors[1] < errors[0] / 4
    assert errors[2] < errors[1] / 8


def test_a_scheduler_serves_again_with_another_number_of_steps():
    clean, start = pair()
    euler = scheduler()
    for steps in (4, 1, 2):
        found = sample(lambda x, s: velocity(clean, start), start, steps, euler)
        torch.testing.assert_close(found, clean, **TOLERANCE[torch.float32])
