"""The schedule of a run: which samples each optimiser step takes, and at which learning rate.

Both are functions of the step alone, so a run resumes from a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from focaldiffusion.config.run import SchedulerConfig, TrainingConfig
from focaldiffusion.errors import InputError


@dataclass(frozen=True)
class Schedule:
    """Optimiser steps over the positions of a `Mixture`, shared among processes.

    Attributes:
        batch_size: stacks of one forward pass.
        accumulation: forward passes of a process in one step.
        processes: number of them.
        epoch: positions in an epoch.
        epochs: number of them in the run.
    """

    batch_size: int
    accumulation: int
    processes: int
    epoch: int
    epochs: int

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise InputError(
                f"training: {self.epochs} epochs of {self.epoch} samples are fewer than the "
                f"{self.stacks_per_step} stacks of one optimiser step ({self.batch_size} x "
                f"{self.accumulation} x {self.processes} processes). Lower training.batch_size or "
                "training.gradient_accumulation_steps, or train for more epochs."
            )

    @classmethod
    def of(cls, training: TrainingConfig, epoch: int, processes: int) -> Schedule:
        """The schedule that a configuration asks for.

        Raises:
            InputError: too few samples for one step.
        """
        return cls(
            training.batch_size,
            training.gradient_accumulation_steps,
            processes,
            epoch,
            training.num_epochs,
        )

    @property
    def stacks_per_step(self) -> int:
        """Size of the effective batch."""
        return self.batch_size * self.accumulation * self.processes

    @property
    def steps(self) -> int:
        """Optimiser steps of the run; stacks that do not fill the last one are left out."""
        return self.epochs * self.epoch // self.stacks_per_step

    def epochs_after(self, step: int) -> int:
        """Number of complete epochs after a number of steps."""
        if step == self.steps:
            return self.epochs
        return step * self.stacks_per_step // self.epoch

    def due(self, step: int, training: TrainingConfig) -> tuple[bool, bool]:
        """Whether to validate, and whether to save, after a number of steps."""
        epochs = self.epochs_after(step)
        last, turned = step == self.steps, epochs > self.epochs_after(step - 1)
        every_steps = training.save_every_n_steps
        return (
            last or (turned and epochs % training.val_every_n_epochs == 0),
            last
            or (turned and epochs % training.save_every_n_epochs == 0)
            or (every_steps is not None and step % every_steps == 0),
        )

    def positions(
        self, process: int, first_step: int, size: Callable[[int], tuple[int, int]]
    ) -> Sequence[int]:
        """The positions that a process reads from a step on, batch after batch.

        Batch b of a step goes to process b mod P, so a step sees the same stacks for any number of
        processes. Inside a step, the process sorts its stacks by size, so that few batches have
        stacks of several.

        Args:
            process: index of the process.
            first_step: first step to read for.
            size: of the stack at a position.
        """
        found = []
        for step in range(first_step, self.steps):
            batches = range(step * self.accumulation, (step + 1) * self.accumulation)
            own = (
                (batch * self.processes + process) * self.batch_size + place
                for batch in batches
                for place in range(self.batch_size)
            )
            found += sorted(own, key=size)
        return found


def learning_rate_factor(scheduler: SchedulerConfig, step: int, steps: int) -> float:
    """Learning rate of a step, the first being 0, relative to its peak.

    It rises linearly over `warmup_steps`, then stays, or falls to zero at the end of the run along
    a line or half a cosine.
    """
    if step < scheduler.warmup_steps:
        return (step + 1) / (scheduler.warmup_steps + 1)
    if scheduler.type == "constant":
        return 1.0
    done = (step - scheduler.warmup_steps) / max(1, steps - scheduler.warmup_steps)
    return 1 - done if scheduler.type == "linear" else (1 + math.cos(math.pi * done)) / 2
