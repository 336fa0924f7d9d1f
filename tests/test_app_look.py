"""The views of a result on the page: tiles, values, distances and other focus."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from plant import CAMERA, FRAMES, SIZE, run, write_stack

from focaldiffusion.app import look, refocus
from focaldiffusion.app.views import Place, view_of
from focaldiffusion.errors import InputError
from focaldiffusion.io.images import read_pixels


def place_of(folder: Path, *flags: str) -> Place:
    stack = write_stack(folder / "plant")
    if "--order-only" in flags:
        (stack / "stack.json").write_text("{}")
    given = [flag for flag in flags if flag != "--order-only"]
    results = folder / "result"
    assert run("infer", stack, "--output", results, "--threads", "1", "--quiet", *given) == 0
    return Place(str(results), str(folder / "look"), str(folder / "retouch.json"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place_of(tmp_path_factory.mktemp("metric"))


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place_of(tmp_path_factory.mktemp("relative"), "--order-only")


def picture(content: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(content)))


def test_a_result_is_described(place: Place) -> None:
    found = look.describe(place)
    assert (found["width"], found["height"], found["levels"]) == (96, 64, 1)
    assert [one["name"] for one in found["frames"]] == FRAMES
    assert found["frames"][2] == {"index": 2, "name": FRAMES[2], "focus_distance_m": 1.5}
    assert (found["kind"], found["unit"], found["grade"]) == ("depth_m", "m", "calibrated")
    assert found["focal"]["focal_length_px"] == CAMERA["focal_length_px"]
    assert found["camera_known"]
    assert not found["lens_known"]  # no focal length in metres, so no f-number
    json.dumps(found, allow_nan=False)


def test_tiles_show_the_pixels(place: Place) -> None:
    media_type, content = look.tile(place, "image", (0, 0, 0))
    assert media_type == "image/png"
    stored = Image.open(Path(place.results, "all_in_focus.png"))
    assert (picture(content) == np.asarray(stored)).all()
    _, content = look.tile(place, "frame-1", (0, 0, 0))
    frame = read_pixels(Path(place.results).with_name("plant") / FRAMES[1])
    assert (picture(content) == frame).all()


def test_maps_are_coloured_from_near_to_far(place: Place) -> None:
    depth = np.load(Path(place.results, "depth.npy"))
    nearest, farthest = (np.unravel_index(f(depth), SIZE) for f in (np.nanargmin, np.nanargmax))
    stops = {one["name"]: one["stops"] for one in look.colour_maps()}
    for name in look.COLOURS:
        pixels = picture(look.tile(place, "depth", (0, 0, 0), (0.4, 1.5), name)[1])
        assert pixels.shape == (*SIZE, 4)
        for pixel, stop in ((nearest, stops[name][0]), (farthest, stops[name][-1])):
            wanted = np.frombuffer(bytes.fromhex(stop[1:]), np.uint8)
            assert np.abs(pixels[pixel][:3].astype(int) - wanted).max() <= 64, name
    for layer in ("confidence", "source"):
        assert picture(look.tile(place, layer, (0, 0, 0))[1]).shape == (*SIZE, 4)


@pytest.mark.parametrize(
    ("layer", "at", "ends", "colours", "message"),
    [
        ("normals", (0, 0, 0), None, "viridis", "layer 'normals': expected image"),
        ("frame-3", (0, 0, 0), None, "viridis", "layer 'frame-3'"),
        ("frame--1", (0, 0, 0), None, "viridis", "layer"),
        ("image", (1, 0, 0), None, "viridis", "level 1: expected 0 to 0"),
        ("image", (0, 1, 0), None, "viridis", "level 0 has 1 by 1 tiles"),
        ("depth", (0, 0, 0), (1.0, 1.0), "viridis", "expected two different depths"),
        ("depth", (0, 0, 0), None, "jet", "colours 'jet': expected one of viridis"),
    ],
)
def test_tiles_that_do_not_exist_are_refused(
    place: Place,
    layer: str,
    at: tuple[int, int, int],
    ends: tuple[float, float] | None,
    colours: str,
    message: str,
) -> None:
    with pytest.raises(InputError, match=message):
        look.tile(place, layer, at, ends, colours)


def test_a_probe_tells_the_depth_of_its_pixel(place: Place) -> None:
    depth = np.load(Path(place.results, "depth.npy"))
    source = np.asarray(Image.open(Path(place.results, "source_index.png")))
    found = look.probe(place, 70.9, 20.1)
    assert found["value"] == depth[20, 70]
    assert found["low"] < found["value"] < float(found["high"])
    assert found["source_frame"] == source[20, 70]
    x = (70.5 - SIZE[1] / 2) / CAMERA["focal_length_px"] * depth[20, 70]
    y = (20.5 - SIZE[0] / 2) / CAMERA["focal_length_px"] * depth[20, 70]
    assert found["xyz_m"] == pytest.approx([x, y, depth[20, 70]])
    with pytest.raises(InputError, match="outside of the image of 96x64"):
        look.probe(place, 96, 0)


def test_a_distance_is_that_of_the_points_with_an_interval(place: Place) -> None:
    ends = [np.array(look.probe(place, *pixel)["xyz_m"]) for pixel in ((20, 20), (80, 50))]
    found = look.measure(place, (20, 20), (80, 50))
    assert found["distance_m"] == pytest.approx(float(np.linalg.norm(ends[1] - ends[0])))
    assert 0 <= found["low_m"] < found["distance_m"] < float(found["high_m"])
    assert look.measure(place, (20, 20), (20, 20))["distance_m"] == 0


def test_without_intervals_of_depth_a_distance_has_none(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    Path(place.results, "depth_near.npy").unlink()
    found = look.measure(place, (20, 20), (80, 50))
    assert found["distance_m"] > 0
    assert (found["low_m"], found["high_m"]) == (None, None)


def test_distances_need_metres(relative: Place) -> None:
    with pytest.raises(InputError, match=r"needs depth in metres.*Give the focus distances"):
        look.measure(relative, (1, 1), (2, 2))
    found = look.probe(relative, 1, 1)
    assert found["xyz_m"] is None
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_an_image_alone_has_no_depth_to_show(tmp_path: Path) -> None:
    place = place_of(tmp_path, "--image-only")
    assert look.describe(place)["kind"] is None
    assert look.probe(place, 3, 3)["value"] is None
    for call in (
        lambda: look.tile(place, "depth", (0, 0, 0)),
        lambda: look.measure(place, (1, 1), (2, 2)),
        lambda: refocus.refocused(place, {"distance_m": 1}),
    ):
        with pytest.raises(InputError, match=r"only the image was wanted|no depth"):
            call()


def sharpness(content: bytes) -> tuple[float, float]:
    """Mean gradient of the near and of the far third, left and right."""
    grey = picture(content).astype(float).mean(-1)
    steps = np.abs(np.diff(grey, axis=1))
    return float(steps[:, :30].mean()), float(steps[:, -30:].mean())


@pytest.mark.parametrize("size", ["draft", "full"])
@pytest.mark.parametrize("shape", ["disc", "hexagon", "cats-eye"])
def test_focus_goes_where_it_is_wanted(place: Place, shape: str, size: str) -> None:
    given = {"shape": shape, "size": size, "blur_px": 6}
    near = sharpness(refocus.refocused(place, {"distance_m": 0.42, **given})[1])
    far = sharpness(refocus.refocused(place, {"distance_m": 1.4, **given})[1])
    assert near[0] > 1.5 * far[0]
    assert far[1] > 1.5 * near[1]


def test_a_tilted_plane_is_sharp_all_along(place: Place) -> None:
    plane = [[5, 5], [90, 10], [50, 60]]
    tilted = sharpness(refocus.refocused(place, {"plane": plane, "blur_px": 6})[1])
    near = sharpness(refocus.refocused(place, {"distance_m": 0.42, "blur_px": 6})[1])
    assert tilted[0] > 0.8 * near[0]
    assert tilted[1] > 2 * near[1]


def test_relative_depth_can_be_refocused_too(relative: Place) -> None:
    first = sharpness(refocus.refocused(relative, {"distance_m": 0.0, "blur_px": 6})[1])
    last = sharpness(refocus.refocused(relative, {"distance_m": 1.0, "blur_px": 6})[1])
    assert first[0] > last[0]
    assert last[1] > first[1]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({}, "distance_m: None; expected a number"),
        ({"distance_m": -1}, "expected a number from 0 on"),
        ({"distance_m": "nan"}, "expected a number from 0 on"),
        ({"distance_m": 1, "shape": "star"}, "shape 'star'"),
        ({"distance_m": 1, "f_number": 2}, "focal length in metres is unknown"),
        ({"plane": [[1, 1], [2, 2]]}, "expected three points"),
        ({"plane": [[1, 1], [20, 20], [40, 40]]}, "lie on a line"),
        ({"plane": "abc"}, "expected three points"),
    ],
)
def test_focus_that_makes_no_sense_is_refused(
    place: Place, wanted: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        refocus.refocused(place, wanted)


def test_an_f_number_blurs_as_the_lens_does(tmp_path: Path) -> None:
    place = place_of(
        tmp_path, "--focal-length-mm", "24", "--f-number", "2", "--pixel-pitch-um", "200"
    )
    assert look.describe(place)["lens_known"]
    assert look.describe(place)["f_number"] == 2
    wide, narrow = (
        sharpness(refocus.refocused(place, {"distance_m": 0.42, "f_number": n})[1]) for n in (1, 16)
    )
    assert narrow[1] > 1.2 * wide[1]


def test_a_new_result_is_seen(tmp_path: Path) -> None:
    place = place_of(tmp_path)
    before = look.tile(place, "image", (0, 0, 0))[1]
    view_of(place)
    stack = tmp_path / "plant"
    dark = picture((stack / FRAMES[0]).read_bytes()) // 2
    for name in FRAMES:
        Image.fromarray(dark).save(stack / name)
    flags = ("--threads", "1", "--quiet", "--overwrite", "--align", "off")
    assert run("infer", stack, "--output", place.results, *flags) == 0
    assert look.tile(place, "image", (0, 0, 0))[1] != before
    assert len(list(Path(place.cache).iterdir())) == 1


def test_numbers_that_json_lacks() -> None:
    assert [look.jsonable(one) for one in (math.inf, -math.inf, math.nan, None, 2)] == [
        "inf",
        "-inf",
        None,
        None,
        2.0,
    ]
