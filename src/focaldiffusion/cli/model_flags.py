"""Flags that choose a model, and the model that comes of them: found first, loaded when needed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focaldiffusion.cli.flags import positive_integer, seed

if TYPE_CHECKING:
    import torch

    from focaldiffusion.checkpoints.checkpoint import Checkpoint
    from focaldiffusion.models.denoiser import AttentionBackend
    from focaldiffusion.recovery import Estimate, Refine, Stage
    from focaldiffusion.stack import FocalStack

PHYSICS = "physics"
"""The name of the physical estimate, which is no model."""

DEFAULT_MODEL = PHYSICS
"""What reconstructs where --model is not given."""

_GENERATING = ("steps", "ensemble", "seed", "tile_px")
_OF_MODELS = (*_GENERATING, "fill_unsharp", "config", "base_model", "dtype", "attention")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `chosen_model` reads."""
    group = parser.add_argument_group(
        "model", "What completes the physical estimate. All but --model need a learned one."
    )
    group.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME",
        help="physics, compact, the folder of a checkpoint, or its id on the Hugging Face hub "
        f"(default: {DEFAULT_MODEL})",
    )
    group.add_argument(
        "--steps",
        type=positive_integer,
        metavar="N",
        help="along the flow, of models that start from noise (default: 4)",
    )
    group.add_argument(
        "--ensemble",
        type=positive_integer,
        metavar="N",
        help="runs, of models that start from noise: their median and spread (default: 1)",
    )
    group.add_argument("--seed", type=seed, metavar="N", help="of the noise (default: 0)")
    group.add_argument(
        "--tile-px",
        type=positive_integer,
        metavar="PX",
        help="longest side that is seen at once (default: the longest that the model takes)",
    )
    group.add_argument(
        "--fill-unsharp",
        action="store_true",
        # None: not given.
        default=None,
        help="generate what no frame shows sharp; such pixels are marked in source_index.png",
    )
    group.add_argument(
        "--base-model",
        metavar="NAME",
        help="folder or hub id of the weights that an adapter belongs to (default: as trained)",
    )
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="number format of the network (default: bfloat16 on CUDA, float32 elsewhere)",
    )
    group.add_argument(
        "--attention",
        choices=("native", "flash", "xformers"),
        help="who computes a transformer's attention: torch, FlashAttention or xFormers (default: "
        "native)",
    )
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="refuse a checkpoint that was made with another `model` block than this file's",
    )


@dataclass(frozen=True)
class ChosenModel:
    """A learned model and how it is run.

    Attributes:
        checkpoint: its weights, not yet loaded.
        base_model: see `Checkpoint.load`.
        device: where it computes.
        dtype: of its weights.
        attention: see `use_attention`; None leaves it as it is.
        generating: the arguments of `FocalDiffusionPipeline.refine` that were given.
    """

    checkpoint: Checkpoint
    base_model: str | None
    device: str
    dtype: torch.dtype
    attention: AttentionBackend | None
    generating: Mapping[str, Any]

    def load(self) -> Refine:
        """Load the weights, once; what comes back runs on any number of stacks.

        Raises:
            InputError: see `Checkpoint.load`; or the flags ask for what this model cannot do.
        """
        from focaldiffusion.models.denoiser import use_attention

        pipeline = self.checkpoint.load(
            base_model=self.base_model, device=self.device, dtype=self.dtype
        )
        if self.attention is not None:
            use_attention(pipeline.denoiser, self.attention)
        generating = self.generating
        pipeline.check_inputs(
            generating.get("steps"), generating.get("ensemble", 1), generating.get("tile_px")
        )
        source = self.checkpoint.as_json(base_model=self.base_model)

        def refine(stack: FocalStack, estimate: Estimate, stage: Stage) -> Estimate:
            refined = pipeline.refine(stack, estimate, stage, **generating)
            generation = refined.generation
            assert generation is not None
            provenance = {**generation.provenance, "checkpoint": source}
            return replace(refined, generation=replace(generation, provenance=provenance))

        return refine


def chosen_model(options: argparse.Namespace, device: str) -> ChosenModel | None:
    """The model that the flags choose; None for the physical estimate.

    Raises:
        InputError: there is none of this name, --config contradicts it, or a flag is given that
            says nothing of the physical estimate.
    """
    from focaldiffusion.errors import InputError

    given = {name: getattr(options, name) for name in _OF_MODELS}
    given = {name: value for name, value in given.items() if value is not None}
    if options.model == PHYSICS:
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(
                f"{flags}: without meaning for --model {PHYSICS}, which is no network. Choose "
                f"another model, or leave {'it' if len(given) == 1 else 'them'} out."
            )
        return None
    import torch

    from focaldiffusion.checkpoints.checkpoint import default_dtype, find_checkpoint

    checkpoint = find_checkpoint(options.model, besides=[PHYSICS])
    if options.config is not None:
        from focaldiffusion.config.load import load_config

        loaded = load_config(options.config, only=["model"])
        for notice in loaded.notices:
            print(f"note: {notice}", file=sys.stderr)
        checkpoint.check(loaded.config.model, base_model=options.base_model)
    generating = {name: given[name] for name in _GENERATING if name in given}
    dtype = default_dtype(device) if options.dtype is None else getattr(torch, options.dtype)
    return ChosenModel(
        checkpoint,
        options.base_model,
        device,
        dtype,
        options.attention,
        {**generating, "with_image": bool(options.fill_unsharp)},
    )
