"""Base models of Stable Diffusion 3.5, widened for depth and conditioning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from focaldiffusion.checkpoints.hub import load_part, resolve_base
from focaldiffusion.config.run import ModelConfig
from focaldiffusion.errors import InputError
from focaldiffusion.models.denoiser import widen

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.models.prompt import EmptyPrompt


def widened_base(
    model: ModelConfig,
    prompt: EmptyPrompt,
    *,
    base_model: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> FocalDiffusionPipeline:
    """A Stable Diffusion 3.5 model, widened: the start of training.

    Args:
        model: model configuration with a `base_model_id`.
        prompt: the empty prompt of that model.
        base_model: folder or hub id that replaces `base_model_id`.
        dtype: number format of all weights.

    Raises:
        InputError: the base model is unavailable, or of another kind.
    """
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.models.codecs import VAECodec
    from focaldiffusion.models.conditioning import condition_channels

    base_model = base_model or model.base_model_id
    if base_model is None:
        raise ValueError("model.base_model_id is None: there is nothing to widen")
    folder = resolve_base(base_model, variant=model.variant)
    vae = load_part(AutoencoderKL, folder, "vae", model.variant, dtype)
    codec = VAECodec(vae)
    transformer = widen(
        load_part(SD3Transformer2DModel, folder, "transformer", model.variant, dtype),
        codec.channels + codec.depth_channels,
        codec.channels + condition_channels(codec.factor, "extremes"),
        model.start,
    )
    return FocalDiffusionPipeline(
        transformer,
        prompt,
        load_scheduler(folder),
        vae,
        start=model.start,
        depth_code=model.depth_code,
    )


def load_scheduler(folder: Path) -> FlowMatchEulerDiscreteScheduler:
    """Load the scheduler from a folder in diffusers' layout.

    Raises:
        InputError: it cannot be read.
    """
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    try:
        return FlowMatchEulerDiscreteScheduler.from_pretrained(
            folder, subfolder="scheduler", local_files_only=True
        )
    except OSError as error:
        raise InputError(
            f"{folder / 'scheduler'}: cannot be read ({error}). Get the folder again."
        ) from error
