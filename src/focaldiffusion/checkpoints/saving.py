"""Saving checkpoints, completely or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import JsonValue

from focaldiffusion import __version__
from focaldiffusion.checkpoints.adapter import save_adapter
from focaldiffusion.checkpoints.checkpoint import (
    DESCRIPTION,
    OF_THE_PIPELINE,
    PARTS,
    PROMPT,
    Description,
)
from focaldiffusion.config.load import resolved
from focaldiffusion.config.run import Config
from focaldiffusion.config.yaml_files import Block
from focaldiffusion.io.staging import file_errors_named, sha256_of, staging
from focaldiffusion.models.presets import preset_of

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline


def save_checkpoint(
    pipeline: FocalDiffusionPipeline,
    directory: Path,
    config: Config,
    provenance: Mapping[str, JsonValue],
    *,
    adapter_only: bool,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model to a folder, completely or not at all.

    Args:
        pipeline: the model. Its denoiser has one LoRA adapter if `adapter_only`, else none.
        directory: folder to create, or whose checkpoint is replaced.
        config: configuration that made the model.
        provenance: how the model was trained.
        adapter_only: write only the difference from `config.model.base_model_id`, not all weights.
        dtype: number format of the stored weights; None keeps the current one.

    Raises:
        InputError: the folder cannot be written.
        ValueError: the configuration or the adapter does not belong to this model.
    """
    for key in OF_THE_PIPELINE:
        if getattr(config.model, key) != pipeline.config[key]:
            raise ValueError(f"model.{key} of the configuration is not the pipeline's")
    if adapter_only != bool(getattr(pipeline.denoiser, "peft_config", None)):
        raise ValueError("a denoiser with an adapter, and no other, is saved with adapter_only")
    description = Description(
        focaldiffusion=__version__,
        weights="adapter" if adapter_only else "full",
        preset=preset_of(pipeline.denoiser.config, pipeline.config["patch_factor"]),
        config=config,
        provenance=dict(provenance),
    )
    content = {**description.model_dump(mode="json"), "config": _lasting(config)}
    with file_errors_named(directory), staging(directory, (*PARTS, DESCRIPTION)) as partial:
        if adapter_only:
            save_adapter(pipeline.denoiser, partial)
            pipeline.prompt.save_pretrained(partial / PROMPT)
        else:
            pipeline.save_pretrained(partial)
        _forget_paths(partial)
        if dtype is not None:
            _cast(partial, dtype)
        content["sha256"] = {
            path.relative_to(partial).as_posix(): sha256_of(path)
            for path in sorted(partial.rglob("*.safetensors"))
        }
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
        (partial / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def _lasting(config: Config) -> Block:
    """The resolved configuration, with a folder of base weights that any process finds."""
    block = resolved(config)
    base = block["model"]["base_model_id"]
    if base is not None and Path(base).is_dir():
        block["model"]["base_model_id"] = str(Path(base).resolve())
    return block


def _forget_paths(folder: Path) -> None:
    """Remove from all files the local paths that their parts were loaded from."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _cast(folder: Path, dtype: torch.dtype) -> None:
    """Store the weights of all files below a folder in another floating-point format."""
    from safetensors.torch import load_file, save_file

    for path in folder.rglob("*.safetensors"):
        weights = {
            name: weight.to(dtype) if weight.is_floating_point() else weight
            for name, weight in load_file(path).items()
        }
        save_file(weights, path, metadata={"format": "pt"})
