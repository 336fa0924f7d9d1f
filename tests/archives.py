"""Archives of small stacks, for tests of `focaldiffusion batch`."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

from plant import write_stack

from focaldiffusion.archive.recipe import Recipe
from focaldiffusion.archive.storage import Storage
from focaldiffusion.archive.work import Workshop
from focaldiffusion.reconstruction import Settings

VOLATILE = ("seconds", "process_peak_memory_mib", "batch")
"""Parts of `metadata.json` that differ from run to run."""


def write_archive(folder: Path, count: int, broken: tuple[int, ...] = ()) -> Path:
    """A manifest of `count` equal stacks; some have a frame that does not decode."""
    folder.mkdir()
    first = write_stack(folder / "stack_0")
    for number in range(1, count):
        shutil.copytree(first, folder / f"stack_{number}")
    for number in broken:
        (folder / f"stack_{number}" / "frame_1.png").write_bytes(b"no picture")
    rows = "".join(f"plant {number},stack_{number}\n" for number in range(count))
    (folder / "manifest.csv").write_text(f"key,frames\n{rows}")
    return folder / "manifest.csv"


def workshop_in(folder: Path, **settings: object) -> Workshop:
    """Settings that take little time, and a place for results."""
    given = {"align": "off", "device": "cpu", "threads": 1, "image_only": True, **settings}
    return Workshop(Recipe(Settings(**given)), Storage(str(folder)))  # type: ignore[arg-type]


def report_of(folder: Path, name: str = "report.csv") -> dict[str, dict[str, str]]:
    """The rows of a report by key, each of which must be there once."""
    with (folder / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["key"] for row in rows}) == len(rows)
    return {row["key"]: row for row in rows}


def results_of(folder: Path) -> dict[str, object]:
    """Every file of results, without what differs from run to run."""
    found: dict[str, object] = {}
    for path in folder.glob("*/*"):
        name = str(path.relative_to(folder))
        if path.name != "metadata.json":
            found[name] = path.read_bytes()
            continue
        content = json.loads(path.read_text())
        found[name] = {key: value for key, value in content.items() if key not in VOLATILE}
    return found
