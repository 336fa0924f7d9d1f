"""The real trainer and the real network can learn: one scene, by heart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from training_runs import config_of, losses, write_stacks

from focaldiffusion.checkpoints.checkpoint import load_model
from focaldiffusion.data.cache import Cache
from focaldiffusion.data.loading import open_split
from focaldiffusion.evaluation.metrics import depth_metrics
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.training.trainer import train

TINY = PRESETS["tiny"]
# The tiny transformer on the patch codec: the tiny autoencoder has random weights, and no latents
# of it decode to a given depth.
PRESET = replace(
    TINY,
    network={
        **TINY.network,
        "attention_head_dim": 32,
        "caption_projection_dim": 64,
        "patch_size": 1,
    },
    autoencoder=None,
    patch_factor=4,
)


def test_one_scene_is_learnt_and_its_depth_beats_physics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "tiny-patches", PRESET)
    config = config_of(
        write_stacks(tmp_path, train=1, val=0),
        tmp_path / "run",
        model={"preset": "tiny-patches"},
        training={"num_epochs": 200, "batch_size": 1, "save_every_n_epochs": 200}
        | {"save_every_n_steps": None},
        optimizer={"learning_rate": 2e-3},
        scheduler={"warmup_steps": 10},
        logging={"log_every_n_steps": 1},
    )
    ending = train(config)
    # From the estimate every loss is measured at sigma = 1.
    found = losses(tmp_path / "run")
    assert found[-1] < found[0] / 10

    dataset = open_split(config.data, "train", 0).datasets[0]
    assert isinstance(dataset, Cache)
    sample = dataset[0]
    assert sample.estimate is not None
    model, estimate = load_model(str(ending.checkpoint)), sample.estimate
    refined = model.refine(sample.stack, estimate)
    # No network moves what physics is sure of: with the truth itself for its output, this is left.
    code = model.propose(sample.stack, estimate)[1]
    given, true = code.encode(estimate.coordinate), code.encode(1 / sample.depth_m)
    perfect = code.decode(given + (1 - estimate.confidence) * (true - given))
    learned, physics, least = (
        depth_metrics(1 / coordinate, sample.depth_m, sample.valid)["abs_rel"]
        for coordinate in (refined.coordinate, estimate.coordinate, perfect)
    )
    assert physics > 1.5 * least
    assert learned - least < (physics - least) / 20
    assert torch.equal(refined.evidence.posterior, estimate.evidence.posterior)
