"""The training loop, the same from one CPU to many GPUs."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, set_seed
from torch import Tensor

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.checkpoints.saving import save_checkpoint
from focaldiffusion.config.load import save_resolved
from focaldiffusion.config.run import Config
from focaldiffusion.config.sources import has_split
from focaldiffusion.data.check import names_of, write_bad
from focaldiffusion.data.disjoint import check_disjoint, scenes_of
from focaldiffusion.data.loading import open_split, prepared
from focaldiffusion.data.mixture import Mixture
from focaldiffusion.errors import InputError
from focaldiffusion.io.staging import claimed, file_errors_named
from focaldiffusion.training.examples import Grid
from focaldiffusion.training.kept import KeptExamples
from focaldiffusion.training.learner import Learner
from focaldiffusion.training.left_out import RECORD, check_missing, left_out
from focaldiffusion.training.objective import Objective, Prepared, prepare_batch
from focaldiffusion.training.schedule import Schedule, learning_rate_factor
from focaldiffusion.training.state import Checkpoints, RunState
from focaldiffusion.training.stopping import (
    RunningLoss,
    Stop,
    in_any_process,
    memory_explained,
    write_errors_named,
)
from focaldiffusion.training.validation import METRIC, Validation
from focaldiffusion.training.watch import Pace, Watch

_BAD_BATCH = "bad_batch"


class Ending(NamedTuple):
    """End of a run: the optimiser steps done, those of the whole run, and the last checkpoint."""

    step: int
    steps: int
    checkpoint: Path


def train(config: Config, resume: str | None = None, *, cpu: bool = False) -> Ending:
    """Train the model of a configuration, from the start or from where a run ended.

    Args:
        config: of the run.
        resume: "auto" for the newest undamaged checkpoint of `output.save_dir`, the folder of a
            checkpoint, or None to start anew.
        cpu: compute there although there is a GPU.

    Raises:
        InputError: data, base weights or a checkpoint that are missing or bad; a scene in train and
            val; a loss that is not finite, explodes, or covers no valid pixel; too little memory; a
            full disk.
    """
    with ExitStack() as held:
        # Entered first, and so left last: closing the log can fail too.
        held.enter_context(write_errors_named(Path(config.output.save_dir)))
        run = _Run(config, resume, held, cpu=cpu)
        held.enter_context(closing(run.watch))
        stop = held.enter_context(Stop(run.accelerator))
        held.enter_context(memory_explained(config.training))
        if run.state.owes_score:
            run.validate()
        while run.state.step < run.schedule.steps:
            run.step()
            stopping = stop.asked
            validates, saves = run.due
            if validates or saves or stopping:
                # Before it is validated: what goes wrong there must not cost what was trained.
                run.save(owes_score=validates)
            if stopping:
                run.watch.say(f"stopped at {run.where}; go on with --resume auto")
                break
            if validates:
                run.validate()
    return run.ending()


class _Run:
    """One training run: its learner, its data, its progress and its checkpoints."""

    def __init__(self, config: Config, resume: str | None, held: ExitStack, *, cpu: bool) -> None:
        """Open everything; `held` keeps the folder, other arguments and errors are of `train`."""
        training = config.training
        self.accelerator = Accelerator(
            mixed_precision=training.mixed_precision,
            cpu=cpu,
            # While the first process downloads or validates, the others wait.
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=2))],
        )
        set_seed(training.seed)
        self._config, self._directory = config, Path(config.output.save_dir)
        _check_new(self._directory, resume)

        # Data and learner.
        self._bad = left_out(config, self.accelerator, resumes=resume is not None)
        mixture = open_split(config.data, "train", training.seed, names_of(self._bad, "train"))
        # cuDNN times its algorithms for each size once, which pays where sizes repeat.
        torch.backends.cudnn.benchmark = all(one.image_size for one in mixture.sources)
        self.schedule = Schedule.of(training, len(mixture), self.accelerator.num_processes)
        if config.data.skip_bad_samples:
            check_missing(self._bad, mixture)
        self._validation = None
        if has_split(config.data, "val"):
            self._validation = Validation(config, self._bad)
            check_disjoint([*scenes_of(mixture), *scenes_of(self._validation.mixture)])
        self._objective = Objective(config.losses)
        self._learner = Learner(config, self.accelerator)

        # Checkpoints and reports.
        self._checkpoints = Checkpoints(
            config,
            self.accelerator,
            self._learner.network,
            self._learner.mean,
            self.schedule.stacks_per_step,
        )
        self.state, self._latest = RunState(), None
        if resume is not None:
            self._latest = self._checkpoints.find(resume)
        if self._latest is not None:
            self.state = self._checkpoints.load(self._latest)
        with file_errors_named(self._directory):
            if self.accelerator.is_main_process:
                self._directory.mkdir(parents=True, exist_ok=True)
                held.enter_context(claimed(self._directory))
                save_resolved(config, self._directory / "config.yaml")
                if config.data.skip_bad_samples:
                    write_bad(self._directory / RECORD, self._bad)
            self.watch = Watch(
                config,
                active=self.accelerator.is_main_process,
                step=self.state.step,
                owes_validation=self.state.owes_score,
            )
        self._announce(len(mixture))

        self._batches = self._prepared(mixture)
        self._running, self._pace = RunningLoss(), Pace()
        self._started = time.perf_counter() - self.state.seconds
        self._pace.mark(self.state.step * self.schedule.stacks_per_step)
        self._counted = 0.0  # since the last report

    @property
    def where(self) -> str:
        """The step and the number of steps, as text."""
        return f"step {self.state.step} of {self.schedule.steps}"

    @property
    def due(self) -> tuple[bool, bool]:
        """Whether to validate, and whether to save, at this step."""
        validates, saves = self.schedule.due(self.state.step, self._config.training)
        return validates and self._validation is not None, saves

    def step(self) -> None:
        """Take one optimiser step on the next effective batch."""
        parts = self._parts()
        means, counts = self._learner.backward(self._objective, parts)
        self._counted += float(counts.sum())
        loss = float((means * self._objective.weights(means)).sum())
        problem, norm = self._running.problem_of(loss), math.nan
        if problem is None:
            norm = self._learner.clip_gradients()
            problem = None if math.isfinite(norm) else f"{loss:.3g}, of gradient {norm}"
        if problem is not None:
            self._refuse(parts, problem)
        rate = self._config.optimizer.learning_rate * learning_rate_factor(
            self._config.scheduler, self.state.step, self.schedule.steps
        )
        done = self.state.step + 1
        self._learner.step(rate, done)
        seconds = time.perf_counter() - self._started
        self.state = replace(self.state, step=done, seconds=seconds)
        if done % self._config.logging.log_every_n_steps == 0 or done == self.schedule.steps:
            terms = dict(zip(self._objective.terms, means.tolist(), strict=True))
            self._report(loss, terms, {"learning_rate": rate, "gradient_norm": norm})

    def validate(self) -> None:
        """Score the model, of mean weights where there are any, and save it with the score.

        Without a val split, nothing happens.
        """
        if self._validation is None:
            return
        pipeline = self._learner.pipeline
        with self._learner.averaged():
            pipeline.denoiser.eval()
            values, pictures = self._validation(
                pipeline, self.accelerator, shared=not self._learner.sharded
            )
            pipeline.denoiser.train()
        if self.accelerator.is_main_process:
            self.watch.validation(self.state.step, values, pictures)
        metric = values[f"val/{METRIC}"]
        if self.state.best is None or metric < self.state.best:
            self.state = replace(self.state, best=metric, best_step=self.state.step)
        self.save(owes_score=False)

    def save(self, *, owes_score: bool) -> None:
        """Write a checkpoint of this step; `owes_score` if its validation is still to come."""
        self.state = replace(self.state, owes_score=owes_score)
        export = partial(self._export, self._learner.whole())
        self._latest = self._checkpoints.save(self.state, export)

    def ending(self) -> Ending:
        """How the run ended, after its last checkpoint."""
        assert self._latest is not None
        return Ending(self.state.step, self.schedule.steps, self._latest)

    def _parts(self) -> list[Prepared]:
        """This process's share of the next effective batch, each part of one size.

        Raises:
            InputError: a sample that cannot be read; what was trained is saved before.
        """
        parts: list[Prepared] = []
        problem: InputError | None = None
        try:
            for _ in range(self.schedule.accumulation):
                parts += next(self._batches)
            if self._learner.sharded and len(parts) != self.schedule.accumulation:
                raise InputError(
                    "stacks of several sizes in one batch, which processes with shards of the "
                    "weights cannot take. Give all sources one image_size."
                )
        except InputError as error:
            problem = error
        if in_any_process(self.accelerator, problem is not None):
            saved = ""
            if self.state.step > 0:
                self.save(owes_score=False)
                # For the next start to read all samples again.
                (self._directory / RECORD).unlink(missing_ok=True)
                saved = (
                    f" Step {self.state.step} is saved: mend the file, or leave bad samples out by "
                    "data.skip_bad_samples, and go on with --resume auto."
                )
            raise InputError(f"{problem or 'another process could not read its stacks.'}{saved}")
        return parts

    def _announce(self, epoch: int) -> None:
        for one in self._bad:
            self.watch.say(f"left out: {one.split}: {one.source}: {one.reason}")
        if self._bad:
            self.watch.say(f"{len(self._bad)} bad samples are left out, see {RECORD}")
        if self._latest is not None:
            self.watch.say(f"going on from {self._latest}, {self.where}")
        moving, network = self._learner.moving.values(), self._learner.network
        self.watch.say(
            f"{sum(one.numel() for one in moving):,} numbers train, of "
            f"{sum(one.numel() for one in network.parameters()):,}; {self.schedule.steps} steps of "
            f"{self.schedule.stacks_per_step} stacks, {epoch} stacks an epoch"
        )

    def _prepared(self, mixture: Mixture) -> Iterator[list[Prepared]]:
        """This process's batches, prepared by the workers where they have the device."""
        config, completer = self._config, self._learner.pipeline.completer
        kept = KeptExamples.open(config, mixture, Grid.of(completer))
        make = partial(
            prepare_batch,
            completer=completer,
            model=config.model,
            training=config.training,
            with_stacks=self._objective.reads_stacks,
            kept=kept,
        )
        return prepared(
            mixture,
            self.schedule.positions(
                self.accelerator.process_index,
                self.state.step,
                lambda position: mixture.image_size(position) or (0, 0),
            ),
            self.schedule.batch_size,
            make,
            num_workers=config.data.num_workers,
            device=self.accelerator.device,
            with_estimates=True,
            find_input=None if kept is None else kept.find,
        )

    def _report(self, loss: float, terms: dict[str, float], others: dict[str, float]) -> None:
        """Write down the numbers of this step."""
        done, stacks = self.state.step, self.schedule.stacks_per_step
        if self._counted == 0:
            raise InputError(
                f"step {done}: no stack since the last report has what `losses` compares with: a "
                "valid depth, an all-in-focus image or, for consistency_weight, a camera and focus "
                "distances. Choose other losses, or add what is missing."
            )
        self._counted = 0.0
        self._pace.mark(done * stacks)
        report = {"loss": loss, **terms, **others, "stacks_per_second": self._pace.rate}
        self.watch.numbers(done, {f"train/{name}": value for name, value in report.items()})
        errors = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        left = self._pace.text(self.schedule.steps * stacks)
        self.watch.say(f"step {done}/{self.schedule.steps}  loss {loss:.4g}  {errors}  {left}")

    def _refuse(self, parts: list[Prepared], problem: str) -> NoReturn:
        """Keep the batch of a bad step, and stop."""
        folder = self._directory / _BAD_BATCH
        _keep_batch(parts, folder, self.accelerator.process_index)
        raise InputError(
            f"step {self.state.step + 1}: the loss is {problem}. Its batch is kept in {folder}; "
            "look at it, lower optimizer.learning_rate, or set training.max_grad_norm, and go on "
            "from the last checkpoint with --resume auto."
        )

    def _export(self, pipeline: FocalDiffusionPipeline | None, directory: Path) -> None:
        """Write the model, of mean weights where there are any, for inference."""
        assert pipeline is not None, "the main process has it"
        state = self.state
        provenance = {
            "step": state.step,
            "hours": round(state.seconds / 3600, 3),
            METRIC: state.best if state.best_step == state.step else None,
            "torch": str(torch.__version__),
            "device": _device_name(pipeline.device),
        }
        adapter_only = self._config.training.tuning == "lora"
        with self._learner.averaged():
            save_checkpoint(
                pipeline, directory, self._config, provenance, adapter_only=adapter_only
            )


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _check_new(save_dir: Path, resume: str | None) -> None:
    """Refuse to overwrite another run."""
    if resume is None and any((save_dir / "checkpoints").glob("step-*")):
        raise InputError(
            f"{save_dir}: already holds a run. Go on with it by --resume auto, or choose another "
            "output.save_dir (--output-dir)."
        )


def _keep_batch(parts: list[Prepared], folder: Path, process: int) -> None:
    """Write the inputs of the network in a process's step, and the truth, for inspection."""
    from safetensors.torch import save_file

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
                folder / f"{process}-{index}.safetensors",
                metadata={"sources": json.dumps(part.truth.sources)},
            )
