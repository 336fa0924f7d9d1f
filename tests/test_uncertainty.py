"""The interval of a depth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from focaldiffusion.solve.uncertainty import depth_interval


def test_the_interval_is_even_in_dioptres() -> None:
    found = depth_interval(2.0, 0.95, "depth_m", 20.0)
    assert found is not None
    low, high = (float(end) for end in found)
    assert low < 2 < high
    assert 1 / low - 1 / 2 == pytest.approx(1 / 2 - 1 / high)
    twice = depth_interval(2.0, 0.95, "depth_m", 40.0)
    assert twice is not None
    assert 1 / float(twice[0]) - 1 / 2 == pytest.approx((1 / low - 1 / 2) / 2)


def test_less_confidence_never_narrows_it() -> None:
    found = depth_interval(np.full(101, 1.0), np.linspace(0, 1, 101), "depth_m", 30.0)
    assert found is not None
    assert (np.diff(found[0]) >= 0).all()
    assert (np.diff(found[1]) <= 0).all()


def test_far_depths_reach_to_infinity_and_unknown_ones_from_somewhere() -> None:
    found = depth_interval([5.0, math.nan], [0.1, 0.9], "depth_m", 10.0)
    assert found is not None
    assert found[1].tolist() == [math.inf, math.inf]
    assert 0 < found[0][0] < 5
    assert 10 < found[0][1] < math.inf


def test_heights_and_places_have_their_own_unit() -> None:
    height = depth_interval(1e-5, 1.0, "height_m", 1e6)
    assert height is not None
    assert float(height[1]) - 1e-5 == pytest.approx(1e-5 - float(height[0]))
    place = depth_interval(0.99, 0.0, "depth_relative", 20.0)
    assert place is not None
    assert float(place[1]) == 1


def test_without_a_blur_nothing_is_known() -> None:
    assert depth_interval(1.0, 0.5, "depth_relative", None) is None
