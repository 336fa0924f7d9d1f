"""The whole configuration of a training run."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt, model_validator

from focaldiffusion.config.data import DataConfig
from focaldiffusion.config.model import ModelConfig
from focaldiffusion.config.section import PathText, Section
from focaldiffusion.config.training import (
    LossesConfig,
    OptimizerConfig,
    SchedulerConfig,
    TrainingConfig,
    ValidationConfig,
)


class LoggingConfig(Section):
    """Reports during a run."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level of messages to show."""
    use_wandb: bool = False
    """Report to Weights & Biases instead of TensorBoard."""
    log_every_n_steps: PositiveInt = 10
    """Report losses every N optimiser steps."""
    project_name: str = "focaldiffusion"
    """Project on Weights & Biases."""
    run_name: str | None = None
    """Name of the run on Weights & Biases; null lets it choose one."""
    tags: tuple[str, ...] = ()
    """Labels of the run on Weights & Biases."""


class OutputConfig(Section):
    """Files that a run writes."""

    save_dir: PathText = "outputs/training"
    """Folder for checkpoints, logs and the resolved configuration."""
    save_top_k: PositiveInt = 3
    """Number of recent checkpoints to keep, in addition to the best."""


class Config(Section):
    """The blocks of a configuration file."""

    model: ModelConfig = ModelConfig()
    """The network."""
    data: DataConfig = DataConfig()
    """Sources of samples."""
    training: TrainingConfig = TrainingConfig()
    """Length of the run, batch size, and the weights that train."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """The optimiser."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """Learning rate over the run."""
    losses: LossesConfig = LossesConfig()
    """Weights of the loss terms."""
    validation: ValidationConfig = ValidationConfig()
    """Sampling for validation."""
    logging: LoggingConfig = LoggingConfig()
    """Reports during a run."""
    output: OutputConfig = OutputConfig()
    """Files that a run writes."""

    @property
    def needed_packages(self) -> dict[str, str]:
        """Names of the optional packages that training needs, with the setting that needs each."""
        model, training = self.model, self.training
        needs = (
            {"wandb": "logging.use_wandb"} if self.logging.use_wandb else {"tensorboard": "logs"}
        )
        if training.tuning == "lora":
            needs["peft"] = "training.tuning lora"
        if model.base_model_id is not None and training.start_from is None:
            needs["transformers"] = "text encoders of model.base_model_id"
        if training.base_weights == "nf4":
            needs["bitsandbytes"] = "training.base_weights nf4"
        elif self.optimizer.type.endswith("_8bit"):
            needs["bitsandbytes"] = f"optimizer.type {self.optimizer.type}"
        return needs

    @model_validator(mode="after")
    def _steps_suit_the_start(self) -> Config:
        steps = self.validation.num_inference_steps
        if self.model.start == "estimate" and steps > 1:
            raise ValueError(
                f"validation.num_inference_steps is {steps}, but model.start estimate reaches the "
                "result in 1 step. Leave it out"
            )
        return self

    @model_validator(mode="after")
    def _frames_are_whole(self) -> Config:
        given = [key for key in ("patch_px", "examples_dir") if getattr(self.training, key)]
        if given and self.losses.consistency_weight > 0:
            raise ValueError(
                f"training.{given[0]} with losses.consistency_weight: only whole frames can be "
                "re-rendered, and it keeps none. Leave one of the two out"
            )
        return self
