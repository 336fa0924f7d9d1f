"""Means of the trusted surface: against sums written out, and on scenes of two colours."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from focaldiffusion.models import surroundings as module
from focaldiffusion.models.surroundings import (
    EDGE_REACHES,
    LOOKALIKES,
    SURROUNDINGS,
    WINDOWS,
    surroundings,
)

WALL, CARD = -0.6, 0.7
"""Codes of the near and of the far surface."""
MEANS = len(WINDOWS) + len(EDGE_REACHES) + len(LOOKALIKES)


def of(codes: Tensor, trust: Tensor, image: Tensor | None = None) -> Tensor:
    """The maps of a surface whose coordinate is its code."""
    image = torch.zeros(3, *codes.shape) if image is None else image
    return surroundings(codes, codes, trust, image, lambda coordinate: coordinate.clamp(-1, 1))


def test_a_trusted_surface_of_one_depth_is_that_depth_everywhere() -> None:
    found = of(torch.full((48, 60), 0.3), torch.ones(48, 60), torch.rand(3, 48, 60))
    means, spreads, support = (found[index : 3 * MEANS : 3] for index in range(3))
    assert found.shape == (SURROUNDINGS, 48, 60)
    torch.testing.assert_close(means, torch.full_like(means, 0.3), rtol=0, atol=1e-5)
    assert spreads.max() < 2e-3
    assert support.min() > 0.999
    torch.testing.assert_close(found[-1], torch.full((48, 60), 0.3), rtol=0, atol=2e-3)


def test_a_wall_continues_over_untrusted_pixels() -> None:
    y, x = (torch.linspace(-1, 1, side) for side in (60, 80))
    wall = 0.3 * x + 0.2 * y[:, None]
    trust = torch.ones(60, 80)
    trust[15:45, 25:65] = 0
    found = of(torch.where(trust > 0, wall, torch.tensor(0.9)), trust)
    torch.testing.assert_close(found[-1], wall, rtol=0, atol=0.02)
    # In the middle of the hole the narrow windows see nothing to trust, the wide one does.
    middle = found[:, 30, 45]
    assert middle[2] < 0.01
    assert middle[5] < 0.01
    assert middle[8] > 0.4
    assert middle[6] == pytest.approx(float(wall[30, 45]), abs=0.1)


def two_colours(trust: Tensor) -> Tensor:
    """Maps of a red near half and a blue far half; what is not trusted claims the other depth."""
    left = (torch.arange(80) < 40).expand(60, 80)
    codes = torch.where(left == (trust > 0), WALL, CARD)
    image = torch.where(left, torch.tensor([1.0, -1, -1])[:, None, None], -1.0)
    image[2] = torch.where(left, -1.0, 1.0)
    return of(codes, trust, image)


def test_means_along_edges_stop_at_them_and_windows_do_not() -> None:
    trust = torch.ones(60, 80)
    trust[:, 34:46] = 0  # beside the border between the halves
    found = two_colours(trust)
    here = found[:, 30, 38]  # red
    edges = range(3 * len(WINDOWS), 3 * len(WINDOWS) + 3 * len(EDGE_REACHES), 3)
    for index in edges:
        assert here[index] == pytest.approx(WALL, abs=0.02)
        assert here[index + 1] < 0.15
    assert here[6] > WALL + 0.2, "a window has both"


def test_lookalikes_are_found_across_the_image() -> None:
    trust = torch.ones(60, 80)
    trust[:30] = 0
    trust[30:, 40:] = 1
    found = two_colours(trust)
    everywhere = 3 * (len(WINDOWS) + len(EDGE_REACHES) + 2)
    for column, expected in ((5, WALL), (75, CARD)):
        assert found[everywhere, 2, column] == pytest.approx(expected, abs=0.02)


def test_means_over_lookalikes_are_the_sums_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(3, 16, 20, generator=generator) * 2 - 1
    keys = torch.rand(6, 4, 5, generator=generator)
    found = module._over_lookalikes(colours, keys)
    colour, reach = LOOKALIKES[0]
    y, x = 7, 11
    sums, total = torch.zeros(3), 0.0
    for row in range(4):
        for column in range(5):
            look = keys[3:, row, column] / keys[0, row, column]
            unlike = (((look - colours[:, y, x]) / 2) ** 2).sum() / (2 * colour**2)
            # In shares of the long side: cells of a 20th, keys of a 5th.
            down, across = (row + 0.5) / 5 - (y + 0.5) / 20, (column + 0.5) / 5 - (x + 0.5) / 20
            away = (down**2 + across**2) / (2 * reach**2)
            weight = math.exp(-min(float(unlike + away), 20)) + 1e-6
            sums += weight * keys[:3, row, column]
            total += weight
    torch.testing.assert_close(found[0, :, y, x], sums / total, rtol=1e-4, atol=1e-6)


def test_means_along_edges_are_the_recursion_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    moments = torch.rand(3, 6, 9, generator=generator)
    colours = torch.rand(3, 6, 9, generator=generator)
    found = module._along_edges(moments, colours)
    for index, reach in enumerate(EDGE_REACHES):
        plane, sigma = moments.double().clone(), reach * 80
        for done in range(3):
            width = sigma * math.sqrt(3) * 2 ** (2 - done) / math.sqrt(4**3 - 1)
            for turned in (False, True):
                run = plane.transpose(1, 2) if turned else plane
                image = colours.transpose(1, 2) if turned else colours
                for order in (range(1, run.shape[2]), range(run.shape[2] - 2, -1, -1)):
                    for at in order:
                        before = at - 1 if order.step > 0 else at + 1
                        step = (image[:, :, at] - image[:, :, before]).abs().sum(0)
                        keep = math.e ** (-math.sqrt(2) / width * (1 + sigma / 0.4 * step))
                        run[:, :, at] += keep * (run[:, :, before] - run[:, :, at])
                plane = run.transpose(1, 2) if turned else run
        torch.testing.assert_close(found[index].double(), plane, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (33, 200), (300, 17)])
def test_any_size_gives_bounded_maps(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(size, generator=generator) * 2 - 1
    trust = torch.rand(size, generator=generator) * torch.randint(0, 2, size, generator=generator)
    image = torch.rand(3, *size, generator=generator) * 2 - 1
    found = of(codes, trust, image)
    assert found.shape == (SURROUNDINGS, *size)
    assert -1 <= found.min() <= found.max() <= 1
    nothing = of(codes, torch.zeros(size), image)
    assert nothing.isfinite().all()
    assert nothing[2 : 3 * MEANS : 3].max() < 1e-3


def test_a_mirror_shows_the_same_surroundings() -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.rand(60, 80, generator=generator) * 2 - 1
    trust = torch.rand(60, 80, generator=generator)
    image = torch.rand(3, 60, 80, generator=generator) * 2 - 1
    found, mirrored = of(codes, trust, image), of(codes.mT, trust.mT, image.mT)
    # The passes along edges go along rows before columns.
    exact = [index for index in range(SURROUNDINGS) if index // 3 not in (3, 4)]
    torch.testing.assert_close(mirrored.mT[exact], found[exact], rtol=0, atol=2e-3)
    torch.testing.assert_close(mirrored.mT, found, rtol=0, atol=0.2)
