"""Examples that are kept: what comes back, that it is read, and what is refused."""

from __future__ import annotations

import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import config_of, losses, state, write_stacks

from focaldiffusion.data.loading import batches, open_split
from focaldiffusion.errors import InputError
from focaldiffusion.models.conditioning import Proposal
from focaldiffusion.training.examples import Truth, examples_of
from focaldiffusion.training.kept import KeptExamples, packed, unpacked
from focaldiffusion.training.stopping import RunningLoss
from focaldiffusion.training.trainer import train

COMPACT = {"preset": "compact"}
PATCHES = {"patch_px": 16, "patches_per_stack": 3}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stacks(tmp_path_factory.mktemp("stacks"), val=0)


def kept_config(stacks: Path, run: Path, directory: Path, **training: Any) -> Any:
    return config_of(
        stacks, run, model=COMPACT, training={"examples_dir": str(directory), **training}
    )


def test_what_is_kept_comes_back(stacks: Path, tmp_path: Path) -> None:
    config = kept_config(stacks, tmp_path / "run", tmp_path / "kept")
    mixture = open_split(config.data, "train", 0)
    kept = KeptExamples.open(config, mixture, None)
    assert kept is not None
    draws = [mixture.draw(position) for position in (0, 1)]
    (batch,) = batches(mixture, (0, 1), 2, with_estimates=True)
    made = examples_of(batch, "log", with_stacks=False)
    assert kept.find(draws) is None
    kept.add(draws[:1], made)
    assert kept.find(draws) is None, "one of the two is not there"
    kept.add(draws, made)
    ((_, small),) = kept.find(draws)
    assert small is not None
    read = unpacked(small)
    for kind, there, here in (
        (Proposal, read.proposal, made.proposal),
        (Truth, read.truth, made.truth),
    ):
        for field in fields(kind):
            found, expected = getattr(there, field.name), getattr(here, field.name)
            if isinstance(found, Tensor) and found.dtype != torch.bool:
                # Half a step of what is signed.
                torch.testing.assert_close(found, expected, rtol=0, atol=0.5 / 127 + 1e-6)
            elif isinstance(found, Tensor):
                assert torch.equal(found, expected)
            else:
                assert found == expected
    surfaces = read.proposal.depth_code, made.proposal.depth_code
    torch.testing.assert_close(*surfaces, rtol=0, atol=3e-4)
    torch.testing.assert_close(read.truth.depth_code, made.truth.depth_code, rtol=0, atol=3e-4)
    alone = kept.read(draws[1:])
    assert torch.equal(alone.proposal.surroundings, small.proposal.surroundings[1:])
    for there, here in zip(
        vars(small.proposal).values(), vars(packed(made).proposal).values(), strict=True
    ):
        assert torch.equal(there, here)
    moved = small.to("meta")
    assert moved.proposal.features.is_meta
    assert moved.truth.depth_code.is_meta


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_from_kept_examples_is_the_run_that_kept_them(
    workers: int, stacks: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "kept"
    blocks: dict[str, Any] = {"model": COMPACT, "data": {"num_workers": workers}}
    training = {"examples_dir": str(directory), **PATCHES}
    first = train(config_of(stacks, tmp_path / "first", training=training, **blocks))
    assert len(list(directory.glob("*.safetensors"))) == 8
    # Nothing of the stacks is read any more.
    config = config_of(stacks, tmp_path / "second", training=training, **blocks)
    shutil.move(str(stacks / "train" / "samples"), str(tmp_path / "away"))
    (stacks / "train" / "samples").mkdir()
    try:
        for path in (tmp_path / "away").iterdir():
            (stacks / "train" / "samples" / path.name).write_bytes(b"nothing")
        second = train(config)
    finally:
        shutil.rmtree(stacks / "train" / "samples")
        shutil.move(str(tmp_path / "away"), str(stacks / "train" / "samples"))
    assert losses(tmp_path / "first") == losses(tmp_path / "second")
    states = state(tmp_path / "first", first.step), state(tmp_path / "second", second.step)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_that_was_killed_keeps_what_it_drew_first(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three samples in batches of two: the second batch has one of either epoch."""
    transforms = {"brightness": 0.5}
    source = {
        "name": "train",
        "dataset_type": "cache",
        "data_root": str(stacks / "train"),
        "max_samples": 3,
        "dataset_kwargs": {"transforms": transforms},
    }

    def config(name: str) -> Any:
        return config_of(
            stacks,
            tmp_path / name,
            model=COMPACT,
            data={"train_sources": [source]},
            training={"num_epochs": 2, "examples_dir": str(tmp_path / f"{name}_kept")},
        )

    train(config("whole"))
    seen, steps = RunningLoss.problem_of, iter(range(9))

    def killed(self: RunningLoss, loss: float) -> str | None:
        if next(steps) == 2:
            raise KeyboardInterrupt
        return seen(self, loss)

    with monkeypatch.context() as patch:
        patch.setattr(RunningLoss, "problem_of", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config("killed"))
    shutil.rmtree(tmp_path / "killed")  # its checkpoints, not what it kept
    train(config("killed"))
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")


def test_a_network_learns_from_patches(stacks: Path, tmp_path: Path) -> None:
    training = {"num_epochs": 6, **PATCHES}
    train(config_of(stacks, tmp_path / "run", model=COMPACT, training=training))
    of_run = losses(tmp_path / "run")
    assert sum(of_run[-8:]) < 0.9 * sum(of_run[:8])


def test_examples_of_another_run_are_refused(stacks: Path, tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    for changes, different in (
        ({}, None),
        ({"model": {**COMPACT, "depth_code": "inverse"}}, "depth_code"),
        (
            {
                "data": {
                    "train_sources": [
                        {
                            "name": "other",
                            "dataset_type": "cache",
                            "data_root": str(stacks / "train"),
                        }
                    ]
                }
            },
            "sources",
        ),
    ):
        config = config_of(
            stacks,
            tmp_path / "run",
            **{"model": COMPACT, "training": {"examples_dir": str(directory)}, **changes},
        )
        mixture = open_split(config.data, "train", 0)
        if different is None:
            KeptExamples.open(config, mixture, None)
            continue
        with pytest.raises(InputError, match=f"holds examples with other {different}"):
            KeptExamples.open(config, mixture, None)
    (directory / "examples.json").write_text("{")
    with pytest.raises(InputError, match=r"examples\.json: is damaged"):
        KeptExamples.open(config, mixture, None)


def test_a_damaged_example_is_named(stacks: Path, tmp_path: Path) -> None:
    config = kept_config(stacks, tmp_path / "run", tmp_path / "kept")
    mixture = open_split(config.data, "train", 0)
    kept = KeptExamples.open(config, mixture, None)
    assert kept is not None
    draw = mixture.draw(0)
    (batch,) = batches(mixture, (0,), 1, with_estimates=True)
    kept.add([draw], examples_of(batch, "log", with_stacks=False))
    (path,) = (tmp_path / "kept").glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match=rf"^{path}: is damaged"):
        kept.find([draw])


def test_without_a_folder_nothing_is_kept(stacks: Path, tmp_path: Path) -> None:
    config = config_of(stacks, tmp_path / "run")
    assert KeptExamples.open(config, open_split(config.data, "train", 0), None) is None


def test_frames_are_not_kept(stacks: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training\.examples_dir with losses"):
        config_of(
            stacks,
            tmp_path / "run",
            training={"examples_dir": "x"},
            losses={"consistency_weight": 1},
        )
