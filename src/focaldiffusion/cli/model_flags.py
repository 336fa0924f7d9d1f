"""Flags that choose a model, and the chosen model: found first, loaded when needed."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from focaldiffusion.cli.flags import positive_integer, seed
from focaldiffusion.errors import InputError

if TYPE_CHECKING:
    import torch

    from focaldiffusion.checkpoints.checkpoint import Checkpoint
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.models.completer import Sampling
    from focaldiffusion.models.denoiser import AttentionBackend

PHYSICS = "physics"
"""Name of the physical estimate, which uses no model; the default of --model."""

_SAMPLING = ("steps", "ensemble", "seed", "tile_px")
_OF_MODELS = (*_SAMPLING, "fill_unsharp", "config", "base_model", "dtype", "attention")


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `chosen_model` reads."""
    group = parser.add_argument_group(
        "model", "Completes the physical estimate. All flags but --model need a learned model."
    )
    group.add_argument(
        "--model",
        default=PHYSICS,
        metavar="NAME",
        help="physics, compact, the folder of a checkpoint, or its id on the Hugging Face hub "
        f"(default: {PHYSICS})",
    )
    group.add_argument(
        "--steps",
        type=positive_integer,
        metavar="N",
        help="steps along the flow, for models that start from noise (default: 4)",
    )
    group.add_argument(
        "--ensemble",
        type=positive_integer,
        metavar="N",
        help="number of runs to take the median of, for models that start from noise (default: 1)",
    )
    group.add_argument("--seed", type=seed, metavar="N", help="seed of the noise (default: 0)")
    group.add_argument(
        "--tile-px",
        type=positive_integer,
        metavar="PX",
        help="longest side of a tile (default: the longest that the model supports)",
    )
    group.add_argument(
        "--fill-unsharp",
        action="store_true",
        # None: not given.
        default=None,
        help="generate pixels that no frame shows sharp, and mark them in source_index.png",
    )
    add_base_model(group)
    group.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="number format of the network (default: bfloat16 on CUDA, float32 elsewhere)",
    )
    group.add_argument(
        "--attention",
        choices=("native", "flash", "xformers"),
        help="backend of a transformer's attention: torch, FlashAttention or xFormers (default: "
        "native)",
    )
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="refuse a checkpoint whose `model` block differs from this file's",
    )


def add_base_model(parser: argparse._ActionsContainer) -> None:
    """Add --base-model: see `Checkpoint.load`."""
    parser.add_argument(
        "--base-model",
        metavar="NAME",
        help="folder or hub id of the weights that an adapter belongs to (default: as trained)",
    )


@dataclass(frozen=True)
class ChosenModel:
    """A learned model and its options.

    Attributes:
        checkpoint: its checkpoint, not yet loaded.
        base_model: see `Checkpoint.load`.
        device: torch device.
        dtype: number format of its weights.
        attention: see `use_attention`; None leaves the default.
        sampling: how to run it.
    """

    checkpoint: Checkpoint
    base_model: str | None
    device: str
    dtype: torch.dtype
    attention: AttentionBackend | None
    sampling: Sampling

    @property
    def weight_bytes(self) -> int:
        """See `Checkpoint.weight_bytes`."""
        return self.checkpoint.weight_bytes(self.dtype, base_model=self.base_model)

    def load(self) -> FocalDiffusionPipeline:
        """Load the weights, once for any number of stacks.

        Raises:
            InputError: see `Checkpoint.load`; or this model does not support the flags.
        """
        from focaldiffusion.models.denoiser import use_attention

        pipeline = self.checkpoint.load(
            base_model=self.base_model, device=self.device, dtype=self.dtype
        )
        if self.attention is not None:
            use_attention(pipeline.denoiser, self.attention)
        # Whether there is a prior was checked when the model was chosen.
        pipeline.check_inputs(self.sampling, with_image=False, has_prior=True)
        return pipeline


def sampling(options: argparse.Namespace) -> Sampling:
    """Sampling options from the flags; all others keep the defaults of `Sampling`."""
    from focaldiffusion.models.completer import Sampling

    given = {name: getattr(options, name) for name in _SAMPLING}
    return Sampling(**{name: value for name, value in given.items() if value is not None})


def chosen_model(
    options: argparse.Namespace, device: str, *, has_prior: bool
) -> ChosenModel | None:
    """The model that the flags choose; None for the physical estimate.

    Args:
        options: the flags.
        device: torch device.
        has_prior: whether stacks get a prior.

    Raises:
        InputError: the model does not exist, --config contradicts it, it needs a prior and there is
            none, or a flag has no effect on the physical estimate.
    """
    if options.model == PHYSICS:
        given = [name for name in _OF_MODELS if getattr(options, name) is not None]
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(
                f"{flags}: no effect with --model {PHYSICS}, which is not a network. Choose a "
                f"learned model, or drop {'the flag' if len(given) == 1 else 'the flags'}."
            )
        return None
    import torch

    from focaldiffusion.checkpoints.checkpoint import default_dtype, find_checkpoint
    from focaldiffusion.checkpoints.parts import without_prior

    checkpoint = find_checkpoint(options.model, others=[PHYSICS])
    if checkpoint.description.config.model.with_prior and not has_prior:
        raise without_prior(options.model)
    if options.config is not None:
        from focaldiffusion.config.load import load_config

        loaded = load_config(options.config, only=["model"])
        for notice in loaded.notices:
            print(f"note: {notice}", file=sys.stderr)
        checkpoint.check(loaded.config.model, base_model=options.base_model)
    return ChosenModel(
        checkpoint,
        options.base_model,
        device,
        default_dtype(device) if options.dtype is None else getattr(torch, options.dtype),
        options.attention,
        sampling(options),
    )
