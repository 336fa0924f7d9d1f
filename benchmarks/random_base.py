"""A base model of random weights, in the folders and of the size of Stable Diffusion 3.5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from transformers.utils.logging import disable_progress_bar

from focaldiffusion.models.presets import PRESETS, Preset

_SPREAD = 0.02  # standard deviation of the weights


def random_weights(part: nn.Module, device: str) -> nn.Module:
    """A module of the meta device, in bfloat16 with random weights that are made on a device."""
    part = part.bfloat16().to_empty(device=device).eval()
    with torch.no_grad():
        for tensor in (*part.parameters(), *part.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(std=_SPREAD)
    return part


def save_base(folder: Path, name: str, device: str) -> Path:
    """Save a base model for a preset; its text encoders have its widths, but one layer each.

    Args:
        folder: written to.
        name: of the preset.
        device: to make the weights on.

    Returns:
        `folder`.
    """
    disable_progress_bar()
    preset = PRESETS[name]
    channels = preset.image_channels
    with torch.device("meta"):
        transformer = SD3Transformer2DModel(
            **preset.network, in_channels=channels, out_channels=channels
        )
        autoencoder = AutoencoderKL(**(preset.autoencoder or {}))
    parts: list[tuple[str, Any]] = [("transformer", transformer), ("vae", autoencoder)]
    for part, module in parts:
        random_weights(module, device).save_pretrained(folder / part)  # type: ignore[operator]
    FlowMatchEulerDiscreteScheduler(shift=3.0).save_pretrained(folder / "scheduler")
    first = preset.pooled_prompt_channels // 2
    widths = first, preset.pooled_prompt_channels - first
    text_encoders(preset, widths).save_pretrained(folder)
    return folder


def text_encoders(preset: Preset, clip_widths: tuple[int, int]) -> StableDiffusion3Pipeline:
    """Text encoders and tokenizers that give a preset a prompt of its widths.

    Args:
        preset: of the transformer that reads the prompt.
        clip_widths: of the two CLIP encoders; together the width of the pooled prompt.
    """
    first, second = map(_clip, clip_widths)
    t5 = T5Config(
        vocab_size=4, d_model=preset.prompt_channels, d_kv=8, d_ff=16, num_layers=1, num_heads=2
    )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    return StableDiffusion3Pipeline(
        transformer=None,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=None,
        text_encoder=first,
        tokenizer=clip_tokenizer(),
        text_encoder_2=second,
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=T5EncoderModel(t5).eval(),
        tokenizer_3=T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512),
    ).to(torch.bfloat16)


def _clip(width: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=5,
        hidden_size=width,
        projection_dim=width,
        intermediate_size=16,
        num_hidden_layers=2,  # the prompt is taken before the last one
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModelWithProjection(config).eval()


def clip_tokenizer() -> CLIPTokenizer:
    """A tokenizer of a vocabulary of five."""
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3, "b</w>": 4}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
