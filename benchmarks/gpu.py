"""All that a GPU has to show, in one command and a given time.

    python benchmarks/gpu.py --minutes 8 --output DIR
    python benchmarks/gpu.py --tiny --output DIR      # the same code on a CPU, in miniature

Seven parts, in order of worth:

- *agreement*: every stage of the physical estimate and of the networks, on the GPU and on the CPU;
- *infer*: seconds per stage at 1 and 12 megapixels, on both;
- *sd35*: a pipeline of the size of Stable Diffusion 3.5 medium, next to its bare networks;
- *lora*: training steps of its adapter, and their memory beside the estimate;
- *trainer*: `focaldiffusion train` from a folder of weights, killed and resumed;
- *simulator*: our renderer next to FFT convolutions of the same layers;
- *compact*: training of the small network.

Weights are random, scenes are procedural: nothing is read or downloaded. Each part runs in a
process of its own and has a share of the time that is left, so that running out of memory or time
in one does not cost the others. `gpu.json` and `gpu.md` in DIR are written anew after each row.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

_CLOSING_S = 3.0  # kept back to end the last part and to write the files
_LEAST_S = 4.0  # of a part; in less, not even its imports end
_PATIENCE = 0.06  # share of a part's time that the repeats of one measurement may take
_GIB = 2**30


class Part(NamedTuple):
    """A part of the benchmark: its heading, its home, and its share of the time."""

    title: str
    module: str
    function: str
    weight: float


PARTS: dict[str, Part] = {
    "agreement": Part("GPU and CPU, stage by stage", "gpu_physics", "agreement", 2.0),
    "infer": Part("Seconds per stage of `infer`, five frames", "gpu_physics", "infer", 2.5),
    "sd35": Part("A network of the size of SD 3.5 medium, bfloat16", "gpu_models", "sd35", 1.5),
    "lora": Part("LoRA training steps of that size", "gpu_training", "lora", 2.0),
    "trainer": Part("`train` from a base of that size", "gpu_training", "trainer", 2.0),
    "simulator": Part("The simulator and FFT layers", "gpu_physics", "simulator", 0.5),
    "compact": Part("Training of `compact`", "gpu_training", "compact", 1.5),
}


class Timing(NamedTuple):
    """Median seconds of some runs."""

    seconds: float
    runs: int


class Probe:
    """Tools of a part: its device, its clock, and the way of its rows to the files.

    Attributes:
        tiny: whether to take the smallest sizes that still run everything.
        device: name of the torch device that is measured, cuda or cpu.
        limit_s: time of the part.
    """

    def __init__(self, send: Callable[[dict[str, Any]], None], limit_s: float, *, tiny: bool):
        """Measure on the GPU, or on the CPU if `tiny`; `send` takes each row or failure."""
        self._send, self.limit_s, self.tiny = send, limit_s, tiny
        self.device = "cpu" if tiny else "cuda"

    def row(self, name: str, **values: Any) -> None:
        """Add a row; underscores in the names of its values become spaces."""
        named = {key.replace("_", " "): value for key, value in values.items()}
        self._send({"row": {"": name, **named}})

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Record an exception as the failure of a row, free its memory, and go on."""
        try:
            yield
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            self._send({"failure": {"row": name, "reason": reason, "traceback": _trace(error)}})
        self.free()

    def free(self) -> None:
        """Give unused memory back to the device."""
        gc.collect()
        if self.device == "cuda":
            import torch

            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            import torch

            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        """Seconds until the device has done some work."""
        self.synchronize()
        started = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - started

    def median(self, work: Callable[[], object], most: int = 20) -> Timing:
        """Median of up to `most` runs, two if tiny, after one that is not counted."""
        self.seconds(work)
        most = 2 if self.tiny else most
        found: list[float] = []
        while not found or (len(found) < most and sum(found) < _PATIENCE * self.limit_s):
            found.append(self.seconds(work))
        return Timing(statistics.median(found), len(found))

    def start_peak(self) -> None:
        """Forget the largest memory so far."""
        self.free()
        if self.device == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats()

    def peak_gib(self) -> float:
        """Largest memory of tensors on the GPU since `start_peak`; of the process on a CPU."""
        from focaldiffusion.progress import peak_memory_mib

        if self.device == "cuda":
            import torch

            return torch.cuda.max_memory_allocated() / _GIB
        return (peak_memory_mib() or 0) / 1024


