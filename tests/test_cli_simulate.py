from __future__ import annotations

import json
import math
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import contents, exit_code, names, refusal
from fixtures import rgbd
from PIL import Image

from focaldiffusion.cli.main import main
from focaldiffusion.io.images import read_image
from focaldiffusion.io.stacks import open_stack
from focaldiffusion.optics import Camera, linear_to_srgb, srgb_to_linear
from focaldiffusion.psf import PSF
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture

SIZE = (40, 60)
PIXEL_CAMERA = ("--focal-length-px", "80", "--aperture-diameter-m", "0.01")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A folder with an image and its depth, 0.5 m to 2 m, unknown in one corner."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    depth_m = np.linspace(0.5, 2, SIZE[1], dtype=np.float32) * np.ones(SIZE, np.float32)
    depth_m[:3, :3] = np.nan
    folder = tmp_path / "scene"
    folder.mkdir()
    Image.fromarray(pixels).save(folder / "image.png")
    np.save(folder / "depth.npy", depth_m)
    return folder


def with_files(folder: Path, *flags: str | Path) -> list[str | Path]:
    """The arguments for the files of a folder; flags come last and so win."""
    files = ("--image", folder / "image.png", "--depth", folder / "depth.npy")
    defaults = ("--output", folder.parent / "out", "--focus-distances", "0.5,1,inf")
    return ["simulate", *files, *defaults, *flags]


def simulate(folder: Path, *flags: str | Path) -> int:
    return exit_code(main, *with_files(folder, *flags))


def of_dataset(name: str, *flags: str | Path) -> tuple[str | Path, ...]:
    focus = ("--focus-distances", "1,2", "--quiet")
    return ("simulate", "--dataset", name, *focus, *flags)


def test_procedural_scenes_need_no_folder(tmp_path: Path) -> None:
    assert exit_code(main, *of_dataset("procedural", "--output", tmp_path / "out")) == 0
    assert len(names(tmp_path / "out" / "stack")) == 3


def test_the_depth_scale_is_that_of_a_sample_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    room = tmp_path / "tree" / "room"
    rgbd.write(room)
    stored = np.load(room / "depth.npz")["depth"]
    lens = ("--f-number", "2", "--sensor-width-mm", "36", "--depth-scale", "0.5")
    where = ("--data-root", tmp_path / "tree", "--output", tmp_path / "out")
    assert exit_code(main, *of_dataset("rgbd", *where, *lens)) == 0
    depth_m = np.load(tmp_path / "out" / "truth" / "depth.npz")["depth"]
    np.testing.assert_allclose(depth_m, stored * 0.5)
    argv = of_dataset("procedural", "--depth-scale", "0.5", "--output", tmp_path / "no")
    assert "depth_scale is 0.5, but that of procedural is 1.0" in refusal(
        capsys, tmp_path, main, *argv
    )


def test_a_sample_keeps_its_own_lens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lens = ("--focal-length-px", "500", "--aperture-diameter-m", "0.2")
    argv = of_dataset("procedural", *lens, "--output", tmp_path / "out")
    err = refusal(capsys, tmp_path, main, *argv)
    assert "has a lens of its own with focal_length_px " in err
    assert "but the flags give 500. Drop them" in err


def test_a_lens_in_other_units_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rgbd.write(tmp_path / "tree")
    where = ("--data-root", tmp_path / "tree", "--output", tmp_path / "out", "--f-number", "2")
    for width, message in (("36000", "36 looks like millimetres"), ("0.036", "3.6e-05 metres is")):
        argv = of_dataset("rgbd", *where, "--sensor-width-mm", width)
        err = refusal(capsys, tmp_path, main, *argv)
        assert f"--sensor-width-mm {width}: {message}" in err


