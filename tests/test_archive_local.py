"""Local processes: equal results, memory, killed workers, killed parents."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from multiprocessing import active_children
from pathlib import Path

import pytest
from archives import report_of, results_of, workshop_in, write_archive
from command_line import names
from plant import command, run

from focaldiffusion.archive.manifest import Entry, read_manifest
from focaldiffusion.archive.memory import need_bytes
from focaldiffusion.archive.report import Line
from focaldiffusion.archive.work import Task, Workshop
from focaldiffusion.engines.local import LocalEngine
from focaldiffusion.engines.memory import budget_bytes
from focaldiffusion.engines.waiting import Waiting
from focaldiffusion.errors import InputError

FAST = ("--device", "cpu", "--align", "off", "--image-only")


def tasks_of(manifest: Path) -> list[Task]:
    return [Task(entry, "1") for entry in read_manifest(manifest)]


def test_processes_give_what_one_gives(tmp_path: Path) -> None:
    manifest = write_archive(tmp_path / "archive", 4, broken=(3,))
    one = workshop_in(tmp_path / "one")
    expected = {line.key: line.status for line in map(one.open().run, tasks_of(manifest))}
    with LocalEngine(workshop_in(tmp_path / "several"), 2) as engine:
        lines = list(engine.run(tasks_of(manifest)))
        assert {line.key: line.status for line in lines} == expected
        # The workers stay warm for more rows.
        workers = {process.pid for process in active_children()}
        assert [line.key for line in engine.run(tasks_of(manifest)[:1])] == ["plant 0"]
        assert {process.pid for process in active_children()} == workers
    assert active_children() == []
    assert results_of(tmp_path / "one") == results_of(tmp_path / "several")


def test_a_killed_worker_is_replaced_and_a_row_that_kills_it_twice_fails(tmp_path: Path) -> None:
    manifest = write_archive(tmp_path / "archive", 3)
    often = {"plant 0": 1, "plant 1": 2, "plant 2": 0}
    killed: set[int] = set()
    with LocalEngine(workshop_in(tmp_path / "out"), 2) as engine:
        ended = threading.Event()
        killer = threading.Thread(target=_kill, args=(engine, dict(often), killed, ended))
        killer.start()
        lines = {line.key: line for line in engine.run(tasks_of(manifest))}
        ended.set()
        killer.join()
    assert len(killed) == sum(often.values())
    assert {key: line.status for key, line in lines.items()} == {
        key: "failed" if count > 1 else "done" for key, count in often.items()
    }
    assert "its worker was killed by the system (signal 9), twice" in lines["plant 1"].error


def _kill(
    engine: LocalEngine[Task, Line], often: dict[str, int], killed: set[int], ended: threading.Event
) -> None:
    """Kill the workers of rows as often as wanted."""
    while not ended.wait(0.002):
        for process, task in engine.at_work.items():
            key = task.entry.key
            if often[key] and process not in killed:
                killed.add(process)
                often[key] -= 1
                os.kill(process, signal.SIGKILL)


NEEDS = {"plant 0": 6, "plant 1": 6, "plant 2": 20, "plant 3": 3}


class Measured(Workshop):
    """Rows whose memory is known; workers get a plain workshop, and need not import this module."""

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return Workshop, (self.recipe, self.storage)

    def need_bytes(self, task: Task) -> int:
        return NEEDS[task.entry.key]


def test_rows_wait_for_memory_and_one_that_never_fits_runs_alone(tmp_path: Path) -> None:
    manifest, plain = write_archive(tmp_path / "archive", 4), workshop_in(tmp_path / "out")
    with LocalEngine(Measured(plain.recipe, plain.storage), 3, budget_bytes=10) as engine:
        together = [
            {task.entry.key for task in engine.at_work.values()}
            for _ in engine.run(tasks_of(manifest))
        ]
    assert len(together) == 4
    for keys in together:
        assert len(keys) < 2 or sum(NEEDS[key] for key in keys) <= 10


def test_a_model_that_does_not_load_ends_the_batch_with_its_sentence(tmp_path: Path) -> None:
    manifest = write_archive(tmp_path / "archive", 1)
    workshop = workshop_in(tmp_path / "out")
    broken = type(workshop)(type(workshop.recipe)(load=_no_model), workshop.storage)
    with LocalEngine(broken, 1) as engine, pytest.raises(InputError, match="weights are damaged"):
        list(engine.run(tasks_of(manifest)))


def _no_model() -> None:
    raise InputError("weights are damaged")


def test_second_attempts_come_last() -> None:
    first, second = (Task(Entry(key, (key,)), "1") for key in "ab")
    waiting = Waiting([first, second])
    waiting.again(waiting.take())
    assert len(waiting) == 2
    assert waiting.take().task is second
    assert (waiting.next.attempt, len(waiting)) == (2, 1)
    assert waiting.take().task is first
    assert len(waiting) == 0


def test_memory_grows_with_frames_and_pixels(stack: Path, tmp_path: Path) -> None:
    entry = Entry("plant", (str(stack),))
    few = Entry("plant", tuple(str(stack / f"frame_{number}.png") for number in (0, 1)))
    assert 0 < need_bytes(few, 1024) < need_bytes(entry, 1024)
    assert need_bytes(entry, 64) < need_bytes(entry, 1024)
    assert need_bytes(Entry("absent", (str(tmp_path / "absent"),)), 1024) == 0
    assert need_bytes(Entry("far", ("s3://bucket/stack",)), 1024) == 0
    assert budget_bytes() > 0


def parts(manifest: Path, out: Path, *flags: str) -> tuple[str | Path, ...]:
    return ("batch", manifest, "--output", out, "--workers", "2", *FAST, *flags)


def test_a_batch_killed_at_any_time_is_continued(tmp_path: Path) -> None:
    manifest = write_archive(tmp_path / "archive", 6, broken=(4,))
    assert run(*parts(manifest, tmp_path / "whole", "--quiet")) == 1
    out = tmp_path / "out"
    for wanted in (1, 3):
        child = subprocess.Popen(
            command(*parts(manifest, out)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while child.poll() is None and len(list(out.glob("plant*/metadata.json"))) < wanted:
            time.sleep(0.02)
        child.kill()
        child.wait()
    assert run(*parts(manifest, out, "--quiet")) == 1
    assert results_of(out) == results_of(tmp_path / "whole")
    assert [row["status"] for row in report_of(out).values()] == ["done"] * 4 + ["failed", "done"]
    assert not [name for name in names(out) if "partial" in name]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_batch_leaves_no_partial_results(number: int, tmp_path: Path) -> None:
    manifest, out = write_archive(tmp_path / "archive", 30), tmp_path / "out"
    child = subprocess.Popen(
        command(*parts(manifest, out)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while child.poll() is None and not list(out.glob("plant*/metadata.json")):
        time.sleep(0.02)
    child.send_signal(number)
    _, error = child.communicate()
    assert child.returncode == 128 + number
    assert b"Traceback" not in error
    done = {path.parent.name for path in out.glob("*/metadata.json")}
    assert {name for name in names(out) if "report" not in name} == done
    assert set(report_of(out)) <= done
