"""The learnt gate: two surfaces, weighted by how sure each is."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import TOLERANCE
from pipelines import EXACT, last_layer, physical, quiet

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.errors import InputError
from focaldiffusion.models.gate import (
    _LEAST_SCALE,
    _SURE_STEP,
    _UNSURE_LOG_SCALE,
    fused,
    gated_coordinate,
    surprise,
)
from focaldiffusion.models.surface_code import SurfaceCode

CODE = SurfaceCode("log", near=2.0, far=0.5)


def test_precisions_weigh_both_surfaces() -> None:
    confidence, doubt = torch.tensor([0.0, 0.5, 1.0]), torch.tensor([0.0, -1.0, 2.0])
    surface, scale = fused(torch.zeros(3), torch.ones(3), doubt, confidence)
    for index in range(3):
        b = [
            math.exp(_UNSURE_LOG_SCALE - _SURE_STEP * float(confidence[index])),
            math.exp(_UNSURE_LOG_SCALE + float(doubt[index])),
        ]
        precisions = [one**-2 for one in b]
        assert float(surface[index]) == pytest.approx(precisions[1] / sum(precisions), rel=1e-5)
        assert float(scale[index]) == pytest.approx(
            max(_LEAST_SCALE, sum(precisions) ** -0.5), rel=1e-5
        )


def test_the_loss_is_least_at_the_scale_of_the_error() -> None:
    error = torch.tensor(0.05)
    scales = torch.tensor([_LEAST_SCALE, 0.04, 0.05, 0.06, 1.0])
    losses = surprise(error, scales)
    assert int(losses.argmin()) == 2
    assert float(surprise(torch.tensor(0.0), torch.tensor(_LEAST_SCALE))) == 0
    assert bool((losses > 0).all())


def test_a_sure_network_outweighs_sure_physics_and_the_fixed_gate_does_not() -> None:
    coordinate, refined = torch.full((1, 1), 1.0), torch.full((1, 1), 0.5)
    sure, certain = torch.ones(1, 1), torch.full((1, 1), -6.0)
    learnt = gated_coordinate(refined, certain, CODE, coordinate, sure)
    torch.testing.assert_close(learnt, CODE.decode(refined), rtol=0.01, atol=0)
    fixed = gated_coordinate(refined, None, CODE, coordinate, sure)
    torch.testing.assert_close(fixed, coordinate, **TOLERANCE[torch.float32])


def test_an_unknown_gate_is_refused() -> None:
    with pytest.raises(InputError, match="gate 'open' is unknown; expected confidence, learnt"):
        FocalDiffusionPipeline.from_preset("compact", gate="open")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["compact", "tiny"])
def test_untrained_it_returns_physics_and_saved_it_is_the_same(name: str, tmp_path: Path) -> None:
    stack, estimate = physical()
    model = quiet(FocalDiffusionPipeline.from_preset(name, gate="learnt"))
    if name == "compact":  # the autoencoder of the other changes the surface
        refined = model.refine(stack, estimate)
        torch.testing.assert_close(refined.coordinate, estimate.coordinate, **EXACT)
    with torch.no_grad():
        last_layer(model).weight.normal_(std=0.02, generator=torch.Generator().manual_seed(5))
    model.save_pretrained(tmp_path)
    loaded = quiet(FocalDiffusionPipeline.from_pretrained(tmp_path))
    assert loaded.completer.has_doubt
    one, two = (m.refine(stack, estimate, with_image=True) for m in (model, loaded))
    assert torch.equal(one.coordinate, two.coordinate)
    assert (one.coordinate - estimate.coordinate).abs().max() > 0.01
    assert one.generation.image.shape == (3, *stack.size)
