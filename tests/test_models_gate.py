"""The learnt gate: the confidence of physics, corrected by the network."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from conftest import TOLERANCE
from pipelines import EXACT, last_layer, physical, quiet

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.errors import InputError
from focaldiffusion.models.gate import _SUREST, gated_coordinate, share_of_physics
from focaldiffusion.models.surface_code import SurfaceCode

CODE = SurfaceCode("log", near=2.0, far=0.5)


def test_the_say_moves_the_logit_of_confidence() -> None:
    confidence = torch.tensor([0.2, 0.5, 0.9])
    assert torch.equal(share_of_physics(confidence, None), confidence)
    torch.testing.assert_close(share_of_physics(confidence, torch.zeros(3)), confidence)
    for say in (-2.0, 1.5):
        found = share_of_physics(confidence, torch.full((3,), say))
        for share, trust in zip(found.tolist(), confidence.tolist(), strict=True):
            odds = trust / (1 - trust) * math.exp(-say)
            assert share == pytest.approx(odds / (1 + odds), rel=1e-5)


def test_certain_physics_can_still_be_outvoted() -> None:
    certain, loud = torch.ones(1), torch.full((1,), 12.0)
    assert float(share_of_physics(certain, torch.zeros(1))) == pytest.approx(1 - _SUREST)
    assert float(share_of_physics(certain, loud)) < _SUREST


def test_a_sure_network_outweighs_sure_physics_and_the_fixed_gate_does_not() -> None:
    coordinate, refined = torch.full((1, 1), 1.0), torch.full((1, 1), 0.5)
    sure, loud = torch.ones(1, 1), torch.full((1, 1), 12.0)
    learnt = gated_coordinate(refined, loud, CODE, coordinate, sure)
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
    assert loaded.completer.has_say
    one, two = (m.refine(stack, estimate, with_image=True) for m in (model, loaded))
    assert torch.equal(one.coordinate, two.coordinate)
    assert (one.coordinate - estimate.coordinate).abs().max() > 0.01
    assert one.generation.image.shape == (3, *stack.size)
