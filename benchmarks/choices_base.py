"""Timestep and adapted layers, tried on a base model in miniature that knows noise and pictures.

    python benchmarks/choices.py make FOLDER --sets SETS
    python benchmarks/choices.py train FOLDER half           # keeps the examples
    python benchmarks/choices_base.py FOLDER

A small transformer with the layers of Stable Diffusion 3.5 learns to make 64 px crops of the
pictures of the training stacks from noise. Adapters then teach copies of it to complete depth, from
the same examples in the same order, with each timestep and set of layers. Pixels of a cell stand in
for an autoencoder. The table is that of `choices.py`.
"""

from __future__ import annotations

import argparse
from copy import deepcopy
from pathlib import Path

import torch
from choices import configured, table
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import Tensor

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.config.run import Config, TrainingConfig
from focaldiffusion.data.loading import open_split
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.models.codecs import LatentCodec, PatchCodec, PixelDepthCodec
from focaldiffusion.models.conditioning import condition_channels
from focaldiffusion.models.denoiser import widen
from focaldiffusion.models.flow import draw_sigma, noised, velocity
from focaldiffusion.models.prompt import EmptyPrompt
from focaldiffusion.training.kept import KeptExamples, unpacked
from focaldiffusion.training.model import made_trainable, trained_parameters
from focaldiffusion.training.objective import Objective, prepare_batch

CODEC = PatchCodec(4)
CROP_PX, BATCH = 64, 16
TOKEN_WIDTH = 16  # of the prompt, which is empty
LAYERS = ("attention", "attention_and_feed_forward")
TRIALS = [(1000.0, LAYERS[0]), (500.0, LAYERS[0]), (100.0, LAYERS[0]), (1000.0, LAYERS[1])]
RATE = 1e-3


def base_model(
    pictures: Tensor, codec: LatentCodec, steps: int, seed: int
) -> SD3Transformer2DModel:
    """A model that turns noise into latents of crops of pictures (N, 3, H, W), sRGB in [-1, 1]."""
    torch.manual_seed(seed)
    model = SD3Transformer2DModel(
        num_layers=4,
        num_attention_heads=4,
        attention_head_dim=16,
        caption_projection_dim=64,
        joint_attention_dim=TOKEN_WIDTH,
        pooled_projection_dim=TOKEN_WIDTH,
        in_channels=codec.channels,
        out_channels=codec.channels,
        patch_size=2,
        sample_size=16,
        pos_embed_max_size=96,
        qk_norm="rms_norm",
    )
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    nothing = torch.zeros(BATCH, 1, TOKEN_WIDTH), torch.zeros(BATCH, TOKEN_WIDTH)
    mean = 0.0
    for step in range(steps):
        with torch.no_grad():
            clean = codec.encode_image(crops_of(pictures))
        start, sigma = torch.randn_like(clean), draw_sigma("noise", BATCH, torch.default_generator)
        found = model(noised(clean, start, sigma), nothing[0], nothing[1], 1000 * sigma).sample
        loss = (found - velocity(clean, start)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mean += (loss.item() - mean) / min(step + 1, 100)
    print(f"base model: squared error of the velocity {mean:.3f} after {steps} steps", flush=True)
    return model


def crops_of(pictures: Tensor) -> Tensor:
    """A batch of crops at random places."""
    return torch.stack([_crop(pictures) for _ in range(BATCH)])


def _crop(pictures: Tensor) -> Tensor:
    height, width = pictures.shape[-2:]
    index, top, left = (
        int(torch.randint(most, ())) for most in (len(pictures), height - CROP_PX, width - CROP_PX)
    )
    return pictures[index, :, top : top + CROP_PX, left : left + CROP_PX]


def completing(
    pipeline: FocalDiffusionPipeline, kept: KeptExamples, config: Config, layers: str, steps: int
) -> FocalDiffusionPipeline:
    """The pipeline after adapters of its layers, and its new ones, learnt to complete depth."""
    torch.manual_seed(config.training.seed)
    tuned = {"tuning": "lora", "lora_rank": 8, "lora_alpha": 8, "lora_layers": layers}
    made_trainable(pipeline, TrainingConfig.model_validate(tuned), "cpu")
    optimizer = torch.optim.AdamW(trained_parameters(pipeline.denoiser).values(), RATE)
    mixture, objective = (
        open_split(config.data, "train", config.training.seed),
        Objective(config.losses),
    )
    for step in range(steps):
        draws = [mixture.draw(step * BATCH + index) for index in range(BATCH)]
        part = prepare_batch(
            kept.read(draws),
            draws,
            completer=pipeline.completer,
            model=config.model,
            training=config.training,
            with_stacks=False,
            kept=kept,
        )
        sums = objective.sums(pipeline.completer, part)
        (sums / objective.counts(part).clamp_min(1) * objective.weights(sums)).sum().backward()
        torch.nn.utils.clip_grad_norm_(pipeline.denoiser.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def widened(
    base: SD3Transformer2DModel,
    codec: LatentCodec,
    vae: AutoencoderKL | None = None,
    timestep: float = 1000.0,
) -> FocalDiffusionPipeline:
    """A copy of the base model as an untrained model of a codec, which may have an autoencoder."""
    state = codec.channels + codec.depth_channels
    condition = codec.channels + condition_channels(codec.factor, keep_pixels=vae is None)
    return FocalDiffusionPipeline(
        widen(deepcopy(base), state, condition, "estimate"),
        EmptyPrompt(1, TOKEN_WIDTH, TOKEN_WIDTH),
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae,
        patch_factor=codec.factor if vae is None else None,
        timestep=timestep,
        depth_in_pixels=isinstance(codec, PixelDepthCodec),
    )


def pictures_of(kept: KeptExamples, mixture: Mixture) -> Tensor:
    """The fused images (N, 3, H, W) of all examples, sRGB in [-1, 1]."""
    draws = [mixture.draw(position) for position in range(len(mixture))]
    return unpacked(kept.read(draws)).proposal.all_in_focus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base-steps", type=int, default=1000, help="(default: 1000)")
    parser.add_argument("--steps", type=int, default=250, help="of each trial (default: 250)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = configured(options.folder, "half", 0, options.steps)
    mixture = open_split(config.data, "train", 0)
    kept = KeptExamples.open(config, mixture, None)
    assert kept is not None
    base = base_model(pictures_of(kept, mixture), CODEC, options.base_steps, seed=0)
    models = {
        f"{timestep:g}, {layers}": [
            completing(widened(base, CODEC, timestep=timestep), kept, config, layers, options.steps)
        ]
        for timestep, layers in TRIALS
    }
    print(table(options.folder, models))


if __name__ == "__main__":
    main()
