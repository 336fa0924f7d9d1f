"""Stable Diffusion 3.5 in miniature: the real classes, of the preset `tiny`."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import (
    StableDiffusion3Pipeline,
)
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.models.prompt import EmptyPrompt

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
    """The text encoders of a base model, whose empty prompt `tiny` takes; its other parts are not
    its own."""
    torch.manual_seed(0)
    first, second = map(_clip, CLIP_WIDTHS)
    t5 = T5EncoderModel(
        T5Config(vocab_size=4, d_model=T5_WIDTH, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    )
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0)]
    return StableDiffusion3Pipeline(
        transformer=SD3Transformer2DModel(num_layers=1, num_attention_heads=1, sample_size=8),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=None,
        text_encoder=first,
        tokenizer=clip_tokenizer(),
        text_encoder_2=second,
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5.eval(),
        tokenizer_3=T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512),
    ).to(torch.bfloat16)


def _clip(width: int) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=5,
        hidden_size=width,
        projection_dim=width,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return CLIPTextModelWithProjection(config).eval()


def clip_tokenizer() -> CLIPTokenizer:
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3, "b</w>": 4}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)
