"""Memory and arithmetic that a preset needs, counted without a GPU and without weights.

The real modules run on torch's meta device, where tensors have sizes but no content, and every
allocated and freed byte is counted. On a GPU, its context and the scratch space of its libraries,
above all for convolutions, come on top.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

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
from focaldiffusion.models.denoiser import ALWAYS_TRAINED, LORA_TARGETS, build
from focaldiffusion.models.presets import PRESETS, Preset

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

# Trained numbers and their gradients are bfloat16 in the trace and float32 in a trainer. The two
# means of AdamW come on top.
_MORE_BYTES_PER_TRAINED = (4 - 2) + (4 - 2) + 4 + 4


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
            loss is on the velocity; gradients through the decoder come on top.
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
    work = _Work(preset, side_px)
    parameters = sum(parameter.numel() for parameter in work.model.parameters())
    weights_bytes = sum(tensor.nbytes for tensor in _tensors(work.model))
    with FlopCounterMode(display=False) as flop:
        inference_bytes = peak_bytes(work.model, work.infer)
    tuning: Literal["lora", "full"] = "full"
    if preset.base_model_id is not None:
        tuning = "lora"
        _attach_lora(work.network)
    trained = sum(one.numel() for one in work.network.parameters() if one.requires_grad)
    optimizer_bytes = _MORE_BYTES_PER_TRAINED * trained
    training_bytes = peak_bytes(work.model, work.train)
    work.network.enable_gradient_checkpointing(_checkpoint)
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


class _Work:
    """The modules of a preset on the meta device, and their work for one stack."""

    def __init__(self, preset: Preset, side_px: int) -> None:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        cells = side_px // preset.factor
        channels = preset.state_channels + preset.condition_channels
        self.autoencoder: AutoencoderKL | None = None
        with torch.device("meta"):
            self.network: Any = build(preset, "estimate").bfloat16()
            self.model = nn.ModuleList([self.network])
            if preset.autoencoder is not None:
                self.autoencoder = AutoencoderKL(**preset.autoencoder).bfloat16()
                self.model.append(self.autoencoder)
            empty = partial(torch.empty, dtype=torch.bfloat16)
            self.image = empty(1, 3, side_px, side_px)
            self.latents = empty(1, preset.image_channels, cells, cells)
            self.inputs = {
                "hidden_states": empty(1, channels, cells, cells),
                "encoder_hidden_states": empty(1, preset.prompt_tokens, preset.prompt_channels),
                "pooled_projections": empty(1, preset.pooled_prompt_channels),
                "timestep": torch.empty(1),
            }

    @torch.no_grad()
    def infer(self) -> None:
        """Encode, one step, decode."""
        self.code()
        self.predict()

    def train(self) -> None:
        """Encode and decode, then the forward and the backward pass of one step."""
        self.model.zero_grad()
        self.code()
        # `Tensor.backward` would leave the mode that fuses attention.
        torch.autograd.backward([self.predict().square().mean()])

    @torch.no_grad()
    def code(self) -> None:
        if self.autoencoder is not None:
            self.autoencoder.encode(self.image)
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


def _attach_lora(transformer: Any) -> None:
    """Let a transformer train an adapter of the default rank."""
    from peft import LoraConfig

    transformer.requires_grad_(False)
    transformer.add_adapter(
        LoraConfig(r=TrainingConfig().lora_rank, target_modules=list(LORA_TARGETS))
    )
    for name in ALWAYS_TRAINED:
        transformer.get_submodule(name).requires_grad_(True)


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]
