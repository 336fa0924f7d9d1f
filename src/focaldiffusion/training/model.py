"""The model of a configuration, the weights that train, their optimiser and running mean."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from focaldiffusion.checkpoints.hub import TEXT_ENCODERS, WEIGHTS, load_part, resolve_base
from focaldiffusion.config.run import ModelConfig, OptimizerConfig, TrainingConfig
from focaldiffusion.errors import InputError
from focaldiffusion.io.reading import read_json, reading
from focaldiffusion.io.staging import file_errors_named, staging
from focaldiffusion.models.codecs import autoencoder_dtype
from focaldiffusion.models.denoiser import (
    ALWAYS_TRAINED,
    ATTENTION_LAYERS,
    lora_targets,
    quantize,
    use_attention,
)

if TYPE_CHECKING:
    from focaldiffusion.checkpoints.checkpoint import Checkpoint
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
    from focaldiffusion.models.prompt import EmptyPrompt

_WARMUP = 10.0  # steps, of the running mean
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "nf4": torch.bfloat16}


def trainable_model(
    model: ModelConfig,
    training: TrainingConfig,
    device: torch.device | str,
    *,
    prompt_of_zeros: bool = False,
) -> FocalDiffusionPipeline:
    """The model that training starts from, on a device, in its number formats.

    Args:
        model: to open.
        training: with the weights that move.
        device: of the model.
        prompt_of_zeros: spares a trial the large text encoders that embed the empty prompt of a
            base model.

    Raises:
        InputError: neither a base model nor a preset, or both; a base model or a checkpoint is
            missing; `training.tuning` or `training.attention` does not suit it.
    """
    from focaldiffusion.checkpoints.hub import widened_base
    from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline

    if (model.base_model_id is None) == (model.preset is None):
        raise InputError(
            f"model: base_model_id is {model.base_model_id} and preset is {model.preset}; expected "
            "one of the two: weights to adapt, or the size of a network with random weights."
        )
    dtype = _DTYPES[training.base_weights]
    if training.start_from is not None:
        # What was trained stays float32; what stays frozen is rounded below.
        # With LoRA it is an adapter, whose base model may lie elsewhere by now.
        pipeline = _checkpoint_of(model, training, training.start_from).load(
            base_model=model.base_model_id if training.tuning == "lora" else None,
            dtype=torch.float32,
        )
    elif model.base_model_id is None:
        if training.tuning != "full":
            raise InputError(
                f"training.tuning {training.tuning}: a preset starts from random weights, so all "
                "of them have to train. Use full."
            )
        assert model.preset is not None
        pipeline = FocalDiffusionPipeline.from_preset(
            model.preset,
            model.start,
            training.seed,
            model.depth_code,
            model.timestep,
            model.with_prior,
            model.with_wide,
            model.depth_in_pixels,
        )
    else:
        prompt = _zeros(model) if prompt_of_zeros else _base_prompt(model, device)
        pipeline = widened_base(model, prompt, dtype=dtype)
    return made_trainable(pipeline, training, device)


def made_trainable(
    pipeline: FocalDiffusionPipeline, training: TrainingConfig, device: torch.device | str
) -> FocalDiffusionPipeline:
    """The pipeline on a device, ready to train the weights that `training.tuning` names.

    Args:
        pipeline: changed in place.
        training: with the weights that move.
        device: of the model.

    Raises:
        InputError: `training.tuning` does not suit the network.
    """
    if training.base_weights == "nf4":
        quantize(pipeline.denoiser)
    if pipeline.vae is not None:
        pipeline.vae.requires_grad_(False)
    pipeline.prompt.requires_grad_(False)
    _choose_trained(pipeline.denoiser, training)
    for part in filter(None, (pipeline.denoiser, pipeline.vae, pipeline.prompt)):
        is_coder = part is pipeline.vae
        dtype = autoencoder_dtype(training) if is_coder else _DTYPES[training.base_weights]
        for parameter in part.parameters():
            if not parameter.requires_grad and parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)
    if training.attention != "native":
        use_attention(pipeline.denoiser, training.attention)
    if training.gradient_checkpointing:
        for part in filter(None, (pipeline.denoiser, pipeline.vae)):
            part.enable_gradient_checkpointing()
    pipeline = pipeline.to(device)
    # The layout that convolutions of tensor cores want; a whole model is saved in the usual one.
    if pipeline.vae is not None and pipeline.device.type == "cuda" and training.tuning == "lora":
        pipeline.vae.to(memory_format=torch.channels_last)
    return pipeline


def _choose_trained(network: nn.Module, training: TrainingConfig) -> None:
    """Let exactly the weights train that `training.tuning` names, as float32."""
    from focaldiffusion.models.convolutional import ConvolutionalDenoiser

    if isinstance(network, ConvolutionalDenoiser) and training.tuning != "full":
        raise InputError(
            f"training.tuning {training.tuning}: a convolutional network has no layers of a "
            "transformer. Use full."
        )
    network.requires_grad_(training.tuning == "full")
    if training.tuning == "lora" and not getattr(network, "peft_config", None):
        from peft import LoraConfig

        adapter = LoraConfig(
            r=training.lora_rank,
            lora_alpha=training.lora_alpha,  # type: ignore[arg-type]
            target_modules=lora_targets(training.lora_layers),
        )
        network.add_adapter(adapter)  # type: ignore[operator]
    elif training.tuning == "lora":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_("lora_" in name)
    elif training.tuning == "attention_only":
        for name, module in network.named_modules():
            if name.endswith(ATTENTION_LAYERS):
                module.requires_grad_(True)
    if training.tuning != "full":
        for name in ALWAYS_TRAINED:
            network.get_submodule(name).requires_grad_(True)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    network.train()


def trained_parameters(network: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that train, by name."""
    return {name: one for name, one in network.named_parameters() if one.requires_grad}


