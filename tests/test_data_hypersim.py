"""HyperSim: planar depth and intrinsics of every image plane, exposure, split, missing files."""

from __future__ import annotations

import csv
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from focaldiffusion.config.data import CameraDefaults, DatasetOptions, Source
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.hypersim import HyperSim, ImagePlane, exposed
from focaldiffusion.depth import depth_from_ray_distance
from focaldiffusion.errors import InputError
from focaldiffusion.io.depth_files import read_values
from focaldiffusion.optics import Camera
from focaldiffusion.scene import Scene
from tests.fixtures import hypersim as fixture

LENS = CameraDefaults(f_number=2.0, sensor_width_m=0.036)
HALF_FLOAT = 2**-11
"""Relative rounding of the float16 distances."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hypersim")
    fixture.write(folder)
    return folder


def source(root: object, split: str = "train", **changes: object) -> Source:
    values: dict[str, object] = {
        "name": "rooms",
        "split": split,
        "dataset_type": "hypersim",
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


def sample_of(data: HyperSim, scene: str) -> Scene:
    return data[next(index for index in range(len(data)) if data.scene_name(index) == scene)]


def unprojected(depth_m: NDArray, focal_length_px: float, centre: tuple[float, float]) -> NDArray:
    """Points (H, W, 3) of a planar depth map, in axes right, down, forward."""
    y, x = np.mgrid[: depth_m.shape[0], : depth_m.shape[1]] + 0.5
    slopes = [(x - centre[0]) / focal_length_px, (y - centre[1]) / focal_length_px, np.ones_like(x)]
    return np.stack(slopes, axis=-1) * depth_m[..., None].astype(np.float64)


def off_plane_m(points: NDArray) -> float:
    """How far the farthest of the points (N, 3) is from the plane that fits them best."""
    centred = points - points.mean(axis=0)
    normal = np.linalg.svd(centred, full_matrices=False)[2][-1]
    return float(np.abs(centred @ normal).max())


@pytest.mark.parametrize("scene", ["ai_001_001", "ai_026_006", "ai_037_002"])
def test_tilted_plane_comes_out_planar(scene: str) -> None:
    points = fixture.ray_points(scene)
    distance_m = np.linalg.norm(points, axis=-1).astype(np.float32)
    plane = ImagePlane.of(np.array(fixture.CAMERAS[scene]), fixture.SIZE)
    cloud = unprojected(plane.depth(distance_m), *plane.pinhole()).reshape(-1, 3)
    assert off_plane_m(cloud) < 1e-5  # the requirement is 1e-4
    # Not only a plane, but this one: the points' distances from each other are the true ones.
    truth = points.reshape(-1, 3)
    pairs = np.random.default_rng(0).integers(0, len(truth), (2, 1000))
    measured, true = (np.linalg.norm(p[pairs[0]] - p[pairs[1]], axis=1) for p in (cloud, truth))
    np.testing.assert_allclose(measured, true, atol=2e-5)


def test_one_camera_for_all_bends_the_plane_of_a_tilted_one() -> None:
    distance_m = np.linalg.norm(fixture.ray_points("ai_026_006"), axis=-1)
    upright = ImagePlane.of(np.array(fixture.UPRIGHT), fixture.SIZE)
    cloud = unprojected(upright.depth(distance_m), *upright.pinhole())
    assert off_plane_m(cloud.reshape(-1, 3)) > 0.1


@pytest.mark.parametrize("scene", fixture.CAMERAS)
def test_depth_is_that_along_the_normal_of_the_image_plane(scene: str) -> None:
    matrix, points = np.array(fixture.CAMERAS[scene]), fixture.ray_points(scene)
    normal = np.cross(matrix[:, 0], -matrix[:, 1])
    depth_m = ImagePlane.of(matrix, fixture.SIZE).depth(np.linalg.norm(points, axis=-1))
    np.testing.assert_allclose(depth_m, points @ normal / np.linalg.norm(normal), rtol=1e-6)


def test_square_pixels_agree_with_the_general_camera() -> None:
    distance_m = np.linalg.norm(fixture.ray_points("ai_037_002"), axis=-1)
    plane = ImagePlane.of(np.array(fixture.CAMERAS["ai_037_002"]), fixture.SIZE)
    focal_length_px, centre = plane.pinhole()
    camera = Camera(focal_length_px, 0.01, fixture.SIZE, centre)
    expected = depth_from_ray_distance(torch.from_numpy(distance_m), camera)
    np.testing.assert_allclose(plane.depth(distance_m), expected, rtol=1e-6)


def test_focal_lengths_known_from_elsewhere() -> None:
    """886.81 px: https://github.com/apple/ml-hypersim/issues/9."""
    full = (768, 1024)
    focal_length_px, centre = ImagePlane.of(np.array(fixture.UPRIGHT), full).pinhole()
    assert focal_length_px == pytest.approx(886.81, abs=0.005)
    assert centre == pytest.approx((512, 384))
    tilted = ImagePlane.of(np.array(fixture.CAMERAS["ai_026_006"]), full)
    focal_length_px, centre = tilted.pinhole()
    # The axis of the tilted frame leaves the plane's normal by 41.5 degrees, downwards.
    assert focal_length_px == pytest.approx(664.18, abs=0.01)
    assert centre == pytest.approx((512, 384 + 664.18 * np.tan(np.radians(41.5))), abs=0.02)


