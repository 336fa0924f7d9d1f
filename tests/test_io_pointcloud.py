from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from stack_folders import folder_of

from focaldiffusion.errors import InputError
from focaldiffusion.io.pointcloud import MAX_POINTS, back_project, pixel_stride, write_point_cloud
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.lens import LensFacts
from focaldiffusion.optics import Camera


def test_back_projection_by_hand():
    # Pixel (x 3, y 0) has its centre at (3.5, 0.5), so 1.5 right of and 0.5 above the axis.
    points = back_project(np.full((2, 4), 6.0, np.float32), 3.0, (2.0, 1.0))

    assert points.shape == (2, 4, 3)
    assert points[0, 3].tolist() == [3.0, -1.0, 6.0]
    assert points[1, 0].tolist() == [-3.0, 1.0, 6.0]


def test_points_project_back_onto_their_pixels():
    depth_m = np.random.default_rng(0).random((7, 9), np.float32) + 0.5
    camera = Camera(100.0, 0.01, (7, 9), (4.2, 3.9))
    points = back_project(depth_m, camera.focal_length_px, camera.principal_point_px, stride=2)

    x = points[..., 0] / points[..., 2] * 100 + 4.2
    y = points[..., 1] / points[..., 2] * 100 + 3.9
    np.testing.assert_allclose(x, np.tile([0.5, 2.5, 4.5, 6.5, 8.5], (4, 1)), rtol=1e-5)
    np.testing.assert_allclose(y.T, np.tile([0.5, 2.5, 4.5, 6.5], (5, 1)), rtol=1e-5)


def test_resizing_image_and_camera_leaves_the_scene_in_place():
    """A plane keeps its extent: half the pixels, half the focal length, pixel centres at halves."""
    camera = Camera(80.0, 0.01, (8, 12), (6.5, 3.5))
    half = camera.resized((4, 6))
    fine = back_project(np.full((8, 12), 2.0, np.float32), 80.0, camera.principal_point_px)
    depth_m = np.full((4, 6), 2.0, np.float32)
    coarse = back_project(depth_m, half.focal_length_px, half.principal_point_px)

    np.testing.assert_allclose(
        coarse, fine.reshape(4, 2, 6, 2, 3).mean(axis=(1, 3)), rtol=1e-6, atol=1e-7
    )


def test_a_cropped_stack_without_an_aperture_has_the_same_points(tmp_path: Path):
    """The principal point belongs to the focal length: a crop moves it, known aperture or not."""
    depth_m = 0.5 + np.random.default_rng(0).random((20, 31), np.float32)
    folder = folder_of(tmp_path / "stack")
    clouds = []
    for aperture_m in (0.01, None):
        opened = open_stack(
            folder, lens=LensFacts(focal_length_px=400.0, aperture_diameter_m=aperture_m)
        )
        camera = opened.camera_for().cropped(left=7, top=4, image_size=(20, 31))
        assert camera.aperture_diameter_m == aperture_m
        clouds.append(back_project(depth_m, camera.focal_length_px, camera.principal_point_px))
    np.testing.assert_allclose(*clouds, rtol=0, atol=1e-6)
    # The pixel on the axis of the whole frame (20, 15) is at (13, 11) of the crop.
    assert np.abs(clouds[1][10:12, 12:14, :2].mean((0, 1))).max() < 1e-3


def test_written_points_have_colours_and_skip_unknown(tmp_path: Path):
    depth_m = np.array([[1.0, np.nan], [np.inf, 2.0]], np.float32)
    srgb = np.array([[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [0.2, 0.4, 0.6]]], np.float32)
    write_point_cloud(tmp_path / "cloud.ply", depth_m, srgb, Camera(2.0, None, (2, 2), (1.0, 1.0)))

    cloud = trimesh.load(tmp_path / "cloud.ply")
    assert cloud.vertices.tolist() == [[-0.25, -0.25, 1.0], [0.5, 0.5, 2.0]]
    assert cloud.colors[:, :3].tolist() == [[255, 0, 0], [51, 102, 153]]
    assert (tmp_path / "cloud.ply").read_bytes().startswith(b"ply\nformat binary_little_endian")


def test_nothing_known_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="no pixel has a known depth"):
        write_point_cloud(
            tmp_path / "cloud.ply",
            np.full((2, 2), np.nan, np.float32),
            np.zeros((2, 2, 3), np.float32),
            Camera(1.0, None, (2, 2), (1.0, 1.0)),
        )
    assert not (tmp_path / "cloud.ply").exists()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 5000))
def test_stride_is_the_smallest_that_fits(height, width, limit):
    def kept(stride: int) -> int:
        return math.ceil(height / stride) * math.ceil(width / stride)

    stride = pixel_stride((height, width), limit)
    assert kept(stride) <= limit
    assert stride == 1 or kept(stride - 1) > limit


def test_camera_sized_images_stay_near_two_million_points():
    assert pixel_stride((1080, 1920 - 100)) == 1
    stride = pixel_stride((3072, 4080))
    assert stride == 3
    assert 3072 // stride * (4080 // stride) <= MAX_POINTS


def test_a_rendered_room_has_its_true_size(shared_data: Path, tmp_path: Path):
    from PIL import Image

    truth = shared_data / "rendered/room_1/truth"
    depth_m = np.load(truth / "depth.npz")["depth"]
    srgb = np.asarray(Image.open(truth / "all_in_focus.png").convert("RGB"), np.float32) / 255
    focal_length_px = 711.1111
    camera = Camera(focal_length_px, None, (384, 512), (256.0, 192.0))
    write_point_cloud(tmp_path / "cloud.ply", depth_m, srgb, camera)

    cloud = trimesh.load(tmp_path / "cloud.ply")
    assert len(cloud.vertices) == 384 * 512
    assert np.allclose(cloud.vertices[:, 2], depth_m.flatten(), rtol=1e-6)
    # The view's edges: half the width over the focal length, times z.
    slope = np.abs(cloud.vertices[:, 0] / cloud.vertices[:, 2]).max()
    assert slope == pytest.approx(255.5 / focal_length_px, rel=1e-5)
    assert np.array_equal(cloud.colors[:, :3], np.rint(srgb.reshape(-1, 3) * 255))
