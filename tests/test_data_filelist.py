"""File lists as data sets: the lists that are shipped, and every field that changes a sample."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from fixtures import filelists as fixture
from fixtures import stacks as stack_fixture
from fixtures.sources import source_of
from PIL import Image

from focaldiffusion.config.data import Source, Split
from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.rasters import turned
from focaldiffusion.data.registry import open_dataset
from focaldiffusion.data.sets.filelist import FileList
from focaldiffusion.errors import InputError
from focaldiffusion.io.images import read_image
from focaldiffusion.optics import srgb_to_linear
from focaldiffusion.scene import Scene

REPOSITORY = Path(__file__).resolve().parents[1]
LISTS = sorted(
    path for path in (REPOSITORY / "data" / "filelists").iterdir() if path.suffix != ".md"
)
LENS = {"f_number": 2.8, "focal_length_m": 0.05, "sensor_width_m": 0.036}
PIXELS = {"focal_length_px": 40.0, "aperture_diameter_m": 0.01}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """aif.png; depth.npy, 1 m and deeper to the right; and a stack with its truth."""
    fixture.write_image(tmp_path / "aif.png")
    np.save(tmp_path / "depth.npy", depth_values())
    stack_fixture.write(tmp_path / "room")
    return tmp_path


def depth_values() -> np.ndarray:
    height, width = fixture.SIZE
    return np.tile(np.arange(1, width + 1, dtype=np.float32), (height, 1))


def listed(root: Path, *entries: dict[str, Any], **options: Any) -> FileList:
    """A data set of entries; `source` among the options replaces values of the source."""
    path = root / "list.jsonl"
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    changes = options.pop("source", {})
    source = source_of("filelist", root, "train", filelist=path, **options)
    return FileList(source.model_copy(update=changes))


def rgbd(**fields: Any) -> dict[str, Any]:
    return {"all_in_focus": "aif.png", "depth": "depth.npy", "camera": PIXELS, **fields}


def stack(**fields: Any) -> dict[str, Any]:
    return {"focal_stack": "room/stack", "depth": "room/truth/depth.npz", **fields}


def one(root: Path, entry: dict[str, Any], **options: Any) -> Any:
    return listed(root, entry, **options)[0]


# Shipped lists


def shipped(root: Path, path: Path) -> FileList:
    split = path.stem.rpartition("_")[2]
    fixture.write(root, path)
    source = source_of(
        "filelist", root, split, filelist=path, camera_defaults={"f_number": 2.8, **LENS}
    )
    roots = [str(root), str(REPOSITORY / "examples")]
    return FileList(source.model_copy(update={"data_root": roots}))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.name)
def test_a_shipped_list_reads_files_in_native_formats(tmp_path: Path, path: Path) -> None:
    dataset = shipped(tmp_path, path)
    assert dataset.notices == []
    assert dataset.skipped == []
    for index in range(len(dataset)):
        sample = dataset[index]
        if isinstance(sample, StackSample):
            assert sample.stack.axis == "inverse_depth_dpt"
            assert sample.stack.camera is not None
            continue
        assert not sample.valid[0, 0]
        assert sample.valid.sum() == sample.valid.numel() - 1
        # float16 holds a depth of 3 m to 1 mm
        known = sample.depth_m[sample.valid]
        torch.testing.assert_close(
            known, torch.full_like(known, fixture.DEPTH_M), rtol=0, atol=1e-3
        )


def test_no_scene_of_val_or_test_is_in_train_in_any_list_that_is_shipped(tmp_path: Path) -> None:
    scenes: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for path in LISTS:
        dataset = shipped(tmp_path, path)
        found = {dataset.scene_name(index) for index in range(len(dataset))}
        scenes[path.stem.rpartition("_")[2]] |= found
    assert all(scenes.values())
    assert scenes["train"].isdisjoint(scenes["val"] | scenes["test"])
    assert scenes["val"].isdisjoint(scenes["test"])


def test_an_empty_root_is_one_sentence(tmp_path: Path) -> None:
    path = REPOSITORY / "data" / "filelists" / "hypersim_train.json"
    with pytest.raises(InputError) as error:
        open_dataset(source_of("filelist", tmp_path, "train", filelist=path))
    first = "ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg"
    assert str(error.value) == (
        f"{tmp_path}/{first}: no such file or folder. {path}:2 lists it. Correct data.data_root or "
        "the list; data/filelists/README.md says where the data sets are to be had."
    )


REAL = """\
# Published files: metres of the nearest and farthest pixel, and the share of known ones, are those
# that shared/data/README.md states.
nyu/rgb_00100.jpg nyu/sync_depth_00100.png depth_scale=0.001 camera.focal_length_px=519
icl_nuim/color_4.png, icl_nuim/depth_4.png, depth_scale=0.0002, camera.focal_length_px=481
kitti/rgb_0000000050.png kitti/depth_0000000050.png depth_scale=0.00390625 \
camera.focal_length_px=721
"""


def test_real_files_of_four_data_sets(shared_data: Path, tmp_path: Path) -> None:
    hypersim = "hypersim/ai_037_002/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5"
    fixture.write_image(tmp_path / "blank.png", (768, 1024))
    path = tmp_path / "real.txt"
    path.write_text(f"{REAL}{tmp_path}/blank.png {hypersim} camera.focal_length_px=886.81\n")
    dataset = FileList(
        source_of(
            "filelist",
            shared_data / "native",
            "test",
            filelist=path,
            camera_defaults={"aperture_diameter_m": 0.01},
        )
    )
    stated = [(0.71, 6.45, 0.67), (0.86, 2.50, None), (5.2, 83.2, 0.21), (2.96, 13.23, 1.0)]
    for index, (nearest_m, farthest_m, share) in enumerate(stated):
        scene = dataset[index]
        assert isinstance(scene, Scene)
        known = scene.depth_m[scene.valid]
        assert float(known.min()) == pytest.approx(nearest_m, rel=0.01)
        assert float(known.max()) == pytest.approx(farthest_m, rel=0.01)
        if share is not None:
            assert float(scene.valid.float().mean()) == pytest.approx(share, abs=0.01)


# Depth


def test_image_is_linear_and_depth_metres(root: Path) -> None:
    scene = one(root, rgbd())
    assert isinstance(scene, Scene)
    expected = srgb_to_linear(torch.from_numpy(read_image(root / "aif.png"))).permute(2, 0, 1)
    torch.testing.assert_close(scene.all_in_focus, expected)
    torch.testing.assert_close(scene.depth_m, torch.from_numpy(depth_values()))
    assert scene.valid.all()


@pytest.mark.parametrize("where", ["entry", "options"])
def test_scale_shift_and_bounds_of_the_entry_or_the_source(root: Path, where: str) -> None:
    units = {"depth_scale": 0.5, "depth_shift": 0.25, "depth_bounds": [1.0, 10.0]}
    given = {"entry": units, "options": {}}[where]
    scene = one(root, rgbd(**given), **({} if given else units))
    expected = torch.from_numpy(depth_values()) * 0.5 + 0.25
    assert torch.equal(scene.valid, (expected >= 1) & (expected <= 10))
    torch.testing.assert_close(scene.depth_m[scene.valid], expected[scene.valid])
    assert scene.depth_m[~scene.valid].isnan().all()


def test_what_the_entry_says_comes_before_what_the_source_says(root: Path) -> None:
    scene = one(root, rgbd(depth_scale=2), depth_scale=0.5, camera_defaults=LENS)
    assert scene.depth_m[0, 0] == 2
    assert scene.camera.focal_length_px == 40
    assert scene.camera.aperture_diameter_m == 0.01


def test_unknown_depth_stays_unknown_whatever_the_shift(root: Path) -> None:
    values = np.full(fixture.SIZE, 2.0, np.float32)
    values[0, :4] = (np.nan, np.inf, 0, -1)
    np.save(root / "depth.npy", values)
    scene = one(root, rgbd(depth_shift=0.5))
    assert torch.equal(scene.valid[0, :5], torch.tensor([False, False, False, False, True]))
    assert scene.depth_m[0, 4] == 2.5


def test_whole_numbers_need_a_scale(root: Path) -> None:
    Image.fromarray(np.full(fixture.SIZE, 1500, np.uint16)).save(root / "depth.png")
    with pytest.raises(InputError, match=r"list\.jsonl:1: depth\.png holds whole numbers of unkn"):
        listed(root, rgbd(depth="depth.png"))
    scene = one(root, rgbd(depth="depth.png"), depth_scale=0.001)
    assert float(scene.depth_m[0, 0]) == pytest.approx(1.5)


def test_a_named_array_of_an_hdf5_file(root: Path) -> None:
    with h5py.File(root / "two.hdf5", "w") as file:
        file["a"], file["b"] = np.zeros(fixture.SIZE), np.full(fixture.SIZE, 4.0)
    assert one(root, rgbd(depth="two.hdf5", depth_dataset="b")).depth_m[0, 0] == 4
    with pytest.raises(InputError, match="holds a, b; name one of them"):
        one(root, rgbd(depth="two.hdf5"))


def test_ray_distances_become_planar_with_the_camera_of_the_sample(root: Path) -> None:
    fixture.write_ray_distance(root / "depth.hdf5", 40.0)
    scene = one(root, rgbd(depth="depth.hdf5", depth_kind="ray"))
    # float16: 3 m to 1 mm
    known = scene.depth_m[scene.valid]
    torch.testing.assert_close(known, torch.full_like(known, 3.0), rtol=0, atol=1e-3)
    bent = one(root, rgbd(depth="depth.hdf5")).depth_m
    assert bent[5, 5] > 3.05


@pytest.mark.parametrize(
    ("turns", "of_numpy"),
    [
        (["transpose"], lambda values: values.T),
        (["flip_horizontal"], np.fliplr),
        (["flip_vertical"], np.flipud),
        (["rotate_90"], lambda values: np.rot90(values, -1)),
        (["rotate_180"], lambda values: np.rot90(values, 2)),
        (["rotate_270"], np.rot90),
        (["transpose", "flip_horizontal"], lambda values: np.fliplr(values.T)),
    ],
)
def test_a_turned_depth_map_is_turned_back(root: Path, turns: list[str], of_numpy: Any) -> None:
    stored = np.arange(1, 24 * 32 + 1, dtype=np.float32)
    stored = stored.reshape((32, 24) if of_numpy(np.zeros((2, 3))).shape == (3, 2) else (24, 32))
    np.save(root / "depth.npy", stored)
    scene = one(root, rgbd(depth_orientation=turns, depth_scale=1))
    np.testing.assert_array_equal(scene.depth_m.numpy(), of_numpy(stored))


def test_millimetres_that_pass_for_metres_are_noticed(root: Path) -> None:
    np.save(root / "depth.npy", np.full((24, 32), 1500, np.float32))
    with pytest.raises(
        InputError, match=r"depth\.npy: half of the depth is above 100, which looks"
    ):
        one(root, rgbd())
    assert one(root, rgbd(depth_scale=0.001)).depth_m[0, 0] == pytest.approx(1.5)


@pytest.mark.parametrize("pattern", ["/etc/*", "*.bmp", ".", "../truth/*"])
def test_frames_are_chosen_by_their_names_in_the_folder(root: Path, pattern: str) -> None:
    with pytest.raises(InputError, match=r"no file in \S+ matches"):
        one(root, stack(image_glob=pattern))


def test_turns_of_the_image_turn_the_frames_too(root: Path) -> None:
    turn = {"image_orientation": ["rotate_90"], "depth_orientation": ["rotate_90"]}
    image = {"all_in_focus": "room/truth/all_in_focus.png", "generate_focal_stack": False}
    straight, sample = one(root, stack(**image)), one(root, stack(**image, **turn))
    assert sample.stack.size == (32, 24)
    assert sample.stack.camera.image_size == (32, 24)
    for before, after in (
        (straight.stack.images, sample.stack.images),
        (straight.all_in_focus, sample.all_in_focus),
        (straight.valid, sample.valid),
    ):
        torch.testing.assert_close(after, turned(before, ["rotate_90"]))
    # Clockwise: what was bottom left is top left.
    torch.testing.assert_close(sample.stack.images[..., 0, 0], straight.stack.images[..., -1, 0])


def test_sizes_that_differ_are_both_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"depth\.npy: 24x32, but .*aif\.png is 32x24\. They must"):
        one(root, rgbd(depth_orientation=["transpose"]))
    with pytest.raises(InputError, match=r"depth\.npz: 24x32, but .*frame_00\.png is 32x24"):
        one(root, stack(depth_orientation=["transpose"]))


# Frames


def test_listed_frames_are_read_with_their_sidecar(root: Path) -> None:
    sample = one(root, stack(num_images=3, all_in_focus="room/truth/all_in_focus.png"))
    assert isinstance(sample, StackSample)
    truth = stack_fixture.scene()
    assert sample.stack.camera == stack_fixture.CAMERA
    assert sample.stack.focus_distances_m.tolist() == list(stack_fixture.FOCUS_M)
    torch.testing.assert_close(sample.depth_m, truth.depth_m, equal_nan=True)
    assert torch.equal(sample.valid, truth.valid)
    one_step = 1 / 255
    torch.testing.assert_close(sample.all_in_focus, truth.all_in_focus, rtol=0, atol=one_step)


def test_listed_distances_overrule_the_sidecar(root: Path) -> None:
    sample = one(root, stack(focus_distances_m=[0.6, 1.2, None]))
    assert sample.stack.focus_distances_m.tolist() == pytest.approx([0.6, 1.2, math.inf])


def test_frames_without_distances_are_known_by_their_order(root: Path) -> None:
    (root / "room" / "stack" / "stack.json").unlink()
    sample = one(root, stack(), source={"focal_range": (0.5, 2.0)})
    assert sample.stack.axis == "order"
    assert sample.stack.camera is None


def test_camera_defaults_complete_frames_without_a_camera(root: Path) -> None:
    (root / "room" / "stack" / "stack.json").unlink()
    by_f_number = {
        f_number: one(root, stack(), camera_defaults=LENS | {"f_number": f_number})
        for f_number in (1.4, 22.0)
    }
    assert by_f_number[1.4].stack.camera.aperture_diameter_m == pytest.approx(0.05 / 1.4)
    assert by_f_number[22.0].stack.camera.aperture_diameter_m == pytest.approx(0.05 / 22)
    with pytest.raises(InputError, match="the focal length in pixels is unknown"):
        one(root, stack(), camera_defaults={"f_number": 2})


def test_the_listed_camera_overrules_the_sidecar(root: Path) -> None:
    camera = one(root, stack(camera={"aperture_diameter_m": 0.02})).stack.camera
    assert camera.focal_length_px == stack_fixture.CAMERA.focal_length_px
    assert camera.aperture_diameter_m == 0.02


def test_glob_chooses_frames_in_natural_order(root: Path) -> None:
    folder = root / "loose"
    folder.mkdir()
    for index, name in enumerate(["img10.png", "img9.png", "depth1.png"]):
        Image.fromarray(np.full((*fixture.SIZE, 3), index, np.uint8)).save(folder / name)
    entry = stack(focal_stack="loose", image_glob="img*.png")
    sample = one(root, entry)
    assert sample.stack.images[0].mean() > sample.stack.images[1].mean()  # img9, then img10
    with pytest.raises(InputError, match=r"3 frames in .*loose, but num_images is 2\. Correct"):
        one(root, entry | {"image_glob": "*.png", "num_images": 2})
    with pytest.raises(InputError, match=r"no file in .*loose matches x\*\.png"):
        one(root, entry | {"image_glob": "x*.png"})


def test_distances_for_another_number_of_frames_are_refused(root: Path) -> None:
    with pytest.raises(InputError, match=r"list\.jsonl:1 \(room/stack\): .*2 values for 3 frames"):
        one(root, stack(focus_distances_m=[1, 2]))


def test_ray_distances_of_frames_need_a_camera(root: Path) -> None:
    (root / "room" / "stack" / "stack.json").unlink()
    with pytest.raises(InputError, match=r"depth_kind is ray, .* but the camera is unknown"):
        one(root, stack(), depth_kind="ray")


# Which of the two


def test_simulated_or_read_as_the_entry_the_source_or_the_files_say(root: Path) -> None:
    both = stack(all_in_focus="room/truth/all_in_focus.png", camera=PIXELS)
    assert isinstance(one(root, both), StackSample)
    assert isinstance(one(root, both, generate_focal_stack=True), Scene)
    assert isinstance(one(root, both | {"generate_focal_stack": True}), Scene)
    entry = both | {"generate_focal_stack": False}
    assert isinstance(one(root, entry, generate_focal_stack=True), StackSample)
    with pytest.raises(InputError, match=r"list\.jsonl:1: names no all_in_focus, and data\.data"):
        listed(root, stack(), generate_focal_stack=True)
    with pytest.raises(InputError, match=r"list\.jsonl:1: names no focal_stack, and data\.data"):
        listed(root, rgbd(), generate_focal_stack=False)


def test_focus_of_a_simulated_stack(root: Path) -> None:
    assert one(root, rgbd(focus_distances_m=[0.5, 1, None])).focus_distances_m == (0.5, 1, math.inf)
    assert one(root, rgbd()).focus_distances_m is None
    ranged = one(root, rgbd(focal_range=[1, 4]))
    assert (ranged.focus_distances_m, ranged.focal_range_m) == (None, (1, 4))
    counted = one(root, rgbd(focal_range=[1, 4], num_images=4))
    assert counted.focus_distances_m == pytest.approx((1, 4 / 3, 2, 4))
    assert counted.focal_range_m is None
    of_source = one(root, rgbd(num_images=3), source={"focal_range": (0.5, 1.0)})
    assert of_source.focus_distances_m == pytest.approx((0.5, 2 / 3, 1))
    assert one(root, rgbd(num_images=3)).focus_distances_m is None


# The index


def test_missing_files_are_left_out_and_listed_where_that_is_allowed(root: Path) -> None:
    gone = rgbd(depth="gone.npy")
    with pytest.raises(InputError, match=r"gone\.npy: no such file or folder\. .*list\.jsonl:1"):
        listed(root, gone, rgbd())
    dataset = listed(root, gone, rgbd(), allow_missing=True)
    assert len(dataset) == 1
    assert len(dataset.skipped) == 1
    assert "gone.npy: no such file" in dataset.skipped[0]
    with pytest.raises(InputError, match="the files of all 1 samples are missing"):
        listed(root, gone, allow_missing=True)
    with pytest.raises(InputError, match="field 'dept' is unknown"):
        listed(root, gone, rgbd() | {"dept": 1}, allow_missing=True)


def test_each_kind_of_file_has_its_roots(tmp_path: Path, root: Path) -> None:
    for kind, name in (("images", "aif.png"), ("depths", "depth.npy")):
        (root / kind).mkdir()
        (root / name).rename(root / kind / name)
    roots = {"all_in_focus": str(root / "images"), "depth": [str(root), str(root / "depths")]}
    assert isinstance(one(root, rgbd(), source={"data_root": roots}), Scene)


def test_names_and_scenes(root: Path) -> None:
    dataset = listed(
        root,
        stack(),
        stack(),
        rgbd(name="first", scene="kitchen"),
        rgbd(all_in_focus=str(root / "aif.png")),
        rgbd(),
    )
    names = [dataset.name(index) for index in range(len(dataset))]
    absolute = str(root / "aif.png")
    assert names == ["room/stack", "room/stack (line 2)", "first", absolute, "aif.png"]
    scenes = [dataset.scene_name(index) for index in range(len(dataset))]
    assert scenes == ["room", "room", "kitchen", absolute, "aif.png"]
    with pytest.raises(InputError, match=r"list\.jsonl:2: another sample is called first too"):
        listed(root, rgbd(name="first"), rgbd(name="first"))


def test_a_worker_gets_a_copy(root: Path) -> None:
    dataset = listed(root, rgbd(), stack())
    copy = pickle.loads(pickle.dumps(dataset))
    torch.testing.assert_close(copy[1].stack.images, dataset[1].stack.images)


@pytest.mark.parametrize("split", ["train", "val"])
def test_the_list_of_the_split_is_needed(root: Path, split: Split) -> None:
    source: Source = source_of("filelist", root, split)
    with pytest.raises(InputError, match=f"Give data.{split}_filelist, or filelist in the source"):
        FileList(source)


def test_a_layout_does_not_apply(root: Path) -> None:
    with pytest.raises(InputError, match="layout does not apply to a file list"):
        listed(root, rgbd(), layout="flat")


def test_notices_reach_the_data_set(root: Path) -> None:
    entry = rgbd()
    entry["aif"] = entry.pop("all_in_focus")
    dataset = listed(root, entry)
    assert dataset.notices == [f"{root}/list.jsonl:1: aif is called all_in_focus here."]
