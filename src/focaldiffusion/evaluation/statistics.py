"""Uncertainty of means: bootstrap over scenes.

Errors within a scene are correlated, so scenes are drawn, not images (a cluster bootstrap, Davison
and Hinkley 1997, section 3.8): N of N scenes with replacement, each with all its samples. The
interval lies between the 2.5 % and 97.5 % quantiles of the means of 10 000 draws. All metrics and
all runs share the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FEW_SCENES = 6
"""Fewest scenes that can show a difference: five scenes agree by chance once in 16."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 0

_Better = Literal["up", "down"]


@dataclass(frozen=True)
class SampleMean:
    """A mean over samples.

    Attributes:
        mean: over the samples.
        interval: 95 % confidence interval; None with a single scene.
        samples: number of samples.
        scenes: number of scenes they show.
        spread: standard deviation of the mean over repeats with other seeds; None without.
    """

    mean: float
    interval: tuple[float, float] | None
    samples: int
    scenes: int
    spread: float | None = None

    @property
    def few_scenes(self) -> bool:
        """Whether there are too few scenes for a trustworthy interval."""
        return self.scenes < FEW_SCENES


@dataclass(frozen=True)
class Difference:
    """Two models on the same samples.

    Attributes:
        a, b: means of the first and the second.
        change: mean of b - a, with its interval.
        b_better: share of draws in which B is better, ties counting half; None with one scene.
        better: the direction of improvement.
    """

    a: float
    b: float
    change: SampleMean
    b_better: float | None
    better: _Better

    @property
    def verdict(self) -> str:
        """How B compares with A, in words."""
        if self.change.interval is None:
            return "too few scenes to tell"
        low, high = self.change.interval
        # Summation order alone changes this much between machines.
        if max(-low, high) <= 1e-6 * max(abs(self.a), abs(self.b)):
            return "equal"
        if self.change.few_scenes:
            return "too few scenes to tell"
        if low <= 0 <= high:
            return "no difference that these scenes can show"
        return "better" if (low > 0) == (self.better == "up") else "worse"


def sample_mean(values: Sequence[float], scenes: Sequence[str]) -> SampleMean:
    """Mean over samples with its confidence interval.

    Args:
        values: one per sample, at least one, finite.
        scenes: the scene of each sample.
    """
    means = _means(values, scenes)
    interval = None
    if means is not None:
        low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()
        interval = low, high
    return SampleMean(float(np.mean(values)), interval, len(values), len(set(scenes)))


def difference(
    a: Sequence[float], b: Sequence[float], scenes: Sequence[str], better: _Better
) -> Difference:
    """Difference of two models sample by sample, so that shared difficulty cancels.

    Args:
        a, b: values of both models, one per sample, at least one, finite.
        scenes: the scene of each sample.
        better: the direction of improvement.
    """
    changes = [two - one for one, two in zip(a, b, strict=True)]
    means = _means(changes, scenes)
    b_better = None
    if means is not None:
        gain = means if better == "up" else -means
        b_better = float((gain > 0).mean() + 0.5 * (gain == 0).mean())
    return Difference(
        float(np.mean(a)), float(np.mean(b)), sample_mean(changes, scenes), b_better, better
    )


def _means(values: Sequence[float], scenes: Sequence[str]) -> NDArray[np.float64] | None:
    """Means of the draws, (RESAMPLES,); None with a single scene."""
    names, scene = np.unique(np.asarray(scenes), return_inverse=True)
    if len(names) < 2:
        return None
    draws = _draws(len(names))
    sums = np.bincount(scene, weights=np.asarray(values, np.float64))
    counts = np.bincount(scene).astype(np.float64)
    means: NDArray[np.float64] = (draws @ sums) / (draws @ counts)
    return means


@lru_cache(maxsize=2)
def _draws(scenes: int) -> NDArray[np.float64]:
    """How often each draw takes each scene, (RESAMPLES, scenes)."""
    generator = np.random.default_rng(_SEED)
    drawn = generator.multinomial(scenes, np.full(scenes, 1 / scenes), size=RESAMPLES)
    return drawn.astype(np.float64)
