"""Engine for Slurm by submitit: a job array, each job with processes of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from focaldiffusion.archive.engines import lost
from focaldiffusion.archive.local import LocalEngine
from focaldiffusion.archive.memory import budget_bytes, need_bytes
from focaldiffusion.archive.report import Line
from focaldiffusion.archive.work import Task, Workshop
from focaldiffusion.errors import InputError
from focaldiffusion.shards import Shard

_SECONDS_BETWEEN_LOOKS = 2.0


class SlurmEngine:
    """Jobs with a share of the rows each; a job that Slurm ends early is submitted again."""

    def __init__(
        self,
        workshop: Workshop,
        logs: Path,
        jobs: int,
        cpus: int,
        options: dict[str, str | int],
        cluster: str | None = None,
    ) -> None:
        """Describe the jobs; they are submitted by `run`.

        Args:
            workshop: see `Workshop`; every node must see its storage and the frames.
            logs: folder of submitit's files, on a disk that all nodes see.
            jobs: number of jobs.
            cpus: CPUs, and so rows at a time, of each job.
            options: for submitit, such as `timeout_min` or `slurm_partition`.
            cluster: "local" runs the jobs on this machine; None on Slurm.
        """
        import submitit

        try:
            self._executor: Any = submitit.AutoExecutor(logs, cluster=cluster or "slurm")
            self._executor.update_parameters(
                **{"name": "focaldiffusion", "cpus_per_task": cpus, **options}
            )
        except (NameError, RuntimeError, ValueError) as error:
            raise InputError(f"--engine slurm: {error}") from None
        self._workshop, self._jobs, self._cpus = workshop, jobs, cpus
        self._running: list[Any] = []

    def __enter__(self) -> SlurmEngine:
        return self

    def __exit__(self, *_: object) -> None:
        for job in self._running:
            if not job.done():
                job.cancel()

    def run(self, tasks: Sequence[Task]) -> Iterator[Line]:
        """See `Engine`; outcomes come when a job ends, results as its rows do."""
        count = min(self._jobs, len(tasks))
        shares = [Shard(number, count).of(tasks) for number in range(1, count + 1)]
        if not shares:
            return
        work = [JobWork(self._workshop, tuple(share), self._cpus) for share in shares]
        self._running = jobs = self._executor.map_array(JobWork.run, work)
        waiting = dict(zip(range(count), jobs, strict=True))
        while waiting:
            ended = [number for number, job in waiting.items() if job.done()]
            for number in ended:
                yield from self._outcomes(waiting.pop(number), shares[number])
            if not ended:
                time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _outcomes(self, job: Any, share: Sequence[Task]) -> list[Line]:
        """The outcomes of a job; of one that died, each row fails and can be tried again."""
        if job.exception() is None:
            return list(job.result())
        reason = str(job.exception()).strip().splitlines()[-1]
        return [lost(task, f"of job {job.job_id} ended ({reason})") for task in share]


class JobWork:
    """The work of one job; submitit saves it, and submits it again after a preemption."""

    def __init__(self, workshop: Workshop, tasks: tuple[Task, ...], workers: int) -> None:
        self._workshop, self._tasks, self._workers = workshop, tasks, workers

    def run(self) -> list[Line]:
        """Make the results; those that an earlier start of the job made are kept."""
        size = self._workshop.recipe.settings.working_size
        with LocalEngine(
            self._workshop,
            self._workers,
            budget_bytes=budget_bytes(),
            need_bytes=lambda task: need_bytes(task.entry, size),
        ) as engine:
            return list(engine.run(self._tasks))
