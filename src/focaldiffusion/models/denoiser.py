"""The velocity network: Stable Diffusion 3.5's transformer with more channels, or a small one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

from focaldiffusion.errors import InputError
from focaldiffusion.models.flow import Start
from focaldiffusion.models.presets import Preset

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    from focaldiffusion.models.convolutional import ConvolutionalDenoiser

_ALIGNMENT_BYTES = 64  # alignment of torch's allocations on a CPU

ALWAYS_TRAINED = ("pos_embed.proj", "proj_out")
"""The layers that `widen` changes. They train in every tuning mode and are saved beside adapters:
their output is zero at first, so with them frozen nothing else would have a gradient."""

ATTENTION_LAYERS = (
    "to_q",
    "to_k",
    "to_v",
    "to_out.0",
    "add_q_proj",
    "add_k_proj",
    "add_v_proj",
    "to_add_out",
)
"""Endings of the names of attention layers; they match both attentions of a dual layer."""

_FEED_FORWARD_LAYERS = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")

AttentionBackend = Literal["native", "flash", "xformers"]

_ATTENTION_PACKAGES = {"flash": "flash-attn", "xformers": "xformers"}


def widen(
    base: SD3Transformer2DModel,
    state_channels: int,
    condition_channels: int,
    start: Start,
) -> SD3Transformer2DModel:
    """Let a text-to-image transformer read image, depth and conditioning, and predict both.

    The new input weights are zero, so depth and conditioning have no effect yet. With `noise`, the
    image half of the output is exactly that of the base, and the depth half is zero. With
    `estimate`, all of the output is zero, and the flow stays at the physical estimate.

    Args:
        base: of C channels in and out; changed in place, since a copy may not fit into memory.
        state_channels: of image and depth latents; the C of the image come first.
        condition_channels: joined to the state as further input channels.
        start: of the flow.

    Returns:
        `base`.

    Raises:
        InputError: its inputs and outputs differ, so it is not a text-to-image transformer.
    """
    channels: int = base.config["in_channels"]
    if base.config["out_channels"] != channels:
        raise InputError(
            f"the base model has {channels} input and {base.config['out_channels']} output "
            "channels; expected equal numbers, as in Stable Diffusion 3.5. To go on from a model "
            "that was trained here, start from its checkpoint."
        )
    old_in, old_out = base.pos_embed.proj, base.proj_out
    patch: int = base.config["patch_size"]
    width = old_out.in_features
    like_base: Any = {"device": old_in.weight.device, "dtype": old_in.weight.dtype}
    new_in = nn.Conv2d(state_channels + condition_channels, width, patch, stride=patch, **like_base)
    new_out = nn.Linear(width, patch**2 * state_channels, **like_base)
    with torch.no_grad():
        _zero(new_in)
        _zero(new_out)
        new_in.weight[:, :channels] = old_in.weight
        new_in.bias += old_in.bias  # type: ignore[operator]
        if start == "noise":
            # Rows are ordered by cell of the patch, then by channel.
            for new, old in ((new_out.weight, old_out.weight), (new_out.bias, old_out.bias)):
                cells_of_new, cells_of_old = (w.unflatten(0, (patch**2, -1)) for w in (new, old))
                cells_of_new[:, :channels] = cells_of_old
    base.pos_embed.proj, base.proj_out = new_in, new_out
    base.out_channels = state_channels
    base.register_to_config(
        in_channels=state_channels + condition_channels, out_channels=state_channels
    )
    return base


def build(
    preset: Preset, start: Start, *, with_prior: bool = False, with_wide: bool = False
) -> SD3Transformer2DModel | ConvolutionalDenoiser:
    """The network of a preset with random weights; with `estimate` its output is zero.

    The inputs of a prior and of wide windows have no effect yet: all other weights are those of
    the network without.
    """
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    from focaldiffusion.models.convolutional import ConvolutionalDenoiser

    channels = {
        "in_channels": preset.state_channels + preset.condition_channels,
        "out_channels": preset.state_channels,
    }
    network: SD3Transformer2DModel | ConvolutionalDenoiser
    if "patch_size" not in preset.network:
        network = ConvolutionalDenoiser(**preset.network, **channels)
        last: nn.Module = network.conv_out
    else:
        network = SD3Transformer2DModel(**preset.network, **channels)
        last = network.proj_out
    if start == "estimate":
        _zero(last)
    shown = preset.condition_channels_with(with_prior=with_prior, with_wide=with_wide)
    if extra := shown - preset.condition_channels:
        _append_inputs(network, channels["in_channels"], extra)
    return network


def _append_inputs(
    network: SD3Transformer2DModel | ConvolutionalDenoiser, channels: int, extra: int
) -> None:
    """Give a network input channels of zero weight after its own `channels`, in place."""
    is_small = "patch_size" not in network.config
    holder, name = (network, "conv_in") if is_small else (network.pos_embed, "proj")
    old: nn.Conv2d = getattr(holder, name)
    width, kernel, stride = old.out_channels, old.kernel_size, old.stride
    # Without random numbers, which later parts of a model would miss.
    new: nn.Conv2d = skip_init(nn.Conv2d, old.in_channels + extra, width, kernel, stride)
    with torch.no_grad():
        _zero(new)
        new.weight[:, :channels] = old.weight[:, :channels]
        # The noise level of a small network comes last.
        new.weight[:, channels + extra :] = old.weight[:, channels:]
        assert new.bias is not None
        assert old.bias is not None
        new.bias += old.bias
    setattr(holder, name, new)
    network.register_to_config(in_channels=channels + extra)


def network_class(folder: Path) -> type[SD3Transformer2DModel] | type[ConvolutionalDenoiser]:
    """Class of a network that was saved to a folder, from its config.json.

    Raises:
        InputError: the file is missing, or names another class.
    """
    from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel

    from focaldiffusion.models.convolutional import ConvolutionalDenoiser

    path = folder / "config.json"
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["_class_name"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read, or names no class ({error!r}). Get the checkpoint again."
        ) from error
    classes: dict[str, Any] = {
        one.__name__: one for one in (SD3Transformer2DModel, ConvolutionalDenoiser)
    }
    if not isinstance(name, str) or name not in classes:
        raise InputError(
            f"{path}: names the class {name}; expected {' or '.join(classes)}. Get a checkpoint "
            "that this program wrote."
        )
    return classes[name]


def lora_targets(layers: Literal["attention", "attention_and_feed_forward"]) -> list[str]:
    """Endings of the names of the layers that `training.lora_layers` adapts."""
    both = ATTENTION_LAYERS + _FEED_FORWARD_LAYERS
    return list(ATTENTION_LAYERS if layers == "attention" else both)


def quantize(network: nn.Module) -> None:
    """Store the weights of a network's linear layers as NF4, in place (Dettmers et al. 2023).

    Layers that train, biases and norms keep their format. A quantised layer restores its weights
    for each pass and computes in bfloat16. diffusers can also load weights in 4 bits, but only
    onto a GPU; here the bfloat16 weights lie in memory first.

    Args:
        network: with its weights, on the CPU.

    Raises:
        InputError: the package bitsandbytes is missing.
    """
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise InputError(
            "training.base_weights nf4: needs the package bitsandbytes. Install it with "
            "`pip install bitsandbytes`, or use bfloat16."
        ) from error
    for name, parent in list(network.named_modules()):
        for child, layer in list(parent.named_children()):
            path = f"{name}.{child}" if name else child
            if type(layer) is not nn.Linear or path.startswith(ALWAYS_TRAINED) or "lora_" in path:
                continue
            small = Linear4bit(
                layer.in_features,
                layer.out_features,
                bias=False,
                compute_dtype=torch.bfloat16,
                quant_type="nf4",
                device="meta",
            )
            weight: Any = Params4bit(
                layer.weight.data, requires_grad=False, quant_type="nf4", module=small
            )
            small.weight = weight.to(layer.weight.device)  # which rounds it
            small.bias = layer.bias
            # On some CPUs the first pass without gradients repacks the weights for good, and
            # training after a validation would get no gradient through them.
            small.support_avx512bf16_for_cpu = False
            setattr(parent, child, small)
    # PEFT, which has special adapters for such layers, and diffusers read this.
    network.is_loaded_in_4bit = True  # type: ignore[assignment]


def use_attention(transformer: SD3Transformer2DModel, backend: AttentionBackend) -> None:
    """Choose the implementation of attention: torch (`native`), FlashAttention or xFormers.

    Raises:
        InputError: the backend is unknown, its package is missing or too old, or the network is
            not a transformer.
    """
    from diffusers.models.attention_dispatch import attention_backend

    if backend not in get_args(AttentionBackend):
        raise InputError(
            f"attention {backend!r} is unknown; expected {', '.join(get_args(AttentionBackend))}."
        )
    if "patch_size" not in transformer.config:
        raise InputError(
            f"attention {backend!r}: this model is convolutional and has no attention. Leave the "
            "choice out."
        )
    try:
        with attention_backend(backend):
            pass  # entering it imports the package
    except RuntimeError as error:
        package = _ATTENTION_PACKAGES[backend]
        raise InputError(
            f"attention {backend!r} needs the package {package}, which is missing, broken or too "
            f"old here ({error}). Install it with `pip install {package}`, or use native."
        ) from error
    transformer.set_attn_processor(_DispatchedAttention(backend))  # type: ignore[arg-type]


class _DispatchedAttention:
    """Attention over image and text tokens through diffusers' dispatcher.

    The default processor of the transformer always calls torch and ignores
    `set_attention_backend`.
    """

    def __init__(self, backend: AttentionBackend) -> None:
        self.backend = backend

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Attention over image tokens (B, N, D), joined with text tokens (B, L, D) if given."""
        from diffusers.models.attention_dispatch import AttentionBackendName, dispatch_attention_fn

        def heads(tokens: Tensor, project: nn.Module, norm: nn.Module | None) -> Tensor:
            # (B, N, D) to (B, N, heads, D / heads)
            split = project(tokens).unflatten(-1, (attn.heads, -1))
            return split if norm is None else norm(split)

        joint = [
            heads(hidden_states, attn.to_q, attn.norm_q),
            heads(hidden_states, attn.to_k, attn.norm_k),
            heads(hidden_states, attn.to_v, None),
        ]
        if encoder_hidden_states is not None:
            text = [
                heads(encoder_hidden_states, attn.add_q_proj, attn.norm_added_q),
                heads(encoder_hidden_states, attn.add_k_proj, attn.norm_added_k),
                heads(encoder_hidden_states, attn.add_v_proj, None),
            ]
            joint = [torch.cat(pair, dim=1) for pair in zip(joint, text, strict=True)]
        query, key, value = joint
        mixed = dispatch_attention_fn(
            query, key, value, backend=AttentionBackendName(self.backend)
        ).flatten(2)  # (B, N + L, D)
        count = hidden_states.shape[1]
        project_out, dropout = attn.to_out
        image = dropout(project_out(mixed[:, :count]))
        if encoder_hidden_states is None:
            return image
        rest = mixed[:, count:]
        return image, rest if attn.context_pre_only else attn.to_add_out(rest)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def realign_weights(part: nn.Module) -> None:
    """Copy weights that are misaligned in a mapped file to memory that torch allocates.

    On a CPU, rounding of matrix products depends on alignment: without this, saving and loading a
    model would change the last bits of its results.
    """
    for parameter in part.parameters():
        if parameter.device.type == "cpu" and parameter.data_ptr() % _ALIGNMENT_BYTES:
            parameter.data = parameter.data.clone()
