"""A small stack of a textured, slanted plane on disk, for tests of commands."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from command_line import exit_code

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.cli.main import main
from focaldiffusion.config.run import Config, ModelConfig
from focaldiffusion.io.png import write_png
from focaldiffusion.optics import Camera, linear_to_srgb
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
    """A stack that takes seconds and memory: one noise, more and more blurred."""
    folder.mkdir()
    noise = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    for index in range(count):
        frame = cv2.GaussianBlur(noise, (0, 0), 0.3 + 0.2 * index)
        write_png(folder / f"frame_{index}.png", frame)
    distances = (1 / np.linspace(2.5, 0.7, count)).tolist()
    write_sidecar(folder, focus_distances_m=distances, camera=CAMERA)
    return folder


def write_sidecar(folder: Path, **content: Any) -> None:
    (folder / "stack.json").write_text(json.dumps(content))


def run(*argv: str | Path) -> int:
    return exit_code(main, *argv)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def command(*argv: str | Path) -> list[str]:
    return [sys.executable, "-m", "focaldiffusion", *map(str, argv)]


def save_model(folder: Path, start: Literal["estimate", "noise"]) -> Path:
    """A checkpoint of the model in miniature, with random weights."""
    config = Config(model=ModelConfig(preset="tiny", start=start))
    model = FocalDiffusionPipeline.from_preset("tiny", start)
    save_checkpoint(model, folder, config, {"steps": 0}, adapter_only=False)
    return folder
