"""Batches of small stacks: memory, open files and overhead; kills; a shell loop; Ray.

    python benchmarks/archive.py flat --stacks 10000     # 1 % broken in twenty ways
    python benchmarks/archive.py overhead --stacks 100   # over `fd.reconstruct` in a warm process
    python benchmarks/archive.py kills --kills 50
    python benchmarks/archive.py loop --stacks 40        # against `infer` for each stack
    python benchmarks/archive.py ray --stacks 200        # one worker and two; against `local`

Work is counted in CPU seconds, since other work on the machine does not change them much.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch

import focaldiffusion as fd
from focaldiffusion.archive.batch import Batch
from focaldiffusion.archive.manifest import Entry, read_manifest, write_manifest
from focaldiffusion.archive.recipe import Recipe
from focaldiffusion.archive.report import Line
from focaldiffusion.archive.storage import Storage
from focaldiffusion.archive.work import Bench, Task, Workshop
from focaldiffusion.engines.local import LocalEngine
from focaldiffusion.engines.memory import budget_bytes
from focaldiffusion.io.simulated import write_stack
from focaldiffusion.optics import Camera
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture

SIZE = (72, 96)
DISTANCES_M = (0.4, 0.55, 0.8, 1.5)
CAMERA = {"focal_length_px": 115.0, "aperture_diameter_m": 0.012}
SCENES = 40
VOLATILE = ("seconds", "process_peak_memory_mib", "batch")
"""Parts of `metadata.json` that differ from run to run."""


def write_scene(folder: Path, seed: int) -> None:
    """A stack of a textured plane with a slant of its own."""
    generator = torch.Generator().manual_seed(seed)
    near, far = 1 / (0.4 + 0.3 * torch.rand(2, generator=generator))
    slant = torch.linspace(float(near), 0.5 * float(far), SIZE[1]).expand(SIZE)
    scene = Scene(
        torch.rand(3, *SIZE, generator=generator),
        1 / slant,
        torch.ones(SIZE, dtype=torch.bool),
        Camera(**CAMERA, image_size=SIZE),
        "benchmark",
    )
    write_stack(folder, capture(scene, DISTANCES_M), bit_depth=8, note={"seed": seed})


def rewritten(**changes: Any) -> Callable[[Path], None]:
    """A way to break a stack: other entries of its stack.json."""

    def write(folder: Path) -> None:
        path = folder / "stack.json"
        content = json.loads(path.read_text())
        path.unlink()
        path.write_text(json.dumps({**content, **changes}))

    return write


def frame_as(data: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A way to break a stack: another content of its second frame."""

    def write(folder: Path) -> None:
        path = folder / "frame_01.png"
        content = data(path.read_bytes()) if callable(data) else data
        path.unlink()
        path.write_bytes(content)

    return write


def replaced_by(make: Callable[[Path], None]) -> Callable[[Path], None]:
    """A way to break a stack: its second frame is something else than a file."""

    def write(folder: Path) -> None:
        (folder / "frame_01.png").unlink()
        make(folder / "frame_01.png")

    return write


def without_frames(count: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "stack.json").unlink()
        for path in sorted(folder.glob("*.png"))[:count]:
            path.unlink()

    return write


def other_size(folder: Path) -> None:
    import cv2

    (folder / "frame_01.png").unlink()
    cv2.imwrite(str(folder / "frame_01.png"), torch.zeros(40, 50, 3, dtype=torch.uint8).numpy())


def tiny(folder: Path) -> None:
    import cv2

    for path in folder.glob("*.png"):
        path.unlink()
        cv2.imwrite(str(path), torch.zeros(6, 8, 3, dtype=torch.uint8).numpy())


def huge(png: bytes) -> bytes:
    """The same file with a header that declares 60,000 x 60,000 pixels."""
    return png[:16] + (60_000).to_bytes(4, "big") * 2 + png[24:]


