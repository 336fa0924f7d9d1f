"""FoD500: which frame is which, half-float metres, the published split, a camera only if known."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from fixtures.published import source

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.fod500 import FoD500
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera, linear_to_srgb

pytest.importorskip("OpenEXR")
from fixtures import fod500 as fixture


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fod500")
    fixture.write(folder)
    return folder


def names(dataset: FoD500) -> list[str]:
    return [dataset.name(i) for i in range(len(dataset))]


def test_a_stack_has_five_frames_near_to_far(root: Path) -> None:
    sample = pickle.loads(pickle.dumps(open_dataset(source(root, "fod500"))))[0]
    assert isinstance(sample, StackSample)
    colours = linear_to_srgb(sample.stack.images[:, :, 5, 7]) * 255
    expected = torch.tensor([[fixture.level(frame), 100, 20] for frame in range(5)])
    torch.testing.assert_close(colours, expected.float(), rtol=0, atol=1e-2)
    assert sample.stack.focus_distances_m is not None
    assert sample.stack.focus_distances_m.tolist() == pytest.approx([0.1, 0.15, 0.3, 0.7, 1.5])
    assert sample.all_in_focus is None


def test_depth_is_metres_and_background_is_invalid(root: Path) -> None:
    sample = FoD500(source(root, "fod500"))[0]
    assert {tuple(place) for place in (~sample.valid).nonzero().tolist()} == set(fixture.HOLES)
    assert bool((sample.depth_m[sample.valid] == fixture.DEPTH_M).all())


def test_the_first_400_samples_train(root: Path) -> None:
    train = FoD500(source(root, "fod500", "train"))
    assert names(train) == ["000000", "000001", "000399"]
    for split in ("val", "test"):
        held_out = FoD500(source(root, "fod500", split))  # type: ignore[arg-type]
        assert names(held_out) == ["000400", "000499"]
        assert {train.scene_name(i) for i in range(3)}.isdisjoint(
            {held_out.scene_name(i) for i in range(2)}
        )


def test_the_camera_is_known_only_with_a_sensor(root: Path) -> None:
    def camera(**camera_defaults: float) -> Camera | None:
        return FoD500(source(root, "fod500", camera_defaults=camera_defaults))[0].stack.camera

    assert camera() is None
    assert camera(f_number=8.0) is None
    by_width, by_pixels = camera(sensor_width_m=3.1e-3), camera(focal_length_px=11.2258)
    for one in (by_width, by_pixels):
        assert one is not None
        assert one.focal_length_px == pytest.approx(2.9 / 3.1 * 12, rel=1e-5)
        assert one.aperture_diameter_m == pytest.approx(2.9e-3)


def test_missing_files_are_an_error_or_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no sample of fod500 .*dvl-tum/defocus-net"):
        FoD500(source(tmp_path, "fod500"))
    fixture.write(tmp_path)
    (tmp_path / "000400_03All.tif").unlink()
    with pytest.raises(InputError, match=r"000400\*All\.tif: 4 files; expected 5\. Unpack"):
        FoD500(source(tmp_path, "fod500"))
    depth = tmp_path / "000499Dpt.exr"
    depth.unlink()
    dataset = FoD500(source(tmp_path, "fod500", allow_missing=True))
    assert names(dataset) == []
    assert dataset.skipped == [
        f"{tmp_path / '000400'}*All.tif: 4 files; expected 5. 000400 is left out.",
        f"{depth}: no such file. 000499 is left out.",
    ]


def test_there_is_nothing_to_photograph(root: Path) -> None:
    with pytest.raises(InputError, match="fod500 has no all-in-focus images"):
        FoD500(source(root, "fod500", generate_focal_stack=True))
    assert len(FoD500(source(root, "fod500", generate_focal_stack=False))) == 2
