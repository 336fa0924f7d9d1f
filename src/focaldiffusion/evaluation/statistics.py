"""How sure a mean is: bootstrap over scenes.

Images of one scene err alike, so scenes are drawn, not images (a cluster bootstrap, Davison and
Hinkley 1997, section 3.8): so many scenes as there are, with replacement, each with all its
samples. The interval is that between the 2.5 % and 97.5 % quantiles of the means of 10 000 draws.
All metrics see the same draws, and every run makes the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FEW_SCENES = 6
"""From so many on a difference can be shown: five that agree do so by chance once in 16."""

RESAMPLES = 10_000
CONFIDENCE = 0.95
_SEED = 0

Better = Literal["up", "down"]


@dataclass(frozen=True)
class Estimate:
    """A mean over samples.

    Attributes:
        mean: over the samples.
        interval: its 95 % confidence interval; None with a single scene, which tells of no other.
        samples: how many there are.
        scenes: how many those are of.
    """

    mean: float
    interval: tuple[float, float] | None
    samples: int
    scenes: int

    @property
    def few_scenes(self) -> bool:
        """Whether the interval is of so few scenes that it is too narrow."""
        return self.scenes < FEW_SCENES


@dataclass(frozen=True)
class Difference:
    """Two models on the same samples.

    Attributes:
        a: mean of the first.
        b: mean of the second.
        change: mean of b - a, with its interval.
        b_better: share of the draws in which B is better, a tie counting half; None with a single
            scene.
        better: the direction of improvement.
    """

    a: float
    b: float
    change: Estimate
    b_better: float | None
    better: Better

    @property
    def verdict(self) -> str:
        """Of B, in words."""
        if self.change.interval is None:
            return "too few scenes to tell"
        low, high = self.change.interval
        # The order of a sum changes as much from machine to machine.
        if max(-low, high) <= 1e-6 * max(abs(self.a), abs(self.b)):
            return "equal"
        if self.change.few_scenes:
            return "too few scenes to tell"
        if low <= 0 <= high:
            return "no difference that these scenes can show"
        return "better" if (low > 0) == (self.better == "up") else "worse"


def estimate(values: Sequence[float], scenes: Sequence[str]) -> Estimate:
    """The mean of samples and its confidence interval.

    Args:
        values: one a sample, at least one, finite.
        scenes: that of each sample.
    """
    means = _means(values, scenes)
    interval = None
    if means is not None:
        tail = (1 - CONFIDENCE) / 2
        low, high = (float(end) for end in np.quantile(means, [tail, 1 - tail]))
        interval = low, high
    return Estimate(float(np.mean(values)), interval, len(values), len(set(scenes)))


def difference(
    a: Sequence[float], b: Sequence[float], scenes: Sequence[str], better: Better
) -> Difference:
    """Two models compared sample by sample, so that what is hard for both cancels.

    Args:
        a: the first model, one value a sample, at least one, finite.
        b: the second on the same samples.
        scenes: that of each sample.
        better: the direction of improvement.
    """
    changes = [two - one for one, two in zip(a, b, strict=True)]
    means = _means(changes, scenes)
    b_better = None
    if means is not None:
        gain = means if better == "up" else -means
        b_better = float((gain > 0).mean() + 0.5 * (gain == 0).mean())
    return Difference(
        float(np.mean(a)), float(np.mean(b)), estimate(changes, scenes), b_better, better
    )


def _means(values: Sequence[float], scenes: Sequence[str]) -> NDArray[np.float64] | None:
    """(RESAMPLES,) means of draws of scenes; None with a single scene."""
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
    """(RESAMPLES, scenes): how often each scene is drawn."""
    generator = np.random.default_rng(_SEED)
    drawn = generator.multinomial(scenes, np.full(scenes, 1 / scenes), size=RESAMPLES)
    return drawn.astype(np.float64)
