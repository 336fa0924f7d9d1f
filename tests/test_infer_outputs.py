from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import contents, names, refusal
from PIL import Image
from plant import (
    DISTANCES,
    FRAMES,
    SIZE,
    run,
    truncate,
)

from focaldiffusion.cli.main import main
from focaldiffusion.io.depth_files import read_values


def test_files_are_one_stack_in_their_order(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [stack / FRAMES[2], stack / FRAMES[0]]
    output = tmp_path / "out"
    assert run("infer", "--files", *files, "--output", output, "--json") == 0
    (report,) = json.loads(capsys.readouterr().out)["stacks"]
    assert report["name"] == "plant"
    assert report["figures"]["frames"] == 2
    metadata = json.loads((output / "metadata.json").read_text())
    assert metadata["frames"] == [str(one) for one in files]
    assert metadata["focus_distances_m"] == [DISTANCES[2], DISTANCES[0]]


def test_earlier_results_are_kept_skipped_or_replaced(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(stack, tmp_path / "other"))
    output = tmp_path / "out"
    command = ("infer", stack, other, "--output", output)
    assert run("infer", stack, "--output", output / "plant", "--quiet") == 0
    (output / "plant" / "notes.txt").write_text("mine")

    # Refused before any work: the other stack has no results either.
    error = refusal(capsys, tmp_path, main, *command)
    assert f"{output / 'plant'}: already holds all_in_focus.png, depth.npy" in error
    assert "--overwrite" in error

    first = contents(output / "plant")
    assert run(*command, "--skip-existing", "--json") == 0
    report = json.loads(capsys.readouterr().out)["stacks"]
    assert [(one["name"], one["status"]) for one in report] == [
        ("plant", "skipped"),
        ("other", "done"),
    ]
    assert contents(output / "plant") == first

    assert run(*command, "--skip-existing") == 0
    skipped = f"plant: skipped, {output / 'plant'} holds results\n"
    assert capsys.readouterr().out.startswith(skipped)

    assert run("infer", stack, "--output", output / "plant", "--overwrite", "--align=off") == 0
    assert contents(output / "plant")["metadata.json"] != first["metadata.json"]
    assert (output / "plant" / "notes.txt").read_text() == "mine"


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


def test_an_empty_output_is_refused(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, tmp_path, main, "infer", stack, "--output", "")
    assert "argument --output: is empty; expected a path" in error


def test_one_failed_stack_with_json(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncate(stack / FRAMES[0])
    assert run("infer", stack, "--output", tmp_path / "out", "--json") == 2
    (report,) = json.loads(capsys.readouterr().out)["stacks"]
    assert report["status"] == "failed"
    assert FRAMES[0] in report["error"]


def test_stacks_with_the_same_name_are_refused(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("plant", "Plant"):
        other = shutil.copytree(stack, tmp_path / f"other_{name}" / name)
        error = refusal(capsys, tmp_path, main, "infer", stack, other, "--output", tmp_path / "out")
        assert f"{stack} and {other}: their results would go to the same folder" in error


def test_without_an_output_results_go_beside_the_stack(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("infer", stack, "--depth-format", "png,npy") == 0
    output = tmp_path / "plant_focaldiffusion"
    assert f"  results    {output}, best seen in overview.png" in capsys.readouterr().out
    assert {"depth.npy", "depth_mm.png"} <= set(names(output))
    files = [stack / name for name in FRAMES[:2]]
    error = refusal(capsys, tmp_path, main, "infer", "--files", *files)
    assert f"{output}: already holds" in error


def test_depth_formats(stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run("infer", stack, "--output", output, "--depth-format=exr", "--quiet") == 0
    assert "depth.exr" in names(output)
    assert not {"depth.npy", "depth_mm.png"} & set(names(output))
    assert read_values(output / "depth.exr").shape == SIZE
    error = refusal(capsys, tmp_path, main, "infer", stack, "--depth-format", "npz")
    assert "depth format 'npz' is unknown; did you mean npy?" in error


def test_results_of_several_stacks_get_a_folder_each(stack: Path, tmp_path: Path) -> None:
    tiff = tmp_path / "sweep.tif"
    frames = [Image.open(stack / name) for name in FRAMES]
    frames[0].save(tiff, save_all=True, append_images=frames[1:])
    assert run("infer", tiff, stack, "--output", tmp_path / "out", "--quiet") == 0
    assert names(tmp_path / "out") == ["plant", "sweep"]
