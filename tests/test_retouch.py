"""Retouching: strokes that take captured pixels, and their replay, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
from command_line import refusal
from numpy.typing import NDArray
from plant import CAMERA, DISTANCES, FRAMES, SIZE, main, run, write_sidecar

from focaldiffusion.app.views import View, view_of
from focaldiffusion.errors import InputError
from focaldiffusion.fusion.retouch import Canvas, Retouch, Stroke
from focaldiffusion.io.images import read_pixels
from focaldiffusion.io.png import save_png
from focaldiffusion.saved import SavedResult

STROKES = [
    {"tool": "source", "frame": 2, "size_px": 14, "softness": 0.5, "points": [[10, 10], [40, 30]]},
    {"tool": "source", "frame": 0, "size_px": 9, "points": [[30, 28], [70, 50], [99, 50]]},
    {"tool": "flatten", "size_px": 16, "points": [[50, 40]]},
    {"tool": "depth", "depth": 0.625, "size_px": 5, "softness": 1, "points": [[60, 20]]},
]


def stroke(**values: Any) -> Stroke:
    return Stroke.of({"tool": "source", "frame": 1, "size_px": 7, **values}, "here")


def pixels(value: int) -> NDArray[np.uint8]:
    return np.full((12, 20, 3), value, np.uint8)


def test_a_hard_brush_is_a_disc_around_every_point_of_its_path() -> None:
    found = stroke(points=[[4, 5], [12, 5]]).mask((12, 20))
    assert found is not None
    (left, top, right, bottom), share = found
    opacity = np.zeros((12, 20))
    opacity[top:bottom, left:right] = share
    y, x = np.mgrid[:12, :20]
    distance = np.hypot(x - x.clip(4, 12), y - 5)
    assert (opacity == (distance < 3.5)).all()


def test_a_soft_brush_fades_from_its_core_to_its_rim() -> None:
    found = stroke(points=[[50, 50]], size_px=40, softness=0.5).mask((100, 100))
    assert found is not None
    row = found[1][20:, 20]  # downwards from the centre
    assert (row[:11] == 1).all()
    assert (np.diff(row[10:21]) <= 0).all()
    assert row[15] == pytest.approx(0.5)
    assert row[20] == 0


def test_pixels_are_those_of_the_frame_and_others_stay() -> None:
    canvas = Canvas(pixels(10), np.zeros((12, 20), np.uint8))
    rectangle = canvas.apply(stroke(points=[[19, 0]]), lambda _: pixels(200))
    assert rectangle == (15, 0, 20, 5)
    assert set(np.unique(canvas.pixels)) == {10, 200}
    assert ((canvas.source_index == 1) == (canvas.pixels[..., 0] == 200)).all()
    assert canvas.apply(stroke(points=[[-30, 0]]), lambda _: pixels(0)) is None


def test_a_blend_lies_between_the_captured_pixels() -> None:
    canvas = Canvas(pixels(10), np.zeros((12, 20), np.uint8))
    canvas.apply(stroke(points=[[10, 6]], softness=1), lambda _: pixels(200))
    assert canvas.pixels.min() == 10
    assert canvas.pixels.max() == 200
    assert len(np.unique(canvas.pixels)) > 3


def test_depth_is_set_or_flattened_and_loses_its_confidence() -> None:
    depth = np.arange(240, dtype=np.float32).reshape(12, 20)
    depth[5, 5] = np.nan
    canvas = Canvas(pixels(0), np.zeros((12, 20), np.uint8), depth, np.ones((12, 20), np.float32))
    one = Stroke.of({"tool": "flatten", "size_px": 3, "points": [[5, 5]]}, "here")
    canvas.apply(one, pixels)
    assert canvas.depth is not None
    assert canvas.confidence is not None
    # The mean of the two in the middle, of the eight around the unknown one.
    assert canvas.depth[5, 5] == 105
    assert (canvas.confidence == 0).sum() == (canvas.depth == 105).sum()
    other = Stroke.of({"tool": "depth", "depth": 7, "size_px": 1, "points": [[0, 0]]}, "here")
    canvas.apply(other, pixels)
    assert canvas.depth[0, 0] == 7
    assert canvas.depth[0, 1] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tool": "clone"}, "tool 'clone'; expected one of source, depth, flatten"),
        ({"frame": None}, "frame None; expected the number of a frame"),
        ({"frame": True}, "frame True"),
        ({"size_px": 0}, "size_px 0; expected a number from 1 to 8192"),
        ({"softness": 2}, "softness 2"),
        ({"points": []}, "points; expected 1 to 10000 pairs"),
        ({"points": [[1]]}, r"point \[1\]; expected x and y"),
        ({"points": [[1, float("nan")]]}, "point nan"),
        ({"colour": 1}, "expected an object of tool, frame"),
    ],
)
def test_what_is_no_stroke_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"here: {message}"):
        stroke(**{"points": [[1, 1]], **change})


def test_strokes_of_another_result_are_refused() -> None:
    retouch = Retouch.of({"size": [12, 20], "strokes": STROKES}, "retouch.json")
    with pytest.raises(InputError, match="those of a result of 20x12, but this one is 8x8"):
        retouch.check((8, 8), (0, 1, 2), "plant", has_depth=True)
    with pytest.raises(InputError, match=r"stroke 1 takes from frame 2; .* the frames 0, 1"):
        retouch.check((12, 20), (0, 1), "plant", has_depth=True)
    with pytest.raises(InputError, match="stroke 3 sets depth, and this result has none"):
        retouch.check((12, 20), (0, 1, 2), "plant", has_depth=False)
    assert Retouch.of(json.loads(json.dumps(retouch.summary())), "again") == retouch


def move(stack: Path) -> None:
    """Shift and darken the frames, so that they are resampled and evened out."""
    for index, name in enumerate(FRAMES):
        frame = read_pixels(stack / name)
        shift = np.array([[1, 0, 0.4 * index], [0, 1, -0.7 * index]])
        moved = cv2.warpAffine(frame, shift, SIZE[::-1], borderMode=cv2.BORDER_REFLECT)
        save_png(stack / name, (moved * (1 - 0.1 * index)).astype(np.uint8))


def deepen(stack: Path) -> None:
    """Frames of 12 bits in 16, which are stretched."""
    for name in FRAMES:
        save_png(stack / name, read_pixels(stack / name).astype(np.uint16) * 16)


def turn_grey(stack: Path) -> None:
    """Frames of one channel."""
    for name in FRAMES:
        save_png(stack / name, read_pixels(stack / name)[..., 1])


def forget_focus(stack: Path) -> None:
    """An order-only stack, in the reverse order of its names."""
    write_sidecar(stack, files=FRAMES[::-1])


def keep(stack: Path) -> None:
    """The unchanged stack."""
    write_sidecar(stack, focus_distances_m=DISTANCES, camera=CAMERA)


def view_with(stack: Path, folder: Path) -> View:
    results = folder / "result"
    assert run("infer", stack, "--output", results, "--threads", "1", "--quiet") == 0
    return view_of((str(results), str(folder / "look"), str(folder / "retouch.json")))


@pytest.mark.parametrize("change", [keep, move, deepen, turn_grey, forget_focus])
def test_infer_replays_the_strokes_of_the_app_bit_for_bit(
    stack: Path, tmp_path: Path, change: Any
) -> None:
    change(stack)
    view = view_with(stack, tmp_path)
    view.retouch(STROKES, 0)
    again = tmp_path / "again"
    assert run("infer", stack, "--output", again, "--retouch", tmp_path / "retouch.json") == 0
    stored = imagecodecs.png_decode((again / "all_in_focus.png").read_bytes())
    image = view.layer("image").native
    assert (stored == (image[..., 0] if stored.ndim == 2 else image)).all()
    assert (image != view.pristine("image").native).any()
    for name in ("source", "confidence"):
        file = {"source": "source_index.png"}.get(name, f"{name}.png")
        stored = imagecodecs.png_decode((again / file).read_bytes())
        assert (stored == view.layer(name).native).all(), name
    depth = SavedResult.open(again).depth
    np.testing.assert_array_equal(depth, view.layer("depth").native)
    for end, widest in (("depth_near", np.fmin), ("depth_far", np.fmax)):
        stored = np.load(again / f"{end}.npy")
        np.testing.assert_array_equal(stored, widest(getattr(view.saved, end), depth))
    assert json.loads((again / "retouch.json").read_text())["strokes"][0]["frame"] == 2


def test_undo_brings_every_level_back(stack: Path, tmp_path: Path) -> None:
    view = view_with(stack, tmp_path)
    before = {name: view.layer(name).native.copy() for name in ("image", "source", "depth")}
    changed, revision = view.retouch(STROKES, 0)
    assert changed == (3, 3, 96, 56)
    assert revision == 1
    with pytest.raises(InputError, match="another tab has changed the retouching meanwhile"):
        view.retouch([], 0)
    assert view.retouch(STROKES[:1], 1)[0] == changed
    alone = view.layer("image").native.copy()
    assert view.retouch([], 2) == (changed_by(STROKES[0]), 3)
    for name, values in before.items():
        np.testing.assert_array_equal(view.layer(name).native, values)
        np.testing.assert_array_equal(view._retouched(name).native, values)
    view.retouch(STROKES[:1], 3)
    np.testing.assert_array_equal(view.layer("image").native, alone)


def changed_by(values: dict[str, Any]) -> Any:
    found = Stroke.of(values, "here").mask(SIZE)
    assert found is not None
    return found[0]


def test_strokes_come_back_after_an_interruption(stack: Path, tmp_path: Path) -> None:
    view = view_with(stack, tmp_path)
    view.retouch(STROKES, 0)
    wanted = view.layer("image").native.copy()
    (view.cache / "drawn.json").unlink()
    view._retouched("image").native[:] = 0
    np.testing.assert_array_equal(view.layer("image").native, wanted)


def test_infer_refuses_a_retouching_that_is_none(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "retouch.json"
    file.write_text("[")
    given = "infer", stack, "--retouch", file
    assert "retouch.json: not JSON" in refusal(capsys, tmp_path, main, *given)
    file.write_text(json.dumps({"size": [8, 8], "strokes": STROKES}))
    assert "of 8x8, but this one is 96x64" in refusal(capsys, tmp_path, main, *given, "--quiet")
    more = refusal(capsys, tmp_path, main, "infer", stack, stack, "--retouch", file)
    assert "belongs to one stack, but 2 are given" in more
