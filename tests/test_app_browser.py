"""The page of the app, in a real browser: from an example to the files that are taken away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from app_browser import SHRUNK, App, Visit, true_depth_m

MEASURED = ((60, 150), (220, 150))
"""Two pixels of the table in `still_life`, at the size of the small copy."""

NEAR, FAR = (103, 207), (95, 37)
"""Pixels of the page of text, and of the picture on the wall."""

MEASURE_TOLERANCE = 0.03
"""Share of the true distance that the page promises."""


def saved(visit: Visit, action: Any, path: Path) -> Path:
    """The file that an action downloads."""
    with visit.page.expect_download() as download:
        action()
    download.value.save_as(path)
    return path


def test_example_shows_its_frames_in_focus_order(visit: Visit) -> None:
    page = visit.page
    page.locator(".home-open .picture-card", has_text="Still life").click()
    page.wait_for_selector(".frame-card")

    distances = [float(field.input_value()) for field in page.locator(".focus-field input").all()]
    facts = json.loads(Path("examples/still_life/stack/stack.json").read_text(encoding="utf-8"))
    assert distances == facts["focus_distances_m"]
    page.wait_for_function(
        "() => [...document.querySelectorAll('.frame-picture img')].every((one) => one.complete)"
    )


def test_probe_shows_the_depth_of_the_file(visit: Visit, app: App, job: str) -> None:
    visit.show(job)
    depth_m = np.load(app.folder_of(job) / "result" / "depth.npy")
    for x, y in ((160, 130), (40, 200), (300, 220)):
        visit.page.mouse.move(*visit.place(x, y))
        readout = visit.page.locator(f'.readout[data-pixel="{x},{y}"]')
        readout.wait_for()
        assert float(readout.get_attribute("data-value")) == float(depth_m[y, x])
        assert "±" in readout.inner_text() or "+" in readout.inner_text()


def test_measured_distance_is_true(visit: Visit, job: str) -> None:
    page = visit.show(job)
    depth_m = true_depth_m("still_life")
    height, width = depth_m.shape
    facts = json.loads(Path("examples/still_life/stack/stack.json").read_text(encoding="utf-8"))
    focal_length_px = facts["camera"]["focal_length_px"] / SHRUNK

    def point_m(x: int, y: int) -> np.ndarray:
        ray = (x + 0.5 - width / 2) / focal_length_px, (y + 0.5 - height / 2) / focal_length_px, 1.0
        return np.array(ray) * depth_m[y, x]

    true_m = np.linalg.norm(point_m(*MEASURED[0]) - point_m(*MEASURED[1]))
    page.keyboard.press("m")
    for point in MEASURED:
        visit.click(*point)
    text = page.locator(".measurements b").inner_text()
    number, _, unit = text.split()[0], None, text.split()[-1]
    assert float(number) * {"m": 1, "mm": 1e-3}[unit] == pytest.approx(
        true_m, rel=MEASURE_TOLERANCE
    )


def detail(patch: np.ndarray) -> float:
    """Strength of the fine detail: mean square of differences of neighbours."""
    grey = patch.astype(float).mean(axis=2)
    return float((np.diff(grey, axis=0) ** 2).mean() + (np.diff(grey, axis=1) ** 2).mean())


def sharpness(visit: Visit, point: tuple[int, int]) -> float:
    """Detail of the refocused picture in full size around a native pixel, without marks."""
    page = visit.page
    page.keyboard.press("r")
    page.locator(".tool-side").get_by_text("Full size").wait_for()
    page.keyboard.press("v")
    page.mouse.move(2, 2)
    visit.settle()
    found = detail(visit.patch(*point, 10))
    page.keyboard.press("r")
    return found


def test_refocus_blurs_what_is_elsewhere(visit: Visit, job: str) -> None:
    page = visit.show(job)
    near, far = NEAR, FAR
    page.keyboard.press("r")

    def focused_at(point: tuple[int, int]) -> dict[str, float]:
        with page.expect_response(lambda one: "full" in (one.request.post_data or "")):
            visit.click(*point)
        return {"near": sharpness(visit, near), "far": sharpness(visit, far)}

    at_near, at_far = focused_at(near), focused_at(far)
    assert at_near["near"] > 1.5 * at_far["near"]
    assert at_far["far"] > 1.5 * at_near["far"]


def test_three_clicks_tilt_the_plane(visit: Visit, job: str) -> None:
    page = visit.show(job)
    page.keyboard.press("r")
    with page.expect_response(lambda one: "full" in (one.request.post_data or "")):
        visit.click(*NEAR)
    level = {point: sharpness(visit, point) for point in (NEAR, FAR)}
    page.get_by_role("button", name="Tilt the plane").click()
    visit.click(*NEAR)
    page.get_by_text("2 to go").wait_for()
    visit.click(*FAR)
    with page.expect_response(lambda one: "full" in (one.request.post_data or "")) as made:
        visit.click(250, 200)  # the table
    assert made.value.request.post_data_json["plane"] == [[*NEAR], [*FAR], [250, 200]]
    assert sharpness(visit, NEAR) > level[NEAR] / 2
    assert sharpness(visit, FAR) > 2 * level[FAR]

    page.get_by_role("button", name="Tilt the plane").click()
    for x in (50, 100, 150):
        visit.click(x, 200)
    page.get_by_text("the three points lie on a line").first.wait_for()


def film(path: Path) -> list[np.ndarray]:
    """The frames of a film, (H, W, 3)."""
    av = pytest.importorskip("av", reason="PyAV is not installed: films cannot be decoded.")
    with av.open(str(path)) as file:
        return [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]


FILM_FRAMES = 12
"""Instead of the 72 or 36 of the page: enough to see where it goes."""


def short_film(visit: Visit, part: str, kind: str, path: Path) -> list[np.ndarray]:
    """The frames of a film that the open panel makes and the browser saves."""
    page = visit.page
    page.get_by_text(part).click()
    page.route(
        lambda url: url.endswith(("/pull", "/parallax")),
        lambda route: route.continue_(
            post_data=json.dumps({**route.request.post_data_json, "frames": FILM_FRAMES})
        ),
    )
    button = page.locator(".tool-side").get_by_role("button", name=kind.upper())
    frames = film(saved(visit, button.click, path))
    assert len(frames) == FILM_FRAMES
    assert frames[0].shape == (240, 320, 3)
    return frames


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_focus_pull_goes_from_near_to_far(
    visit: Visit, job: str, tmp_path: Path, kind: str
) -> None:
    visit.show(job).keyboard.press("r")
    frames = short_film(visit, "Focus pull", kind, tmp_path / f"pull.{kind}")
    near, far = (
        [detail(frame[y - 10 : y + 10, x - 10 : x + 10]) for frame in frames]
        for x, y in (NEAR, FAR)
    )
    assert np.argmax(near) < np.argmax(far)
    assert max(near) > 3 * near[-1]
    assert max(far) > 3 * far[0]


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_parallax_moves_near_things_against_far_ones(
    visit: Visit, job: str, tmp_path: Path, kind: str
) -> None:
    visit.show(job).keyboard.press("d")
    frames = short_film(visit, "Parallax loop", kind, tmp_path / f"loop.{kind}")
    sides = [frames[at].astype(np.float32).mean(axis=2) for at in (0, FILM_FRAMES // 2)]
    (near, _), (far, _) = (
        cv2.phaseCorrelate(*(side[y - 25 : y + 25, x - 25 : x + 25] for side in sides))[0]
        for x, y in (NEAR, FAR)
    )
    assert near * far < 0
    assert min(abs(near), abs(far)) > 2


def alike(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether pictures of a canvas are equal, but for the few pixels that a browser scales
    differently where it clips."""
    return bool((first != second).any(axis=2).mean() < 0.01)


