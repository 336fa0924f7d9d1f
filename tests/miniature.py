"""Stable Diffusion 3.5 in miniature: the real classes, of the preset `tiny`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.models.prompt import EmptyPrompt

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import random_base

TINY = PRESETS["tiny"]
CLIP_WIDTHS = (10, 14)
"""Together the pooled channels of `tiny`."""
T5_WIDTH = TINY.prompt_channels


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


def text_encoders() -> StableDiffusion3Pipeline:
    """The text encoders of a base model, whose empty prompt `tiny` takes."""
    torch.manual_seed(0)
    return random_base.text_encoders(TINY, CLIP_WIDTHS)