def test_walls_of_a_real_off_centre_scene_stand_upright(shared_data: Path) -> None:
    native = shared_data / "native/hypersim"
    scene = native / "ai_037_002"
    with (native / "metadata_camera_parameters.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["scene_name"] == scene.name)
    matrix = np.array([[float(row[f"M_cam_from_uv_{i}{j}"]) for j in range(3)] for i in range(3)])
    folder = scene / "images/scene_cam_00_geometry_hdf5"
    distance_m = read_values(folder / "frame.0000.depth_meters.hdf5").numpy()
    with h5py.File(scene / "_detail/cam_00/camera_keyframe_orientations.hdf5") as file:
        world_from_cam = file["dataset"][0]
    plane = ImagePlane.of(matrix, distance_m.shape)
    right, down, _ = plane.from_pixels.T
    right, down = right / np.linalg.norm(right), down / np.linalg.norm(down)
    axes = world_from_cam @ np.stack([right, down, np.cross(right, down)], axis=1)
    depth_m = plane.depth(distance_m)
    world = unprojected(depth_m, *plane.pinhole()) @ axes.T
    # A wall at x = -2.673 m, from 4 to 12 m away, in a file that rounds to 2 to 4 mm. The upright
    # camera sees 600 of its pixels there; half a pixel tilts it by 6e-4.
    wall = world[np.abs(world[..., 0] + 2.673) < 0.004]
    assert len(wall) > 16_000
    across, along, up = wall.T
    slopes = np.linalg.lstsq(np.stack([along, up, np.ones_like(up)], 1), across, rcond=None)[0]
    assert np.abs(slopes[:2]).max() < 1.5e-4
    assert np.ptp(along) > 8
    assert np.ptp(up) > 3.5


def test_sample_holds_the_fixtures_truth(root: Path) -> None:
    sample = sample_of(HyperSim(source(root)), "ai_037_002")
    known = np.ones(fixture.SIZE, bool)
    known[fixture.EMPTY] = known[fixture.SKY] = False
    assert np.array_equal(sample.valid.numpy(), known)
    assert torch.equal(sample.depth_m.isnan(), ~sample.valid)
    normal = np.cross(*(np.array(fixture.CAMERAS["ai_037_002"]).T[:2] * [[1], [-1]]))
    truth = fixture.ray_points("ai_037_002") @ (normal / np.linalg.norm(normal))
    np.testing.assert_allclose(sample.depth_m[known], truth[known], rtol=2 * HALF_FLOAT)
    scale = fixture.SIZE[1] / 1024
    assert sample.camera.focal_length_px == pytest.approx(887.535 * scale, rel=1e-5)
    assert sample.camera.principal_point_px == pytest.approx((573.44 * scale, 457.642 * scale))
    # f/2 on a sensor 36 mm wide: A = F p / 2
    pitch_m = 0.036 / fixture.SIZE[1]
    assert sample.camera.aperture_diameter_m == pytest.approx(887.535 * scale * pitch_m / 2)


def test_light_has_the_exposure_of_the_published_tone_map(root: Path) -> None:
    sample = sample_of(HyperSim(source(root)), "ai_001_001")
    assert sample.all_in_focus.shape == (3, *fixture.SIZE)
    assert sample.all_in_focus.isfinite().all()
    brightness = torch.tensor([0.3, 0.59, 0.11]) @ sample.all_in_focus.flatten(1)
    not_empty = torch.ones(fixture.SIZE, dtype=torch.bool)
    not_empty[fixture.EMPTY] = not_empty[fixture.SKY] = False
    shown = brightness[not_empty.flatten()].quantile(0.9) ** (1 / 2.2)
    assert shown == pytest.approx(0.8, abs=2e-3)
    assert (sample.all_in_focus[(slice(None), *fixture.LAMP)] == 1).all()


def test_preview_is_the_same_light_to_8_bits(root: Path) -> None:
    options = DatasetOptions(camera_defaults=LENS, layout="preview")
    preview = HyperSim(source(root, options=options))
    full = HyperSim(source(root))
    for index in range(len(full)):
        ours, theirs = full[index], preview[index]
        error = (ours.all_in_focus ** (1 / 2.2) - theirs.all_in_focus ** (1 / 2.2)).abs()
        assert error[:, ours.valid].median() < 1.5 / 255
        assert torch.equal(ours.depth_m.nan_to_num(), theirs.depth_m.nan_to_num())


def test_colour_that_is_not_a_number_is_black_and_named() -> None:
    colour = np.full((4, 5, 3), 2.0, np.float16)
    colour[1, 2, 0] = np.nan
    light, known = exposed(colour, np.ones((4, 5), bool))
    assert (~known).sum() == 1
    assert not known[1, 2]
    assert (light[:, 1, 2] == 0).all()
    assert light[:, 0, 0].tolist() == pytest.approx([0.8**2.2] * 3)


def test_frame_too_dark_to_expose_is_black() -> None:
    light, _ = exposed(np.full((4, 5, 3), 1e-5, np.float16), np.ones((4, 5), bool))
    assert (light == 0).all()


def test_split_and_exclusions_are_those_of_the_table(root: Path) -> None:
    splits = {split: HyperSim(source(root, split)) for split in ("train", "val", "test")}
    names = {
        split: [data.name(index) for index in range(len(data))] for split, data in splits.items()
    }
    for split, found in names.items():
        listed = [f"{s}/{c}/frame.{f:04d}" for s, c, f, of in fixture.FRAMES if of == split]
        assert found == listed
    assert [data.excluded for data in splits.values()] == [1, 1, 0]
    assert all(data.skipped == [] for data in splits.values())
    scenes = [{data.scene_name(index) for index in range(len(data))} for data in splits.values()]
    assert sum(map(len, scenes)) == len(set.union(*scenes))


def test_depth_bounds_leave_out_what_is_beyond(root: Path) -> None:
    options = DatasetOptions(camera_defaults=LENS, depth_bounds=(0.1, 2.5))
    near = sample_of(HyperSim(source(root, options=options)), "ai_001_001")
    every = sample_of(HyperSim(source(root)), "ai_001_001")
    assert torch.equal(near.valid, every.valid & (every.depth_m <= 2.5))
    assert 0 < near.valid.sum() < every.valid.sum()


def test_workers_and_pickle_read_the_same(root: Path) -> None:
    data = HyperSim(source(root))
    copy = pickle.loads(pickle.dumps(data))
    assert data[0].depth_m.isnan().equal(copy[0].depth_m.isnan())
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    for index, sample in enumerate(loader):
        assert torch.equal(sample.all_in_focus, data[index].all_in_focus)
        assert torch.equal(sample.depth_m.nan_to_num(), data[index].depth_m.nan_to_num())
    assert index == len(data) - 1


def test_light_and_geometry_may_lie_apart(root: Path, tmp_path: Path) -> None:
    for path in root.glob("*/images/*"):
        kind = "geometry" if path.name.endswith("geometry_hdf5") else "light"
        shutil.copytree(path, tmp_path / kind / path.relative_to(root))
    for path in root.glob("*.csv"):
        shutil.copy(path, tmp_path / "light")
    roots = {"all_in_focus": str(tmp_path / "light"), "depth": str(tmp_path / "geometry")}
    assert len(HyperSim(source(roots))) == len(HyperSim(source(root)))


@pytest.mark.parametrize(
    ("table", "place"),
    [
        ("metadata_images_split_scene_v1.csv", "evermotion_dataset/analysis"),
        ("metadata_camera_parameters.csv", "contrib/mikeroberts3000"),
    ],
)
def test_missing_table_says_where_to_get_it(
    root: Path, tmp_path: Path, table: str, place: str
) -> None:
    for path in root.glob("*.csv"):
        shutil.copy(path, tmp_path)
    (tmp_path / table).unlink()
    with pytest.raises(InputError, match=f"{table}: no such file.*ml-hypersim/blob/main/{place}"):
        open_dataset(source(tmp_path, allow_missing=True))


def test_missing_file_is_named_or_left_out(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    gone = tmp_path / "ai_026_006/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5"
    gone.unlink()
    with pytest.raises(InputError, match=f"^{gone}: no such file.*get ai_026_006 with"):
        HyperSim(source(tmp_path))
    data = HyperSim(source(tmp_path, allow_missing=True))
    assert len(data) == len(HyperSim(source(root))) - 1
    assert data.skipped == [f"{gone}: no such file; its frame is left out."]


def test_damaged_file_is_named(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    data = HyperSim(source(tmp_path, "test"))
    folder = tmp_path / "ai_044_004/images/scene_cam_00_geometry_hdf5"
    path = folder / "frame.0000.render_entity_id.hdf5"
    fixture.write_array(path, np.full((48, 64), 3, np.int32))
    with pytest.raises(InputError, match=f"{path}: 64x48, but .*color.hdf5 is 128x96"):
        data[0]
    path.write_bytes(b"cut off")
    with pytest.raises(InputError, match=f"{path}: cannot be read as HDF5"):
        data[0]


def test_table_that_is_damaged(root: Path, tmp_path: Path) -> None:
    for path in root.glob("*.csv"):
        shutil.copy(path, tmp_path)
    cameras = tmp_path / "metadata_camera_parameters.csv"
    cameras.write_text("".join(cameras.read_text().splitlines(keepends=True)[:2]))
    with pytest.raises(InputError, match="has no camera for ai_026_006"):
        HyperSim(source(tmp_path))
    cameras.write_text(cameras.read_text()[:-30])
    with pytest.raises(InputError, match="csv, line 2: cut short"):
        HyperSim(source(tmp_path))
    cameras.write_text("scene_name,M_proj_00\n")
    with pytest.raises(InputError, match="has no column M_cam_from_uv_00"):
        HyperSim(source(tmp_path))


def test_no_aperture_is_invented(root: Path) -> None:
    data = HyperSim(source(root, options=DatasetOptions()))
    with pytest.raises(
        InputError, match=r"HyperSim ai_001_001/cam_00/frame\.0000: the aperture is"
    ):
        data[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filelist": "train.txt"}, "whose split comes from metadata_images_split_scene_v1.csv"),
        ({"options": {"generate_focal_stack": False}}, "has no photographed stacks"),
        ({"options": {"layout": "png"}}, "'png' is unknown; hypersim has hdf5 and preview"),
        (
            {"options": {"depth_kind": "planar"}},
            "depth_kind is planar, but that of",
        ),
        ({"options": {"depth_scale": 0.001}}, "depth_scale is 0.001, but that of hypersim is 1"),
        ({"options": {"depth_shift": 0.5}}, "depth_shift is 0.5, but that of hypersim is 0"),
    ],
)
def test_options_that_cannot_apply_are_refused(
    root: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        HyperSim(source(root, **changes))