def test_wipe_shows_one_layer_at_each_side(visit: Visit, job: str) -> None:
    page = visit.show(job)
    image = visit.pixels()
    page.keyboard.press("z")
    visit.settle()
    depth = visit.pixels()
    page.keyboard.press("w")
    visit.settle()
    both = visit.pixels()

    middle = both.shape[1] // 2
    assert alike(both[:, : middle - 1], depth[:, : middle - 1])
    assert alike(both[:, middle + 1 :], image[:, middle + 1 :])
    assert not alike(image, depth)
    page.locator(".divider").press("ArrowLeft")
    assert page.locator(".divider").get_attribute("aria-valuenow") == "48"


def test_zoom_reaches_single_pixels(visit: Visit, app: App, job: str) -> None:
    page = visit.show(job)
    image = cv2.imread(str(app.folder_of(job) / "result" / "all_in_focus.png"))[..., ::-1]
    page.mouse.move(*visit.place(160, 120))
    for _ in range(40):
        page.mouse.wheel(0, -200)
    page.keyboard.press("z")
    page.keyboard.press("i")
    visit.settle()

    assert page.locator(".zoom").inner_text() == "6400 %"
    box = page.locator(".stage-canvas").bounding_box()
    x, y = visit.place(160, 120)
    shown = visit.pixels()[round(y - box["y"]), round(x - box["x"]), :3]
    np.testing.assert_array_equal(shown, image[120, 160])


