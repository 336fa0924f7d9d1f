"""Completer: a network with everything needed to run it on proposals, whole or in tiles."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from focaldiffusion.models.codecs import LatentCodec, PatchCodec, decode_state, pad, unpad
from focaldiffusion.models.conditioning import Proposal, latent_condition
from focaldiffusion.models.flow import Start, sample
from focaldiffusion.models.presets import cells_of_token, max_side_tokens
from focaldiffusion.progress import Meter

if TYPE_CHECKING:
    from diffusers.schedulers.scheduling_flow_match_euler_discrete import (
        FlowMatchEulerDiscreteScheduler,
    )

    from focaldiffusion.models.prompt import EmptyPrompt

Generators = torch.Generator | list[torch.Generator] | None
"""Generators of the noise: one for the batch, one for each sample, or torch's own."""

DEFAULT_STEPS: dict[Start, int] = {"estimate": 1, "noise": 4}
"""Number of steps along the flow, by its start."""

_MAD_TO_STD = 1.4826  # for a normal distribution
_OVERLAP_SHARE = 4  # neighbours share a quarter of a tile's side, less at most one `multiple`


@dataclass(frozen=True)
class Sampling:
    """How a learned model is run.

    Attributes:
        steps: along the flow; None for 1 from the physical estimate, 4 from noise.
        ensemble: number of members, of seeds `seed`, `seed` + 1, ...; their median counts.
        seed: of the noise.
        tile_px: longest side of a tile [px]; None for the longest that the model covers.
    """

    steps: int | None = None
    ensemble: int = 1
    seed: int = 0
    tile_px: int | None = None