def test_the_stack_is_what_capture_makes(scene: Path, tmp_path: Path) -> None:
    flags = ("--psf", "power-exponential", "--psf-exponent", "4", "--noise-lsb", "2", "--seed", "7")
    assert simulate(scene, *PIXEL_CAMERA, *flags, "--bit-depth", "16", "--quiet") == 0
    output = tmp_path / "out"

    encoded = read_image(scene / "image.png")
    depth_m = torch.from_numpy(np.load(scene / "depth.npy"))
    truth = Scene(
        srgb_to_linear(torch.from_numpy(encoded.copy()).permute(2, 0, 1)),
        depth_m,
        ~depth_m.isnan(),
        Camera(80, 0.01, SIZE),
        "test",
    )
    expected = capture(
        truth,
        [0.5, 1, math.inf],
        psf=PSF("power_exponential", 4),
        noise_std_lsb=2,
        bit_depth=16,
        generator=torch.Generator().manual_seed(7),
    )
    opened = open_stack(output / "stack")
    assert opened.focus_distances_m == (0.5, 1, math.inf)
    assert opened.camera_for(0) == expected.camera
    assert opened.frames.bit_depth == 16
    for index in range(3):
        frame = linear_to_srgb(expected.images[index]).permute(1, 2, 0).numpy()
        np.testing.assert_allclose(opened.frames.read(index), frame, atol=0.6 / 65535)

    np.testing.assert_allclose(
        read_image(output / "truth" / "all_in_focus.png"), encoded, atol=0.6 / 65535
    )
    with np.load(output / "truth" / "depth.npz") as arrays:
        np.testing.assert_array_equal(arrays["depth"], depth_m.numpy())
    assert names(output) == ["stack", "truth"]


