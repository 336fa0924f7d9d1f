"""Many jobs in a row in one server of the app: do memory and temporary files stay flat?

    python benchmarks/app_soak.py --jobs 200

Each job uploads the still life, reduced, runs it, looks at the result as the page does (facts, a
tile, a probe), and is deleted. One listener of events stays open all the time. After every tenth
job the table gets a line: memory of the server and of its other processes, files of the system's
temporary folder and of the work folder, and the mean time of a job.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import httpx2

STACK = Path(__file__).parents[1] / "examples" / "still_life" / "stack"
REDUCTION = 10
PATIENCE_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as home:
        work, temporary = Path(home, "work"), Path(home, "tmp")
        temporary.mkdir()
        server = subprocess.Popen(
            [sys.executable, "-m", "focaldiffusion", "app", "--no-browser", "--work", str(work)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        try:
            soak(address, server.pid, work, temporary, options.jobs)
        finally:
            server.terminate()
            server.wait()
        print(f"left in the temporary folder: {sorted(p.name for p in temporary.rglob('*'))}")
    return 0


def soak(address: str, pid: int, work: Path, temporary: Path, jobs: int) -> None:
    """Run the jobs and print the table."""
    base = address.partition("/?")[0]
    visitor = httpx2.Client(base_url=base, follow_redirects=True, timeout=PATIENCE_S)
    visitor.get(address)
    threading.Thread(target=listen, args=(base, address), daemon=True).start()
    files = small_stack()
    print("| jobs | server [MiB] | others [MiB] | processes | tmp [KiB] | work [KiB] | s a job |")
    print("|---|---|---|---|---|---|---|", flush=True)
    began = time.monotonic()
    for number in range(1, jobs + 1):
        one_job(visitor, files)
        if number == 1 or number % 10 == 0:
            others = family(pid)
            row = [
                number,
                memory_mib(pid),
                sum(memory_mib(one) for one in others),
                1 + len(others),
                size_kib(temporary),
                size_kib(work),
                f"{(time.monotonic() - began) / (1 if number == 1 else number):.2f}",
            ]
            print(f"| {' | '.join(map(str, row))} |", flush=True)


def small_stack() -> list[tuple[str, tuple[str, bytes]]]:
    """The frames of the still life, reduced, as files of an upload."""
    files = []
    for path in sorted(STACK.glob("*.jpg")):
        image = cv2.imread(str(path))
        height, width = image.shape[:2]
        size = width // REDUCTION, height // REDUCTION
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        files.append(("files", (path.name, cv2.imencode(".jpg", small)[1].tobytes())))
    return files


def one_job(visitor: httpx2.Client, files: list[Any]) -> None:
    """Upload, run, look and delete."""
    draft = visitor.post("/api/drafts", files=files).json()
    job = visitor.post("/api/jobs", json={"draft": draft["id"]}).json()
    place = f"/api/jobs/{job['id']}"
    while (now := visitor.get(place).json())["state"] != "done":
        assert now["error"] is None, now
        time.sleep(0.1)
    for look in ("result", "layers/depth/tiles/0/0/0", "probe?x=50&y=50"):
        answer = visitor.get(f"{place}/{look}")
        assert answer.status_code == 200, answer.text
    answer = visitor.delete(place)
    assert answer.status_code == 204, answer.text


def listen(base: str, address: str) -> None:
    """A page that stays open."""
    with httpx2.Client(base_url=base, follow_redirects=True, timeout=None) as visitor:
        visitor.get(address)
        with visitor.stream("GET", "/api/events") as events:
            for _ in events.iter_lines():
                pass


def family(pid: int) -> list[int]:
    """Processes below a process, which Linux lists."""
    children = [
        int(one)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for one in task.read_text().split()
    ]
    return children + [one for child in children for one in family(child)]


def memory_mib(pid: int) -> int:
    """Memory of a process, its share of what it has in common with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return round(int(line.split()[1]) / 2**10)
    return 0


def size_kib(folder: Path) -> int:
    """Size of the files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) // 2**10


if __name__ == "__main__":
    sys.exit(main())
