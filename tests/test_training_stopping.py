"""A loss that makes no sense, nothing to compare with, too little memory: one sentence each."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from command_line import names
from safetensors import safe_open
from training_runs import checkpoint, config_of, write_stacks

from focaldiffusion.config.run import TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.models.completer import Completer
from focaldiffusion.training.stopping import RunningLoss, memory_explained
from focaldiffusion.training.trainer import train


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stacks(tmp_path_factory.mktemp("stacks"), train=4, val=0)


def test_nan_stops_with_the_batch_kept(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    velocity, calls = Completer.velocity, []

    def fails(self: Completer, *arguments: torch.Tensor) -> torch.Tensor:
        calls.append(None)
        return velocity(self, *arguments) * (math.nan if len(calls) == 6 else 1)

    monkeypatch.setattr(Completer, "velocity", fails)
    # Two passes a step, so the third step fails, in its second part.
    training = {"batch_size": 1, "gradient_accumulation_steps": 2}
    with pytest.raises(InputError) as error:
        train(config_of(stacks, run, training=training))
    message = str(error.value)
    assert message.startswith(f"step 3: the loss is nan. Its batch is kept in {run / 'bad_batch'};")
    assert "\n" not in message
    assert names(run / "bad_batch") == ["0-0.safetensors", "0-1.safetensors"]
    with safe_open(run / "bad_batch" / "0-1.safetensors", framework="pt") as file:
        assert {"depth_code", "valid", "image", "sigma", "condition"} <= set(file.keys())
        assert file.get_tensor("image").shape == (1, 3, 48, 64)
        assert json.loads(file.metadata()["sources"])[0].startswith("procedural train")
    # The step did not reach the weights: the run goes on from the last checkpoint.
    monkeypatch.setattr(Completer, "velocity", velocity)
    assert train(config_of(stacks, run, training=training), "auto").step == 4


@pytest.mark.parametrize("max_grad_norm", [1.0, None])
def test_a_gradient_that_is_not_finite_stops_before_the_step(
    max_grad_norm: float | None, stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    velocity = Completer.velocity

    def fails(self: Completer, *arguments: torch.Tensor) -> torch.Tensor:
        found = velocity(self, *arguments)
        found.register_hook(lambda gradient: gradient * math.inf)
        return found

    monkeypatch.setattr(Completer, "velocity", fails)
    config = config_of(stacks, tmp_path / "run", training={"max_grad_norm": max_grad_norm})
    with pytest.raises(InputError, match=r"step 1: the loss is [0-9.]+, of gradient (nan|inf)"):
        train(config)
    assert not checkpoint(tmp_path / "run", 2).exists()


def test_an_exploding_loss_is_noticed_once_there_is_a_mean() -> None:
    running = RunningLoss()
    assert running.problem_of(1.0) is None
    for _ in range(400):
        assert running.problem_of(0.01) is None
    assert running.problem_of(0.5) is None
    assert "more than 100 times its mean of" in (running.problem_of(1e3) or "")
    assert running.problem_of(math.inf) == "inf"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_remedies(error: Exception) -> None:
    training = TrainingConfig(batch_size=4, gradient_accumulation_steps=2)
    with pytest.raises(InputError) as caught, memory_explained(training):
        raise error
    assert str(caught.value) == (
        "out of memory. Settings that need less: training.batch_size=2 with "
        "gradient_accumulation_steps=4, training.gradient_checkpointing=true, "
        "training.base_weights=bfloat16 with mixed_precision=bf16, a smaller data.image_size."
    )
    least = TrainingConfig(gradient_checkpointing=True, tuning="full")
    with (
        pytest.raises(InputError, match=r"less: a smaller data\.image_size\.$"),
        memory_explained(least),
    ):
        raise error
    with pytest.raises(RuntimeError, match="another"), memory_explained(training):
        raise RuntimeError("another")


@pytest.mark.parametrize("largest_bytes", [20_000, 300_000])
def test_a_disk_that_refuses_ends_a_run_with_one_sentence(
    largest_bytes: int, stacks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    config = config_of(stacks, tmp_path / "run", training={"num_epochs": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_bytes, hard))
    try:
        with pytest.raises(InputError, match=r"cannot write.*[Ff]ile too large"):
            train(config, cpu=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Traceback" not in capfd.readouterr().err
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