def test_a_lens_in_millimetres(scene: Path, tmp_path: Path) -> None:
    flags = ("--focal-length-mm", "50", "--f-number", "2", "--sensor-width-mm", "36")
    assert simulate(scene, *flags) == 0
    camera = open_stack(tmp_path / "out" / "stack").camera_for(0)
    assert camera is not None
    assert camera.focal_length_px == pytest.approx(50 / 36 * 60)
    assert camera.aperture_diameter_m == pytest.approx(0.025)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("depth.png", ()),
        ("depth.npz", ()),
        ("other.npz", ()),
        ("decimetres.png", ("--depth-scale", "0.1")),
        ("millimetres.npy", ("--depth-scale", "0.001")),
    ],
)
def test_depth_comes_as_npy_npz_and_png(
    name: str, flags: tuple[str, ...], scene: Path, tmp_path: Path
) -> None:
    depth_m = np.full(SIZE, 2.0, np.float32)
    depth_m[:, 30:] = np.nan
    np.savez(scene / "depth.npz", other=np.zeros(3), depth=depth_m)
    np.savez(scene / "other.npz", z=depth_m)
    np.save(scene / "millimetres.npy", depth_m * 1000)
    for path, scale in (("depth.png", 1000), ("decimetres.png", 10)):
        units = np.nan_to_num(depth_m * scale).astype(np.uint16)
        Image.fromarray(units).save(scene / path)
    assert simulate(scene, *PIXEL_CAMERA, *flags, "--depth", scene / name) == 0
    with np.load(tmp_path / "out" / "truth" / "depth.npz") as arrays:
        np.testing.assert_allclose(arrays["depth"], depth_m, rtol=1e-6)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("", "camera unknown: no focal length, pixel pitch, f-number. Give --focal-length-px"),
        ("--focal-length-px 80", "camera unknown: no focal length, f-number. Give"),
        ("--focal-length-mm 50 --f-number 2", "camera unknown: no pixel pitch. Give"),
        ("--focal-length-mm 50 --f-number 0", "--f-number is 0.0; expected a positive"),
        ("--focal-length-mm 500 --f-number 2 --sensor-width-mm 36", "within the focal length"),
        ("CAMERA --focus-distances 1", "--focus-distances: a stack needs at least 2 frames"),
        ("CAMERA --focus-distances 1 -1", "[1.0, -1.0] are not all positive"),
        ("CAMERA --focus-distances 1 1", "1.0 appears more than once"),
        ("CAMERA --focus-distances 500 1000", "these look like millimetres"),
        ("CAMERA --depth-scale 0", "--depth-scale is 0.0; expected a positive number"),
        ("CAMERA --noise-lsb -1", "--noise-lsb is -1.0; expected a number from 0 on"),
        ("CAMERA --seed 1e3", "argument --seed: '1e3'; expected a whole number from 0 to 2^63 - 1"),
        ("CAMERA --seed 99999999999999999999", "expected a whole number from 0 to 2^63 - 1"),
        ("CAMERA --sample 3", "--sample does not apply to --image; use it with --dataset."),
        ("CAMERA --bit-depth 12", "argument --bit-depth: invalid choice: 12"),
        ("CAMERA --psf box", "argument --psf: invalid choice: 'box'"),
        ("CAMERA --image missing.png", "missing.png"),
        ("CAMERA --depth missing.npz", "missing.npz: no such file"),
        ("CAMERA --depth SCENE/image.png", "expected 16-bit grey millimetres"),
        ("CAMERA --depth SCENE/depth.bmp", "depth.bmp: .bmp; expected depth as one of .npy, .npz"),
        ("CAMERA --depth SCENE/small.npy", "small.npy: 30x20, but"),
        ("CAMERA --depth SCENE/zero.npy", "pixels marked valid have a depth that is not a pos"),
        ("CAMERA --depth SCENE/unknown.npy", "unknown.npy: no pixel has a valid depth."),
        ("CAMERA --depth SCENE/millimetres.npy", "half of the depth is above 100, which looks"),
        ("CAMERA --depth SCENE/two.npz", "two.npz: holds a, b; expected one array"),
        ("CAMERA --output SCENE/image.png", "image.png: is a file; expected a folder."),
        ("CAMERA --output SCENE/image.png/out", "cannot write results (Not a directory)"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(
    flags: str, message: str, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(scene / "small.npy", np.ones((20, 30), np.float32))
    np.save(scene / "zero.npy", np.zeros(SIZE, np.float32))
    np.save(scene / "unknown.npy", np.full(SIZE, np.nan, np.float32))
    np.save(scene / "millimetres.npy", np.full(SIZE, 1500, np.float32))
    np.savez(scene / "two.npz", a=np.ones(SIZE), b=np.ones(SIZE))
    text = flags.replace("CAMERA", " ".join(PIXEL_CAMERA)).replace("SCENE", str(scene))
    argv = with_files(scene, *text.split())
    assert message in refusal(capsys, tmp_path, main, *argv)


def test_an_earlier_simulation_is_replaced_only_on_request(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert simulate(scene, *PIXEL_CAMERA) == 0
    assert capsys.readouterr().out == (
        f"3 frames of 60x40 in {output / 'stack'}, the truth in {output / 'truth'}\n"
    )
    assert simulate(scene, *PIXEL_CAMERA) == 2
    assert f"{output}: already holds stack." in capsys.readouterr().err

    assert simulate(scene, *PIXEL_CAMERA, "--focus-distances", "1,2", "--overwrite") == 0
    assert names(output / "stack") == ["frame_00.png", "frame_01.png", "stack.json"]

    (output / "stack" / "my_photo.jpg").write_bytes(b"mine")
    capsys.readouterr()
    assert simulate(scene, *PIXEL_CAMERA, "--overwrite") == 2
    assert "holds my_photo.jpg, which no simulation wrote" in capsys.readouterr().err
    (output / "stack" / "my_photo.jpg").unlink()

    # A stack.json that a person wrote.
    (output / "stack" / "stack.json").write_text(json.dumps({"files": ["frame_00.png"]}))
    assert simulate(scene, *PIXEL_CAMERA, "--overwrite") == 2
    assert "holds frame_00.png, which no simulation wrote" in capsys.readouterr().err


def test_a_disk_that_refuses_leaves_nothing(scene: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    argv = with_files(scene, *PIXEL_CAMERA, "--output", tmp_path / "new" / "out")
    done = subprocess.run(
        [sys.executable, "-m", "focaldiffusion", *map(str, argv)],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'new' / 'out'}: cannot write results (")
    assert contents(tmp_path) == before
