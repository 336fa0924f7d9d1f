from __future__ import annotations

import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import names, refusal
from PIL import Image
from plant import (
    DISTANCES,
    FRAMES,
    SIZE,
    run,
    truncate,
    write_sidecar,
)

from focaldiffusion.cli.main import main
from focaldiffusion.reconstruction import Settings

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
        "frame_1.png: 90x64, but the other frames, such as frame_0.png, are 96x64.",
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
        "stack.json: focus_distances_m: 2 values for 3 frames. Give one value per frame",
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
        (
            "--focus-positions 0 1 1e300",
            "1e+300 is not a position of a rail or stage. Give metres.",
        ),
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
        ("--threads 0", "argument --threads: '0'; expected a whole number from 1 on"),
        ("--threads all", "argument --threads: 'all'; expected a whole number from 1 on"),
        ("--image-only --depth-format npy", "--depth-format: no effect with --image-only, which"),
        (
            "--image-only --model compact --point-cloud on",
            "--point-cloud, --model: no effect with --image-only, which makes no depth.",
        ),
        ("--point-cloud maybe", "argument --point-cloud: invalid choice: 'maybe'"),
        ("--device nonsense", "device nonsense: torch cannot compute there"),
        ("--device meta", "device meta: torch cannot compute there"),
        ("--device vulkan", "arguments from the 'Vulkan' backend). Use cpu or auto, or install"),
        ("--model sd35", "model 'sd35' is unknown. Expected one of physics, compact. Other models"),
        ("--model phisics", "model 'phisics' is unknown; did you mean physics?"),
        ("--model ./weights.pt", "weights.pt: not a folder, and single files of weights are not"),
        ("--model physics --steps 2", "--steps: no effect with --model physics, which is not"),
        ("--model physics --seed 0 --fill-unsharp", "--seed, --fill-unsharp: no effect with"),
        ("--tile-px 0", "argument --tile-px: '0'; expected a whole number from 1 on"),
        ("--model compact --dtype int8", "argument --dtype: invalid choice: 'int8'"),
        ("--focus_distances 1 2 3", "unrecognized arguments: --focus_distances"),
        ("--focus-dist 1 2 3", "unrecognized arguments: --focus-dist"),
        ("--overwrite --skip-existing", "--skip-existing: not allowed with argument --overwrite"),
        ("--files a.png b.png", "give either stacks, or the frames of one stack with --files."),
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
def test_missing_cuda_is_refused(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(
        capsys, tmp_path, main, "infer", stack, "--output", tmp_path / "out", "--device", "cuda"
    )
    assert error.startswith("error: device cuda: torch cannot compute there (")
    assert "Use cpu or auto" in error


def test_no_stack_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "give either stacks" in refusal(
        capsys, tmp_path, main, "infer", "--output", tmp_path / "out"
    )


def test_an_output_below_a_file_is_refused(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("mine")
    error = refusal(capsys, tmp_path, main, "infer", stack, "--output", tmp_path / "file" / "out")
    assert f"{tmp_path / 'file'}: is a file; expected a folder for the results." in error


def test_the_folder_of_the_frames_is_not_an_output(
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
    assert lines[2] == "  model      physics, on cpu"
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
        "--device cpu --threads 1 --model physics --point-cloud off --quiet"
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
        "threads": 1,
        "fill_unsharp": False,
        "image_only": False,
        "sampling": {"steps": None, "ensemble": 1, "seed": 0, "tile_px": None},
    }
    assert metadata["working_size"] == [32, 48]
    # 50 mm / 4, and 50 mm over 36 mm / 96 px, at half the size, at the reference's focus.
    camera = metadata["camera_at_working_size"]
    assert camera["aperture_diameter_m"] == pytest.approx(0.0125)
    assert camera["focal_length_px"] == pytest.approx(50 / (36 / 96) / 2 / (1 - 0.05 / 1))
    assert not (output / "point_cloud.ply").exists()


def test_the_image_alone_is_the_same(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("infer", stack, "--output", tmp_path / "all", "--quiet") == 0
    assert run("infer", stack, "--output", tmp_path / "image", "--image-only") == 0
    out = capsys.readouterr().out
    assert "  depth      none, only the image is wanted\n" in out
    assert out.endswith("image, best seen in all_in_focus.png\n")
    assert set(names(tmp_path / "image")) == {
        "all_in_focus.png",
        "metadata.json",
        "source_index.png",
    }
    for name in ("all_in_focus.png", "source_index.png"):
        alone, beside = (tmp_path / folder / name for folder in ("image", "all"))
        assert alone.read_bytes() == beside.read_bytes()
    metadata = json.loads((tmp_path / "image" / "metadata.json").read_text())
    assert "completing" not in metadata["seconds"]


def test_help_states_the_defaults_of_the_settings(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("infer", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    settings = Settings()
    for default in (settings.align, settings.working_size, settings.device):
        assert f"(default: {default})" in text
    assert f"(default: {settings.psf.family}, an ideal lens)" in text
    assert f"(default: {settings.psf.exponent:g})" in text


def test_unknown_facts_are_reported_with_their_reason(
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


def test_a_lens_that_contradicts_the_frames_is_reported(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note = json.loads((stack / "stack.json").read_text())
    note["camera"]["aperture_diameter_m"] *= 5
    (stack / "stack.json").write_text(json.dumps(note))
    assert run("infer", stack, "--output", tmp_path / "out", "--model", "physics") == 0
    err = capsys.readouterr().err
    found = (
        r"warning: plant: the frames show (0\.\d+) times the blur predicted from the camera .*\n"
    )
    match = re.fullmatch(found, err)
    assert match is not None
    assert float(match[1]) == pytest.approx(0.2, rel=0.15)

    flags = ("--model", "physics", "--find-blur", "--overwrite")
    assert run("infer", stack, "--output", tmp_path / "out", *flags) == 0
    out, err = capsys.readouterr()
    assert out.startswith("plant: 3 frames of 96x64, focus distances only\n")
    assert err == ""


def test_alignment_is_reported(
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
