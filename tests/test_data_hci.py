"""The HCI 4D light field benchmark on a tree in its native layout."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.hci import HCI
from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import read_values
from focaldiffusion.optics import srgb_to_linear
from tests.fixtures import hci as fixture
from tests.fixtures.sources import source_of

LENS = {"f_number": 2.8}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fixture.write(tmp_path / "full_data")
    return tmp_path / "full_data"


def test_the_centre_view_its_depth_and_its_lens(root: Path) -> None:
    dataset = open_dataset(source_of("hci", root, "test", camera_defaults=LENS))
    assert isinstance(dataset, HCI)
    scene = dataset[0]
    assert dataset.name(0) == "training/boxes"
    grey = srgb_to_linear(torch.tensor(fixture.CENTRE_VALUE / 255))
    torch.testing.assert_close(scene.all_in_focus, grey.expand(3, *fixture.SIZE))
    assert scene.valid.all()
    # The first row of the image is the last one of a PFM.
    assert float(scene.depth_m[0, 0]) == pytest.approx(fixture.NEAR_M)
    assert float(scene.depth_m[-1, 0]) == pytest.approx(fixture.FAR_M)
    focal_length_px = fixture.FOCAL_LENGTH_MM / fixture.SENSOR_MM * fixture.SIZE[1]
    assert scene.camera.focal_length_px == pytest.approx(focal_length_px)
    # Not the f/100 of the renderer, which is what makes the views sharp everywhere.
    assert scene.camera.aperture_diameter_m == pytest.approx(0.1 / 2.8)


def test_depth_and_camera_give_the_disparity_of_the_data_set(root: Path) -> None:
    """disp = b F (1/z - 1/s), the thin-lens relation with the baseline for an aperture."""
    scene = HCI(source_of("hci", root, "val", camera_defaults=LENS))[1]
    disparity_px = read_values(root / "training/dino/gt_disp_lowres.pfm")
    defocus_dpt = 1 / scene.depth_m - 1 / fixture.FOCUS_M
    expected_px = fixture.BASELINE_MM / 1000 * scene.camera.focal_length_px * defocus_dpt
    torch.testing.assert_close(disparity_px, expected_px, rtol=1e-4, atol=1e-5)


def test_splits_are_categories_and_share_no_scene(root: Path) -> None:
    train, val, test = (HCI(source_of("hci", root, split)) for split in ("train", "val", "test"))
    assert [train.scene_name(i) for i in range(len(train))] == ["antinous", "greek", "dots"]
    for one in (val, test):
        assert [one.scene_name(i) for i in range(len(one))] == ["boxes", "dino"]


def test_missing_files(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{tmp_path}/training: no such.*lightfield-analysis"):
        HCI(source_of("hci", tmp_path, "val"))
    missing = root / "training/boxes/gt_depth_lowres.pfm"
    missing.unlink()
    with pytest.raises(InputError, match=f"{missing}: no such file"):
        HCI(source_of("hci", root, "val"))
    dataset = HCI(source_of("hci", root, "val", allow_missing=True))
    assert [dataset.name(i) for i in range(len(dataset))] == ["training/dino"]
    assert len(dataset.skipped) == 1
    (root / "stratified").rename(root / "elsewhere")
    with pytest.raises(InputError, match=rf"{root}/stratified: no such folder"):
        HCI(source_of("hci", root, "train"))


def test_other_grids_and_other_files_are_refused(root: Path) -> None:
    path = root / "training/boxes/parameters.cfg"
    dataset = HCI(source_of("hci", root, "val", camera_defaults=LENS))
    path.write_text(path.read_text().replace("num_cams_x = 9", "num_cams_x = 5"))
    with pytest.raises(InputError, match=r"a grid of 5 x 9 views; expected 9 x 9"):
        dataset[0]
    path.write_text("[intrinsics]\n")
    with pytest.raises(InputError, match=r"parameters\.cfg: not the parameters of a light field"):
        dataset[0]


def test_there_are_no_stacks_to_read(root: Path) -> None:
    with pytest.raises(InputError, match="hci has no photographed stacks"):
        HCI(source_of("hci", root, "val", generate_focal_stack=False))


def test_a_worker_reads_what_its_parent_reads(root: Path) -> None:
    dataset = HCI(source_of("hci", root, "train", camera_defaults=LENS))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[2].depth_m, dataset[2].depth_m)
