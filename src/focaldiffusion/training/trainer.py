"""The training loop: visible, linear, the same from one CPU to many GPUs."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed
from torch import Tensor, nn

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.config.load import save_resolved
from focaldiffusion.config.run import Config
from focaldiffusion.config.sources import has_split
from focaldiffusion.data.loading import open_split, prepared
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import file_errors_named
from focaldiffusion.models.completer import Completer
from focaldiffusion.training.kept import KeptExamples
from focaldiffusion.training.mean import Mean
from focaldiffusion.training.model import make_optimizer, open_model, trained_parameters
from focaldiffusion.training.objective import Objective, Prepared, prepare_batch
from focaldiffusion.training.plan import Plan, learning_rate_factor
from focaldiffusion.training.sharding import gathered, is_sharded
from focaldiffusion.training.state import Checkpoints, Progress
from focaldiffusion.training.stopping import RunningLoss, Stop, memory_explained
from focaldiffusion.training.validation import METRIC, Validation
from focaldiffusion.training.watch import Pace, Watch

_BAD_BATCH = "bad_batch"


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        step: optimiser steps done.
        steps: of the whole run.
        checkpoint: the last one that was written.
    """

    step: int
    steps: int
    checkpoint: Path


@dataclass(frozen=True, eq=False)
class _Network:
    """A network as accelerate wraps it, with what a `Completer` asks the bare one for."""

    wrapped: Callable[..., Any]
    bare: Any

    def __call__(self, **inputs: Any) -> Any:
        return self.wrapped(**inputs)

    @property
    def config(self) -> Any:
        return self.bare.config

    @property
    def dtype(self) -> torch.dtype:
        return self.bare.dtype


