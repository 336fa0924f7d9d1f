"""Engine for Slurm by submitit: a job array, each job with processes of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic

from focaldiffusion.engines.engine import Outcome, Task, Workshop
from focaldiffusion.engines.local import LocalEngine
from focaldiffusion.engines.memory import budget_bytes
from focaldiffusion.errors import InputError
from focaldiffusion.shards import Shard

_SECONDS_BETWEEN_LOOKS = 2.0


class SlurmEngine(Generic[Task, Outcome]):
    """Jobs with a share of the tasks each; a job that Slurm ends early is submitted again."""

    def __init__(
        self,
        workshop: Workshop[Task, Outcome],
        logs: Path,
        jobs: int,
        cpus: int,
        options: dict[str, str | int],
        cluster: str | None = None,
    ) -> None:
        """Describe the jobs; they are submitted by `run`.

        Args:
            workshop: see `Workshop`; every node must see its files.
            logs: folder of submitit's files, on a disk that all nodes see.
            jobs: number of jobs.
            cpus: CPUs, and so tasks at a time, of each job.
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

    @property
    def workers(self) -> int:
        """See `Engine`."""
        return self._jobs * self._cpus

    def __enter__(self) -> SlurmEngine[Task, Outcome]:
        return self

    def __exit__(self, *_: object) -> None:
        for job in self._running:
            if not job.done():
                job.cancel()

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """See `Engine`; outcomes come when a job ends, results as its tasks do."""
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

    def _outcomes(self, job: Any, share: Sequence[Task]) -> list[Outcome]:
        """The outcomes of a job; all tasks of one that died are lost."""
        if job.exception() is None:
            return list(job.result())
        reason = str(job.exception()).strip().splitlines()[-1]
        return [
            self._workshop.lost(task, f"of job {job.job_id} ended ({reason})") for task in share
        ]


def reason_of(error: Exception) -> str:
    """The line of an error of submitit that says why a job died."""
    first, *lines = filter(str.strip, str(error).splitlines())
    rules = [number for number, line in enumerate(lines) if set(line) == {"-"}]
    return lines[rules[-1] - 1] if len(rules) > 1 else first  # a traceback stands between rules


class JobWork(Generic[Task, Outcome]):
    """The work of one job; submitit saves it, and submits it again after a preemption."""

    def __init__(
        self, workshop: Workshop[Task, Outcome], tasks: tuple[Task, ...], workers: int
    ) -> None:
        self._workshop, self._tasks, self._workers = workshop, tasks, workers

    def run(self) -> list[Outcome]:
        """The outcomes; results that an earlier start of the job made are kept."""
        with LocalEngine(self._workshop, self._workers, budget_bytes=budget_bytes()) as engine:
            return list(engine.run(self._tasks))
