from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldiffusion.io.canvas import Canvas
from focaldiffusion.io.depth_colours import ColourScale, colour_table, length_labels
from focaldiffusion.io.pictures import depth_picture, overview
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.result import Reconstruction
from focaldiffusion.stack import FocalStack

NAN = float("nan")
GREY = [150, 150, 150]


def scale_of(values: list[float], field: str = "depth_m") -> ColourScale:
    scale = ColourScale.of(torch.tensor([values]), field)
    assert scale is not None
    return scale


class TestColourScale:
    def test_near_is_warm_and_far_is_cold(self):
        for depths_m in ([1.0, 1.5, 2.0], [0.3, 1.0, 8.0]):
            near, _, far = scale_of(depths_m).colours(np.array([depths_m]))[0]
            assert near.tolist() == colour_table()[255].tolist()
            assert far.tolist() == colour_table()[0].tolist()
            assert near[0] > near[2]
            assert far[2] > far[0]

    def test_large_ranges_are_linear_in_inverse_depth(self):
        scale = ColourScale("depth_m", 0.5, 5.0, "inverse")
        # 2, 1.1 and 0.2 dioptres: the middle one is half way.
        assert scale.position(np.array([0.5, 1 / 1.1, 5.0])) == pytest.approx([1, 0.5, 0])
        assert scale_of([0.5, 5.0]).mapping == "inverse"
        assert scale_of([2.0, 5.0]).mapping == "negative"

    def test_outliers_do_not_take_the_colours(self):
        depths_m = torch.linspace(1, 2, 1000).repeat(10)
        depths_m[0], depths_m[1] = 0.001, 500.0
        scale = ColourScale.of(depths_m.view(100, 100), "depth_m")
        assert scale is not None
        assert (scale.low, scale.high) == pytest.approx((1.01, 1.99), abs=1e-3)

    def test_infinite_depth_is_cold_and_unknown_is_grey(self):
        colours = scale_of([0.3, 8.0]).colours(np.array([[math.inf, NAN]]))
        assert colours[0, 0].tolist() == colour_table()[0].tolist()
        assert colours[0, 1].tolist() == GREY

    def test_relative_depth_always_spans_the_sweep(self):
        scale = scale_of([0.4, 0.6], "depth_relative")
        assert (scale.low, scale.high, scale.range_text) == (0, 1, None)

    def test_nothing_known_has_no_scale(self):
        assert ColourScale.of(torch.full((3, 3), NAN), "depth_m") is None

    def test_a_plane_has_a_scale_around_it(self):
        for field, value in (("depth_m", 2.0), ("height_m", 0.0), ("height_m", -1e-4)):
            scale = scale_of([value, value], field)
            assert scale.low < value < scale.high
            assert scale.position(np.array([value]))[0] == pytest.approx(0.5, abs=0.01)

    @pytest.mark.parametrize(
        ("ends", "field", "labels"),
        [
            ((0.3, 8.0), "depth_m", ["5", "2", "1", "0.6", "0.5", "0.4", "0.3"]),
            ((1.0, 2.0), "depth_m", ["2", "1.8", "1.6", "1.4", "1.2", "1"]),
            ((0.04, 0.05), "depth_m", ["50", "48", "46", "44", "42", "40"]),
            ((-0.0002, 0.0002), "height_m", ["−0.2", "−0.1", "0", "0.1", "0.2"]),
            ((0.0, 1.0), "depth_relative", ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ],
    )
    def test_ticks_are_round(self, ends, field, labels):
        scale = scale_of(list(ends), field)
        scale = ColourScale(field, *ends, scale.mapping)
        assert list(scale.ticks().values()) == labels

    @given(st.floats(1e-3, 50), st.floats(1.001, 1000))
    def test_ticks_say_where_they_are(self, low, ratio):
        scale = scale_of([low, low * ratio])
        ticks = scale.ticks()
        per_metre = {"[m]": 1, "[mm]": 1e3, "[µm]": 1e6}[scale.title.split()[-1]]
        assert len(ticks) >= 2
        for position, text in ticks.items():
            assert scale.position(np.array([float(text) / per_metre]))[0] == pytest.approx(
                position, abs=2e-3
            )
        gaps = np.diff(sorted(ticks))
        assert gaps.min() > 0.08


@pytest.mark.parametrize(
    ("lengths_m", "labels"),
    [
        ([0.24, 0.36, 1.5, math.inf], ["0.24 m", "0.36 m", "1.5 m", "∞"]),
        ([0.1201, 0.1204], ["0.1201 m", "0.1204 m"]),
        ([0.0, 0.0001, 0.00025], ["0 mm", "0.10 mm", "0.25 mm"]),
        ([-2e-6, 0.0, 5e-6], ["−2.0 µm", "0 µm", "5.0 µm"]),
        ([0.5, 0.5, 12.0], ["0.50 m", "0.50 m", "12 m"]),
        ([math.inf], ["∞"]),
    ],
)
def test_length_labels(lengths_m, labels):
    assert length_labels(lengths_m) == labels


@pytest.mark.parametrize("size", [(1, 1), (30, 40), (3000, 20), (20, 3000), (700, 600)])
def test_depth_picture_shows_the_map_at_a_readable_size(size):
    depth_m = torch.full(size, 1.0)
    depth_m[:, size[1] // 2 :] = 2.0
    picture = depth_picture(depth_m, "depth_m")

    assert picture.dtype == np.uint8
    assert 480 <= max(picture.shape[:2]) <= 1800
    assert min(picture.shape[:2]) >= 100
    assert picture[0, 0].tolist() == [255, 255, 255]


def test_depth_picture_keeps_pixels_where_they_are():
    depth_m = torch.full((600, 700), 1.0)
    depth_m[:, 350:] = 2.0
    depth_m[400:500, 100:200] = NAN
    left, top = 28, 28  # the margin
    picture = depth_picture(depth_m, "depth_m")[top:, left:]

    assert picture[100, 100].tolist() == colour_table()[255].tolist()
    assert picture[100, 500].tolist() == colour_table()[0].tolist()
    assert picture[450, 150].tolist() == GREY
    assert picture[100, 340].tolist() == colour_table()[255].tolist()


def extent(picture: np.ndarray, colour: list[int]) -> tuple[float, float, float, float]:
    """(left, top, width, height) of the area of exactly this colour, scattered pixels apart."""
    rows, columns = np.nonzero((picture == np.array(colour, np.uint8)).all(-1))
    assert rows.size, f"no pixel is {colour}"
    # Smoothed letters and colour bars have pixels of any colour, but few.
    (left, right), (top, bottom) = (np.quantile(at, [0.01, 0.99]) for at in (columns, rows))
    return left, top, right - left, bottom - top


def test_overview_shows_frames_image_depth_and_confidence():
    frame_colours = [[0, 60, 200], [0, 120, 200], [0, 180, 200]]
    images = torch.tensor(frame_colours)[:, :, None, None].expand(3, 3, 60, 80) / 255
    stack = FocalStack(
        srgb_to_linear(images), focus_distances_m=torch.tensor([1.0, 2.0, torch.inf])
    )
    depth_m = torch.full((600, 800), 1.0)
    depth_m[:, 400:] = 2.0
    depth_m[:200] = NAN
    result = Reconstruction(
        np.full((600, 800, 3), np.float32([0.8, 0, 0.8])),
        torch.full((600, 800), 0.2),
        np.zeros((600, 800), np.uint8),
        depth_m=depth_m,
    )
    picture = overview(result, stack, "three", "calibrated")

    thumbnails = [extent(picture, colour) for colour in frame_colours]
    image = extent(picture, [204, 0, 204])
    near, far = (extent(picture, colour_table()[i].tolist()) for i in (255, 0))
    unknown, confidence = extent(picture, GREY), extent(picture, [51, 51, 51])
    assert thumbnails[0][0] < thumbnails[1][0] < thumbnails[2][0]
    for _, _, width, height in (*thumbnails, image, confidence):
        assert width / height == pytest.approx(80 / 60, rel=0.03)
    assert image[1] > thumbnails[0][1] + thumbnails[0][3]
    # Side by side: the image, near and far halves of the depth, its unknown third, confidence.
    assert image[0] < near[0] < far[0] < confidence[0]
    assert image[2] > 500
    assert unknown[0] == pytest.approx(near[0], abs=10)
    assert unknown[2:] == pytest.approx((image[2], image[3] / 3), rel=0.03)
    assert confidence[1] == pytest.approx(image[1], abs=2)


@pytest.mark.parametrize("size", [(20, 400), (400, 20), (40, 30)])
@pytest.mark.parametrize("count", [2, 40])
def test_overview_of_any_shape_stays_readable(size, count):
    stack = FocalStack(torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0)))
    result = Reconstruction(
        np.full((*size, 3), 0.5, np.float32),
        torch.zeros(size),
        np.zeros(size, np.uint8),
        depth_relative=torch.full(size, NAN),
    )
    picture = overview(result, stack, "a $ or _ in the name")

    assert picture.shape[1] == 1800
    assert 350 < picture.shape[0] < 2500
    # Nothing reaches the margin.
    assert (picture[:, :20] == 255).all()
    assert (picture[:, -15:] == 255).all()


def test_names_of_any_script_are_written_without_a_warning():
    def page(name: str) -> np.ndarray:
        canvas = Canvas(200, 40)
        canvas.write(4, 4, name, 20)
        return canvas.drawn()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A script that hardly any machine has a font for: a square for each letter.
        np.testing.assert_array_equal(page("été \U000143d0"), page("été □"))
        assert (page("桌子") < 128).any()
