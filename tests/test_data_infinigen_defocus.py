"""Infinigen Defocus: which frame is which, metres, sky, the 50 mm lens, the authors' list."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures import infinigen_defocus as fixture
from fixtures.published import source

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.infinigen_defocus import STOPS, InfinigenDefocus
from focaldiffusion.errors import InputError
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.scene import Scene

KIND = "infinigen_defocus"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(KIND)
    fixture.write(folder)
    return folder


def names(dataset: InfinigenDefocus) -> list[str]:
    return [dataset.name(i) for i in range(len(dataset))]


def test_views_of_a_scene_stay_together(root: Path) -> None:
    dataset = open_dataset(source(root, KIND, "test"))
    assert [dataset.name(i) for i in range(len(dataset))] == list(fixture.VIEWS)
    assert [dataset.scene_name(i) for i in range(3)] == ["1036e2cc", "11a3789d", "11a3789d"]


@pytest.mark.parametrize("stop", [None, *STOPS])
def test_a_stack_has_nine_frames_of_one_aperture_near_to_far(root: Path, stop: str | None) -> None:
    sample = pickle.loads(pickle.dumps(InfinigenDefocus(source(root, KIND, layout=stop))))[0]
    assert isinstance(sample, StackSample)
    f_number = float((stop or "F1.4")[1:])
    colours = linear_to_srgb(sample.stack.images[:, :, 5, 7]) * 255
    expected = torch.tensor([[fixture.level(i, f_number), 100, 50] for i in range(9)])
    torch.testing.assert_close(colours, expected.float(), rtol=0, atol=1e-2)
    assert sample.stack.focus_distances_m is not None
    torch.testing.assert_close(
        sample.stack.focus_distances_m, torch.tensor(fixture.FOCUS_DISTANCES_M)
    )
    assert sample.all_in_focus is not None
    sharp = linear_to_srgb(sample.all_in_focus[:, 5, 7]) * 255
    torch.testing.assert_close(sharp, torch.tensor(fixture.SHARP).float(), rtol=0, atol=1e-2)
    camera = sample.stack.camera
    assert camera is not None
    assert camera.focal_length_px == pytest.approx(2000 * fixture.SCALE)
    assert camera.aperture_diameter_m == pytest.approx(0.05 / f_number)
    assert camera.principal_point_px == pytest.approx((8, 6))


def test_depth_is_metres_and_sky_is_invalid(root: Path) -> None:
    sample = InfinigenDefocus(source(root, KIND))[2]
    assert (~sample.valid).nonzero().tolist() == [list(fixture.SKY)]
    assert bool((sample.depth_m[sample.valid] == fixture.DEPTH_M).all())


def test_a_view_can_be_photographed_with_any_aperture(root: Path) -> None:
    scenes = [
        InfinigenDefocus(
            source(root, KIND, generate_focal_stack=True, camera_defaults={"f_number": f_number})
        )[0]
        for f_number in (1.4, 22.0)
    ]
    assert all(isinstance(scene, Scene) for scene in scenes)
    apertures = [scene.camera.aperture_diameter_m for scene in scenes]  # type: ignore[union-attr]
    assert apertures == pytest.approx([0.05 / 1.4, 0.05 / 22])
    with pytest.raises(InputError, match="1036e2cc_1: the aperture is unknown"):
        InfinigenDefocus(source(root, KIND, generate_focal_stack=True))[0]


def test_the_authors_list_says_which_views(tmp_path: Path) -> None:
    fixture.write(tmp_path)
    wanted = ("11a3789d_2", "1036e2cc_1")
    fixture.write_list(tmp_path, wanted)
    assert names(InfinigenDefocus(source(tmp_path, KIND))) == list(wanted)
    (tmp_path / "val.json").write_text('{"views": []}')
    with pytest.raises(InputError, match=r"val\.json: KeyError\('files'\); expected"):
        InfinigenDefocus(source(tmp_path, KIND))


def test_missing_files_are_an_error_or_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sample of infinigen_defocus .*huggingface\.co"):
        InfinigenDefocus(source(tmp_path, KIND))
    fixture.write(tmp_path)
    depth = tmp_path / "11a3789d_1/depth.npy"
    depth.unlink()
    with pytest.raises(InputError, match=r"depth\.npy: no such file\. Unpack"):
        InfinigenDefocus(source(tmp_path, KIND))
    dataset = InfinigenDefocus(source(tmp_path, KIND, allow_missing=True))
    assert names(dataset) == ["1036e2cc_1", "11a3789d_2"]
    assert dataset.skipped == [f"{depth}: no such file. 11a3789d_1 is left out."]


def test_it_is_no_training_data(root: Path) -> None:
    with pytest.raises(InputError, match="public depth for val and test, not for train"):
        InfinigenDefocus(source(root, KIND, "train"))


def test_a_bad_camera_file_is_named(tmp_path: Path) -> None:
    fixture.write(tmp_path)
    path = tmp_path / "1036e2cc_1/cam_all_in_focus.npz"
    np.savez(path, intrinsics=fixture.K)
    with pytest.raises(InputError, match=r"cam_all_in_focus\.npz: cannot be read .* array K"):
        InfinigenDefocus(source(tmp_path, KIND))[0]
    np.savez(path, K=np.eye(4))
    with pytest.raises(InputError, match=r"K is an array of \(4, 4\)"):
        InfinigenDefocus(source(tmp_path, KIND))[0]
