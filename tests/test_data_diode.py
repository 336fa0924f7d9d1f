"""DIODE on a tree in its native layout."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.diode import DIODE
from focaldiffusion.errors import InputError
from focaldiffusion.optics import srgb_to_linear
from tests.fixtures import diode as fixture
from tests.fixtures.sources import source_of

LENS = {"f_number": 1.4, "sensor_width_m": 0.036}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("diode")
    fixture.write(root)
    return root


def test_depth_light_and_lens(root: Path) -> None:
    dataset = open_dataset(source_of("diode", root, "val", camera_defaults=LENS))
    assert isinstance(dataset, DIODE)
    scene = dataset[0]
    assert scene.size == (768, 1024)
    invalid = (~scene.valid).nonzero().tolist()
    assert invalid == [list(fixture.MASKED), list(fixture.ZERO_THOUGH_UNMASKED)]
    assert float(scene.depth_m[100, 100]) == fixture.DEPTH_M
    orange = srgb_to_linear(torch.tensor([255, 128, 0]) / 255)
    torch.testing.assert_close(scene.all_in_focus[:, 5, 5], orange)
    focal_length_px = math.sqrt(886.81 * 927.06)
    assert scene.camera.focal_length_px == pytest.approx(focal_length_px)
    focal_length_m = focal_length_px * 0.036 / 1024
    assert scene.camera.aperture_diameter_m == pytest.approx(focal_length_m / 1.4)


def test_splits_are_folders_and_share_no_scene(root: Path) -> None:
    train, val, test = (
        DIODE(source_of("diode", root, split)) for split in ("train", "val", "test")
    )
    scenes = [{one.scene_name(i) for i in range(len(one))} for one in (train, val, test)]
    assert scenes[0] == {"indoors/scene_00000", "outdoor/scene_00001"}
    assert scenes[1] == scenes[2] == {"indoors/scene_00019", "outdoor/scene_00022"}


@pytest.mark.parametrize("layout", ["indoors", "outdoor"])
def test_layout_reads_one_type(root: Path, layout: str) -> None:
    dataset = DIODE(source_of("diode", root, "val", layout=layout))
    part = f"val/{layout}"
    scan, stem = fixture.SCANS[part]
    assert [dataset.name(i) for i in range(len(dataset))] == [f"{layout}/{scan}/{stem}"]


def test_depth_kind_ray_flattens_a_sphere(root: Path) -> None:
    options = {"layout": "outdoor", "camera_defaults": LENS}
    planar = DIODE(source_of("diode", root, "val", **options))[0]
    ray = DIODE(source_of("diode", root, "val", depth_kind="ray", **options))[0]
    # The first column is 511.5 px from the axis, the row just below the centre half a pixel.
    slope = math.hypot(511.5, 0.5) / planar.camera.focal_length_px
    assert float(planar.depth_m[384, 0]) == fixture.EDGE_DEPTH_M
    expected_m = fixture.EDGE_DEPTH_M / math.hypot(1, slope)
    assert float(ray.depth_m[384, 0]) == pytest.approx(expected_m, rel=1e-6)


def test_what_cannot_apply_is_refused(root: Path) -> None:
    for options, message in (
        ({"layout": "night"}, "layout 'night' is unknown; diode has indoors and outdoor"),
        ({"depth_scale": 0.001}, "depth_scale is 0.001, but that of diode is 1.0"),
        ({"generate_focal_stack": False}, "diode has no photographed stacks"),
    ):
        with pytest.raises(InputError, match=message):
            DIODE(source_of("diode", root, "val", **options))
    with pytest.raises(InputError, match="the aperture is unknown"):
        DIODE(source_of("diode", root, "val"))[0]


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{tmp_path}/val: no such.*diode-dataset\.org"):
        DIODE(source_of("diode", tmp_path, "test"))
    fixture.write(tmp_path)
    scan, stem = fixture.SCANS["val/indoors"]
    missing = tmp_path / "val/indoors" / scan / f"{stem}_depth_mask.npy"
    missing.unlink()
    with pytest.raises(InputError, match=f"{missing}: no such file"):
        DIODE(source_of("diode", tmp_path, "val"))
    dataset = DIODE(source_of("diode", tmp_path, "val", allow_missing=True))
    assert (len(dataset), len(dataset.skipped)) == (1, 1)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    fixture.write(tmp_path)
    scan, stem = fixture.SCANS["val/indoors"]
    np.save(tmp_path / "val/indoors" / scan / f"{stem}_depth_mask.npy", np.ones((4, 4)))
    dataset = DIODE(source_of("diode", tmp_path, "val", camera_defaults=LENS))
    with pytest.raises(InputError, match=r"_depth_mask\.npy: 4x4, but .*\.png is 1024x768"):
        dataset[0]


def test_a_worker_reads_what_its_parent_reads(root: Path) -> None:
    dataset = DIODE(source_of("diode", root, "val", camera_defaults=LENS))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0].depth_m.nan_to_num(0), dataset[0].depth_m.nan_to_num(0))
