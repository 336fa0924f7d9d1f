"""The sizes that the network comes in; Stable Diffusion 3.5's are its published configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from focaldiffusion.models.conditioning import Pooling, condition_channels

_MAX_SIDE_CELLS = 384
CLIP_TOKENS = 77
T5_TOKENS = 77
"""As in the paper. Those that diffusers pads an empty prompt to, 256, cost a seventh more time at
512 px and say nothing."""


@dataclass(frozen=True)
class Preset:
    """What a network of one size is made from.

    Attributes:
        network: arguments of its class but for the channels, which follow.
        kind: the class: `SD3Transformer2DModel`, or `ConvolutionalDenoiser`, which reads no prompt.
        prompt_tokens: length of the empty prompt.
        autoencoder: arguments of `AutoencoderKL`; None for the patch codec.
        patch_factor: pixels of a side of a latent cell of the patch codec; None for autoencoders.
        base_model_id: where the weights that it starts from are; None if it starts from none.
    """

    network: Mapping[str, Any]
    kind: Literal["transformer", "convolutional"] = "transformer"
    prompt_tokens: int = 1
    autoencoder: Mapping[str, Any] | None = None
    patch_factor: int | None = None
    base_model_id: str | None = None

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
    def pooling(self) -> Pooling:
        """How `latent_condition` brings maps to the latent grid, as the codec does with pixels."""
        return "unshuffled" if self.autoencoder is None else "extremes"

    @property
    def image_channels(self) -> int:
        """Latent channels of an RGB image: input and output of the network before widening."""
        return 3 * self.factor**2 if self.autoencoder is None else self._latent_channels

    @property
    def depth_channels(self) -> int:
        """Latent channels of a depth code."""
        return self.factor**2 if self.autoencoder is None else self._latent_channels

    @property
    def state_channels(self) -> int:
        """Channels of the state of the flow: image and depth."""
        return self.image_channels + self.depth_channels

    @property
    def condition_channels(self) -> int:
        """Channels of the conditioning: latents of the fused image, maps of the evidence."""
        return self.image_channels + condition_channels(self.factor, self.pooling)

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
        """Longest side that it takes; larger images are tiled."""
        return self.factor * cells_of_token(self.network) * max_side_tokens(self.network)

    @property
    def _latent_channels(self) -> int:
        assert self.autoencoder is not None
        return self.autoencoder["latent_channels"]


def cells_of_token(network: Mapping[str, Any]) -> int:
    """Latent cells of a side of a token of a transformer, or of the coarsest cell of a U-Net."""
    if "patch_size" in network:
        return network["patch_size"]
    return 2 ** (len(network["block_out_channels"]) - 1)


def max_side_tokens(network: Mapping[str, Any]) -> int:
    """Tokens, or coarsest cells, of the longest side that a network takes.

    A transformer is bound by its position embedding; a U-Net by memory alone.
    """
    return network.get("pos_embed_max_size", _MAX_SIDE_CELLS // cells_of_token(network))


def _transformer(layers: int, heads: int, head_width: int, **arguments: Any) -> dict[str, Any]:
    return {
        "num_layers": layers,
        "num_attention_heads": heads,
        "attention_head_dim": head_width,
        # The class takes a separate width of the text stream, and fails unless it is the same.
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


_SD35_SHARED = {
    "sample_size": 128,
    "patch_size": 2,
    "joint_attention_dim": 4096,
    "pooled_projection_dim": 2048,
}
_SD35_AUTOENCODER = _autoencoder(
    (128, 256, 512, 512), latent_channels=16, layers_per_block=2, sample_size=1024
)
_SD35_PROMPT_TOKENS = CLIP_TOKENS + T5_TOKENS

PRESETS: dict[str, Preset] = {
    "sd35-medium": Preset(
        _transformer(
            layers=24,
            heads=24,
            head_width=64,
            dual_attention_layers=tuple(range(13)),
            pos_embed_max_size=384,
            **_SD35_SHARED,
        ),
        prompt_tokens=_SD35_PROMPT_TOKENS,
        autoencoder=_SD35_AUTOENCODER,
        base_model_id="stabilityai/stable-diffusion-3.5-medium",
    ),
    "sd35-large": Preset(
        _transformer(
            layers=38,
            heads=38,
            head_width=64,
            dual_attention_layers=(),
            pos_embed_max_size=192,
            **_SD35_SHARED,
        ),
        prompt_tokens=_SD35_PROMPT_TOKENS,
        autoencoder=_SD35_AUTOENCODER,
        base_model_id="stabilityai/stable-diffusion-3.5-large",
    ),
    # The one that is trained here and ships: cells of 4 px at one scale, since its conditioning
    # tells what is farther away. See docs/compact.md for what it was chosen over.
    "compact": Preset(
        {"block_out_channels": (48,)},
        kind="convolutional",
        patch_factor=4,
    ),
    # The transformer of the same budget: at most 15 M numbers are saved, of which the square
    # position embedding for 1024 px takes 4.3 M. A width of 264 is the least above the 256 numbers
    # of the state in a cell: narrower, and predicting a velocity from noise fails (JiT,
    # 2511.13720). That leaves four layers.
    "compact-transformer": Preset(
        _transformer(
            layers=4,
            heads=11,
            head_width=24,
            dual_attention_layers=(),
            pos_embed_max_size=128,
            sample_size=128,
            patch_size=1,
            joint_attention_dim=8,
            pooled_projection_dim=8,
        ),
        patch_factor=8,
    ),
    # Medium in miniature, for tests: an autoencoder, both kinds of layers, text of some length.
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
