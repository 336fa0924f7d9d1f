"""ZEDD: which frame is which, metres, holes, and the lens."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import zedd as fixture
from fixtures.published import source
from PIL import Image

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.zedd import STOPS, ZEDD
from focaldiffusion.errors import InputError
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.scene import Scene

JPEG = 1.01 / 255
"""A grey survives JPEG to one step."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("zedd")
    fixture.write(folder)
    return folder


def greys(images: torch.Tensor) -> torch.Tensor:
    """The sRGB level of each image, which has one colour."""
    levels = linear_to_srgb(images)
    assert bool((levels.amax((-3, -2, -1)) - levels.amin((-3, -2, -1)) < 2 * JPEG).all())
    return levels.mean((-3, -2, -1))


def test_a_stack_has_nine_frames_of_one_aperture_near_to_far(root: Path) -> None:
    dataset = open_dataset(source(root, "zedd"))
    assert [dataset.name(i) for i in range(len(dataset))] == ["val/val_0001", "val/val_0002"]
    assert [dataset.scene_name(i) for i in range(len(dataset))] == ["val_0001", "val_0002"]
    sample = pickle.loads(pickle.dumps(dataset))[1]
    assert isinstance(sample, StackSample)
    assert sample.stack.focus_distances_m is not None
    torch.testing.assert_close(
        sample.stack.focus_distances_m, torch.tensor(fixture.FOCUS_DISTANCES_M)
    )
    expected = torch.tensor([fixture.level(run, "F2.8") for run in range(1, 10)]) / 255
    torch.testing.assert_close(greys(sample.stack.images), expected, rtol=0, atol=JPEG)
    assert sample.all_in_focus is not None
    sharp = torch.tensor(fixture.level(5, "F16.0") / 255)
    torch.testing.assert_close(greys(sample.all_in_focus), sharp, rtol=0, atol=JPEG)


@pytest.mark.parametrize("stop", STOPS)
def test_layout_picks_the_frames_and_the_aperture(root: Path, stop: str) -> None:
    sample = ZEDD(source(root, "zedd", layout=stop))[0]
    assert isinstance(sample, StackSample)
    expected = torch.tensor([fixture.level(run, stop) for run in range(1, 10)]) / 255
    torch.testing.assert_close(greys(sample.stack.images), expected, rtol=0, atol=JPEG)
    camera = sample.stack.camera
    assert camera is not None
    assert camera.aperture_diameter_m == pytest.approx(0.05 / float(stop[1:]))
    assert camera.focal_length_px == pytest.approx(2647.16 * fixture.SCALE, rel=1e-5)
    assert camera.principal_point_px == pytest.approx(
        (938.13 * fixture.SCALE, 597.19 * fixture.SCALE)
    )


def test_depth_is_metres_and_holes_are_invalid(root: Path) -> None:
    sample = ZEDD(source(root, "zedd"))[0]
    assert {tuple(place) for place in (~sample.valid).nonzero().tolist()} == set(fixture.HOLES)
    assert bool((sample.depth_m[sample.valid] == fixture.DEPTH_M).all())
    assert bool(sample.depth_m[~sample.valid].isnan().all())
    with pytest.raises(InputError, match="no pixel has a valid depth"):
        ZEDD(source(root, "zedd", depth_bounds=(3.0, 10.0)))[0]


def test_larger_frames_are_averaged_to_the_grid_of_the_depth(tmp_path: Path) -> None:
    fixture.write(tmp_path, scenes=1, image_scale=3)
    stripes = np.zeros((36, 54, 3), np.uint8)
    stripes[:, ::3] = 255  # one of three columns is white
    run = fixture.MOTORS[0]
    path = tmp_path / f"val/val_0001/focus_stack/img_run_1_motor_{run}_aperture_F2.8.jpg"
    Image.fromarray(stripes).save(path, format="PNG")
    sample = ZEDD(source(tmp_path, "zedd"))[0]
    assert isinstance(sample, StackSample)
    assert sample.stack.size == fixture.SIZE
    torch.testing.assert_close(
        sample.stack.images[0], torch.full((3, *fixture.SIZE), 1 / 3), msg="light, not sRGB"
    )
    Image.new("RGB", (54, 35)).save(path)
    with pytest.raises(InputError, match=r"F2\.8\.jpg: 54x35, but its depth map is 18x12"):
        ZEDD(source(tmp_path, "zedd"))[0]


