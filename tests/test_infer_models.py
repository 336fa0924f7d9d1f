from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import refusal
from PIL import Image
from plant import (
    SIZE,
    command,
    run,
    write_large_stack,
    write_sidecar,
)
from sample_stacks import BLUR_SCALE_PX_M, FOCUS_M, photograph, texture

from focaldiffusion.checkpoints.checkpoint import Checkpoint, find_checkpoint
from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.cli.main import main
from focaldiffusion.io.png import write_png
from focaldiffusion.optics import linear_to_srgb


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


def test_an_untrained_model_equals_physics_up_to_its_autoencoder(
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
        ("noise", "--base-model sd", "needs no base model. Drop --base-model sd."),
        ("noise", "--config {config}", 'model.start: the configuration says "estimate", but the c'),
        ("noise", "--config none.yaml", "none.yaml"),
    ],
)
def test_unsupported_options_are_refused_before_any_work(
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


def test_a_matching_configuration_is_accepted(
    stack: Path, tmp_path: Path, from_noise: Path
) -> None:
    config = tmp_path / "run.yaml"
    # Inference does not need the location of the training data.
    config.write_text("model: {preset: tiny, start: noise}\ndata: {data_root: '${NOT_SET}'}")
    flags = ("--output", tmp_path / "out", "--model", from_noise, "--config", config, "--quiet")
    assert run("infer", stack, *flags) == 0
