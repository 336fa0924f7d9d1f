"""The accuracy benchmark: its baseline, its calibration, and both commands on a scene of ours."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import accuracy

from focaldiffusion.io.images import write_png
from focaldiffusion.io.stacks import open_stack

HALVES = np.s_[:, :48], np.s_[:, 48:]


def texture(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed).random((64, 96, 3)).astype(np.float32)
    return cv2.GaussianBlur(random, (0, 0), 0.7)


@pytest.fixture
def rgbd_scene(tmp_path: Path) -> Path:
    """A textured wall at 1.7 m beside one at 4.7 m, a corner without truth."""
    folder = tmp_path / "rgbd" / "midd_walls"
    folder.mkdir(parents=True)
    write_png(folder / "image.png", texture(0))
    depth_m = np.full((64, 96), 4.7, np.float32)
    depth_m[HALVES[0]] = 1.7
    depth_m[:8, :8] = np.nan
    np.savez(folder / "depth.npz", depth=depth_m)
    (folder / "camera.json").write_text(json.dumps({"fx": 300.0, "note": "ignored"}))
    return folder


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["accuracy.py", *map(str, arguments)])
        accuracy.main()

    return call


def test_simulated_camera_is_full_frame_at_f_2_8(rgbd_scene: Path, tmp_path: Path) -> None:
    accuracy.simulate(rgbd_scene, tmp_path / "out", seed=0)
    opened = open_stack(tmp_path / "out" / "stack")
    camera = opened.camera_for()

    assert opened.focus_distances_m == accuracy.FOCUS_DISTANCES_M
    assert camera is not None
    assert camera.image_size == (64, 96)  # never enlarged
    assert camera.focal_length_px == 300
    assert camera.aperture_diameter_m == pytest.approx(300 * 0.036 / 96 / 2.8)
    truth_m = accuracy.read_depth(tmp_path / "out" / "truth" / "depth.npz")
    assert truth_m.isnan().sum() == 64


def test_sharpest_frame_is_that_of_the_wall_it_focuses_on(rgbd_scene: Path, tmp_path: Path) -> None:
    accuracy.simulate(rgbd_scene, tmp_path / "out", seed=0)
    found_m = accuracy.depth_of_sharpest_frame(open_stack(tmp_path / "out" / "stack")).numpy()

    np.testing.assert_array_equal(found_m[:, 8:32], np.float32(1.7))
    # The frames at 3.0 and 8.0 m blur this wall by a pixel or two: noise may decide.
    assert np.mean(found_m[:, 64:88] == np.float32(4.7)) > 0.9


def test_calibration_by_hand() -> None:
    # Ten pixels a tenth; the surer half is right within 5 %, the rest within 10 % but one tenth.
    confidence = np.repeat(np.arange(10), 10).astype(np.float32) / 10
    error = np.where(confidence >= 0.5, 0.04, 0.09).astype(np.float32)
    error[:10] = 0.5
    shuffled = np.random.default_rng(0).permutation(100)
    scored = accuracy.Scored("", None, confidence[shuffled], error[shuffled])
    tenths = accuracy.calibration([scored])

    assert [t["within_5_percent"] for t in tenths] == [0.0] * 5 + [1.0] * 5
    assert [t["within_10_percent"] for t in tenths] == [0.0] + [1.0] * 9
    assert [t["mean_confidence"] for t in tenths] == pytest.approx(np.arange(10) / 10)


def test_calibration_of_constant_confidence_tells_nothing() -> None:
    error = np.repeat([0.0, 1.0], 50).astype(np.float32)
    scored = accuracy.Scored("", None, np.ones(100, np.float32), error)

    assert {t["within_5_percent"] for t in accuracy.calibration([scored])} == {0.5}


def test_both_commands_agree_and_say_what_they_did(
    rgbd_scene: Path,
    tmp_path: Path,
    run: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    reported = rgbd_scene.with_name("sensor_walls")
    reported.mkdir()
    for file in rgbd_scene.iterdir():
        (reported / file.name).write_bytes(file.read_bytes())
    run("rgbd", rgbd_scene.parent, "--json", tmp_path / "rgbd.json")
    printed = capsys.readouterr().out
    assert "our own renderer made the frames" in printed
    assert "| sensor_walls (reported only) |" in printed
    record = json.loads((tmp_path / "rgbd.json").read_text())
    assert record["mean_of"] == ["midd_walls"]
    assert record["mean"] == record["scenes"]["midd_walls"]
    assert record["mean"]["abs_rel"] < 0.1
    assert record["mean"]["coverage"] == 1

    accuracy.simulate(rgbd_scene, tmp_path / "scenes" / "midd_walls", seed=0)
    run("stacks", tmp_path / "scenes", "--json", tmp_path / "stacks.json")
    again = json.loads((tmp_path / "stacks.json").read_text())["mean"]
    assert again | {"cpu_s": 0} == record["mean"] | {"cpu_s": 0}


def test_folder_without_scenes_is_refused(tmp_path: Path, run: Callable[..., None]) -> None:
    with pytest.raises(SystemExit) as refusal:
        run("stacks", tmp_path)
    assert refusal.value.code == (
        f"{tmp_path}: no truth/depth.npz here, nor in a folder inside it."
    )