def train(config: Config, resume: str | None = None, *, cpu: bool = False) -> Outcome:
    """Train the model of a configuration, from the start or from where a run ended.

    Args:
        config: of the run.
        resume: "auto" for the newest whole checkpoint of `output.save_dir`, a checkpoint's folder,
            or None to start anew.
        cpu: compute there although there is a GPU.

    Raises:
        InputError: data, base weights or a checkpoint that are missing or bad; a loss that is not
            finite, has exploded or is of nothing; too little memory.
    """
    training = config.training
    accelerator = Accelerator(
        mixed_precision=training.mixed_precision,
        cpu=cpu,
        # While the first process downloads or validates, the others wait.
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
    )
    sharded = is_sharded(accelerator, training)
    set_seed(training.seed)
    save_dir = Path(config.output.save_dir)
    _check_new(save_dir, resume)

    # What is trained on what.
    mixture = open_split(config.data, "train", training.seed)
    plan = Plan.of(training, len(mixture), accelerator.num_processes)
    validation = Validation(config) if has_split(config.data, "val") else None
    objective = Objective(config.losses)
    with accelerator.main_process_first(), memory_explained(training):  # it downloads for all
        pipeline = open_model(config.model, training, accelerator.device)
    bare = pipeline.denoiser
    if training.compile:
        bare.compile()
    wrapped, optimizer = accelerator.prepare(
        bare, make_optimizer(config.optimizer, list(trained_parameters(bare).values()))
    )
    moving = trained_parameters(bare)
    mean = Mean(moving, training.ema_decay) if training.use_ema else None
    completer = replace(pipeline.completer, denoiser=_Network(wrapped, bare))

    # Where it goes on from, and where it is written.
    checkpoints = Checkpoints(config, accelerator, bare, mean, plan.stacks_per_step)
    progress, latest = Progress(), None
    if resume is not None and (latest := checkpoints.find(resume)) is not None:
        progress = checkpoints.load(latest)
    with file_errors_named(save_dir):
        if accelerator.is_main_process:
            save_dir.mkdir(parents=True, exist_ok=True)
            save_resolved(config, save_dir / "config.yaml")
    watch = Watch(config, active=accelerator.is_main_process, step=progress.step)
    if latest is not None:
        watch.say(f"going on from {latest}, step {progress.step} of {plan.steps}")
    watch.say(
        f"{sum(one.numel() for one in moving.values()):,} numbers train, of "
        f"{sum(one.numel() for one in bare.parameters()):,}; {plan.steps} steps of "
        f"{plan.stacks_per_step} stacks, {len(mixture)} stacks an epoch"
    )

    first, pace, running = progress.step, Pace(), RunningLoss()
    started = time.perf_counter() - progress.seconds
    pace.mark(first * plan.stacks_per_step)
    batches = _batches(config, mixture, plan, accelerator, first, pipeline, objective)
    counted = 0.0  # since the last report

    def scored(progress: Progress, validation: Validation) -> Progress:
        with _averaged(mean):
            score = _validate(validation, pipeline, watch, progress.step, accelerator, sharded)
        progress = replace(progress, owes_score=False)
        if progress.best is None or score < progress.best:
            progress = replace(progress, best=score, best_step=progress.step)
        return progress

    def saved(progress: Progress) -> Path:
        model = gathered(accelerator, wrapped, config) if sharded else pipeline
        return checkpoints.save(progress, partial(_export, model, config, mean, progress))

    with closing(watch), Stop(accelerator) as stop, memory_explained(training):
        if validation is not None and progress.owes_score:
            progress = scored(progress, validation)
            latest = saved(progress)
        for step in range(first, plan.steps):
            # The counts of the whole effective batch come first, so that the loss is a mean over
            # all its valid pixels, however it is split.
            rate = config.optimizer.learning_rate * learning_rate_factor(
                config.scheduler, step, plan.steps
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            parts = [next(batches) for _ in range(plan.accumulation)]
            counts = torch.stack([objective.counts(part) for part in parts]).sum(0)
            counts = accelerator.reduce(counts, "sum")
            counted += float(counts.sum())
            counts = counts.clamp_min(1)
            sums = _backward(accelerator, wrapped, completer, objective, parts, counts)
            means = accelerator.reduce(sums, "sum") / counts
            loss = float((means * objective.weights(means)).sum())
            problem, norm = running.problem_of(loss), math.nan
            if problem is None:
                most = math.inf if training.max_grad_norm is None else training.max_grad_norm
                norm = float(accelerator.clip_grad_norm_(moving.values(), most))
                problem = None if math.isfinite(norm) else f"{loss:.3g}, of gradient {norm}"
            if problem is not None:
                _keep_batch(parts, save_dir, accelerator)
                raise InputError(
                    f"step {step + 1}: the loss is {problem}. Its batch is kept in "
                    f"{save_dir / _BAD_BATCH}; look at it, lower optimizer.learning_rate, or set "
                    "training.max_grad_norm, and go on from the last checkpoint with --resume auto."
                )
            optimizer.step()
            optimizer.zero_grad()
            done = step + 1
            if mean is not None:
                mean.update(done)
            progress = replace(progress, step=done, seconds=time.perf_counter() - started)

            if done % config.logging.log_every_n_steps == 0 or done == plan.steps:
                if counted == 0:
                    raise InputError(
                        f"step {done}: no stack since the last report has what `losses` compares "
                        "with: a valid depth, an all-in-focus image or, for consistency_weight, a "
                        "camera and focus distances. Choose other losses, or add what is missing."
                    )
                counted = 0.0
                pace.mark(done * plan.stacks_per_step)
                terms = dict(zip(objective.terms, means.tolist(), strict=True))
                report = {"loss": loss, **terms, "learning_rate": rate, "gradient_norm": norm}
                report["stacks_per_second"] = pace.rate
                watch.numbers(done, {f"train/{name}": value for name, value in report.items()})
                told = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
                left = pace.text(plan.steps * plan.stacks_per_step)
                watch.say(f"step {done}/{plan.steps}  loss {loss:.4g}  {told}  {left}")

            stopping = stop.asked
            validates, saves = plan.due(done, training)
            validates = validates and validation is not None
            if validates or saves or stopping:
                # Before it is validated: what goes wrong there must not cost what was trained.
                progress = replace(progress, owes_score=validates)
                latest = saved(progress)
            if stopping:
                watch.say(f"stopped at step {done} of {plan.steps}; go on with --resume auto")
                break
            if validation is not None and validates:
                progress = scored(progress, validation)
                latest = saved(progress)
    if latest is None:
        raise ValueError("a run that ends has saved a checkpoint")
    return Outcome(progress.step, plan.steps, latest)


def _backward(
    accelerator: Accelerator,
    wrapped: nn.Module,
    completer: Completer,
    objective: Objective,
    parts: list[Prepared],
    counts: Tensor,
) -> Tensor:
    """Gradients of one effective batch; (T,) the sums of this process's errors."""
    total = torch.zeros_like(counts, dtype=torch.float32)
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        with nullcontext() if last else accelerator.no_sync(wrapped):
            sums = objective.sums(completer, part)
            loss = (sums / counts.to(sums) * objective.weights(sums)).sum()
            # Processes average their gradients, and these are shares of one mean.
            accelerator.backward(loss * accelerator.num_processes)
        total += sums.detach()
    return total


def _batches(
    config: Config,
    mixture: Mixture,
    plan: Plan,
    accelerator: Accelerator,
    first_step: int,
    pipeline: FocalDiffusionPipeline,
    objective: Objective,
) -> Iterator[Prepared]:
    """This process's batches, prepared by the workers where they have the device."""
    kept = KeptExamples.open(config, mixture)
    make = partial(
        prepare_batch,
        completer=pipeline.completer,
        depth_code=config.model.depth_code,
        training=config.training,
        with_stacks=objective.reads_stacks,
        kept=kept,
    )
    return prepared(
        mixture,
        plan.positions(accelerator.process_index, first_step),
        plan.batch_size,
        make,
        num_workers=config.data.num_workers,
        device=accelerator.device,
        with_estimates=True,
        known=None if kept is None else kept.find,
    )


def _validate(
    validation: Validation,
    pipeline: FocalDiffusionPipeline,
    watch: Watch,
    step: int,
    accelerator: Accelerator,
    sharded: bool,
) -> float:
    """The metric of the model after a step, the same in every process."""
    score = torch.zeros((), device=accelerator.device)
    if accelerator.is_main_process or sharded:  # shards are only together a model
        pipeline.denoiser.eval()
        values, pictures = validation(pipeline)
        pipeline.denoiser.train()
    if accelerator.is_main_process:
        score += values[f"val/{METRIC}"]
        watch.numbers(step, values)
        for index, picture in enumerate(pictures):
            watch.picture(step, f"val/{index}", picture)
        told = "  ".join(
            f"{name.removeprefix('val/')} {value:.4g}" for name, value in values.items()
        )
        watch.say(f"validation after step {step}: {told}")
    return float(accelerator.reduce(score, "sum"))


def _averaged(mean: Mean | None) -> AbstractContextManager[None]:
    """The running mean in place of the weights, where there is one."""
    return nullcontext() if mean is None else mean.in_place()


def _export(
    pipeline: FocalDiffusionPipeline | None,
    config: Config,
    mean: Mean | None,
    progress: Progress,
    directory: Path,
) -> None:
    """Write the model, of mean weights where there are any, for inference."""
    assert pipeline is not None, "the main process has it"
    provenance = {
        "step": progress.step,
        "hours": round(progress.seconds / 3600, 3),
        METRIC: progress.best if progress.best_step == progress.step else None,
        "torch": str(torch.__version__),
        "device": _device_name(pipeline.device),
    }
    adapter_only = config.training.tuning == "lora"
    with _averaged(mean):
        save_checkpoint(pipeline, directory, config, provenance, adapter_only=adapter_only)


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _check_new(save_dir: Path, resume: str | None) -> None:
    """Refuse to write over another run.

    Raises:
        InputError: there is one.
    """
    if resume is None and any((save_dir / "checkpoints").glob("step-*")):
        raise InputError(
            f"{save_dir}: holds a run already. Go on with it by --resume auto, or choose another "
            "output.save_dir (--output-dir)."
        )


def _keep_batch(parts: list[Prepared], save_dir: Path, accelerator: Accelerator) -> None:
    """Write all that the network saw in this process's step, and the truth, for inspection."""
    from safetensors.torch import save_file

    folder = save_dir / _BAD_BATCH
    with file_errors_named(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for index, part in enumerate(parts):
            tensors = {f"frames_{i}": one.images for i, one in enumerate(part.truth.stacks)}
            for holder in (part, part.truth):
                tensors |= {
                    name: one for name, one in vars(holder).items() if isinstance(one, Tensor)
                }
            save_file(
                {name: one.contiguous().cpu().clone() for name, one in tensors.items()},
                folder / f"{accelerator.process_index}-{index}.safetensors",
                metadata={"sources": json.dumps(part.truth.sources)},
            )
