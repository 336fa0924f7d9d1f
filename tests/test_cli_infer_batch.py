"""`focaldiffusion infer` on several stacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import names, refusal
from PIL import Image
from plant import FRAMES, run, truncate

from focaldiffusion.cli.main import main


def test_in_a_batch_the_others_still_run(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, cut, good = tmp_path / "missing", tmp_path / "cut", tmp_path / "good"
    shutil.copytree(stack, cut)
    shutil.copytree(stack, good)
    truncate(cut / FRAMES[1])
    output = tmp_path / "out"
    assert run("infer", missing, cut, good, stack, "--output", output, "--json") == 1
    out, err = capsys.readouterr()
    assert names(output) == ["good", "plant"]

    lines = err.splitlines()
    assert lines[0] == f"error: {missing}: no such file or folder."
    assert lines[1].startswith(f"error: cut: {cut / FRAMES[1]}: ")
    assert lines[2] == "2 of 4 stacks failed:"
    assert lines[3] == f"  {missing}: no such file or folder."
    assert lines[4].startswith(f"  cut: {cut / FRAMES[1]}: ")
    assert len(lines) == 5

    report = json.loads(out)["stacks"]
    assert [one["status"] for one in report] == ["failed", "failed", "done", "done"]
    assert report[0]["output"] is None
    assert "no such file" in report[0]["error"]
    done = report[2]
    assert done["output"] == str(output / "good")
    assert sorted(done["files"]) == names(output / "good")
    assert done["grade"] == "calibrated"
    assert done["figures"]["depth_field"] == "depth_m"
    low, high = done["figures"]["depth_range"]
    assert 0.3 < low < high < 2
    assert done["figures"]["alignment"]["mode"] == "auto"


def test_a_batch_without_any_result(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in FRAMES:
        truncate(stack / name)
    code = run("infer", stack, tmp_path / "absent", "--output", tmp_path / "out", "--quiet")
    assert code == 2
    assert "2 of 2 stacks failed:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_stacks_with_the_same_name_are_refused(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("plant", "Plant"):
        other = shutil.copytree(stack, tmp_path / f"other_{name}" / name)
        error = refusal(capsys, tmp_path, main, "infer", stack, other, "--output", tmp_path / "out")
        assert f"{stack} and {other}: their results would go to the same folder" in error


def test_results_of_several_stacks_get_a_folder_each(stack: Path, tmp_path: Path) -> None:
    tiff = tmp_path / "sweep.tif"
    frames = [Image.open(stack / name) for name in FRAMES]
    frames[0].save(tiff, save_all=True, append_images=frames[1:])
    assert run("infer", tiff, stack, "--output", tmp_path / "out", "--quiet") == 0
    assert names(tmp_path / "out") == ["plant", "sweep"]
