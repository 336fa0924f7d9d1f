"""Engine for a Ray cluster: one stateful actor for each GPU, or for some CPUs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from focaldiffusion.archive.engines import lost
from focaldiffusion.archive.report import Line
from focaldiffusion.archive.waiting import Job, Waiting
from focaldiffusion.archive.work import Bench, Task, Workshop
from focaldiffusion.errors import InputError


class RayEngine:
    """Actors that load the model once; rows of a node that dies are given to others."""

    def __init__(
        self,
        workshop: Workshop,
        *,
        address: str = "auto",
        workers: int | None = None,
        cpus: int = 1,
        gpus: int = 0,
    ) -> None:
        """Describe the actors; they start with the `with` block.

        Args:
            workshop: see `Workshop`; every node must see its storage and the frames.
            address: see `ray.init`.
            workers: number of actors; None for as many as the cluster has room for.
            cpus: CPUs of each actor.
            gpus: GPUs of each actor.
        """
        self._workshop, self._address, self._count = workshop, address, workers
        self._resources = {"num_cpus": cpus, "num_gpus": gpus}
        self._actors: dict[Any, _Actor] = {}
        self._ours = False

    def __enter__(self) -> RayEngine:
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

    def run(self, tasks: Sequence[Task]) -> Iterator[Line]:
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
        """Start an actor; it gets rows once it is ready, since it may wait for a node."""
        import ray

        resources: Any = self._resources
        make: Any = ray.remote(**resources)(_RemoteBench)
        handle = make.remote(self._workshop)
        self._actors[handle.ready.remote()] = _Actor(handle)

    def _give(self, actor: _Actor, job: Job) -> None:
        actor.job = job
        old = next(ref for ref, one in self._actors.items() if one is actor)
        del self._actors[old]
        self._actors[actor.handle.run.remote(job.task)] = actor

    def _heard(self, ref: Any, waiting: Waiting) -> Iterator[Line]:
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
                yield lost(actor.job.task, "died, twice, by itself or with its machine")
            return
        except ray.exceptions.RayTaskError as error:
            raise InputError(str(error.cause)) from error
        actor.is_ready = True
        if actor.job is not None:
            actor.job = None
            yield answer


class _Actor:
    """An actor, seen from the driver.

    Attributes:
        handle: Ray's.
        is_ready: whether it has loaded the model.
        job: the row in work.
    """

    def __init__(self, handle: Any) -> None:
        self.handle = handle
        self.is_ready = False
        self.job: Job | None = None


class _RemoteBench:
    """A bench in a process of Ray."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop
        self._bench: Bench | None = None

    def ready(self) -> None:
        """Load the model; errors come back from here.

        Raises:
            InputError: see `Workshop.open`.
        """
        from focaldiffusion.archive.local import prepare_process

        prepare_process()
        self._bench = self._workshop.open()

    def run(self, task: Task) -> Line:
        assert self._bench is not None
        return self._bench.run(task)
