"""`model.with_prior`: a network sees a prior, and is otherwise the one without."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from depth_networks import save_network
from miniature import empty_prompt, save_base
from pipelines import EXACT, last_layer, physical, quiet
from training_runs import config_of, losses, val_sources

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.checkpoints.hub import widened_base
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.config.data import Source
from focaldiffusion.config.load import load_config
from focaldiffusion.config.run import LossesConfig, ModelConfig
from focaldiffusion.data.cache import write_cache
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.data.photographer import photograph
from focaldiffusion.data.priors import with_network_priors, with_own_prior
from focaldiffusion.data.procedural.scenes import Procedural
from focaldiffusion.data.sample_file import read_sample, write_sample
from focaldiffusion.errors import InputError
from focaldiffusion.models.conditioning import PRIOR_MAPS, condition_channels
from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.priors.given import GivenPrior
from focaldiffusion.progress import Stages
from focaldiffusion.recovery import Estimate, joined_with
from focaldiffusion.stack import FocalStack
from focaldiffusion.training.examples import examples_of
from focaldiffusion.training.objective import Objective, prepare
from focaldiffusion.training.trainer import train

each_start = pytest.mark.parametrize("start", ["estimate", "noise"])
each_preset = pytest.mark.parametrize("name", ["compact", "tiny"])


@cache
def joined() -> tuple[FocalStack, Estimate]:
    """A stack, and its estimate joined with its own surface as a prior, of another scale."""
    stack, estimate = physical()
    values = 3 * estimate.coordinate + 1
    given = Prior(values, PriorKind.AFFINE_INVERSE_DEPTH, "bent")
    return stack, joined_with(stack, estimate, given, Stages())


def model_of(name: str, start: Any = "estimate", *, with_prior: bool) -> FocalDiffusionPipeline:
    return quiet(FocalDiffusionPipeline.from_preset(name, start, with_prior=with_prior))


def awake(model: FocalDiffusionPipeline) -> FocalDiffusionPipeline:
    """As after a step: the last layer has weights."""
    with torch.no_grad():
        last_layer(model).weight.normal_(std=0.02, generator=torch.Generator().manual_seed(5))
    return model


def prior_channels(model: FocalDiffusionPipeline) -> int:
    """Input channels of the prior, the last ones."""
    codec = model.codec.factor, model.vae is None
    return condition_channels(*codec, with_prior=True) - condition_channels(*codec)


def prior_weight(model: FocalDiffusionPipeline) -> torch.Tensor:
    """The columns of the input layer that read the prior; the noise level may follow them."""
    denoiser = model.denoiser
    first = denoiser.conv_in if hasattr(denoiser, "conv_in") else denoiser.pos_embed.proj
    end = denoiser.config.in_channels
    count = prior_channels(model)
    return first.weight.detach()[:, end - count : end]


def test_the_maps_are_the_fitted_prior_and_its_share() -> None:
    stack, estimate = joined()
    proposal, code = model_of("compact", with_prior=True).propose(stack, estimate)
    assert proposal.prior.shape[:2] == (1, len(PRIOR_MAPS))
    fitted, share = proposal.prior[0]
    assert estimate.joined is not None
    assert torch.equal(share, estimate.joined.share)
    # Scale and shift are undone: it is the surface again, but for steps placed on edges.
    off = (code.decode(fitted) - physical()[1].coordinate).abs()
    spread = float(physical()[1].coordinate.std())
    assert float(off.median()) < 0.1 * spread


def test_where_the_prior_is_unknown_the_surface_stands_in() -> None:
    stack, estimate = physical()
    values = estimate.coordinate.clone()
    values[:, :20] = torch.nan
    given = Prior(values, PriorKind.AFFINE_INVERSE_DEPTH, "half")
    found = joined_with(stack, estimate, given, Stages())
    proposal, _ = model_of("compact", with_prior=True).propose(stack, found)
    assert torch.equal(proposal.prior[0, 0, :, :18], proposal.depth_code[0, 0, :, :18])
    assert float(proposal.prior[0, 1, :, :18].max()) == 0


@each_start
@each_preset
def test_untrained_it_is_the_model_without_to_the_bit(name: str, start: str) -> None:
    stack, estimate = joined()
    found = [awake(model_of(name, start, with_prior=one)) for one in (False, True)]
    assert float(prior_weight(found[1]).abs().max()) == 0
    without, shown = (model.refine(stack, estimate).coordinate for model in found)
    assert torch.equal(without, shown)
    if (name, start) == ("compact", "estimate"):
        untouched = model_of(name, with_prior=True).refine(stack, estimate)
        torch.testing.assert_close(untouched.coordinate, estimate.coordinate, **EXACT)


def test_a_widened_base_is_the_same_without_it(tmp_path: Path) -> None:
    stack, estimate = joined()
    found = []
    for with_prior in (False, True):
        config = ModelConfig(
            base_model_id=str(save_base(tmp_path / f"{with_prior}")), with_prior=with_prior
        )
        found.append(awake(quiet(widened_base(config, empty_prompt()))))
    assert float(prior_weight(found[1]).abs().max()) == 0
    assert torch.equal(*(model.refine(stack, estimate).coordinate for model in found))


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Caches of stacks with simulated priors to train on, and with priors of a network to test."""
    folder = tmp_path_factory.mktemp("stacks")
    network = save_network("depth_anything relative", folder / "network")
    block = {
        "dataset_type": "procedural",
        "data_root": [],
        "image_size": [48, 64],
        "focal_stack_size": 3,
        "dataset_kwargs": {"train": {"prior": "simulated"}, "val": {"prior": str(network)}},
    }
    (folder / "stacks.yaml").write_text(json.dumps({"data": block}))
    data = load_config(folder / "stacks.yaml").config.data
    write_cache(open_split(data, "train", 0), folder / "train", count=4, with_evidence=True)
    write_cache(open_split(data, "val", 0), folder / "val", count=1, with_evidence=True)
    return folder


