"""Parts of gpu.py with networks that train or are large: sd35, lora and compact."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
    FlowMatchEulerDiscreteScheduler,
)
from torch import nn

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.config.load import load_config
from focaldiffusion.config.run import Config
from focaldiffusion.data.loading import open_split, prepared
from focaldiffusion.models.conditioning import FEATURES, HISTOGRAM_BINS, Proposal
from focaldiffusion.models.denoiser import build
from focaldiffusion.models.memory import memory_row
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.models.prompt import EmptyPrompt
from focaldiffusion.models.surroundings import SURROUNDINGS
from focaldiffusion.training.learner import Learner
from focaldiffusion.training.objective import Objective, Prepared, prepare_batch

if TYPE_CHECKING:
    from gpu import Probe

_CONFIGS = Path(__file__).resolve().parents[1] / "configs"
_GIB = 2**30
_STEPS = 4  # of the flow from noise
_RATE = 1e-5  # of learning; nothing is learnt from random weights
_TRAINER_STEPS = 20


def _random_pipeline(name: str, device: str) -> FocalDiffusionPipeline:
    """A preset in bfloat16 with random weights, which never were on the CPU or in float32."""
    preset = PRESETS[name]
    with torch.device("meta"):
        parts: list[nn.Module] = [build(preset, "estimate").bfloat16()]
        parts.append(AutoencoderKL(**preset.autoencoder).bfloat16())
    for part in parts:
        part.to_empty(device=device)
        part.eval()
        with torch.no_grad():
            for tensor in (*part.parameters(), *part.buffers()):
                tensor.normal_(std=0.02)
    prompt = EmptyPrompt(
        preset.prompt_tokens, preset.prompt_channels, preset.pooled_prompt_channels
    )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    denoiser, vae = parts
    pipeline = FocalDiffusionPipeline(denoiser, prompt, scheduler, vae)  # type: ignore[arg-type]
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def sd35(probe: Probe) -> None:
    """Steps and images of the pipeline, beside its bare networks; then the memory estimate."""
    name, sides_px = ("tiny", (64, 128)) if probe.tiny else ("sd35-medium", (512, 1024))
    pipeline = _random_pipeline(name, probe.device)
    peaks = {}
    for side_px in sides_px:
        for steps, start in ((1, "estimate"), (_STEPS, "noise")):
            with probe.guarded(f"{side_px} px, {steps} steps"), torch.no_grad():
                pipeline.register_to_config(start=start)
                peaks[side_px] = _image_row(probe, pipeline, side_px, steps)
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
    )


def lora(probe: Probe) -> None:
    """Training steps with the real learner: the velocity alone, all losses, and base.yaml's."""
    name, side_px = ("tiny", 64) if probe.tiny else ("sd35-medium", 512)
    both = ["model.with_image=true", "losses.rgb_weight=1", "losses.rgb_ssim=0.2"]
    alone = ["model.with_image=true", "losses.depth_weight=0"]
    accelerator = Accelerator(mixed_precision="bf16", cpu=probe.tiny)
    batches: dict[int, Prepared] = {}
    peaks = {}
    runs: list[tuple[str, int, list[str]]] = [
        ("loss on the velocity", 1, alone),
        ("all losses", 1, both),
        ("all losses", 2 if probe.tiny else 4, both),
        ("losses of depth", 2 if probe.tiny else 4, []),
    ]
    for label, batch_size, losses in runs:
        for checkpointing in (False, True):
            title = f"{label}, batch {batch_size}"
            with probe.guarded(title):
                config = _lora_config(side_px, batch_size, losses, checkpointing=checkpointing)
                learner = Learner(config, accelerator, _random_pipeline(name, probe.device))
                if batch_size not in batches:
                    batches[batch_size] = _batch(probe, config, learner)
                peak = _training_row(probe, title, config, learner, batches[batch_size])
                if label == "all losses" and batch_size == 1:
                    peaks[checkpointing] = peak
            learner = None
            accelerator.free_memory()
            probe.free()
    with probe.guarded("estimate of memory"):
        row = memory_row(name, side_px)
        for checkpointing, peak_gib in peaks.items():
            size = row.training_checkpointed_bytes if checkpointing else row.training_bytes
            title = f"models/memory.py{', checkpointing' * checkpointing}"
            _memory_row(probe, title, peak_gib, size / _GIB)


