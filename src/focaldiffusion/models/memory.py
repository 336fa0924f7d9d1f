"""Memory and arithmetic that a preset needs, counted without a GPU and without weights.

The real modules run on torch's meta device, where tensors have sizes but no content, and every
allocated and freed byte is counted. On a GPU, its context and the scratch space of its libraries,
above all for convolutions, come on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary

from focaldiffusion.config.run import TrainingConfig
from focaldiffusion.models.codecs import autoencoder_dtype
from focaldiffusion.models.denoiser import (
    ALWAYS_TRAINED,
    ATTENTION_LAYERS,
    build,
    lora_targets,
)
from focaldiffusion.models.presets import PRESETS, Preset, cells_of_token

# Trained numbers and their gradients are bfloat16 in the trace and float32 in a trainer, whose
# forward pass reads copies in bfloat16. The two means of AdamW come on top.
_BYTES_OF_FROZEN = {"float32": 4.0, "bfloat16": 2.0, "nf4": 0.5}
_BYTES_OF_STATE = {"adamw": 8, "adam": 8, "sgd": 4, "adamw_8bit": 2, "paged_adamw_8bit": 0}
"""Bytes for each number that trains; pages of the last one move to the CPU's memory."""
_COPY_BYTES = 2
_MORE_BYTES_PER_TRAINED = (4 - 2) + (4 - 2) + _COPY_BYTES + 4 + 4


@dataclass(frozen=True)
class MemoryRow:
    """Needs of one preset for one stack at one working size, in bfloat16.

    Attributes:
        preset: its name.
        side_px: of the square working image.
        parameters: of the network and the autoencoder.
        teraflop: of one forward pass of the network; a multiplication and an addition are two.
        weights_bytes: parameters and the position embedding.
        inference_bytes: weights, and the peak of encoding, one step and decoding.
        tuning: lora for a network that starts from weights, else full.
        training_bytes: weights, and the peak of coding and one step of training with AdamW. The
            loss is on the decoded image and depth.
        training_checkpointed_bytes: `training_bytes` with gradient checkpointing.
    """

    preset: str
    side_px: int
    parameters: int
    teraflop: float
    weights_bytes: int
    inference_bytes: int
    tuning: Literal["lora", "full"]
    training_bytes: int
    training_checkpointed_bytes: int


@cache
def memory_row(name: str, side_px: int) -> MemoryRow:
    """Needs of a preset, by its name, for square images; large networks take seconds."""
    preset = PRESETS[name]
    work = _Work(preset, (side_px, side_px))
    parameters = sum(parameter.numel() for parameter in work.model.parameters())
    weights_bytes = sum(tensor.nbytes for tensor in _tensors(work.model))
    with FlopCounterMode(display=False) as flop:
        inference_bytes = peak_bytes(work.model, work.infer)
    tuning: Literal["lora", "full"] = "full"
    if preset.base_model_id is not None:
        tuning = "lora"
        _let_train(work.network, TrainingConfig())
    trained = sum(one.numel() for one in work.network.parameters() if one.requires_grad)
    optimizer_bytes = _MORE_BYTES_PER_TRAINED * trained
    training_bytes = peak_bytes(work.model, work.train)
    work.save_memory()
    return MemoryRow(
        preset=name,
        side_px=side_px,
        parameters=parameters,
        teraflop=sum(flop.get_flop_counts()[type(work.network).__name__].values()) / 1e12,
        weights_bytes=weights_bytes,
        inference_bytes=inference_bytes,
        tuning=tuning,
        training_bytes=training_bytes + optimizer_bytes,
        training_checkpointed_bytes=peak_bytes(work.model, work.train) + optimizer_bytes,
    )


def training_bytes(
    name: str,
    size_px: tuple[int, int],
    stacks: int,
    training: TrainingConfig,
    optimizer: str,
    decoded: int = 2,
    depth_in_pixels: bool = False,
) -> int:
    """Bytes that one step of a training needs: weights, coding, both passes and the optimiser.

    Args:
        name: of the preset.
        size_px: (height, width) of the images; each is padded to a size that the network takes.
        stacks: number of images of a forward pass.
        training: weights that train, their number formats, gradient checkpointing, running mean.
        optimizer: `optimizer.type`.
        decoded: planes of each stack that the loss decodes by an autoencoder, of image and depth.
        depth_in_pixels: `model.depth_in_pixels`.
    """
    preset = replace(PRESETS[name], depth_in_pixels=depth_in_pixels)
    multiple = preset.factor * cells_of_token(preset.network)
    height, width = (side + -side % multiple for side in size_px)
    computed = torch.float32 if training.mixed_precision == "no" else torch.bfloat16
    work = _Work(preset, (height, width), stacks, computed, autoencoder_dtype(training))
    _let_train(work.network, training)
    if training.gradient_checkpointing:
        work.save_memory()
    trained = sum(one.numel() for one in work.network.parameters() if one.requires_grad)
    frozen = sum(one.numel() for one in _tensors(work.network)) - trained
    peak = peak_bytes(work.model, partial(work.train, decoded))
    traced = computed.itemsize  # of each number of the network, and of each gradient
    copied = 0 if computed == torch.float32 else _COPY_BYTES
    per_trained = 2 * (4 - traced) + copied + _BYTES_OF_STATE[optimizer] + 4 * training.use_ema
    return round(
        peak + frozen * (_BYTES_OF_FROZEN[training.base_weights] - traced) + trained * per_trained
    )


