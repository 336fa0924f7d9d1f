"""The process of one job: a draft result at a small size, then the result that `infer` writes."""

from __future__ import annotations

import os
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from focaldiffusion.allocation import is_out_of_memory, keep_freed_memory
from focaldiffusion.app.corrections import Corrections
from focaldiffusion.app.drafts import SMALL
from focaldiffusion.app.folders import write_object
from focaldiffusion.app.job_folder import JobFolder
from focaldiffusion.app.options import Options
from focaldiffusion.errors import InputError, printable
from focaldiffusion.io.owners import this_process
from focaldiffusion.io.staging import claimed
from focaldiffusion.progress import Report
from focaldiffusion.signals import on_ending

_DRAFT_WORKING_PX = 256
_LEAST_GAIN = 1.4
"""Times that the frames must be larger than a draft to be worth one."""

_SHARES = {
    "aligning": 5.0,
    "reading": 1.5,
    "loading the model": 1.0,
    "calibrating": 7.0,
    "sweeping": 13.0,
    "completing": 8.0,
    "checking": 2.0,
    "generating": 4.0,
    "checking again": 1.0,
    "fusing": 4.0,
    "enlarging": 2.0,
    "writing": 2.0,
}
"""Rough shares of the time of a job, in the order of the stages."""

_DRAFT_SHARE = 0.15
_WRITE_S = 0.2


class Progress:
    """Writes the state of a job while it runs."""

    def __init__(self, job: JobFolder) -> None:
        """Mark the job as running in this process."""
        self._job, self._began, self._written = job, time.monotonic(), 0.0
        self._state = {**job.state, "state": "running", "owner": this_process()}
        self._state |= {"started": _now(), "error": None, "warnings": [], "stage": "opening"}
        self._write()

    def part(self, start: float, end: float, prefix: str = "") -> Report:
        """A report for a part of the job.

        Args:
            start: progress at its start.
            end: progress at its end.
            prefix: of the names of its stages.
        """
        names, total = list(_SHARES), sum(_SHARES.values())

        def report(stage: str, done: int, steps: int) -> None:
            at = names.index(stage) if stage in names else 0
            within = min(1.0, done / steps) if steps else 0.0
            share = sum(_SHARES[name] for name in names[:at]) + within * _SHARES[names[at]]
            self._show(f"{prefix}{stage}", start + (end - start) * share / total)

        return report

    def draft_is_ready(self) -> None:
        """Let the server look: the draft result is there."""
        self._state["draft_ready"] = True
        self._write()

    def end(self, state: str, **facts: Any) -> None:
        """Write the last state."""
        self._state |= {
            "state": state,
            "time_left_s": None,
            "ended": _now(),
            "owner": None,
            **facts,
        }
        self._write()

    def _show(self, stage: str, progress: float) -> None:
        # Some stages run twice; what is shown never goes back.
        progress = max(progress, self._state["progress"])
        now, is_new = time.monotonic(), stage != self._state["stage"]
        if not is_new and now < self._written + _WRITE_S:
            return
        passed = now - self._began
        left = passed * (1 - progress) / progress if progress > 0.05 else None
        self._state |= {
            "stage": stage,
            "progress": round(progress, 4),
            "time_left_s": None if left is None else round(left, 1),
        }
        self._write()

    def _write(self) -> None:
        write_object(self._job.path / "state.json", self._state)
        self._written = time.monotonic()


def run(job: JobFolder, progress: Progress) -> None:
    """Do the work of a job.

    Raises:
        InputError: the stack cannot be used.
    """
    from focaldiffusion.app.opening import (
        SMALL_PX,
        found_files,
        kept_frames,
        lacking,
        open_corrected,
    )
    from focaldiffusion.app.reduced import reduced_stack
    from focaldiffusion.devices import resolve_device
    from focaldiffusion.reconstruction import DoubtfulInput, Settings, reconstruct
    from focaldiffusion.threads import threads

    warnings.simplefilter("ignore", DoubtfulInput)  # the state has it
    request = job.request
    options = Options.of(request["options"])
    source, inside = Path(request["source"]), Path(request["inside"])
    opened = open_corrected(source, inside, Corrections(**request["corrections"]))
    opened = replace(opened, name=request["name"])
    settings = Settings(device=resolve_device("auto"), **options.settings())
    start = 0.0
    if max(opened.frames.size) >= _LEAST_GAIN * SMALL_PX:
        start = _DRAFT_SHARE
        small = replace(settings, working_size=min(settings.working_size, _DRAFT_WORKING_PX))
        with _as_draft():
            kept = kept_frames(opened, found_files(source, inside), job.opened / SMALL)
            result = reconstruct(
                reduced_stack(opened, SMALL_PX, kept),
                settings=small,
                progress=progress.part(0, start, "draft: "),
            )
            result.save(job.draft, overwrite=True, point_cloud="off")
            del result
            progress.draft_is_ready()
    report = progress.part(start, 1)
    result = reconstruct(opened, model=options.model, settings=settings, progress=report)
    report("writing", 0, 1)
    with threads(None):
        left_out = result.save(job.result, overwrite=True)
    assert result.alignment is not None
    dropped = result.alignment.dropped.items()
    found = [f"{opened.frames.names[at]}: left out, {why}" for at, why in dropped]
    found += [f"{file}: left out, {why}" for file, why in left_out.items()]
    progress.end("done", progress=1.0, warnings=[*found, *lacking(opened), *result.findings])


@contextmanager
def _as_draft() -> Iterator[None]:
    """Go on without a draft where none can be made: the result then says why, or does better."""
    try:
        yield
    except InputError as error:
        print(f"no draft: {error}", flush=True)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _stop(number: int) -> None:
    """End like Ctrl-C, so that partial files are removed."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(128 + number)


def do(folder: Path) -> None:
    """Run the job of a folder, in a process of its own; what it prints goes to its log."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C and a closing terminal reach the server alone
    keep_freed_memory()
    job = JobFolder(folder)
    with (job.path / "log.txt").open("wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        with claimed(job.path), on_ending(_stop):
            progress = Progress(job)
            try:
                run(job, progress)
            except InputError as error:
                progress.end("failed", error=str(error))
            except Exception as error:
                traceback.print_exc()
                progress.end("failed", error=printable(_sentence(job.state["name"], error)))
    except InputError as error:  # another process has the job
        print(error, flush=True)


def _sentence(name: str, error: Exception) -> str:
    if is_out_of_memory(error):
        return (
            f"{name}: not enough memory. Remedies, most effective first: a lower working size, "
            "smaller frames, fewer frames."
        )
    return (
        f"{name}: unexpected {type(error).__name__}: {error}. This is an error of focaldiffusion; "
        "please report it with the log of the job."
    )
