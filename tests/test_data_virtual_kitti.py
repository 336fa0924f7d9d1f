"""Virtual KITTI 2: metres, sky, intrinsics, both roots, the split by scene, missing files."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from focaldiffusion.config.data import CameraDefaults, DatasetOptions, Source
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.virtual_kitti import CAMERAS, SCENES, VARIATIONS, VirtualKITTI
from focaldiffusion.errors import InputError
from focaldiffusion.optics import srgb_to_linear
from tests.fixtures import virtual_kitti as fixture

LENS = CameraDefaults(f_number=1.4, sensor_width_m=0.036)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vkitti")
    fixture.write(folder)
    return folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The one scene of val, to damage."""
    fixture.write(tmp_path, scenes=("Scene06",))
    return tmp_path


def source(root: object, split: str = "val", **changes: object) -> Source:
    values: dict[str, object] = {
        "name": "drives",
        "split": split,
        "dataset_type": "virtual_kitti",
        "data_root": root if isinstance(root, dict) else str(root),
        "filelist": None,
        "focal_range": None,
        "focal_stack_size": (5, 5),
        "image_size": None,
        "max_samples": None,
        "weight": 1.0,
        "allow_missing": False,
        "options": DatasetOptions(camera_defaults=LENS),
    }
    return Source.model_validate(values | changes)


def test_depth_is_in_metres_and_the_sky_invalid(root: Path) -> None:
    sample = VirtualKITTI(source(root))[0]
    assert not sample.valid[: fixture.HORIZON].any()
    assert sample.valid[fixture.HORIZON :].all()
    assert torch.equal(sample.depth_m.isnan(), ~sample.valid)
    road_m = torch.from_numpy(fixture.road_m()[:, None]).float().expand(-1, 1242)
    torch.testing.assert_close(sample.depth_m[fixture.HORIZON :], road_m, rtol=1e-6, atol=0)
    assert sample.depth_m[-1, 0] == 2.5


def test_farthest_depth_before_the_sky_is_believed(small: Path) -> None:
    path = small / "vkitti_2.0.3_depth/Scene06/15-deg-left/frames/depth/Camera_0/depth_00000.png"
    centimetres = np.full(fixture.SIZE, 65535, np.uint16)
    centimetres[0, :3] = 0, 1, 65534
    Image.fromarray(centimetres).save(path)
    sample = VirtualKITTI(source(small))[0]
    assert sample.valid.nonzero().tolist() == [[0, 1], [0, 2]]
    assert sample.depth_m[sample.valid].tolist() == pytest.approx([0.01, 655.34])


def test_depth_bounds_cap_at_80_m(root: Path) -> None:
    options = DatasetOptions(camera_defaults=LENS, depth_bounds=(0.1, 80))
    sample = VirtualKITTI(source(root, options=options))[0]
    assert sample.valid.sum() == (fixture.road_m() <= 80).sum() * 1242
    assert sample.depth_m[sample.valid].max() <= 80


def test_camera_is_the_published_one(root: Path) -> None:
    camera = VirtualKITTI(source(root))[0].camera
    assert camera.focal_length_px == 725.0087
    # 620.5 and 187 count pixel centres at integers: the middle of the image.
    assert camera.principal_point_px == (621, 187.5)
    assert camera.aperture_diameter_m == pytest.approx(725.0087 * 0.036 / 1242 / 1.4)


def test_intrinsics_are_those_of_the_frame_and_camera_in_the_file(small: Path) -> None:
    table = small / "vkitti_2.0.3_textgt/Scene06/15-deg-left/intrinsic.txt"
    header = "frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]\n"
    table.write_text(f"{header}0 0 700 700 600 180\n0 1 710 710 610 190\n")
    data = VirtualKITTI(source(small))
    left, right = data[0].camera, data[1].camera
    assert (left.focal_length_px, left.principal_point_px) == (700, (600.5, 180.5))
    assert (right.focal_length_px, right.principal_point_px) == (710, (610.5, 190.5))
    table.write_text(f"{header}1 0 700 700 600 180\n")
    with pytest.raises(InputError, match=f"{table}: no line for frame 0 of camera 0"):
        data[0]


def test_published_intrinsics_without_the_text_archive(small: Path) -> None:
    for table in small.glob("vkitti_2.0.3_textgt/*/*/intrinsic.txt"):
        table.unlink()
    camera = VirtualKITTI(source(small))[0].camera
    assert (camera.focal_length_px, camera.principal_point_px) == (725.0087, (621, 187.5))