@pytest.mark.parametrize("name", ["compact", "tiny"])
def test_gradients_reach_the_new_weights(name: str, stacks: Path, tmp_path: Path) -> None:
    config = config_of(stacks, tmp_path / "run", model={"preset": name, "with_prior": True})
    (batch,) = batches(open_split(config.data, "train", 0), (0, 1), 2, with_estimates=True)
    model = awake(model_of(name, with_prior=True))
    # Priors that are believed, so that their share is not zero everywhere.
    surfaces = [estimate.coordinate for estimate in batch.estimates if estimate is not None]
    kind = PriorKind.AFFINE_INVERSE_DEPTH
    batch = replace(batch, priors=tuple(Prior(3 * one + 1, kind, "bent") for one in surfaces))
    examples = examples_of(batch, "log", with_stacks=False, with_prior=True)
    part = prepare(model.completer, examples, [torch.Generator().manual_seed(i) for i in (0, 1)])
    Objective(LossesConfig(depth_weight=1)).sums(model.completer, part).sum().backward()
    denoiser = model.denoiser
    first = denoiser.conv_in if name == "compact" else denoiser.pos_embed.proj
    end = denoiser.config.in_channels
    count = prior_channels(model)
    assert bool((first.weight.grad[:, end - count : end].flatten(2).abs().amax((0, 2)) > 0).all())


@pytest.mark.parametrize("name", ["compact", "tiny"])
def test_it_trains_from_kept_examples_and_validates_with_its_prior(
    name: str, stacks: Path, tmp_path: Path
) -> None:
    """The folder of examples carries the prior, in pixels or on the latent grid."""
    training = {"examples_dir": str(tmp_path / "examples"), "num_epochs": 1}
    blocks: dict[str, Any] = {"model": {"preset": name, "with_prior": True}, "training": training}
    train_on = {"name": "train", "dataset_type": "cache", "data_root": str(stacks / "train")}
    sources = {"train_sources": [train_on], "val_sources": val_sources(stacks)}
    ending = train(config_of(stacks, tmp_path / "one", data=sources, **blocks))
    train(config_of(stacks, tmp_path / "two", data=sources, **blocks))
    assert losses(tmp_path / "one") == losses(tmp_path / "two")

    checkpoint = find_checkpoint(str(ending.checkpoint))
    assert checkpoint.description.config.model.with_prior
    loaded = quiet(checkpoint.load())
    stack, estimate = joined()
    assert torch.equal(*(loaded.refine(stack, estimate).coordinate for _ in range(2)))
    with pytest.raises(InputError, match=r"was trained with a prior .* cannot run without one"):
        loaded.refine(*physical())


def test_a_saved_one_is_the_same(tmp_path: Path) -> None:
    model = awake(model_of("compact", with_prior=True))
    with torch.no_grad():
        prior_weight(model).normal_(std=0.1, generator=torch.Generator().manual_seed(6))
    model.save_pretrained(tmp_path)
    stack, estimate = joined()
    loaded = quiet(FocalDiffusionPipeline.from_pretrained(tmp_path))
    one, two = (each.refine(stack, estimate).coordinate for each in (model, loaded))
    assert torch.equal(one, two)
    without = awake(model_of("compact", with_prior=False)).refine(stack, estimate).coordinate
    assert not torch.equal(one, without)


def test_a_cache_holds_the_prior(stacks: Path) -> None:
    sample = read_sample(next(iter(sorted((stacks / "train" / "samples").glob("*.safetensors")))))
    assert sample.prior is not None
    assert sample.prior.kind is PriorKind.AFFINE_INVERSE_DEPTH
    assert sample.prior.size == sample.stack.size
    of_network = read_sample(stacks / "val" / "samples" / "000000.safetensors").prior
    assert of_network is not None
    assert of_network.name == str(stacks / "network")


def test_stacks_of_a_cache_keep_their_prior_or_get_another(stacks: Path, tmp_path: Path) -> None:
    (path,) = (stacks / "val" / "samples").glob("*.safetensors")
    kept = read_sample(path)
    network = scene_source(prior=str(stacks / "network"))
    assert with_network_priors([kept], [network]) == [kept]
    file = scene_source(prior="{name}.npy", prior_kind="metric-depth").options
    assert with_own_prior(kept, file, "nowhere", torch.Generator()) is kept
    other = with_own_prior(kept, scene_source(prior="simulated").options, "", torch.Generator())
    assert other.prior is not None
    assert other.prior.name.startswith("simulated")


