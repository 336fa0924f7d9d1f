"""The blocks of a configuration file, but for `data`: model, training, validation, reports."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from focaldiffusion.config.data import DataConfig
from focaldiffusion.config.section import NonNegative, PathText, Section, Share


class ModelConfig(Section):
    """The generative model."""

    base_model_id: PathText | None = None
    """Weights to adapt: an id of the Hugging Face hub or a local folder; null starts from none."""
    preset: str | None = None
    """Size of a network with random weights, such as `compact`; null with base weights."""
    variant: str | None = None
    """Variant of the weight files, such as `fp16`; null reads the plain ones."""
    start: Literal["estimate", "noise"] = "estimate"
    """Start of the flow: the physical estimate (one exact step) or noise (generative)."""
    depth_code: Literal["log", "inverse"] = "log"
    """Depth code of the network: even steps of log z or of 1/z."""
    timestep: Annotated[float, Field(gt=0, le=1000)] = 1000.0
    """Timestep that the network is told at noise level 1. At 1000 a base model expects pure noise,
    but `start: estimate` shows it images; smaller ones need that start."""
    with_prior: bool = False
    """Show the network the prior of `data.dataset_kwargs`, fitted to physics. The model then needs
    one for every stack."""
    with_wide: bool = False
    """Show the network the evidence of three windows around each pixel, up to a ninth of the image,
    which the pixel's own texture does not gate."""
    depth_in_pixels: bool = False
    """Predict depth as the pixels of each latent cell instead of latents of the autoencoder: no
    decoder for depth. A network without an autoencoder always does."""
    with_image: bool = True
    """Train the image half too, which only `--fill-unsharp` shows; false takes a third less time
    with an autoencoder."""

    @property
    def shown(self) -> dict[str, bool]:
        """Whether the network sees what only some networks see, by key."""
        return {"with_prior": self.with_prior, "with_wide": self.with_wide}


class TrainingConfig(Section):
    """Length of the run, batch size, and the weights that train."""

    num_epochs: PositiveInt = 1
    """Passes over the training samples."""
    batch_size: PositiveInt = 1
    """Stacks per process and forward pass."""
    gradient_accumulation_steps: PositiveInt = 1
    """Forward passes per optimiser step."""
    patch_px: PositiveInt | None = None
    """Side of the random crops (also flipped and transposed); null trains on whole stacks. Context
    features are always computed on the whole stack."""
    patches_per_stack: PositiveInt = 1
    """Crops of each stack in one forward pass."""
    examples_dir: PathText | None = None
    """Cache folder for network inputs. Later epochs and runs on the same stacks reuse them
    with their augmentations; null recomputes every time."""
    draws_per_sample: PositiveInt = 1
    """Different draws of each sample that `examples_dir` holds; epochs take them in turn."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Number format of the forward pass: float32 (`no`) or bfloat16."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of every random draw: order, augmentation, simulation, noise."""
    val_every_n_epochs: PositiveInt = 1
    """Validate every N epochs."""
    save_every_n_epochs: PositiveInt = 1
    """Save a checkpoint every N epochs."""
    save_every_n_steps: PositiveInt | None = None
    """Also save every N optimiser steps, for long epochs; null does not."""
    use_ema: bool = False
    """Validate and export the running mean of the weights."""
    ema_decay: Share = 0.999
    """Share of the running mean that each step keeps."""
    max_grad_norm: PositiveFloat | None = None
    """Longer gradients are scaled down to this norm; null leaves them."""
    tuning: Literal["lora", "attention_only", "full", "frozen"] = "lora"
    """Weights of the transformer that train; its new input and output layers always do."""
    lora_rank: PositiveInt = 16
    """Rank of the adapters of `tuning: lora`."""
    lora_layers: Literal["attention", "attention_and_feed_forward"] = "attention"
    """Layers of a block that `tuning: lora` adapts."""
    lora_alpha: PositiveFloat = 16.0
    """Adapters are scaled by lora_alpha / lora_rank."""
    start_from: PathText | None = None
    """Checkpoint to start from instead of the untrained model; not for resuming a run."""
    base_weights: Literal["float32", "bfloat16", "nf4"] = "float32"
    """Number format of frozen weights; `nf4` (4 bits) needs bitsandbytes."""
    autoencoder_weights: Literal["float32", "bfloat16"] | None = None
    """Number format that the autoencoder computes in; null is that of `base_weights`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, a third more time."""
    attention: Literal["native", "flash", "xformers"] = "native"
    """Attention of a transformer: torch, FlashAttention or xFormers, which are packages."""
    compile: bool = False
    """Compile the network with torch.compile: a minute at the start, then faster."""

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _no_fp16(cls, value: Any) -> Any:
        if value == "fp16":
            raise ValueError(
                "fp16 is refused: its range is too small for this model (NaN or black images); "
                "use bf16"
            )
        return value

    @model_validator(mode="after")
    def _formats_go_together(self) -> TrainingConfig:
        if self.base_weights != "float32" and self.mixed_precision == "no":
            raise ValueError(
                f"base_weights {self.base_weights} with mixed_precision no: weights that move stay "
                "float32, which does not fit. Set mixed_precision: bf16, or base_weights: float32"
            )
        if self.base_weights == "nf4" and self.tuning != "lora":
            raise ValueError(
                f"base_weights nf4 with tuning {self.tuning}: weights of 4 bits can neither move "
                "nor be saved whole. Set tuning: lora"
            )
        return self