def test_every_variation_of_both_cameras_once(root: Path) -> None:
    for split, scenes in SCENES.items():
        data = VirtualKITTI(source(root, split))
        names = [data.name(index) for index in range(len(data))]
        assert names == [
            f"{scene}/{variation}/{camera}/00000"
            for scene in scenes
            for variation in VARIATIONS
            for camera in CAMERAS
        ]
        assert [data.scene_name(index) for index in range(len(data))] == [n[:7] for n in names]
        assert data.skipped == []


def test_split_divides_the_scenes() -> None:
    assert sorted(scene for scenes in SCENES.values() for scene in scenes) == list(fixture.SCENES)


def test_archives_may_lie_over_each_other_or_apart(tmp_path: Path, root: Path) -> None:
    fixture.write(tmp_path, folders=False, scenes=("Scene06",))
    apart = {
        "all_in_focus": str(root / "vkitti_2.0.3_rgb"),
        "depth": str(root / "vkitti_2.0.3_depth"),
    }
    expected = VirtualKITTI(source(root))
    for found in (VirtualKITTI(source(tmp_path)), VirtualKITTI(source(apart))):
        assert len(found) == len(expected)
        assert torch.equal(found[3].valid, expected[3].valid)
        assert found[3].camera == expected[3].camera


def test_workers_and_pickle_read_the_same(root: Path) -> None:
    data = VirtualKITTI(source(root))
    copy = pickle.loads(pickle.dumps(data))
    assert [copy.name(index) for index in range(len(copy))] == [
        data.name(index) for index in range(len(data))
    ]
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sum(int(sample.valid.sum()) for sample in loader) == len(data) * int(copy[0].valid.sum())


def test_missing_file_is_named_or_left_out(small: Path) -> None:
    folder = small / "vkitti_2.0.3_depth/Scene06/fog/frames/depth/Camera_1"
    (folder / "depth_00000.png").rename(folder / "depth_00012.png")
    gone = folder / "depth_00000.png"
    with pytest.raises(InputError, match=rf"^{gone}: no such file.*vkitti_2\.0\.3_depth\.tar of"):
        VirtualKITTI(source(small))
    data = VirtualKITTI(source(small, allow_missing=True))
    assert len(data) == 19
    image = small / "vkitti_2.0.3_rgb/Scene06/fog/frames/rgb/Camera_1/rgb_00012.jpg"
    assert data.skipped == [
        f"{path}: no such file; its frame is left out." for path in (gone, image)
    ]


def test_empty_root_names_the_first_file_and_the_archives(tmp_path: Path) -> None:
    first = "vkitti_2.0.3_rgb/Scene01/15-deg-left/frames/rgb/Camera_0/rgb_00000.jpg"
    with pytest.raises(InputError, match=f"^{tmp_path / first}: no such file.*naverlabs.com"):
        open_dataset(source(tmp_path, "train"))


def test_resized_images_have_no_known_camera(small: Path) -> None:
    path = small / "vkitti_2.0.3_rgb/Scene06/15-deg-left/frames/rgb/Camera_0/rgb_00000.jpg"
    Image.new("RGB", (621, 187)).save(path)
    with pytest.raises(InputError, match=f"{path}: 621x187; expected 1242x375"):
        VirtualKITTI(source(small))[0]


def test_real_images_have_the_size_and_light_expected(small: Path, shared_data: Path) -> None:
    real = shared_data / "native/vkitti2/left_rgb_00000.jpg"
    path = small / "vkitti_2.0.3_rgb/Scene06/15-deg-left/frames/rgb/Camera_0/rgb_00000.jpg"
    path.write_bytes(real.read_bytes())
    light = VirtualKITTI(source(small))[0].all_in_focus
    with Image.open(real) as image:
        srgb = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1) / 255
    torch.testing.assert_close(light, srgb_to_linear(srgb))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filelist": "val.txt"}, "whose split comes from its scenes"),
        ({"options": {"layout": "hdf5"}}, "virtual_kitti has one only"),
        ({"options": {"depth_kind": "ray"}}, "depth_kind is ray, but that of virtual_kitti is pl"),
        ({"options": {"depth_scale": 1.0}}, r"depth_scale is 1\.0, but .* is 0\.01"),
    ],
)
def test_options_that_cannot_apply_are_refused(
    root: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        VirtualKITTI(source(root, **changes))
