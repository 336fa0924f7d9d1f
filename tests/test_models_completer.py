from __future__ import annotations

import itertools

import pytest
import torch
from conftest import TOLERANCE
from hypothesis import given
from hypothesis import strategies as st

from focaldiffusion.checkpoints.pipeline import FocalDiffusionPipeline
from focaldiffusion.models.completer import Tile, blend, tiles_of
from focaldiffusion.models.presets import PRESETS

MULTIPLE = 8
TINY = PRESETS["tiny"]

sizes = st.tuples(*[st.integers(1, 40).map(lambda cells: cells * MULTIPLE)] * 2)
sides = st.integers(4, 16).map(lambda cells: cells * MULTIPLE)


def test_an_image_that_fits_is_one_tile():
    assert tiles_of((48, 64), 64, MULTIPLE) == [Tile(0, 0, (48, 64))]


def test_tiles_by_hand():
    # 96 columns in tiles of 64: 48 apart would be a quarter shared, so two; they share 32.
    assert tiles_of((64, 96), 64, MULTIPLE) == [Tile(0, 0, (64, 64)), Tile(0, 32, (64, 64))]


def test_a_tile_of_latents_is_that_of_its_pixels():
    pixels = torch.arange(12 * 16).reshape(1, 1, 12, 16)
    tile = Tile(4, 8, (8, 4))
    assert torch.equal(tile.of(pixels)[..., ::4, ::4], tile.of(pixels[..., ::4, ::4], cell_px=4))


@given(size=sizes, side_px=sides)
def test_tiles_cover_the_image_on_the_grid_and_share_borders(size, side_px):
    tiles = tiles_of(size, side_px, MULTIPLE)
    for axis, starts in enumerate(
        [sorted({tile.top for tile in tiles}), sorted({tile.left for tile in tiles})]
    ):
        side = tiles[0].size[axis]
        assert side == min(size[axis], side_px)
        assert starts[0] == 0
        assert starts[-1] + side == size[axis]
        for before, after in itertools.pairwise(starts):
            assert after % MULTIPLE == 0
            assert before + side - after >= max(MULTIPLE, side / 4 - MULTIPLE)


@given(size=sizes, side_px=sides)
def test_parts_that_agree_give_the_image_back(size, side_px):
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    tiles = tiles_of(size, side_px, MULTIPLE)
    blended = blend(size, ((tile, tile.of(image)) for tile in tiles))
    torch.testing.assert_close(blended, image, **TOLERANCE[torch.float32])
    if len(tiles) == 1:
        assert torch.equal(blended, image)


@given(size=sizes, side_px=sides, seed=st.integers(0, 99))
def test_parts_that_differ_leave_no_seam(size, side_px, seed):
    generator = torch.Generator().manual_seed(seed)
    tiles = tiles_of(size, side_px, MULTIPLE)
    # Each tile is of one grey: all that changes is the blending.
    greys = torch.rand(len(tiles), generator=generator)
    blended = blend(
        size,
        ((tile, grey.expand(1, 1, *tile.size)) for tile, grey in zip(tiles, greys, strict=True)),
    )
    assert blended.min() >= greys.min() - 1e-6
    assert blended.max() <= greys.max() + 1e-6
    # A hard border would be a step of `spread`. A ramp falls by 4 / side a pixel, and the weights
    # around it sum to half at least, where two tiles share less than a ramp.
    spread = float(greys.max() - greys.min())
    for axis in (-2, -1):
        side = min(side_px, size[axis])
        assert (blended.diff(dim=axis).abs() <= 2 * spread * 4 / side + 1e-6).all()


def test_nothing_to_blend_is_an_error():
    with pytest.raises(ValueError, match="no tile"):
        blend((8, 8), [])


def test_the_network_is_told_the_timestep_of_its_configuration(tmp_path):
    FocalDiffusionPipeline.from_preset("tiny", timestep=100).save_pretrained(tmp_path)
    completer = FocalDiffusionPipeline.from_pretrained(tmp_path).completer
    told = []
    completer.denoiser.register_forward_pre_hook(
        lambda _, __, inputs: told.append(inputs["timestep"]), with_kwargs=True
    )
    channels = TINY.state_channels, TINY.condition_channels
    state, condition = (torch.zeros(2, count, 8, 8) for count in channels)
    with torch.no_grad():
        completer.velocity(state, torch.tensor([1.0, 0.5]), condition)
    assert told[0].tolist() == [100, 50]
