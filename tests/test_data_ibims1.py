"""iBims-1 on a tree in its native layout."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch

from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.ibims1 import IBims1
from focaldiffusion.errors import InputError
from tests.fixtures import ibims1 as fixture
from tests.fixtures.sources import source_of

LENS = {"aperture_diameter_m": 0.02}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fixture.write(tmp_path / "ibims1_core_raw")
    return tmp_path / "ibims1_core_raw"


def test_depth_is_metres_and_only_what_both_masks_trust_is_valid(root: Path) -> None:
    dataset = open_dataset(source_of("ibims1", root, "test", camera_defaults=LENS))
    assert isinstance(dataset, IBims1)
    assert [dataset.name(i) for i in range(len(dataset))] == list(fixture.NAMES)
    scene = dataset[0]
    half = fixture.SIZE[1] // 2
    invalid = (~scene.valid).nonzero().tolist()
    assert invalid == [
        list(pixel)
        for pixel in (
            fixture.INVALID,
            fixture.TRANSPARENT,
            fixture.NOTHING_MEASURED,
            fixture.SATURATED,
        )
    ]
    assert scene.depth_m[~scene.valid].isnan().all()
    step_m = 50 / 65535
    torch.testing.assert_close(
        scene.depth_m[4:, :half], torch.full((8, half), fixture.DEPTH_M), rtol=0, atol=step_m
    )
    torch.testing.assert_close(
        scene.depth_m[4:, half:], torch.full((8, half), 2 * fixture.DEPTH_M), rtol=0, atol=step_m
    )
    fx, fy = fixture.FOCAL_LENGTHS_PX
    assert scene.camera.focal_length_px == pytest.approx(math.sqrt(fx * fy))
    assert scene.camera.aperture_diameter_m == 0.02


def test_depth_bounds_leave_out_what_is_beyond(root: Path) -> None:
    source = source_of("ibims1", root, "val", camera_defaults=LENS, depth_bounds=[1, 3])
    assert float(IBims1(source)[0].depth_m.nan_to_num(0).max()) == pytest.approx(2.5, abs=1e-3)


def test_it_is_no_training_set(root: Path) -> None:
    with pytest.raises(InputError, match=r"test set\. Name it as a source of val or test"):
        IBims1(source_of("ibims1", root, "train"))


def test_a_missing_file_is_named_or_its_image_left_out(root: Path) -> None:
    missing = root / "mask_transp" / f"{fixture.NAMES[0]}.png"
    missing.unlink()
    with pytest.raises(InputError, match=rf"{missing}: no such file.*asg\.ed\.tum\.de"):
        IBims1(source_of("ibims1", root, "test"))
    dataset = IBims1(source_of("ibims1", root, "test", allow_missing=True, camera_defaults=LENS))
    assert [dataset.name(i) for i in range(len(dataset))] == [fixture.NAMES[1]]
    assert len(dataset.skipped) == 1
    assert fixture.NAMES[0] in dataset.skipped[0]


def test_an_empty_root_says_where_to_get_the_data(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"{tmp_path}/rgb: no such file or folder.*ibims1_core"):
        IBims1(source_of("ibims1", tmp_path, "test"))


def test_calibration_that_is_not_four_numbers_is_refused(root: Path) -> None:
    path = root / "calib" / f"{fixture.NAMES[0]}.txt"
    path.write_text("550.39 548.55\n")
    dataset = IBims1(source_of("ibims1", root, "test", camera_defaults=LENS))
    with pytest.raises(InputError, match=rf"{path}: cannot be read as 4 numbers"):
        dataset[0]


def test_a_worker_reads_what_its_parent_reads(root: Path) -> None:
    dataset = IBims1(source_of("ibims1", root, "test", camera_defaults=LENS))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1].all_in_focus, dataset[1].all_in_focus)
