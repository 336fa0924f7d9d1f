from __future__ import annotations

import math

import pytest
import torch

from focaldiffusion.errors import InputError
from focaldiffusion.focus import check_focus
from focaldiffusion.frames import working_size
from focaldiffusion.optics import Camera
from focaldiffusion.stack import FocalStack

IMAGES = torch.zeros(3, 3, 4, 6)


def test_a_stack_without_focus_settings_is_an_order():
    stack = FocalStack(IMAGES)
    assert (len(stack), stack.size, stack.axis) == (3, (4, 6), "order")
    assert stack.focus_coordinates.tolist() == [0, 0.5, 1]


def test_distances_become_dioptres_and_infinity_zero():
    stack = FocalStack(IMAGES, focus_distances_m=torch.tensor([0.5, 4.0, math.inf]))
    assert stack.axis == "inverse_depth_dpt"
    assert stack.focus_coordinates.tolist() == [2, 0.25, 0]


def test_positions_are_coordinates_themselves():
    positions_m = torch.tensor([0.0, 2e-6, -1e-6], dtype=torch.float64)
    stack = FocalStack(IMAGES, focus_positions_m=positions_m)
    assert stack.axis == "position_m"
    from_first_m = (positions_m - positions_m[0]).float()
    torch.testing.assert_close(stack.focus_coordinates, from_first_m)


def test_a_single_frame_is_refused():
    with pytest.raises(InputError, match="needs at least 2 frames, got 1"):
        FocalStack(IMAGES[:1])


@pytest.mark.parametrize("shape", [(3, 1, 4, 6), (3, 4, 6), (3, 4, 6, 3)])
def test_images_of_another_shape_are_refused(shape):
    with pytest.raises(
        ValueError, match=r"FocalStack.images: got shape .* expected a tensor \(N, 3, H, W\)"
    ):
        FocalStack(torch.zeros(shape))


def test_distances_and_positions_exclude_each_other():
    values = torch.tensor([1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="exclude each other"):
        FocalStack(IMAGES, focus_distances_m=values, focus_positions_m=values)


def test_the_camera_must_match_the_images():
    with pytest.raises(ValueError, match=r"camera: of images of \(8, 12\), but these are \(4, 6\)"):
        FocalStack(IMAGES, camera=Camera(100.0, 0.01, (8, 12)))


@pytest.mark.parametrize(
    ("distances_m", "message"),
    [
        ([1.0, 2.0], "2 values for 3 frames"),
        ([1.0, 2.0, math.nan], "contains NaN"),
        ([1.0, 2.0, 0.0], "not all positive"),
        ([300.0, 500.0, 1000.0], "divide by 1000"),
    ],
)
def test_impossible_distances_are_refused(distances_m, message):
    with pytest.raises(InputError, match=message):
        FocalStack(IMAGES, focus_distances_m=torch.tensor(distances_m))


def test_infinite_stage_positions_are_refused():
    with pytest.raises(InputError, match="not all finite"):
        FocalStack(IMAGES, focus_positions_m=torch.tensor([0.0, 1.0, math.inf]))


def test_equal_distances_are_refused_from_users_and_accepted_from_cameras():
    with pytest.raises(InputError, match=r"1.0 appears more than once"):
        check_focus("focus_distances_m", [1.0, 1.0, 2.0], 3)
    stack = FocalStack(IMAGES, focus_distances_m=torch.tensor([1.0, 1.0, 2.0]))
    assert stack.focus_coordinates.tolist() == [1, 1, 0.5]


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((3000, 4000), (768, 1024)),
        ((4000, 4000), (1024, 1024)),
        ((2000, 4000), (512, 1024)),
        ((1990, 4000), (511, 1027)),  # continuous at 2:1
        ((300, 4000), (198, 2644)),  # 77x1024 by the long side alone
        ((4000, 300), (2644, 198)),
        ((100, 2000), (100, 2000)),  # never enlarged
    ],
)
def test_panoramas_are_solved_with_the_pixels_of_two_to_one(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert working_size(size, 4, 1024) == expected
