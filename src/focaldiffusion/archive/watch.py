"""New stacks in a folder, as a scan rig or a camera's transfer makes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from focaldiffusion.archive.batch import Batch
from focaldiffusion.archive.manifest import Entry
from focaldiffusion.archive.report import Line
from focaldiffusion.archive.work import Task
from focaldiffusion.engines.engine import Engine
from focaldiffusion.errors import InputError
from focaldiffusion.files import is_folder

_SECONDS_BETWEEN_LOOKS = 2.0

State = dict[str, tuple[int, int]]
"""Size and time of change of each file in a folder."""


def watched(
    batch: Batch,
    engine: Engine[Task, Line],
    folder: Path,
    *,
    rest_s: float,
    retry: str | None = None,
) -> Iterator[Line]:
    """Work on each folder inside a folder once its files rest; goes on until interrupted.

    Args:
        batch: gets a row for each, whose key is the name of the folder.
        engine: see `Batch.run`.
        folder: the folder to watch.
        rest_s: a stack is complete when nothing in its folder has changed for this long [s].
        retry: see `Batch.due`; for the first look.

    Raises:
        InputError: there is no such folder.
    """
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder to watch.")
    seen: dict[str, tuple[State, float]] = {}
    given: dict[str, State] = {}
    while True:
        now, resting, changed = time.monotonic(), [], set()
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not path.is_dir():
                continue
            state = _state(path)
            before, since = seen.get(path.name, (None, now))
            if state != before:
                seen[path.name] = state, now
            elif state and now - since >= rest_s and given.get(path.name) != state:
                if path.name in given:
                    changed.add(path.name)
                given[path.name] = state
                resting.append(Entry(path.name, (str(path.absolute()),)))
        if resting:
            batch.add(resting)
            wanted = {entry.key for entry in resting}
            tasks = [one for one in batch.due(retry=retry) if one.entry.key in wanted - changed]
            tasks += [one for one in batch.due(retry="all") if one.entry.key in changed]
            yield from batch.run(engine, tasks)
        else:
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _state(folder: Path) -> State:
    """The files of a folder; those that vanish meanwhile are left out."""
    state: State = {}
    for path in folder.iterdir():
        try:
            facts = path.stat()
        except OSError:
            continue
        state[path.name] = facts.st_size, facts.st_mtime_ns
    return state
