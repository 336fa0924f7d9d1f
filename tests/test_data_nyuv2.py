"""NYU Depth v2 on files in its native layouts, and on a real synchronised frame."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.nyuv2 import NYUv2
from focaldiffusion.errors import InputError
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.scene import Scene
from tests.fixtures import nyuv2 as fixture
from tests.fixtures.sources import source_of

LENS = {"f_number": 8.0, "sensor_width_m": 0.036}
TOP, LEFT = 44, 40


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("nyuv2")
    fixture.write(root)
    return root


def test_labelled_images_are_upright_cropped_and_have_holes(root: Path) -> None:
    dataset = open_dataset(source_of("nyuv2", root, "train", camera_defaults=LENS))
    assert isinstance(dataset, NYUv2)
    scene = dataset[1]
    assert scene.size == (427, 561)
    corner = srgb_to_linear(torch.tensor([LEFT // 4, TOP // 4, 0]) / 255)
    torch.testing.assert_close(scene.all_in_focus[:, 0, 0], corner)
    opposite = srgb_to_linear(torch.tensor([600 // 4, 470 // 4, 0]) / 255)
    torch.testing.assert_close(scene.all_in_focus[:, -1, -1], opposite)
    row, column = fixture.HOLE
    assert (~scene.valid).nonzero().tolist() == [[row - TOP, column - LEFT]]
    assert scene.depth_m[scene.valid].unique().tolist() == [fixture.DEPTH_M + 2]


def test_the_camera_is_that_of_the_whole_frame_cropped(root: Path) -> None:
    camera = NYUv2(source_of("nyuv2", root, "test", camera_defaults=LENS))[0].camera
    focal_length_px = math.sqrt(518.8579 * 519.4696)
    assert camera.focal_length_px == pytest.approx(focal_length_px, rel=1e-6)
    # The sensor is as wide as the 640 columns of the frame, not the 561 that are left.
    assert camera.aperture_diameter_m == pytest.approx(focal_length_px * 0.036 / 640 / 8)
    x, y = camera.principal_point_px
    assert (x, y) == pytest.approx((325.5824 - 0.5 - LEFT, 253.7362 - 0.5 - TOP), abs=1e-3)


def test_filled_depth_has_no_holes(root: Path) -> None:
    source = source_of("nyuv2", root, "train", layout="labeled_filled", camera_defaults=LENS)
    assert NYUv2(source)[0].valid.all()


def test_the_split_is_that_of_splits_mat_counted_from_one(root: Path) -> None:
    train, val, test = (
        NYUv2(source_of("nyuv2", root, split)) for split in ("train", "val", "test")
    )
    assert [train.name(i) for i in range(len(train))] == ["0001", "0003"]
    assert [train.scene_name(i) for i in range(len(train))] == ["kitchen_0004", "kitchen_0004"]
    for one in (val, test):
        assert [one.name(i) for i in range(len(one))] == ["0004", "0002"]
        assert [one.scene_name(i) for i in range(len(one))] == ["bedroom_0100", "office_0002"]


def test_missing_and_broken_files(tmp_path: Path) -> None:
    source = source_of("nyuv2", tmp_path, "test", camera_defaults=LENS)
    mat, splits = tmp_path / "nyu_depth_v2_labeled.mat", tmp_path / "splits.mat"
    with pytest.raises(InputError, match=rf"{mat}: no such file.*cs\.nyu\.edu"):
        NYUv2(source)
    fixture.write(tmp_path)
    dataset = NYUv2(source)
    mat.write_bytes(b"MATLAB 5.0 MAT-file")
    with pytest.raises(InputError, match=f"{mat}: not the labelled set of NYUv2"):
        dataset[0]
    splits.write_bytes(b"no")
    with pytest.raises(InputError, match=f"{splits}: not the split of NYUv2"):
        NYUv2(source)
    splits.unlink()
    with pytest.raises(InputError, match=rf"{splits}: no such file.*horatio\.cs\.nyu\.edu"):
        NYUv2(source)


def test_workers_open_the_file_for_themselves(root: Path) -> None:
    dataset = NYUv2(source_of("nyuv2", root, "test", camera_defaults=LENS))
    assert len(pickle.dumps(dataset)) < 10_000
    loader = DataLoader(dataset, batch_size=None, num_workers=2, collate_fn=_depth)
    depths = list(loader)
    assert [float(depth.nanmedian()) for depth in depths] == [4.5, 2.5]


def _depth(scene: Scene) -> torch.Tensor:
    return scene.depth_m


def test_synchronised_frames_are_those_of_the_list(tmp_path: Path) -> None:
    listed = fixture.write_sync(tmp_path)
    options = {"layout": "sync", "camera_defaults": LENS}
    dataset = NYUv2(source_of("nyuv2", tmp_path, "train", filelist=listed, **options))
    assert [dataset.name(i) for i in range(len(dataset))] == [
        "kitchen_0028b/rgb_00000.jpg",
        "kitchen_0028b/rgb_00045.jpg",
    ]
    assert dataset.scene_name(1) == "kitchen_0028b"
    scene = dataset[1]
    row, column = fixture.HOLE
    assert (~scene.valid).nonzero().tolist() == [[row - TOP, column - LEFT]]
    torch.testing.assert_close(scene.depth_m[scene.valid].unique(), torch.tensor([2.345]))

    missing = tmp_path / "kitchen_0028b/sync_depth_00000.png"
    missing.unlink()
    with pytest.raises(InputError, match=f"{missing}: no such file"):
        NYUv2(source_of("nyuv2", tmp_path, "train", filelist=listed, **options))
    dataset = NYUv2(
        source_of("nyuv2", tmp_path, "train", filelist=listed, allow_missing=True, **options)
    )
    assert (len(dataset), len(dataset.skipped)) == (1, 1)


def test_lists_belong_to_the_synchronised_layout(root: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("/a/rgb_00000.jpg /a/sync_depth_00000.png\n")
    with pytest.raises(InputError, match=rf"a file list \({listed}\).*splits\.mat"):
        NYUv2(source_of("nyuv2", root, "train", filelist=listed))
    with pytest.raises(InputError, match="layout sync needs a filelist"):
        NYUv2(source_of("nyuv2", root, "train", layout="sync"))
    with pytest.raises(InputError, match=rf"{listed}, line 1: .*expected image, depth and focal"):
        NYUv2(source_of("nyuv2", root, "train", layout="sync", filelist=listed))


def test_a_real_synchronised_frame(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "native" / "nyu"
    listed = tmp_path / "list.txt"
    listed.write_text("rgb_00100.jpg sync_depth_00100.png 518.8579\n")
    source = source_of("nyuv2", folder, "val", layout="sync", filelist=listed, camera_defaults=LENS)
    scene = NYUv2(source)[0]
    depth_mm = cv2.imread(str(folder / "sync_depth_00100.png"), cv2.IMREAD_UNCHANGED)
    window = depth_mm[TOP : TOP + 427, LEFT : LEFT + 561].astype(np.float32)
    assert np.array_equal(scene.valid.numpy(), window > 0)
    np.testing.assert_allclose(scene.depth_m.nan_to_num(0).numpy(), window / 1000, atol=1e-6)
    # Half of the frame's holes are the border that projection leaves; the white one goes with it.
    assert 0.84 < float(scene.valid.float().mean()) < 0.85
    white = (scene.all_in_focus > 0.9).all(0).float()
    assert float(white[0].mean()) < 0.5
    assert float(white[:, 0].mean()) < 0.5
