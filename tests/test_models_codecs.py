from __future__ import annotations

import pytest
import torch
from conftest import TOLERANCE
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from focaldiffusion.models.codecs import (
    LatentCodec,
    PatchCodec,
    PixelDepthCodec,
    VAECodec,
    decode_state,
    encode_state,
    pad,
    unpad,
)

SHIFT, SCALE = 0.0609, 1.5305  # of SD3.5


def vae(**changes: float) -> AutoencoderKL:
    """The class of SD3.5's autoencoder, tiny, random and with its shift and scale."""
    torch.manual_seed(0)
    config = {"shift_factor": SHIFT, "scaling_factor": SCALE} | changes
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 8),
        latent_channels=4,
        norm_num_groups=4,
        use_quant_conv=False,
        use_post_quant_conv=False,
        **config,
    ).eval()


def pixels(channels: int, height: int = 16, width: int = 24, count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 2 * torch.rand(count, channels, height, width, generator=generator) - 1


CODECS: dict[str, LatentCodec] = {
    "vae": VAECodec(vae()),
    "patch": PatchCodec(4),
    "pixels of depth": PixelDepthCodec(vae()),
}
each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS.keys())


# All codecs


@each_codec
@torch.no_grad()
def test_shapes(codec):
    image, depth = codec.encode_image(pixels(3)), codec.encode_depth(pixels(1))
    assert codec.factor == 4
    assert image.shape == (2, codec.channels, 4, 6)
    assert depth.shape == (2, codec.depth_channels, 4, 6)
    assert codec.decode_image(image).shape == (2, 3, 16, 24)
    assert codec.decode_depth(depth).shape == (2, 1, 16, 24)


