from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import exit_code, names, refusal
from PIL import Image

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.config.run import Config, ModelConfig
from script.inference import main


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Three frames of one texture, without stack.json."""
    folder = tmp_path / "plant"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    for index in range(3):
        frame = cv2.GaussianBlur(pixels, (0, 0), 0.5 + 0.4 * abs(index - 1))
        Image.fromarray(frame).save(folder / f"frame_{index}.png")
    return folder


def run(*argv: str | Path) -> int:
    return exit_code(main, *argv)


def test_flags_of_the_original_mean_what_they_did(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    flags = "--focus-distances 0.5 1 2 --focal-length 50 --aperture 4 --sensor-size 0.036"
    assert run("--input", stack, "--output", output, *flags.split(), "--save-visualization") == 0
    assert "--save-visualization is always on" in capsys.readouterr().err
    metadata = json.loads((output / "metadata.json").read_text())
    assert metadata["focus_distances_m"] == [0.5, 1, 2]
    assert metadata["origins"]["camera"] == "given"
    camera = metadata["camera_at_working_size"]
    assert camera["aperture_diameter_m"] == pytest.approx(0.0125)
    # 50 mm over 36 mm / 96 px, focused at the reference frame's 1 m.
    assert camera["focal_length_px"] == pytest.approx(50 / (36 / 96) / (1 - 0.05 / 1))


def test_an_input_list_has_one_stack_a_line(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks = tmp_path / "stacks.txt"
    stacks.write_text(f"{stack}\n\n{tmp_path / 'missing'}\n")
    assert run("--input-list", stacks, "--output", tmp_path / "out") == 1
    assert "missing: no such file or folder." in capsys.readouterr().err
    assert names(tmp_path / "out") == ["plant"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model-path a.pt", "a.pt: not a folder, and single files of weights are not read"),
        ("--model-path physics --config a.yaml", "--config: no effect with --model physics"),
        ("--model-path physics --base-model sd", "--base-model: no effect with --model physics"),
        ("--model-path physics --num-inference-steps 9", "--steps: no effect with --model physics"),
        ("--dtype float64", "argument --dtype: invalid choice: 'float64'"),
        ("--guidance-scale 7", "--guidance-scale: the model has no text prompt; leave it"),
        ("--camera-invariant-mode relative", "--camera-invariant-mode: the camera is used"),
        (
            "--batch-size 1",
            "--batch-size: stacks are reconstructed one at a time; leave it out. See",
        ),
        ("--save-intermediate", "--save-intermediate: there are no intermediate results"),
        ("--sensor-size 36", "--sensor-size 36 looks like millimetres; give metres"),
        ("--aperture 0", "--f-number is 0.0; expected a positive number."),
        ("--focus-distances -1,0.5,2", "[-1.0, 0.5, 2.0] are not all positive."),
        ("--focal_length 50", "unrecognized arguments: --focal_length 50"),
        ("--input-list a.txt", "argument --input-list: not allowed with argument --input"),
    ],
)
def test_flags_without_effect_are_refused(
    flags: str, message: str, stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("--input", stack, "--output", tmp_path / "out", *flags.split())
    assert message in refusal(capsys, tmp_path, main, *argv)


def test_refused_flags_share_one_line(
    stack: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = "--guidance-scale 7 --batch-size 1"
    argv = ("--input", stack, "--output", tmp_path / "out", *flags.split())
    assert refusal(capsys, tmp_path, main, *argv) == (
        "error: --guidance-scale: the model has no text prompt; --batch-size: stacks are "
        "reconstructed one at a time; leave them out. See python -m script.inference --help.\n"
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the model in miniature, with random weights."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save_checkpoint(
        FocalDiffusionPipeline.from_preset("tiny", "noise"),
        folder,
        Config(model=ModelConfig(preset="tiny", start="noise")),
        {},
        adapter_only=False,
    )
    return folder


def test_a_model_runs_with_the_flags_of_the_original(
    stack: Path, tmp_path: Path, model: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model: {start: noise}")
    flags = "--num-inference-steps 3 --ensemble-size 2 --dtype bf16"
    argv = ("--input", stack, "--output", tmp_path / "out", "--model-path", model)
    assert run(*argv, "--config", config, *flags.split()) == 0
    generation = json.loads((tmp_path / "out" / "metadata.json").read_text())["generation"]
    given = {"steps": 3, "ensemble": 2, "dtype": "bfloat16"}
    assert {name: generation[name] for name in given} == given


def test_a_configuration_that_contradicts_the_model_is_refused(
    stack: Path, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("model: {depth_code: inverse}")
    argv = ("--input", stack, "--output", tmp_path / "out", "--model-path", model)
    error = refusal(capsys, tmp_path, main, *argv, "--config", config)
    assert 'model.depth_code: the configuration says "inverse", but the checkpoint' in error


@pytest.mark.parametrize("text", [None, "", "\n \n"])
def test_a_list_without_stacks_is_refused(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stacks = tmp_path / "stacks.txt"
    if text is not None:
        stacks.write_text(text)
    error = refusal(capsys, tmp_path, main, "--input-list", stacks, "--output", tmp_path / "out")
    assert error.startswith(f"error: {stacks}: ")


def test_it_runs_as_documented() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "script.inference", "--help"],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("usage: python -m script.inference")
