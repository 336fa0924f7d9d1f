"""benchmarks/gpu.py on a CPU: all of its parts in miniature, and a run that is cut off."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import gpu

SCRIPT = Path(gpu.__file__)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def read(directory: Path) -> tuple[dict[str, Any], str]:
    """The contents of both files, which are all that a run leaves."""
    assert {path.name for path in directory.iterdir()} == {"gpu.json", "gpu.md"}
    text = (directory / "gpu.md").read_text(encoding="utf-8")
    return json.loads((directory / "gpu.json").read_text(encoding="utf-8")), text


def numbers(row: dict[str, Any]) -> Iterator[float]:
    return (one for one in row.values() if isinstance(one, (int, float)))


def test_every_part_runs_in_miniature(tmp_path: Path) -> None:
    # Far more time than it takes, so that no part ends early on a busy machine.
    done = run("--tiny", "--minutes", 60, "--output", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    content, text = read(tmp_path)
    assert {"device", "torch", "diffusers", "date"} <= content["header"].keys()
    assert list(content["parts"]) == list(gpu.PARTS)
    for name, part in content["parts"].items():
        assert (part["state"], part["failures"]) == ("done", []), name
        assert part["rows"], name
        assert all(math.isfinite(one) for row in part["rows"] for one in numbers(row))
        assert gpu.PARTS[name].title in text
        assert all(f"| {row['']} |" in text for row in part["rows"])
    rows = {name: part["rows"] for name, part in content["parts"].items()}
    assert all(row["agrees"] for row in rows["agreement"])
    for stage in ("simulate", "calibrate", "sweep", "sharpness", "complete", "outlines", "check"):
        assert any(row[""].startswith(stage) for row in rows["agreement"]), stage
    for row in rows["infer"]:
        timed = {"calibrating", "sweeping", "completing", "checking", "fusing", "writing"}
        assert timed <= row.keys()
    assert [row["gradient checkpointing"] for row in rows["lora"] if "ms per step" in row] == [
        False,
        True,
    ] * 4  # three runs of both planes, and one of depth alone
    assert "Not finished" not in text


def test_without_time_all_parts_are_left_out(tmp_path: Path) -> None:
    assert gpu.main(["--tiny", "--minutes", "0.01", "--output", str(tmp_path)]) == 0
    content, text = read(tmp_path)
    assert {part["state"] for part in content["parts"].values()} == {"left out"}
    assert all(f"{name} (left out)" in text for name in gpu.PARTS)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_without_a_gpu_one_sentence_says_so(tmp_path: Path) -> None:
    done = run("--output", tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: torch finds no GPU (CUDA) here; --tiny runs on the CPU.\n"
    assert not (tmp_path / "out").exists()


PARTS_THAT_FAIL = """
import os, time

def endless(probe):
    with probe.guarded("bad"):
        raise MemoryError("of all\\nmemory")
    probe.row("good", seconds_per_row=0.5)
    time.sleep(3600)

def dies(probe):
    probe.row("before", runs=1)
    os._exit(9)
"""


def test_a_part_that_is_cut_off_or_dies_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "parts_that_fail.py").write_text(PARTS_THAT_FAIL, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    parts = {
        "dies": gpu.Part("Dies", "parts_that_fail", "dies", 1),
        "endless": gpu.Part("Endless", "parts_that_fail", "endless", 1),
        "last": gpu.Part("Last", "parts_that_fail", "endless", 1e-3),
    }
    monkeypatch.setattr(gpu, "PARTS", parts)
    out = tmp_path / "out"
    assert gpu.main(["--tiny", "--minutes", "0.3", "--output", str(out)]) == 1
    content, text = read(out)
    found = content["parts"]
    assert [part["state"] for part in found.values()] == ["exit code 9", "cut off", "left out"]
    assert found["dies"]["rows"] == [{"": "before", "runs": 1}]
    assert found["endless"]["rows"] == [{"": "good", "seconds per row": 0.5}]
    (failure,) = found["endless"]["failures"]
    assert (failure["row"], failure["reason"]) == ("bad", "MemoryError: of all")
    assert "Not finished: dies (exit code 9), endless (cut off), last (left out)." in text
    assert "Failed: endless, bad: MemoryError: of all" in text