@each_codec
@torch.no_grad()
def test_a_batch_equals_singles(codec):
    image, depth = pixels(3), pixels(1)
    state = encode_state(codec, image, depth)
    singles = [encode_state(codec, image[i : i + 1], depth[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(state, torch.cat(singles), **TOLERANCE[torch.float32])


@each_codec
@torch.no_grad()
def test_state_is_the_image_then_the_depth(codec):
    image, depth = pixels(3), pixels(1)
    state = encode_state(codec, image, depth)
    assert torch.equal(state[:, : codec.channels], codec.encode_image(image))
    assert torch.equal(state[:, codec.channels :], codec.encode_depth(depth))
    rgb, code = decode_state(codec, state)
    assert torch.equal(rgb, codec.decode_image(state[:, : codec.channels]))
    assert torch.equal(code, codec.decode_depth(state[:, codec.channels :]))


@each_codec
@pytest.mark.parametrize("size", [(18, 24), (16, 25)])
def test_a_size_that_cells_do_not_divide_is_refused(codec, size):
    expected = f"{size[0]}x{size[1]} px, but latent cells are 4x4 px: pad the image first"
    for encode, channels in ((codec.encode_image, 3), (codec.encode_depth, 1)):
        with pytest.raises(ValueError, match=expected):
            encode(pixels(channels, *size))


@each_codec
@torch.no_grad()
def test_latents_are_decided_by_valid_pixels_of_their_cell(codec):
    valid = torch.ones(2, 1, 16, 24, dtype=torch.bool)
    valid[1, 0, 5, 10] = False  # in cell (1, 2), at row 1 and column 2 of it
    decided = codec.decided_by(valid)
    assert decided.dtype == torch.bool
    assert decided.shape == (2, codec.depth_channels, 4, 6)
    expected = torch.ones(2, codec.depth_channels, 4, 6, dtype=torch.bool)
    in_pixels = isinstance(codec, PatchCodec | PixelDepthCodec)
    channels = [1 * 4 + 2] if in_pixels else range(codec.depth_channels)
    for channel in channels:
        expected[1, channel, 1, 2] = False
    assert torch.equal(decided, expected)


@each_codec
def test_gradients_reach_the_latents(codec):
    """A loss on the decoded depth trains what made the latents."""
    latents = torch.randn(1, codec.depth_channels, 2, 2, requires_grad=True)
    codec.decode_depth(latents).square().sum().backward()
    assert latents.grad is not None
    assert float(latents.grad.flatten(2).abs().amax(2).min()) > 0


# The patch codec


@given(
    factor=st.integers(1, 5),
    cells=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_patch_codec_returns_every_bit(factor, cells, dtype):
    codec = PatchCodec(factor)
    height, width = (factor * count for count in cells)
    image, depth = (pixels(channels, height, width).to(dtype) for channels in (3, 1))
    rgb, code = decode_state(codec, encode_state(codec, image, depth))
    assert torch.equal(rgb, image)
    assert torch.equal(code, depth)


def test_a_cell_of_the_patch_codec_by_hand():
    code = torch.arange(16.0).reshape(1, 1, 4, 4)
    latents = PatchCodec(2).encode_depth(code)
    assert latents[0, :, 0, 1].tolist() == [2, 3, 6, 7]  # the upper right cell, row by row


@torch.no_grad()
def test_depth_in_pixels_is_exact_beside_the_latents_of_an_image():
    codec, plain, image, code = PixelDepthCodec(vae()), VAECodec(vae()), pixels(3), pixels(1)
    state = encode_state(codec, image, code)
    assert torch.equal(decode_state(codec, state)[1], code)
    assert torch.equal(state[:, : plain.channels], plain.encode_image(image))


# The autoencoder


@torch.no_grad()
def test_latents_are_shifted_then_scaled_mode():
    model = vae()
    mode = model.encode(pixels(3)).latent_dist.mode()
    torch.testing.assert_close(VAECodec(model).encode_image(pixels(3)), (mode - SHIFT) * SCALE)


@torch.no_grad()
def test_decoding_undoes_shift_and_scale():
    model = vae()
    codec = VAECodec(model)
    expected = model.decode(model.encode(pixels(3)).latent_dist.mode()).sample
    found = codec.decode_image(codec.encode_image(pixels(3)))
    torch.testing.assert_close(found, expected, **TOLERANCE[torch.float32])


@torch.no_grad()
def test_shift_and_scale_are_those_of_the_autoencoder():
    """The same weights under another convention: other latents, the same picture."""
    ours = VAECodec(vae())
    other = VAECodec(vae(shift_factor=None, scaling_factor=0.2))
    ours_latents, other_latents = (codec.encode_image(pixels(3)) for codec in (ours, other))
    torch.testing.assert_close(other_latents / 0.2, ours_latents / SCALE + SHIFT)
    torch.testing.assert_close(
        other.decode_image(other_latents),
        ours.decode_image(ours_latents),
        **TOLERANCE[torch.float32],
    )


@torch.no_grad()
def test_depth_is_a_grey_image():
    codec = VAECodec(vae())
    depth = pixels(1)
    assert torch.equal(codec.encode_depth(depth), codec.encode_image(torch.cat([depth] * 3, 1)))
    latents = codec.encode_depth(depth)
    red, green, blue = codec.decode_image(latents).unbind(1)
    torch.testing.assert_close(codec.decode_depth(latents)[:, 0], (red + green + blue) / 3)


@torch.no_grad()
def test_the_autoencoder_keeps_its_dtype():
    codec = VAECodec(vae().bfloat16())
    latents = codec.encode_image(pixels(3))
    assert latents.dtype == torch.bfloat16
    exact = VAECodec(vae()).encode_image(pixels(3))
    assert float((latents.float() - exact).std() / exact.std()) < 0.03  # eight bits, ten layers
    decoded = codec.decode_depth(latents.float())
    assert decoded.dtype == torch.float32
    # The mean of three channels is finer than one of them.
    assert not torch.equal(decoded, decoded.bfloat16().float())


# Padding


@given(
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    multiple=st.sampled_from([1, 2, 8, 16]),
)
def test_padding_fills_the_last_cells_and_comes_off(size, multiple):
    planes = pixels(3, *size)
    padded = pad(planes, multiple)
    for side, before in zip(padded.shape[-2:], size, strict=True):
        assert side % multiple == 0
        assert before <= side < before + multiple
    assert torch.equal(unpad(padded, size), planes)


def test_padding_repeats_the_border():
    planes = torch.tensor([[1.0, 2.0, 3.0]])[None, None]
    assert pad(planes, 2)[0, 0].tolist() == [[1, 2, 3, 3], [1, 2, 3, 3]]
