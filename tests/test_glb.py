"""Surfaces as GLB: cut where one thing ends in front of another, and nowhere else."""

from __future__ import annotations

import io

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from focaldiffusion.errors import InputError
from focaldiffusion.io.glb import Grid, points_glb, surface_glb, with_sharp_outlines
from focaldiffusion.io.pointcloud import back_project

FOCAL_PX = 60.0
SIZE = (12, 20)
TEXTURE = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)


def grid(
    depth: NDArray[np.float32], kept: NDArray[np.bool_] | None = None, confidence: int = 255
) -> Grid:
    points = back_project(depth, FOCAL_PX, (10.0, 6.0))
    known = np.ones(depth.shape, bool) if kept is None else kept
    with np.errstate(invalid="ignore"):
        near = np.nan_to_num(1 / depth)
    sure = np.full(depth.shape, confidence, np.uint8)
    pitch, near = depth / FOCAL_PX, near.astype(np.float32)
    return Grid(points, TEXTURE[::2, ::2], known, pitch, 0.05, near, sure)


def loaded(content: bytes) -> trimesh.Trimesh:
    (mesh,) = trimesh.load(io.BytesIO(content), file_type="glb").geometry.values()
    return mesh


def test_a_wall_is_whole_and_faces_the_camera() -> None:
    mesh = loaded(surface_glb(grid(np.full(SIZE, 2.0, np.float32)), TEXTURE))
    assert len(mesh.faces) == 2 * 11 * 19
    assert (mesh.face_normals[:, 2] > 0.999).all()
    assert mesh.vertices[0].tolist() == pytest.approx([-9.5 / 30, 5.5 / 30, -2])
    assert mesh.visual.material.baseColorTexture.size == (40, 24)
    # trimesh counts v from below.
    assert mesh.visual.uv[0].tolist() == pytest.approx([0.5 / 20, 1 - 0.5 / 12])


def test_a_floor_seen_at_a_flat_angle_is_whole() -> None:
    rows = 1 / np.linspace(0.8, 1.2, SIZE[0], dtype=np.float32)
    mesh = loaded(surface_glb(grid(np.tile(rows[:, None], (1, SIZE[1]))), TEXTURE))
    assert len(mesh.faces) == 2 * 11 * 19


def test_there_is_no_sheet_between_a_card_and_the_wall_behind_it() -> None:
    depth = np.full(SIZE, 4.0, np.float32)
    depth[3:9, 5:15] = 1.0
    mesh = loaded(surface_glb(grid(depth), TEXTURE))
    assert len(mesh.split(only_watertight=False)) == 2
    spans = mesh.triangles[:, :, 2].max(1) - mesh.triangles[:, :, 2].min(1)
    assert spans.max() == 0


def test_a_small_step_is_cut_only_where_depth_is_doubtful() -> None:
    depth = np.full(SIZE, 4.0, np.float32)
    depth[:, 10:] = 4.7  # 0.04 dpt behind: less than the gap, and a grazing angle
    assert len(loaded(surface_glb(grid(depth), TEXTURE)).faces) == 2 * 11 * 19
    assert len(loaded(surface_glb(grid(depth, confidence=100), TEXTURE)).faces) == 2 * 11 * 18


def test_unknown_and_unsure_pixels_are_left_out() -> None:
    depth = np.full(SIZE, 2.0, np.float32)
    depth[0, 0] = np.nan
    kept = np.ones(SIZE, bool)
    kept[:, 10:] = False
    mesh = loaded(surface_glb(grid(depth, kept), TEXTURE))
    assert len(mesh.vertices) == 12 * 10 - 1
    cloud = loaded(points_glb(grid(depth, kept)))
    assert len(cloud.vertices) == 12 * 10 - 1
    assert (np.asarray(cloud.colors)[0] == [*TEXTURE[0, 2], 255]).all()
    for write in (points_glb, lambda g: surface_glb(g, TEXTURE)):
        with pytest.raises(InputError, match="is left at this confidence"):
            write(grid(depth, np.zeros(SIZE, bool)))


def test_every_part_begins_at_a_multiple_of_four() -> None:
    content = surface_glb(grid(np.full(SIZE, 2.0, np.float32)), TEXTURE)
    assert content[:4] == b"glTF"
    assert int.from_bytes(content[8:12], "little") == len(content)
    assert len(content) % 4 == 0


def test_ramps_become_steps_and_slopes_stay() -> None:
    line = np.concatenate([np.zeros(8), [0.2, 0.45, 0.6, 0.9], np.ones(8)])
    ramp = np.tile(line.astype(np.float32), (6, 1))
    steps = with_sharp_outlines(ramp, 4, 0.5)
    assert (steps == np.where(np.arange(20) < 10, 0, 1)).all()
    slope = np.tile(np.linspace(0, 1, 40, dtype=np.float32), (6, 1))
    assert (with_sharp_outlines(slope, 4, 0.5) == slope).all()
