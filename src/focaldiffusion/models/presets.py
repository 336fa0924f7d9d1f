"""Sizes of the network. Those of Stable Diffusion 3.5 are its published configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from focaldiffusion.models.conditioning import condition_channels

_MAX_SIDE_CELLS = 384  # of a convolutional network, so that a tile fits into memory
T5_TOKENS = 77
"""As in the paper. The default of diffusers, 256, takes a seventh more time at 512 px and adds
nothing to an empty prompt."""


@dataclass(frozen=True)
class Preset:
    """Size of a network with its codec.

    Attributes:
        network: arguments of `SD3Transformer2DModel` or, without a `patch_size`, of
            `ConvolutionalDenoiser`; all but the channels, which follow.
        prompt_tokens: length of the empty prompt, which convolutions do not read.
        autoencoder: arguments of `AutoencoderKL`; None for the patch codec.
        patch_factor: pixels of a side of a latent cell of the patch codec; None for autoencoders.
        base_model_id: hub id of the weights to start from; None for random weights.
        depth_in_pixels: whether depth is coded by its pixels, beside an autoencoder too.
    """

    network: Mapping[str, Any]
    prompt_tokens: int = 1
    autoencoder: Mapping[str, Any] | None = None
    patch_factor: int | None = None
    base_model_id: str | None = None
    depth_in_pixels: bool = False

    def __post_init__(self) -> None:
        if (self.autoencoder is None) == (self.patch_factor is None):
            raise ValueError("a preset has either an autoencoder or a patch factor")

    @property
    def factor(self) -> int:
        """Pixels of a side of a latent cell."""
        if self.autoencoder is None:
            assert self.patch_factor is not None
            return self.patch_factor
        return 2 ** (len(self.autoencoder["block_out_channels"]) - 1)

    @property
    def image_channels(self) -> int:
        """Latent channels of an RGB image."""
        return self.autoencoder["latent_channels"] if self.autoencoder else 3 * self.factor**2

    @property
    def depth_channels(self) -> int:
        """Latent channels of a depth code."""
        if self.autoencoder is None or self.depth_in_pixels:
            return self.factor**2
        return self.image_channels

    @property
    def state_channels(self) -> int:
        """Channels of the state of the flow, image and depth."""
        return self.image_channels + self.depth_channels

    @property
    def condition_channels(self) -> int:
        """Channels of the conditioning without what only some networks see."""
        return self.condition_channels_with()

    def condition_channels_with(self, *, with_prior: bool = False, with_wide: bool = False) -> int:
        """Channels of the conditioning: latents of the fused image, then `condition_channels`."""
        return self.image_channels + condition_channels(
            self.factor, self.autoencoder is None, with_prior=with_prior, with_wide=with_wide
        )

    @property
    def prompt_channels(self) -> int:
        """Width of a token of the empty prompt."""
        return self.network.get("joint_attention_dim", 1)

    @property
    def pooled_prompt_channels(self) -> int:
        """Width of the pooled prompt."""
        return self.network.get("pooled_projection_dim", 1)

    @property
    def max_side_px(self) -> int:
        """Longest side of an image that the network takes at once; larger ones are tiled."""
        return self.factor * cells_of_token(self.network) * max_side_tokens(self.network)


def cells_of_token(network: Mapping[str, Any]) -> int:
    """Latent cells of a side of a transformer's token; 1 for a convolutional network."""
    return network.get("patch_size", 1)


def max_side_tokens(network: Mapping[str, Any]) -> int:
    """Longest side, in tokens or cells, that a network takes.

    The position embedding bounds a transformer; memory alone bounds a convolutional network.
    """
    return network.get("pos_embed_max_size", _MAX_SIDE_CELLS)


def _transformer(layers: int, heads: int, head_width: int, **arguments: Any) -> dict[str, Any]:
    return {
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": head_width,
        # The class has a separate width for text, and fails unless the two are equal.
        "caption_projection_dim": heads * head_width,
        "qk_norm": "rms_norm",
        **arguments,
    }


def _autoencoder(widths: tuple[int, ...], **arguments: Any) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        **arguments,
    }


def _sd35(size: str, *, layers: int, dual_layers: int, max_side_tokens: int) -> Preset:
    return Preset(
        _transformer(
            layers=layers,
            heads=layers,
            head_width=64,
            dual_attention_layers=tuple(range(dual_layers)),
            pos_embed_max_size=max_side_tokens,
            sample_size=128,
            patch_size=2,
            joint_attention_dim=4096,
            pooled_projection_dim=2048,
        ),
        prompt_tokens=77 + T5_TOKENS,  # CLIP reads 77
        autoencoder=_autoencoder(
            (128, 256, 512, 512), latent_channels=16, layers_per_block=2, sample_size=1024
        ),
        base_model_id=f"stabilityai/stable-diffusion-3.5-{size}",
    )


PRESETS: dict[str, Preset] = {
    "sd35-medium": _sd35("medium", layers=24, dual_layers=13, max_side_tokens=384),
    "sd35-large": _sd35("large", layers=38, dual_layers=0, max_side_tokens=192),
    # The one that is trained here and ships, see docs/compact.md. It sees 4 cells of 4 px to
    # either side: its conditioning carries what lies farther away.
    "compact": Preset({"width": 48}, patch_factor=4),
    # Medium in miniature, for tests: an autoencoder, both kinds of layers, five text tokens.
    "tiny": Preset(
        _transformer(
            layers=3,
            heads=2,
            head_width=16,
            dual_attention_layers=(0,),
            pos_embed_max_size=24,
            sample_size=16,
            patch_size=2,
            joint_attention_dim=48,
            pooled_projection_dim=24,
        ),
        prompt_tokens=5,
        autoencoder=_autoencoder(
            (4, 8, 8, 8), latent_channels=4, layers_per_block=1, sample_size=64, norm_num_groups=4
        ),
    ),
}
"""The networks by name: `tiny` is for tests."""


def preset_of(network: Mapping[str, Any], patch_factor: int | None) -> str | None:
    """Name of the preset of a network's configuration and its codec; None if there is none."""
    for name, preset in PRESETS.items():
        # In JSON, tuples and lists are the same.
        same = all(
            json.dumps(network.get(key)) == json.dumps(value)
            for key, value in preset.network.items()
        )
        if same and patch_factor == preset.patch_factor:
            return name
    return None
