"""4-bit weights, for a frozen base model under an adapter."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from focaldiffusion.errors import InputError
from focaldiffusion.models.denoiser import ALWAYS_TRAINED


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
