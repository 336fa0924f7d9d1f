from __future__ import annotations

import torch
from sample_stacks import BLUR_SCALE_PX_M, SIZE, photograph, texture

from focaldiffusion.psf import PSF, MirrorGrid
from focaldiffusion.solve.plane_fit import LONGEST_REACH_PX, Luma, PlaneFit, _Transfers
from focaldiffusion.solve.sweep import sweep
from focaldiffusion.strips import in_strips, with_margin
from focaldiffusion.threads import threads


def test_interpolated_transfer_functions_are_those_of_the_radius():
    grid, options = MirrorGrid((48, 64), 20), {"dtype": torch.float32, "device": "cpu"}
    transfers = _Transfers(grid, PSF(), options)
    radii_px = torch.tensor([0.0, 0.1, 0.36, 1.6, 7.13, 19.9])
    transfers.prepare(radii_px)
    (found,) = transfers.at(radii_px[None])
    error = (found - grid.quadrant(PSF(), radii_px)).abs()
    assert 0 < error.max() < 5e-3  # at the corner, where |f| = 0.7
    low = error[:, : error.shape[1] // 2, : error.shape[2] // 2]
    assert low.max() < 5e-4  # at half the Nyquist frequency and below


def test_double_precision_is_not_interpolated():
    grid, options = MirrorGrid((48, 64), 20), {"dtype": torch.float64, "device": "cpu"}
    radii_px = torch.tensor([1.6], dtype=torch.float64)
    transfers = _Transfers(grid, PSF(), options)
    transfers.prepare(radii_px)
    (found,) = transfers.at(radii_px[None])
    assert torch.equal(found, grid.quadrant(PSF(), radii_px))


def test_the_misfit_is_the_sum_over_the_frames():
    stack = photograph(texture(), 0.8)
    fit = PlaneFit(Luma.of(stack), LONGEST_REACH_PX, PSF())
    radii_px = torch.tensor([[0.3, 1.0, 2.2, 4.0], [0.0, 0.7, 1.9, 3.7], [1.0, 0.1, 1.1, 2.9]])
    of_frames = torch.stack(list(fit.misfits_of_frames(radii_px)))
    assert of_frames.shape == (3, 4, *SIZE)
    torch.testing.assert_close(torch.cat(list(fit.misfits(radii_px))), of_frames.sum(1))


def test_two_threads_give_the_bits_of_one():
    stack = photograph(texture(), 0.8)
    found = []
    for count in (1, 2):
        with threads(count), torch.inference_mode():
            found.append(sweep(stack, BLUR_SCALE_PX_M, PSF()))
    for name in ("posterior", "sharpest", "all_in_focus", "never_sharp"):
        assert torch.equal(*(getattr(one, name) for one in found))


def test_strips_join_to_the_whole(monkeypatch):
    volume = torch.rand(3, 77, 5)
    monkeypatch.setattr("focaldiffusion.strips._OF_A_CACHE", 50)
    shape, device = volume.shape, volume.device
    doubled = in_strips(lambda rows: volume[:, rows] * 2, shape, device, multiple=2)
    assert torch.equal(doubled, volume * 2)
    halved = in_strips(lambda rows: volume[:, rows][:, ::2], shape, device, multiple=2)
    assert torch.equal(halved, volume[:, ::2])
    leaf = volume.clone().requires_grad_()
    in_strips(lambda rows: leaf[:, rows] * 2, shape, device).sum().backward()
    assert (leaf.grad == 2).all()


def test_a_margin_ends_at_the_first_row():
    values = list(range(20))
    for rows in (slice(0, 4), slice(6, 12), slice(15, 20)):
        around, inside = with_margin(rows, 3)
        assert values[around][inside] == values[rows]
        assert values[around] == values[max(rows.start - 3, 0) : rows.stop + 3]