def test_a_prior_is_mirrored_with_its_sample(stacks: Path, tmp_path: Path) -> None:
    sources = [{"name": "t", "dataset_type": "cache", "data_root": str(stacks / "train")}]
    block = {"train_sources": sources, "dataset_kwargs": {"transforms": {"flip": True}}}
    config = config_of(stacks, tmp_path / "run", data=block)
    mixture = open_split(config.data, "train", 0)
    turned = 0
    for position in range(8):
        found, plain = mixture[position], mixture.datasets[0][mixture.draw(position).sample]
        flipped = torch.equal(found.depth_m, plain.depth_m.flip(-1))
        expected = plain.prior.values.flip(-1) if flipped else plain.prior.values
        assert torch.equal(found.prior.values, expected)
        turned += flipped
    assert 0 < turned < 8


def test_a_crop_may_leave_nothing_of_a_sparse_prior(stacks: Path, tmp_path: Path) -> None:
    """It is seen as physics alone: the surface stands in for the prior, whose share is zero."""
    config = config_of(stacks, tmp_path / "run")
    (batch,) = batches(open_split(config.data, "train", 0), (0, 1), 2, with_estimates=True)
    sample, other = batch.sample(0), batch.priors[1]
    assert sample.prior is not None
    height, width = sample.valid.shape
    corner = torch.full((height + 1, width), torch.nan)
    corner[0, 0] = 1.0
    sparse = replace(sample.prior, values=corner)
    sample = replace(sample, prior=sparse.mapped(lambda values: values[1:]))
    write_sample(tmp_path / "sample.safetensors", sample)
    left = read_sample(tmp_path / "sample.safetensors").prior
    assert left is not None
    assert left.values.isnan().all()
    shown = replace(batch, priors=(left, other))
    proposal = examples_of(shown, "log", with_stacks=False, with_prior=True).proposal
    assert torch.equal(proposal.prior[0, 0], proposal.depth_code[0, 0])
    assert not proposal.prior[0, 1].any()


def scene_source(**options: Any) -> Source:
    return Source.model_validate(
        {
            "name": "made",
            "split": "train",
            "dataset_type": "procedural",
            "image_size": (48, 64),
            "options": options,
        }
    )


def test_a_file_beside_a_sample(tmp_path: Path) -> None:
    source = scene_source(prior=f"{tmp_path}/{{name}}/prior.npy", prior_kind="affine-inverse-depth")
    scene = Procedural(source)[0]
    (tmp_path / "desk").mkdir()
    np.save(tmp_path / "desk" / "prior.npy", np.full(scene.size, 2.0, np.float32))
    generator = torch.Generator()
    found = with_own_prior(scene, source.options, "desk", generator)
    assert found.prior is not None
    assert float(found.prior.values.mean()) == 2
    shot = photograph(replace(found, focal_range_m=(0.5, 2.0)), source, generator)
    assert shot.prior is found.prior
    with pytest.raises(InputError, match=r"chair/prior\.npy: .*(no such|cannot|missing)"):
        with_own_prior(scene, source.options, "chair", generator)
    unnamed = scene_source(prior="prior.npy").options
    with pytest.raises(InputError, match=r"Give data\.dataset_kwargs\.prior_kind, one of metric"):
        with_own_prior(scene, unnamed, "desk", generator)


def test_what_is_refused(stacks: Path, tmp_path: Path) -> None:
    block: dict[str, Any] = {"dataset_type": "procedural", "dataset_kwargs": {"prior": "simulated"}}
    data = config_of(stacks, tmp_path / "run", data={**block, "train_sources": None}).data
    assert open_split(data, "train", 0).sources[0].options.prior == "simulated"
    with pytest.raises(InputError, match="a simulated prior is made from the truth, which no pred"):
        open_split(data, "val", 0)
    config = config_of(stacks, tmp_path / "run")
    (batch,) = batches(open_split(config.data, "train", 0), (0,), 1, with_estimates=True)
    bare = replace(batch, priors=(None,))
    with pytest.raises(InputError, match=r"has no prior, which model\.with_prior needs"):
        examples_of(bare, "log", with_stacks=False, with_prior=True)
    block = {"train_sources": [{"name": "made", "dataset_type": "procedural"}]}
    options = {"prior": str(stacks / "network")}
    config = config_of(stacks, tmp_path / "run", data={**block, "dataset_kwargs": options})
    with pytest.raises(InputError, match=r"its prior is a network, .* --evidence"):
        write_cache(open_split(config.data, "train", 0), tmp_path / "cache", count=1)


def test_a_model_called_with_a_prior() -> None:
    stack, estimate = physical()
    model = model_of("compact", with_prior=True)
    with pytest.raises(InputError, match="cannot run without one"):
        model(stack)
    prior = GivenPrior(Prior(estimate.coordinate, PriorKind.AFFINE_INVERSE_DEPTH, "itself"))
    assert model(stack, prior=prior).depth_m is not None
