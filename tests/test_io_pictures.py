from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from matplotlib import colormaps

from focaldiffusion.io.colour_scales import ColourScale, DepthRange, length_labels
from focaldiffusion.io.lettering import Lettering
from focaldiffusion.io.panels import Panel, Strip, depth_picture, page
from focaldiffusion.io.pictures import SheetRow, contact_sheet, overview
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.stack import FocalStack

NAN = float("nan")
GREY = [150, 150, 150]


WARMEST, COLDEST = [122, 4, 3], [48, 18, 59]  # ends of turbo


def scale_of(values: list[float], field: str = "depth_m") -> ColourScale:
    return ColourScale.of_depth(range_of(values, field))


def range_of(values: list[float], field: str = "depth_m") -> DepthRange:
    found = DepthRange.of(np.array([values]), field)
    assert found is not None
    return found


class TestDepthRange:
    def test_outliers_are_left_out(self):
        depths_m = np.tile(np.linspace(1, 2, 1000), 10)
        depths_m[:2] = 0.001, 500.0
        found = DepthRange.of(depths_m.reshape(100, 100), "depth_m")
        assert found is not None
        assert (found.low, found.high) == pytest.approx((1.01, 1.99), abs=1e-3)
        assert found.text == "depth 1.0 m to 2.0 m"

    def test_relative_depth_always_spans_the_sweep(self):
        found = range_of([0.4, 0.6], "depth_relative")
        assert (found.low, found.high, found.text) == (0, 1, None)

    def test_nothing_known_has_no_range(self):
        assert DepthRange.of(np.full((3, 3), NAN), "depth_m") is None

    def test_a_plane_has_a_range_around_it(self):
        for field, value in (("depth_m", 2.0), ("height_m", 0.0), ("height_m", -1e-4)):
            found = range_of([value, value], field)
            assert found.low < value < found.high


