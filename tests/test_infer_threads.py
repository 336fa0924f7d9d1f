from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plant import run

STILL_LIFE = Path(__file__).resolve().parents[1] / "examples" / "still_life" / "stack"


def write_handheld_stack(folder: Path) -> Path:
    """Three frames of the example at a third of its size, the last one moved by 5 px."""
    folder.mkdir()
    for index in range(3):
        with Image.open(STILL_LIFE / f"frame_0{2 * index}.jpg") as image:
            pixels = np.asarray(image.resize((320, 240)))
        moved = np.roll(pixels, 5 if index == 2 else 0, axis=1)
        Image.fromarray(moved).save(folder / f"frame_{index}.png")
    return folder


def results(stack: Path, output: Path, *flags: str) -> dict[str, Any]:
    """The files of a result, without the figures that differ from run to run."""
    assert run("infer", stack, "--output", output, "--quiet", *flags) == 0
    found: dict[str, Any] = {path.name: path.read_bytes() for path in output.iterdir()}
    metadata = json.loads(found["metadata.json"])
    del metadata["seconds"], metadata["process_peak_memory_mib"], metadata["settings"]["threads"]
    return {**found, "metadata.json": metadata}


def test_the_number_of_threads_does_not_change_the_results(tmp_path: Path) -> None:
    stack = write_handheld_stack(tmp_path / "still_life")
    one = results(stack, tmp_path / "one", "--threads", "1")
    assert one == results(stack, tmp_path / "two", "--threads", "2")
    frames = one["metadata.json"]["alignment"]["frames"]
    assert max(frame["corner_displacement_px"] for frame in frames) == pytest.approx(5, abs=0.5)
