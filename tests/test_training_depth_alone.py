"""`model.with_image: false`: depth trains as before, and the image half costs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from rooms import photographed, room
from training_runs import config_of, write_stacks

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.config.run import LossesConfig
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.errors import InputError
from focaldiffusion.models.completer import Sampling
from focaldiffusion.training.examples import examples_of
from focaldiffusion.training.objective import Objective, prepare
from focaldiffusion.training.trainer import train

ALONE = {"preset": "tiny", "with_image": False}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stacks(tmp_path_factory.mktemp("stacks"), val=0)


def test_depth_trains_as_with_an_image_half_of_no_weight(stacks: Path, tmp_path: Path) -> None:
    """Errors of depth are equal, and a true image is not coded."""
    config = config_of(stacks, tmp_path / "run")
    mixture = open_split(config.data, "train", 0)
    (batch,) = batches(mixture, (0, 1), 2, with_estimates=True)
    pipeline = FocalDiffusionPipeline.from_preset("tiny")
    completer, channels = pipeline.completer, pipeline.codec.channels
    objective = Objective(LossesConfig(depth_weight=1))
    coded: list[int] = []
    pipeline.vae.encoder.register_forward_hook(lambda *_: coded.append(1))
    sums, gradients, calls = [], [], []
    for with_image in (True, False):
        examples = examples_of(batch, "log", with_stacks=False, with_image=with_image)
        coded.clear()
        part = prepare(completer, examples, [torch.Generator().manual_seed(i) for i in (0, 1)])
        calls.append(len(coded))
        pipeline.denoiser.zero_grad()
        found = objective.sums(completer, part)
        found[list(objective.terms).index("depth_l1")].backward()
        sums.append(found.detach())
        moving = pipeline.denoiser.parameters()
        gradients.append([one.grad.clone() for one in moving if one.grad is not None])
        assert bool(part.latent_valid[:, :channels].any()) is with_image
    assert calls == [4, 3]
    # Products of matrices round differently where memory is aligned differently.
    torch.testing.assert_close(sums[0][1:], sums[1][1:])
    for one, two in zip(*gradients, strict=True):
        assert (one - two).norm() <= 1e-4 * one.norm()


def test_the_flow_leaves_the_image_half_alone(stacks: Path, tmp_path: Path) -> None:
    """Its output layer gets no gradient in the rows of the image."""
    config = config_of(stacks, tmp_path / "run")
    mixture = open_split(config.data, "train", 0)
    (batch,) = batches(mixture, (0, 1), 2, with_estimates=True)
    pipeline = FocalDiffusionPipeline.from_preset("tiny")
    examples = examples_of(batch, "log", with_stacks=False, with_image=False)
    part = prepare(pipeline.completer, examples, [torch.Generator().manual_seed(i) for i in (0, 1)])
    Objective(LossesConfig(diffusion_weight=1)).sums(pipeline.completer, part).sum().backward()
    # Rows are (row, column, channel) of a token, the channel fastest.
    rows = pipeline.denoiser.proj_out.weight.grad.unflatten(0, (4, -1))
    image, depth = rows.split([pipeline.codec.channels, pipeline.codec.depth_channels], dim=1)
    assert image.abs().max() == 0
    assert depth.abs().max() > 0


def test_a_model_of_depth_alone_fills_nothing(stacks: Path, tmp_path: Path) -> None:
    ending = train(config_of(stacks, tmp_path / "run", model=ALONE))
    checkpoint = find_checkpoint(str(ending.checkpoint))
    assert checkpoint.description.config.model.with_image is False
    pipeline = checkpoint.load()
    pipeline.check_inputs(Sampling(), with_image=False, has_prior=False)
    stack = photographed(focus_distances_m=torch.tensor([1.0, 2.0]), camera=room().camera).stack
    assert pipeline(stack).depth_m is not None
    with pytest.raises(InputError, match=r"fill_unsharp: this model was trained for depth alone"):
        pipeline(stack, fill_unsharp=True)


@pytest.mark.parametrize(
    ("blocks", "other"),
    [
        ({"losses": {"rgb_weight": 1}}, r"losses\.rgb_weight"),
        ({"losses": {"consistency_weight": 1}}, r"losses\.consistency_weight"),
        ({"model": {**ALONE, "start": "noise"}}, "model.start noise"),
    ],
)
def test_what_needs_the_image_half_is_named(
    stacks: Path, tmp_path: Path, blocks: dict, other: str
) -> None:
    with pytest.raises(InputError, match=rf"with_image false with {other}, which needs the image"):
        config_of(stacks, tmp_path / "run", **{"model": ALONE, **blocks})