class TestColourScale:
    def test_near_is_warm_and_far_is_cold(self):
        for depths_m in ([1.0, 1.5, 2.0], [0.3, 1.0, 8.0]):
            near, _, far = scale_of(depths_m).coloured(np.array([depths_m]))[0].tolist()
            assert (near, far) == (WARMEST, COLDEST)

    def test_height_and_relative_depth_grow_towards_the_warm_end(self):
        for field in ("height_m", "depth_relative"):
            low, high = scale_of([0.0, 1.0], field).coloured(np.array([[0.0, 1.0]]))[0].tolist()
            assert (low, high) == (COLDEST, WARMEST)

    def test_large_ranges_are_linear_in_inverse_depth(self):
        scale = ColourScale("Depth", 0.5, 5.0, "turbo_r", is_inverse=True)
        # 2, 1.1 and 0.2 dioptres: the middle one is half way.
        assert scale.places([0.5, 1 / 1.1, 5.0]) == pytest.approx([0, 0.5, 1])
        assert scale_of([0.5, 5.0]).is_inverse
        assert not scale_of([2.0, 5.0]).is_inverse

    @pytest.mark.parametrize("name", ["gray", "turbo", "turbo_r", "RdBu", "RdBu_r"])
    def test_colours_are_those_of_the_published_maps(self, name):
        levels = np.arange(256)
        drawn = ColourScale("level", 0, 255, name).coloured(levels[None].astype(float))[0]
        published = colormaps[name](levels, bytes=True)[:, :3]
        assert np.abs(drawn.astype(int) - published).max() <= 1
        bar = ColourScale("level", 0, 255, name).gradient(512)
        np.testing.assert_array_equal(bar[1::2], drawn)

    def test_infinite_depth_is_cold_and_unknown_is_grey(self):
        colours = scale_of([0.3, 8.0]).coloured(np.array([[math.inf, NAN]]))
        assert colours[0].tolist() == [COLDEST, GREY]

    @pytest.mark.parametrize(
        ("ends", "field", "ticks"),
        [
            ((0.3, 8.0), "depth_m", [0.3, 0.4, 0.5, 0.6, 1, 2, 5]),
            ((1.0, 2.0), "depth_m", [1, 1.2, 1.4, 1.6, 1.8, 2]),
            ((0.04, 0.05), "depth_m", [40, 42, 44, 46, 48, 50]),
            ((-0.0002, 0.0002), "height_m", [-0.2, -0.1, 0, 0.1, 0.2]),
            ((0.0, 1.0), "depth_relative", [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ],
    )
    def test_ticks_are_round(self, ends, field, ticks):
        scale = ColourScale.of_depth(DepthRange(field, *ends))
        assert scale.ticks() == pytest.approx(ticks)

    @example(low=49.796875, ratio=704.3125)
    @given(st.floats(1e-3, 50), st.floats(1.001, 1000))
    def test_ticks_lie_on_the_bar_and_apart(self, low, ratio):
        scale = scale_of([low, low * ratio])
        places = scale.places(scale.ticks())
        assert len(places) >= 2
        assert -1e-5 < places[0] < places[-1] < 1 + 1e-5
        assert np.diff(places).min() > 0.08


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
    depth_m = np.full(size, 1.0)
    depth_m[:, size[1] // 2 :] = 2.0
    picture = depth_picture(depth_m, "depth_m")

    assert picture.dtype == np.uint8
    assert 480 <= max(picture.shape[:2]) <= 1800
    assert min(picture.shape[:2]) >= 100
    assert picture[0, 0].tolist() == [255, 255, 255]


def test_depth_picture_keeps_pixels_where_they_are():
    depth_m = np.full((600, 700), 1.0)
    depth_m[:, 350:] = 2.0
    depth_m[400:500, 100:200] = NAN
    left, top = 28, 28  # the margin
    picture = depth_picture(depth_m, "depth_m")[top:, left:]

    assert picture[100, 100].tolist() == WARMEST
    assert picture[100, 500].tolist() == COLDEST
    assert picture[450, 150].tolist() == GREY
    assert picture[100, 340].tolist() == WARMEST


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
    depth_m = np.full((600, 800), 1.0)
    depth_m[:, 400:] = 2.0
    depth_m[:200] = NAN
    picture = overview(
        stack,
        np.full((600, 800, 3), np.float32([0.8, 0, 0.8])),
        depth_m,
        "depth_m",
        np.full((600, 800), 0.2),
        name="three",
        grade="calibrated",
    )

    thumbnails = [extent(picture, colour) for colour in frame_colours]
    image = extent(picture, [204, 0, 204])
    near, far = (extent(picture, colour) for colour in (WARMEST, COLDEST))
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
    picture = overview(
        stack,
        np.full((*size, 3), 0.5, np.float32),
        np.full(size, NAN),
        "depth_relative",
        np.zeros(size),
        name="a $ or _ in the name " * 10,
    )

    assert picture.shape[1] == 1800
    assert 350 < picture.shape[0] < 2500
    # Nothing reaches the margin.
    assert (picture[:, :20] == 255).all()
    assert (picture[:, -15:] == 255).all()


def grey_panel(level: int = 100) -> Panel:
    return Panel("", np.full((30, 40, 3), level, np.uint8))


def test_panels_of_a_page_stand_in_their_places():
    strips = [
        Strip("first", [grey_panel(10), grey_panel(20)], tallest_px=200),
        Strip("second", [None, grey_panel(30)], tallest_px=200),
    ]
    picture = page(strips, width_px=600)
    upper_left, upper_right, lower = (extent(picture, [level] * 3) for level in (10, 20, 30))
    assert upper_left[0] < upper_right[0] == pytest.approx(lower[0], abs=1)
    assert upper_left[1] == pytest.approx(upper_right[1], abs=1)
    assert upper_right[1] + upper_right[3] < lower[1]
    assert upper_left[2:] == pytest.approx(lower[2:], abs=2)
    np.testing.assert_array_equal(picture, page(strips, width_px=600))


def test_a_contact_sheet_shows_samples_of_any_kind():
    images = torch.full((7, 3, 30, 40), 0.5)
    depth_m = np.full((30, 40), 2.0)
    depth_m[:10] = NAN
    rows = [
        SheetRow("frames in order", FocalStack(images), None, depth_m),
        SheetRow("two of $ and $", FocalStack(images[:2]), images[0], np.full((30, 40), NAN)),
    ]
    picture = contact_sheet("sheet", rows)
    assert picture.shape[1] == 1800
    unknown = (picture == np.array(GREY, np.uint8)).all(-1).sum()
    panel = 237 * 178  # px
    assert unknown / panel == pytest.approx(1 + 1 / 3, rel=0.05)


def test_names_of_any_script_are_written_without_a_warning():
    def titled(name: str) -> np.ndarray:
        return page([Strip("", [grey_panel()], tallest_px=40)], title=name, width_px=300)[:80]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # A script that hardly any machine has a font for: a square for each letter.
        np.testing.assert_array_equal(titled("été \U000143d0"), titled("été □"))
        assert (titled("桌子") < 128).any()


def test_a_text_is_shortened_to_its_room():
    letters = Lettering(18)
    text = "frames in order"
    room = letters.width_px(text)
    assert letters.fitted(text, room) == text
    shorter = letters.fitted(text, room - 1)
    assert shorter.endswith("…")
    assert text.startswith(shorter[:-1])
    assert letters.width_px(shorter) < room
    assert Lettering(18, is_bold=True).width_px(text) > room


def test_labels_of_a_colour_bar_stay_apart():
    """Ticks with long labels on a narrow bar."""
    scale = ColourScale("Depth", 49.8122, 49.8128, "turbo_r")
    narrow = Panel("", np.full((300, 30, 3), 200, np.uint8), scale)
    picture = page([Strip("", [narrow], tallest_px=300)], width_px=300)
    inked = np.flatnonzero((picture[-60:] < 128).all(-1).any(0))
    assert 28 <= inked.min() < inked.max() < 300 - 28
    labels = np.split(inked, np.flatnonzero(np.diff(inked) > 5) + 1)
    assert len(labels) > 1
    longest = Lettering(15).width_px("49.8122")
    assert max(columns[-1] - columns[0] for columns in labels) < longest
