"""Shared by tests of training: a cache of small stacks, and runs of the tiny model on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from focaldiffusion.config.data import Split
from focaldiffusion.config.load import load_config
from focaldiffusion.config.run import Config
from focaldiffusion.data.cache import write_cache
from focaldiffusion.data.loading import open_split

STACKS = """
data:
  dataset_type: procedural
  data_root: []
  image_size: [48, 64]
  focal_stack_size: 3
"""


def write_stacks(folder: Path, train: int = 8, val: int = 2) -> Path:
    """Write caches of `train` and `val` stacks, with evidence, to a folder; returns it."""
    (folder / "stacks.yaml").write_text(STACKS)
    data = load_config(folder / "stacks.yaml").config.data
    splits: dict[Split, int] = {"train": train, "val": val}
    for split, count in splits.items():
        if count:
            mixture = open_split(data, split, 0)
            write_cache(mixture, folder / split, count=count, with_evidence=True)
    return folder


def run_yaml(stacks: Path, save_dir: Path, **changes: Any) -> str:
    """The configuration of a run of two epochs, 8 steps, that saves after every second one.

    Args:
        stacks: of `write_stacks`.
        save_dir: of the run.
        changes: whole blocks laid over it.
    """
    blocks = {
        "model": {"preset": "tiny"},
        "data": {
            "train_sources": [
                {"name": "train", "dataset_type": "cache", "data_root": str(stacks / "train")}
            ],
        },
        "training": {"num_epochs": 2, "batch_size": 2, "tuning": "full", "save_every_n_steps": 2},
        "optimizer": {"learning_rate": 1e-3},
        "scheduler": {"type": "cosine", "warmup_steps": 2},
        "losses": {"depth_weight": 1.0},
        "logging": {"log_every_n_steps": 1},
        "output": {"save_dir": str(save_dir)},
    }
    for name, change in changes.items():
        blocks[name] = {**blocks.get(name, {}), **change}
    return json.dumps(blocks)  # which is YAML


def config_of(stacks: Path, save_dir: Path, **changes: Any) -> Config:
    """`run_yaml`, loaded."""
    path = save_dir.with_suffix(".yaml")
    path.write_text(run_yaml(stacks, save_dir, **changes))
    return load_config(path).config


def val_sources(stacks: Path) -> list[dict[str, str]]:
    """`data.val_sources` of the stacks."""
    return [{"name": "val", "dataset_type": "cache", "data_root": str(stacks / "val")}]


def checkpoint(save_dir: Path, step: int) -> Path:
    """The folder of a checkpoint."""
    return save_dir / "checkpoints" / f"step-{step:06d}"


def state(save_dir: Path, step: int) -> dict[str, Tensor]:
    """All numbers of a checkpoint's state of training: weights, mean, optimiser."""
    folder = checkpoint(save_dir, step) / "training"
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= {f"{path.stem} {name}": one for name, one in load_file(path).items()}
    optimizer = torch.load(folder / "optimizer.bin", weights_only=True)["state"]
    for index, values in optimizer.items():
        found |= {f"optimizer {index} {name}": one for name, one in values.items()}
    return found


def losses(save_dir: Path) -> list[float]:
    """The loss of every step, from the log."""
    lines = (save_dir / "log.jsonl").read_text().splitlines()
    values = [json.loads(line) for line in lines]
    return [one["train/loss"] for one in values if "train/loss" in one]
