"""The interval of a depth, and of a distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from focaldiffusion.solve.uncertainty import SHARE, coordinate_interval, distance_interval

AHEAD = np.array([[0.0, 0, 1], [0, 0, 1]])
LEVEL = torch.full((16, 20), 2.0)


def test_it_is_even_in_dioptres_and_halves_with_twice_the_blur() -> None:
    sure = torch.full_like(LEVEL, 0.9)
    low, high = coordinate_interval(LEVEL, sure, None, 20.0)
    torch.testing.assert_close(LEVEL - low, high - LEVEL)
    torch.testing.assert_close(
        coordinate_interval(LEVEL, sure, None, 40.0)[1] - LEVEL, (high - LEVEL) / 2
    )


def test_less_confidence_never_narrows_it() -> None:
    sure = torch.linspace(0, 1, 101).expand(3, 101)
    for competing in (None, torch.ones(2, 3, 101)):
        low, high = coordinate_interval(torch.ones(3, 101), sure, competing, 30.0)
        assert (low.diff() >= 0).all()
        assert (high.diff() <= 0).all()


def test_it_spans_what_competes_and_what_begins_beside() -> None:
    step = LEVEL.clone()
    step[:, 10:] = 3
    sure = torch.ones_like(step)
    low, high = coordinate_interval(step, sure, None, 100.0)
    assert (low[:, 10] < 2).all()
    assert (high[:, 9] > 3).all()
    assert (high[:, 7] < 2.1).all()
    low, high = coordinate_interval(step, sure, torch.stack([step - 1, step + 2]), 100.0)
    assert (low < step - 1).all()
    assert (high > step + 2).all()


def test_a_distance_along_one_ray_is_between_those_of_the_ends() -> None:
    low, high = distance_interval(AHEAD, [(0.9, 1.0, 1.1), (1.9, 2.0, 2.2)])
    assert 0.8 < low < 1 < high < 1.3
    # If one depth is exact, the distance is as uncertain as the other one.
    low, high = distance_interval(AHEAD, [(1.0, 1.0, 1.0), (1.9, 2.0, 2.2)])
    assert low == pytest.approx(0.9, abs=0.03)
    assert high == pytest.approx(1.2, abs=0.06)


def test_a_distance_holds_the_share_of_drawn_depths() -> None:
    rays = np.array([[0.1, 0.2, 1], [-0.3, 0, 1]])
    spans = [(1.5, 2.0, 2.8), (1.2, 1.3, 1.5)]
    low, high = distance_interval(rays, spans)
    random, points = np.random.default_rng(0), []
    for ray, (near, depth, far) in zip(rays, spans, strict=True):
        reach = random.exponential(1 / -math.log(1 - SHARE), 100_000)
        nearer = random.random(100_000) < 0.5
        inverse = 1 / depth + reach * np.where(nearer, 1 / near - 1 / depth, 1 / far - 1 / depth)
        points.append(ray / np.maximum(inverse, 1e-9)[:, None])
    apart = np.linalg.norm(points[0] - points[1], axis=1)
    assert ((apart >= low) & (apart <= high)).mean() == pytest.approx(SHARE, abs=0.02)


def test_a_distance_may_be_infinite_or_nothing() -> None:
    assert distance_interval(AHEAD, [(1, 2, math.inf), (1, 1, 1)])[1] == math.inf
    assert distance_interval(AHEAD, [(2, 2, 2), (2, 2, 2)]) == (0, 0)