class OptimizerConfig(Section):
    """The optimiser."""

    type: Literal["adamw", "adam", "sgd", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """Algorithm; the 8-bit ones need bitsandbytes."""
    learning_rate: PositiveFloat = 1e-5
    """Peak learning rate, after the warm-up."""
    weight_decay: NonNegative = 0.0
    """Decay of the weights per step, relative to the learning rate."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Decay of the running means of gradient and squared gradient; `sgd` uses the first only."""


class SchedulerConfig(Section):
    """Learning rate over the run."""

    type: Literal["constant", "cosine", "linear"] = "constant"
    """Shape after the warm-up: constant, or down to zero along a cosine or a line."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps over which the learning rate rises from zero."""


class LossesConfig(Section):
    """Weights of the loss terms; image and depth terms are multiplied by their group's weight."""

    diffusion_weight: NonNegative = 1.0
    """Flow matching: squared error of the velocity in latent space."""
    rgb_weight: NonNegative = 0.0
    """Group weight of the terms of the decoded image."""
    rgb_l1: NonNegative = 1.0
    """Absolute error of the image."""
    rgb_ssim: NonNegative = 0.0
    """1 − SSIM of the image."""
    depth_weight: NonNegative = 0.0
    """Group weight of the terms of the decoded depth."""
    depth_l1: NonNegative = 1.0
    """Absolute error of the depth code."""
    depth_silog: NonNegative = 0.0
    """Scale-aware error of log depth (SiLog)."""
    depth_gradient: NonNegative = 0.0
    """Gradient matching of log depth over four scales."""
    consistency_weight: NonNegative = 0.0
    """Difference between the frames and the re-rendered result; needs no ground truth."""


class ValidationConfig(Section):
    """Sampling for validation."""

    num_inference_steps: PositiveInt = 1
    """Steps along the flow; `model.start: estimate` needs one."""
    max_samples: PositiveInt = 16
    """Number of samples, evenly spread over val and always the same."""
    num_pictures: Annotated[int, Field(ge=0)] = 4
    """Number of samples to draw as pictures."""


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
        needs = {}
        if self.logging.use_wandb:
            needs["wandb"] = "logging.use_wandb"
        package = {"flash": "flash-attn", "xformers": "xformers"}.get(self.training.attention)
        if package is not None:
            needs[package] = f"training.attention {self.training.attention}"
        if self.training.base_weights == "nf4":
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
    def _noise_has_its_timestep(self) -> Config:
        if self.model.start == "noise" and self.model.timestep != ModelConfig().timestep:
            raise ValueError(
                f"model.timestep is {self.model.timestep:g}, but model.start noise follows the "
                "timesteps of its base model. Leave it out"
            )
        return self

    @model_validator(mode="after")
    def _images_have_a_half(self) -> Config:
        read = [key for key in ("rgb_weight", "consistency_weight") if getattr(self.losses, key)]
        if not self.model.with_image and (read or self.model.start == "noise"):
            other = f"losses.{read[0]}" if read else "model.start noise"
            raise ValueError(
                f"model.with_image false with {other}, which needs the image half of the network. "
                "Leave one of the two out"
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