def _lora_config(
    side_px: int, batch_size: int, losses: list[str], *, checkpointing: bool
) -> Config:
    """configs/base.yaml on procedural scenes."""
    changes = [
        "data.dataset_type=procedural",
        "data.data_root=[]",
        "data.num_workers=0",
        f"data.image_size=[{side_px}, {side_px}]",
        "data.focal_stack_size=5",
        f"training.batch_size={batch_size}",
        "training.base_weights=bfloat16",
        f"training.gradient_checkpointing={json.dumps(checkpointing)}",
        *losses,
    ]
    return load_config(_CONFIGS / "base.yaml", changes).config


def _batch(probe: Probe, config: Config, learner: Learner) -> Prepared:
    """A batch of procedural scenes, photographed, estimated and encoded on the device."""
    mixture = open_split(config.data, "train", config.training.seed)
    make = partial(
        prepare_batch,
        completer=learner.pipeline.completer,
        model=config.model,
        training=config.training,
        with_stacks=False,
        kept=None,
    )
    size = config.training.batch_size
    found: list[Prepared] = []

    def prepare() -> None:
        stream = prepared(
            mixture, range(size), size, make, device=probe.device, with_estimates=True
        )
        found.extend(one for batch in stream for one in batch)

    seconds = probe.seconds(prepare)
    height, width = found[0].truth.valid.shape[-2:]
    probe.row(
        f"making {size} stack{'s' * (size > 1)} of {width}x{height} with estimates",
        stacks_per_s=size / seconds,
        runs=1,
    )
    return found[0]


def _training_row(
    probe: Probe, title: str, config: Config, learner: Learner, batch: Prepared
) -> float:
    """Add a row on training steps; returns their peak memory [GiB]."""
    objective = Objective(config.losses)
    done = 0

    def step() -> None:
        nonlocal done
        learner.backward(objective, [batch])
        learner.clip_gradients()
        done += 1
        learner.step(_RATE, done)

    probe.start_peak()
    timing = probe.median(step)
    peak_gib = probe.peak_gib()
    probe.row(
        title,
        gradient_checkpointing=config.training.gradient_checkpointing,
        ms_per_step=1000 * timing.seconds,
        stacks_per_s=config.training.batch_size / timing.seconds,
        peak_GiB=peak_gib,
        runs=timing.runs,
    )
    return peak_gib


def compact(probe: Probe) -> None:
    """Steps of configs/compact.yaml on one batch in memory, then the trainer itself."""
    from training import in_memory, trainer_rate

    with _compact_config(probe) as config, probe.guarded("in memory"):
        steps = 2 if probe.tiny else 100
        probe.start_peak()
        rate = in_memory(config, steps, torch.device(probe.device))
        probe.row("in memory", stacks_per_s=rate, peak_GiB=probe.peak_gib(), steps=steps)
    with _compact_config(probe) as config, probe.guarded("trainer"):
        probe.start_peak()
        rate = trainer_rate(config)
        probe.row(
            "trainer, from kept examples",
            stacks_per_s=rate,
            peak_GiB=probe.peak_gib(),
            steps=_TRAINER_STEPS,
        )


@contextmanager
def _compact_config(probe: Probe) -> Iterator[Config]:
    """configs/compact.yaml on one batch of procedural scenes, without validation."""
    size, batch_size = ("[64, 64]", 2) if probe.tiny else ("[256, 320]", 16)
    source = {"name": "train", "dataset_type": "procedural", "data_root": []}
    with tempfile.TemporaryDirectory() as folder:
        changes = [
            f"data.train_sources={json.dumps([source | {'max_samples': batch_size}])}",
            "data.dataset_type=null",
            "data.val_sources=null",
            "data.num_workers=0",
            f"data.image_size={size}",
            f"training.batch_size={batch_size}",
            f"training.num_epochs={_TRAINER_STEPS}",
            f"training.examples_dir={json.dumps(f'{folder}/examples')}",
            "training.save_every_n_epochs=1000000",
            "logging.log_every_n_steps=2",
            "logging.level=ERROR",
            f"output.save_dir={json.dumps(f'{folder}/run')}",
        ]
        yield load_config(_CONFIGS / "compact.yaml", changes).config
