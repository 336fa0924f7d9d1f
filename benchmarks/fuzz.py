"""Mutate small valid files and see what every reader makes of them.

    python benchmarks/fuzz.py [--reader NAME ...] [--inputs N | --seconds S] [--seed N]
                              [--corpus FOLDER] [--save FOLDER]

A reader may succeed with a sane result, or refuse the input with an InputError. Anything else is a
fault: another exception, a result that is not sane (fuzz_readers.py), other numbers from a file
that was cut short, a crash of the interpreter, more than 4 GiB of memory, more than 20 seconds.
Readers run in a worker process; mutations are those of mutations.py. An input is a function of
seed, reader and number, so a fault is found again with `--reader NAME --seed N`.

`--corpus FOLDER` judges saved inputs instead: FOLDER/READER.../ID__a__b.json stands for the file
a/b.json of that reader, FOLDER/READER.../NAME.png for itself. Faulty inputs are saved alike.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
from fuzz_pictures import PICTURE_READERS
from fuzz_readers import DATA_READERS, Insane, Reader
from mutations import mutated

READERS = DATA_READERS | PICTURE_READERS
MEMORY_BYTES = 4 * 2**30
SECONDS = 20.0
SETUP_SECONDS = 300.0  # imports of torch and diffusers, and one reading of each valid file
SETTING_UP = "setting up"
PACKAGE = "focaldiffusion"


class Task(NamedTuple):
    """An input: of a reader, by its number, or saved at a path."""

    reader: str
    number: int
    saved: str | None = None


class Outcome(NamedTuple):
    """How an input ended."""

    task: Task
    kind: str
    """success, refused, or a description of the fault."""

    @property
    def is_fault(self) -> bool:
        """Whether it is neither success nor refusal."""
        return self.kind not in ("success", "refused")


def judged(tasks: Iterable[Task], seed: int, save: Path | None = None) -> Iterator[Outcome]:
    """The outcome of each task, in order; a worker that dies or hangs is replaced.

    Args:
        tasks: inputs to read.
        seed: seed of their mutations.
        save: folder for faulty inputs; None keeps none.
    """
    waiting = list(tasks)
    context = get_context("spawn")
    while waiting:
        with tempfile.TemporaryDirectory() as home:
            ours, theirs = context.Pipe(duplex=False)
            worker = context.Process(
                target=_work, args=(theirs, waiting, seed, Path(home), save), daemon=True
            )
            worker.start()
            theirs.close()
            done, limit = 0, SETUP_SECONDS
            while done < len(waiting):
                try:
                    found = ours.recv() if ours.poll(limit) else None
                    limit = SETUP_SECONDS if found == SETTING_UP else SECONDS
                    if found == SETTING_UP:
                        continue
                    if isinstance(found, Exception):
                        raise found  # of the harness, not of a reader
                    kind = found or f"hang of more than {SECONDS:g} s"
                except EOFError:
                    worker.join()
                    kind = f"crash of the interpreter (exit code {worker.exitcode})"
                yield Outcome(waiting[done], kind)
                done += 1
                if kind.startswith(("hang", "crash")):
                    break
            if worker.is_alive() and done < len(waiting):
                worker.kill()
            worker.join()
            waiting = waiting[done:]


def _work(
    connection: Connection, tasks: list[Task], seed: int, home: Path, save: Path | None
) -> None:
    """Read every input and send its outcome."""
    try:
        _work_through(connection, tasks, seed, home, save)
    except Exception:
        connection.send(RuntimeError(traceback.format_exc()))


def _work_through(
    connection: Connection, tasks: list[Task], seed: int, home: Path, save: Path | None
) -> None:
    import resource

    os.environ["OMP_NUM_THREADS"] = "1"
    # Libraries in C write their warnings here.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    seeds: dict[str, Path] = {}
    for name in dict.fromkeys(task.reader for task in tasks):
        seeds[name] = home / name / "valid"
        seeds[name].mkdir(parents=True)
        READERS[name].write(seeds[name])
    import focaldiffusion.evaluation.report
    import focaldiffusion.training.state  # noqa: F401

    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES,) * 2)
    benches: dict[str, _Bench] = {}
    for task in tasks:
        if task.reader not in benches:
            connection.send(SETTING_UP)
            benches[task.reader] = _Bench(task.reader, seeds[task.reader])
        bench = benches[task.reader]
        kind = bench.saved(Path(task.saved)) if task.saved else bench.mutant(task.number, seed)
        if save is not None and kind not in ("success", "refused"):
            bench.keep(save / task.reader, f"{seed}_{task.number}")
        bench.restore()
        connection.send(kind)


class _Bench:
    """A folder with the valid files of a reader; one is mutated at a time."""

    def __init__(self, name: str, valid: Path) -> None:
        self._name, self._reader = name, READERS[name]
        self._valid, self._folder = valid, valid.with_name("bench")
        self._files = sorted(
            path for glob in self._reader.mutates for path in valid.glob(glob) if path.is_file()
        )
        assert self._files, f"{name}: nothing to mutate"
        self._contents = [path.read_bytes() for path in self._files]
        self._changed: Path | None = None
        self.restore(whole=True)
        # What a valid file reads as, for those that are cut short.
        self._expected = {}
        for path in self._files:
            self._expected[path] = self._reader.read(self._folder, self._at(path))
            self.restore(whole=True)

    def mutant(self, number: int, seed: int) -> str:
        """The outcome of an input of this number."""
        random = Random(f"{seed} {self._name} {number}")
        index = random.randrange(len(self._files))
        path = self._files[index]
        others = random.choices(self._contents, k=2)
        data, kind = mutated(self._contents[index], path.name, others, random)
        self._changed = self._at(path)
        self._changed.write_bytes(data)
        expected = self._expected[path] if kind == "truncate" else None
        return _judged(self._reader, self._folder, self._changed, expected)

    def saved(self, path: Path) -> str:
        """The outcome of a saved input."""
        _, *parts = path.name.split("__")
        self._changed = self._folder.joinpath(*parts) if parts else self._folder / path.name
        if path.is_dir():
            self._changed = self._folder / self._reader.overlay
            shutil.rmtree(self._changed)
            self._changed.mkdir()
            for one in path.iterdir():
                (self._changed / one.name).write_bytes(one.read_bytes())
        else:
            self._changed.parent.mkdir(parents=True, exist_ok=True)
            self._changed.write_bytes(path.read_bytes())
        return _judged(self._reader, self._folder, self._changed, None)

    def keep(self, folder: Path, label: str) -> None:
        """Copy the mutated file to a folder of faulty inputs."""
        assert self._changed is not None
        folder.mkdir(parents=True, exist_ok=True)
        parts = self._changed.relative_to(self._folder).parts
        if self._changed.is_file():
            shutil.copyfile(self._changed, folder / "__".join((label, *parts)))

    def restore(self, *, whole: bool = False) -> None:
        """Put the valid files back."""
        valid = self._changed and self._valid / self._changed.relative_to(self._folder)
        others = sum(1 for _ in self._folder.rglob("*")) if self._folder.is_dir() else -1
        if whole or valid is None or not valid.is_file() or others != self._count:
            shutil.rmtree(self._folder, ignore_errors=True)
            shutil.copytree(self._valid, self._folder)
            self._count = sum(1 for _ in self._folder.rglob("*"))
        elif self._changed is not None:
            shutil.copyfile(valid, self._changed)
        self._changed = None

    def _at(self, path: Path) -> Path:
        return self._folder / path.relative_to(self._valid)


def _judged(reader: Reader, folder: Path, path: Path, expected: np.ndarray | None) -> str:
    from focaldiffusion.errors import InputError

    try:
        found = reader.read(folder, path)
        if expected is not None and found is not None and not np.array_equal(found, expected, True):
            raise Insane("a file that was cut short reads as other numbers")
    except InputError as error:
        return "refused" if str(error).strip() else "InputError without a sentence"
    except Insane as error:
        return f"insane: {error}"
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((one for one in reversed(frames) if PACKAGE in one.filename), frames[-1])
        last = str(error).partition("\n")[0][:80]
        return f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}: {last}"
    return "success"


def shared_out(readers: Iterable[str], inputs: int) -> list[Task]:
    """Tasks for readers, fewer where an input takes longer."""
    names = list(readers)
    shares = {name: 1 / READERS[name].cost for name in names}
    total = sum(shares.values())
    return [
        Task(name, number)
        for name in names
        for number in range(max(1, round(inputs * shares[name] / total)))
    ]


def corpus_tasks(corpus: Path, readers: Iterable[str]) -> list[Task]:
    """Saved inputs below a folder, for the reader that the name of their folder begins with."""
    tasks = []
    for folder in sorted(corpus.iterdir()):
        names = [name for name in readers if folder.name.startswith(name)]
        if folder.is_dir() and names:
            tasks += [
                Task(max(names, key=len), n, str(p)) for n, p in enumerate(sorted(folder.iterdir()))
            ]
    return tasks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--reader", nargs="+", default=list(READERS), choices=READERS, metavar="NAME"
    )
    parser.add_argument("--inputs", type=int, default=10_000, help="of all readers together")
    parser.add_argument("--seconds", type=float, help="go on, with further seeds, for this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, help="judge saved inputs instead")
    parser.add_argument("--save", type=Path, help="folder for faulty inputs")
    options = parser.parse_args()
    ends = time.monotonic() + (options.seconds or 0)
    counts: Counter[str] = Counter()
    kinds: dict[str, Counter[str]] = {name: Counter() for name in options.reader}
    seed = options.seed
    while True:
        tasks = (
            corpus_tasks(options.corpus, options.reader)
            if options.corpus
            else shared_out(options.reader, options.inputs)
        )
        for outcome in judged(tasks, seed, options.save):
            counts[outcome.task.reader] += 1
            kinds[outcome.task.reader][outcome.kind] += 1
            if outcome.is_fault:
                where = outcome.task.saved or f"input {outcome.task.number}"
                print(f"{outcome.task.reader}, seed {seed}, {where}: {outcome.kind}", flush=True)
        seed += 1
        if options.corpus or time.monotonic() >= ends:
            break
    print(f"\n{'reader':12} {'inputs':>8} {'success':>8} {'refused':>8} {'faults':>7} {'kinds':>6}")
    total = 0
    for name, found in kinds.items():
        faults = {kind: n for kind, n in found.items() if kind not in ("success", "refused")}
        total += sum(faults.values())
        print(
            f"{name:12} {counts[name]:8} {found['success']:8} {found['refused']:8} "
            f"{sum(faults.values()):7} {len(faults):6}"
        )
    print(f"{'all':12} {counts.total():8} {'':17} {total:7}")
    sys.exit(1 if total else 0)


if __name__ == "__main__":
    main()
