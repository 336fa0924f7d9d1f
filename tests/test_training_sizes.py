"""Sources of several sizes in one batch, and scenes that two splits share."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import exit_code
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import checkpoint, config_of, losses, state

from focaldiffusion.cli.main import main
from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.errors import InputError
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.training.trainer import train

PROCEDURAL = {"dataset_type": "procedural", "data_root": [], "max_samples": 6}
SMALL, LARGE = (32, 48), (48, 32)


def of_two_sizes(**training: Any) -> dict[str, Any]:
    """Changes to a configuration: two sources, four stacks a batch, two workers."""
    sources = [
        {"name": "small", "image_size": SMALL, "weight": 2, **PROCEDURAL},
        {"name": "large", "image_size": LARGE, **PROCEDURAL},
    ]
    return {
        "data": {"train_sources": sources, "focal_stack_size": 3, "num_workers": 2},
        "training": {"batch_size": 4, "num_epochs": 2, **training},
        "output": {"save_top_k": 9},
    }


def test_a_batch_is_one_for_each_size(tmp_path: Path) -> None:
    config = config_of(tmp_path, tmp_path / "run", **of_two_sizes())
    mixture = open_split(config.data, "train", 0)
    parts = list(batches(mixture, range(4), 4, num_workers=1))
    assert sorted(tuple(part.images.shape[-2:]) for part in parts) == [SMALL, LARGE]
    assert sum(map(len, parts)) == 4
    for part in parts:
        alone = next(
            batches(
                mixture, [p for p in range(4) if mixture.image_size(p) == part.valid.shape[1:]], 4
            )
        )
        assert torch.equal(part.images, alone.images)
        assert part.sources == alone.sources


def test_two_sizes_train_and_resume_bit_for_bit(tmp_path: Path) -> None:
    whole, rest = tmp_path / "whole", tmp_path / "rest"
    train(config_of(tmp_path, whole, **of_two_sizes()))
    config = config_of(tmp_path, rest, **of_two_sizes())
    shutil.copytree(checkpoint(whole, 4), checkpoint(rest, 4))
    train(config, "auto")
    assert losses(rest) == losses(whole)[4:]
    one, two = state(whole, 6), state(rest, 6)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_loss_is_that_of_stacks_one_by_one(tmp_path: Path) -> None:
    train(config_of(tmp_path, tmp_path / "four", **of_two_sizes()))
    alone = of_two_sizes(batch_size=1, gradient_accumulation_steps=4)
    train(config_of(tmp_path, tmp_path / "one", **alone))
    assert losses(tmp_path / "one") == pytest.approx(losses(tmp_path / "four"), rel=1e-4)


def test_kept_examples_of_two_sizes_train_as_those_just_made(tmp_path: Path) -> None:
    changes = of_two_sizes(examples_dir=str(tmp_path / "examples"))
    train(config_of(tmp_path, tmp_path / "made", **changes))
    train(config_of(tmp_path, tmp_path / "found", **changes))
    assert losses(tmp_path / "found") == losses(tmp_path / "made")


def test_a_validation_of_several_sources_scores_each(tmp_path: Path) -> None:
    changes = of_two_sizes()
    changes["data"]["val_sources"] = [
        {**source, "max_samples": 1} for source in changes["data"]["train_sources"]
    ]
    changes["training"] = {**changes["training"], "num_epochs": 1}
    train(config_of(tmp_path, tmp_path / "run", **changes))
    lines = map(json.loads, (tmp_path / "run" / "log.jsonl").read_text().splitlines())
    (values,) = (line for line in lines if "val/abs_rel" in line)
    for metric in ("abs_rel", "physics_abs_rel"):
        of_each = [values[f"val/{name}/{metric}"] for name in ("small", "large")]
        assert values[f"val/{metric}"] == pytest.approx(sum(of_each) / 2)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name, value in values.items():
        if name.startswith("val/"):
            (event,) = board.Scalars(name)
            assert (event.step, event.value) == (values["step"], pytest.approx(value))


def test_an_image_beyond_the_table_of_positions_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    longest_px = PRESETS["tiny"].max_side_px
    changes = of_two_sizes(batch_size=1)
    (first, _) = changes["data"]["train_sources"]
    changes["data"]["train_sources"] = [{**first, "image_size": [32, longest_px + 1]}]
    message = rf": {longest_px + 1}x32, but this network takes sides of at most {longest_px} px\."
    with pytest.raises(InputError, match=message):
        train(config_of(tmp_path, tmp_path / "run", **changes))
    assert exit_code(main, "train", "--config", tmp_path / "run.yaml", "--dry-run") == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_scene_of_train_and_val_is_refused(tmp_path: Path) -> None:
    changes = of_two_sizes(batch_size=1)
    image = {"all_in_focus": "a.png", "depth": "a.npy", "scene": "kitchen"}
    changes["data"] = stacks_in_two_splits(tmp_path, image)
    with pytest.raises(InputError, match=r"^scene kitchen is in train .* and in val"):
        train(config_of(tmp_path, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def stacks_in_two_splits(folder: Path, line: dict[str, str]) -> dict[str, Any]:
    """A data block whose two lists have the same line, whose files exist."""
    for name in (line["all_in_focus"], line["depth"]):
        (folder / name).write_bytes(b"")
    for split in ("train", "val"):
        (folder / f"{split}.jsonl").write_text(json.dumps(line) + "\n")
    return {
        "train_sources": None,
        "dataset_type": "filelist",
        "data_root": str(folder),
        "train_filelist": str(folder / "train.jsonl"),
        "val_filelist": str(folder / "val.jsonl"),
        "focal_range": [1.0, 4.0],
    }
