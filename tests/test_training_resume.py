"""A run that was stopped, killed or damaged goes on as if nothing had been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import names
from training_runs import checkpoint, config_of, losses, run_yaml, state, val_sources, write_stacks

from focaldiffusion.checkpoints.checkpoint import load_model
from focaldiffusion.errors import InputError
from focaldiffusion.training.stopping import RunningLoss
from focaldiffusion.training.trainer import train
from focaldiffusion.training.validation import Validation

ROOT = Path(__file__).resolve().parents[1]
EMA = {"use_ema": True, "ema_decay": 0.5, "max_grad_norm": 1.0}


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stacks(tmp_path_factory.mktemp("stacks"))


def settings(stacks: Path, **training: Any) -> dict[str, Any]:
    """All that a state may hold: momentum, running mean, scores, and a random order."""
    return {
        "data": {"val_sources": val_sources(stacks)},
        "training": {**EMA, **training},
        "scheduler": {"type": "constant"},
        "output": {"save_top_k": 9},
    }


@pytest.fixture(scope="module")
def whole(stacks: Path) -> Path:
    """A run that nothing stopped."""
    train(config_of(stacks, stacks / "whole", **settings(stacks)))
    return stacks / "whole"


def assert_same(one: Path, two: Path, step: int = 8) -> None:
    """Weights, mean and optimiser are the same to the bit, and so is the exported model."""
    first, second = state(one, step), state(two, step)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name
    folders = [checkpoint(run, step) for run in (one, two)]
    exported = [
        (folder / "denoiser/diffusion_pytorch_model.safetensors").read_bytes() for folder in folders
    ]
    assert exported[0] == exported[1]
    notes = [json.loads((folder / "training/progress.json").read_text()) for folder in folders]
    assert notes[0]["best"] == notes[1]["best"]


def test_the_middle_of_an_epoch(stacks: Path, whole: Path, tmp_path: Path) -> None:
    # An epoch has four steps; the run ends at the sixth.
    config = config_of(stacks, tmp_path / "run", **settings(stacks))
    shutil.copytree(checkpoint(whole, 6), checkpoint(tmp_path / "run", 6))
    (tmp_path / "run/log.jsonl").write_text((whole / "log.jsonl").read_text())
    ending = train(config, "auto")
    assert (ending.step, ending.steps) == (8, 8)
    assert ending.checkpoint == checkpoint(tmp_path / "run", 8)
    assert_same(whole, tmp_path / "run")
    assert losses(tmp_path / "run") == losses(whole), "no step is logged twice"


def test_another_split_into_batches_goes_on_with_the_same_stacks(
    stacks: Path, whole: Path, tmp_path: Path
) -> None:
    changes = settings(stacks, batch_size=1, gradient_accumulation_steps=2)
    config = config_of(stacks, tmp_path / "run", **changes)
    train(config, str(checkpoint(whole, 4)))
    assert losses(tmp_path / "run") == pytest.approx(losses(whole)[4:], rel=1e-5)
    more = config_of(stacks, tmp_path / "more", **settings(stacks, batch_size=4))
    with pytest.raises(InputError, match="trained with 2 stacks a step, and this run has 4"):
        train(more, str(checkpoint(whole, 4)))


def stopping_at(step: int, stop: Callable[[], Any]) -> Callable[[RunningLoss, float], str | None]:
    """A `RunningLoss.problem_of` during whose call for a step something happens."""
    seen = RunningLoss.problem_of
    calls = iter(range(1, 1000))

    def problem_of(self: RunningLoss, loss: float) -> str | None:
        if next(calls) == step:
            stop()
        return seen(self, loss)

    return problem_of


@pytest.mark.parametrize("step", [3, 4, 8])
def test_sigterm_or_a_closed_terminal_saves_and_the_run_goes_on(
    step: int,
    stacks: Path,
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = config_of(stacks, tmp_path / "run", **settings(stacks))
    with monkeypatch.context() as patch:
        number = signal.SIGHUP if step == 4 else signal.SIGTERM
        terminate = stopping_at(step, lambda: os.kill(os.getpid(), number))
        patch.setattr(RunningLoss, "problem_of", terminate)
        ending = train(config)
    assert (ending.step, ending.steps) == (step, 8)
    assert ending.checkpoint == checkpoint(tmp_path / "run", step)
    assert f"stopped at step {step} of 8; go on with --resume auto" in capsys.readouterr().out
    train(config, "auto")
    assert_same(whole, tmp_path / "run")
    # A validation that was due at that step is made up for.
    printed = capsys.readouterr().out
    assert printed.count("validation after step") == (1 if step == 8 else 2)
    best = (tmp_path / "run" / "checkpoints" / "best").resolve().name
    assert best == (whole / "checkpoints" / "best").resolve().name


def test_a_validation_that_lacks_memory_costs_nothing(
    stacks: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(stacks, tmp_path / "run", **settings(stacks))

    def out_of_memory(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Validation, "__call__", out_of_memory)
        with pytest.raises(InputError, match=r"out of memory\. Settings that need less"):
            train(config)
    assert names(tmp_path / "run" / "checkpoints")[-1] == "step-000004"
    train(config, "auto")
    assert_same(whole, tmp_path / "run")


KILLED = """
import os, signal, sys
from pathlib import Path
from focaldiffusion.config.load import load_config
from focaldiffusion.training import state, trainer
digests = state._digests
def killed(folder):
    if "000004" in folder.name:
        os.kill(os.getpid(), signal.SIGKILL)
    return digests(folder)