@dataclass
class Report:
    """The files of a run, written anew after each change.

    Attributes:
        directory: of the files.
        header: facts about machine and run.
        parts: state, seconds, rows and failures of each part.
    """

    directory: Path
    header: dict[str, Any]
    parts: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {
            name: {"state": "left out", "seconds": 0.0, "rows": [], "failures": []}
            for name in PARTS
        }
    )

    def write(self) -> None:
        """Write both files, each complete or not at all."""
        content = {"header": self.header, "parts": self.parts}
        texts = {
            "gpu.json": json.dumps(content, indent=1, allow_nan=False) + "\n",
            "gpu.md": "\n".join(self._lines()) + "\n",
        }
        for name, text in texts.items():
            partial = self.directory / f".{name}.{os.getpid()}"
            partial.write_text(text, encoding="utf-8")
            partial.replace(self.directory / name)

    def _lines(self) -> Iterator[str]:
        yield ", ".join(f"{name} {value}" for name, value in self.header.items())
        for name, part in self.parts.items():
            if not part["rows"]:
                continue
            yield f"\n### {PARTS[name].title}\n"
            columns = list(dict.fromkeys(key for row in part["rows"] for key in row))
            yield f"| {' | '.join(columns)} |"
            yield "|" + "---|" * len(columns)
            for row in part["rows"]:
                yield f"| {' | '.join(_text(row.get(column)) for column in columns)} |"
        endings = [f"{name} ({one['state']})" for name, one in self.unfinished.items()]
        if endings:
            yield f"\nNot finished: {', '.join(endings)}."
        for name, failure in self.failures:
            yield f"\nFailed: {name}, {failure['row']}: {failure['reason']}"

    @property
    def unfinished(self) -> dict[str, dict[str, Any]]:
        """Parts that did not come to their end."""
        return {name: one for name, one in self.parts.items() if one["state"] != "done"}

    @property
    def failures(self) -> list[tuple[str, dict[str, str]]]:
        """Failed rows, with the names of their parts."""
        return [(name, one) for name, part in self.parts.items() for one in part["failures"]]


def main(arguments: list[str] | None = None) -> int:
    """Run the parts; 2 without a GPU, 1 if something failed, else 0, also if time ran out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=8.0, help="time limit (default: 8)")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tiny", action="store_true", help="on the CPU, at the smallest sizes")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    # A process forked after CUDA was asked cannot use it, so processes for the GPU start afresh.
    can_fork = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if options.tiny and can_fork else "spawn")
    if options.tiny and can_fork:
        context.set_forkserver_preload(sorted({part.module for part in PARTS.values()}))
    header = _header(options.tiny)
    if header is None:
        print("error: torch finds no GPU (CUDA) here; --tiny runs on the CPU.", file=sys.stderr)
        return 2
    options.output.mkdir(parents=True, exist_ok=True)
    report = Report(options.output, header | {"minutes": options.minutes})
    report.write()
    for index, name in enumerate(PARTS):
        weights = [part.weight for part in list(PARTS.values())[index:]]
        left_s = deadline - time.monotonic() - _CLOSING_S
        limit_s = left_s * weights[0] / sum(weights)
        if limit_s < _LEAST_S:
            print(f"{name}: left out, {max(left_s, 0):.0f} s are left", flush=True)
            continue
        print(f"{name}: up to {limit_s:.0f} s of {left_s:.0f} s", flush=True)
        _run(context, name, report, limit_s, tiny=options.tiny)
    print(f"\n{(options.output / 'gpu.md').read_text(encoding='utf-8')}")
    return 1 if report.failures else 0


def _run(context: Any, name: str, report: Report, limit_s: float, *, tiny: bool) -> None:
    """Run a part in a process of its own until it ends, or its time does."""
    part, found = PARTS[name], report.parts[name]
    found["state"] = "cut off"
    started = time.monotonic()
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(
        target=_work, args=(part.module, part.function, limit_s, tiny, writer), daemon=True
    )
    process.start()
    writer.close()
    while reader.poll(max(0.0, started + limit_s - time.monotonic())):
        try:
            message = reader.recv()
        except EOFError:  # the process ended
            process.join()
            found["state"] = "done" if process.exitcode == 0 else f"exit code {process.exitcode}"
            break
        left_s = started + limit_s - time.monotonic()
        if "row" in message:
            found["rows"].append(message["row"])
            values = ", ".join(f"{key} {_text(one)}" for key, one in message["row"].items())
            print(f"  {values.strip()} ({left_s:.0f} s left)", flush=True)
        else:
            found["failures"].append(message["failure"])
            print(f"  FAILED {message['failure']['row']}: {message['failure']['reason']}")
        found["seconds"] = round(time.monotonic() - started, 2)
        report.write()
    if process.is_alive():
        process.kill()
        process.join()
    if found["state"] not in ("done", "cut off"):
        reason = f"the process ended with {found['state']}"
        found["failures"].append({"row": "process", "reason": reason, "traceback": ""})
    found["seconds"] = round(time.monotonic() - started, 2)
    print(f"  {found['state']} after {found['seconds']:.0f} s", flush=True)
    report.write()


def _work(module: str, function: str, limit_s: float, tiny: bool, writer: Connection) -> None:
    """Body of the process of a part."""
    probe = Probe(writer.send, limit_s, tiny=tiny)
    with probe.guarded("part"):
        getattr(importlib.import_module(module), function)(probe)
    writer.close()


def _header(tiny: bool) -> dict[str, Any] | None:
    """Facts about the machine, asked in another process; None where a GPU is missing."""
    if tiny:
        return {"device": f"{platform.machine()} CPU", "tiny": True} | _versions()
    asked = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True)
    if found.returncode or not (device := found.stdout.strip()):
        return None
    return {"device": device, "driver": _driver(), "CPUs": os.cpu_count()} | _versions()


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    from focaldiffusion import __version__

    found = {name: version(name) for name in ("torch", "diffusers")}
    return {"focaldiffusion": __version__, **found, "date": time.strftime("%Y-%m-%d %H:%M")}


def _driver() -> str:
    """Version of the driver; "unknown" without its tool."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.partition("\n")[0].strip()


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))[-4000:]


def _text(value: Any) -> str:
    """A value as a cell of a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    os.environ.update(HF_HUB_OFFLINE="1", DIFFUSERS_VERBOSITY="error")  # of the processes
    sys.exit(main())
