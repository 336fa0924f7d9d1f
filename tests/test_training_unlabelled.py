"""Adaptation to stacks without ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import exit_code
from rooms import room, source
from training_runs import config_of, losses

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.cli.main import main
from focaldiffusion.config.run import Config, ModelConfig
from focaldiffusion.data.cache import write_cache
from focaldiffusion.data.disjoint import check_disjoint
from focaldiffusion.data.dry_run import check_split
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.data.photographer import photograph
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.errors import InputError
from focaldiffusion.io.simulated import write_simulation
from focaldiffusion.training.trainer import train

CONSISTENCY = {"diffusion_weight": 0, "depth_weight": 0, "consistency_weight": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two photographed rooms, as `focaldiffusion simulate` writes them."""
    folder = tmp_path_factory.mktemp("photographed")
    for index in range(2):
        scene = room(index, (48, 64))
        made = photograph(scene, source(), torch.Generator().manual_seed(index))
        depth_m = scene.depth_m.where(scene.valid, torch.nan)
        write_simulation(
            folder / f"room {index}",
            made.stack,
            scene.all_in_focus,
            depth_m,
            bit_depth=8,
            note={"simulated": "in a test"},
        )
    return folder


def blocks(folder: Path) -> dict[str, Any]:
    here = {"name": "mine", "dataset_type": "unlabelled", "data_root": str(folder)}
    return {
        "data": {"train_sources": [here]},
        "losses": CONSISTENCY,
        "training": {"batch_size": 2, "num_epochs": 4},
    }


def test_only_frames_and_their_optics_are_read(folder: Path) -> None:
    sample = open_dataset(source(dataset_type="unlabelled", data_root=str(folder)))[1]
    assert not sample.has_truth
    assert not sample.valid.any()
    assert sample.all_in_focus is None
    assert sample.stack.camera is not None
    assert len(sample.stack) == 3


def test_the_rerender_loss_alone_adapts_a_model(folder: Path, tmp_path: Path) -> None:
    # On the patch codec: images of the tiny model's random autoencoder say nothing.
    name = "compact"
    model = FocalDiffusionPipeline.from_preset(name)
    torch.nn.init.constant_(model.denoiser.conv_out.bias, 0.2)
    config = Config(model=ModelConfig(preset=name))
    save_checkpoint(model, tmp_path / "off", config, {}, adapter_only=False)
    changes = blocks(folder)
    changes["training"] |= {"num_epochs": 6, "start_from": str(tmp_path / "off")}
    changes["optimizer"] = {"learning_rate": 1e-3}
    train(config_of(tmp_path, tmp_path / "run", model={"preset": name}, **changes))
    found = losses(tmp_path / "run")
    assert len(found) == 6
    assert found[-1] < found[0] / 2


def test_losses_that_compare_with_a_truth_are_refused(folder: Path, tmp_path: Path) -> None:
    changes = {**blocks(folder), "losses": {}}
    with pytest.raises(InputError, match="step 1: no stack since the last report has what `losses"):
        train(config_of(tmp_path, tmp_path / "run", **changes))


def test_their_cache_has_no_truth_either(folder: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path, tmp_path / "run", **blocks(folder))
    write_cache(open_split(config.data, "train", 0), tmp_path / "cache", with_evidence=True)
    again = open_dataset(source(dataset_type="cache", data_root=str(tmp_path / "cache")))[0]
    assert not again.has_truth
    assert again.estimate is not None


def test_they_are_varied_as_others_are(folder: Path) -> None:
    options = {"transforms": {"flip": True, "random_crop": True, "scale_range": [0.5, 1.0]}}
    where = source(
        dataset_type="unlabelled", data_root=str(folder), options=options, image_size=(24, 32)
    )
    (batch,) = batches(Mixture([(where, open_dataset(where))], 0, shuffle=True), range(2), 2)
    assert batch.images.shape == (2, 3, 3, 24, 32)
    assert not batch.valid.any()


def test_they_are_kept_apart_from_test_lists(folder: Path, tmp_path: Path) -> None:
    changes = blocks(folder)
    held_out = {"name": "held out", "dataset_type": "stacks", "data_root": str(folder)}
    changes["data"]["test_sources"] = [held_out]
    data = config_of(tmp_path, tmp_path / "run", **changes).data
    checks = [
        check
        for split in ("train", "test")
        for check in check_split(data, split, batch_size=2, seed=0)
    ]
    with pytest.raises(InputError, match=r"scene room 0 is in train \(source mine\) and in test"):
        check_disjoint(checks)


def test_nothing_is_validated_on_them(folder: Path) -> None:
    where = source("mine", dataset_type="unlabelled", data_root=str(folder), split="val")
    with pytest.raises(InputError, match=r"mine: dataset_type unlabelled has no truth to compare"):
        open_dataset(where)


def test_the_dry_run_shows_them(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_of(tmp_path, tmp_path / "run", **blocks(folder))
    assert exit_code(main, "train", "--config", tmp_path / "run.yaml", "--dry-run") == 0
    out = capsys.readouterr().out
    assert "mine (unlabelled, weight 1): 2 samples of 2 scenes" in out
    assert "    depth            none" in out
    assert "mine: one step taken" in out
