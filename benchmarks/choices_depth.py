"""Depth through an autoencoder, or by its pixels, on a base model in miniature.

    python benchmarks/choices.py make FOLDER --sets SETS
    python benchmarks/choices_depth.py FOLDER

An autoencoder learns to restore 64 px crops of the pictures of the training stacks, and a small
transformer of Stable Diffusion 3.5's layers to make its latents from noise, as in
`choices_base.py`. Adapters then teach two copies of it to complete depth, from the same examples in
the same order: one predicts latents that the autoencoder decodes to depth, the other its pixels.
The table is that of `choices.py`; a line for each has the cost of a step.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

import torch
from choices import configured, table
from choices_base import (
    CROP_PX,
    LAYERS,
    RATE,
    base_model,
    completing,
    crops_of,
    pictures_of,
    widened,
)
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from focaldiffusion.config.run import Config
from focaldiffusion.data.loading import open_split
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.models.codecs import VAECodec, codec_of
from focaldiffusion.models.memory import peak_bytes
from focaldiffusion.training.examples import Grid
from focaldiffusion.training.kept import KeptExamples, unpacked
from focaldiffusion.training.kept_writer import write_examples

LATENT_CHANNELS, FACTOR, TOKEN_CELLS = 8, 4, 2
KL_WEIGHT = 1e-6


def autoencoder(pictures: Tensor, steps: int) -> AutoencoderKL:
    """An autoencoder of 4 px cells, whose latents of the pictures have a variance of about one."""
    torch.manual_seed(0)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=CROP_PX,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.0,
        scaling_factor=1.0,
    )
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    mean = 0.0
    for step in range(steps):
        crops = crops_of(pictures)
        posterior = model.encode(crops).latent_dist
        error = (model.decode(posterior.sample()).sample - crops).abs().mean()
        (error + KL_WEIGHT * posterior.kl().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        mean += (error.item() - mean) / min(step + 1, 100)
    model.requires_grad_(False)
    latents = model.encode(crops_of(pictures)).latent_dist.mode()
    scale = {"shift_factor": float(latents.mean()), "scaling_factor": 1 / float(latents.std())}
    model.register_to_config(**scale)
    print(f"autoencoder: absolute error of sRGB in [-1, 1] {mean:.3f}", flush=True)
    return model


def on_grid(config: Config, mixture: Mixture, folder: Path) -> KeptExamples:
    """The examples as a network with an autoencoder reads them, made if they are missing."""
    training = config.training.model_copy(update={"examples_dir": str(folder)})
    config = config.model_copy(update={"training": training})
    kept = KeptExamples.open(config, mixture, Grid(FACTOR, FACTOR * TOKEN_CELLS))
    assert kept is not None
    write_examples(config, mixture, kept, count=len(mixture))
    return kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--autoencoder-steps", type=int, default=1500, help="(default: 1500)")
    parser.add_argument("--base-steps", type=int, default=500, help="(default: 500)")
    parser.add_argument("--steps", type=int, default=120, help="of each of both (default: 120)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = configured(options.folder, "half", 0, options.steps)
    model = config.model.model_copy(update={"with_image": False})
    config = config.model_copy(update={"model": model})
    mixture = open_split(config.data, "train", 0)
    kept = on_grid(config, mixture, options.folder / "examples" / "on-grid")
    pictures = pictures_of(kept, mixture)
    vae = autoencoder(pictures, options.autoencoder_steps)
    codec = VAECodec(vae)
    depth = unpacked(kept.read([mixture.draw(0)])).truth.depth_code
    lost = (codec.decode_depth(codec.encode_depth(depth)) - depth).abs().mean()
    print(f"the autoencoder alone changes a depth code in [-1, 1] by {lost:.4f}", flush=True)
    base = base_model(pictures, codec, options.base_steps, seed=0)
    models = {}
    for name, in_pixels in (("latents of depth", False), ("pixels of depth", True)):
        pipeline = widened(base, codec_of(vae, None, in_pixels), vae)
        began = time.process_time()
        models[name] = [completing(pipeline, kept, config, LAYERS[0], options.steps)]
        seconds = (time.process_time() - began) / options.steps
        fresh = widened(base, codec_of(vae, None, in_pixels), vae)
        step = partial(completing, fresh, kept, config, LAYERS[0], 1)
        peak = peak_bytes(nn.ModuleList([fresh.denoiser, vae]), step)
        print(f"{name}: {seconds:.2f} CPU s a step, peak {peak / 2**20:.0f} MiB", flush=True)
    print(table(options.folder, models))


if __name__ == "__main__":
    main()
