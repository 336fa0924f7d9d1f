"""Rooms: a small data set in memory, whose pixels say where they come from."""

from __future__ import annotations

import math

import torch

from focaldiffusion.config.data import DatasetOptions, Source
from focaldiffusion.data.dataset import Sample, StackSample
from focaldiffusion.errors import InputError
from focaldiffusion.optics import Camera
from focaldiffusion.scene import Scene
from focaldiffusion.stack import FocalStack

SIZE = (48, 64)


def source(name: str = "rooms", options: dict | None = None, **changes) -> Source:
    fields = {
        "name": name,
        "split": "train",
        "dataset_type": "rooms",
        "data_root": "memory",
        "filelist": None,
        "focal_range": (0.5, 4.0),
        "focal_stack_size": (3, 3),
        "image_size": None,
        "max_samples": None,
        "weight": 1.0,
        "allow_missing": False,
        "options": DatasetOptions.model_validate(options or {}),
    }
    return Source.model_validate({**fields, **changes})


def room(index: int = 0, size: tuple[int, int] = SIZE) -> Scene:
    """A slanted floor, textured, with a hole in its depth."""
    height, width = size
    generator = torch.Generator().manual_seed(index)
    depth = torch.linspace(1, 3 + 0.1 * index, width).expand(height, width).clone()
    depth[:, : width // 4] = math.nan
    return Scene(
        torch.rand(3, *size, generator=generator),
        depth,
        depth.isfinite(),
        Camera(200.0, 0.02, size),  # 4 px of blur diameter a dioptre
        f"room {index}",
    )


def photographed(index: int = 0, frames: int = 2, **stack) -> StackSample:
    """A stack without focus distances, camera and all-in-focus image, unless they are given."""
    scene = room(index)
    images = torch.rand(frames, 3, *SIZE, generator=torch.Generator().manual_seed(index))
    return StackSample(FocalStack(images, **stack), scene.depth_m, scene.valid, None, scene.source)


class Rooms:
    """So many rooms; those of `damaged` cannot be read."""

    def __init__(
        self, count: int, *, damaged: frozenset[int] = frozenset(), stacks: bool = False
    ) -> None:
        self.count, self.damaged, self.stacks = count, damaged, stacks
        self.skipped: list[str] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if index in self.damaged:
            raise InputError(f"room {index}: is damaged. Fetch it again.")
        return photographed(index) if self.stacks else room(index)

    def name(self, index: int) -> str:
        return f"room_{index}"

    def scene_name(self, index: int) -> str:
        return f"house_{index // 2}"
