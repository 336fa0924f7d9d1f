"""The example stacks agree with their truth and with the script that rendered them."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NAMES = sorted(path.parent.parent.name for path in EXAMPLES.glob("*/stack/stack.json"))
DEPTH_RANGE_M = {"still_life": (0.35, 2.5), "circuit": (0.11, 0.35)}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    # The examples are no package; Mitsuba is imported only to render.
    sys.path.insert(0, str(EXAMPLES))
    return importlib.import_module("render_examples")


def read(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        assert image.mode == "RGB"
        return np.asarray(image)


def frames(name: str) -> list[np.ndarray]:
    return [read(path) for path in sorted((EXAMPLES / name / "stack").glob("frame_*"))]


def truth(name: str) -> tuple[np.ndarray, np.ndarray]:
    folder = EXAMPLES / name / "truth"
    with np.load(folder / "depth.npz") as archive:
        return read(folder / "all_in_focus.png"), archive["depth"]


def test_every_example_of_the_script_is_here(script: ModuleType) -> None:
    assert sorted(script.EXAMPLES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_sidecar_holds_the_constants_of_the_script(name: str, script: ModuleType) -> None:
    example = script.EXAMPLES[name]
    sidecar = json.loads((EXAMPLES / name / "stack" / "stack.json").read_text())
    assert set(sidecar) == {"focus_distances_m", "camera", "note"}
    assert sidecar["focus_distances_m"] == list(example.focus_distances_m)
    assert sidecar["camera"] == {
        "focal_length_px": example.focal_length_px,
        "aperture_diameter_m": example.aperture_diameter_m,
    }


@pytest.mark.parametrize("name", NAMES)
def test_focus_planes_are_equally_spaced_in_dioptres(name: str, script: ModuleType) -> None:
    dioptres = 1 / np.array(script.EXAMPLES[name].focus_distances_m)
    steps = -np.diff(dioptres)
    assert np.all(np.abs(steps / steps.mean() - 1) < 0.2)  # rounded as on a focus scale


@pytest.mark.parametrize("name", NAMES)
def test_truth_and_frames_have_one_size(name: str, script: ModuleType) -> None:
    all_in_focus, depth_m = truth(name)
    pictures = frames(name)
    assert len(pictures) == len(script.EXAMPLES[name].focus_distances_m)
    assert {picture.shape[:2] for picture in (all_in_focus, *pictures)} == {script.SIZE}
    assert depth_m.shape == script.SIZE


@pytest.mark.parametrize("name", NAMES)
def test_depth_is_complete_and_lies_within_the_scene(name: str, script: ModuleType) -> None:
    _, depth_m = truth(name)
    near_m, far_m = DEPTH_RANGE_M[name]
    assert depth_m.dtype == np.float32
    assert depth_m.min() > near_m  # also false for NaN
    assert depth_m.max() < far_m
    np.testing.assert_array_equal(depth_m, script.rounded_depth(depth_m))


@pytest.mark.parametrize("name", NAMES)
def test_frames_are_sharp_where_the_lens_says_so(name: str, script: ModuleType) -> None:
    """Where a frame is predicted sharp, it is nearer to the truth than the frames that are not."""
    example = script.EXAMPLES[name]
    all_in_focus, depth_m = truth(name)
    blur_scale = example.aperture_diameter_m * example.focal_length_px
    pictures = frames(name)
    errors = [
        np.abs(picture.astype(float) - all_in_focus).mean(-1)  # 8-bit levels
        for picture in pictures
    ]
    for k, focus_m in enumerate(example.focus_distances_m):
        sharp = blur_scale * np.abs(1 / depth_m - 1 / focus_m) < 1.0  # diameter [px]
        assert sharp.sum() > 1000  # pixels: enough for a mean
        far_off = [error[sharp].mean() for j, error in enumerate(errors) if abs(j - k) > 1]
        assert errors[k][sharp].mean() < 0.7 * min(far_off)


@pytest.mark.parametrize("name", NAMES)
def test_example_stays_small(name: str) -> None:
    total = sum(path.stat().st_size for path in (EXAMPLES / name).rglob("*") if path.is_file())
    assert total < 4_000_000
