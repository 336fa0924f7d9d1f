"""Sizes of the networks: Stable Diffusion 3.5's published ones, and our small ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import nn

from focaldiffusion.models.codecs import PatchCodec, VAECodec
from focaldiffusion.models.conditioning import (
    FEATURES,
    HISTOGRAM_BINS,
    SURROUNDINGS,
    Proposal,
    latent_condition,
)
from focaldiffusion.models.denoiser import build
from focaldiffusion.models.presets import PRESETS, Preset


def on_meta(preset: Preset) -> Any:
    with torch.device("meta"):
        return build(preset, "estimate")


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "count", "position_embedding"),
    [
        ("sd35-medium", 2_243_171_520, 384**2 * 1536),
        ("sd35-large", 8_056_627_520, 192**2 * 2432),
    ],
)
def test_bases_have_the_published_size(name: str, count: int, position_embedding: int) -> None:
    preset = PRESETS[name]
    channels = preset.image_channels
    with torch.device("meta"):
        base = SD3Transformer2DModel(**preset.network, in_channels=channels, out_channels=channels)
    assert parameters(base) == count
    assert sum(buffer.numel() for buffer in base.buffers()) == position_embedding
    width = base.inner_dim
    added_in = (preset.depth_channels + preset.condition_channels) * 2 * 2 * width
    added_out = preset.depth_channels * 2 * 2 * (width + 1)
    assert parameters(on_meta(preset)) == count + added_in + added_out


@pytest.mark.parametrize("name", ["sd35-medium", "sd35-large"])
def test_autoencoder_has_the_published_size(name: str) -> None:
    with torch.device("meta"):
        autoencoder = AutoencoderKL(**PRESETS[name].autoencoder)
    assert parameters(autoencoder) == 83_819_683


def test_dual_attention_is_in_the_first_thirteen_layers_of_medium_alone() -> None:
    for name, layers, dual in (("sd35-medium", 24, 13), ("sd35-large", 38, 0)):
        blocks = on_meta(PRESETS[name]).transformer_blocks
        assert [block.use_dual_attention for block in blocks] == [
            layer < dual for layer in range(layers)
        ]


def test_the_network_that_ships_is_small_and_sees_four_cells_around() -> None:
    network = build(PRESETS["compact"], "noise")
    assert parameters(network) <= 150_000
    for name, weight in network.named_parameters():
        if name.endswith("second.weight"):  # blocks start as the identity
            nn.init.ones_(weight)
    state = torch.randn(1, network.config["in_channels"], 1, 11)
    changed = state.clone()
    changed[..., 5] += 1
    outputs = (network(one, torch.zeros(1))[0] for one in (state, changed))
    differs = torch.ne(*outputs).any(1)[0, 0]
    assert differs.tolist() == [False] + [True] * 9 + [False]


@pytest.mark.parametrize("name", PRESETS)
def test_channels_are_those_of_codec_and_conditioning(name: str) -> None:
    preset = PRESETS[name]
    if preset.autoencoder is None:
        codec: PatchCodec | VAECodec = PatchCodec(preset.factor)
    else:
        with torch.device("meta"):
            codec = VAECodec(AutoencoderKL(**preset.autoencoder))
    assert codec.factor == preset.factor
    assert codec.channels == preset.image_channels
    assert codec.depth_channels == preset.depth_channels

    side = 2 * preset.factor
    proposal = Proposal(
        all_in_focus=torch.zeros(1, 3, side, side),
        depth_code=torch.zeros(1, 1, side, side),
        features=torch.zeros(1, len(FEATURES), side, side),
        histogram=torch.zeros(1, HISTOGRAM_BINS, side, side),
        surroundings=torch.zeros(1, SURROUNDINGS, side, side),
        prior=torch.zeros(1, 0, side, side),
        wide=torch.zeros(1, 0, side, side),
    )
    maps = latent_condition(proposal, codec.factor, isinstance(codec, PatchCodec))
    assert codec.channels + maps.shape[1] == preset.condition_channels


@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        ("sd35-medium", 768, 1024),
        ("sd35-large", 1024, 768),
        ("compact", 768, 1024),
        ("compact", 1536, 32),
        ("tiny", 384, 48),
    ],
)
def test_output_has_the_shape_of_the_state(name: str, height: int, width: int) -> None:
    preset = PRESETS[name]
    network = on_meta(preset)
    cells = (height // preset.factor, width // preset.factor)
    channels = preset.state_channels + preset.condition_channels
    with torch.device("meta"):
        velocity = network(
            hidden_states=torch.empty(2, channels, *cells),
            encoder_hidden_states=torch.empty(2, preset.prompt_tokens, preset.prompt_channels),
            pooled_projections=torch.empty(2, preset.pooled_prompt_channels),
            timestep=torch.empty(2),
            return_dict=False,
        )[0]
    assert velocity.shape == (2, preset.state_channels, *cells)


@pytest.mark.parametrize(
    "name", [name for name, preset in PRESETS.items() if "patch_size" in preset.network]
)
def test_max_side_is_where_the_position_embedding_ends(name: str) -> None:
    preset = PRESETS[name]
    embed = on_meta(preset).pos_embed
    side = preset.max_side_px // preset.factor
    assert embed.cropped_pos_embed(side, side).shape[1] == embed.pos_embed.shape[1]
    with pytest.raises(ValueError, match="cannot be greater than `pos_embed_max_size`"):
        embed.cropped_pos_embed(side + embed.patch_size, side)


def test_the_documented_sizes_are_those_of_the_presets() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
    for name, preset in PRESETS.items():
        if name == "tiny":
            continue
        (row,) = (line for line in page.splitlines() if re.match(rf"\| `{name}` \|", line))
        origin = f"`{preset.base_model_id}`" if preset.base_model_id else "random weights"
        assert row.endswith(f"| {origin} | {preset.max_side_px} px |")
        assert f"{preset.factor} px |" in row


def test_a_preset_has_one_codec() -> None:
    with pytest.raises(ValueError, match="either an autoencoder or a patch factor"):
        Preset({}, prompt_tokens=1)
