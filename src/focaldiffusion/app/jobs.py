"""Jobs: a queue on disk, run one after another, each in a process that outlives the server.

A job is a folder: `request.json` says what to do, `state.json` how far it is, `log.txt` holds what
its process printed, `draft/` and `result/` what it made. While the process runs, it alone writes
the state; before and after, the server does.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
from datetime import datetime, timezone
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from focaldiffusion.app.errors import AppError
from focaldiffusion.app.events import Events
from focaldiffusion.app.folders import (
    folders_in,
    known_folder,
    new_folder,
    remove_folder,
    write_object,
)
from focaldiffusion.app.job_folder import ENDED, JobFolder
from focaldiffusion.app.processes import context
from focaldiffusion.app.working import work
from focaldiffusion.io.owners import owner_is_gone

_LOOK_S = 0.2
_PATIENCE_S = 5.0
"""Between asking a process to end and killing it."""


class Jobs:
    """The jobs of a work folder."""

    def __init__(self, home: Path, events: Events) -> None:
        """Take up the jobs of a folder where they are; it need not exist."""
        self.home = home
        self._events = events
        self._states: dict[str, dict[str, Any]] = {}
        self._current: str | None = None
        self._process: BaseProcess | None = None
        self._starting: asyncio.Future[None] | None = None
        self._cancelled_at: float | None = None
        for path in folders_in(home):
            self._take_up(JobFolder(path))

    def _take_up(self, job: JobFolder) -> None:
        state = job.state
        if not state:  # killed while it was made
            shutil.rmtree(job.path, ignore_errors=True)
            return
        if state["state"] == "running":
            if self._current is None and not owner_is_gone(state.get("owner") or "0"):
                self._current = job.path.name
            else:
                state |= _interrupted("the computer or its processes stopped while it ran")
                write_object(job.path / "state.json", state)
        self._states[job.path.name] = state

    def add(self, draft: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Queue a job.

        Args:
            draft: id of its draft.
            name: of the stack.
            request: `source`, `inside`, `corrections` and `options` of the job.
        """
        job = JobFolder(new_folder(self.home))
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        number = 1 + max((state["number"] for state in self._states.values()), default=0)
        request = {"draft": draft, "name": name, **request}
        write_object(job.path / "request.json", request)
        about = {"name": name, "draft": draft, "options": request["options"], "created": now}
        self._save(job.path.name, {"id": job.path.name, "number": number, **about, **_QUEUED})
        return self.get(job.path.name)

    def get(self, name: str) -> dict[str, Any]:
        """A job as the page gets it.

        Raises:
            AppError: there is none.
        """
        job = self.folder(name)
        state = {key: value for key, value in self._states[name].items() if key != "owner"}
        return {**state, "draft_ready": job.has_draft, "has_result": job.has_result}

    def all(self) -> list[dict[str, Any]]:
        """All jobs, newest first."""
        order = sorted(self._states, key=lambda name: -self._states[name]["number"])
        return [self.get(name) for name in order]

    def folder(self, name: str) -> JobFolder:
        """The folder of a job.

        Raises:
            AppError: there is none.
        """
        if name not in self._states:
            raise AppError(404, f"there is no job {name!r}; it may have been deleted.")
        return JobFolder(known_folder(self.home, name, "job"))

    def cancel(self, name: str) -> dict[str, Any]:
        """Take a job out of the queue, or end its process.

        Raises:
            AppError: there is no such job, or it has ended.
        """
        self.folder(name)
        state = self._states[name]
        if name == self._current:
            self._cancelled_at = time.monotonic()
            self._stop()
        elif state["state"] == "queued":
            self._save(name, {**state, "state": "cancelled", "time_left_s": None})
        else:
            raise AppError(409, f"{state['name']}: has ended already ({state['state']}).")
        return self.get(name)

    def retry(self, name: str) -> dict[str, Any]:
        """Queue a job again that has not been completed.

        Raises:
            AppError: there is no such job, or it is done, queued or running.
        """
        job, state = self.folder(name), self._states[name]
        if state["state"] not in ("failed", "cancelled", "interrupted"):
            raise AppError(409, f"{state['name']}: is {state['state']}; nothing to try again.")
        job.clear()
        number = 1 + max(other["number"] for other in self._states.values())
        self._save(name, {**state, **_QUEUED, "number": number})
        return self.get(name)

    def delete(self, name: str) -> str | None:
        """Delete a job and its results.

        Returns:
            The id of its draft, if no other job has it.

        Raises:
            AppError: there is no such job, or it runs.
        """
        job = self.folder(name)
        if name == self._current:
            raise AppError(409, f"{self._states[name]['name']}: is running. Cancel it first.")
        remove_folder(job.path)
        draft = self._states.pop(name)["draft"]
        self._events.send("gone", name, {"id": name})
        return None if draft in self.drafts() else draft

    def drafts(self) -> set[str]:
        """The drafts that jobs have."""
        return {state["draft"] for state in self._states.values()}

    async def watch(self) -> None:
        """Run the queue, until cancelled."""
        while True:
            try:
                await self._look()
            except OSError as error:  # a full disk: the queue goes on once there is room
                print(f"the queue waits: {error}", file=sys.stderr)
                await asyncio.sleep(_PATIENCE_S)
            await asyncio.sleep(_LOOK_S)

    async def close(self) -> None:
        """End the running job, since the user stops the server; the queue stays."""
        if self._current is None:
            return
        if self._starting is not None:  # else a process would begin when nobody ends it
            await self._starting
        name, end = self._current, time.monotonic() + _PATIENCE_S
        self._stop()
        while self._runs() and time.monotonic() < end:
            await asyncio.sleep(0.05)
        self._stop(by_force=True)
        state = JobFolder(self.home / name).state
        if state["state"] not in ENDED:
            self._save(name, state | _interrupted("the server was stopped while it ran"))

    async def _look(self) -> None:
        """See how far the running job is, and start the next one after it."""
        if self._current is None:
            queued = [s for s in self._states.values() if s["state"] == "queued"]
            leaving = self._process is not None and self._process.is_alive()
            if not queued or leaving:
                return
            await self._start(min(queued, key=lambda state: state["number"])["id"])
        name = self._current
        assert name is not None
        runs = self._runs()  # before the state is read, which may be the last one
        state = JobFolder(self.home / name).state or self._states[name]
        if not runs or state["state"] in ENDED:
            state = self._ended(state)
            self._current = self._cancelled_at = None
            self._save(name, state)
        elif state != self._states[name]:
            self._states[name] = state
            self._events.send("job", name, self.get(name))
        elif self._cancelled_at and time.monotonic() > self._cancelled_at + _PATIENCE_S:
            self._stop(by_force=True)

    async def _start(self, name: str) -> None:
        """Start the process of a job."""
        process = context().Process(target=work, args=(str(self.home / name),))
        self._current, self._process = name, process
        # In a thread, because the first one waits until torch has been imported.
        self._starting = asyncio.ensure_future(asyncio.to_thread(process.start))
        await asyncio.shield(self._starting)
        if self._cancelled_at is not None:
            self._stop()

    def _runs(self) -> bool:
        """Whether the current process runs, which an earlier server may have started."""
        if self._process is not None:
            return self._process.is_alive()
        assert self._current is not None
        owner = self._states[self._current].get("owner")
        return owner is not None and not owner_is_gone(owner)

    def _ended(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of a job whose process has ended, whatever it wrote last."""
        if state["state"] in ENDED:
            return state
        if self._cancelled_at is not None:
            return {**state, "state": "cancelled", "time_left_s": None}
        code = self._process.exitcode if self._process is not None else None
        why = f"with code {code}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            why = f"by {name}"
            if name == "SIGKILL":
                why += ", perhaps because the memory was full: lower the working size, or give "
                why += "fewer or smaller frames"
        if code is None:
            return state | _interrupted("its process ended while no server watched it")
        error = f"{state['name']}: its process was ended {why}."
        return {**state, "state": "failed", "error": error, "time_left_s": None}

    def _stop(self, *, by_force: bool = False) -> None:
        """Ask the current process to end, or kill it."""
        if not self._runs():
            return
        if self._process is not None:
            (self._process.kill if by_force else self._process.terminate)()
        elif self._current is not None:  # Windows, which has no SIGKILL, takes up no process
            number = signal.SIGKILL if by_force else signal.SIGTERM
            os.kill(int(self._states[self._current]["owner"].partition("-")[0]), number)

    def _save(self, name: str, state: dict[str, Any]) -> None:
        self._states[name] = state
        write_object(self.home / name / "state.json", state)
        self._events.send("job", name, self.get(name))


_QUEUED: dict[str, Any] = {
    "state": "queued",
    "stage": None,
    "progress": 0.0,
    "time_left_s": None,
    "error": None,
    "warnings": [],
    "started": None,
    "ended": None,
    "owner": None,
}


def _interrupted(why: str) -> dict[str, Any]:
    return {
        "state": "interrupted",
        "error": f"interrupted: {why}. Run it again; nothing of the stack is lost.",
        "time_left_s": None,
        "owner": None,
    }
