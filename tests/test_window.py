from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from focaldiffusion.optics import Camera
from focaldiffusion.window import Window


def coordinates(height: int, width: int) -> torch.Tensor:
    """(3, H, W): x and y of every pixel centre, and 0."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)])


@given(
    size=st.tuples(st.integers(4, 90), st.integers(4, 90)),
    target=st.tuples(st.integers(4, 60), st.integers(4, 60)),
    share=st.floats(0.3, 1.0),
    place=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_light_depth_and_camera_come_from_the_same_place(size, target, share, place):
    step = share * min(size[0] / target[0], size[1] / target[1])
    assume(step * min(target) >= 1)
    rows, columns = Window(0, 0, step, target).extent
    left, top = round(place[0] * (size[1] - columns)), round(place[1] * (size[0] - rows))
    window = Window(left, top, step, target)
    grid = coordinates(*size)
    light = window.light(grid)
    assert light.shape == (3, *target)

    # The camera says where the principal point has gone; so does every pixel.
    camera = window.camera(Camera(50.0, 0.01, size, principal_point_px=(3.0, 5.0)))
    assert camera.image_size == target
    assert camera.focal_length_px == pytest.approx(50.0 / step)
    x, y = camera.principal_point_px
    expected = coordinates(*target)[:2] * step
    expected += torch.tensor([3.0 - x * step, 5.0 - y * step])[:, None, None]
    # At the border the average is of the pixels that there are, so of a place farther inside.
    off = (light[:2] - expected).abs()
    assert off.max() <= 0.51 * max(step, 1)
    border = math.ceil(max(1, 1 / step)) + 1
    if min(target) > 2 * border:
        # Between pixels an average of few pixels leans to their middle.
        assert off[:, border:-border, border:-border].max() <= 0.1 * max(step, 1)
    # Depth takes a pixel that touches that point.
    for axis in range(2):
        nearest = window.nearest(grid[axis])
        assert (nearest - expected[axis]).abs().max() <= 0.5 + 1e-3


def test_the_whole_image_at_its_size_is_itself():
    image = torch.rand(2, 3, 5, 7)
    window = Window(0, 0, 1.0, (5, 7))
    assert torch.equal(window.light(image), image)
    assert torch.equal(window.nearest(image[0, 0]), image[0, 0])
