from __future__ import annotations

import pickle
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional

from focaldiffusion.config.data import DatasetOptions, Source
from focaldiffusion.data.photographer import photograph
from focaldiffusion.data.procedural.scenes import (
    BLUR_PX_AT_512,
    CONTENT,
    LARGEST_APERTURE,
    WORKING_RANGE_M,
    Procedural,
    make_scene,
)
from focaldiffusion.data.procedural.textures import Photographs
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.errors import InputError
from focaldiffusion.optics import linear_to_srgb
from focaldiffusion.scene import Scene

SIZE = (48, 64)


def source_of(split: str = "train", **changes) -> Source:
    values = {
        "name": "made up",
        "split": split,
        "dataset_type": "procedural",
        "image_size": SIZE,
    }
    return Source(**(values | changes))


def options(**values) -> DatasetOptions:
    return DatasetOptions.model_validate(values)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene((5, index), (96, 128)) for index in range(40)]


# Whole scenes


def test_every_pixel_has_a_depth_within_the_stated_bounds(scenes):
    for scene in scenes:
        near_m, far_m = scene.focal_range_m
        assert WORKING_RANGE_M[0] <= near_m < far_m <= WORKING_RANGE_M[1]
        assert scene.valid.all()
        assert scene.depth_m.min() >= CONTENT[0] * near_m * (1 - 1e-5)
        assert scene.depth_m.max() <= CONTENT[1] * far_m * (1 + 1e-5)
        assert scene.all_in_focus.min() >= 0
        assert scene.all_in_focus.max() <= 1
        assert scene.all_in_focus.isfinite().all()


def test_some_sweeps_end_where_the_scene_does_and_some_before(scenes):
    farthest = [float(one.depth_m.max()) / one.focal_range_m[1] for one in scenes]
    assert sum(abs(ratio - 1) < 1e-5 for ratio in farthest) >= len(scenes) / 8
    assert sum(ratio > 1.05 for ratio in farthest) >= len(scenes) / 8


def test_lenses_suit_the_working_range(scenes):
    blurs = []
    for scene in scenes:
        near_m, far_m = scene.focal_range_m
        camera = scene.camera
        assert camera.aperture_diameter_m <= LARGEST_APERTURE * near_m * (1 + 1e-9)
        blur = camera.blur_scale_px_m * (1 / near_m - 1 / far_m)
        blurs.append(blur * 512 / 128)
    assert min(blurs) >= BLUR_PX_AT_512[0] * 0.999
    assert max(blurs) <= BLUR_PX_AT_512[1] * 1.001
    assert max(blurs) > 3 * min(blurs)


def test_scenes_are_varied(scenes):
    near = torch.tensor([scene.focal_range_m[0] for scene in scenes])
    assert near.min() < 0.25  # macro
    assert near.max() > 2.5
    spans = torch.tensor([float(scene.depth_m.max() / scene.depth_m.min()) for scene in scenes])
    assert spans.quantile(0.1) < 2.5
    assert spans.quantile(0.9) > 4
    # Some scenes leave a good part of the sweep empty, in some things stand before and beyond it.
    positions = torch.tensor([_positions(scene) for scene in scenes])
    assert (positions[:, 1] - positions[:, 0] < 0.7).sum() >= 4
    assert (positions[:, 0] < -0.05).sum() >= 8
    assert (positions[:, 1] > 1.05).sum() >= 8
    means = torch.tensor([float(linear_to_srgb(scene.all_in_focus).mean()) for scene in scenes])
    assert means.min() < 0.25
    assert means.max() > 0.5


def _positions(scene: Scene) -> tuple[float, float]:
    """The scene's content in its working range: 0 is its near end in dioptres, 1 its far end."""
    near_m, far_m = scene.focal_range_m
    position = (1 / near_m - 1 / scene.depth_m) / (1 / near_m - 1 / far_m)
    return float(position.min()), float(position.max())


def test_large_surfaces_have_no_texture(scenes):
    shares = torch.tensor([_bare_share(scene) for scene in scenes])
    assert 0.25 < shares.mean() < 0.65
    assert (shares > 0.5).sum() >= 6  # hardly anything to see
    assert (shares < 0.2).sum() >= 6  # texture everywhere


