"""benchmarks/speed.py and the tables of peers.py."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import peers
import speed


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    for index in range(3):
        cv2.imwrite(str(folder / f"f{index}.png"), np.full((30, 40, 3), 60 * index, np.uint8))
    return folder


def test_frames_repeat_there_and_back_by_links(source: Path, tmp_path: Path) -> None:
    frames = sorted(speed.made_stack(f"long:{source}", tmp_path).iterdir())
    assert len(frames) == 187
    assert [frame.resolve().stem for frame in frames[:6]] == ["f0", "f1", "f2", "f1", "f0", "f1"]
    assert all(frame.is_symlink() for frame in frames)


def test_frames_are_enlarged_to_the_megapixels(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(speed.RECIPES, "heavy", speed.Recipe(5, megapixels=0.0048))
    frames = sorted(speed.made_stack(f"heavy:{source}", tmp_path).iterdir())
    assert len(frames) == 5
    assert {cv2.imread(str(frame)).shape for frame in frames} == {(60, 80, 3)}


def test_a_folder_stays_itself(source: Path, tmp_path: Path) -> None:
    assert speed.made_stack(str(source), tmp_path) == source


def test_tables_have_medians() -> None:
    used = [peers.Usage(wall_s, 1.0, 0.5, 100.0 * wall_s) for wall_s in (3.0, 1.0, 2.0)]
    assert speed.usage_table({"a": {"after": used}}).splitlines()[2:] == [
        "| a | after | 1.5 | 2.0 | 200 |"
    ]
    stages = {"before": [{"x": 1.0}, {"x": 3.0}], "after": [{"x": 1.0, "y": 2.0}]}
    assert speed.stage_table(stages).splitlines()[2:] == [
        "| x | 2.00 | 1.00 |",
        "| y | 0.00 | 2.00 |",
    ]


def test_a_tool_that_failed_has_no_means() -> None:
    usage = peers.Usage(1.0, 2.0, 0.5, 100.0)
    runs = [peers.ToolRun(tool, scene, usage) for tool in ("ours", "other") for scene in "ab"]
    runs[3] = peers.ToolRun("other", "b", failure="exit code 1")
    scores = {("ours", scene): peers.Score(30.0, 0.9) for scene in "ab"}
    scores["other", "a"] = peers.Score(40.0, 0.9)
    assert peers.summary_table(runs, scores).splitlines()[2:] == [
        "| ours | 30.00 | 0.900 | 2.0 + 0.5 | 100 |",
        "| other |  |  |  |  |",
    ]
