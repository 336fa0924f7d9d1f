"""Engines of clusters: Ray with a node that dies, Slurm by submitit's local executor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import results_of, workshop_in, write_archive
from command_line import refusal

from focaldiffusion.archive.manifest import read_manifest
from focaldiffusion.archive.work import Task
from focaldiffusion.cli.main import main
from focaldiffusion.packages import OPTIONAL


def needs(name: str) -> None:
    if not OPTIONAL[name].is_installed:
        pytest.skip(f"{name} is not installed: {OPTIONAL[name].install}")


def tasks_of(manifest: Path) -> list[Task]:
    return [Task(entry, "1") for entry in read_manifest(manifest)]


@pytest.fixture
def two_nodes() -> Iterator[Any]:
    """A cluster of two nodes with one CPU each, on this machine."""
    needs("ray")
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=1, include_dashboard=False)
        second = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster, second
    finally:
        ray.shutdown()
        cluster.shutdown()


def test_rows_of_a_node_that_dies_are_made_by_another(two_nodes: Any, tmp_path: Path) -> None:
    from focaldiffusion.engines.ray_cluster import RayEngine

    cluster, second = two_nodes
    manifest = write_archive(tmp_path / "archive", 8, broken=(5,))
    one = workshop_in(tmp_path / "one").open()
    expected = {line.key: line.status for line in map(one.run, tasks_of(manifest))}
    lines = []
    with RayEngine(workshop_in(tmp_path / "ray")) as engine:
        for line in engine.run(tasks_of(manifest)):
            if not lines:
                cluster.remove_node(second, allow_graceful=False)
            lines.append(line)
    assert sorted(line.key for line in lines) == sorted(expected)
    assert {line.key: line.status for line in lines} == expected
    assert results_of(tmp_path / "one") == results_of(tmp_path / "ray")


def test_jobs_of_submitit_make_all_rows(tmp_path: Path) -> None:
    needs("submitit")
    from focaldiffusion.engines.slurm import SlurmEngine

    manifest = write_archive(tmp_path / "archive", 3, broken=(2,))
    workshop, logs = workshop_in(tmp_path / "out"), tmp_path / "logs"
    with SlurmEngine(workshop, logs, 2, 1, {"timeout_min": 10}, cluster="local") as engine:
        lines = {line.key: line.status for line in engine.run(tasks_of(manifest))}
    assert lines == {"plant 0": "done", "plant 1": "done", "plant 2": "failed"}


def test_flags_of_another_engine_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = write_archive(tmp_path / "archive", 1)
    argv = ("batch", manifest, "--output", tmp_path / "out")
    err = refusal(capsys, tmp_path, main, *argv, "--address", "auto")
    assert "--address: no effect with --engine local; it belongs to ray" in err
    err = refusal(capsys, tmp_path, main, *argv, "--shard", "4/3")
    assert "argument --shard: 4/3: expected a number from 1 to the count" in err
    assert "only `data cache` counts from 0" in err
    err = refusal(capsys, tmp_path, main, "batch", "--output", tmp_path / "out")
    assert "give either a manifest, or a folder with --watch" in err
    if OPTIONAL["submitit"].is_installed:
        slurm = ("--engine", "slurm", "--slurm")
        err = refusal(capsys, tmp_path, main, *argv, *slurm, "timeout_min")
        assert "--slurm 'timeout_min': expected KEY=VALUE" in err
