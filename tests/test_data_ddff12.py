"""DDFF-12 in DFV's HDF5: metres from disparity, frame order, the aperture that refocusing makes."""

from __future__ import annotations

import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from fixtures import ddff12 as fixture
from fixtures.published import source
from torch.utils.data import DataLoader, Subset

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.ddff12 import DDFF12, DISPARITY_PX_M, focus_distances_m
from focaldiffusion.errors import InputError
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.scene import Scene


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddff12")
    fixture.write(folder)
    return folder


def test_a_stack_has_ten_frames_near_to_far(root: Path) -> None:
    dataset = open_dataset(source(root, "ddff12"))
    assert len(dataset) == fixture.STACKS["val"]
    sample = pickle.loads(pickle.dumps(dataset))[1]
    assert isinstance(sample, StackSample)
    colours = linear_to_srgb(sample.stack.images[:, :, 3, 5]) * 255
    expected = torch.tensor([[fixture.level(frame), 7, 250] for frame in range(10)])
    torch.testing.assert_close(colours, expected.float(), rtol=0, atol=1e-2)
    assert sample.all_in_focus is not None
    sharp = linear_to_srgb(sample.all_in_focus[:, 3, 5]) * 255
    torch.testing.assert_close(sharp, torch.tensor(fixture.SHARP).float(), rtol=0, atol=1e-2)


def test_focus_is_evenly_spaced_in_disparity_between_the_published_ends() -> None:
    distances_m = focus_distances_m()
    torch.testing.assert_close(distances_m[[0, -1]], torch.tensor([0.5, 7.0]))
    disparities_px = DISPARITY_PX_M / distances_m
    # README of ddff-pytorch: "disparities in the range [0.0202, 0.2825]".
    assert disparities_px.max().item() == pytest.approx(0.2825, abs=5e-5)
    assert disparities_px.min().item() == pytest.approx(0.0202, abs=5e-5)
    assert disparities_px.diff().std().item() < 1e-6


def test_disparity_becomes_metres_and_holes_are_invalid(root: Path) -> None:
    sample = DDFF12(source(root, "ddff12"))[0]
    assert (~sample.valid).nonzero().tolist() == [list(fixture.HOLE)]
    torch.testing.assert_close(
        sample.depth_m[sample.valid], torch.full((23,), fixture.DEPTH_M), rtol=1e-6, atol=0
    )
    assert pytest.approx(fixture.BASELINE_M * 521.4052, rel=1e-12) == DISPARITY_PX_M
    with pytest.raises(InputError, match="no pixel has a valid depth"):
        DDFF12(source(root, "ddff12", depth_bounds=(0.5, 1.5)))[0]


def test_the_aperture_blurs_as_the_mean_of_shifted_views_does(root: Path) -> None:
    sample = DDFF12(source(root, "ddff12"))[0]
    assert isinstance(sample, StackSample)
    camera = sample.stack.camera
    assert camera is not None
    # A point at 1 m in the frame focused at 7 m: 9 positions along a row, one for each view.
    disparity_px = DISPARITY_PX_M * (1 / 1.0 - 1 / 7.0)
    positions_px = (np.arange(9) - 4) * disparity_px
    disc_diameter_px = camera.blur_scale_px_m * (1 / 1.0 - 1 / 7.0)
    # A disc of diameter D has a standard deviation of D / 4 along a row.
    assert disc_diameter_px / 4 == pytest.approx(positions_px.std())


def test_a_hundred_stacks_make_a_scene_and_no_scene_is_in_both_splits(root: Path) -> None:
    train, val = (DDFF12(source(root, "ddff12", split)) for split in ("train", "val"))
    assert [train.name(index) for index in (0, 200)] == ["train/000", "train/200"]
    scenes = {train.scene_name(index) for index in range(len(train))}
    assert scenes == {"train/scene_0", "train/scene_1", "train/scene_2"}
    assert {train.scene_name(index) for index in range(100)} == {"train/scene_0"}
    assert scenes.isdisjoint({val.scene_name(index) for index in range(len(val))})


def test_many_workers_read_the_file(root: Path) -> None:
    dataset = DDFF12(source(root, "ddff12", "train"))
    dataset[0]  # a handle kept open here would be shared by forked workers
    loader = DataLoader(
        Subset(dataset, range(8)),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=2,
        collate_fn=lambda sample: sample.depth_m,
    )
    depths = list(loader)
    assert len(depths) == 8
    assert all(torch.equal(depth.isnan(), depths[0].isnan()) for depth in depths)


def test_the_sharp_view_can_be_photographed(root: Path) -> None:
    camera_defaults = {"f_number": 2.0, "sensor_width_m": 0.0132}
    options = {"generate_focal_stack": True, "camera_defaults": camera_defaults}
    scene = DDFF12(source(root, "ddff12", **options))[0]
    assert isinstance(scene, Scene)
    focal_length_m = 521.4052 * 0.0132 / fixture.SIZE[1]
    assert scene.camera.aperture_diameter_m == pytest.approx(focal_length_m / 2)
    with pytest.raises(InputError, match="the aperture is unknown"):
        DDFF12(source(root, "ddff12", generate_focal_stack=True))[0]


def test_the_file_may_lack_the_sharp_views(tmp_path: Path) -> None:
    fixture.write(tmp_path, all_in_focus=False)
    sample = DDFF12(source(tmp_path, "ddff12"))[0]
    assert isinstance(sample, StackSample)
    assert sample.all_in_focus is None
    with pytest.raises(InputError, match=r"holds disp_train, .*expected AiF_val"):
        DDFF12(source(tmp_path, "ddff12", generate_focal_stack=True))


def test_what_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"my_ddff_trainVal\.h5: no such file.*fuy34/DFV"):
        DDFF12(source(tmp_path, "ddff12"))
    path = tmp_path / fixture.NAME
    path.write_bytes(b"<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"trainVal\.h5: cannot be read as HDF5"):
        DDFF12(source(tmp_path, "ddff12"))
    with h5py.File(path, "w") as file:
        file["stack_val"] = np.zeros((2, 5, 4, 6, 3), np.float32)
        file["disp_val"] = np.zeros((2, 4, 6), np.float32)
    with pytest.raises(InputError, match="expected stacks of 10 RGB frames"):
        DDFF12(source(tmp_path, "ddff12"))
    with h5py.File(path, "w") as file:
        file["stack_val"] = np.zeros((2, 10, 4, 6, 3), np.float32)
        file["disp_val"] = np.zeros((3, 4, 6), np.float32)
    with pytest.raises(InputError, match="expected one map for each stack"):
        DDFF12(source(tmp_path, "ddff12"))
    with pytest.raises(InputError, match="holds disp_val, stack_val; expected stack_train"):
        DDFF12(source(tmp_path, "ddff12", "train"))


def test_the_official_test_split_has_no_public_depth(root: Path) -> None:
    with pytest.raises(InputError, match="public depth for train and val, not for test"):
        DDFF12(source(root, "ddff12", "test"))
