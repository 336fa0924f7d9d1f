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


FINDS = """
import sys
from accelerate import Accelerator
from torch import nn
from focaldiffusion.config.run import Config
from focaldiffusion.errors import InputError
from focaldiffusion.training.state import Checkpoints
accelerator = Accelerator(cpu=True)
run = sys.argv[1] if accelerator.is_main_process else sys.argv[1] + "_of_another_node"
config = Config.model_validate({"output": {"save_dir": run}})
checkpoints = Checkpoints(config, accelerator, nn.Identity(), None, 1)
found = checkpoints.find("auto")
try:
    checkpoints.find("nowhere")
except InputError as error:
    sys.stdout.write(f"{found} {str(error).split(':')[0]}\\n")
accelerator.end_training()
"""


def test_every_process_resumes_from_what_the_first_finds(tmp_path: Path) -> None:
    """The second one has a folder of its own, without checkpoints, as on another machine."""
    train(config_of(write_stacks(tmp_path), tmp_path / "run", training={"batch_size": 2}))
    script = tmp_path / "finds.py"
    script.write_text(FINDS)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = subprocess.run(
        [sys.executable, *command, str(script), str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count(f"{checkpoint(tmp_path / 'run', 8)} nowhere\n") == 2