state._digests = killed
trainer.train(load_config(Path(sys.argv[1])).config, cpu=True)
"""


def test_killed_while_a_checkpoint_is_written(stacks: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = config_of(stacks, run, **settings(stacks))
    command = [sys.executable, "-c", KILLED, str(run.with_suffix(".yaml"))]
    killed = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert names(run / "checkpoints") == [".step-000004.partial", "step-000002"]
    train(config, "auto")
    assert_same(whole, run)
    assert names(run / "checkpoints") == ["best", *(f"step-00000{i}" for i in (2, 4, 6, 8))]


def started(config: Path) -> subprocess.Popen[str]:
    """A run of the documented command, in a group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "script.train", "--config", str(config), "--device", "cpu"],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_command_is_killed_in_the_middle_of_an_epoch(
    number: signal.Signals, stacks: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    changes = settings(stacks, num_epochs=1000, val_every_n_epochs=1000, save_every_n_epochs=1000)
    # With a worker, which the signal to the whole group reaches as well.
    changes["data"]["num_workers"] = 1
    config = tmp_path / "run.yaml"
    config.write_text(run_yaml(stacks, run, **changes))
    process = started(config)
    wait_for(lambda: (run / "log.jsonl").exists() and len(losses(run)) >= 3, process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    if number == signal.SIGTERM:
        assert process.returncode == 0, err
        assert "; go on with --resume auto" in out
        assert err == ""
    else:
        assert process.returncode == -number
    saved = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    # To the end of the epoch after, and as far without a pause.
    changes["training"]["num_epochs"] = saved // 4 + 1
    last = 4 * (saved // 4 + 1)
    train(config_of(stacks, run, **changes), "auto")
    train(config_of(stacks, tmp_path / "whole", **changes))
    assert_same(tmp_path / "whole", run, last)


# Damage


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    stacks: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    for step in (2, 4, 6):
        shutil.copytree(checkpoint(whole, step), checkpoint(run, step))
    shutil.copytree(checkpoint(whole, 6), run / "checkpoints" / "step-000006-mine")
    cut = checkpoint(run, 6) / "training" / "optimizer.bin"
    cut.write_bytes(cut.read_bytes()[:-1])
    flipped = checkpoint(run, 4) / "denoiser" / "diffusion_pytorch_model.safetensors"
    content = bytearray(flipped.read_bytes())
    content[-7] ^= 1
    flipped.write_bytes(content)
    config = config_of(stacks, run, **settings(stacks))
    for step, file in ((6, cut), (4, flipped)):
        name = file.relative_to(checkpoint(run, step)).as_posix()
        message = rf"step-00000{step}: is damaged: {name} has changed\. Give another"
        with pytest.raises(InputError, match=message):
            train(config, str(checkpoint(run, step)))
    train(config, "auto")
    out = capsys.readouterr().out
    for step in (6, 4):
        assert f"step-00000{step}: is damaged" in out
    assert f"going on from {checkpoint(run, 2)}, step 2 of 8" in out
    assert_same(whole, run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "files.json").unlink(), "is not a checkpoint to resume"),
        (
            lambda folder: (folder / "files.json").write_text("{"),
            "is not a checkpoint to resume",
        ),
        (
            lambda folder: (folder / "focaldiffusion.json").unlink(),
            "is damaged: focaldiffusion.json is",
        ),
    ],
)
def test_what_is_no_whole_checkpoint_is_refused(
    change: Callable[[Path], Any], message: str, stacks: Path, whole: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint(whole, 2), tmp_path / "one")
    change(tmp_path / "one")
    with pytest.raises(InputError, match=f"one: {message}"):
        train(config_of(stacks, tmp_path / "run", **settings(stacks)), str(tmp_path / "one"))


