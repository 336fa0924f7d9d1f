"""Runs of `focaldiffusion evaluate` written by tests, and predictions of their models."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fixtures import stacks
from torch import Tensor

from focaldiffusion.evaluation.baselines import open_model
from focaldiffusion.evaluation.physical import PhysicalEstimates
from focaldiffusion.evaluation.protocols import PROTOCOLS
from focaldiffusion.evaluation.records import RUN, Record, write_records


def record(
    sample: str,
    model: str,
    metrics: dict[str, float] | None,
    *,
    protocol: str = "rgbd",
    variant: str | None = None,
    scene: str | None = None,
    counted: bool = True,
    **more: Any,
) -> Record:
    """A record of a sample; without metrics, a failed one."""
    return Record(
        protocol=protocol,
        variant=variant,
        sample=sample,
        scene=scene or sample,
        counted=counted,
        model=model,
        status="done" if metrics is not None else "failed",
        error=None if metrics is not None else "the frames are too dark to tell.",
        metrics=metrics or {},
        **more,
    )


def write_run(directory: Path, records: Iterable[Record]) -> Path:
    """Write a folder like that of a finished run."""
    directory.mkdir(parents=True, exist_ok=True)
    write_records(directory, records)
    facts = {
        "focaldiffusion": "0.1.0",
        "command": ["focaldiffusion", "evaluate", "--output-dir", "my run"],
        "plan": {"protocol": "rgbd", "max_samples": None},
        "started": "2025-01-02 03:04:05+0000",
        "packages": {"torch": "2.9.0"},
        "processor": "A Processor",
        "gpu": None,
    }
    (directory / RUN).write_text(json.dumps(facts), encoding="utf-8")
    return directory


def said_of_the_first(model: str, root: Path) -> list[Tensor]:
    """All outputs of a model for the first stack of a folder, and the entropy of its evidence."""
    protocol = PROTOCOLS["stacks"]
    dataset = protocol.open(root)
    stack = protocol.sample(dataset, 0).stack
    estimates = PhysicalEstimates("cpu")
    found = open_model(model, estimates=estimates).predict(stack, dataset.name(0))
    maps = (found.depth_m, found.all_in_focus, found.confidence)
    return [*(one for one in maps if one is not None), estimates.of(stack).entropy()]


def check_that_truth_is_not_seen(model: str, root: Path, name: str) -> None:
    """Replace the truth of the first stack by noise: outputs of a model must stay, bit for bit."""
    before = said_of_the_first(model, root)
    generator = np.random.default_rng(0)
    truth = root / name / "truth"
    np.savez(truth / "depth.npz", depth=generator.uniform(0.1, 9, stacks.SIZE).astype("float32"))
    (truth / "all_in_focus.png").unlink()
    after = said_of_the_first(model, root)
    assert len(before) == len(after) > 1
    for one, other in zip(before, after, strict=True):
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))