def make_optimizer(
    config: OptimizerConfig, parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser of a configuration.

    Raises:
        InputError: its package is missing.
    """
    shared: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.type == "sgd":
        return torch.optim.SGD(parameters, momentum=config.betas[0], **shared)
    shared["betas"] = config.betas
    if config.type == "adam":
        return torch.optim.Adam(parameters, **shared)
    if config.type == "adamw":
        return torch.optim.AdamW(parameters, **shared)
    try:
        import bitsandbytes
    except ImportError as error:
        raise InputError(
            f"optimizer.type {config.type}: needs the package bitsandbytes. Install it with "
            "`pip install bitsandbytes`, or use adamw."
        ) from error
    kind = {
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }[config.type]
    return kind(parameters, **shared)


class Mean:
    """m ← d m + (1 - d) w after each step, with d = min(decay, (1 + n) / (10 + n)) after n steps.

    The smaller decay at first forgets the random weights that training started from.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float) -> None:
        """Start from the current weights; `decay` is `training.ema_decay`."""
        self._parameters, self._decay = parameters, decay
        self._mean = {name: one.detach().clone() for name, one in parameters.items()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Include the weights after `steps` steps."""
        decay = min(self._decay, (1 + steps) / (_WARMUP + steps))
        for name, one in self._parameters.items():
            self._mean[name].lerp_(one.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the mean instead of its weights, inside the block."""
        kept = {name: one.data for name, one in self._parameters.items()}
        for name, one in self._parameters.items():
            one.data = self._mean[name]
        try:
            yield
        finally:
            for name, one in self._parameters.items():
                one.data = kept[name]

    def state(self) -> dict[str, Tensor]:
        """The mean, by name."""
        return {name: one.contiguous() for name, one in self._mean.items()}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore a mean that `state` returned."""
        for name, one in self._mean.items():
            one.copy_(state[name])


def _checkpoint_of(model: ModelConfig, training: TrainingConfig, name: str) -> Checkpoint:
    """The checkpoint to start from, if it fits the model and `training.tuning`."""
    from focaldiffusion.checkpoints.checkpoint import OF_THE_PIPELINE, find_checkpoint

    checkpoint = find_checkpoint(name)
    checkpoint.check(model)
    # Also where the configuration leaves them at their defaults: examples depend on them.
    for key in OF_THE_PIPELINE:
        wanted, has = getattr(model, key), getattr(checkpoint.description.config.model, key)
        if wanted != has:
            raise InputError(
                f"model.{key} is {wanted}, but {name} was made with {has}. Set model.{key}={has}."
            )
    is_adapter = checkpoint.description.weights == "adapter"
    if is_adapter != (training.tuning == "lora"):
        has, use = "all weights", "full, attention_only or frozen"
        if is_adapter:
            has, use = "an adapter", "lora"
        raise InputError(
            f"training.tuning {training.tuning}: {name} has {has}. Use {use}, or start from "
            "another checkpoint."
        )
    return checkpoint


def _zeros(model: ModelConfig) -> EmptyPrompt:
    """A prompt of zeros for a base model."""
    from focaldiffusion.models.prompt import EmptyPrompt

    assert model.base_model_id is not None
    # What a download would bring is missed in a folder before training starts.
    parts = (*WEIGHTS, *TEXT_ENCODERS) if Path(model.base_model_id).is_dir() else WEIGHTS
    folder = resolve_base(model.base_model_id, parts, model.variant)
    path, fault, remedy = folder / "transformer" / "config.json", "is damaged", "Get it again."
    config = read_json(path, fault, remedy)
    with reading(path, fault, remedy):
        widths = [int(config[key]) for key in ("joint_attention_dim", "pooled_projection_dim")]
        return EmptyPrompt(1, *widths)


def _base_prompt(model: ModelConfig, device: torch.device | str) -> EmptyPrompt:
    """The empty prompt of a base model, from the cache or, once, from its text encoders."""
    from focaldiffusion.models.prompt import EmptyPrompt

    assert model.base_model_id is not None
    folder = resolve_base(model.base_model_id, TEXT_ENCODERS, model.variant)
    cached = _prompt_cache(folder)
    if not (cached / "config.json").is_file():
        prompt = EmptyPrompt.from_text_encoders(folder, model.variant, device)
        with file_errors_named(cached), staging(cached, ()) as partial:
            prompt.save_pretrained(partial)
    return load_part(EmptyPrompt, cached.parent, cached.name)


def _prompt_cache(folder: Path) -> Path:
    """Cache folder of the empty prompt of a base model, another one if its files change."""
    stamps = sorted(
        (path.relative_to(folder).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for part in TEXT_ENCODERS
        for path in (folder / part).rglob("*")
    )
    digest = hashlib.sha256(repr((str(folder.resolve()), stamps)).encode()).hexdigest()
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "focaldiffusion" / "prompts" / digest[:16]
