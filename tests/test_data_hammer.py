"""HAMMER on a tree in its native layout."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.hammer import HAMMER
from focaldiffusion.errors import InputError
from tests.fixtures import hammer as fixture
from tests.fixtures.sources import source_of

LENS = {"aperture_diameter_m": 0.01}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fixture.write(tmp_path / "hammer")
    return tmp_path / "hammer"


def test_rendered_depth_in_metres_and_the_intrinsics_of_the_sequence(root: Path) -> None:
    dataset = open_dataset(source_of("hammer", root, "test", camera_defaults=LENS))
    assert isinstance(dataset, HAMMER)
    scene = dataset[0]
    assert (~scene.valid).nonzero().tolist() == [list(fixture.HOLE)]
    torch.testing.assert_close(
        scene.depth_m[scene.valid].unique(), torch.tensor([fixture.DEPTH_MM / 1000])
    )
    fx, fy = fixture.FOCAL_LENGTHS_PX
    assert scene.camera.focal_length_px == pytest.approx(math.sqrt(fx * fy))
    x, y = fixture.PRINCIPAL_POINT_PX
    assert scene.camera.principal_point_px == pytest.approx((x + 0.5, y + 0.5))


def test_scenes_are_divided_never_sequences(root: Path) -> None:
    train, val, test = (
        HAMMER(source_of("hammer", root, split)) for split in ("train", "val", "test")
    )
    assert [train.name(i) for i in range(len(train))] == [
        f"{sequence}/{frame:06d}"
        for sequence in ("scene11_traj1_naked_1", "scene2_traj1_1")
        for frame in range(fixture.FRAMES)
    ]
    assert {train.scene_name(i) for i in range(len(train))} == {"scene2", "scene11"}
    for one in (val, test):
        assert {one.scene_name(i) for i in range(len(one))} == {"scene12", "scene14"}


def test_missing_files(root: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    with pytest.raises(InputError, match=rf"{empty}: no such file or folder.*HAMMER-dataset"):
        HAMMER(source_of("hammer", empty, "test"))
    empty.mkdir()
    with pytest.raises(InputError, match=rf"{empty}: no sample of hammer.*HAMMER-dataset"):
        HAMMER(source_of("hammer", empty, "test"))
    missing = root / "scene12_traj1_1/polarization/_gt/000001.png"
    missing.unlink()
    with pytest.raises(InputError, match=f"{missing}: no such file"):
        HAMMER(source_of("hammer", root, "test"))
    dataset = HAMMER(source_of("hammer", root, "test", allow_missing=True))
    assert [dataset.name(i) for i in range(len(dataset))] == [
        "scene12_traj1_1/000000",
        "scene14_traj2_2/000000",
        "scene14_traj2_2/000001",
    ]
    assert len(dataset.skipped) == 1
    assert f"{missing}: no such file" in dataset.skipped[0]


def test_files_that_are_not_what_they_should_be(root: Path) -> None:
    folder = root / "scene12_traj1_1/polarization"
    dataset = HAMMER(source_of("hammer", root, "test", camera_defaults=LENS))
    Image.fromarray(np.full((6, 8), 700, np.uint16)).save(folder / "_gt/000000.png")
    with pytest.raises(InputError, match=r"_gt/000000\.png: 8x6, but .*rgb/000000\.png is 16x12"):
        dataset[0]
    (folder / "intrinsics.txt").write_text("706.7 707.5 545.6 389.9\n")
    with pytest.raises(InputError, match=r"intrinsics\.txt: cannot be read as 3 x 3 numbers"):
        dataset[1]


def test_a_worker_reads_what_its_parent_reads(root: Path) -> None:
    dataset = HAMMER(source_of("hammer", root, "train", camera_defaults=LENS))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[3].all_in_focus, dataset[3].all_in_focus)
