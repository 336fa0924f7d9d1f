"""Generated pixels instead of fused ones: their place, their share and their mark."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focaldiffusion.fusion.fuse import Fusion, fill
from focaldiffusion.optics import linear_to_srgb

WORKING = (30, 40)


def fusion(scale: int = 1, dtype: type = np.uint8) -> Fusion:
    size = (WORKING[0] * scale, WORKING[1] * scale)
    random = np.random.default_rng(0)
    return Fusion(
        random.random((*size, 3), dtype=np.float32), random.integers(0, 3, size).astype(dtype)
    )


def left_half() -> torch.Tensor:
    mask = torch.zeros(WORKING, dtype=torch.bool)
    mask[:, :20] = True
    return mask


@pytest.mark.parametrize("scale", [1, 3])
def test_pixels_outside_the_mask_keep_every_bit(scale: int) -> None:
    given = fusion(scale)
    filled = fill(given, torch.full((3, *WORKING), 0.25), left_half())
    outside = slice(20 * scale, None)
    np.testing.assert_array_equal(filled.all_in_focus[:, outside], given.all_in_focus[:, outside])
    np.testing.assert_array_equal(filled.source_index[:, outside], given.source_index[:, outside])


@pytest.mark.parametrize("size", [(30, 40), (90, 120), (77, 131)])
def test_concave_corners_keep_every_bit(size: tuple[int, int]) -> None:
    mask = torch.ones(WORKING, dtype=torch.bool)
    mask[:15, :20] = False  # an inner corner
    mask[22, 30] = False  # four of them around a single pixel
    random = np.random.default_rng(0)
    given = Fusion(random.random((*size, 3), dtype=np.float32), np.zeros(size, np.uint8))
    filled = fill(given, torch.full((3, *WORKING), 0.25), mask)
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int)
        for new, old in zip(size, WORKING, strict=True)
    )
    outside = ~mask.numpy()[rows[:, None], columns]
    np.testing.assert_array_equal(filled.all_in_focus[outside], given.all_in_focus[outside])
    assert (filled.source_index[outside] == 0).all()
    assert (filled.source_index == 255).mean() > 0.5


@pytest.mark.parametrize("scale", [1, 3])
def test_deep_inside_the_mask_the_generated_image_shows(scale: int) -> None:
    filled = fill(fusion(scale), torch.full((3, *WORKING), 0.25), left_half())
    # The mask's border is 5 px away at working resolution, where the fade-in ends.
    inside = filled.all_in_focus[:, : 14 * scale]
    np.testing.assert_allclose(inside, float(linear_to_srgb(torch.tensor(0.25))), atol=1e-6)


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize(("dtype", "mark"), [(np.uint8, 255), (np.uint16, 65535)])
def test_the_mark_is_on_every_pixel_that_changed(dtype: type, mark: int, scale: int) -> None:
    given = fusion(scale, dtype)
    filled = fill(given, torch.full((3, *WORKING), 2.0), left_half())
    changed = (filled.all_in_focus != given.all_in_focus).any(-1)
    marked = filled.source_index == mark
    assert filled.source_index.dtype == dtype
    np.testing.assert_array_equal(marked, changed)
    assert 0.4 < marked.mean() < 0.5
    # Values beyond white are shown as white.
    assert filled.all_in_focus.max() <= 1


def test_it_fades_in_evenly_from_the_border_of_the_mask() -> None:
    given = Fusion(np.zeros((*WORKING, 3), np.float32), np.zeros(WORKING, np.uint8))
    filled = fill(given, torch.ones(3, *WORKING), left_half())
    np.testing.assert_allclose(
        filled.all_in_focus[15, 13:22, 0], [1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0], atol=1e-5
    )


def test_an_empty_mask_changes_nothing_and_keeps_the_input() -> None:
    given = fusion()
    before = given.all_in_focus.copy()
    same = fill(given, torch.ones(3, *WORKING), torch.zeros(WORKING, dtype=torch.bool))
    np.testing.assert_array_equal(same.all_in_focus, before)
    np.testing.assert_array_equal(same.source_index, given.source_index)
    fill(given, torch.ones(3, *WORKING), left_half())
    np.testing.assert_array_equal(given.all_in_focus, before)
    assert given.source_index.max() < 3
