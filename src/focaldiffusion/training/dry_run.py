"""A trial of a configuration's model before training: one step per source, nothing written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from focaldiffusion.checkpoints.hub import is_hub_id, resolve_base
from focaldiffusion.config.run import Config, ModelConfig
from focaldiffusion.data.batch import StackBatch, collate, estimated
from focaldiffusion.data.dry_run import SourceCheck
from focaldiffusion.data.mixture import Draw
from focaldiffusion.data.priors import with_network_priors
from focaldiffusion.errors import InputError
from focaldiffusion.models.memory import training_bytes
from focaldiffusion.models.presets import PRESETS
from focaldiffusion.training.examples import check_shown, examples_of
from focaldiffusion.training.model import make_optimizer, trainable_model, trained_parameters
from focaldiffusion.training.objective import Objective, check_sides, prepare_batch

_GIB = 2**30


def try_model(config: Config, checks: Sequence[SourceCheck], device: str) -> Iterator[str]:
    """Build model and optimiser, and take a step on the first batch of each source of train.

    A dry run downloads nothing: if the base weights are not on this machine, it reports their
    shapes and memory instead of steps.

    Args:
        config: configuration of the run.
        checks: its data, with their first batches.
        device: device to compute on.

    Yields:
        Sentences about the model, then one per step.

    Raises:
        InputError: the model cannot be built, or a loss is not finite.
    """
    shown = config.model.shown
    for check in checks:
        if any(shown.values()) and check.source.split == "val" and check.batch is not None:
            check_shown(_estimated(check).sample(0), **shown)
    trained = [
        (check, _estimated(check))
        for check in checks
        if check.source.split == "train" and check.batch is not None
    ]
    for check, batch in trained:
        # Without weights too: it is what training refuses data for.
        examples_of(batch, config.model.depth_code, with_stacks=False, **shown)
        yield from _needs(config, check.source.name, batch)
    base = config.model.base_model_id
    if base is not None and is_hub_id(base) and not Path(base).is_dir():
        try:
            resolve_base(base, variant=config.model.variant, local_only=True)
        except InputError:
            yield from _shapes(config.model)
            return
    pipeline = trainable_model(config.model, config.training, device, prompt_of_zeros=True)
    moving = trained_parameters(pipeline.denoiser)
    optimizer = make_optimizer(config.optimizer, list(moving.values()))
    yield (
        f"{sum(one.numel() for one in moving.values()):,} numbers train, of "
        f"{sum(one.numel() for one in pipeline.denoiser.parameters()):,} "
        f"({config.training.tuning}, {type(optimizer).__name__})"
    )
    objective, completer = Objective(config.losses), pipeline.completer
    for check, batch in trained:
        part = prepare_batch(
            batch,
            [Draw(0, index, (config.training.seed, 0, index)) for index in range(len(batch))],
            completer=completer,
            model=config.model,
            training=config.training,
            with_stacks=objective.reads_stacks,
            kept=None,
        )
        with torch.autocast(
            torch.device(device).type,
            dtype=torch.bfloat16,
            enabled=config.training.mixed_precision == "bf16",
        ):
            sums = objective.sums(completer, part)
        means = sums / objective.counts(part).clamp_min(1).to(sums)
        loss = (means * objective.weights(means)).sum()
        if not bool(loss.isfinite()):
            raise InputError(
                f"{check.source.name}: the loss of its first batch is {float(loss)}. Look at the "
                "batch with `focaldiffusion data inspect`."
            )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        terms = ", ".join(
            f"{name} {value:.4g}"
            for name, value in zip(objective.terms, means.tolist(), strict=True)
        )
        yield f"{check.source.name}: one step taken, loss {loss.item():.4g} ({terms})"


def _estimated(check: SourceCheck) -> StackBatch:
    """The first batch of a source, completed by physical estimates and priors."""
    batch = check.batch
    assert batch is not None
    samples = estimated([batch.sample(index) for index in range(len(batch))])
    return collate(with_network_priors(samples, [check.source] * len(samples)))


def _needs(config: Config, source: str, batch: StackBatch) -> Iterator[str]:
    """Memory of a step on a batch, where the size of the network is known without its weights."""
    name = _preset(config.model)
    if name is None:
        return
    training = config.training
    frames, _, height, width = batch.images.shape[1:]
    size_px, images, what = (height, width), len(batch), "stacks"
    if training.patch_px is not None:
        size_px = training.patch_px, training.patch_px
        images, what = images * training.patches_per_stack, "patches"
    check_sides(batch.sources[0], size_px, PRESETS[name].max_side_px)
    decodes, in_pixels = Objective(config.losses).decodes, config.model.depth_in_pixels
    decoded = len(decodes - {"depth"} if in_pixels else decodes)
    need = training_bytes(
        name, size_px, images, training, config.optimizer.type, decoded, in_pixels
    )
    checkpointing = ", gradient checkpointing" if training.gradient_checkpointing else ""
    posteriors = [one.evidence.posterior for one in batch.estimates if one is not None]
    data = sum(one.nbytes for one in (batch.images, *posteriors))
    yield (
        f"{source}: a step on {images} {what} of {size_px[1]}x{size_px[0]} px needs "
        f"{need / _GIB:.1f} GiB ({training.tuning}, {config.optimizer.type}, frozen weights in "
        f"{training.base_weights}, mixed precision {training.mixed_precision}{checkpointing}), and "
        f"{data / _GIB:.2g} GiB for {len(batch)} stacks of {frames} frames of {width}x{height} px "
        "with their evidence"
    )


def _preset(model: ModelConfig) -> str | None:
    """Name of the preset that a model is, or starts from."""
    if model.preset is not None:
        return model.preset if model.preset in PRESETS else None
    ids = {one.base_model_id: name for name, one in PRESETS.items()}
    return ids.get(model.base_model_id) if model.base_model_id is not None else None


def _shapes(model: ModelConfig) -> Iterator[str]:
    """Shapes of a base model, which need no weights."""
    name = _preset(model)
    if name is not None:
        preset = replace(PRESETS[name], depth_in_pixels=model.depth_in_pixels)
        condition = preset.condition_channels_with(**model.shown)
        yield (
            f"{name}: {preset.state_channels} state channels and {condition} of conditioning in, "
            f"{preset.state_channels} out"
        )
    yield (
        f"no step ran: the weights of {model.base_model_id} are not on this machine, and a dry run "
        "downloads nothing; `focaldiffusion doctor` checks access to the hub."
    )
