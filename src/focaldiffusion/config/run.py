"""Everything that a training run is made from: the whole configuration."""

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
    """What is reported while a run goes on."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least important messages that are shown."""
    use_wandb: bool = False
    """Report to Weights & Biases instead of TensorBoard."""
    log_every_n_steps: PositiveInt = 10
    """Losses are reported after so many optimiser steps."""
    project_name: str = "focaldiffusion"
    """Project at Weights & Biases."""
    run_name: str | None = None
    """Name of the run there; null lets it choose one."""
    tags: tuple[str, ...] = ()
    """Labels of the run there."""


class OutputConfig(Section):
    """What a run leaves behind."""

    save_dir: PathText = "outputs/training"
    """Folder of checkpoints, logs and the resolved configuration."""
    save_top_k: PositiveInt = 3
    """So many of the newest checkpoints are kept, and the best one besides."""


class Config(Section):
    """The blocks of a configuration file."""

    model: ModelConfig = ModelConfig()
    """Which network is trained."""
    data: DataConfig = DataConfig()
    """Which samples are read from where."""
    training: TrainingConfig = TrainingConfig()
    """How long, on how much at once, and which weights move."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """How a gradient becomes a step."""
    scheduler: SchedulerConfig = SchedulerConfig()
    """How the learning rate changes."""
    losses: LossesConfig = LossesConfig()
    """What counts as an error, and how much."""
    validation: ValidationConfig = ValidationConfig()
    """How the model is sampled for validation."""
    logging: LoggingConfig = LoggingConfig()
    """What is reported while a run goes on."""
    output: OutputConfig = OutputConfig()
    """What a run leaves behind."""

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
                f"validation.num_inference_steps is {steps}, but model.start estimate goes to the "
                "result in 1 step. Leave it out"
            )
        return self

    @model_validator(mode="after")
    def _frames_are_whole(self) -> Config:
        given = [key for key in ("patch_px", "examples_dir") if getattr(self.training, key)]
        if given and self.losses.consistency_weight > 0:
            raise ValueError(
                f"training.{given[0]} with losses.consistency_weight: what is photographed again "
                "are whole frames, which it does without. Leave one of the two out"
            )
        return self
