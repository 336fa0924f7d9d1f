"""Engine for a Ray cluster: one stateful actor for each GPU, or for some CPUs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic

from focaldiffusion.engines.engine import Bench, Outcome, Task, Workshop
from focaldiffusion.engines.waiting import Job, Waiting
from focaldiffusion.errors import InputError


class RayEngine(Generic[Task, Outcome]):
    """Actors that load the model once; tasks of a node that dies are given to others."""

    def __init__(
        self,
        workshop: Workshop[Task, Outcome],
        *,
        address: str = "auto",
        workers: int | None = None,
        cpus: int = 1,
        gpus: int = 0,
    ) -> None:
        """Describe the actors; they start with the `with` block.

        Args:
            workshop: see `Workshop`; every node must see its files.
            address: see `ray.init`.
            workers: number of actors; None for as many as the cluster has room for.
            cpus: CPUs of each actor.
            gpus: GPUs of each actor.
        """
        self._workshop, self._address, self._count = workshop, address, workers
        self._resources = {"num_cpus": cpus, "num_gpus": gpus}
        self._actors: dict[Any, _Actor[Task]] = {}
        self._ours = False

    @property
    def workers(self) -> int | None:
        """See `Engine`."""
        return self._count

    def __enter__(self) -> RayEngine[Task, Outcome]:
        import ray

        if not ray.is_initialized():
            try:
                ray.init(address=self._address, log_to_driver=False)
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"--address {self._address}: no Ray cluster ({error}). Start one with "
                    "`ray start --head`."
                ) from None
            self._ours = True
        for _ in range(self._count or self._room()):
            self._start()
        return self

    def __exit__(self, *_: object) -> None:
        import ray

        for actor in self._actors.values():
            ray.kill(actor.handle)
        self._actors.clear()
        if self._ours:
            ray.shutdown()

    def run(self, tasks: Sequence[Task]) -> Iterator[Outcome]:
        """See `Engine`."""
        import ray

        waiting = Waiting(tasks)
        while True:
            for actor in [one for one in self._actors.values() if one.is_ready]:
                if waiting and actor.job is None:
                    self._give(actor, waiting.take())
            busy = any(actor.job for actor in self._actors.values())
            if not busy and not waiting:
                return
            pending = [ref for ref, one in self._actors.items() if one.job or not one.is_ready]
            (ref, *_), _ = ray.wait(pending, num_returns=1)
            yield from self._heard(ref, waiting)

    def _room(self) -> int:
        """Number of actors that fit into the cluster now."""
        import ray

        there = ray.cluster_resources()
        wants = {"CPU": self._resources["num_cpus"], "GPU": self._resources["num_gpus"]}
        room = min(int(there.get(name, 0) // want) for name, want in wants.items() if want)
        if room < 1:
            raise InputError(
                f"the cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs; "
                f"a worker needs {wants['CPU']} and {wants['GPU']}. Give fewer --cpus, or "
                "--device cpu."
            )
        return room

    def _start(self) -> None:
        """Start an actor; it gets tasks once it is ready, since it may wait for a node."""
        import ray

        resources: Any = self._resources
        make: Any = ray.remote(**resources)(_RemoteBench)
        handle = make.remote(self._workshop, str(Path.cwd()))
        self._actors[handle.ready.remote()] = _Actor(handle)

    def _give(self, actor: _Actor[Task], job: Job[Task]) -> None:
        actor.job = job
        old = next(ref for ref, one in self._actors.items() if one is actor)
        del self._actors[old]
        self._actors[actor.handle.run.remote(job.task)] = actor

    def _heard(self, ref: Any, waiting: Waiting[Task]) -> Iterator[Outcome]:
        """Take the answer of an actor, or notice its end and start another."""
        import ray

        actor = self._actors[ref]
        try:
            answer = ray.get(ref)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError):
            del self._actors[ref]
            ray.kill(actor.handle)  # it may only be out of reach
            self._start()
            if actor.job is None:
                return
            if actor.job.attempt == 1:
                waiting.again(actor.job)
            else:
                yield self._workshop.lost(
                    actor.job.task, "died, twice, by itself or with its machine"
                )
            return
        except ray.exceptions.RayTaskError as error:
            raise InputError(str(error.cause)) from error
        actor.is_ready = True
        if actor.job is not None:
            actor.job = None
            yield answer


class _Actor(Generic[Task]):
    """An actor, seen from the driver.

    Attributes:
        handle: Ray's.
        is_ready: whether its bench is open.
        job: the task in work.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.is_ready = False
        self.job: Job[Task] | None = None


class _RemoteBench:
    """A bench in a process of Ray."""

    def __init__(self, workshop: Workshop[Any, Any], folder: str) -> None:
        self._workshop, self._folder = workshop, folder
        self._bench: Bench[Any, Any] | None = None

    def ready(self) -> None:
        """Open the bench; errors come back from here.

        Raises:
            InputError: see `Workshop.open`.
        """
        from focaldiffusion.engines.local import prepare_process

        with suppress(
            OSError
        ):  # relative paths are those of the driver, where nodes see its folder
            os.chdir(self._folder)
        prepare_process()
        self._bench = self._workshop.open()

    def run(self, task: Any) -> Any:
        assert self._bench is not None
        return self._bench.run(task)
