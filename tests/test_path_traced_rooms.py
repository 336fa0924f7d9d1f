"""The generator of path-traced rooms: drawing and files always, rays where Mitsuba is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rooms import source

from focaldiffusion.data.dataset import StackSample
from focaldiffusion.data.sets.stacks import Stacks

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[1] / "examples"))

import shapes
import wallpapers
from parts import Part
from path_traced_rooms import KINDS, PROGRAMME, Kind, Light, RoomJob, programme_of, write_scene
from path_tracing import View, depth_at_pixel_centres, mitsuba_scene, render
from room_layout import DIFFICULTIES, Eye, Room
from scene_kinds import deal

SIZE = (24, 32)
JOBS = [RoomJob(index, 0, SIZE, 1) for index in range(len(PROGRAMME))]
SCENES = [
    RoomJob(index, 0, SIZE, 1, programme_of(("cards", "desk", "outdoor", "thin")))
    for index in range(8)
]


def rays_to_depth(room: Room, count: int = 13) -> np.ndarray:
    """Planar depth of the wall or floor behind `count` x `count` points of the picture."""
    share = np.linspace(-1, 1, count)
    origin = np.array(room.eye.position_m)
    rays = np.array([room.eye.point(x, y, 1.0) - origin for x in share for y in share])
    nearest = np.full(len(rays), np.inf)
    for part in room.parts[:2]:  # the back wall and the floor
        a, b, c = part.mesh.positions[:3]
        edges = np.stack([b - a, c - a], 1)
        normal = np.cross(*edges.T)
        t = normal @ (a - origin) / (rays @ normal)
        uv = np.linalg.lstsq(edges, (origin + t[:, None] * rays - a).T, rcond=None)[0]
        hit = (t > 0) & (uv > -1e-9).all(0) & (uv < 1 + 1e-9).all(0)
        nearest = np.where(hit, np.minimum(nearest, t), nearest)
    return nearest


def same_surface(one: Part, other: Part) -> bool:
    return np.array_equal(one.mesh.positions, other.mesh.positions) and np.array_equal(
        one.colour, other.colour
    )


@pytest.mark.parametrize("name", ["macro", "table"])
def test_near_planes_are_equally_spaced_in_dioptres(name: str) -> None:
    steps = np.diff(1 / np.array(KINDS[name].focus_distances_m))
    np.testing.assert_allclose(steps, steps.mean(), rtol=0.06)  # three digits of 0.1 m


@pytest.mark.parametrize("name", ["room", "hall"])
def test_far_planes_have_equal_ratios(name: str) -> None:
    ratios = np.diff(np.log(KINDS[name].focus_distances_m))
    np.testing.assert_allclose(ratios, ratios.mean(), rtol=0.02)


def test_lens_and_planes_do_not_depend_on_what_is_drawn() -> None:
    for index, (kind, _) in enumerate(PROGRAMME):
        assert {RoomJob(index, seed, SIZE, 1).kind for seed in range(5)} == {KINDS[kind]}


def test_camera_follows_the_size_of_the_picture() -> None:
    camera = Kind(50, 2.0, (1.0, 2.0), (0, 0)).camera((360, 720))
    assert camera.focal_length_px == pytest.approx(1000)
    assert camera.aperture_diameter_m == pytest.approx(0.025)
    assert camera.image_size == (360, 720)


def test_eye_sees_the_floor_at_the_lower_edge_at_the_depth_asked_for() -> None:
    eye = Eye.above_floor(0.7, 0.3, 0.36, 0.27)
    below = eye.point(0.4, -1, 0.7)
    assert below[2] == pytest.approx(0)
    assert below[1] == pytest.approx(eye.floor_y_m(0.7))
    axis = np.subtract(eye.target_m, eye.position_m)
    assert np.dot(below - eye.position_m, axis) == pytest.approx(0.7)  # planar depth
    np.testing.assert_allclose(eye.seen(below[None]), [[0.4, -1, 0.7]])


@pytest.mark.parametrize("job", [*JOBS[3:7:2], SCENES[3]], ids=lambda job: job.name)
def test_room_is_that_of_its_seed_at_any_number_of_pixels_and_paths(job: RoomJob) -> None:
    room, again = job.room(), replace(job, size=(48, 64), samples=9).room()
    assert (room.eye, room.lights) == (again.eye, again.lights)
    assert all(same_surface(*pair) for pair in zip(room.parts, again.parts, strict=True))
    other = replace(job, seed=job.seed + 7).room()
    assert not same_surface(room.parts[0], other.parts[0])


@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_wall_and_floor_fill_the_picture_within_the_reach(job: RoomJob) -> None:
    depth = rays_to_depth(job.room())
    near_m, far_m = job.kind.focus_distances_m[0], job.kind.focus_distances_m[-1]
    assert depth.max() <= 1.01 * far_m  # also fails if a ray escapes
    assert depth.min() >= near_m


def test_kinds_take_turns_and_each_is_medium_and_hard() -> None:
    programme = programme_of(("thin", "hall", "desk"))
    names = [RoomJob(index, 0, SIZE, 1, programme).name for index in range(7)]
    assert names[:3] == ["00_thin_medium", "01_hall_medium", "02_desk_medium"]
    assert names[3:] == ["03_thin_hard", "04_hall_hard", "05_desk_hard", "06_thin_medium"]


def test_any_surface_is_bare_equally_often() -> None:
    rng = np.random.default_rng(0)
    deals = np.array([deal(rng, 12, 0.3) for _ in range(1000)])
    assert (deals.sum(1) == 4).all()  # 3.6, rounded
    # Four deviations of the mean of 1000 draws with probability 1/3.
    np.testing.assert_allclose(deals.mean(0), 1 / 3, atol=4 * np.sqrt(2 / 9 / 1000))


@pytest.mark.parametrize("job", SCENES, ids=lambda job: job.name)
def test_scene_is_filled_and_neither_all_bare_nor_all_textured(job: RoomJob) -> None:
    room, near_m = job.room(), job.kind.focus_distances_m[0]
    depth = rays_to_depth(room)
    assert np.isfinite(depth).all()  # wall and floor fill the picture
    assert depth.min() >= near_m
    things = room.parts[2:]
    assert len(things) >= 6
    for thing in things:
        seen = room.eye.seen(thing.mesh.positions)
        assert (seen[:, :2].min(0) < 1.1).all()  # wires end at 1.1
        assert (seen[:, :2].max(0) > -1.1).all()
        assert seen[:, 2].min() >= near_m
        assert seen[:, 2].min() < depth.max()
    bare = [isinstance(part.colour, tuple) for part in room.parts]
    # The deal is exact, but things that found no room are missing.
    share = DIFFICULTIES[job.turn[1]].bare_share
    assert abs(np.mean(bare) - share) < 0.15
    assert {part.finish for part in room.parts} == {"matte"}


@pytest.mark.parametrize("paint", wallpapers.WALLPAPERS, ids=lambda paint: paint.__name__)
@pytest.mark.parametrize(("shape", "feature_px"), [((64, 64), 2.0), ((90, 300), 12.0)])
def test_wallpaper_has_its_size_and_shows_something(
    paint: wallpapers.Wallpaper, shape: tuple[int, int], feature_px: float
) -> None:
    for seed in range(4):
        image = paint(np.random.default_rng(seed), shape, feature_px)
        assert image.dtype == np.float32
        assert (image.shape[0], image.shape[2]) == (shape[0], 3)
        assert abs(image.shape[1] - shape[1]) < 12  # boards of whole texels
        assert image.min() >= 0
        assert image.max() <= 1
        assert image.std(axis=(0, 1)).max() > 0.02


def test_files_are_read_back_as_the_dataset_of_stacks(tmp_path: Path) -> None:
    job = RoomJob(2, 5, (60, 80), 4)
    ramp = np.linspace(0.1, 1.0, 80, dtype=np.float32) * np.ones((60, 1), np.float32)
    pinhole = np.repeat(ramp[..., None], 3, 2)
    depth_m = (0.1 + ramp).astype(np.float32)
    frames = [pinhole for _ in job.kind.focus_distances_m]
    write_scene(job, Light(frames, pinhole, depth_m), tmp_path / job.name, "0.0")
    data = Stacks(source("stacks", dataset_type="stacks", data_root=str(tmp_path)))
    sample = data[0]
    assert isinstance(sample, StackSample)
    assert data.name(0) == "02_macro_easy"
    assert sample.stack.focus_distances_m is not None
    assert sample.stack.focus_distances_m.tolist() == pytest.approx(job.kind.focus_distances_m)
    assert sample.stack.camera == job.kind.camera(job.size)
    np.testing.assert_array_equal(sample.depth_m, depth_m)
    assert bool(sample.valid.all())
    note = json.loads((tmp_path / job.name / "stack" / "stack.json").read_text())["note"]
    assert note["focus_distances"] == "fixed in advance for every macro scene, as is the lens"
    assert (note["seed"], note["scene"]) == (5, 2)


def test_frames_have_the_sensors_noise_and_the_truth_has_none(tmp_path: Path) -> None:
    from PIL import Image

    job = RoomJob(0, 0, (80, 80), 4)
    flat = np.full((80, 80, 3), 0.2, np.float32)
    flat[:8] = 1.0
    write_scene(job, Light([flat] * 6, flat, flat[..., 0]), tmp_path / "flat", "0.0")
    truth = np.asarray(Image.open(tmp_path / "flat" / "truth" / "all_in_focus.png"), float)
    frame = np.asarray(Image.open(tmp_path / "flat" / "stack" / "frame_03.png"), float)
    assert truth[8:].std() == 0
    # Rounding adds 1/12 to the variance; 21600 samples measure it to half a per cent.
    assert (frame - truth)[8:].std() == pytest.approx(np.sqrt(1 + 1 / 12), rel=0.03)
    assert abs((frame - truth)[8:].mean()) < 0.5  # the truth is rounded once


@pytest.fixture(scope="module")
def mitsuba():
    mi = pytest.importorskip("mitsuba")
    mi.set_variant("scalar_rgb")  # needs no compiler
    return mi


VIEW = View(SIZE, 40.0, 0.05, (0.0, 0.0, 0.5), (0.0, 1.0, 0.2))


def test_depth_is_planar_at_pixel_centres(mitsuba, tmp_path: Path) -> None:
    """The plane z = 0 seen from 0.5 m above: h = z (sin p - v cos p) along a ray of height v."""
    floor = shapes.plate(20.0, 20.0)
    scene = mitsuba_scene([Part(floor, (0.5, 0.5, 0.5))], [], (1.0, 1.0, 1.0), tmp_path)
    pitch = np.arctan2(0.3, 1.0)
    view = View(SIZE, 80.0, 0.05, VIEW.position_m, VIEW.target_m)
    up = (SIZE[0] / 2 - (np.arange(SIZE[0]) + 0.5)) / view.focal_length_px
    expected = 0.5 / (np.sin(pitch) - up * np.cos(pitch))
    depth = depth_at_pixel_centres(scene, view)
    np.testing.assert_allclose(depth, np.repeat(expected[:, None], SIZE[1], 1), rtol=2e-5)


def test_edge_is_blurred_by_the_disc_of_the_thin_lens(mitsuba, tmp_path: Path) -> None:
    """A black half-plane before a bright sky: a projected disc of diameter D has variance D²/16."""
    card = shapes.plate(20.0, 20.0).turned("x", 90).at(10.0, 1.0)
    scene = mitsuba_scene([Part(card, (0.0, 0.0, 0.0))], [], (1.0, 1.0, 1.0), tmp_path)
    view = View((4, 64), 400.0, 0.05, (0.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    image = render(scene, view, 2.0, 256, 0)[..., 0].mean(0)
    light = -np.diff(image)
    x = np.arange(1, 64)
    mean = (x * light).sum() / light.sum()
    variance = ((x - mean) ** 2 * light).sum() / light.sum()
    diameter = 0.05 * 400.0 * abs(1 / 1.0 - 1 / 2.0)
    assert light.sum() == pytest.approx(1, abs=1e-6)
    assert mean == pytest.approx(32, abs=0.1)
    # Pixels add 1/12, steps between them as much again; 1024 paths per column leave 1 %.
    assert variance == pytest.approx(diameter**2 / 16 + 1 / 12, rel=0.04)


def test_command_gives_the_same_files_twice(mitsuba, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "path_traced_rooms.py"
    command = [sys.executable, str(script), "--variant", "scalar_rgb"]
    command += ["--scenes", "1", "--size", "40", "30", "--samples-per-pixel", "4", "--output"]
    for name in ("one", "two"):
        subprocess.run([*command, str(tmp_path / name)], check=True, capture_output=True)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 6 + 1 + 2
    for path in files:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    again = subprocess.run([*command, str(tmp_path / "one")], capture_output=True, text=True)
    assert again.returncode == 1
    assert "already holds truth" in again.stderr or "already holds stack" in again.stderr


def test_command_renders_the_kinds_asked_for(mitsuba, tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "path_traced_rooms.py"
    command = [sys.executable, str(script), "--variant", "scalar_rgb", "--output", str(tmp_path)]
    command += ["--scenes", "1", "--size", "40", "30", "--samples-per-pixel", "4", "--kinds"]
    subprocess.run([*command, "outdoor", "thin"], check=True, capture_output=True)
    (folder,) = tmp_path.iterdir()
    assert folder.name == "00_outdoor_medium"
    depth_m = np.load(folder / "truth" / "depth.npz")["depth"]
    assert KINDS["outdoor"].focus_distances_m[0] < depth_m.min()
    assert 20 < depth_m.max() < 80  # the background
