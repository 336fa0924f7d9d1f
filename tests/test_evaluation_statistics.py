"""Means with their intervals, and differences with their verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focaldiffusion.evaluation.statistics import FEW_SCENES, difference, sample_mean

TEN = [f"scene {number}" for number in range(10)]


def test_two_scenes_on_paper() -> None:
    # Draws of two scenes: both A (mean 0), both B (1), one of each (1/4: A has three samples).
    found = sample_mean([0.0, 0.0, 0.0, 1.0], ["A", "A", "A", "B"])
    assert found.mean == 0.25
    assert found.interval == (0.0, 1.0)
    assert (found.samples, found.scenes, found.few_scenes) == (4, 2, True)


def test_equal_values_leave_no_doubt() -> None:
    assert sample_mean([0.5] * 10, TEN).interval == (0.5, 0.5)


def test_a_single_scene_has_no_interval() -> None:
    found = sample_mean([0.1, 0.2], ["A", "A"])
    assert found.mean == pytest.approx(0.15)
    assert found.interval is None
    assert found.few_scenes


def test_six_scenes_are_enough_and_five_are_few() -> None:
    assert FEW_SCENES == 6
    assert sample_mean([1.0] * 5, TEN[:5]).few_scenes
    assert not sample_mean([1.0] * 6, TEN[:6]).few_scenes


def test_more_images_of_the_same_scenes_make_no_mean_surer() -> None:
    values = np.random.default_rng(0).normal(size=10).tolist()
    once, often = sample_mean(values, TEN), sample_mean(values * 20, TEN * 20)
    assert once.interval == pytest.approx(often.interval)


@given(st.permutations(range(12)))
def test_the_order_of_samples_changes_nothing(order: list[int]) -> None:
    values = [(7 * place) % 12 / 12 for place in range(12)]
    scenes = [f"scene {place // 2}" for place in range(12)]
    shuffled = sample_mean([values[place] for place in order], [scenes[place] for place in order])
    assert shuffled.interval == pytest.approx(sample_mean(values, scenes).interval)


def test_agrees_with_an_independent_bootstrap() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).lognormal(size=30)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", random_state=2
    ).confidence_interval
    ours = sample_mean(values.tolist(), [str(place) for place in range(30)]).interval
    # Quantiles of 10 000 draws stray by about 2 % of the interval's width.
    assert ours == pytest.approx(tuple(theirs), abs=0.05 * (theirs.high - theirs.low))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    scenes = [f"scene {place // 3}" for place in range(90)]
    held = 0
    for _ in range(300):
        of_scene = np.repeat(generator.normal(size=30), 3)
        values = 5 + of_scene + 0.3 * generator.normal(size=90)
        low, high = sample_mean(values.tolist(), scenes).interval or (0, 0)
        held += low <= 5 <= high
    # 95 % of 300 is 285; percentile intervals of 30 scenes fall short by a percent or so, and
    # three binomial standard deviations are 11.
    assert 268 <= held <= 297


@pytest.mark.parametrize(
    ("better", "gain", "verdict"),
    [
        ("down", -0.1, "better"),
        ("down", 0.1, "worse"),
        ("up", 0.1, "better"),
        ("up", -0.1, "worse"),
    ],
)
def test_pairs_show_what_hard_scenes_hide(better: str, gain: float, verdict: str) -> None:
    # Scenes differ tenfold, so the means' intervals overlap; B differs by 10 % in each.
    a = np.linspace(0.1, 1, 10)
    b = a * (1 + gain)
    found = difference(a.tolist(), b.tolist(), TEN, better)  # type: ignore[arg-type]
    assert found.a == pytest.approx(0.55)
    assert found.change.mean == pytest.approx(0.55 * gain)
    assert found.b_better == (1.0 if verdict == "better" else 0.0)
    assert found.verdict == verdict
    low_a, high_a = sample_mean(a.tolist(), TEN).interval or (0, 0)
    assert low_a < found.b < high_a


def test_what_a_difference_cannot_show() -> None:
    a = [0.1] * 10
    seesaw = difference(a, [0.0, 0.2] * 5, TEN, "down")
    assert seesaw.verdict == "no difference that these scenes can show"
    assert seesaw.b_better == pytest.approx(0.5, abs=0.02)  # ties count half
    assert difference(a, a, TEN, "down").verdict == "equal"
    assert difference(a, a, TEN, "down").b_better == 0.5
    assert difference(a, [0.1 * (1 + 1e-9)] * 10, TEN, "down").verdict == "equal"
    assert difference(a[:5], [0.05] * 5, TEN[:5], "down").verdict == "too few scenes to tell"
    single = difference([0.1], [0.05], ["A"], "down")
    assert (single.b_better, single.verdict) == (None, "too few scenes to tell")


def test_exchanging_the_runs_mirrors_the_answer() -> None:
    generator = np.random.default_rng(4)
    a, b = generator.normal(size=10).tolist(), generator.normal(size=10).tolist()
    one, other = difference(a, b, TEN, "up"), difference(b, a, TEN, "up")
    assert one.change.interval is not None
    assert other.change.interval is not None
    assert one.change.interval == pytest.approx([-end for end in reversed(other.change.interval)])
    assert one.b_better == pytest.approx(1 - other.b_better)  # type: ignore[operator]
