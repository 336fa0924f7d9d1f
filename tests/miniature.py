"""Stable Diffusion 3.5 in miniature: the real classes, of the preset `tiny`."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.models.prompt import EmptyPrompt

TINY = PRESETS["tiny"]


def save_base(folder: Path) -> Path:
    """A text-to-image model of random weights, laid out as Stable Diffusion 3.5's folder is."""
    torch.manual_seed(0)
    channels = TINY.image_channels
    SD3Transformer2DModel(
        **TINY.network, in_channels=channels, out_channels=channels
    ).save_pretrained(folder / "transformer")
    FocalDiffusionPipeline.from_preset("tiny").vae.save_pretrained(folder / "vae")
    FlowMatchEulerDiscreteScheduler(shift=2.0).save_pretrained(folder / "scheduler")
    return folder


def empty_prompt() -> EmptyPrompt:
    """What its text encoders might say of an empty prompt."""
    prompt = EmptyPrompt(TINY.prompt_tokens, TINY.prompt_channels, TINY.pooled_prompt_channels)
    prompt.prompt_embeds.normal_(generator=torch.Generator().manual_seed(3))
    return prompt