def test_the_sharp_image_can_be_photographed_with_any_aperture(root: Path) -> None:
    scenes = [
        ZEDD(
            source(root, "zedd", generate_focal_stack=True, camera_defaults={"f_number": f_number})
        )[0]
        for f_number in (1.4, 22.0)
    ]
    assert all(isinstance(scene, Scene) for scene in scenes)
    wide, narrow = (scene.camera for scene in scenes)  # type: ignore[union-attr]
    assert wide.aperture_diameter_m == pytest.approx(0.05 / 1.4)
    assert narrow.aperture_diameter_m == pytest.approx(0.05 / 22)
    with pytest.raises(InputError, match=r"val_0001: the aperture is unknown\. Give .* f_number"):
        ZEDD(source(root, "zedd", generate_focal_stack=True))[0]


def test_missing_files_are_an_error_or_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metadata\.txt: no such file.*huggingface\.co/datasets"):
        ZEDD(source(tmp_path, "zedd"))
    fixture.write(tmp_path)
    frame = tmp_path / "val/val_0001/focus_stack/img_run_3_motor_3B39_aperture_F2.8.jpg"
    frame.unlink()
    with pytest.raises(InputError, match=r"run_3_motor_3B39_aperture_F2\.8\.jpg: no such file"):
        ZEDD(source(tmp_path, "zedd"))
    dataset = ZEDD(source(tmp_path, "zedd", allow_missing=True))
    assert [dataset.name(i) for i in range(len(dataset))] == ["val/val_0002"]
    assert dataset.skipped == [f"{frame}: no such file. val_0001 is left out."]
    assert len(ZEDD(source(tmp_path, "zedd", layout="F5.6"))) == 2


def test_test_has_no_public_depth(root: Path) -> None:
    with pytest.raises(InputError, match="public depth for val, not for test"):
        ZEDD(source(root, "zedd", "test"))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"layout": "F3.5"}, "layout 'F3.5' is unknown; zedd has F1.4 and"),
        ({"depth_scale": 0.001}, "depth_scale is 0.001"),
        ({"depth_shift": 0.1}, "depth_shift is 0.1"),
        ({"depth_kind": "ray"}, "depth_kind is ray"),
    ],
)
def test_options_without_effect_are_refused(
    root: Path, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        ZEDD(source(root, "zedd", **options))


def test_a_bad_line_of_the_metadata_is_named(tmp_path: Path) -> None:
    fixture.write(tmp_path, scenes=1)
    path = tmp_path / "metadata.txt"
    text = path.read_text()
    path.write_text(text.replace("run_2\t4EA8\t", "run_2\t4EA8 "))
    with pytest.raises(InputError, match=r"metadata\.txt, line 3: .*with tabs between them"):
        ZEDD(source(tmp_path, "zedd"))
    path.write_text("\n".join(text.splitlines()[:-1]))
    with pytest.raises(InputError, match=r"runs \[1, 2, 3, 4, 5, 6, 7, 8\]; expected 1 to 9"):
        ZEDD(source(tmp_path, "zedd"))


def test_a_bad_camera_matrix_is_named(tmp_path: Path) -> None:
    fixture.write(tmp_path, scenes=1)
    path = tmp_path / "val/val_0001/gt/K.txt"
    path.write_text("50 0\n0 50\n")
    with pytest.raises(InputError, match=r"K\.txt: cannot be read as 3 x 3 numbers .*size 4"):
        ZEDD(source(tmp_path, "zedd"))[0]
    path.write_text("focal length 50 mm\n")
    with pytest.raises(InputError, match=r"K\.txt: cannot be read as 3 x 3 numbers"):
        ZEDD(source(tmp_path, "zedd"))[0]
