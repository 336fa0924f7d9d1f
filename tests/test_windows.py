"""Evidence of wide windows."""

from __future__ import annotations

import pytest
import torch
from sample_stacks import BLUR_SCALE_PX_M, FOCUS_M, SIZE, photograph, texture

from focaldiffusion.evidence import HALF_WINDOWS, Evidence
from focaldiffusion.psf import PSF
from focaldiffusion.solve.sharpness import sweep_sharpness
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.solve.windows import in_windows, wide_evidence
from focaldiffusion.stack import FocalStack

WINDOWS = len(HALF_WINDOWS)


def wide_of(stack: FocalStack) -> tuple[Evidence, torch.Tensor, torch.Tensor]:
    """Evidence, and the means and certainties (W, H, W') of its windows."""
    evidence = sweep(stack, BLUR_SCALE_PX_M, PSF())
    assert evidence.wide is not None
    return evidence, *evidence.wide.chunk(2)


def test_every_window_finds_a_textured_plane() -> None:
    depth_m = 0.8
    _, means, certainties = wide_of(photograph(texture(), depth_m))
    assert means.shape == (WINDOWS, *SIZE)
    # Half a pixel of blur.
    assert (means - 1 / depth_m).abs().median() * BLUR_SCALE_PX_M < 0.5
    assert certainties.median(dim=-1).values.median(dim=-1).values.diff().min() >= 0
    assert certainties[-1].min() > 0.8


def test_a_bare_wall_leaves_every_window_in_doubt() -> None:
    _, _, certainties = wide_of(photograph(0.4, 0.8))
    assert certainties.median() < 0.25


def test_a_wide_window_sees_texture_beside_a_bare_pixel() -> None:
    """Where the posterior is flat, the largest window has the depth of the texture beside it."""
    picture, depth_m, bare = texture(), 1.4, SIZE[1] // 2
    picture[..., bare:] = 0.2
    evidence, means, certainties = wide_of(photograph(picture, depth_m))
    assert SIZE[1] == 96  # blocks of 2 px; the largest window reaches 7 px beyond its block
    beside = (slice(10, -10), bare + 4)
    assert evidence.certainty[beside].median() < 0.1
    assert certainties[-1][beside].median() > 0.5
    assert (means[-1][beside] - 1 / depth_m).abs().median() * BLUR_SCALE_PX_M < 0.5


def test_windows_are_means_of_blocks() -> None:
    volume = torch.rand(2, 130, 250, generator=torch.Generator().manual_seed(0))
    side_px = 4  # 250 / 64, rounded
    found = in_windows(volume)
    for half_width, means in zip(HALF_WINDOWS, found, strict=True):
        assert means.shape == (2, 33, 63)  # the last blocks have two pixels
        row, column = 10, 20
        rows, columns = (
            slice(side_px * (at - half_width), side_px * (at + half_width + 1))
            for at in (row, column)
        )
        by_hand = volume[:, rows, columns].mean((1, 2))
        torch.testing.assert_close(means[:, row, column], by_hand)


def test_maps_are_the_moments_of_a_posterior_on_the_image() -> None:
    hypotheses, size = torch.tensor([0.0, 1.0, 3.0]), (5, 7)
    certain, flat = torch.tensor([1.0, 0.0, 1.0]), torch.full((3,), 0.5)
    doubts = [one[:, None, None].expand(3, *size) for one in (certain, flat)]
    means, certainties = wide_evidence(doubts, hypotheses, size).chunk(2)
    torch.testing.assert_close(means[0], torch.ones(size), atol=1e-5, rtol=0)
    torch.testing.assert_close(means[1], torch.full(size, 4 / 3))
    torch.testing.assert_close(certainties[0], torch.ones(size), atol=1e-5, rtol=0)
    torch.testing.assert_close(certainties[1], torch.zeros(size), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["order", "sharpness alone"])
def test_other_evidence_has_them_too(kind: str) -> None:
    known = photograph(texture(), 1 / torch.linspace(0.5, 2.0, SIZE[1]).expand(SIZE))
    if kind == "order":
        stack = FocalStack(known.images)
        span_px = BLUR_SCALE_PX_M * (1 / FOCUS_M[0] - 1 / FOCUS_M[-1])
        evidence = sweep(stack, span_px, PSF())
    else:
        evidence = sweep_sharpness(known)
    assert evidence.wide is not None
    means, certainties = evidence.wide.chunk(2)
    assert evidence.hypotheses[0] <= means.min() <= means.max() <= evidence.hypotheses[-1]
    assert 0 <= certainties.min() <= certainties.max() <= 1
    # As the posterior does, they follow the slope from left to right.
    slope, wanted = (
        one[:, 70:90].mean() - one[:, 10:30].mean() for one in (means[1], evidence.mean)
    )
    assert slope / wanted > 0.5
