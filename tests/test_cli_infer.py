from __future__ import annotations

import io
import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from command_line import contents, exit_code, names, refusal
from PIL import Image
from sample_stacks import BLUR_SCALE_PX_M, FOCUS_M, photograph, texture

from focaldiffusion.checkpoints.checkpoint import Checkpoint
from focaldiffusion.checkpoints.finding import find_checkpoint
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.cli.main import main
from focaldiffusion.config.model import ModelConfig
from focaldiffusion.config.run import Config
from focaldiffusion.io.images import write_png
from focaldiffusion.optics import Camera, linear_to_srgb
from focaldiffusion.reconstruction import Settings
from focaldiffusion.scene import Scene
from focaldiffusion.simulation.capture import capture

SIZE = (64, 96)
DISTANCES = [0.4, 0.7, 1.5]
CAMERA = {"focal_length_px": 115.0, "aperture_diameter_m": 0.012}
FRAMES = ["frame_0.png", "frame_1.png", "frame_2.png"]


def write_stack(folder: Path) -> Path:
    """A stack of a textured, slanted plane, with its stack.json."""
    inverse_depth = torch.linspace(1 / DISTANCES[0], 1 / DISTANCES[-1], SIZE[1]).expand(SIZE)
    scene = Scene(
        torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)),
        1 / inverse_depth,
        torch.ones(SIZE, dtype=torch.bool),
        Camera(**CAMERA, image_size=SIZE),
        "test",
    )
    folder.mkdir()
    for index, frame in enumerate(linear_to_srgb(capture(scene, DISTANCES).images)):
        write_png(folder / f"frame_{index}.png", frame.permute(1, 2, 0).numpy())
    write_sidecar(folder, focus_distances_m=DISTANCES, camera=CAMERA)
    return folder


def write_large_stack(folder: Path, size: tuple[int, int], count: int) -> Path:
    """A stack that takes seconds and memory: one noise for all frames."""
    folder.mkdir()
    noise = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    for index in range(count):
        write_png(folder / f"frame_{index}.png", noise)
    distances = (1 / np.linspace(2.5, 0.7, count)).tolist()
    write_sidecar(folder, focus_distances_m=distances, camera=CAMERA)
    return folder


def write_sidecar(folder: Path, **content: Any) -> None:
    (folder / "stack.json").write_text(json.dumps(content))


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stack(tmp_path_factory.mktemp("pristine") / "plant")


@pytest.fixture
def stack(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "plant"))


def run(*argv: str | Path) -> int:
    return exit_code(main, *argv)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


BROKEN_STACKS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (shutil.rmtree, "plant: no such file or folder."),
    "empty": (lambda s: [one.unlink() for one in s.iterdir()], "plant: no images. Expected"),
    "one frame": (
        lambda s: [(s / name).unlink() for name in ("stack.json", *FRAMES[1:])],
        "frame_0.png: the only frame; a focal stack needs at least 2",
    ),
    "not an image": (lambda s: (s / FRAMES[1]).write_text("hello"), "frame_1.png: "),
    "empty file": (lambda s: (s / FRAMES[1]).write_bytes(b""), "frame_1.png: "),
    "truncated": (lambda s: truncate(s / FRAMES[2]), "frame_2.png: "),
    "sizes": (
        lambda s: Image.new("RGB", (90, 64)).save(s / FRAMES[1]),
        "frame_1.png: 90x64, but the first frame, frame_0.png, is 96x64. All frames need one size",
    ),
    "no JSON": (
        lambda s: (s / "stack.json").write_text('{"files": [}'),
        "stack.json: not JSON: Expecting value at line 1, column 12.",
    ),
    "unknown key": (
        lambda s: write_sidecar(s, focus_distance_m=DISTANCES),
        "stack.json: key 'focus_distance_m' is unknown; did you mean focus_distances_m?",
    ),
    "wrong count in stack.json": (
        lambda s: write_sidecar(s, focus_distances_m=[0.4, 0.7]),
        "stack.json: focus_distances_m: 2 values for 3 frames. Give one value for each frame",
    ),
    "no files in stack.json": (
        lambda s: write_sidecar(s, files=[]),
        "stack.json: files is empty. List the frames, or leave the key out.",
    ),
    "a frame by two names": (
        lambda s: write_sidecar(s, files=[*FRAMES, f"./{FRAMES[0]}"]),
        "stack.json: files lists 'frame_0.png' more than once.",
    ),
    "a folder for a frame": (
        lambda s: ((s / "sub").mkdir(), write_sidecar(s, files=[*FRAMES, "sub"])),
        "stack.json: files lists 'sub', which is a folder.",
    ),
    "a name of 5000 letters": (
        lambda s: write_sidecar(s, files=["a" * 5000]),
        "aaa', which ",
    ),
    "a number of 5000 digits": (
        lambda s: (s / "stack.json").write_text('{"focus_distances_m": [' + "1" * 5000 + "]}"),
        "stack.json: cannot be read (",
    ),
    "100000 brackets": (
        lambda s: (s / "stack.json").write_text("[" * 100_000),
        "stack.json: cannot be read (",
    ),
    "equal in stack.json": (
        lambda s: write_sidecar(s, focus_distances_m=[0.4, 0.7, 0.7]),
        "focus_distances_m: 0.7 appears more than once.",
    ),
}


