from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from sample_stacks import BLUR_SCALE_PX_M, SIZE, photograph, texture

from focaldiffusion.evidence import Evidence
from focaldiffusion.psf import PSF
from focaldiffusion.solve import consistency
from focaldiffusion.solve.complete import Completion, complete
from focaldiffusion.solve.consistency import confidence, rerender_residual
from focaldiffusion.solve.sweep import sweep


def swept(image, depth_m, **changes):
    stack = photograph(image, depth_m, **changes)
    return stack, sweep(stack, BLUR_SCALE_PX_M, PSF())


def residual_of(stack, evidence, inverse_depth_dpt: torch.Tensor) -> torch.Tensor:
    return rerender_residual(stack, evidence, inverse_depth_dpt, BLUR_SCALE_PX_M, PSF())


def trust_of(
    evidence: Evidence, completion: Completion, residual: torch.Tensor | None
) -> torch.Tensor:
    return confidence(evidence, completion.coordinate, completion.agreement, residual)


@pytest.mark.parametrize("error_dpt", [-0.5, 0.5])
def test_true_depth_leaves_a_smaller_residual_than_wrong_depth(error_dpt):
    truth = torch.linspace(0.6, 1.9, SIZE[1]).expand(SIZE)
    stack, evidence = swept(texture(), 1 / truth)
    right = residual_of(stack, evidence, truth)
    wrong = residual_of(stack, evidence, truth + error_dpt)
    assert right.shape == SIZE
    # Rounding and noise leave half a step of 8 bits; the slightly soft blended image the rest.
    assert right.square().mean().sqrt() < 3 / 255
    assert right.square().mean().sqrt() < 0.5 * wrong.square().mean().sqrt()


def test_only_the_wrong_part_is_blamed():
    truth = torch.ones(SIZE)
    stack, evidence = swept(texture(), 1.0)
    claimed = truth.clone()
    claimed[20:50, 30:60] = 2.0
    residual = residual_of(stack, evidence, claimed)
    far_away = residual[:, 75:].mean()
    assert residual[28:42, 38:52].mean() > 3 * far_away


def test_a_bare_wall_has_no_residual_and_still_no_confidence():
    stack, evidence = swept(0.3, 1.0)
    completion = complete(evidence)
    residual = residual_of(stack, evidence, completion.coordinate)
    assert residual.max() < 3 / 255
    assert trust_of(evidence, completion, residual).max() < 0.1


def test_confidence_is_high_on_texture_and_low_beside_it():
    image = texture()
    image[:, :, 48:] = 0.3
    stack, evidence = swept(image, 1.0)
    completion = complete(evidence)
    trust = trust_of(evidence, completion, residual_of(stack, evidence, completion.coordinate))
    assert trust.min() >= 0
    assert trust.max() <= 1
    assert trust[:, :40].median() > 0.8 * SIZE[0] / 100  # of a small image
    assert trust[:, 64:].max() < 0.1


def test_a_residual_lowers_confidence_and_sharpness_alone_is_worth_half():
    _, evidence = swept(texture(), 1.0)
    completion = complete(evidence)
    without = 2 * trust_of(evidence, completion, None)
    torch.testing.assert_close(trust_of(evidence, completion, torch.zeros(SIZE)), without)
    tolerated = torch.full(SIZE, consistency._TOLERATED_RMS)
    at_tolerance = trust_of(evidence, completion, tolerated)
    torch.testing.assert_close(at_tolerance, without * torch.tensor(-0.5).exp())


def test_disagreement_lowers_confidence():
    _, evidence = swept(texture(), 1.0)
    completion = complete(evidence)
    doubted = replace(completion, agreement=completion.agreement * 0.5)
    torch.testing.assert_close(
        trust_of(evidence, doubted, None), 0.5 * trust_of(evidence, completion, None)
    )


def test_a_large_stack_is_checked_at_a_smaller_size():
    size = (120, 480)
    truth = torch.ones(size)
    stack, evidence = swept(texture(size), 1.0, size=size)
    residual = residual_of(stack, evidence, truth)
    assert residual.shape == size
    assert residual.square().mean().sqrt() < 3 / 255