def test_three_d_view_draws_the_scene(visit: Visit, job: str) -> None:
    page = visit.show(job)
    page.keyboard.press("d")
    page.locator(".tool-side").get_by_text("points", exact=False).first.wait_for()
    page.get_by_text("0 points").or_(page.get_by_text("points")).first.wait_for()
    page.wait_for_function(
        "() => /\\d points/.test(document.querySelector('.tool-side').innerText)"
    )
    visit.page.wait_for_timeout(300)
    first = visit.pixels(".scene-canvas")
    ground = first[2, 2]
    assert (first != ground).any(axis=2).mean() > 0.3
    assert first[..., :3].reshape(-1, 3).std(axis=0).min() > 10

    page.locator(".scene-canvas").press("ArrowLeft")
    visit.painted()
    assert (visit.pixels(".scene-canvas") != first).any(axis=2).mean() > 0.1
    page.locator(".scene-canvas").press("0")
    visit.painted()
    np.testing.assert_array_equal(visit.pixels(".scene-canvas"), first)


def stroke(visit: Visit, *points: tuple[int, int]) -> None:
    """Paint along native pixels, and wait for the server."""
    mouse = visit.page.mouse
    mouse.move(*visit.place(*points[0]))
    mouse.down()
    for point in points[1:]:
        mouse.move(*visit.place(*point), steps=4)
    with visit.page.expect_response("**/retouch"):
        mouse.up()
    mouse.move(2, 2)
    visit.page.locator(".tool-side [role=status]", has_text="stroke").wait_for()
    visit.settle()


def test_retouched_image_is_the_one_of_the_command_line(
    visit: Visit, app: App, job: str, tmp_path: Path
) -> None:
    page = visit.show(job)
    before = visit.pixels()
    page.keyboard.press("b")
    page.locator(".tool-side select").select_option("0")
    stroke(visit, (200, 40), (260, 60))
    painted = visit.pixels()
    assert not np.array_equal(painted, before)
    with page.expect_response("**/retouch"):
        page.keyboard.press("Control+z")
    page.get_by_text("No strokes yet").wait_for()
    visit.settle()
    np.testing.assert_array_equal(visit.pixels(), before)

    stroke(visit, (200, 40), (260, 60))
    np.testing.assert_array_equal(visit.pixels(), painted)
    link = page.get_by_role("link", name="Save retouch.json")
    strokes = saved(visit, link.click, tmp_path / "retouch.json")
    page.keyboard.press("e")
    image = saved(visit, page.locator('[href$="image.png"]').click, tmp_path / "image.png")
    command = [sys.executable, "-m", "focaldiffusion", "infer", str(app.root / "still_life")]
    command += ["--output", str(tmp_path / "out"), "--retouch", str(strokes)]
    subprocess.run(command, check=True, capture_output=True)
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / "out" / "all_in_focus.png"), cv2.IMREAD_UNCHANGED),
        cv2.imread(str(image), cv2.IMREAD_UNCHANGED),
    )
    page.keyboard.press("b")
    with page.expect_response("**/retouch"):
        page.keyboard.press("Control+z")
    page.get_by_text("No strokes yet").wait_for()


EXPORTS = {
    "image.png": b"\x89PNG",
    "image.tif": b"II*\0",
    "depth.npy": b"\x93NUMPY",
    "depth.exr": b"v/1\x01",
    "depth.png": b"\x89PNG",
    "points.ply": b"ply\n",
    "surface.glb": b"glTF",
    "living.html": b"<!doctype html>",
    "session.zip": b"PK",
    "retouch.json": b"{",
}
"""Every file that can be taken away, and its first bytes."""


def test_living_picture_needs_neither_server_nor_network(
    browser: Any, visit: Visit, job: str, tmp_path: Path
) -> None:
    page = visit.show(job)
    page.keyboard.press("e")
    file = saved(visit, page.locator('[href$="living.html"]').click, tmp_path / "living.html")

    context = browser.new_context(offline=True)
    alone = context.new_page()
    requests: list[str] = []
    alone.on("request", lambda request: requests.append(request.url))
    alone.goto(file.as_uri())
    alone.wait_for_selector("body[data-ready=yes]")
    box = alone.locator("#stage").bounding_box()

    def focused_at(x: float, y: float) -> tuple[str, bytes]:
        alone.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        return alone.locator("#at").inner_text(), alone.screenshot()

    (near, near_picture), (far, far_picture) = focused_at(0.32, 0.9), focused_at(0.3, 0.12)
    assert near != far
    assert near_picture != far_picture
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def test_every_file_can_be_taken_away(visit: Visit, app: App, job: str, tmp_path: Path) -> None:
    page = visit.show(job)
    page.keyboard.press("e")
    links = page.locator(".export")
    names = [link.get_attribute("href").rpartition("/")[2] for link in links.all()]
    assert sorted(names) == sorted(EXPORTS)
    for name, start in EXPORTS.items():
        file = saved(visit, page.locator(f'.export[href$="{name}"]').click, tmp_path / name)
        assert file.read_bytes()[: len(start)].lower() == start.lower(), name
    kept = app.folder_of(job) / "result" / "depth.npy"
    np.testing.assert_array_equal(np.load(tmp_path / "depth.npy"), np.load(kept))
