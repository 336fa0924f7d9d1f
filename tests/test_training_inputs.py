"""`model.with_wide` and `model.depth_in_pixels`: one adds inputs, the other changes the state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from miniature import TINY, empty_prompt, save_base
from pipelines import EXACT, each_preset, each_start, last_layer, physical, quiet
from test_checkpoint import saved_adapter
from training_runs import config_of, losses, write_stacks

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.checkpoints.hub import widened_base
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.config.run import LossesConfig, ModelConfig
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.errors import InputError
from focaldiffusion.models.conditioning import WIDE_MAPS
from focaldiffusion.training.examples import examples_of
from focaldiffusion.training.objective import Objective, prepare
from focaldiffusion.training.trainer import train

WIDE, PIXELS = {"with_wide": True}, {"depth_in_pixels": True}


def model_of(name: str, start: Any = "estimate", **keys: bool) -> FocalDiffusionPipeline:
    return quiet(FocalDiffusionPipeline.from_preset(name, start, **keys))


def awake(model: FocalDiffusionPipeline) -> FocalDiffusionPipeline:
    """As after a step: the last layer has weights."""
    with torch.no_grad():
        last_layer(model).weight.normal_(std=0.02, generator=torch.Generator().manual_seed(5))
    return model


def first_layer(model: FocalDiffusionPipeline) -> torch.nn.Conv2d:
    denoiser = model.denoiser
    return denoiser.conv_in if hasattr(denoiser, "conv_in") else denoiser.pos_embed.proj


def inputs_of_windows(model: FocalDiffusionPipeline, weights: torch.Tensor) -> torch.Tensor:
    """Those columns of the input layer; the noise level of a small network follows them."""
    end = model.denoiser.config.in_channels
    return weights[:, end - WIDE_MAPS : end]


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stacks(tmp_path_factory.mktemp("stacks"), train=4, val=0)


def test_the_network_is_shown_codes_and_certainties() -> None:
    stack, estimate = physical()
    proposal, code = model_of("compact", **WIDE).propose(stack, estimate)
    assert estimate.evidence.wide is not None
    means, certainties = estimate.evidence.wide[None].chunk(2, dim=1)
    assert torch.equal(proposal.wide, torch.cat([code.encode(means), certainties], 1))
    assert model_of("compact").propose(stack, estimate)[0].wide.shape[1] == 0


@each_start
@each_preset
def test_untrained_windows_change_nothing_to_the_bit(name: str, start: str) -> None:
    stack, estimate = physical()
    found = [awake(model_of(name, start, with_wide=one)) for one in (False, True)]
    assert (
        float(inputs_of_windows(found[1], first_layer(found[1]).weight.detach()).abs().max()) == 0
    )
    without, shown = (model.refine(stack, estimate).coordinate for model in found)
    assert torch.equal(without, shown)


def test_a_widened_base_is_the_same_with_windows(tmp_path: Path) -> None:
    stack, estimate = physical()
    base = str(save_base(tmp_path / "base"))
    found = [
        awake(quiet(widened_base(ModelConfig(base_model_id=base, with_wide=one), empty_prompt())))
        for one in (False, True)
    ]
    assert torch.equal(*(model.refine(stack, estimate).coordinate for model in found))


@each_start
def test_a_widened_base_with_depth_in_pixels_starts_at_physics(tmp_path: Path, start: Any) -> None:
    """From the estimate it returns physics; from noise its image half is that of the base."""
    base = str(save_base(tmp_path / "base"))
    configs = [ModelConfig(base_model_id=base, start=start, **keys) for keys in ({}, PIXELS)]
    plain, model = (quiet(widened_base(one, empty_prompt())) for one in configs)
    channels = model.codec.channels
    assert model.codec.depth_channels == TINY.factor**2
    assert model.denoiser.config.out_channels == channels + TINY.factor**2
    stack, estimate = physical()
    if start == "estimate":
        refined = model.refine(stack, estimate)
        torch.testing.assert_close(refined.coordinate, estimate.coordinate, **EXACT)
        return
    velocities = []
    for one in (plain, model):
        cells = torch.Generator().manual_seed(0)
        image = torch.randn(1, channels, 4, 4, generator=cells)
        depth = torch.zeros(1, one.codec.depth_channels, 4, 4)
        inputs = one.denoiser.config.in_channels - channels - depth.shape[1]
        state = torch.cat([image, depth], 1)
        condition = torch.zeros(1, inputs, 4, 4)
        velocities.append(one.completer.velocity(state, torch.ones(1), condition))
    torch.testing.assert_close(*(one[:, :channels] for one in velocities), **EXACT)
    assert float(velocities[1][:, channels:].detach().abs().max()) == 0


def test_gradients_reach_the_inputs_of_windows(stacks: Path, tmp_path: Path) -> None:
    config = config_of(stacks, tmp_path / "run")
    (batch,) = batches(open_split(config.data, "train", 0), (0, 1), 2, with_estimates=True)
    for name in ("compact", "tiny"):
        model = awake(model_of(name, **WIDE))
        examples = examples_of(batch, "log", with_stacks=False, **WIDE)
        generators = [torch.Generator().manual_seed(i) for i in (0, 1)]
        part = prepare(model.completer, examples, generators)
        Objective(LossesConfig(depth_weight=1)).sums(model.completer, part).sum().backward()
        gradient = inputs_of_windows(model, first_layer(model).weight.grad)
        assert bool((gradient.abs().amax((0, 2, 3)) > 0).all())


def test_depth_in_pixels_never_meets_the_decoder(stacks: Path, tmp_path: Path) -> None:
    """Neither in a step of training with losses on depth, nor in use."""
    config = config_of(stacks, tmp_path / "run")
    (batch,) = batches(open_split(config.data, "train", 0), (0, 1), 2, with_estimates=True)
    model = model_of("tiny", **PIXELS)
    decoded: list[int] = []
    model.vae.decoder.register_forward_hook(lambda *_: decoded.append(1))
    examples = examples_of(batch, "log", with_stacks=False, with_image=False)
    part = prepare(model.completer, examples, [torch.Generator().manual_seed(i) for i in (0, 1)])
    objective = Objective(LossesConfig(depth_weight=1))
    sums = objective.sums(model.completer, part)
    sums[list(objective.terms).index("depth_l1")].backward()
    rows = model.denoiser.proj_out.weight.grad.unflatten(0, (4, -1))
    image, depth = rows.split([model.codec.channels, model.codec.depth_channels], dim=1)
    assert image.abs().max() == 0
    assert bool((depth.abs().amax((0, 2)) > 0).all())
    model.refine(*physical())
    assert not decoded
    model.refine(*physical(), with_image=True)
    assert decoded


@pytest.mark.parametrize(
    ("name", "keys"), [("compact", WIDE), ("tiny", WIDE), ("tiny", PIXELS), ("tiny", WIDE | PIXELS)]
)
def test_it_trains_from_kept_examples_and_is_saved_and_loaded(
    name: str, keys: dict[str, bool], stacks: Path, tmp_path: Path
) -> None:
    training = {"examples_dir": str(tmp_path / "examples"), "num_epochs": 1}
    blocks: dict[str, Any] = {"model": {"preset": name, **keys}, "training": training}
    ending = train(config_of(stacks, tmp_path / "one", **blocks))
    train(config_of(stacks, tmp_path / "two", **blocks))
    assert losses(tmp_path / "one") == losses(tmp_path / "two")

    loaded = quiet(find_checkpoint(str(ending.checkpoint)).load())
    again = quiet(find_checkpoint(str(ending.checkpoint)).load())
    found, twice = (model.refine(*physical()) for model in (loaded, again))
    assert torch.equal(found.coordinate, twice.coordinate)
    assert not torch.equal(found.coordinate, physical()[1].coordinate)
    assert found.generation is not None
    assert {key: found.generation.provenance[key] for key in keys} == keys


def test_an_adapter_comes_back_with_its_inputs_and_state(tmp_path: Path) -> None:
    made = quiet(
        saved_adapter(tmp_path / "adapter", save_base(tmp_path / "base"), **WIDE, **PIXELS)
    )
    loaded = quiet(find_checkpoint(str(tmp_path / "adapter")).load())
    assert torch.equal(*(one.refine(*physical()).coordinate for one in (made, loaded)))
    untouched = physical()[1].coordinate
    assert not torch.equal(loaded.refine(*physical()).coordinate, untouched)


def test_what_is_refused(stacks: Path, tmp_path: Path) -> None:
    config = config_of(stacks, tmp_path / "run")
    (batch,) = batches(open_split(config.data, "train", 0), (0,), 1, with_estimates=True)
    (estimate,) = batch.estimates
    assert estimate is not None
    old = replace(estimate, evidence=replace(estimate.evidence, wide=None))
    with pytest.raises(InputError, match=r"without wide windows, which model\.with_wide needs"):
        examples_of(replace(batch, estimates=(old,)), "log", with_stacks=False, **WIDE)
    with pytest.raises(InputError, match="depth_in_pixels: a network without an autoencoder"):
        model_of("compact", **PIXELS)