def _bare_share(scene: Scene) -> float:
    """Share of pixels around which sRGB differs by less than four levels of 255 within 5 px."""
    grey = linear_to_srgb(scene.all_in_focus).mean(0)[None, None]
    highest = functional.max_pool2d(grey, 5, 1, 2)
    lowest = -functional.max_pool2d(-grey, 5, 1, 2)
    return float((highest - lowest < 4 / 255).float().mean())


def test_edges_of_image_and_depth_agree_now_and_then(scenes):
    of_both = of_image_alone = of_depth_alone = 0
    for scene in scenes:
        srgb = linear_to_srgb(scene.all_in_focus).mean(0)
        in_image = (srgb[:, 2:] - srgb[:, :-2]).abs() > 0.1
        dpt = 1 / scene.depth_m
        in_depth = ((dpt[:, 2:] - dpt[:, :-2]).abs() / dpt[:, 1:-1]) > 0.1
        of_both += int((in_image & in_depth).sum())
        of_image_alone += int((in_image & ~in_depth).sum())
        of_depth_alone += int((in_depth & ~in_image).sum())
    assert of_image_alone > of_both  # texture and shadows
    assert of_depth_alone > 0.2 * of_both  # surfaces that look alike
    assert of_both > 0.2 * of_depth_alone


def test_some_light_is_more_than_the_sensor_takes(scenes):
    shares = torch.tensor([float((s.all_in_focus == 1).any(0).float().mean()) for s in scenes])
    assert (shares > 0.002).sum() >= 8
    assert shares.max() < 0.5


def test_a_scene_follows_from_its_seed_alone():
    first, again, other = (make_scene((1, seed), SIZE) for seed in (3, 3, 4))
    assert torch.equal(first.all_in_focus, again.all_in_focus)
    assert torch.equal(first.depth_m, again.depth_m)
    assert first.camera == again.camera
    assert not torch.equal(first.depth_m, other.depth_m)


def test_a_larger_picture_shows_the_same_scene():
    small, large = make_scene(7, (48, 64)), make_scene(7, (144, 192))
    assert large.camera.focal_length_px == pytest.approx(3 * small.camera.focal_length_px)
    # The centre of every third pixel is that of a pixel of the small picture. Rods are not the
    # same: they are some pixels thick.
    same = torch.isclose(large.depth_m[1::3, 1::3], small.depth_m, rtol=1e-4)
    assert same.float().mean() > 0.97


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_scenes():
    for seed in range(5):
        here, there = make_scene(seed, (96, 128)), make_scene(seed, (96, 128), device="cuda")
        assert there.depth_m.device.type == "cuda"
        same = torch.isclose(there.depth_m.cpu(), here.depth_m, rtol=1e-5)
        assert same.float().mean() > 0.999  # at edges, rounding decides
        difference = (there.all_in_focus.cpu() - here.all_in_focus).abs()
        assert difference.median() < 1e-4


# The data set


def test_scenes_are_the_same_in_any_order_and_process():
    dataset = open_dataset(source_of())
    assert isinstance(dataset, Procedural)
    last, first = dataset[9], dataset[2]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[2].all_in_focus, first.all_in_focus)
    assert torch.equal(copy[9].depth_m, last.depth_m)
    assert len(dataset) >= 1_000_000
    assert list(dataset.skipped) == []


def test_splits_share_no_scene():
    train, val, test = (Procedural(source_of(split)) for split in ("train", "val", "test"))
    names = {dataset.scene_name(index) for dataset in (train, val, test) for index in range(50)}
    assert len(names) == 150
    depths = [dataset[0].depth_m for dataset in (train, val, test)]
    assert not any(torch.equal(a, b) for a, b in pairwise([*depths, depths[0]]))


def test_scenes_are_made_at_the_size_of_the_source():
    assert Procedural(source_of(image_size=(30, 70)))[0].size == (30, 70)
    assert Procedural(source_of(image_size=None))[0].size == (384, 512)


def test_bodies_without_extent_are_left_out():
    # The one of more than 10 000 scenes whose sheets would have no width.
    scene = Procedural(source_of(image_size=(48, 64)))[908953]
    assert bool(scene.all_in_focus.isfinite().all())
    assert float(scene.all_in_focus.max()) > 0.1


