"""From images and depth codes to the latents that the flow runs on, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from focaldiffusion.config.run import TrainingConfig


def autoencoder_dtype(training: TrainingConfig) -> torch.dtype:
    """Number format that an autoencoder computes in while a network trains."""
    frozen = "float32" if training.base_weights == "float32" else "bfloat16"
    formats = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return formats[training.autoencoder_weights or frozen]


@dataclass(frozen=True)
class VAECodec:
    """The autoencoder of Stable Diffusion 3.5, which sees depth as a grey image.

    Latents are (z - shift) · scale of the posterior's mode z, so that their variance is about
    one. Only this class applies that shift and scale. It computes in the dtype of the autoencoder
    and decodes to float32.

    Attributes:
        vae: not frozen here; gradients pass through it.
    """

    vae: AutoencoderKL

    @property
    def factor(self) -> int:
        """Pixels of a side of a latent cell."""
        return 2 ** (len(self.vae.config["block_out_channels"]) - 1)

    @property
    def channels(self) -> int:
        """Latent channels of an RGB image."""
        return self.vae.config["latent_channels"]

    @property
    def depth_channels(self) -> int:
        """Latent channels of a depth code, as many as of an image."""
        return self.channels

    def encode_image(self, rgb: Tensor) -> Tensor:
        """Latents (B, `channels`, h, w) of sRGB (B, 3, H, W) in [-1, 1]."""
        _check_size(rgb, self.factor)
        z = self.vae.encode(rgb.to(self.vae.dtype)).latent_dist.mode()
        shift, scale = self._shift_and_scale
        return (z - shift) * scale

    def encode_depth(self, code: Tensor) -> Tensor:
        """Latents (B, `depth_channels`, h, w) of a depth code (B, 1, H, W) in [-1, 1]."""
        return self.encode_image(code.expand(-1, 3, -1, -1))

    def decided_by(self, valid: Tensor) -> Tensor:
        """Mask (B, `depth_channels`, h, w) of the depth latents that only valid pixels decide."""
        _check_size(valid, self.factor)
        whole = -functional.max_pool2d(-valid.float(), self.factor) == 1
        return whole.expand(-1, self.depth_channels, -1, -1)

    def decode_image(self, latents: Tensor) -> Tensor:
        """The sRGB image (B, 3, H, W); may leave [-1, 1]."""
        shift, scale = self._shift_and_scale
        return self.vae.decode((latents / scale + shift).to(self.vae.dtype)).sample.float()

    def decode_depth(self, latents: Tensor) -> Tensor:
        """The depth code (B, 1, H, W), the mean of three channels; may leave [-1, 1]."""
        return self.decode_image(latents).mean(1, keepdim=True)

    @property
    def _shift_and_scale(self) -> tuple[float, float]:
        # Autoencoders older than SD3 declare no shift.
        return self.vae.config["shift_factor"] or 0.0, self.vae.config["scaling_factor"]


@dataclass(frozen=True)
class PatchCodec:
    """The pixels of a cell as its channels, without weights or loss.

    Attributes:
        factor: pixels of a side of a latent cell.
    """

    factor: int

    @property
    def channels(self) -> int:
        """Latent channels of an RGB image."""
        return 3 * self.factor**2

    @property
    def depth_channels(self) -> int:
        """Latent channels of a depth code."""
        return self.factor**2

    def encode_image(self, rgb: Tensor) -> Tensor:
        """Latents (B, `channels`, h, w) of sRGB (B, 3, H, W) in [-1, 1]."""
        _check_size(rgb, self.factor)
        return functional.pixel_unshuffle(rgb, self.factor)

    def encode_depth(self, code: Tensor) -> Tensor:
        """Latents (B, `depth_channels`, h, w) of a depth code (B, 1, H, W) in [-1, 1]."""
        return self.encode_image(code)

    def decided_by(self, valid: Tensor) -> Tensor:
        """Mask (B, `depth_channels`, h, w) of the depth latents that only valid pixels decide."""
        return self.encode_image(valid)

    def decode_image(self, latents: Tensor) -> Tensor:
        """The sRGB image (B, 3, H, W)."""
        return functional.pixel_shuffle(latents, self.factor)

    def decode_depth(self, latents: Tensor) -> Tensor:
        """The depth code (B, 1, H, W)."""
        return self.decode_image(latents)


@dataclass(frozen=True)
class PixelDepthCodec(VAECodec):
    """An autoencoder for the image; depth is coded by its pixels, as in `PatchCodec`."""

    @property
    def depth_channels(self) -> int:
        """Latent channels of a depth code."""
        return self._pixels.depth_channels

    def encode_depth(self, code: Tensor) -> Tensor:
        """Latents (B, `depth_channels`, h, w) of a depth code (B, 1, H, W) in [-1, 1]."""
        return self._pixels.encode_depth(code)

    def decided_by(self, valid: Tensor) -> Tensor:
        """Mask (B, `depth_channels`, h, w) of the depth latents that only valid pixels decide."""
        return self._pixels.decided_by(valid)

    def decode_depth(self, latents: Tensor) -> Tensor:
        """The depth code (B, 1, H, W)."""
        return self._pixels.decode_depth(latents)

    @property
    def _pixels(self) -> PatchCodec:
        return PatchCodec(self.factor)


LatentCodec = VAECodec | PatchCodec
"""The codec of a model. Both sides of an image have to divide by its `factor`: `pad` it first."""


def codec_of(vae: AutoencoderKL | None, patch_factor: int | None, in_pixels: bool) -> LatentCodec:
    """The codec of a model.

    Args:
        vae: its autoencoder; None for the patch codec.
        patch_factor: of the patch codec.
        in_pixels: whether depth is coded by its pixels beside an autoencoder.
    """
    if vae is None:
        assert patch_factor is not None
        return PatchCodec(patch_factor)
    return PixelDepthCodec(vae) if in_pixels else VAECodec(vae)


def encode_state(codec: LatentCodec, rgb: Tensor, depth_code: Tensor) -> Tensor:
    """The state of the flow, (B, `channels` + `depth_channels`, h, w): image first, then depth.

    Args:
        codec: of the model.
        rgb: (B, 3, H, W) sRGB in [-1, 1].
        depth_code: (B, 1, H, W) in [-1, 1].
    """
    return torch.cat([codec.encode_image(rgb), codec.encode_depth(depth_code)], dim=1)


def decode_state(codec: LatentCodec, state: Tensor) -> tuple[Tensor, Tensor]:
    """The image (B, 3, H, W) and the depth code (B, 1, H, W) of a state."""
    image, depth = state.split([codec.channels, codec.depth_channels], dim=1)
    return codec.decode_image(image), codec.decode_depth(depth)


def pad(planes: Tensor, multiple: int) -> Tensor:
    """Repeat the last row and column of (B, C, H, W) until both sides divide by `multiple`.

    See `Completer.multiple_px`.
    """
    height, width = planes.shape[-2:]
    if height % multiple == width % multiple == 0:
        return planes  # `pad` would copy them
    right, bottom = -width % multiple, -height % multiple
    if planes.shape[1] == 0:  # the maps of a prior that is not shown, which torch refuses to repeat
        return planes.new_empty((*planes.shape[:2], height + bottom, width + right))
    return functional.pad(planes, (0, right, 0, bottom), mode="replicate")


def unpad(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Undo `pad`: planes (B, C, H, W), cropped to their former (height, width)."""
    return planes[..., : size[0], : size[1]]


def _check_size(planes: Tensor, factor: int) -> None:
    # An autoencoder would drop the odd rows and columns silently.
    height, width = planes.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(
            f"{height}x{width} px, but latent cells are {factor}x{factor} px: pad the image first"
        )
