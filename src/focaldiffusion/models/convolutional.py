"""The velocity network of the small model: a U-Net, called as the transformer is."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.nn import functional


class ConvolutionalDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Residual blocks at several scales, without normalisation.

    A correction of depth has a size. Normalisation over the image, as diffusers' U-Nets have it,
    takes the size out of what the last layer sees; without it, a network of this size learns from
    hundreds of scenes. The residual branches start at zero, which keeps deep ones stable instead
    (Zhang et al., Fixup Initialization, 2019).
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self, in_channels: int, out_channels: int, block_out_channels: tuple[int, ...]
    ) -> None:
        """A network of random weights.

        Args:
            in_channels: state and conditioning.
            out_channels: of the state.
            block_out_channels: width at each scale, the finest first.
        """
        super().__init__()
        widths = tuple(block_out_channels)
        self.conv_in = nn.Conv2d(in_channels + 1, widths[0], 1)
        self.down_blocks = nn.ModuleList(_Block(width) for width in widths)
        self.downs = nn.ModuleList(
            nn.Conv2d(width, wider, 2, stride=2) for width, wider in pairwise(widths)
        )
        self.ups = nn.ModuleList(nn.Conv2d(wider, width, 1) for width, wider in pairwise(widths))
        self.up_blocks = nn.ModuleList(_Block(width) for width in widths)
        self.conv_out = nn.Conv2d(widths[0], out_channels, 1)
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
            hidden_states: (B, `in_channels`, h, w), state and conditioning; both sides are
                multiples of 2 ** (scales - 1).
            timestep: (B,), 1000 times the noise level.
            encoder_hidden_states: of the prompt; not read.
            pooled_projections: of the prompt; not read.
            return_dict: not read.
        """
        sigma = (timestep / 1000).to(hidden_states).reshape(-1, 1, 1, 1)
        level = sigma.expand(len(hidden_states), 1, *hidden_states.shape[-2:])
        x = self.conv_in(torch.cat([hidden_states, level], dim=1))
        finer = []
        for block, down in zip(self.down_blocks, [*self.downs, None], strict=True):
            x = self._run(block, x)
            if down is not None:
                finer.append(x)
                x = down(x)
        x = self._run(self.up_blocks[-1], x)
        for index in reversed(range(len(self.ups))):
            x = finer[index] + functional.interpolate(self.ups[index](x), scale_factor=2.0)
            x = self._run(self.up_blocks[index], x)
        return (self.conv_out(x),)

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, x)  # type: ignore[misc]
        return block(x)


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