def test_focal_range_is_that_of_every_scene():
    dataset = Procedural(source_of(focal_range=(0.5, 4.0)))
    for index in range(5):
        scene = dataset[index]
        assert scene.focal_range_m == (0.5, 4.0)
        assert scene.depth_m.min() >= 0.5 * CONTENT[0]


def test_stacks_are_focused_over_the_working_range_of_each_scene():
    source = source_of()
    scene = Procedural(source)[4]
    sample = photograph(scene, source, torch.Generator().manual_seed(0))
    near_m, far_m = scene.focal_range_m
    distances = sample.stack.focus_distances_m
    assert float(distances.min()) == pytest.approx(near_m, rel=1e-4)
    assert float(distances.max()) == pytest.approx(far_m, rel=1e-4)


def test_a_named_aperture_replaces_the_scenes_own():
    own = Procedural(source_of())[1].camera
    wide = Procedural(source_of(options=options(camera_defaults={"aperture_diameter_m": 0.02})))
    assert wide[1].camera.aperture_diameter_m == 0.02
    assert wide[1].camera.focal_length_px == own.focal_length_px
    lens = {"f_number": 2.0, "sensor_width_m": 0.036}
    camera = Procedural(source_of(options=options(camera_defaults=lens)))[1].camera
    assert camera.aperture_diameter_m == pytest.approx(own.focal_length_px * 0.036 / 64 / 2)


def test_depth_bounds_make_the_rest_invalid():
    whole = Procedural(source_of())[3]
    middle = float(whole.depth_m.median())
    dataset = Procedural(source_of(options=options(depth_bounds=(0.01, middle))))
    scene = dataset[3]
    assert torch.equal(scene.valid, whole.depth_m <= middle)
    assert scene.depth_m[~scene.valid].isnan().all()


@pytest.fixture
def photographs(tmp_path) -> Path:
    folder = tmp_path / "pictures" / "red"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    noise[..., :2] = 0  # red alone, in the order of OpenCV
    assert cv2.imwrite(str(folder / "noise.png"), noise)
    return tmp_path / "pictures"


def test_textures_come_from_a_folder_of_photographs(photographs):
    dataset = Procedural(source_of(data_root=str(photographs), image_size=(96, 128)))
    with_photographs = [dataset[index].all_in_focus for index in range(4)]
    without = Procedural(source_of(image_size=(96, 128)))
    assert any(
        not torch.equal(scene, without[index].all_in_focus)
        for index, scene in enumerate(with_photographs)
    )
    drawn = Photographs.of([photographs])(np.random.default_rng(0))
    assert drawn.dtype == torch.float32
    assert drawn[0].std() > 0.1
    assert drawn[1:].abs().max() == 0


def test_a_studio_uses_photographs_for_a_share_of_its_materials(scenes):
    drawn = []

    def draw(rng: np.random.Generator) -> torch.Tensor:
        drawn.append(rng)
        return torch.rand(3, 32, 48)

    for seed in range(20):
        make_scene(seed, SIZE, draw_photograph=draw)
    # 3 to 7 materials a scene, 65 % of them with a texture, half of these a photograph.
    assert 0.2 < len(drawn) / 100 < 0.5


# Messages


def test_a_folder_without_photographs_is_named(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path}: no photographs .*drawn textures alone"):
        Procedural(source_of(data_root=str(tmp_path)))


def test_a_broken_photograph_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    dataset = Procedural(source_of(data_root=str(tmp_path)))
    with pytest.raises(InputError, match=r"broken\.jpg"):
        list(map(dataset.__getitem__, range(20)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filelist": "list.csv"}, r"made up: a file list \(list.csv\)"),
        ({"options": options(depth_scale=0.001)}, "made up: depth_scale is 0.001"),
        ({"options": options(depth_kind="ray")}, "made up: depth_kind is ray"),
        ({"options": options(layout="hdf5")}, "made up: layout 'hdf5' is unknown"),
        ({"options": options(generate_focal_stack=False)}, "generate_focal_stack is false"),
    ],
)
def test_options_that_cannot_apply_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Procedural(source_of(**changes))


def test_an_f_number_needs_a_sensor():
    dataset = Procedural(source_of(options=options(camera_defaults={"f_number": 2.0})))
    with pytest.raises(InputError, match=r"^procedural train 0: the aperture is unknown"):
        dataset[0]
