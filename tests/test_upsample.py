from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from focaldiffusion.fusion.upsample import upsample
from focaldiffusion.threads import threads


def guide_of(luma: np.ndarray) -> np.ndarray:
    return np.repeat(luma[..., None], 3, axis=2).astype(np.float32)


def test_at_equal_size_the_map_is_returned_unchanged():
    values = torch.rand(20, 30, generator=torch.Generator().manual_seed(0))
    guide = guide_of(np.random.default_rng(0).random((20, 30)))
    np.testing.assert_array_equal(upsample(values, guide), values.numpy())


def test_a_constant_map_stays_constant_under_any_guide():
    guide = guide_of(np.random.default_rng(0).random((61, 90)))
    np.testing.assert_allclose(upsample(torch.full((20, 30), 0.7), guide), 0.7, rtol=1e-6)


def test_an_edge_of_the_map_follows_that_of_the_guide():
    # The guide's edge lies inside a pixel of the map, three eighths from its left side.
    factor, edge = 8, 8 * 20 + 3
    luma = np.where(np.arange(40 * factor) < edge, 0.2, 0.8)[None].repeat(24 * factor, 0)
    share = 3 / factor
    values = torch.where(torch.arange(40) < 20, 1.0, 3.0).expand(24, 40).clone()
    values[:, 20] = share * 1.0 + (1 - share) * 3.0
    result = upsample(values, guide_of(luma))
    middle = result[12 * factor]
    assert middle[edge - 1] < 1.2
    assert middle[edge] > 2.8
    # Plain enlargement puts the steepest step elsewhere and spreads it over a pixel of the map.
    assert np.abs(np.diff(middle)).argmax() == edge - 1


def test_texture_of_the_guide_leaves_no_relief_on_a_slope():
    factor = 6
    slope = torch.linspace(1, 2, 40).expand(30, 40).contiguous()
    noise = np.random.default_rng(0).random((30 * factor, 40 * factor)) * 0.3 + 0.3
    result = upsample(slope, guide_of(noise))
    x = (np.arange(40 * factor) + 0.5) / factor - 0.5
    expected = 1 + x / 39
    # Within three pixels of the map.
    inside = slice(4 * factor, -4 * factor)
    assert np.abs(result - expected)[:, inside].max() < 3 / 39


def test_threads_do_not_change_the_result():
    values = torch.rand(50, 60, generator=torch.Generator().manual_seed(0))
    guide = np.random.default_rng(0).random((333, 400, 3), np.float32)
    with threads(1):
        expected = upsample(values, guide)
    with threads(2):
        np.testing.assert_array_equal(upsample(values, guide), expected)


@given(
    seed=st.integers(0, 99),
    height=st.integers(20, 61),
    width=st.integers(30, 95),
)
@settings(deadline=None, max_examples=30)
def test_values_stay_within_the_map(seed, height, width):
    values = torch.rand(20, 30, generator=torch.Generator().manual_seed(seed)) * 5
    guide = guide_of(np.random.default_rng(seed).random((height, width)))
    result = upsample(values, guide)
    assert result.shape == (height, width)
    assert result.min() >= values.min().item()
    assert result.max() <= values.max().item()
