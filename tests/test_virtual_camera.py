"""Results photographed again, and results that were saved."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from plant import CAMERA, DISTANCES, SIZE, write_stack

import focaldiffusion as fd
from focaldiffusion.errors import InputError
from focaldiffusion.psf import PSF
from focaldiffusion.saved import SavedResult
from focaldiffusion.virtual_camera import nearness, photograph, tilted_plane

STILL = fd.Settings(align="off", threads=1)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> fd.Result:
    stack = write_stack(tmp_path_factory.mktemp("camera") / "plant")
    return fd.reconstruct(stack, settings=STILL)


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((*SIZE, 3), np.float32)


def slope() -> np.ndarray:
    """Dioptres of a plane in space: linear in the image."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    return (0.4 + 0.02 * x + 0.01 * y).astype(np.float32)


def test_three_points_of_a_plane_give_the_plane() -> None:
    points = [(5.5, 5.5), (90.5, 10.5), (40.5, 60.5)]
    np.testing.assert_allclose(tilted_plane(slope(), points), slope(), rtol=1e-5)


def test_a_plane_in_focus_stays_as_it_is() -> None:
    sharp = photograph(image(), slope(), slope(), 30.0, "disc")
    np.testing.assert_allclose(sharp, image(), atol=1e-5)
    assert np.abs(photograph(image(), slope(), 1.0, 30.0, "disc") - image()).mean() > 0.05


def test_focus_that_varies_blurs_as_the_difference() -> None:
    # A level surface in front of a tilted focus is a tilted surface behind a level one.
    level = np.full(SIZE, 1.5, np.float32)
    tilted = photograph(image(), level, 3.0 - slope(), 20.0, "hexagon")
    swapped = photograph(image(), slope(), 1.5, 20.0, "hexagon")
    np.testing.assert_allclose(tilted, swapped, atol=1e-3)


def test_a_cats_eye_is_a_disc_in_the_middle() -> None:
    dark = np.zeros((61, 81, 3), np.float32)
    dark[30, 40] = dark[6, 8] = 1
    flat = np.ones((61, 81), np.float32)
    eye, disc = (photograph(dark, flat, 2.0, 10.0, shape)[..., 0] for shape in ("cats_eye", PSF()))
    assert np.abs(eye - disc)[24:37, 34:47].max() < 0.05
    corner, round_one = (plane[:13, :15] > 0.1 for plane in (eye, disc))
    assert corner.sum() < 0.8 * round_one.sum()


def test_refocusing_takes_a_plane_or_a_distance(result: fd.Result) -> None:
    plane = [(5.0, 5.0), (90.0, 10.0), (50.0, 60.0)]
    tilted = fd.refocus(result, plane=plane)
    assert np.abs(tilted - result.all_in_focus).mean() < 0.02
    far = fd.refocus(result, 1.5)
    assert np.abs(far - fd.refocus(result, 1.5, shape="hexagon")).mean() > 1e-3
    for wrong in ({}, {"distance_m": 1.0, "plane": plane}):
        with pytest.raises(InputError, match="give either distance_m, or three points"):
            fd.refocus(result, **wrong)
    with pytest.raises(InputError, match="'star' is unknown"):
        fd.refocus(result, 1.0, shape="star")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "first", "last"),
    [("depth_m", 0.5, 4.0), ("height_m", 2.0, 1.0), ("depth_relative", 0, 1)],
)
def test_nearness_grows_towards_the_camera(field: str, first: float, last: float) -> None:
    near, far = (float(nearness(value, field)) for value in (first, last))
    assert near > far
    assert float(nearness(np.nan, "depth_m")) == 0


def test_saved_results_are_read_back(result: fd.Result, tmp_path: Path) -> None:
    result.save(tmp_path / "out")
    saved = SavedResult.open(tmp_path / "out")
    assert (saved.name, saved.size, saved.depth_field) == ("plant", SIZE, "depth_m")
    assert (saved.camera, saved.lens, saved.levels) == (result.camera, result.lens, result.levels)
    assert saved.camera is not None
    assert saved.camera.focal_length_px == CAMERA["focal_length_px"]
    assert saved.blur_scale_px_m == pytest.approx(result.blur_scale_px_m)
    assert saved.focus_distances_m == DISTANCES
    np.testing.assert_array_equal(saved.depth, result.depth_m)
    np.testing.assert_array_equal(saved.source_index, result.source_index)
    np.testing.assert_allclose(saved.confidence, result.confidence, atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(saved.all_in_focus, result.all_in_focus, atol=0.5 / 255 + 1e-6)
    assert result.alignment is not None
    assert saved.alignment.summary() == result.alignment.summary()
    assert result.stack.frames is not None
    np.testing.assert_array_equal(saved.frames.read(1), result.stack.frames.read(1))


def test_folders_without_results_are_refused(result: fd.Result, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no complete results, metadata.json is missing"):
        SavedResult.open(tmp_path)
    result.save(tmp_path / "out")
    path = tmp_path / "out" / "metadata.json"
    older = json.loads(path.read_text())
    del older["camera"]
    path.write_text(json.dumps(older))
    with pytest.raises(InputError, match="not that of this version"):
        SavedResult.open(tmp_path / "out")
