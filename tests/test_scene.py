from __future__ import annotations

import math

import pytest
import torch

from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera
from focaldiffusion.scene import Scene


def scene(height: int = 12, width: int = 16, **changes) -> Scene:
    generator = torch.Generator().manual_seed(0)
    depth = torch.where(torch.arange(width) < width // 2, 1.0, 4.0).expand(height, width)
    fields = {
        "all_in_focus": torch.rand(3, height, width, generator=generator),
        "depth_m": depth,
        "valid": torch.ones(height, width, dtype=torch.bool),
        "camera": Camera(100.0, 0.02, (height, width)),
        "source": "room 7",
    }
    return Scene(**{**fields, **changes})


def test_resizing_moves_image_depth_and_camera_together():
    valid = torch.ones(12, 16, dtype=torch.bool)
    valid[:, :4] = False
    depth = torch.where(valid, scene().depth_m, math.nan)
    small = scene(depth_m=depth, valid=valid).resized(8)
    assert small.size == small.camera.image_size == (6, 8)
    assert small.camera.focal_length_px == pytest.approx(50)
    assert small.camera.aperture_diameter_m == 0.02
    # Validity and depth are those of a pixel: the silhouette has no surface between 1 m and 4 m.
    assert small.valid[0].tolist() == [False] * 2 + [True] * 6
    assert small.depth_m[0, 2:].tolist() == [1.0] * 2 + [4.0] * 4


def test_resizing_averages_light():
    stripes = (torch.arange(16) % 2).float().expand(3, 12, 16)
    small = scene(all_in_focus=stripes).resized(4)
    torch.testing.assert_close(
        small.all_in_focus[..., 1:-1], torch.full((3, 3, 2), 0.5), rtol=0, atol=1e-6
    )


def test_a_scene_is_never_enlarged():
    original = scene()
    assert original.resized(16) is original
    assert original.resized(100) is original


def test_infinitely_far_is_valid():
    assert scene(depth_m=torch.full((12, 16), math.inf)).depth_m.isinf().all()


def test_bad_depth_names_the_scene():
    nowhere = torch.zeros(12, 16, dtype=torch.bool)
    with pytest.raises(InputError, match="room 7: no pixel has a valid depth"):
        scene(valid=nowhere)
    depth = scene().depth_m.clone()
    depth[0, 0], depth[0, 1], depth[0, 2] = 0.0, math.nan, -1.0
    with pytest.raises(InputError, match="room 7: 3 pixels marked valid have a depth that is not"):
        scene(depth_m=depth)


def test_parts_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"Scene.depth_m: got shape \(12, 15\), expected \(12, 16"):
        scene(depth_m=torch.ones(12, 15))
    with pytest.raises(ValueError, match=r"camera of \(6, 8\), scene of \(12, 16\)"):
        scene(camera=Camera(50.0, 0.02, (6, 8)))
