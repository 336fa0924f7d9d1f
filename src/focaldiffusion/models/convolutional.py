"""The velocity network of the small model: a U-Net of diffusers, called as the transformer is."""

from __future__ import annotations

from typing import Any

from diffusers.configuration_utils import ConfigMixin  # noqa: F401 diffusers looks for it here
from diffusers.models.modeling_utils import ModelMixin  # noqa: F401
from diffusers.models.unets.unet_2d import UNet2DModel, UNet2DOutput
from torch import Tensor


class ConvolutionalDenoiser(UNet2DModel):
    """Trained on few scenes, convolutions learn what takes attention many more."""

    def forward(  # type: ignore[override]
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Any = None,
        pooled_projections: Any = None,
        return_dict: bool = True,
    ) -> UNet2DOutput | tuple[Tensor]:
        """The velocity (B, `out_channels`, h, w).

        Args:
            hidden_states: (B, `in_channels`, h, w), state and conditioning; both sides are
                multiples of 2 ** (scales - 1).
            timestep: (B,).
            encoder_hidden_states: of the prompt; not read.
            pooled_projections: of the prompt; not read.
            return_dict: whether to wrap the result.
        """
        return super().forward(hidden_states, timestep, return_dict=return_dict)
