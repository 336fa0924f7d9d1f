"""Weights in shards over the processes, by FSDP or DeepSpeed. Not yet run on GPUs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from focaldiffusion.config.run import Config, TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.training.model import trainable_model

if TYPE_CHECKING:
    from accelerate import Accelerator

    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline


def is_sharded(accelerator: Accelerator, training: TrainingConfig) -> bool:
    """Whether accelerate shards the weights.

    Raises:
        InputError: it does, and the configuration does not allow it.
    """
    from accelerate.utils import DistributedType

    kind = accelerator.distributed_type
    if kind not in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        return False
    if training.use_ema:
        raise InputError(
            f"training.use_ema: a running mean needs the whole weights, which {kind.value} keeps "
            "in shards. Set it to false, or start with configs/accelerate/ddp.yaml."
        )
    if kind == DistributedType.DEEPSPEED:
        if training.gradient_accumulation_steps > 1:
            raise InputError(
                "training.gradient_accumulation_steps: DeepSpeed takes a step after every backward "
                "pass. Set it to 1 and raise training.batch_size, or start with "
                "configs/accelerate/fsdp.yaml."
            )
        deepspeed = accelerator.state.deepspeed_plugin.deepspeed_config
        deepspeed["train_micro_batch_size_per_gpu"] = training.batch_size
    return True


def gathered(
    accelerator: Accelerator, wrapped: nn.Module, config: Config
) -> FocalDiffusionPipeline | None:
    """A copy of the model with all weights, in the main process; None in the others.

    Every process has to call this.
    """
    state = accelerator.get_state_dict(wrapped)
    if not accelerator.is_main_process:
        return None
    copy = trainable_model(config.model, config.training, "cpu")
    copy.denoiser.load_state_dict(state)
    return copy