def test_a_run_is_not_written_over(stacks: Path, whole: Path) -> None:
    config = config_of(stacks, whole, **settings(stacks))
    before = names(whole / "checkpoints")
    with pytest.raises(InputError, match=r"already holds a run\. Go on with it by --resume auto"):
        train(config)
    with pytest.raises(InputError, match=r"is of step 4, but .* already has step-000008"):
        train(config, str(checkpoint(whole, 4)))
    assert names(whole / "checkpoints") == before


@pytest.mark.parametrize(
    ("block", "change", "key"),
    [
        ("optimizer", {"learning_rate": 1.0}, "optimizer.learning_rate"),
        ("model", {"depth_code": "inverse"}, "model.depth_code"),
        ("data", {"image_size": [48, 64]}, "data.image_size"),
    ],
)
def test_what_would_make_it_another_run_is_refused(
    block: str, change: dict[str, Any], key: str, stacks: Path, whole: Path, tmp_path: Path
) -> None:
    changes = settings(stacks)
    changes[block] = {**changes.get(block, {}), **change}
    with pytest.raises(InputError, match=f"was trained with another {key}"):
        train(config_of(stacks, tmp_path / "run", **changes), str(checkpoint(whole, 2)))
    assert not (tmp_path / "run").exists()
    before = (whole / "config.yaml").read_bytes()
    with pytest.raises(InputError, match=f"was trained with another {key}"):
        train(config_of(stacks, whole, **changes), "auto")
    assert (whole / "config.yaml").read_bytes() == before


# Checkpoints that are kept


def test_the_newest_and_the_best_are_kept(stacks: Path, tmp_path: Path) -> None:
    changes = settings(stacks)
    changes["output"] = {"save_top_k": 1}
    # At this rate the model is best, which is at its start, when it is first validated.
    changes["optimizer"] = {"learning_rate": 0.1}
    config = config_of(stacks, tmp_path / "run", **changes)
    train(config)
    folder = tmp_path / "run" / "checkpoints"
    note = json.loads((folder / "step-000008/training/progress.json").read_text())
    best = f"step-{note['best_step']:06d}"
    assert names(folder) == sorted({"best", best, "step-000008"})
    assert (folder / "best").readlink() == Path(best)
    lines = (tmp_path / "run/log.jsonl").read_text().splitlines()
    scores = {
        one["step"]: one["val/abs_rel"] for one in map(json.loads, lines) if "val/abs_rel" in one
    }
    assert scores.keys() == {4, 8}
    assert scores[note["best_step"]] == min(scores.values()) == pytest.approx(note["best"])
    assert load_model(str(folder / "best")).name_or_path == str(folder / "best")


def test_the_export_is_of_the_mean_and_the_state_of_the_weights(whole: Path) -> None:
    exported = load_model(str(checkpoint(whole, 8))).denoiser.state_dict()
    found = state(whole, 8)
    moving = [name.removeprefix("mean ") for name in found if name.startswith("mean ")]
    assert len(moving) > 10
    for name in moving:
        assert torch.equal(exported[name], found[f"mean {name}"])
    assert any(not torch.equal(exported[name], found[f"trained {name}"]) for name in moving)
