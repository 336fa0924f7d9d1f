"""Marigold, the depth networks of diffusers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from focaldiffusion.errors import InputError
from focaldiffusion.io.reading import read_json, reading
from focaldiffusion.prior import Prior, PriorKind
from focaldiffusion.priors.quiet import quiet

if TYPE_CHECKING:
    from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline

INDEX = "model_index.json"
"""File that describes a pipeline of diffusers."""

CLASS = "MarigoldDepthPipeline"
"""The class of diffusers."""

_DEFAULTS = ("default_denoising_steps", "default_processing_resolution")
_REMEDY = "Get the folder again, or give another network."
_SEED = 0


def read_index(name: str, folder: Path) -> dict[str, Any]:
    """The description of a Marigold pipeline for depth.

    Args:
        name: of the network, for messages.
        folder: with its model_index.json.

    Raises:
        InputError: it describes another pipeline.
    """
    index = read_json(folder / INDEX, "cannot be read", _REMEDY)
    found = index.get("_class_name") if isinstance(index, dict) else None
    if found != CLASS:
        raise InputError(
            f"{name}: its {INDEX} describes {found or 'no pipeline'}; expected {CLASS}, such as "
            "prs-eth/marigold-depth-v1-1."
        )
    if missing := [key for key in _DEFAULTS if not index.get(key)]:
        raise InputError(
            f"{name}: its {INDEX} has no {' and no '.join(missing)}, so its steps and size are "
            "unknown. Add what its authors recommend."
        )
    return index


def weights_of(index: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Patterns of the files of a pipeline to download, and of those to leave out."""
    parts = [part for part, value in index.items() if isinstance(value, list)]
    wanted = [f"{part}/{end}" for part in parts for end in ("*.json", "*.txt", "*.safetensors")]
    return [INDEX, *wanted], ["*.*.safetensors"]  # variants, such as fp16


@dataclass(frozen=True, eq=False)
class MarigoldNetwork:
    """A Marigold pipeline, ready to run: its own number of steps, one member, a fixed seed.

    Attributes:
        name: folder or hub id, as given.
        kind: the scale that it speaks.
        pipeline: the pipeline.
    """

    name: str
    kind: PriorKind
    pipeline: MarigoldDepthPipeline

    @classmethod
    def load(cls, name: str, folder: Path, kind: PriorKind, device: str) -> MarigoldNetwork:
        """Load a pipeline from safetensors, in float32.

        Raises:
            InputError: files are missing, or the weights do not fit the configuration.
        """
        read_index(name, folder)
        fault = f"expected {CLASS} of diffusers, with weights in safetensors"
        with reading(folder, fault, _REMEDY), quiet():
            from diffusers.pipelines.marigold.pipeline_marigold_depth import MarigoldDepthPipeline

            pipeline = MarigoldDepthPipeline.from_pretrained(
                folder, dtype=torch.float32, use_safetensors=True, local_files_only=True
            )
        pipeline.set_progress_bar_config(disable=True)
        return cls(name, kind, pipeline.to(device))

    def __call__(self, image: Tensor) -> Prior:
        """See `PriorSource`."""
        found = self.pipeline(
            image[None].clamp(0, 1).to(self.pipeline.device),
            generator=torch.Generator().manual_seed(_SEED),
            output_type="pt",
        )
        return Prior(found.prediction[0, 0].float().to(image.device), self.kind, self.name)
