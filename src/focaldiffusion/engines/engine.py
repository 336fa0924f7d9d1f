"""The interface of engines: something that runs independent tasks, on one machine or many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")
_Given = TypeVar("_Given", contravariant=True)
_Made = TypeVar("_Made", covariant=True)


class Bench(Protocol[_Given, _Made]):
    """A warm place to work in a process: files are open, models are loaded."""

    def run(self, task: _Given) -> _Made:
        """The outcome of a task; what goes wrong with one task is an outcome, too.

        Raises:
            InputError: all work must end.
        """


class Place(Protocol[_Given, _Made]):
    """Where and how tasks are done."""

    def open(self) -> Bench[_Given, _Made]:
        """A place to work in this process.

        Raises:
            InputError: a model or data cannot be read.
        """


class Workshop(Place[_Given, _Made], Protocol[_Given, _Made]):
    """A place that any process can open; small, so that it travels there."""

    def need_bytes(self, task: _Given) -> int:
        """Estimate of the memory that a process needs for a task; 0 where nothing is known."""

    def lost(self, task: _Given, how: str) -> _Made:
        """The outcome of a task whose workers ended before it did.

        Args:
            task: the task.
            how: how they ended; the rest of a sentence that begins "its worker".
        """


class Engine(AbstractContextManager[Any], Protocol[_Given, _Made]):
    """Runs tasks; its workers start with the block and end with it.

    A task whose worker the system killed, or whose machine died, is tried again, and lost if that
    happens once more. Tasks carry paths, never pixels.
    """

    @property
    def workers(self) -> int | None:
        """Largest number of processes; None for as many as the cluster has room for."""

    def run(self, tasks: Sequence[_Given]) -> Iterator[_Made]:
        """The outcome of each task as soon as it ends, in any order.

        Raises:
            InputError: no worker can start, or one says that all work must end.
        """


MakeEngine = Callable[[Workshop[Any, Any]], Engine[Any, Any]]
"""Makes the engine for a workshop, as the flags of a command choose it."""


class Here:
    """The engine without workers: this process does one task after another."""

    workers = 1

    def __init__(self, workshop: Place[Any, Any]) -> None:
        self._workshop = workshop

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def run(self, tasks: Sequence[Any]) -> Iterator[Any]:
        """See `Engine`."""
        yield from map(self._workshop.open().run, tasks)
