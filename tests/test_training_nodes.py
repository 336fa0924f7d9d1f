"""Two machines without a shared disk: two launchers on loopback, each in a folder of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from training_runs import config_of, losses, run_yaml, val_sources, write_stacks

from focaldiffusion.training.trainer import train

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def launch(nodes: list[Path], *flags: str) -> list[tuple[int, str, str]]:
    """Train in one process a node, in its folder; exit code, output and errors of each."""
    port = free_port()
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    running = []
    for rank, node in enumerate(nodes):
        command = ["-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
        command += ["--node_rank", str(rank), "--master_addr", "127.0.0.1"]
        command += ["--master_port", str(port), "-m", "focaldiffusion.cli.main", "train"]
        running.append(
            subprocess.Popen(
                [sys.executable, *command, "--config", "run.yaml", "--device", "cpu", *flags],
                cwd=node,
                env={
                    **os.environ,
                    "PYTHONPATH": path,
                    "OMP_NUM_THREADS": "1",
                    "XDG_CACHE_HOME": str(node / "home"),
                },
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    ends = [one.communicate(timeout=600) for one in running]
    return [(one.returncode, *end) for one, end in zip(running, ends, strict=True)]


def test_two_machines_train_as_one_and_resume_where_both_have_the_checkpoint(
    tmp_path: Path,
) -> None:
    nodes = [tmp_path / name for name in ("first", "second")]
    nodes[0].mkdir()
    write_stacks(nodes[0])
    training = {"batch_size": 1, "num_epochs": 1}
    changes = {"data": {"val_sources": val_sources(Path()), "skip_bad_samples": 1}}
    (nodes[0] / "run.yaml").write_text(run_yaml(Path(), Path("run"), training=training, **changes))
    shutil.copytree(nodes[0], nodes[1])
    ends = launch(nodes)
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert ["done; --model" in said for _, said, _ in ends] == [True, False]
    one = config_of(
        nodes[0],
        tmp_path / "one",
        training={**training, "gradient_accumulation_steps": 2},
        data={"val_sources": val_sources(nodes[0])},
    )
    train(one)
    assert losses(nodes[0] / "run") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert not list(nodes[1].glob("run/**/*.partial")), "nothing is left behind"
    assert not list(nodes[1].glob("run/checkpoints/step-*"))

    shutil.rmtree(nodes[0] / "run" / "checkpoints" / "step-000004")
    (nodes[0] / "run" / "checkpoints" / "best").unlink()
    ends = launch(nodes, "--resume", "auto")
    assert all(code != 0 for code, _, _ in ends)
    assert any("step-000002: is not on every machine" in wrong for _, _, wrong in ends), ends
    before = losses(nodes[0] / "run")[:2]
    shutil.copytree(
        nodes[0] / "run" / "checkpoints", nodes[1] / "run" / "checkpoints", dirs_exist_ok=True
    )
    ends = launch(nodes, "--resume", "auto")
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert losses(nodes[0] / "run")[:2] == before
    assert losses(nodes[0] / "run") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