BROKEN: tuple[Callable[[Path], None], ...] = (
    shutil.rmtree,
    without_frames(4),
    without_frames(3),
    frame_as(b""),
    frame_as(b"no picture"),
    frame_as(lambda png: png[: len(png) // 2]),
    frame_as(lambda png: png[:40] + b"\x00" * 400 + png[440:]),
    frame_as(huge),
    replaced_by(lambda path: path.mkdir()),
    replaced_by(lambda path: os.mkfifo(path)),
    replaced_by(lambda path: path.symlink_to("absent.png")),
    replaced_by(lambda path: path.symlink_to(path.name)),
    replaced_by(lambda path: None),
    other_size,
    tiny,
    lambda folder: (folder / "stack.json").unlink() or (folder / "stack.json").write_text("{"),
    rewritten(focus_distances_m=[0.4, 0.5]),
    rewritten(focus_distances_m=[0.4, -0.5, 0.8, 1.5]),
    rewritten(focus_distances_m=[0.4, 0.4, 0.4, 0.4]),
    rewritten(focal_length=3),
)


def write_archive(folder: Path, count: int, broken_share: float = 0.01) -> tuple[Path, set[str]]:
    """A manifest of stacks, and the keys of the broken ones; files are links to few."""
    scenes = [folder / "scenes" / str(seed) for seed in range(min(SCENES, count))]
    for seed, scene in enumerate(scenes):
        scene.parent.mkdir(parents=True, exist_ok=True)
        write_scene(scene, seed)
    every = round(1 / broken_share) if broken_share else count + 1
    entries, broken = [], set()
    for number in range(count):
        stack = folder / "stacks" / f"{number:05d}"
        shutil.copytree(scenes[number % len(scenes)], stack, copy_function=os.link)
        if number % every == every - 1:
            BROKEN[len(broken) % len(BROKEN)](stack)
            broken.add(stack.name)
        entries.append(Entry(stack.name, (str(stack),)))
    write_manifest(folder / "manifest.csv", entries)
    return folder / "manifest.csv", broken


def settings(*, depth: bool) -> fd.Settings:
    return fd.Settings(threads=1, device="cpu", image_only=not depth)


def measured() -> str:
    """Memory and open files of parent and workers."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    facts = [f"{one.memory_info().rss / 2**20:.0f} MiB, {one.num_fds()} files" for one in processes]
    return "; ".join(facts)


def flat(options: argparse.Namespace, home: Path) -> None:
    """Memory and open files while a batch grows, and its failures."""
    manifest, broken = write_archive(home / "archive", options.stacks, options.broken)
    workshop = Workshop(Recipe(settings(depth=options.depth)), Storage(str(home / "out")))
    batch = Batch(read_manifest(manifest), manifest.parent, workshop)
    started = time.monotonic()
    with (
        LocalEngine(workshop, options.workers, budget_bytes=budget_bytes()) as engine,
        batch.opened(),
    ):
        for done, _ in enumerate(batch.run(engine, batch.due()), start=1):
            if done in (100, 200, 500) or done % 1000 == 0 or done == options.stacks:
                seconds = time.monotonic() - started
                print(f"{done} rows in {seconds:.0f} s: {measured()}", flush=True)
    failed = {line.key for line in batch.lines() if line.status == "failed"}
    print(f"failed: {len(failed)}, as broken: {failed == broken}, rows: {len(batch.lines())}")
    for line in batch.lines():
        if line.status == "failed" and len(failed) <= len(BROKEN):
            print(f"  {line.key}: {line.error}")


class InPairs(Workshop):
    """Makes each row twice in a warm process: as a batch does, and by `fd.reconstruct`."""

    def open(self) -> Bench:
        """See `Workshop`."""
        return _InPairs(self)


class _InPairs(Bench):
    def run(self, task: Task) -> Line:
        begun = time.process_time()
        line = super().run(task)
        between = time.process_time()
        alone = Path(f"{self._storage.root}-alone") / task.entry.key
        fd.reconstruct(task.entry.frames[0], settings=self._recipe.settings).save(alone)
        spent = f"{between - begun} {time.process_time() - between}"
        (alone.parent / f"{task.entry.key}.seconds").write_text(spent)
        return line


def overhead(options: argparse.Namespace, home: Path) -> None:
    """CPU seconds of a batch, its parent included, over those of `fd.reconstruct` and `save`."""
    manifest, _ = write_archive(home / "archive", options.stacks, 0)
    workshop = InPairs(Recipe(settings(depth=options.depth)), Storage(str(home / "out")))
    batch = Batch(read_manifest(manifest), manifest.parent, workshop)
    with (
        LocalEngine(workshop, options.workers, budget_bytes=budget_bytes()) as engine,
        batch.opened(),
    ):
        begun = time.process_time()
        for done, _ in enumerate(batch.run(engine, batch.due())):
            begun = begun if done else time.process_time()
        parent = (time.process_time() - begun) / (options.stacks - 1)
    pairs = [path.read_text().split() for path in sorted((home / "out-alone").glob("*.seconds"))]
    warm = pairs[2 * options.workers :]
    inside, alone = (sum(map(float, one)) / len(warm) for one in zip(*warm, strict=True))
    print(f"CPU seconds a stack: worker {inside:.4f}, parent {parent:.4f}; alone {alone:.4f}")
    print(f"overhead of the batch: {100 * ((inside + parent) / alone - 1):.1f} %")


def batch_command(manifest: Path, out: Path, *flags: str) -> list[str]:
    words = ("-m", "focaldiffusion", "batch", str(manifest), "--output", str(out))
    return [sys.executable, *words, "--device", "cpu", *flags]


def results_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in out.glob("*/*"):
        if path.name == "metadata.json":
            content = json.loads(path.read_text())
            found[str(path)[len(str(out)) :]] = {
                key: value for key, value in content.items() if key not in VOLATILE
            }
        else:
            found[str(path)[len(str(out)) :]] = path.read_bytes()
    return found


def kills(options: argparse.Namespace, home: Path) -> None:
    """SIGKILL of the parent or of a worker at random times, until the batch is done."""
    manifest, broken = write_archive(home / "archive", options.stacks, 0.05)
    flags = ("--workers", "2", "--image-only", "--quiet")
    subprocess.run(batch_command(manifest, home / "whole", *flags), capture_output=True)
    generator, counts = random.Random(0), {"parent": 0, "worker": 0}
    out = home / "out"
    child: subprocess.Popen[bytes] | None = None
    while sum(counts.values()) < options.kills:
        if child is None or child.poll() is not None:
            if child is not None and (out / "report.csv").exists():
                shutil.rmtree(out)  # done before all kills were: once more
            child = subprocess.Popen(
                batch_command(manifest, out, *flags),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        time.sleep(generator.uniform(0.2, options.longest_s))
        workers = psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []
        if generator.random() < 0.7 and len(workers) > 2:
            generator.choice(workers).kill()
            counts["worker"] += 1
        elif child.poll() is None:
            child.kill()
            child.wait()
            child = None
            counts["parent"] += 1
    if child is not None:
        child.wait()
    for flags_of in (flags, (*flags, "--retry", "failed")):
        subprocess.run(batch_command(manifest, out, *flags_of), capture_output=True)
    with (out / "report.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    keys = [row["key"] for row in rows]
    failed = {row["key"] for row in rows if row["status"] == "failed"}
    print(f"killed: {counts}")
    print(f"rows: {len(keys)}, twice: {len(keys) - len(set(keys))}, of {options.stacks}")
    print(f"failed as broken: {failed == broken}")
    print(f"results equal: {results_of(out) == results_of(home / 'whole')}")
    print(f"partial folders left: {[path.name for path in out.glob('.*partial*')]}")


def loop(options: argparse.Namespace, home: Path) -> None:
    """Wall time of a batch, and of `infer` for each stack."""
    manifest, _ = write_archive(home / "archive", options.stacks, 0)
    started = time.monotonic()
    done = batch_command(manifest, home / "out", "--workers", str(options.workers), "--quiet")
    subprocess.run(done, check=True)
    together = time.monotonic() - started
    started, sample = time.monotonic(), options.stacks if options.all else min(4, options.stacks)
    for entry in read_manifest(manifest)[:sample]:
        words = ("infer", entry.frames[0], "--output", str(home / "loop" / entry.key))
        program = [sys.executable, "-m", "focaldiffusion", *words, "--device", "cpu", "--quiet"]
        subprocess.run(program, check=True)
    one_by_one = (time.monotonic() - started) * options.stacks / sample
    print(f"batch of {options.stacks}: {together:.1f} s; loop of infer: {one_by_one:.1f} s")
    print(f"(loop measured on {sample} stacks); {one_by_one / together:.1f} times faster")


def ray_nodes(options: argparse.Namespace, home: Path) -> None:
    """Rows a second with one worker and with two, and results equal to the local engine's."""
    import ray
    from ray.cluster_utils import Cluster

    from focaldiffusion.engines.ray_cluster import RayEngine

    manifest, _ = write_archive(home / "archive", options.stacks, 0.05)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    recipe = Recipe(settings(depth=options.depth))
    rates = []
    for count in (1, 2):
        workshop = Workshop(recipe, Storage(str(home / f"ray-{count}")))
        batch = Batch(read_manifest(manifest), manifest.parent, workshop)
        with RayEngine(workshop, workers=count) as engine, batch.opened():
            begun = 0.0
            for number, _ in enumerate(batch.run(engine, batch.due())):
                begun = begun if number else time.monotonic()
            rates.append((options.stacks - 1) / (time.monotonic() - begun))
    ray.shutdown()
    cluster.shutdown()
    flags = ("--workers", "2", *(() if options.depth else ("--image-only",)), "--quiet")
    subprocess.run(batch_command(manifest, home / "local", *flags), capture_output=True)
    equal = results_of(home / "local") == results_of(home / "ray-1") == results_of(home / "ray-2")
    print(f"rows a second: {rates[0]:.2f}, {rates[1]:.2f}; {rates[1] / rates[0]:.2f} times")
    print(f"ray with one worker, with two, and local give equal files: {equal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = {"flat": flat, "overhead": overhead, "kills": kills, "loop": loop, "ray": ray_nodes}
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("--stacks", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--broken", type=float, default=0.01, help="share of broken stacks")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--longest-s", type=float, default=8.0, help="between kills")
    parser.add_argument("--depth", action="store_true", help="depth as well as the image")
    parser.add_argument("--all", action="store_true", help="measure the loop on all stacks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        kinds[options.kind](options, Path(home))


if __name__ == "__main__":
    main()