class _Work:
    """The modules of a preset on the meta device, and their work for some stacks."""

    def __init__(
        self,
        preset: Preset,
        size_px: tuple[int, int],
        stacks: int = 1,
        computed: torch.dtype = torch.bfloat16,
        coded: torch.dtype = torch.bfloat16,
    ) -> None:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        cells = [side // preset.factor for side in size_px]
        channels = preset.state_channels + preset.condition_channels
        self.autoencoder: Any = None
        self.depth_in_pixels = preset.depth_in_pixels
        with torch.device("meta"):
            # Not the method of diffusers, which warns of what only loading has to heed.
            self.network: Any = nn.Module.to(build(preset, "estimate"), computed)
            self.model = nn.ModuleList([self.network])
            if preset.autoencoder is not None:
                self.autoencoder = nn.Module.to(AutoencoderKL(**preset.autoencoder), coded)
                self.autoencoder.requires_grad_(False)
                self.model.append(self.autoencoder)
            empty = partial(torch.empty, dtype=computed)
            self.image = torch.empty(stacks, 3, *size_px, dtype=coded)
            self.latents = torch.empty(stacks, preset.image_channels, *cells, dtype=coded)
            self.inputs = {
                "hidden_states": empty(stacks, channels, *cells),
                "encoder_hidden_states": empty(
                    stacks, preset.prompt_tokens, preset.prompt_channels
                ),
                "pooled_projections": empty(stacks, preset.pooled_prompt_channels),
                "timestep": torch.empty(stacks),
            }

    @torch.no_grad()
    def infer(self) -> None:
        """Encode, one step, decode."""
        self.code()
        self.predict()

    def train(self, decoded: int = 2) -> None:
        """Encode and decode, then the forward and the backward pass of one step.

        Args:
            decoded: planes, of image and depth, that the gradient passes the decoder for. Their
                graphs are alive at the same time.
        """
        self.model.zero_grad()
        self.code()
        predicted = self.predict()
        losses = [predicted.square().mean()]
        if self.autoencoder is not None:
            channels = self.latents.shape[1]
            for latents in predicted.split(channels, dim=1)[:decoded]:
                image = self.autoencoder.decode(latents.to(self.latents)).sample
                losses.append(image.float().square().mean())
        # `Tensor.backward` would leave the mode that fuses attention.
        torch.autograd.backward([torch.stack([loss.float() for loss in losses]).sum()])

    def save_memory(self) -> None:
        """Gradient checkpointing, of the network and the autoencoder."""
        for part in filter(None, (self.network, self.autoencoder)):
            part.enable_gradient_checkpointing(_checkpoint)

    @torch.no_grad()
    def code(self) -> None:
        if self.autoencoder is not None:
            self.autoencoder.encode(self.image)
            if not self.depth_in_pixels:
                self.autoencoder.decode(self.latents)

    def predict(self) -> Tensor:
        return self.network(**self.inputs, return_dict=False)[0]


def peak_bytes(model: nn.Module, run: Callable[[], object]) -> int:
    """Peak bytes of the tensors alive while `run` works with a model, including the model.

    Args:
        model: on any device, also meta.
        run: called once.
    """
    counter = _LiveBytes()
    counter.add(_tensors(model))
    with _FusedAttention(), counter:
        run()
    return counter.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of all storages that operators return and that are not freed yet."""

    def __init__(self) -> None:
        super().__init__()
        self.live = 0
        self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count the storages of tensors that are not counted yet."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage not in self._known:
                self._known[storage] = True
                self.live += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.live)

    def _free(self, size: int) -> None:
        self.live -= size


class _FusedAttention(TorchFunctionMode):
    """Fused attention, as on GPUs. On the meta device torch would store all N² products."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.scaled_dot_product_attention and args[0].is_meta:
            return torch.ops.aten._scaled_dot_product_flash_attention(*args[:3])[0]
        return func(*args, **(kwargs or {}))


def _checkpoint(block: nn.Module, *args: Any) -> Any:
    # The recomputation runs in the backward pass, outside the mode of the forward pass.
    return checkpoint(
        block, *args, use_reentrant=False, context_fn=lambda: (nullcontext(), _FusedAttention())
    )


def _let_train(network: Any, training: TrainingConfig) -> None:
    """Let the weights of a way of tuning train; those of a convolutional network all do."""
    tuning = training.tuning
    if tuning == "full":
        return
    network.requires_grad_(False)
    if tuning == "lora":
        from peft import LoraConfig

        targets = lora_targets(training.lora_layers)
        network.add_adapter(LoraConfig(r=training.lora_rank, target_modules=targets))
    elif tuning == "attention_only":
        for name, module in network.named_modules():
            if name.endswith(ATTENTION_LAYERS):
                module.requires_grad_(True)
    for name in ALWAYS_TRAINED:
        network.get_submodule(name).requires_grad_(True)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