@pytest.mark.parametrize("name", BROKEN_STACKS)
def test_a_broken_stack_is_refused_in_one_sentence(
    name: str, stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damage, message = BROKEN_STACKS[name]
    damage(stack)
    error = refusal(capsys, tmp_path, main, "infer", stack, "--output", tmp_path / "out")
    assert str(tmp_path) in error or name == "truncated"
    assert message in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--focus-distances 0.4 0.7", "given: focus_distances_m: 2 values for 3 frames."),
        ("--focus-distances 0.4,0.7,1,2", "focus_distances_m: 4 values for 3 frames."),
        ("--focus-distances 0 0.7 1", "focus_distances_m: [0.0, 0.7, 1.0] are not all positive."),
        ("--focus-distances -0.4,0.7 1", "[-0.4, 0.7, 1.0] are not all positive."),
        ("--focus-distances nan,0.7,1", "focus_distances_m: contains NaN"),
        ("--focus-distances 0.7,0.7,1", "focus_distances_m: 0.7 appears more than once."),
        ("--focus-distances inf,0.7,inf", "focus_distances_m: inf appears more than once."),
        ("--focus-distances inf,inf,inf", "focus_distances_m: inf appears more than once."),
        ("--focus-distances 1e-300,0.7,1", "focus_distances_m: 1e-300 is less than a micrometre."),
        ("--focus-positions 0 1 1e300", "1e+300 is no position of a rail or stage. Give metres."),
        ("--focus-positions 0 1e-300 1", "are less than a nanometre apart. Give metres."),
        ("--focus-distances 400,700,1500", "these look like millimetres. Give metres"),
        ("--focus-distances 0.4;0.7;1", "argument --focus-distances: '0.4;0.7;1' is not a number"),
        ("--focus-positions 0 0.001", "focus_positions_m: 2 values for 3 frames."),
        ("--focus-positions 0 0.001 inf", "are not all finite."),
        (
            "--focus-distances 0.4,0.7,1 --focus-positions 1 2 3",
            "argument --focus-positions: not allowed with argument --focus-distances",
        ),
        ("--f-number 0", "--f-number is 0.0; expected a positive number."),
        ("--f-number -2.8", "--f-number is -2.8; expected a positive number."),
        ("--focal-length-mm nan", "--focal-length-mm is nan; expected a positive number."),
        ("--f-number two", "argument --f-number: invalid float value: 'two'"),
        (
            "--f-number 2 --aperture-diameter-m 0.01",
            "--f-number and --aperture-diameter-m exclude each other; give one.",
        ),
        (
            "--focal-length-mm 500 --pixel-pitch-um 4 --f-number 2",
            "focus distance 0.4 m lies within the focal length 0.5 m",
        ),
        ("--psf box", "argument --psf: invalid choice: 'box'"),
        ("--psf-exponent 4", "--psf-exponent 4 does not apply to a disc; use it with"),
        ("--psf power-exponential --psf-exponent 1", "PSF exponent is 1.0; expected a number"),
        ("--working-size 0", "argument --working-size: '0'; expected a whole number from 1 on"),
        ("--device nonsense", "--device nonsense: torch cannot compute there"),
        ("--device meta", "--device meta: torch cannot compute there"),
        ("--device vulkan", "arguments from the 'Vulkan' backend). Use --device cpu, or install"),
        ("--model sd35", "model 'sd35' is unknown. Expected one of physics, compact. Others are"),
        ("--model phisics", "model 'phisics' is unknown; did you mean physics?"),
        ("--model ./weights.pt", "weights.pt: is no folder, and single files of weights are not"),
        ("--model physics --steps 2", "--steps: without meaning for --model physics, which is no"),
        ("--model physics --seed 0 --fill-unsharp", "--seed, --fill-unsharp: without meaning"),
        ("--tile-px 0", "argument --tile-px: '0'; expected a whole number from 1 on"),
        ("--model compact --dtype int8", "argument --dtype: invalid choice: 'int8'"),
        ("--focus_distances 1 2 3", "unrecognized arguments: --focus_distances"),
        ("--focus-dist 1 2 3", "unrecognized arguments: --focus-dist"),
        ("--overwrite --skip-existing", "--skip-existing: not allowed with argument --overwrite"),
        ("--files a.png b.png", "give stacks, or the frames of one stack with --files; not both."),
    ],
)
def test_a_wrong_flag_is_refused_in_one_sentence(
    flags: str, message: str, stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(
        capsys, tmp_path, main, "infer", stack, "--output", tmp_path / "out", *flags.split()
    )
    assert message in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(
        capsys, tmp_path, main, "infer", stack, "--output", tmp_path / "out", "--device", "cuda"
    )
    assert error.startswith("error: --device cuda: torch cannot compute there (")
    assert "Use --device cpu" in error


def test_no_stack_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give stacks" in refusal(capsys, tmp_path, main, "infer", "--output", tmp_path / "out")


def test_an_output_below_a_file_is_refused(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    error = refusal(capsys, tmp_path, main, "infer", stack, "--output", tmp_path / "file" / "out")
    assert f"{tmp_path / 'file'}: is a file; expected a folder for the results." in error


def test_the_folder_of_the_frames_is_no_output(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "link").symlink_to(stack)
    other = shutil.copytree(stack, tmp_path / "other")
    files = [stack / name for name in FRAMES]
    for argv in (
        [stack, "--output", tmp_path / "link"],
        [stack, other, "--output", tmp_path],
        ["--files", *files, "--output", stack],
    ):
        assert "holds the frames of a stack" in refusal(capsys, tmp_path, main, "infer", *argv)


def test_results_and_summary(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "deep" / "out"
    assert run("infer", stack, "--output", output) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0] == "plant: 3 frames of 96x64, calibrated"
    assert lines[1].startswith("  depth      0.")
    assert lines[2] == "  model      physics"
    assert lines[3] == "  alignment  not needed"
    assert lines[-1] == f"  results    {output}, best seen in overview.png"
    depth_m = np.load(output / "depth.npy")
    assert depth_m.shape == SIZE
    assert {"all_in_focus.png", "overview.png", "point_cloud.ply", "metadata.json"} <= set(
        names(output)
    )
    metadata = json.loads((output / "metadata.json").read_text())
    assert metadata["focus_distances_m"] == DISTANCES


def test_flags_reach_the_pipeline(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    flags = (
        "--focus-distances 0.5,1, inf --focal-length-mm 50 --f-number 4 --sensor-width-mm 36 "
        "--align off --drop-unaligned --working-size 48 --psf power-exponential --psf-exponent 4 "
        "--device cpu --model physics --no-point-cloud --quiet"
    )
    assert run("infer", "--output", output, *flags.split(), "--", stack) == 0
    assert capsys.readouterr() == ("", "")
    metadata = json.loads((output / "metadata.json").read_text())
    assert metadata["focus_distances_m"] == [0.5, 1, None]
    assert metadata["settings"] == {
        "align": "off",
        "drop_unaligned": True,
        "find_blur": False,
        "working_size": 48,
        "psf": {"family": "power_exponential", "exponent": 4},
        "device": "cpu",
        "fill_unsharp": False,
    }
    assert metadata["working_size"] == [32, 48]
    # 50 mm / 4, and 50 mm over 36 mm / 96 px, at half the size, at the reference's focus.
    camera = metadata["camera_at_working_size"]
    assert camera["aperture_diameter_m"] == pytest.approx(0.0125)
    assert camera["focal_length_px"] == pytest.approx(50 / (36 / 96) / 2 / (1 - 0.05 / 1))
    assert not (output / "point_cloud.ply").exists()


def test_help_states_the_defaults_that_the_settings_have(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("infer", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    settings = Settings()
    for default in (settings.align, settings.working_size, settings.device):
        assert f"(default: {default})" in text
    assert f"(default: {settings.psf.family}, an ideal lens)" in text
    assert f"(default: {settings.psf.exponent:g})" in text


def test_what_unknown_name_is_told_with_its_reason(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (stack / "stack.json").unlink()
    assert run("infer", stack, "--output", tmp_path / "out") == 0
    out, err = capsys.readouterr()
    assert out.startswith("plant: 3 frames of 96x64, order only\n")
    assert "  depth      relative, from 0 (first frame) to 1 (last frame)" in out
    warnings = err.splitlines()
    assert [line.split(" unknown: ")[0] for line in warnings] == [
        "warning: plant: camera",
        "warning: plant: focus_distances_m",
    ]
    assert "no focal length, pixel pitch, f-number (frame_0.png: " in warnings[0]
    assert not (tmp_path / "out" / "depth.npy").exists()


def test_a_lens_that_does_not_explain_the_frames_is_told(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = json.loads((stack / "stack.json").read_text())
    note["camera"]["aperture_diameter_m"] *= 5
    (stack / "stack.json").write_text(json.dumps(note))
    assert run("infer", stack, "--output", tmp_path / "out", "--model", "physics") == 0
    err = capsys.readouterr().err
    found = r"warning: plant: the frames show (0\.\d+) times the blur that the camera and .*\n"
    match = re.fullmatch(found, err)
    assert match is not None
    assert float(match[1]) == pytest.approx(0.2, rel=0.15)

    flags = ("--model", "physics", "--find-blur", "--overwrite")
    assert run("infer", stack, "--output", tmp_path / "out", *flags) == 0
    out, err = capsys.readouterr()
    assert out.startswith("plant: 3 frames of 96x64, focus distances only\n")
    assert err == ""


def test_what_alignment_found_is_told(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [np.asarray(Image.open(stack / name)) for name in FRAMES]
    Image.fromarray(np.roll(frames[2], 4, axis=1)).save(stack / FRAMES[2])
    noise = np.random.default_rng(1).integers(0, 256, frames[0].shape, dtype=np.uint8)
    Image.fromarray(noise).save(stack / "frame_3.png")
    (stack / "stack.json").unlink()
    command = ("infer", stack, "--output", tmp_path / "out")
    assert "frame_3.png" in refusal(capsys, tmp_path, main, *command)
    assert run(*command, "--drop-unaligned") == 0
    out = capsys.readouterr().out
    assert "  left out   frame_3.png: matches no other frame\n" in out
    assert "  alignment  undone: frames moved by up to 4" in out


def test_a_name_that_the_terminal_cannot_show(
    stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = stack.rename(tmp_path / "größe")
    output = tmp_path / "out"
    output.mkdir()
    (output / "metadata.json").write_text("{}")
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run("infer", named, "--output", output, "--skip-existing") == 0
    terminal.seek(0)
    assert terminal.read() == f"gr\\xf6\\xdfe: skipped, {output} holds results\n"


def test_files_are_one_stack_in_their_order(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [stack / FRAMES[2], stack / FRAMES[0]]
    output = tmp_path / "out"
    assert run("infer", "--files", *files, "--output", output, "--json") == 0
    (report,) = json.loads(capsys.readouterr().out)["stacks"]
    assert report["name"] == "plant"
    assert report["figures"]["frames"] == 2
    metadata = json.loads((output / "metadata.json").read_text())
    assert metadata["frames"] == [str(one) for one in files]
    assert metadata["focus_distances_m"] == [DISTANCES[2], DISTANCES[0]]


def test_earlier_results_are_kept_skipped_or_replaced(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(stack, tmp_path / "other"))
    output = tmp_path / "out"
    command = ("infer", stack, other, "--output", output)
    assert run("infer", stack, "--output", output / "plant", "--quiet") == 0
    (output / "plant" / "notes.txt").write_text("mine")

    # Refused before any work: the other stack has no results either.
    error = refusal(capsys, tmp_path, main, *command)
    assert f"{output / 'plant'}: already holds all_in_focus.png, depth.npy" in error
    assert "--overwrite" in error

    first = contents(output / "plant")
    assert run(*command, "--skip-existing", "--json") == 0
    report = json.loads(capsys.readouterr().out)["stacks"]
    assert [(one["name"], one["status"]) for one in report] == [
        ("plant", "skipped"),
        ("other", "done"),
    ]
    assert contents(output / "plant") == first

    assert run(*command, "--skip-existing") == 0
    skipped = f"plant: skipped, {output / 'plant'} holds results\n"
    assert capsys.readouterr().out.startswith(skipped)

    assert run("infer", stack, "--output", output / "plant", "--overwrite", "--align=off") == 0
    assert contents(output / "plant")["metadata.json"] != first["metadata.json"]
    assert (output / "plant" / "notes.txt").read_text() == "mine"


def test_in_a_batch_the_others_still_run(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing, cut, good = tmp_path / "missing", tmp_path / "cut", tmp_path / "good"
    shutil.copytree(stack, cut)
    shutil.copytree(stack, good)
    truncate(cut / FRAMES[1])
    output = tmp_path / "out"
    assert run("infer", missing, cut, good, stack, "--output", output, "--json") == 1
    out, err = capsys.readouterr()
    assert names(output) == ["good", "plant"]

    lines = err.splitlines()
    assert lines[0] == f"error: {missing}: no such file or folder."
    assert lines[1].startswith(f"error: cut: {cut / FRAMES[1]}: ")
    assert lines[2] == "2 of 4 stacks failed:"
    assert lines[3] == f"  {missing}: no such file or folder."
    assert lines[4].startswith(f"  cut: {cut / FRAMES[1]}: ")
    assert len(lines) == 5

    report = json.loads(out)["stacks"]
    assert [one["status"] for one in report] == ["failed", "failed", "done", "done"]
    assert report[0]["output"] is None
    assert "no such file" in report[0]["error"]
    done = report[2]
    assert done["output"] == str(output / "good")
    assert sorted(done["files"]) == names(output / "good")
    assert done["grade"] == "calibrated"
    assert done["figures"]["depth_field"] == "depth_m"
    low, high = done["figures"]["depth_range"]
    assert 0.3 < low < high < 2
    assert done["figures"]["alignment"]["mode"] == "auto"


def test_a_batch_without_any_result(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in FRAMES:
        truncate(stack / name)
    code = run("infer", stack, tmp_path / "absent", "--output", tmp_path / "out", "--quiet")
    assert code == 2
    assert "2 of 2 stacks failed:" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_empty_output_is_refused(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, tmp_path, main, "infer", stack, "--output", "")
    assert "argument --output: is empty; expected a path" in error


def test_one_failed_stack_with_json(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truncate(stack / FRAMES[0])
    assert run("infer", stack, "--output", tmp_path / "out", "--json") == 2
    (report,) = json.loads(capsys.readouterr().out)["stacks"]
    assert report["status"] == "failed"
    assert FRAMES[0] in report["error"]


def test_stacks_of_one_name_are_refused(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("plant", "Plant"):
        other = shutil.copytree(stack, tmp_path / f"other_{name}" / name)
        error = refusal(capsys, tmp_path, main, "infer", stack, other, "--output", tmp_path / "out")
        assert f"{stack} and {other}: two stacks named {name}" in error


def test_results_of_several_stacks_get_a_folder_each(stack: Path, tmp_path: Path) -> None:
    tiff = tmp_path / "sweep.tif"
    frames = [Image.open(stack / name) for name in FRAMES]
    frames[0].save(tiff, save_all=True, append_images=frames[1:])
    assert run("infer", tiff, stack, "--output", tmp_path / "out", "--quiet") == 0
    assert names(tmp_path / "out") == ["plant", "sweep"]


# With a model


def save_model(folder: Path, start: Literal["estimate", "noise"]) -> Path:
    """A checkpoint of the model in miniature, with random weights."""
    config = Config(model=ModelConfig(preset="tiny", start=start))
    model = FocalDiffusionPipeline.from_preset("tiny", start)
    save_checkpoint(model, folder, config, {"steps": 0}, adapter_only=False)
    return folder


@pytest.fixture(scope="session")
def from_noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "noise", "noise")


@pytest.fixture(scope="session")
def from_estimate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model") / "estimate", "estimate")


def metadata_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "metadata.json").read_text())


def test_a_model_reconstructs_and_metadata_say_how_to_repeat_it(
    stack: Path, tmp_path: Path, from_noise: Path
) -> None:
    other = shutil.copytree(stack, tmp_path / "other")
    output = tmp_path / "out"
    flags = "--steps 2 --ensemble 3 --seed 4 --tile-px 64 --dtype float32 --quiet"
    done = subprocess.run(
        command("infer", stack, other, "--output", output, "--model", from_noise, *flags.split()),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    metadata = metadata_of(output / "plant")
    assert metadata["model"] == str(from_noise)
    generation = metadata["generation"]
    given = {"steps": 2, "ensemble": 3, "seed": 4, "tile_px": 64, "dtype": "float32"}
    assert {name: generation[name] for name in given} == given
    assert generation["mean_spread"] > 0
    checkpoint = find_checkpoint(str(from_noise))
    assert generation["checkpoint"] == checkpoint.as_json()
    assert generation["checkpoint"]["sha256"] == checkpoint.digest
    # The same seed, the same result.
    np.testing.assert_array_equal(
        np.load(output / "plant" / "depth.npy"), np.load(output / "other" / "depth.npy")
    )


def test_an_untrained_model_from_the_estimate_is_physics_to_its_autoencoder(
    stack: Path, tmp_path: Path, from_estimate: Path
) -> None:
    for model in ("physics", from_estimate):
        output = tmp_path / Path(model).name
        assert run("infer", stack, "--output", output, "--model", model, "--quiet") == 0
    physics, tiny = tmp_path / "physics", tmp_path / "estimate"
    # Captured pixels win: the image is fused without the model.
    assert (physics / "all_in_focus.png").read_bytes() == (tiny / "all_in_focus.png").read_bytes()
    assert metadata_of(physics)["generation"] is None
    assert metadata_of(tiny)["generation"]["steps"] == 1


def test_generated_pixels_are_marked(tmp_path: Path, from_estimate: Path) -> None:
    # The left half lies at 4 dpt, 16 px of blur from the nearest focus.
    inverse_depth_dpt = torch.ones(SIZE)
    inverse_depth_dpt[:, : SIZE[1] // 2] = 4
    photographed = photograph(texture(SIZE), 1 / inverse_depth_dpt, size=SIZE)
    folder = tmp_path / "plant"
    folder.mkdir()
    for index, frame in enumerate(linear_to_srgb(photographed.images)):
        write_png(folder / f"frame_{index}.png", frame.permute(1, 2, 0).numpy())
    camera = {"focal_length_px": 1000.0, "aperture_diameter_m": BLUR_SCALE_PX_M / 1000}
    write_sidecar(folder, focus_distances_m=FOCUS_M, camera=camera)
    flags = ("--output", tmp_path / "out", "--model", from_estimate, "--fill-unsharp", "--quiet")
    assert run("infer", folder, *flags) == 0
    marked = np.asarray(Image.open(tmp_path / "out" / "source_index.png")) == 255
    assert marked[:, : SIZE[1] // 2].mean() > 0.5
    assert marked[:, SIZE[1] // 2 :].mean() < 0.1
    metadata = metadata_of(tmp_path / "out")
    assert metadata["settings"]["fill_unsharp"] is True
    assert "255" in metadata["results"]["files"]["source_index.png"]


def test_stacks_of_any_grade_and_count_go_through_one_model(
    tmp_path: Path, from_estimate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = Checkpoint.load

    def counted(checkpoint: Checkpoint, **settings: Any) -> FocalDiffusionPipeline:
        loads.append(checkpoint.name)
        return load(checkpoint, **settings)

    monkeypatch.setattr(Checkpoint, "load", counted)
    stacks = []
    for count in (2, 5, 9):
        folder = write_large_stack(tmp_path / f"of_{count}", SIZE, count)
        stacks.append(folder)
        unknown = Path(shutil.copytree(folder, tmp_path / f"order_only_{count}"))
        (unknown / "stack.json").unlink()
        stacks.append(unknown)
    flags = ("--output", tmp_path / "out", "--model", from_estimate, "--quiet")
    assert run("infer", *stacks, *flags) == 0
    assert loads == [str(from_estimate)]
    assert (tmp_path / "out" / "order_only_9" / "depth_relative.npy").is_file()
    assert (tmp_path / "out" / "of_9" / "depth.npy").is_file()


def test_a_model_is_loaded_only_for_stacks_that_are_due(
    stack: Path, tmp_path: Path, from_noise: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Path(shutil.copytree(from_noise, tmp_path / "model"))
    (model / "denoiser" / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    common = ("infer", stack, "--output", tmp_path / "out", "--model", model)
    assert "denoiser: expected config.json and weights in safe" in refusal(
        capsys, tmp_path, main, *common
    )
    assert run("infer", stack, "--output", tmp_path / "out", "--quiet") == 0
    assert run(*common, "--skip-existing", "--quiet") == 0


@pytest.mark.parametrize(
    ("start", "flags", "message"),
    [
        ("estimate", "--steps 4", "steps: got 4, but this model goes from the physical estimate"),
        ("estimate", "--ensemble 2", "ensemble: got 2, but this model starts from the physical"),
        ("noise", "--tile-px 30", "tile_px: got 30; expected 64 to 384 for this model."),
        ("noise", "--attention xformers", "attention 'xformers' needs the package xformers, which"),
        ("noise", "--base-model sd", "has all weights, and reads none of the base model sd."),
        ("noise", "--config {config}", 'model.start: the configuration says "estimate", but the c'),
        ("noise", "--config none.yaml", "none.yaml"),
    ],
)
def test_what_a_model_cannot_do_is_refused_before_any_work(
    start: str,
    flags: str,
    message: str,
    stack: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    model = request.getfixturevalue(f"from_{start}")
    config = tmp_path / "run.yaml"
    config.write_text("model: {start: estimate}")
    argv = ("--model", model, *flags.format(config=config).split())
    error = refusal(capsys, tmp_path, main, "infer", stack, "--output", tmp_path / "out", *argv)
    assert message in error


def test_a_configuration_that_agrees_is_taken(
    stack: Path, tmp_path: Path, from_noise: Path
) -> None:
    config = tmp_path / "run.yaml"
    # Where its training data lie is nothing that inference needs to know.
    config.write_text("model: {preset: tiny, start: noise}\ndata: {data_root: '${NOT_SET}'}")
    flags = ("--output", tmp_path / "out", "--model", from_noise, "--config", config, "--quiet")
    assert run("infer", stack, *flags) == 0


# What follows needs a process of its own.


def command(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "focaldiffusion", *map(str, argv)]


@pytest.mark.parametrize("module", ["focaldiffusion", "focaldiffusion.cli.main"])
def test_version_and_modules(module: str) -> None:
    for flag, text in (("--version", "focaldiffusion 0."), ("--help", "usage: focaldiffusion")):
        done = subprocess.run(
            [sys.executable, "-m", module, flag], capture_output=True, text=True, check=True
        )
        assert done.stdout.startswith(text)


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys\nfrom focaldiffusion.cli.main import main\n"
        "heavy = {'torch', 'numpy', 'cv2', 'PIL', 'diffusers', 'huggingface_hub', 'pydantic',"
        " 'rich', 'safetensors', 'transformers'}\n"
        "try: main(['infer', '--help'])\n"
        "except SystemExit: print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_disk_that_refuses_leaves_nothing(stack: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    done = subprocess.run(
        command("infer", stack, "--output", tmp_path / "new" / "out"),
        capture_output=True,
        text=True,
        # The kernel refuses any byte beyond, as a full disk does.
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {tmp_path / 'new' / 'out'}: cannot write results (")
    assert done.stderr.count("\n") == 1
    assert contents(tmp_path) == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("model", "ways"),
    [
        ("physics", "lower --working-size, make the frames smaller, give fewer of them"),
        ("noise", "lower --working-size, lower --tile-px, use --dtype bfloat16"),
    ],
)
def test_memory_that_runs_out_is_told(
    model: str, ways: str, tmp_path: Path, from_noise: Path
) -> None:
    chosen = str(from_noise) if model == "noise" else model
    stack = write_large_stack(tmp_path / "plant", (600, 800), count=3)
    # Memory is limited once everything is imported and OpenBLAS, which ends the process where it
    # cannot have its buffers, has them: libraries reserve far more than they use.
    script = (
        "import resource, sys\n"
        "import focaldiffusion.checkpoints.pipeline, focaldiffusion.checkpoints.checkpoint\n"
        "import focaldiffusion.io.results\n"
        "from focaldiffusion.cli.main import main\n"
        "import torch; torch.set_num_threads(1); import cv2; cv2.setNumThreads(1)\n"
        "import numpy; numpy.linalg.solve(numpy.eye(300), numpy.ones((300, 300)))\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "limit = pages * resource.getpagesize() + 60 * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    argv = ("infer", str(stack), "--output", str(tmp_path / "out"), "--model", chosen)
    before = contents(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", script, *argv],
        capture_output=True,
        text=True,
    )
    assert done.stderr == (
        "error: plant: not enough memory on cpu for 3 frames of 800x600. What helps most, in this "
        f"order: {ways}.\n"
    )
    assert done.returncode == 2
    assert contents(tmp_path) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle(number: signal.Signals, code: int, tmp_path: Path) -> None:
    stack = write_large_stack(tmp_path / "plant", (240, 320), count=8)
    before = contents(tmp_path)
    # A terminal, so that the bars show when the computing begins.
    terminal, stderr = pty.openpty()
    child = subprocess.Popen(
        command("infer", stack, "--output", tmp_path / "new" / "out"),
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "100"},
        # A shell's background jobs, and so their children, may ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    os.close(stderr)
    shown = b""
    deadline = time.monotonic() + 60
    while b"sweeping" not in shown and time.monotonic() < deadline:
        shown += os.read(terminal, 4096)
    child.send_signal(number)
    while True:
        try:
            shown += os.read(terminal, 4096)
        except OSError:  # closed by the child
            break
    os.close(terminal)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == code
    assert out == b""
    assert b"Traceback" not in shown
    assert b"left" in shown
    assert contents(tmp_path) == before
