"""Plain folders of stacks and of RGB-D images, on fixtures and on real bytes."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fixtures import rgbd as rgbd_fixture
from fixtures import stacks as stack_fixture
from fixtures.filelists import SIZE, write_image
from fixtures.sources import source_of
from PIL import Image

from focaldiffusion.config.data import Source
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.sets.rgbd import RGBD
from focaldiffusion.data.sets.stacks import Stacks
from focaldiffusion.errors import InputError
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture

LENS = {"aperture_diameter_m": 0.01}


def rgbd(root: Path, **options: Any) -> RGBD:
    return RGBD(source_of("rgbd", root, "test", **({"camera_defaults": LENS} | options)))


def stacks(root: Path, **options: Any) -> Stacks:
    return Stacks(source_of("stacks", root, "test", **options))


# RGB-D


def test_rgbd_has_metres_light_and_the_principal_point_at_halves(tmp_path: Path) -> None:
    rgbd_fixture.write(tmp_path / "room_2")
    rgbd_fixture.write(tmp_path / "room_10")
    (tmp_path / "notes.txt").touch()
    dataset = rgbd(tmp_path)
    assert [dataset.name(index) for index in range(2)] == ["room_2", "room_10"]
    assert dataset.scene_name(1) == "room_10"
    scene = pickle.loads(pickle.dumps(dataset))[0]
    assert isinstance(scene, Scene)
    assert scene.size == SIZE
    assert scene.camera.focal_length_px == pytest.approx((40 * 40.1) ** 0.5)
    assert scene.camera.principal_point_px == (15.5, 12.0)
    assert scene.camera.aperture_diameter_m == 0.01
    assert not scene.valid[0, 0]
    assert scene.depth_m[scene.valid].unique().tolist() == [rgbd_fixture.DEPTH_M]


def test_rgbd_depth_may_be_millimetres_in_a_png(tmp_path: Path) -> None:
    rgbd_fixture.write(tmp_path / "room")
    (tmp_path / "room" / "depth.npz").unlink()
    millimetres = np.full(SIZE, 2500, np.uint16)
    millimetres[0, 0] = 0
    Image.fromarray(millimetres).save(tmp_path / "room" / "depth.png")
    with pytest.raises(InputError, match=r"rgbd_test: depth\.png holds whole numbers of unknown"):
        rgbd(tmp_path)
    scene = rgbd(tmp_path, depth_scale=0.001, depth_shift=0.5)[0]
    assert not scene.valid[0, 0]
    assert float(scene.depth_m[1, 1]) == pytest.approx(3.0)


def test_rgbd_f_number_reaches_the_stack(tmp_path: Path) -> None:
    rgbd_fixture.write(tmp_path / "room")
    lens = {"sensor_width_m": 0.036}
    spread = {
        f_number: capture(
            rgbd(tmp_path, camera_defaults={**lens, "f_number": f_number})[0], (0.5, 1.5)
        ).images
        for f_number in (1.4, 22.0)
    }
    assert (spread[1.4][0] - spread[22.0][0]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("intrinsics", "message"),
    [
        ({"fov": 60}, "camera.json: field 'fov' is unknown. Expected one of fx, fy, cx"),
        ({"widht": 40}, "camera.json: field 'widht' is unknown; did you mean width?"),
        ({"cx": None}, "camera.json: cx is missing."),
        ({"fx": "40"}, "camera.json: fx is '40'; expected a valid number."),
        ({"fx": -1}, "camera.json: fx is -1; expected greater than 0."),
        ({"fy": 50}, "camera.json: fx 40 and fy 50 differ by more than 1 %; blur on pixels that"),
        ({"width": 64}, "camera.json: for 64x24, but"),
    ],
)
def test_a_bad_camera_file(tmp_path: Path, intrinsics: dict[str, Any], message: str) -> None:
    rgbd_fixture.write(tmp_path / "room", **intrinsics)
    with pytest.raises(InputError) as error:
        rgbd(tmp_path)[0]
    assert message in str(error.value)


def test_rgbd_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sample of rgbd .*Expected SCENE/image\.png"):
        rgbd(tmp_path)
    rgbd_fixture.write(tmp_path / "a")
    rgbd_fixture.write(tmp_path / "b")
    (tmp_path / "a" / "camera.json").unlink()
    with pytest.raises(InputError, match=r"a/camera\.json: no such file\. Expected SCENE/image"):
        rgbd(tmp_path)
    dataset = rgbd(tmp_path, allow_missing=True)
    assert len(dataset) == len(dataset.skipped) == 1
    write_image(tmp_path / "b" / "image.jpg")
    with pytest.raises(InputError, match=r"b/image\.png: image\.jpg lies beside it\. Keep one"):
        rgbd(tmp_path)


def test_rgbd_needs_an_aperture_and_has_no_frames(tmp_path: Path) -> None:
    rgbd_fixture.write(tmp_path / "room")
    with pytest.raises(InputError, match="room: the aperture is unknown"):
        rgbd(tmp_path, camera_defaults={})[0]
    with pytest.raises(InputError, match="dataset_type rgbd has no frames to read"):
        rgbd(tmp_path, generate_focal_stack=False)


@pytest.mark.parametrize("kind", ["rgbd", "stacks"])
def test_options_that_cannot_apply_to_a_folder(tmp_path: Path, kind: str) -> None:
    source = source_of(kind, tmp_path, "test")
    opened = {"rgbd": RGBD, "stacks": Stacks}[kind]

    def refused(changed: Source, message: str) -> None:
        with pytest.raises(InputError, match=message):
            opened(changed)

    refused(source.model_copy(update={"filelist": "x.csv"}), "filelist does not apply to dataset_")
    refused(source_of(kind, tmp_path, "test", layout="x"), f"layout does not apply to .* {kind}")
    refused(source_of(kind, tmp_path / "no", "test"), "no: no such folder. .* expects it to hold")
    by_kind = {"all_in_focus": str(tmp_path), "depth": str(tmp_path)}
    refused(source.model_copy(update={"data_root": by_kind}), "names folders for all_in_focus, de")
    (tmp_path / "sub" / "room").mkdir(parents=True)
    (tmp_path / "room").mkdir()
    roots = [str(tmp_path), str(tmp_path / "sub")]
    refused(source.model_copy(update={"data_root": roots}), "has the same name")


# Stacks


@pytest.mark.parametrize("together", [False, True])
def test_a_stack_with_its_truth(tmp_path: Path, together: bool) -> None:
    (stack_fixture.write_together if together else stack_fixture.write)(tmp_path / "room_1")
    dataset = pickle.loads(pickle.dumps(stacks(tmp_path)))
    assert (dataset.name(0), dataset.scene_name(0), len(dataset)) == ("room_1", "room_1", 1)
    sample = dataset[0]
    assert isinstance(sample, StackSample)
    truth = stack_fixture.scene()
    assert sample.stack.camera == stack_fixture.CAMERA
    assert sample.stack.focus_distances_m is not None
    assert sample.stack.focus_distances_m.tolist() == list(stack_fixture.FOCUS_M)
    torch.testing.assert_close(
        sample.stack.images, capture(truth, stack_fixture.FOCUS_M).images, rtol=0, atol=1e-6
    )
    assert torch.equal(sample.valid, truth.valid)
    torch.testing.assert_close(sample.depth_m[truth.valid], truth.depth_m[truth.valid])
    assert (sample.all_in_focus is None) is together


def test_a_stack_may_be_generated_from_the_truth(tmp_path: Path) -> None:
    stack_fixture.write(tmp_path / "room")
    scene = stacks(tmp_path, generate_focal_stack=True, camera_defaults={"f_number": 2})[0]
    assert isinstance(scene, Scene)
    assert scene.camera == stack_fixture.CAMERA  # stack.json comes before camera_defaults
    assert scene.focus_distances_m is None
    (tmp_path / "room" / "truth" / "all_in_focus.png").unlink()
    with pytest.raises(InputError, match=r"all_in_focus\.png: no such file, to generate stacks"):
        stacks(tmp_path, generate_focal_stack=True)


def test_a_stack_without_truth_is_no_sample(tmp_path: Path) -> None:
    for name in ("a", "b"):
        stack_fixture.write(tmp_path / name)
    (tmp_path / "a" / "truth" / "depth.npz").unlink()
    with pytest.raises(InputError, match=r"a/truth/depth\.npz: no such file\. Expected SCENE/stac"):
        stacks(tmp_path)
    dataset = stacks(tmp_path, allow_missing=True)
    assert len(dataset) == 1
    assert len(dataset.skipped) == 1
    assert f"{tmp_path}/a/truth/depth.npz: no such file." in dataset.skipped[0]


def test_scale_and_bounds_of_a_stack(tmp_path: Path) -> None:
    stack_fixture.write(tmp_path / "room")
    sample = stacks(tmp_path, depth_scale=2.0, depth_bounds=[1.0, 3.0])[0]
    assert sample.depth_m[1, 0] == 2.0
    assert not sample.valid[:, SIZE[1] // 2 :].any()


# Real bytes


def test_real_rgbd_scenes(shared_data: Path) -> None:
    dataset = rgbd(shared_data / "rgbd")
    assert len(dataset) == 16
    for index in range(len(dataset)):
        scene = dataset[index]
        described = json.loads(
            (shared_data / "rgbd" / dataset.name(index) / "camera.json").read_text()
        )
        known = scene.depth_m[scene.valid]
        assert float(scene.valid.float().mean()) == pytest.approx(
            described["valid_fraction"], abs=1e-3
        )
        assert float(known.median()) == pytest.approx(described["depth_median_m"], abs=2e-3)
        assert float(known.max()) == pytest.approx(described["depth_max_m"], abs=1e-3)
        assert scene.camera.focal_length_px == pytest.approx(described["fx"], rel=2e-3)


def test_real_path_traced_stacks(shared_data: Path) -> None:
    dataset = stacks(shared_data / "rendered")
    assert len(dataset) == 8
    sample = dataset[1]
    assert isinstance(sample, StackSample)
    assert sample.stack.images.shape == (6, 3, 384, 512)
    assert sample.stack.focus_distances_m is not None
    assert float(sample.stack.focus_distances_m[0]) == pytest.approx(0.5662)
    assert sample.stack.camera is not None
    assert sample.stack.camera.focal_length_px == pytest.approx(497.778, abs=1e-3)
    assert sample.valid.all()
    assert sample.all_in_focus is not None
    # In focus, a frame equals the all-in-focus image except for noise.
    sharp = (1 / sample.depth_m - 1 / sample.stack.focus_distances_m[2]).abs() < 0.01
    difference = (sample.stack.images[2] - sample.all_in_focus)[:, sharp].abs().median()
    assert float(difference) < 0.01


def test_a_real_stack_whose_frames_and_truth_lie_together(shared_data: Path) -> None:
    dataset = stacks(shared_data / "stacks", allow_missing=True)
    assert [dataset.name(index) for index in range(len(dataset))] == ["render_stone_gt"]
    others = [path for path in (shared_data / "stacks").iterdir() if path.is_dir()]
    assert len(dataset.skipped) == len(others) - 1
    sample = dataset[0]
    assert isinstance(sample, StackSample)
    assert sample.stack.axis == "order"
    assert len(sample.stack) == 22
    assert 0.08 < float(sample.depth_m[sample.valid].min()) < 0.1
