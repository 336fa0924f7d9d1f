"""The part of gpu.py with a network of the size of Stable Diffusion 3.5: sd35."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from random_base import random_weights

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.models.conditioning import FEATURES, HISTOGRAM_BINS, Proposal
from focaldiffusion.models.denoiser import build
from focaldiffusion.models.memory import memory_row
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.models.prompt import EmptyPrompt
from focaldiffusion.models.surroundings import SURROUNDINGS

if TYPE_CHECKING:
    from gpu import Probe

_GIB = 2**30
_STEPS = 4  # of the flow from noise


def random_pipeline(name: str, device: str) -> FocalDiffusionPipeline:
    """A preset in bfloat16 with random weights, which never were on the CPU or in float32."""
    preset = PRESETS[name]
    with torch.device("meta"):
        denoiser: Any = build(preset, "estimate")
        vae: Any = AutoencoderKL(**(preset.autoencoder or {}))
    denoiser, vae = random_weights(denoiser, device), random_weights(vae, device)
    prompt = EmptyPrompt(
        preset.prompt_tokens, preset.prompt_channels, preset.pooled_prompt_channels
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipeline = FocalDiffusionPipeline(denoiser, prompt, scheduler, vae)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def sd35(probe: Probe) -> None:
    """Steps and images of the pipeline, beside its bare networks; then the memory estimate."""
    name, sides_px = ("tiny", (64, 128)) if probe.tiny else ("sd35-medium", (512, 1024))
    pipeline = random_pipeline(name, probe.device)
    peaks = {}
    for side_px in sides_px:
        for steps, start in ((1, "estimate"), (_STEPS, "noise")):
            with probe.guarded(f"{side_px} px, {steps} steps"), torch.no_grad():
                pipeline.register_to_config(start=start)
                peaks[side_px] = _image_row(probe, pipeline, side_px, steps)
    with torch.no_grad():
        _autoencoder_rows(probe, pipeline.vae, sides_px[0])
    del pipeline
    probe.free()
    for side_px, peak_gib in peaks.items():
        with probe.guarded(f"{side_px} px, estimate of memory"):
            estimated_gib = memory_row(name, side_px).inference_bytes / _GIB
            _memory_row(probe, f"{side_px} px, models/memory.py", peak_gib, estimated_gib)


def _image_row(probe: Probe, pipeline: Any, side_px: int, steps: int) -> float:
    """Add a row on one image; returns its peak memory [GiB]."""
    completer = pipeline.completer
    proposal = _proposal(side_px, probe.device)
    dtype = pipeline.denoiser.dtype
    condition = completer.condition(proposal)
    state = completer.estimate(proposal.depth_code, condition)
    embeds, pooled = (one.to(dtype) for one in completer.prompt(1))
    bare = partial(
        pipeline.denoiser,
        hidden_states=torch.cat([state, condition], 1).to(dtype),
        encoder_hidden_states=embeds,
        pooled_projections=pooled,
        timestep=torch.full((1,), 1000.0, device=probe.device),
        return_dict=False,
    )
    image = proposal.all_in_focus.to(dtype)
    latents = state[:, completer.codec.channels :].to(dtype)
    transformer = probe.median(bare).seconds
    encoder = probe.median(lambda: pipeline.vae.encode(image)).seconds
    decoder = probe.median(lambda: pipeline.vae.decode(latents)).seconds
    # The image is encoded, from the estimate its depth as well, and the new depth is decoded.
    encoded = 2 if completer.start == "estimate" else 1
    alone = steps * transformer + encoded * encoder + decoder
    step = probe.median(
        lambda: completer.velocity(state, torch.ones(1, device=probe.device), condition)
    )
    probe.start_peak()
    generator = torch.Generator().manual_seed(0)
    whole = probe.median(lambda: completer.predict(proposal, steps, generator, with_image=False))
    peak_gib = probe.peak_gib()
    probe.row(
        f"{side_px} px, {steps} step{'s' * (steps > 1)} from {completer.start}",
        ms_per_step=1000 * step.seconds,
        ms_per_image=1000 * whole.seconds,
        bare_transformer_ms=1000 * transformer,
        bare_encoder_ms=1000 * encoder,
        bare_decoder_ms=1000 * decoder,
        times_bare=whole.seconds / alone,
        peak_GiB=peak_gib,
        runs=whole.runs,
    )
    return peak_gib


def _autoencoder_rows(probe: Probe, vae: Any, side_px: int) -> None:
    """Add rows on the autoencoder in three number formats; errors are of float32's spread."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, side_px, side_px, generator=generator).to(probe.device) * 2 - 1
    exact: torch.Tensor | None = None
    allowed = torch.backends.cudnn.allow_tf32
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("TF32", torch.float32, True),
        ("bfloat16", torch.bfloat16, False),
    ):
        with probe.guarded(f"autoencoder, {name}"):
            torch.backends.cudnn.allow_tf32 = tf32
            vae.to(dtype)
            latents = vae.encode(image.to(dtype)).latent_dist.mean
            decoded = vae.decode(latents).sample.float()
            exact = decoded if exact is None else exact
            probe.start_peak()
            probe.row(
                f"autoencoder, {side_px} px, {name}",
                bare_encoder_ms=1000 * probe.median(partial(vae.encode, image.to(dtype))).seconds,
                bare_decoder_ms=1000 * probe.median(partial(vae.decode, latents)).seconds,
                peak_GiB=probe.peak_gib(),
                error=float((decoded - exact).std() / exact.std()),
            )
    torch.backends.cudnn.allow_tf32 = allowed


def _memory_row(probe: Probe, name: str, measured_gib: float, estimated_gib: float) -> None:
    """Add a row on what was measured, on a CPU of the whole process, and what was estimated."""
    ratio = measured_gib / estimated_gib if probe.device == "cuda" else None
    probe.row(
        name,
        peak_GiB=measured_gib,
        estimated_GiB=estimated_gib,
        measured_over_estimated=ratio,
    )


def _proposal(side_px: int, device: str) -> Proposal:
    """A proposal of random maps."""
    generator = torch.Generator().manual_seed(0)

    def maps(channels: int, low: float) -> torch.Tensor:
        values = torch.rand(1, channels, side_px, side_px, generator=generator)
        return (low + (1 - low) * values).to(device)

    histogram = maps(HISTOGRAM_BINS, 0)
    return Proposal(
        all_in_focus=maps(3, -1),
        depth_code=maps(1, -1),
        features=maps(len(FEATURES), 0),
        histogram=histogram / histogram.sum(1, keepdim=True),
        surroundings=maps(SURROUNDINGS, -1),
        prior=maps(0, -1),
        wide=maps(0, -1),
    )
