from __future__ import annotations

import numpy as np
import torch

from focaldiffusion.solve.planes import (
    MAX_PLANES,
    plane_basis,
    planes_beneath,
    planes_through,
    propose_planes,
)

SIZE = (96, 128)
HYPOTHESES = torch.linspace(0, 6, 61)
TOLERANCE = 0.1  # a step of the hypotheses


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def drawn(*coefficients: float) -> torch.Tensor:
    plane = torch.tensor(coefficients)
    return torch.einsum("c,chw->hw", plane, plane_basis(plane, *SIZE))


def farthest_off(planes: torch.Tensor, surface: torch.Tensor, where: torch.Tensor) -> float:
    """The largest distance in `where` between the surface and the plane nearest to it there."""
    fields = torch.einsum("pc,chw->phw", planes, plane_basis(planes, *SIZE))
    return float((fields - surface).abs()[:, where].amax(1).min())


def test_two_walls_are_found_among_outliers_and_noise():
    left = torch.arange(SIZE[1]).expand(SIZE) < 60
    walls = drawn(2.0, 0.5, 3.0), drawn(-1.5, -1.0, 2.0)
    random = generator()
    surface = torch.where(left, *walls) + 0.02 * torch.randn(SIZE, generator=random)
    wrong = torch.rand(SIZE, generator=random) < 0.3
    surface[wrong] = 6 * torch.rand(int(wrong.sum()), generator=random)
    certainty = (torch.rand(SIZE, generator=random) < 0.2).float()
    planes = propose_planes(surface, certainty, HYPOTHESES)
    assert farthest_off(planes[:4], walls[0], left) < TOLERANCE
    assert farthest_off(planes[:4], walls[1], ~left) < TOLERANCE


def test_a_small_board_gets_a_plane_of_its_own():
    board = torch.zeros(SIZE, dtype=torch.bool)
    board[30:50, 40:62] = True
    surface = torch.where(board, drawn(3.0, 0.0, 4.0), drawn(0.0, 1.0, 2.0))
    planes = propose_planes(surface, torch.ones(SIZE), HYPOTHESES)
    assert farthest_off(planes, drawn(3.0, 0.0, 4.0), board) < TOLERANCE
    assert farthest_off(planes, drawn(0.0, 1.0, 2.0), ~board) < TOLERANCE


def test_the_same_arguments_give_the_same_planes():
    random = generator()
    surface = drawn(2.0, 0.5, 3.0) + 0.2 * torch.randn(SIZE, generator=random)
    certainty = torch.rand(SIZE, generator=random)
    before = torch.random.get_rng_state()
    planes = propose_planes(surface, certainty, HYPOTHESES)
    assert 0 < len(planes) <= MAX_PLANES
    assert torch.equal(planes, propose_planes(surface, certainty, HYPOTHESES))
    assert torch.equal(before, torch.random.get_rng_state())


def test_uncertain_pixels_propose_nothing():
    assert propose_planes(drawn(2.0, 0.5, 3.0), torch.zeros(SIZE), HYPOTHESES).shape == (0, 3)


def test_noise_gives_no_plane():
    noise = 6 * torch.rand(SIZE, generator=generator())
    few = torch.zeros(SIZE)
    few[::16, ::16] = 1
    assert propose_planes(noise, few, HYPOTHESES).shape == (0, 3)


def test_a_floor_is_found_by_the_things_on_it():
    floor = drawn(0.0, 6.0, 3.0)
    surface, fronts = torch.zeros(SIZE), torch.zeros(SIZE)
    for top, bottom, left, right in (
        (20, 40, 10, 40),
        (40, 60, 70, 90),
        (50, 80, 30, 55),
        (10, 32, 95, 120),
    ):
        surface[top:bottom, left:right] = floor[bottom - 1, 0]
        fronts[top:bottom, left:right] = 1
    everywhere = torch.ones(SIZE, dtype=torch.bool)
    beneath = planes_beneath(surface, fronts, HYPOTHESES)
    assert farthest_off(beneath, floor, everywhere) < 2 * TOLERANCE
    assert farthest_off(propose_planes(surface, fronts, HYPOTHESES), floor, everywhere) > 1
    # A ball in front changes nothing, but a plane with something behind it is not a floor.
    surface[60:90, 90:110], fronts[60:90, 90:110] = 5.5, 1
    beneath = planes_beneath(surface, fronts, HYPOTHESES)
    assert farthest_off(beneath, floor, everywhere) < 2 * TOLERANCE
    surface[60:90, 90:110] = 1
    beneath = planes_beneath(surface, fronts, HYPOTHESES)
    assert farthest_off(beneath, floor, everywhere) > 1


def points_of(surface: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Basis and coordinate of forty pixels drawn from a surface."""
    where = torch.randint(surface.numel(), (40,), generator=generator())
    basis = plane_basis(surface, *SIZE).flatten(1)[:, where]
    return basis.double().numpy(), surface.flatten()[where].double().numpy()


def test_a_plane_passes_through_the_points_of_a_segment():
    basis, shown = points_of(drawn(2.0, 0.5, 3.0))
    shown[:4] = 5.5  # wrong, and hardly trusted
    weight = np.where(np.arange(len(shown)) < 4, 0.1, 1.0)
    best = planes_through(basis, shown, weight, HYPOTHESES.double().numpy())[0]
    assert np.abs(best @ basis - shown)[4:].max() < TOLERANCE


def test_level_points_give_a_level_plane():
    basis, shown = points_of(drawn(0.0, 0.0, 3.0))
    best = planes_through(basis, shown, np.ones(len(shown)), HYPOTHESES.double().numpy())[0]
    np.testing.assert_allclose(best, [0, 0, 3], atol=1e-5)


def test_too_few_points_give_no_plane():
    basis, shown = points_of(drawn(2.0, 0.5, 3.0))
    for few in (0, 7):
        arguments = basis[:, :few], shown[:few], np.ones(few)
        assert planes_through(*arguments, HYPOTHESES.double().numpy()).shape == (0, 3)


def test_without_certain_pixels_nothing_lies_beneath():
    assert planes_beneath(drawn(2.0, 0.5, 3.0), torch.zeros(SIZE), HYPOTHESES).shape == (0, 3)


def test_a_tiny_image_raises_no_error():
    for planes_of in (propose_planes, planes_beneath):
        assert planes_of(torch.zeros(3, 2), torch.ones(3, 2), HYPOTHESES).shape[1] == 3


def test_the_basis_is_centred_and_in_units_of_the_longer_side():
    u, v, one = plane_basis(torch.zeros(1), 4, 8)
    assert u[0].tolist() == [-0.5, -0.375, -0.25, -0.125, 0, 0.125, 0.25, 0.375]
    assert v[:, 0].tolist() == [-0.25, -0.125, 0, 0.125]
    assert (one == 1).all()
