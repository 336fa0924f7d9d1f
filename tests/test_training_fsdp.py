"""FSDP 2 in two processes: it trains as one process does, validates, saves shards and resumes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from command_line import names
from training_runs import checkpoint, config_of, losses, run_yaml, val_sources, write_stacks

from focaldiffusion.checkpoints.checkpoint import find_checkpoint
from focaldiffusion.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]


def environment() -> dict[str, str]:
    """Environment of the processes, as accelerate makes it from configs/accelerate/fsdp.yaml."""
    settings = load_config_from_file(str(ROOT / "configs/accelerate/fsdp.yaml")).fsdp_config
    chosen = {key.upper().replace("LAYER_CLS", "CLS"): str(one) for key, one in settings.items()}
    return {**os.environ, **chosen, "ACCELERATE_USE_FSDP": "true", "OMP_NUM_THREADS": "1"}


def launch(config: Path, *flags: str) -> str:
    """Train in two processes; returns what they printed."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    program = [str(ROOT / "tests" / "fsdp_on_cpu.py"), "train", "--config", str(config)]
    run = subprocess.run(
        [sys.executable, *command, *program, "--device", "cpu", *flags],
        env=environment(),
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_shards_train_validate_save_and_resume(tmp_path: Path) -> None:
    stacks = write_stacks(tmp_path)
    changes = {"data": {"val_sources": val_sources(stacks)}}
    training = {"batch_size": 1, "num_epochs": 1, "max_grad_norm": 1.0}
    one = config_of(
        stacks, tmp_path / "one", training={**training, "gradient_accumulation_steps": 2}, **changes
    )
    train(one)
    two = tmp_path / "two.yaml"
    two.write_text(run_yaml(stacks, tmp_path / "two", training=training, **changes))
    said = launch(two)
    assert said.count("validation after step 4") == 1
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    whole = [find_checkpoint(str(checkpoint(tmp_path / name, 4))).load() for name in ("one", "two")]
    states = [pipeline.denoiser.state_dict() for pipeline in whole]
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-3, atol=1e-4)
    there = names(checkpoint(tmp_path / "two", 4) / "training")
    assert {"pytorch_model_fsdp_0", "optimizer_0"} <= set(there)
    parts = names(checkpoint(tmp_path / "two", 4) / "training" / "optimizer_0")
    assert [name for name in parts if name.endswith(".distcp")] == ["__0_0.distcp", "__1_0.distcp"]

    # From step 2 on, as if the run had ended there.
    log = tmp_path / "two" / "log.jsonl"
    before = [json.loads(line) for line in log.read_text().splitlines()]
    shutil.rmtree(checkpoint(tmp_path / "two", 4))
    (tmp_path / "two" / "checkpoints" / "best").unlink()
    assert "going on from" in launch(two, "--resume", "auto")
    after = [json.loads(line) for line in log.read_text().splitlines()]
    for first, second in zip(before, after, strict=True):
        for key in {"train/loss", "val/abs_rel"} & first.keys():
            assert second[key] == pytest.approx(first[key], rel=1e-6)


def test_deepspeed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate import Accelerator
    from accelerate.utils import DistributedType

    from focaldiffusion.config.run import Config
    from focaldiffusion.errors import InputError
    from focaldiffusion.training.learner import Learner

    monkeypatch.setattr(Accelerator, "distributed_type", DistributedType.DEEPSPEED)
    with pytest.raises(InputError, match="DeepSpeed moves the weights within the backward pass"):
        Learner(Config.model_validate({"model": {"preset": "tiny"}}), Accelerator(cpu=True))
