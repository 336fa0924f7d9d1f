"""Learner: the model that trains, its optimiser and the running mean of its weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from focaldiffusion.config.run import Config, TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.training.model import (
    Mean,
    made_trainable,
    make_optimizer,
    trainable_model,
    trained_parameters,
)
from focaldiffusion.training.objective import Objective, Prepared
from focaldiffusion.training.stopping import memory_explained

if TYPE_CHECKING:
    from accelerate import Accelerator

    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline


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


class Learner:
    """The model that trains, from one process to many.

    Attributes:
        pipeline: the model with the weights that train, not those of the running mean.
        network: its network, not wrapped.
        moving: the weights that train, by name.
        mean: their running mean; None without `training.use_ema`.
        sharded: whether the weights lie in shards over the processes.
    """

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        pipeline: FocalDiffusionPipeline | None = None,
    ) -> None:
        """Open the model of a configuration and make its optimiser.

        Args:
            config: of the run.
            accelerator: with its device and number format.
            pipeline: trained instead of the model of the configuration, to measure a size without
                its weights.

        Raises:
            InputError: see `trainable_model` and `make_optimizer`; shards that the configuration
                does not allow; too little memory.
        """
        training = config.training
        self._config, self._accelerator = config, accelerator
        self.sharded = _is_sharded(accelerator, training)
        # The first process of each machine downloads for the others there.
        with accelerator.local_main_process_first(), memory_explained(training):
            if pipeline is None:
                self.pipeline = trainable_model(config.model, training, accelerator.device)
            else:
                self.pipeline = made_trainable(pipeline, training, accelerator.device)
        self.network = self.pipeline.denoiser
        if training.compile:
            self.network.compile()
        weights = list(trained_parameters(self.network).values())
        self._wrapped, self._optimizer = accelerator.prepare(
            self.network, make_optimizer(config.optimizer, weights)
        )
        self.moving = trained_parameters(self.network)
        self.mean = Mean(self.moving, training.ema_decay) if training.use_ema else None
        self._completer = replace(
            self.pipeline.completer, denoiser=_Network(self._wrapped, self.network)
        )

    def backward(self, objective: Objective, parts: list[Prepared]) -> tuple[Tensor, Tensor]:
        """Compute the gradients of one effective batch.

        The counts of the whole batch, over all parts and processes, come first: the loss is a mean
        over all its valid pixels, however it is split.

        Args:
            objective: with T terms.
            parts: of this process.

        Returns:
            (T,) mean error of each term, and (T,) what each is a mean over; equal in all processes.
        """
        accelerator = self._accelerator
        counts = torch.stack([objective.counts(part) for part in parts]).sum(0)
        counts = accelerator.reduce(counts, "sum")
        shares = counts.clamp_min(1)
        total = torch.zeros_like(counts, dtype=torch.float32)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with nullcontext() if last else accelerator.no_sync(self._wrapped):
                sums = objective.sums(self._completer, part)
                loss = (sums / shares.to(sums) * objective.weights(sums)).sum()
                # Processes average their gradients, and these are shares of one mean.
                accelerator.backward(loss * accelerator.num_processes)
            total += sums.detach()
        return accelerator.reduce(total, "sum") / shares, counts

    def clip_gradients(self) -> float:
        """Scale the gradients down to `training.max_grad_norm`; returns their norm before."""
        most = self._config.training.max_grad_norm
        most = math.inf if most is None else most
        return float(self._accelerator.clip_grad_norm_(self.moving.values(), most))

    def step(self, learning_rate: float, done: int) -> None:
        """Move the weights along their gradients; `done` steps are then taken."""
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self.mean is not None:
            self.mean.update(done)

    def averaged(self) -> AbstractContextManager[None]:
        """The running mean instead of the weights, inside the block, where there is one."""
        return nullcontext() if self.mean is None else self.mean.in_place()

    def whole(self) -> FocalDiffusionPipeline | None:
        """The model with all its weights; of shards, a copy in the main process, None in others.

        Every process has to call this.
        """
        if not self.sharded:
            return self.pipeline
        state = self._accelerator.get_state_dict(self._wrapped)
        if not self._accelerator.is_main_process:
            return None
        copy = trainable_model(self._config.model, self._config.training, "cpu")
        copy.denoiser.load_state_dict(state)
        return copy


def _is_sharded(accelerator: Accelerator, training: TrainingConfig) -> bool:
    """Whether accelerate shards the weights, by FSDP."""
    from accelerate.utils import DistributedType

    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        raise InputError(
            "DeepSpeed moves the weights within the backward pass, before a loss or gradient that "
            "is not finite can stop it, so it is refused. Start with configs/accelerate/fsdp.yaml, "
            "which saves the same memory."
        )
    if kind != DistributedType.FSDP:
        return False
    if training.use_ema:
        raise InputError(
            "training.use_ema: a running mean needs the whole weights, which FSDP keeps in "
            "shards. Set it to false, or start with configs/accelerate/ddp.yaml."
        )
    return True
