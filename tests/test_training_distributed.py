"""Two processes train as one does with twice the accumulation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import names
from training_runs import checkpoint, config_of, losses, run_yaml, state, val_sources, write_stacks

from focaldiffusion.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def test_two_processes_are_one_with_accumulation_two(tmp_path: Path) -> None:
    stacks = write_stacks(tmp_path)
    changes = {
        "data": {"val_sources": val_sources(stacks)},
        "losses": {"rgb_weight": 1, "depth_silog": 0.1, "depth_gradient": 1},
    }
    training = {"batch_size": 1, "use_ema": True, "max_grad_norm": 1.0}
    one = config_of(
        stacks, tmp_path / "one", training={**training, "gradient_accumulation_steps": 2}, **changes
    )
    train(one)
    two = tmp_path / "two.yaml"
    two.write_text(run_yaml(stacks, tmp_path / "two", training=training, **changes))
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = subprocess.run(
        [sys.executable, *command, "-m", "script.train", "--config", str(two), "--device", "cpu"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    for text in ("step 8/8", "done; --model"):
        assert run.stdout.count(text) == 1, "one process reports"
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    first, second = (state(tmp_path / name, 8) for name in ("one", "two"))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(second[name], first[name], **CLOSE)
    assert names(checkpoint(tmp_path / "two", 8) / "training") == [
        "mean.safetensors",
        "optimizer.bin",
        "progress.json",
        "random_states_0.pkl",
        "random_states_1.pkl",
        "trained.safetensors",
    ]