@dataclass(frozen=True, eq=False)
class Completer:
    """Completes proposals: image and depth code, by one formula for either start of the flow.

    Attributes:
        denoiser: an `SD3Transformer2DModel`, widened for state and conditioning, or a
            `ConvolutionalDenoiser`.
        prompt: the empty prompt.
        scheduler: of the flow.
        codec: between images or depth codes and latents.
        start: of the flow.
        timestep: told to the network at noise level 1.
        device: of the computation. With offloading, the weights wait on another.
    """

    denoiser: Any
    prompt: EmptyPrompt
    scheduler: FlowMatchEulerDiscreteScheduler
    codec: LatentCodec
    start: Start
    timestep: float
    device: torch.device

    @property
    def multiple_px(self) -> int:
        """Pixels of a side of a token or cell, which both sides of an image divide by."""
        return self.codec.factor * cells_of_token(self.denoiser.config)

    @property
    def max_side_px(self) -> int:
        """Longest side of an image that the network takes at once; larger ones are tiled."""
        return self.multiple_px * max_side_tokens(self.denoiser.config)

    def condition(self, proposal: Proposal) -> Tensor:
        """Input channels that join the state: latents of the fused image, then maps.

        Args:
            proposal: on `device`, in whole latent cells.

        Returns:
            (B, C, h, w) float32.
        """
        keep_pixels = isinstance(self.codec, PatchCodec)
        maps = latent_condition(proposal, self.codec.factor, keep_pixels)
        return self.joined(proposal.all_in_focus, maps)

    def joined(self, image: Tensor, maps: Tensor) -> Tensor:
        """`condition` from the fused image (B, 3, H, W) and the maps of `latent_condition`."""
        return torch.cat([self.codec.encode_image(image).float(), maps], dim=1)

    @property
    def state_channels(self) -> int:
        """Channels of a state: image latents, then depth latents."""
        return self.codec.channels + self.codec.depth_channels

    def velocity(self, state: Tensor, sigma: Tensor, condition: Tensor) -> Tensor:
        """Velocity that the network predicts at a state of the flow, to sample and to train.

        Args:
            state: (B, C, h, w) image latents, then depth latents.
            sigma: (B,) noise level.
            condition: result of `condition`.

        Returns:
            (B, C, h, w) in the dtype of the network.
        """
        dtype = self.denoiser.dtype
        embeds, pooled = self.prompt(len(state))
        predicted: Tensor = self.denoiser(
            hidden_states=torch.cat([state, condition], dim=1).to(dtype),
            encoder_hidden_states=embeds.to(dtype),
            pooled_projections=pooled.to(dtype),
            timestep=self.timestep * sigma,  # not rounded to an integer
            return_dict=False,
        )[0]
        return predicted

    def predict(
        self,
        proposal: Proposal,
        steps: int,
        generator: Generators,
        *,
        with_image: bool,
        tile_px: int | None = None,
        meter: Meter | None = None,
    ) -> Tensor:
        """Follow the flow from its start to the end, in tiles where the image is too large.

        Args:
            proposal: (B, ..., H, W) of any size, on any device.
            steps: along the flow.
            generator: of the noise; `start: estimate` needs none.
            with_image: whether to decode the image as well.
            tile_px: longest side of a tile; None for `max_side_px`.
            meter: counts the passes through the network; `passes` tells how many to expect.

        Returns:
            (B, 4, H, W) sRGB image and depth code, or (B, 1, H, W) the code alone, float32; may
            leave [-1, 1].
        """
        height, width = proposal.depth_code.shape[-2:]
        padded = proposal.map(lambda maps: pad(maps.to(self.device), self.multiple_px))
        batch, _, padded_height, padded_width = padded.depth_code.shape
        tiles = self._tiles((padded_height, padded_width), tile_px)
        meter = meter or Meter()
        noise = None
        if self.start == "noise":
            # One noise for the whole image, so that overlapping tiles agree.
            cells = (padded_height // self.codec.factor, padded_width // self.codec.factor)
            noise = self.noise((batch, self.state_channels, *cells), generator)

        def planes_of(tile: Tile) -> Tensor:
            part = padded.map(tile.of)
            condition = self.condition(part)

            def velocity(state: Tensor, sigma: Tensor) -> Tensor:
                predicted = self.velocity(state, sigma, condition)
                meter.advance()
                return predicted

            if noise is None:
                start = self.estimate(part.depth_code, condition)
            else:
                start = tile.of(noise, self.codec.factor)
            state = sample(velocity, start, steps, self.scheduler)
            if with_image:
                return torch.cat(decode_state(self.codec, state), dim=1)
            return self.codec.decode_depth(state[:, self.codec.channels :])

        planes = blend((padded_height, padded_width), ((tile, planes_of(tile)) for tile in tiles))
        return unpad(planes, (height, width))

    def passes(self, proposal: Proposal, steps: int, tile_px: int | None) -> int:
        """Number of passes through the network that `predict` takes."""
        height, width = proposal.depth_code.shape[-2:]
        padded = height + -height % self.multiple_px, width + -width % self.multiple_px
        return len(self._tiles(padded, tile_px)) * steps

    def _tiles(self, padded_size: tuple[int, int], tile_px: int | None) -> list[Tile]:
        side_px = (tile_px or self.max_side_px) // self.multiple_px * self.multiple_px
        return tiles_of(padded_size, side_px, self.multiple_px)

    def estimate(self, depth_code: Tensor, condition: Tensor) -> Tensor:
        """Start of the flow at the physical estimate: a state (B, C, h, w), float32.

        Args:
            depth_code: (B, 1, H, W) of the proposal that `condition` was made from.
            condition: begins with the latents of the image.
        """
        image = condition[:, : self.codec.channels]
        return torch.cat([image, self.codec.encode_depth(depth_code).float()], dim=1)

    def noise(self, shape: tuple[int, ...], generator: Generators) -> Tensor:
        """Noise of the shape of a state (B, C, h, w), on `device`; generators are on the CPU."""
        from diffusers.utils.torch_utils import randn_tensor

        return randn_tensor(shape, generator, self.device)


@dataclass(frozen=True)
class Tile:
    """A rectangle of an image.

    Attributes:
        top: first row [px].
        left: first column [px].
        size: (height, width) [px].
    """

    top: int
    left: int
    size: tuple[int, int]

    def of(self, planes: Tensor, cell_px: int = 1) -> Tensor:
        """This part of (..., H, W) planes, in cells with sides of `cell_px` pixels."""
        top, left, height, width = (side // cell_px for side in (self.top, self.left, *self.size))
        return planes[..., top : top + height, left : left + width]


def tiles_of(size: tuple[int, int], side_px: int, multiple: int) -> list[Tile]:
    """Even tiles that cover an image, row by row.

    Args:
        size: (height, width) of the image, multiples of `multiple`.
        side_px: longest side of a tile, at least four times `multiple` and a multiple of it.
        multiple: pixels whose multiples tiles begin and end at.

    Returns:
        The tiles; a single one if the image fits.
    """
    height, width = (min(side, side_px) for side in size)
    return [
        Tile(top, left, (height, width))
        for top in _starts(size[0], height, multiple)
        for left in _starts(size[1], width, multiple)
    ]


def blend(size: tuple[int, int], parts: Iterable[tuple[Tile, Tensor]]) -> Tensor:
    """Join tiles into one image (B, C, H, W), each fading linearly into its neighbours.

    Args:
        size: (height, width) of the image that `tiles_of` was given.
        parts: every tile with its result (B, C, h, w).
    """
    total = weight_sum = None
    for tile, part in parts:
        if total is None or weight_sum is None:
            total = part.new_zeros(*part.shape[:2], *size)
            weight_sum = part.new_zeros(size)
        rows = _weight(tile.top, tile.size[0], size[0])
        columns = _weight(tile.left, tile.size[1], size[1])
        weight = (rows[:, None] * columns).to(part)
        tile.of(total).add_(weight * part)
        tile.of(weight_sum).add_(weight)
    if total is None or weight_sum is None:
        raise ValueError("no tile to blend")
    return total / weight_sum


def median_and_spread(members: Tensor) -> tuple[Tensor, Tensor]:
    """Median over the first dimension, and a standard deviation from the median deviation."""

    def median(values: Tensor) -> Tensor:
        ordered, last = values.sort(0).values, len(values) - 1
        return (ordered[last // 2] + ordered[(last + 1) // 2]) / 2

    middle = median(members)
    return middle, _MAD_TO_STD * median((members - middle).abs())


def _starts(length: int, side: int, multiple: int) -> list[int]:
    """Even starts of tiles along one axis; the last tile ends with the image."""
    if side == length:
        return [0]
    steps = math.ceil((length - side) / (side - side / _OVERLAP_SHARE))
    return [index * (length - side) // steps // multiple * multiple for index in range(steps + 1)]


def _weight(start: int, side: int, length: int) -> Tensor:
    """(side,) weight of a tile along one axis: ramps over overlaps, 1 at the image's border."""
    ramp_px = side / _OVERLAP_SHARE
    position = torch.arange(side) + 0.5
    weight = torch.ones(side)
    if start > 0:
        weight = torch.minimum(weight, position / ramp_px)
    if start + side < length:
        weight = torch.minimum(weight, (side - position) / ramp_px)
    return weight
