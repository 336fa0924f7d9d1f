"""Evaluation and caches on engines give what one process gives; lost workers are outcomes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import refusal
from fixtures import stacks
from refusing import Refusing

from focaldiffusion.cli.main import main
from focaldiffusion.config.data import DataConfig
from focaldiffusion.data.cache import write_cache
from focaldiffusion.data.loading import open_split
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.engines.engine import Here, Workshop
from focaldiffusion.engines.local import LocalEngine
from focaldiffusion.errors import InputError
from focaldiffusion.evaluation.plan import EvaluationPlan
from focaldiffusion.evaluation.records import Record, read_records
from focaldiffusion.evaluation.runner import evaluate
from focaldiffusion.packages import OPTIONAL
from focaldiffusion.threads import threads

MODELS = ("argmax", "laplacian-pyramid")

PROCEDURAL = {"name": "made", "dataset_type": "procedural"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three small stacks with truth, in the layout of the protocol `stacks`."""
    for name in ("desk", "shelf", "window"):
        stacks.write(tmp_path / "root" / name)
    return tmp_path / "root"


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    """A cluster of this machine."""
    if not OPTIONAL["ray"].is_installed:
        pytest.skip(f"ray is not installed: {OPTIONAL['ray'].install}")
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def slurm(folder: Path) -> Any:
    """Slurm's engine, whose jobs run on this machine."""
    if not OPTIONAL["submitit"].is_installed:
        pytest.skip(f"submitit is not installed: {OPTIONAL['submitit'].install}")
    from focaldiffusion.engines.slurm import SlurmEngine

    return partial(
        SlurmEngine,
        logs=folder / "logs",
        jobs=1,
        cpus=1,
        options={"timeout_min": 10},
        cluster="local",
    )


def figures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The records without what differs from run to run."""
    return [asdict(replace(one, seconds=0, peak_memory_mib=None)) for one in records]


def mixture() -> Mixture:
    """Three rooms that any process can generate."""
    data = DataConfig.model_validate({"train_sources": [PROCEDURAL], "image_size": [48, 64]})
    return open_split(data, "train", 0)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}


def test_a_job_of_slurm_evaluates_as_one_process_does(root: Path, tmp_path: Path) -> None:
    plan = EvaluationPlan("stacks", str(root), MODELS)
    found = evaluate(plan, tmp_path / "jobs", engine=slurm(tmp_path))
    assert figures(found) == figures(evaluate(plan, tmp_path / "one"))
    assert read_records(tmp_path / "jobs") == found
    assert all((tmp_path / "jobs" / str(one.picture)).is_file() for one in found)


def test_a_ray_cluster_evaluates_and_writes_caches_as_one_process_does(
    ray_cluster: None, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # relative paths are those of the command
    models = [word for name in MODELS for word in ("--model", name)]
    argv = ["evaluate", "--dataset", "stacks", "--data-root", "root", *models, "--no-baselines"]
    argv += ["--device", "cpu", "--quiet", "--output-dir"]
    assert main([*argv, "one"]) == 0
    assert main([*argv, "ray", "--engine", "ray", "--workers", "2"]) == 0
    assert figures(read_records(Path("ray"))) == figures(read_records(Path("one")))
    assert json.loads(Path("ray/run.json").read_text())["workers"] == 2
    assert Path("ray/report.html").is_file()
    content = {"data": {"train_sources": [PROCEDURAL], "image_size": [48, 64]}}
    Path("config.yaml").write_text(json.dumps(content))
    argv = ["data", "cache", "config.yaml", "--samples", "2", "--quiet", "--device", "cpu"]
    with threads(1):  # as workers do: libraries round by their number of threads
        assert main([*argv, "--output", "one cache"]) == 0
    assert main([*argv, "--output", "cache", "--engine", "ray"]) == 0
    assert files(Path("cache")) == files(Path("one cache"))


class Losing(Here):
    """Loses the first task, as if its workers had been killed."""

    def __init__(self, workshop: Workshop[Any, Any]) -> None:
        super().__init__(workshop)
        self._lost = workshop.lost

    def run(self, tasks: Sequence[Any]) -> Iterator[Any]:
        yield self._lost(tasks[0], "was killed")
        yield from super().run(tasks[1:])


def test_a_lost_sample_is_a_failed_record_and_tried_again(root: Path, tmp_path: Path) -> None:
    plan, out = EvaluationPlan("stacks", str(root), MODELS), tmp_path / "out"
    found = evaluate(plan, out, engine=Losing)
    assert [one.status for one in found] == ["failed"] * 2 + ["done"] * 4
    assert str(found[0].error).startswith("its worker was killed; perhaps the system ran out of me")
    assert {one.status for one in evaluate(plan, out)} == {"done"}


def test_a_lost_position_ends_a_cache_which_continues(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="position 0: its worker was killed"):
        write_cache(mixture(), tmp_path, count=3, engine=Losing)
    write_cache(mixture(), tmp_path, count=3)
    assert len(list(tmp_path.glob("samples/*.safetensors"))) == 3


def test_an_error_that_concerns_all_work_ends_it_with_its_sentence() -> None:
    with LocalEngine(Refusing(), 1) as engine, pytest.raises(InputError, match="weights are dam"):
        list(engine.run([1]))


def test_caches_on_a_cluster_are_for_cpus(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("data", "cache", tmp_path / "config.yaml", "--output", tmp_path / "out")
    err = refusal(capsys, tmp_path, main, *argv, "--cpus", "2")
    assert "--cpus: no effect with --engine local; it belongs to ray and slurm" in err


def test_the_reason_of_a_job_that_died_is_its_error() -> None:
    from focaldiffusion.engines.slurm import reason_of

    trace = "Traceback (most recent call last):\n  File x\nOSError: no space"
    text = f"Job (task=0) failed during processing with trace:\n{9 * '-'}\n{trace}\n\n{9 * '-'}\n"
    assert reason_of(Exception(f"{text}You can check full logs with\n  - log.out")) == (
        "OSError: no space"
    )
    text = "Job 7 (task: 0) has not produced any output (state: TIMEOUT)\nNo output: log.out"
    assert reason_of(Exception(text)).endswith("(state: TIMEOUT)")
