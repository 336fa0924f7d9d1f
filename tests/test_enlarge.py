"""The maps of a result at native size."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from focaldiffusion.enlarge import enlarged
from focaldiffusion.fusion.fuse import Fusion
from focaldiffusion.stack import FocalStack

SIZE = (12, 16)
IMAGES = torch.rand(3, 3, *SIZE, generator=torch.Generator().manual_seed(0))
DISTANCES_M = torch.tensor([0.5, 1.0, 2.0])
POSITIONS_M = torch.tensor([3e-4, 2e-4, 1e-4])
STACKS = {
    "depth_m": FocalStack(IMAGES, focus_distances_m=DISTANCES_M),
    "height_m": FocalStack(IMAGES, focus_positions_m=POSITIONS_M),
    "depth_relative": FocalStack(IMAGES),
}
SPANS = {"depth_m": (0.5, 2.0), "height_m": (1e-4, 3e-4), "depth_relative": (0.0, 1.0)}
"""Coordinates on the axis."""


def maps(field: str, blur_px: float | None, alpha: np.ndarray | None = None, trust: float = 0.9):
    """Maps at twice the working size; over the span the blur grows by the given pixels."""
    low, high = SPANS[field]
    surface = torch.linspace(low, high, SIZE[1]).expand(SIZE).contiguous()
    image = np.full((2 * SIZE[0], 2 * SIZE[1], 3), 0.5, np.float32)
    fusion = Fusion(image, np.zeros(image.shape[:2], np.uint8), alpha)
    shares = {"confidence": torch.full(SIZE, trust)}
    scale = None if blur_px is None else blur_px / (high - low)
    return enlarged(STACKS[field], surface, shares, None, scale, fusion)


@pytest.mark.parametrize("field", SPANS)
def test_the_interval_holds_the_depth_in_its_unit(field: str) -> None:
    found = maps(field, 40.0)
    near, far = found["depth_near"], found["depth_far"]
    assert near.dtype == far.dtype == np.float32
    assert (near <= found[field]).all()
    assert (found[field] <= far).all()
    assert (near < far).all()
    wider = maps(field, 20.0)
    assert (wider["depth_near"] <= near).all()
    assert (wider["depth_far"] >= far).all()


def test_it_may_reach_to_infinity() -> None:
    found = maps("depth_m", 2.0, trust=0.05)
    assert (found["depth_far"] == np.inf).all()
    assert (found["depth_near"] > 0).all()
    assert np.isfinite(found["depth_m"]).all()


@pytest.mark.parametrize(("blur_px", "trust"), [(None, 0.5), (40.0, 0.0)])
def test_without_blur_or_trust_there_is_none(blur_px: float | None, trust: float) -> None:
    assert maps("depth_m", blur_px, trust=trust).keys() == {"depth_m", "confidence"}


def test_nothing_is_known_where_all_frames_are_transparent() -> None:
    alpha = np.ones((2 * SIZE[0], 2 * SIZE[1]), np.float32)
    alpha[:4] = 0
    found = maps("depth_m", 40.0, alpha)
    for name in ("depth_m", "depth_near", "depth_far"):
        assert np.isnan(found[name][:4]).all()
        assert not np.isnan(found[name][4:]).any()
    assert (found["confidence"][:4] == 0).all()


def test_a_surface_of_native_size_is_not_overwritten() -> None:
    surface = torch.linspace(0.5, 2.0, SIZE[1]).expand(SIZE).contiguous()
    before = surface.clone()
    fusion = Fusion(np.full((*SIZE, 3), 0.5, np.float32), np.zeros(SIZE, np.uint8))
    shares = {"confidence": torch.full(SIZE, 0.9)}
    found = enlarged(STACKS["depth_m"], surface, shares, None, 10.0, fusion)
    assert torch.equal(surface, before)
    np.testing.assert_allclose(found["depth_m"], 1 / before.numpy(), rtol=1e-6)
