"""The velocity network of the small model: two residual blocks, called as the transformer is."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional


class ConvolutionalDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Residual blocks of convolutions without normalisation.

    A correction of depth has a size. Normalisation over the image, as in the U-Nets of diffusers,
    would hide that size from the last layer. The residual branches start at zero instead, which
    keeps training stable (Zhang et al., Fixup Initialization, 2019).
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        """A network of random weights.

        Args:
            in_channels: of state and conditioning.
            out_channels: of the state.
            width: channels between its layers.
        """
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels + 1, width, 1)
        # The names of their weights in the files that ship.
        self.down_blocks = nn.Sequential(_Block(width))
        self.up_blocks = nn.Sequential(_Block(width))
        self.conv_out = nn.Conv2d(width, out_channels, 1)
        self.gradient_checkpointing = False

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Any = None,
        pooled_projections: Any = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """The velocity, alone in a tuple: (B, `out_channels`, h, w).

        Args:
            hidden_states: (B, `in_channels`, h, w), state and conditioning.
            timestep: (B,), 1000 times the noise level.
            encoder_hidden_states: of the prompt; not read.
            pooled_projections: of the prompt; not read.
            return_dict: not read.
        """
        sigma = (timestep / 1000).to(hidden_states).reshape(-1, 1, 1, 1)
        level = sigma.expand(len(hidden_states), 1, *hidden_states.shape[-2:])
        x = self.conv_in(torch.cat([hidden_states, level], dim=1))
        for block in (self.down_blocks, self.up_blocks):
            if self.gradient_checkpointing and torch.is_grad_enabled():
                x = self._gradient_checkpointing_func(block, x)  # type: ignore[misc]
            else:
                x = block(x)
        return (self.conv_out(x),)


class _Block(nn.Module):
    """x + conv(silu(conv(silu(x)))), the identity at first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        for parameter in self.second.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) of the same size."""
        return x + self.second(functional.silu(self.first(functional.silu(x))))
